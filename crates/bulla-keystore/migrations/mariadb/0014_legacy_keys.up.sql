-- Keys of peers that do not seal yet: Trove's instance keys (`bulla keystore import-trove`). They are for the
-- adapter that reads Trove's serializer, and for nothing else.

CREATE TABLE IF NOT EXISTS legacy_keys (
    -- The instance's id, which is the agent's.
    name          VARCHAR(255) NOT NULL PRIMARY KEY,
    -- 1, and one more with each other key that Trove gave it.
    epoch         BIGINT       NOT NULL CHECK (epoch >= 1),
    encrypted_key LONGBLOB     NOT NULL,
    created       BIGINT       NOT NULL,
    updated       BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
