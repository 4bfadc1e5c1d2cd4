-- Access keys of the API's users. No program works with this version: the secrets are in clear.

CREATE TABLE access_keys (
    access_key_id TEXT COLLATE "C" PRIMARY KEY,
    -- operator/NAME or program/NAME.
    api_user      TEXT COLLATE "C" NOT NULL,
    -- Counts the keys of that user, removed ones too.
    epoch         BIGINT           NOT NULL CHECK (epoch >= 1),
    created       BIGINT           NOT NULL,
    last_used     BIGINT,
    expires       BIGINT,
    disabled      BIGINT           NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    -- A removed key's row stays without its secret.
    removed       BIGINT,
    secret_key    TEXT COLLATE "C",
    UNIQUE (api_user, epoch)
);
