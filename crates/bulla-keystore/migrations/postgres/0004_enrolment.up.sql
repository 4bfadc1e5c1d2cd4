-- Enrolment by token, and renewal (protocol section 10).

CREATE TABLE join_tokens (
    token_id           BYTEA            PRIMARY KEY CHECK (length(token_id) = 16),
    principal_id       BIGINT           NOT NULL REFERENCES principals (id),
    agent              TEXT COLLATE "C" NOT NULL,
    incarnation        BIGINT           NOT NULL,
    -- Counts the tokens of this incarnation.
    epoch              BIGINT           NOT NULL,
    suite              BIGINT           NOT NULL,
    -- Null from the first use on.
    encrypted_secret   BYTEA,
    -- Tells requests that were made with the token; opens none.
    encrypted_verifier BYTEA            NOT NULL,
    -- SHA-256 of the one request that was accepted.
    request            BYTEA,
    -- Sealed to that request.
    encrypted_answer   BYTEA,
    state              TEXT COLLATE "C" NOT NULL CHECK (state IN ('open', 'used', 'locked')),
    -- Requests made with the token that were not the accepted one.
    alarms             BIGINT           NOT NULL DEFAULT 0,
    created            BIGINT           NOT NULL,
    expires            BIGINT           NOT NULL,
    updated            BIGINT           NOT NULL,
    UNIQUE (principal_id, epoch)
);

-- One row for each renewal of an agent's credential: its join-state counter and which request it
-- was. The newest row's credential is the answer.
CREATE TABLE join_states (
    principal_id BIGINT NOT NULL REFERENCES principals (id),
    join_counter BIGINT NOT NULL CHECK (join_counter >= 1),
    request      BYTEA  NOT NULL,
    credential   BYTEA  NOT NULL,
    -- Other requests under a counter that was used.
    alarms       BIGINT NOT NULL DEFAULT 0,
    created      BIGINT NOT NULL,
    PRIMARY KEY (principal_id, join_counter)
);
