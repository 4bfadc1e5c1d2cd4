-- Enrolment by token, and renewal (protocol section 10).

CREATE TABLE IF NOT EXISTS join_tokens (
    token_id           VARBINARY(16) NOT NULL PRIMARY KEY CHECK (length(token_id) = 16),
    principal_id       BIGINT        NOT NULL,
    agent              VARCHAR(255)  NOT NULL,
    incarnation        BIGINT        NOT NULL,
    -- Counts the tokens of this incarnation.
    epoch              BIGINT        NOT NULL,
    suite              BIGINT        NOT NULL,
    -- Null from the first use on.
    encrypted_secret   LONGBLOB,
    -- Tells requests that were made with the token; opens none.
    encrypted_verifier LONGBLOB      NOT NULL,
    -- SHA-256 of the one request that was accepted.
    request            VARBINARY(32),
    -- Sealed to that request.
    encrypted_answer   LONGBLOB,
    state              VARCHAR(16)   NOT NULL CHECK (state IN ('open', 'used', 'locked')),
    -- Requests made with the token that were not the accepted one.
    alarms             BIGINT        NOT NULL DEFAULT 0,
    created            BIGINT        NOT NULL,
    expires            BIGINT        NOT NULL,
    updated            BIGINT        NOT NULL,
    UNIQUE (principal_id, epoch),
    FOREIGN KEY (principal_id) REFERENCES principals (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- One row for each renewal of an agent's credential: its join-state counter and which request it
-- was. The newest row's credential is the answer.
CREATE TABLE IF NOT EXISTS join_states (
    principal_id BIGINT        NOT NULL,
    join_counter BIGINT        NOT NULL CHECK (join_counter >= 1),
    request      VARBINARY(32) NOT NULL,
    credential   LONGBLOB      NOT NULL,
    -- Other requests under a counter that was used.
    alarms       BIGINT        NOT NULL DEFAULT 0,
    created      BIGINT        NOT NULL,
    PRIMARY KEY (principal_id, join_counter),
    FOREIGN KEY (principal_id) REFERENCES principals (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;
