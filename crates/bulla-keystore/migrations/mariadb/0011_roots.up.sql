-- Roots that followed the first one, which is in trust_domain.

CREATE TABLE IF NOT EXISTS roots (
    -- The first root has 1.
    sequence       BIGINT NOT NULL PRIMARY KEY CHECK (sequence > 1),
    -- The public key, wrapped: whoever can write here can't put another one in its place.
    encrypted_root LONGBLOB NOT NULL,
    -- As both roots signed it.
    announcement   LONGBLOB NOT NULL,
    -- When the root before it ends.
    former_until   BIGINT NOT NULL,
    created        BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
