-- Revocation (protocol section 10), floors and exemptions (section 8).

-- Kids that count for nothing, and until when a statement has to list them.
CREATE TABLE revoked_kids (
    kid     BLOB    PRIMARY KEY CHECK (length(kid) = 8),
    until   INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The lowest that still counts of a principal; the two epochs are of that incarnation.
CREATE TABLE lowest_epochs (
    principal        TEXT    PRIMARY KEY,
    incarnation      INTEGER NOT NULL CHECK (incarnation >= 1),
    credential_epoch INTEGER NOT NULL,
    pair_epoch       INTEGER NOT NULL,
    until            INTEGER NOT NULL,
    created          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The newest statement. Its epoch never falls: receivers take no lower one.
CREATE TABLE statement (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    epoch     INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    bytes     BLOB    NOT NULL
) STRICT;

CREATE TABLE peer_floors (
    peer        TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    accepts     INTEGER NOT NULL,
    sends       INTEGER NOT NULL,
    target      INTEGER,
    PRIMARY KEY (peer, incarnation)
) STRICT, WITHOUT ROWID;

-- As the operator's issuer signed them.
CREATE TABLE exemptions (
    id     BLOB PRIMARY KEY,
    signed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What came in, by peer, method and level.
CREATE TABLE peer_census (
    peer        TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    method      TEXT    NOT NULL,
    level       INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    last        INTEGER NOT NULL,
    below       INTEGER NOT NULL,
    last_below  INTEGER NOT NULL,
    PRIMARY KEY (peer, incarnation, method, level)
) STRICT, WITHOUT ROWID;

-- Counts the changes of floors and exemptions, for other processes to see.
CREATE TABLE floor_generation (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    n   INTEGER NOT NULL
) STRICT;
INSERT INTO floor_generation VALUES (1, 1);
