-- Revocation (protocol section 10), floors and exemptions (section 8).

-- Kids that count for nothing, and until when a statement has to list them.
CREATE TABLE IF NOT EXISTS revoked_kids (
    kid     VARBINARY(8) NOT NULL PRIMARY KEY CHECK (length(kid) = 8),
    until   BIGINT       NOT NULL,
    created BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- The lowest that still counts of a principal; the two epochs are of that incarnation.
CREATE TABLE IF NOT EXISTS lowest_epochs (
    principal        VARCHAR(255) NOT NULL PRIMARY KEY,
    incarnation      BIGINT       NOT NULL CHECK (incarnation >= 1),
    credential_epoch BIGINT       NOT NULL,
    pair_epoch       BIGINT       NOT NULL,
    until            BIGINT       NOT NULL,
    created          BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- The newest statement. Its epoch never falls: receivers take no lower one.
CREATE TABLE IF NOT EXISTS statement (
    id        BIGINT   NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch     BIGINT   NOT NULL,
    issued_at BIGINT   NOT NULL,
    bytes     LONGBLOB NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS peer_floors (
    peer        VARCHAR(255) NOT NULL,
    incarnation BIGINT       NOT NULL,
    accepts     BIGINT       NOT NULL,
    sends       BIGINT       NOT NULL,
    target      BIGINT,
    PRIMARY KEY (peer, incarnation)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- As the operator's issuer signed them.
CREATE TABLE IF NOT EXISTS exemptions (
    id     VARBINARY(8) NOT NULL PRIMARY KEY,
    signed LONGBLOB     NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- What came in, by peer, method and level.
CREATE TABLE IF NOT EXISTS peer_census (
    peer        VARCHAR(255) NOT NULL,
    incarnation BIGINT       NOT NULL,
    method      VARCHAR(255) NOT NULL,
    level       BIGINT       NOT NULL,
    count       BIGINT       NOT NULL,
    last        BIGINT       NOT NULL,
    below       BIGINT       NOT NULL,
    last_below  BIGINT       NOT NULL,
    PRIMARY KEY (peer, incarnation, method, level)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- Counts the changes of floors and exemptions, for other processes to see.
CREATE TABLE IF NOT EXISTS floor_generation (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    n   BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
INSERT IGNORE INTO floor_generation VALUES (1, 1);
