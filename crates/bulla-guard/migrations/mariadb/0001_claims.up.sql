CREATE TABLE IF NOT EXISTS claim (
    claim_key    VARBINARY(767) NOT NULL PRIMARY KEY,
    sender       BIGINT         NOT NULL,
    digest       VARBINARY(32)  NOT NULL,
    exp          BIGINT         NOT NULL,
    state        BIGINT         NOT NULL CHECK (state IN (0, 1, 2)),
    worker       BIGINT,
    attempt      BIGINT,
    until_ms     BIGINT,
    idempotent   BIGINT,
    envelope     LONGBLOB,
    reply_digest VARBINARY(32),
    reply        LONGBLOB,
    INDEX claim_by_expiry (exp),
    INDEX claim_by_lease (state, until_ms)
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS claim_sender (
    id          BIGINT       NOT NULL PRIMARY KEY,
    principal   VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    incarnation BIGINT       NOT NULL,
    ids         BIGINT       NOT NULL,
    UNIQUE (principal, incarnation)
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS claim_ledger (
    one         BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    purged_exp  BIGINT NOT NULL,
    blind_until BIGINT,
    entries     BIGINT NOT NULL,
    senders     BIGINT NOT NULL,
    next_sender BIGINT NOT NULL,
    shared      BIGINT NOT NULL,
    reply_bytes BIGINT NOT NULL,
    generation  VARCHAR(255)
) ENGINE = InnoDB;
INSERT IGNORE INTO claim_ledger VALUES (1, 0, NULL, 0, 0, 1, 0, 0, NULL);
