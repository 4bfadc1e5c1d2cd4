-- What the hosts of a component type read with a database role of their own.

-- The roles that `bulla db grants` made; none here, where there are no roles.
CREATE TABLE database_roles (
    role      TEXT    NOT NULL PRIMARY KEY,
    -- auditor, or component with its type.
    kind      TEXT    NOT NULL CHECK (kind IN ('auditor', 'component')),
    component TEXT    UNIQUE,
    created   INTEGER NOT NULL
) STRICT;

-- Copies of pair keys, group keys and the root public key under the type's own KEK.
CREATE TABLE component_keys (
    -- TYPE/agent/ID, TYPE/group/NAME or TYPE/root.
    name          TEXT    NOT NULL,
    incarnation   INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    component     TEXT    NOT NULL,
    -- A pair key's.
    kid           BLOB    UNIQUE,
    encrypted_key BLOB    NOT NULL,
    created       INTEGER NOT NULL,
    PRIMARY KEY (name, incarnation, epoch)
) STRICT;
