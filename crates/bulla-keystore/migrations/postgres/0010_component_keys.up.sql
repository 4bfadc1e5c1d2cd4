-- What the hosts of a component type read with a database role of their own.

-- The roles that `bulla db grants` made.
CREATE TABLE database_roles (
    role      TEXT COLLATE "C" PRIMARY KEY,
    -- auditor, or component with its type.
    kind      TEXT COLLATE "C" NOT NULL CHECK (kind IN ('auditor', 'component')),
    component TEXT COLLATE "C" UNIQUE,
    created   BIGINT           NOT NULL
);

-- Copies of pair keys, group keys and the root public key under the type's own KEK.
CREATE TABLE component_keys (
    -- TYPE/agent/ID, TYPE/group/NAME or TYPE/root.
    name          TEXT COLLATE "C" NOT NULL,
    incarnation   BIGINT           NOT NULL,
    epoch         BIGINT           NOT NULL,
    component     TEXT COLLATE "C" NOT NULL,
    -- A pair key's.
    kid           BYTEA            UNIQUE,
    encrypted_key BYTEA            NOT NULL,
    created       BIGINT           NOT NULL,
    PRIMARY KEY (name, incarnation, epoch)
);
