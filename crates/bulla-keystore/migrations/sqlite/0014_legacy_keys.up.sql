-- Keys of peers that do not seal yet: Trove's instance keys (`bulla keystore import-trove`). They are for the
-- adapter that reads Trove's serializer, and for nothing else.

CREATE TABLE legacy_keys (
    -- The instance's id, which is the agent's.
    name          TEXT    NOT NULL PRIMARY KEY,
    -- 1, and one more with each other key that Trove gave it.
    epoch         INTEGER NOT NULL CHECK (epoch >= 1),
    encrypted_key BLOB    NOT NULL,
    created       INTEGER NOT NULL,
    updated       INTEGER NOT NULL
) STRICT;
