-- Groups for fanout (protocol section 6): membership, and one key per epoch.

CREATE TABLE member_groups (
    id      INTEGER PRIMARY KEY,
    name    TEXT    NOT NULL UNIQUE,
    -- The current epoch; rises whenever somebody leaves.
    epoch   INTEGER NOT NULL CHECK (epoch >= 1),
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;

CREATE TABLE group_members (
    group_id     INTEGER NOT NULL REFERENCES member_groups (id),
    principal_id INTEGER NOT NULL REFERENCES principals (id),
    created      INTEGER NOT NULL,
    PRIMARY KEY (group_id, principal_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX group_members_principal ON group_members (principal_id);

CREATE TABLE group_keys (
    group_id      INTEGER NOT NULL REFERENCES member_groups (id),
    epoch         INTEGER NOT NULL,
    encrypted_key BLOB    NOT NULL,
    created       INTEGER NOT NULL,
    PRIMARY KEY (group_id, epoch)
) STRICT, WITHOUT ROWID;
