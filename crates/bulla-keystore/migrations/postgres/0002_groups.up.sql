-- Groups for fanout (protocol section 6): membership, and one key per epoch.

CREATE TABLE member_groups (
    id      BIGINT           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    TEXT COLLATE "C" NOT NULL UNIQUE,
    -- The current epoch; rises whenever somebody leaves.
    epoch   BIGINT           NOT NULL CHECK (epoch >= 1),
    created BIGINT           NOT NULL,
    updated BIGINT           NOT NULL
);

CREATE TABLE group_members (
    group_id     BIGINT NOT NULL REFERENCES member_groups (id),
    principal_id BIGINT NOT NULL REFERENCES principals (id),
    created      BIGINT NOT NULL,
    PRIMARY KEY (group_id, principal_id)
);

CREATE INDEX group_members_principal ON group_members (principal_id);

CREATE TABLE group_keys (
    group_id      BIGINT NOT NULL REFERENCES member_groups (id),
    epoch         BIGINT NOT NULL,
    encrypted_key BYTEA  NOT NULL,
    created       BIGINT NOT NULL,
    PRIMARY KEY (group_id, epoch)
);
