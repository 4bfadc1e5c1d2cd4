-- Who exists and which keys they hold (protocol section 2).
-- Times are seconds since the Unix epoch. Columns named encrypted_* hold what src/kek/wrap.rs
-- makes: tied to table, column, name, incarnation and epoch of their row.

CREATE TABLE trust_domain (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    name         TEXT    NOT NULL,
    -- The root public key, wrapped: whoever can write the file can't put another one here.
    encrypted_root BLOB  NOT NULL,
    kek_id       BLOB    NOT NULL CHECK (length(kek_id) = 8),
    created      INTEGER NOT NULL
) STRICT;

CREATE TABLE issuers (
    kid            BLOB    PRIMARY KEY CHECK (length(kid) = 8),
    -- "right" is a word of SQL's own.
    issuer_right   TEXT    NOT NULL,
    epoch          INTEGER NOT NULL,
    credential     BLOB    NOT NULL,
    encrypted_seed BLOB    NOT NULL,
    not_after      INTEGER NOT NULL,
    created        INTEGER NOT NULL,
    UNIQUE (issuer_right, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE principals (
    id          INTEGER PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('agent', 'component')),
    name        TEXT    NOT NULL,
    incarnation INTEGER NOT NULL CHECK (incarnation >= 1),
    key_type    TEXT    NOT NULL CHECK (key_type IN ('pair', 'shared')),
    suite       INTEGER NOT NULL,
    -- Which of a component type's pair keys are current.
    pair_epoch  INTEGER NOT NULL DEFAULT 1,
    state       TEXT    NOT NULL CHECK (state IN ('active', 'deleted')),
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    deleted_at  INTEGER,
    UNIQUE (kind, name, incarnation)
) STRICT;

-- A name has at most one living holder; this is also what every look-up goes through.
CREATE UNIQUE INDEX principals_active ON principals (kind, name) WHERE state = 'active';

CREATE TABLE credentials (
    kid          BLOB    PRIMARY KEY CHECK (length(kid) = 8),
    principal_id INTEGER NOT NULL REFERENCES principals (id),
    -- agent: both keys; audience: a component type's KEM key; signing: one host's Ed25519 key.
    purpose      TEXT    NOT NULL CHECK (purpose IN ('agent', 'audience', 'signing')),
    instance     TEXT,
    epoch        INTEGER NOT NULL,
    bytes        BLOB    NOT NULL,
    not_before   INTEGER NOT NULL,
    not_after    INTEGER NOT NULL,
    created      INTEGER NOT NULL
) STRICT;

CREATE INDEX credentials_current ON credentials (principal_id, purpose, epoch, not_after);

-- The table of the Trove specification "Secure oslo messaging", with incarnation, epoch and kid
-- added. A removed agent's row stays as a tombstone whose key is wiped.
CREATE TABLE instance_keys (
    id            TEXT    PRIMARY KEY,
    instance_id   TEXT    NOT NULL UNIQUE,
    encrypted_key TEXT    NOT NULL,
    created       INTEGER NOT NULL,
    updated       INTEGER NOT NULL,
    deleted       INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    deleted_at    INTEGER,
    incarnation   INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    kid           BLOB    NOT NULL UNIQUE CHECK (length(kid) = 8),
    principal_id  INTEGER NOT NULL UNIQUE REFERENCES principals (id)
) STRICT;

CREATE TABLE audience_keys (
    kid           BLOB    PRIMARY KEY REFERENCES credentials (kid),
    principal_id  INTEGER NOT NULL REFERENCES principals (id),
    epoch         INTEGER NOT NULL,
    suite         INTEGER NOT NULL,
    -- Under the component type's own KEK.
    encrypted_key BLOB    NOT NULL,
    created       INTEGER NOT NULL,
    UNIQUE (principal_id, epoch)
) STRICT;

-- Only the names of pair keys: the keys are derived from the agent's own.
CREATE TABLE pair_keys (
    kid          BLOB    PRIMARY KEY CHECK (length(kid) = 8),
    agent_id     INTEGER NOT NULL REFERENCES principals (id),
    component_id INTEGER NOT NULL REFERENCES principals (id),
    pair_epoch   INTEGER NOT NULL,
    created      INTEGER NOT NULL,
    UNIQUE (agent_id, component_id, pair_epoch)
) STRICT;
