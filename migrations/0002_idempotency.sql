-- Answers already given to requests that carried an `Idempotency-Key`, so that a repeat gets the same answer
-- instead of a second effect. Kept for 24 h.
CREATE TABLE idempotency_keys (
    -- Keys are chosen by clients: one account's keys must not meet another's.
    account_id uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    key text NOT NULL CHECK (char_length(key) <= 255),
    -- SHA-256 of method, route and body: the same key with another request is a mistake, not a repeat.
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    -- The answer, as far as it differs from one request to the next; every other header is made anew.
    -- Null until the answer is known.
    status smallint CHECK (status BETWEEN 200 AND 599),
    location text,
    etag text,
    -- Bytes rather than jsonb: a replay is the same answer to the last byte.
    body bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, key)
);

-- For deleting what is older than 24 h without reading the table.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
