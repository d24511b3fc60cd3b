CREATE TABLE notes (
    -- UUID v7, so the order of ids is the order of creation: "newest first" needs no second column.
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    -- The limit as in the API, against a bug in its check.
    text text NOT NULL CHECK (char_length(text) <= 1000),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One account's notes from newest to oldest, from any point on (keyset pagination).
CREATE INDEX notes_account_id_id ON notes (account_id, id DESC);
