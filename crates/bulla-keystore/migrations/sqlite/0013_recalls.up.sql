-- Each time that the database was found older than a statement of revocation that was told.

CREATE TABLE recalls (
    -- Incarnations and epochs that are made from now on are above it.
    base    INTEGER NOT NULL PRIMARY KEY CHECK (base >= 1),
    -- Of the statement that was told.
    epoch   INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;
