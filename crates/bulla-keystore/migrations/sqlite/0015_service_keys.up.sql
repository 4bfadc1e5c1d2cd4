-- Keys that a service of the control plane's protects what it stores with: one for each service. What
-- a service derives from its key opens as long as the row is there, whatever key-encryption key that is under.

CREATE TABLE service_keys (
    -- The service: queue.
    name          TEXT    NOT NULL PRIMARY KEY,
    epoch         INTEGER NOT NULL CHECK (epoch >= 1),
    encrypted_key BLOB    NOT NULL,
    created       INTEGER NOT NULL
) STRICT;
