-- Access keys of the API's users. No program works with this version: the secrets are in clear.

CREATE TABLE IF NOT EXISTS access_keys (
    access_key_id VARCHAR(255)  NOT NULL PRIMARY KEY,
    -- operator/NAME or program/NAME.
    api_user      VARCHAR(255)  NOT NULL,
    -- Counts the keys of that user, removed ones too.
    epoch         BIGINT        NOT NULL CHECK (epoch >= 1),
    created       BIGINT        NOT NULL,
    last_used     BIGINT,
    expires       BIGINT,
    disabled      BIGINT        NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    -- A removed key's row stays without its secret.
    removed       BIGINT,
    secret_key    VARCHAR(2048),
    UNIQUE (api_user, epoch)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
