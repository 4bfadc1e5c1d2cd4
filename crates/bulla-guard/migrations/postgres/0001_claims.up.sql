CREATE TABLE claim (
    claim_key    BYTEA  PRIMARY KEY,
    sender       BIGINT NOT NULL,
    digest       BYTEA  NOT NULL,
    exp          BIGINT NOT NULL,
    state        BIGINT NOT NULL CHECK (state IN (0, 1, 2)),
    worker       BIGINT,
    attempt      BIGINT,
    until_ms     BIGINT,
    idempotent   BIGINT,
    envelope     BYTEA,
    reply_digest BYTEA,
    reply        BYTEA
);
CREATE INDEX claim_by_expiry ON claim (exp);
CREATE INDEX claim_by_lease ON claim (until_ms) WHERE state = 0;
CREATE TABLE claim_sender (
    id          BIGINT PRIMARY KEY,
    principal   TEXT   NOT NULL,
    incarnation BIGINT NOT NULL,
    ids         BIGINT NOT NULL,
    UNIQUE (principal, incarnation)
);
CREATE TABLE claim_ledger (
    one         BIGINT PRIMARY KEY CHECK (one = 1),
    purged_exp  BIGINT NOT NULL,
    blind_until BIGINT,
    entries     BIGINT NOT NULL,
    senders     BIGINT NOT NULL,
    next_sender BIGINT NOT NULL,
    shared      BIGINT NOT NULL,
    reply_bytes BIGINT NOT NULL,
    generation  TEXT
);
INSERT INTO claim_ledger VALUES (1, 0, NULL, 0, 0, 1, 0, 0, NULL);
