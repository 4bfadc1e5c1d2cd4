-- Access keys of the API's users. No program works with this version: the secrets are in clear.

CREATE TABLE access_keys (
    access_key_id TEXT    NOT NULL PRIMARY KEY,
    -- operator/NAME or program/NAME.
    api_user      TEXT    NOT NULL,
    -- Counts the keys of that user, removed ones too.
    epoch         INTEGER NOT NULL CHECK (epoch >= 1),
    created       INTEGER NOT NULL,
    last_used     INTEGER,
    expires       INTEGER,
    disabled      INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    -- A removed key's row stays without its secret.
    removed       INTEGER,
    secret_key    TEXT,
    UNIQUE (api_user, epoch)
) STRICT;
