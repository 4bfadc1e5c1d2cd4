-- Keys that a service of the control plane's protects what it stores with: one for each service. What
-- a service derives from its key opens as long as the row is there, whatever key-encryption key that is under.

CREATE TABLE IF NOT EXISTS service_keys (
    -- The service: queue.
    name          VARCHAR(255) NOT NULL PRIMARY KEY,
    epoch         BIGINT       NOT NULL CHECK (epoch >= 1),
    encrypted_key LONGBLOB     NOT NULL,
    created       BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
