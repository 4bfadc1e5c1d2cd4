-- Revocation (protocol section 10), floors and exemptions (section 8).

-- Kids that count for nothing, and until when a statement has to list them.
CREATE TABLE revoked_kids (
    kid     BYTEA  PRIMARY KEY CHECK (length(kid) = 8),
    until   BIGINT NOT NULL,
    created BIGINT NOT NULL
);

-- The lowest that still counts of a principal; the two epochs are of that incarnation.
CREATE TABLE lowest_epochs (
    principal        TEXT COLLATE "C" PRIMARY KEY,
    incarnation      BIGINT           NOT NULL CHECK (incarnation >= 1),
    credential_epoch BIGINT           NOT NULL,
    pair_epoch       BIGINT           NOT NULL,
    until            BIGINT           NOT NULL,
    created          BIGINT           NOT NULL
);

-- The newest statement. Its epoch never falls: receivers take no lower one.
CREATE TABLE statement (
    id        BIGINT PRIMARY KEY CHECK (id = 1),
    epoch     BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    bytes     BYTEA  NOT NULL
);

CREATE TABLE peer_floors (
    peer        TEXT COLLATE "C" NOT NULL,
    incarnation BIGINT           NOT NULL,
    accepts     BIGINT           NOT NULL,
    sends       BIGINT           NOT NULL,
    target      BIGINT,
    PRIMARY KEY (peer, incarnation)
);

-- As the operator's issuer signed them.
CREATE TABLE exemptions (
    id     BYTEA PRIMARY KEY,
    signed BYTEA NOT NULL
);

-- What came in, by peer, method and level.
CREATE TABLE peer_census (
    peer        TEXT COLLATE "C" NOT NULL,
    incarnation BIGINT           NOT NULL,
    method      TEXT COLLATE "C" NOT NULL,
    level       BIGINT           NOT NULL,
    count       BIGINT           NOT NULL,
    last        BIGINT           NOT NULL,
    below       BIGINT           NOT NULL,
    last_below  BIGINT           NOT NULL,
    PRIMARY KEY (peer, incarnation, method, level)
);

-- Counts the changes of floors and exemptions, for other processes to see.
CREATE TABLE floor_generation (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    n   BIGINT NOT NULL
);
INSERT INTO floor_generation VALUES (1, 1);
