-- Who may sign in.
CREATE TABLE accounts (
    -- UUID v7, made by the service: known before the row is written, and rows land in the index in order.
    id uuid PRIMARY KEY,
    -- As the person typed it: that is the address to write to. Comparison ignores case, see the index below.
    -- The limit is the longest address that SMTP can carry; the service checks first, with a better message.
    email text NOT NULL CHECK (char_length(email) <= 254),
    -- A PHC string: it names its own algorithm and cost, so these can be raised without touching old rows.
    -- Each one begins with a dollar sign; a password kept by mistake hardly does.
    password_hash text NOT NULL CHECK (password_hash LIKE '$%'),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One account per address. The service tells 409 `email_taken` from other failures by this name.
CREATE UNIQUE INDEX accounts_email_key ON accounts (lower(email));
