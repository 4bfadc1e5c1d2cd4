-- Each time that the database was found older than a statement of revocation that was told.

CREATE TABLE IF NOT EXISTS recalls (
    -- Incarnations and epochs that are made from now on are above it.
    base    BIGINT NOT NULL PRIMARY KEY CHECK (base >= 1),
    -- Of the statement that was told.
    epoch   BIGINT NOT NULL,
    created BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
