-- Groups for fanout (protocol section 6): membership, and one key per epoch.

CREATE TABLE IF NOT EXISTS member_groups (
    id      BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name    VARCHAR(255) NOT NULL UNIQUE,
    -- The current epoch; rises whenever somebody leaves.
    epoch   BIGINT       NOT NULL CHECK (epoch >= 1),
    created BIGINT       NOT NULL,
    updated BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS group_members (
    group_id     BIGINT NOT NULL,
    principal_id BIGINT NOT NULL,
    created      BIGINT NOT NULL,
    PRIMARY KEY (group_id, principal_id),
    INDEX group_members_principal (principal_id),
    FOREIGN KEY (group_id) REFERENCES member_groups (id),
    FOREIGN KEY (principal_id) REFERENCES principals (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS group_keys (
    group_id      BIGINT   NOT NULL,
    epoch         BIGINT   NOT NULL,
    encrypted_key LONGBLOB NOT NULL,
    created       BIGINT   NOT NULL,
    PRIMARY KEY (group_id, epoch),
    FOREIGN KEY (group_id) REFERENCES member_groups (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
