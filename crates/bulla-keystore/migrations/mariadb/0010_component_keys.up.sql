-- What the hosts of a component type read with a database role of their own.

-- The roles (here: users) that `bulla db grants` made.
CREATE TABLE IF NOT EXISTS database_roles (
    role      VARCHAR(128) NOT NULL PRIMARY KEY,
    -- auditor, or component with its type.
    kind      VARCHAR(16)  NOT NULL CHECK (kind IN ('auditor', 'component')),
    component VARCHAR(255) UNIQUE,
    created   BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- Copies of pair keys, group keys and the root public key under the type's own KEK.
CREATE TABLE IF NOT EXISTS component_keys (
    -- TYPE/agent/ID, TYPE/group/NAME or TYPE/root.
    name          VARCHAR(255) NOT NULL,
    incarnation   BIGINT       NOT NULL,
    epoch         BIGINT       NOT NULL,
    component     VARCHAR(255) NOT NULL,
    -- A pair key's.
    kid           VARBINARY(8) UNIQUE,
    encrypted_key LONGBLOB     NOT NULL,
    created       BIGINT       NOT NULL,
    PRIMARY KEY (name, incarnation, epoch)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
