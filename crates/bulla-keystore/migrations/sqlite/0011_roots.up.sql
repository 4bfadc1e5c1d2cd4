-- Roots that followed the first one, which is in trust_domain.

CREATE TABLE roots (
    -- The first root has 1.
    sequence       INTEGER NOT NULL PRIMARY KEY CHECK (sequence > 1),
    -- The public key, wrapped: whoever can write here can't put another one in its place.
    encrypted_root BLOB    NOT NULL,
    -- As both roots signed it.
    announcement   BLOB    NOT NULL,
    -- When the root before it ends.
    former_until   INTEGER NOT NULL,
    created        INTEGER NOT NULL
) STRICT;
