-- Policies: who may call what. Every activation stays, so that each can be gone back to.

CREATE TABLE policies (
    -- Counts the activations.
    version    INTEGER NOT NULL PRIMARY KEY CHECK (version >= 1),
    -- By a command, from the file of the settings, or back to an earlier version.
    origin     TEXT NOT NULL CHECK (origin IN ('command', 'file', 'rollback')),
    -- The version that a roll-back says again; 0 is the built-in rule.
    again_of   INTEGER,
    -- As a person wrote it; none for the built-in rule.
    source     TEXT,
    -- As the operator's issuer signed it.
    signed     BLOB NOT NULL,
    created    INTEGER NOT NULL
) STRICT;

-- What receivers go by: the active policy, and the one in the shadow. The sequence never falls:
-- receivers take no lower one.
CREATE TABLE policy_document (
    id         INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    sequence   INTEGER NOT NULL,
    signed     BLOB NOT NULL,
    -- The text of the policy in the shadow.
    shadow     TEXT
) STRICT;

-- What the policy in the shadow would decide otherwise, as receivers report it.
CREATE TABLE policy_differences (
    -- SHA-256 over all but the count and the time.
    id          BLOB NOT NULL PRIMARY KEY,
    sequence    INTEGER NOT NULL,
    receiver    TEXT NOT NULL,
    sender      TEXT NOT NULL,
    method      TEXT NOT NULL,
    allowed     INTEGER NOT NULL,
    rule        TEXT NOT NULL,
    shadow_rule TEXT NOT NULL,
    count       INTEGER NOT NULL,
    last        INTEGER NOT NULL
) STRICT;
