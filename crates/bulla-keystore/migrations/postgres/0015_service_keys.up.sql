-- Keys that a service of the control plane's protects what it stores with: one for each service. What
-- a service derives from its key opens as long as the row is there, whatever key-encryption key that is under.

CREATE TABLE service_keys (
    -- The service: queue.
    name          TEXT COLLATE "C" PRIMARY KEY,
    epoch         BIGINT NOT NULL CHECK (epoch >= 1),
    encrypted_key BYTEA  NOT NULL,
    created       BIGINT NOT NULL
);
