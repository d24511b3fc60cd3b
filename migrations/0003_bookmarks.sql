-- The example resource.
CREATE TABLE bookmarks (
    -- UUID v7, so the order of ids is the order of creation: "newest first" needs no second column.
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    -- Not unique: the same address may be kept twice. Limits as in the API, against a bug in its checks.
    url text NOT NULL CHECK (char_length(url) <= 2048),
    title text NOT NULL DEFAULT '' CHECK (char_length(title) <= 200),
    -- An array rather than a table of its own: tags are read and replaced together with their bookmark. No index on
    -- them either: the filter looks at one account's rows only, which the index below has already found.
    tags text[] NOT NULL DEFAULT '{}' CHECK (cardinality(tags) <= 20),
    -- Counts the changes; the ETag that `If-Match` is compared with.
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- One account's bookmarks from newest to oldest, from any point on (keyset pagination).
CREATE INDEX bookmarks_account_id_id ON bookmarks (account_id, id DESC);
