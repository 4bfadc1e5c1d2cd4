-- Who exists and which keys they hold (protocol section 2).
-- Times are seconds since the Unix epoch. Columns named encrypted_* hold what src/kek/wrap.rs
-- makes: tied to table, column, name, incarnation and epoch of their row.

CREATE TABLE trust_domain (
    id             BIGINT           PRIMARY KEY CHECK (id = 1),
    name           TEXT COLLATE "C" NOT NULL,
    -- The root public key, wrapped: whoever can write here can't put another one here.
    encrypted_root BYTEA            NOT NULL,
    kek_id         BYTEA            NOT NULL CHECK (length(kek_id) = 8),
    created        BIGINT           NOT NULL
);

CREATE TABLE issuers (
    kid            BYTEA            PRIMARY KEY CHECK (length(kid) = 8),
    -- "right" is a word of SQL's own.
    issuer_right   TEXT COLLATE "C" NOT NULL,
    epoch          BIGINT           NOT NULL,
    credential     BYTEA            NOT NULL,
    encrypted_seed BYTEA            NOT NULL,
    not_after      BIGINT           NOT NULL,
    created        BIGINT           NOT NULL,
    UNIQUE (issuer_right, epoch)
);

CREATE TABLE principals (
    id          BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        TEXT COLLATE "C" NOT NULL CHECK (kind IN ('agent', 'component')),
    name        TEXT COLLATE "C" NOT NULL,
    incarnation BIGINT           NOT NULL CHECK (incarnation >= 1),
    key_type    TEXT COLLATE "C" NOT NULL CHECK (key_type IN ('pair', 'shared')),
    suite       BIGINT           NOT NULL,
    -- Which of a component type's pair keys are current.
    pair_epoch  BIGINT           NOT NULL DEFAULT 1,
    state       TEXT COLLATE "C" NOT NULL CHECK (state IN ('active', 'deleted')),
    created     BIGINT           NOT NULL,
    updated     BIGINT           NOT NULL,
    deleted_at  BIGINT,
    UNIQUE (kind, name, incarnation)
);

-- A name has at most one living holder; this is also what every look-up goes through.
CREATE UNIQUE INDEX principals_active ON principals (kind, name) WHERE state = 'active';

CREATE TABLE credentials (
    kid          BYTEA             PRIMARY KEY CHECK (length(kid) = 8),
    principal_id BIGINT            NOT NULL REFERENCES principals (id),
    -- agent: both keys; audience: a component type's KEM key; signing: one host's Ed25519 key.
    purpose      TEXT COLLATE "C"  NOT NULL CHECK (purpose IN ('agent', 'audience', 'signing')),
    instance     TEXT COLLATE "C",
    epoch        BIGINT            NOT NULL,
    bytes        BYTEA             NOT NULL,
    not_before   BIGINT            NOT NULL,
    not_after    BIGINT            NOT NULL,
    created      BIGINT            NOT NULL
);

CREATE INDEX credentials_current ON credentials (principal_id, purpose, epoch, not_after);

-- The table of the Trove specification "Secure oslo messaging", with incarnation, epoch and kid
-- added. A removed agent's row stays as a tombstone whose key is wiped.
CREATE TABLE instance_keys (
    id            TEXT COLLATE "C" PRIMARY KEY,
    instance_id   TEXT COLLATE "C" NOT NULL UNIQUE,
    encrypted_key TEXT COLLATE "C" NOT NULL,
    created       BIGINT           NOT NULL,
    updated       BIGINT           NOT NULL,
    deleted       BIGINT           NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    deleted_at    BIGINT,
    incarnation   BIGINT           NOT NULL,
    epoch         BIGINT           NOT NULL,
    kid           BYTEA            NOT NULL UNIQUE CHECK (length(kid) = 8),
    principal_id  BIGINT           NOT NULL UNIQUE REFERENCES principals (id)
);

CREATE TABLE audience_keys (
    kid           BYTEA  PRIMARY KEY REFERENCES credentials (kid),
    principal_id  BIGINT NOT NULL REFERENCES principals (id),
    epoch         BIGINT NOT NULL,
    suite         BIGINT NOT NULL,
    -- Under the component type's own KEK.
    encrypted_key BYTEA  NOT NULL,
    created       BIGINT NOT NULL,
    UNIQUE (principal_id, epoch)
);

-- Only the names of pair keys: the keys are derived from the agent's own.
CREATE TABLE pair_keys (
    kid          BYTEA  PRIMARY KEY CHECK (length(kid) = 8),
    agent_id     BIGINT NOT NULL REFERENCES principals (id),
    component_id BIGINT NOT NULL REFERENCES principals (id),
    pair_epoch   BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    UNIQUE (agent_id, component_id, pair_epoch)
);
