-- Policies: who may call what. Every activation stays, so that each can be gone back to.

CREATE TABLE IF NOT EXISTS policies (
    -- Counts the activations.
    version    BIGINT NOT NULL PRIMARY KEY CHECK (version >= 1),
    -- By a command, from the file of the settings, or back to an earlier version.
    origin     VARCHAR(8) NOT NULL CHECK (origin IN ('command', 'file', 'rollback')),
    -- The version that a roll-back says again; 0 is the built-in rule.
    again_of   BIGINT,
    -- As a person wrote it; none for the built-in rule.
    source     LONGTEXT,
    -- As the operator's issuer signed it.
    signed     LONGBLOB NOT NULL,
    created    BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- What receivers go by: the active policy, and the one in the shadow. The sequence never falls:
-- receivers take no lower one.
CREATE TABLE IF NOT EXISTS policy_document (
    id         BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    sequence   BIGINT NOT NULL,
    signed     LONGBLOB NOT NULL,
    -- The text of the policy in the shadow.
    shadow     LONGTEXT
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- What the policy in the shadow would decide otherwise, as receivers report it.
CREATE TABLE IF NOT EXISTS policy_differences (
    -- SHA-256 over all but the count and the time.
    id          VARBINARY(32) NOT NULL PRIMARY KEY,
    sequence    BIGINT NOT NULL,
    receiver    VARCHAR(160) NOT NULL,
    sender      VARCHAR(160) NOT NULL,
    method      VARCHAR(320) NOT NULL,
    allowed     BIGINT NOT NULL,
    rule        VARCHAR(160) NOT NULL,
    shadow_rule VARCHAR(160) NOT NULL,
    count       BIGINT NOT NULL,
    last        BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
