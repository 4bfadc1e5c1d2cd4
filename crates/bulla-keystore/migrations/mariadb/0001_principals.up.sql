-- Who exists and which keys they hold (protocol section 2).
-- Times are seconds since the Unix epoch. Columns named encrypted_* hold what src/kek/wrap.rs
-- makes: tied to table, column, name, incarnation and epoch of their row.

CREATE TABLE IF NOT EXISTS trust_domain (
    id             BIGINT       NOT NULL PRIMARY KEY CHECK (id = 1),
    name           VARCHAR(255) NOT NULL,
    -- The root public key, wrapped: whoever can write here can't put another one here.
    encrypted_root LONGBLOB     NOT NULL,
    kek_id         VARBINARY(8) NOT NULL CHECK (length(kek_id) = 8),
    created        BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS issuers (
    kid            VARBINARY(8) NOT NULL PRIMARY KEY CHECK (length(kid) = 8),
    -- "right" is a word of SQL's own.
    issuer_right   VARCHAR(255) NOT NULL,
    epoch          BIGINT       NOT NULL,
    credential     LONGBLOB     NOT NULL,
    encrypted_seed LONGBLOB     NOT NULL,
    not_after      BIGINT       NOT NULL,
    created        BIGINT       NOT NULL,
    UNIQUE (issuer_right, epoch)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS principals (
    id          BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    kind        VARCHAR(16)  NOT NULL CHECK (kind IN ('agent', 'component')),
    name        VARCHAR(255) NOT NULL,
    incarnation BIGINT       NOT NULL CHECK (incarnation >= 1),
    key_type    VARCHAR(16)  NOT NULL CHECK (key_type IN ('pair', 'shared')),
    suite       BIGINT       NOT NULL,
    -- Which of a component type's pair keys are current.
    pair_epoch  BIGINT       NOT NULL DEFAULT 1,
    state       VARCHAR(16)  NOT NULL CHECK (state IN ('active', 'deleted')),
    created     BIGINT       NOT NULL,
    updated     BIGINT       NOT NULL,
    deleted_at  BIGINT,
    -- A name has at most one living holder.
    living      VARCHAR(255) AS (IF(state = 'active', name, NULL)) STORED,
    UNIQUE (kind, name, incarnation),
    UNIQUE (kind, living)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS credentials (
    kid          VARBINARY(8)  NOT NULL PRIMARY KEY CHECK (length(kid) = 8),
    principal_id BIGINT        NOT NULL,
    -- agent: both keys; audience: a component type's KEM key; signing: one host's Ed25519 key.
    purpose      VARCHAR(16)   NOT NULL CHECK (purpose IN ('agent', 'audience', 'signing')),
    instance     VARCHAR(255),
    epoch        BIGINT        NOT NULL,
    bytes        LONGBLOB      NOT NULL,
    not_before   BIGINT        NOT NULL,
    not_after    BIGINT        NOT NULL,
    created      BIGINT        NOT NULL,
    INDEX credentials_current (principal_id, purpose, epoch, not_after),
    FOREIGN KEY (principal_id) REFERENCES principals (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- The table of the Trove specification "Secure oslo messaging", with incarnation, epoch and kid
-- added. A removed agent's row stays as a tombstone whose key is wiped.
CREATE TABLE IF NOT EXISTS instance_keys (
    id            VARCHAR(255)  NOT NULL PRIMARY KEY,
    instance_id   VARCHAR(255)  NOT NULL UNIQUE,
    encrypted_key VARCHAR(2048) NOT NULL,
    created       BIGINT        NOT NULL,
    updated       BIGINT        NOT NULL,
    deleted       BIGINT        NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    deleted_at    BIGINT,
    incarnation   BIGINT        NOT NULL,
    epoch         BIGINT        NOT NULL,
    kid           VARBINARY(8)  NOT NULL UNIQUE CHECK (length(kid) = 8),
    principal_id  BIGINT        NOT NULL UNIQUE,
    FOREIGN KEY (principal_id) REFERENCES principals (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS audience_keys (
    kid           VARBINARY(8) NOT NULL PRIMARY KEY,
    principal_id  BIGINT       NOT NULL,
    epoch         BIGINT       NOT NULL,
    suite         BIGINT       NOT NULL,
    -- Under the component type's own KEK.
    encrypted_key LONGBLOB     NOT NULL,
    created       BIGINT       NOT NULL,
    UNIQUE (principal_id, epoch),
    FOREIGN KEY (kid) REFERENCES credentials (kid),
    FOREIGN KEY (principal_id) REFERENCES principals (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- Only the names of pair keys: the keys are derived from the agent's own.
CREATE TABLE IF NOT EXISTS pair_keys (
    kid          VARBINARY(8) NOT NULL PRIMARY KEY CHECK (length(kid) = 8),
    agent_id     BIGINT       NOT NULL,
    component_id BIGINT       NOT NULL,
    pair_epoch   BIGINT       NOT NULL,
    created      BIGINT       NOT NULL,
    UNIQUE (agent_id, component_id, pair_epoch),
    FOREIGN KEY (agent_id) REFERENCES principals (id),
    FOREIGN KEY (component_id) REFERENCES principals (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
