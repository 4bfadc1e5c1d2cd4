-- Enrolment by token, and renewal (protocol section 10).

CREATE TABLE join_tokens (
    token_id           BLOB    PRIMARY KEY CHECK (length(token_id) = 16),
    principal_id       INTEGER NOT NULL REFERENCES principals (id),
    agent              TEXT    NOT NULL,
    incarnation        INTEGER NOT NULL,
    -- Counts the tokens of this incarnation.
    epoch              INTEGER NOT NULL,
    suite              INTEGER NOT NULL,
    -- Null from the first use on.
    encrypted_secret   BLOB,
    -- Tells requests that were made with the token; opens none.
    encrypted_verifier BLOB    NOT NULL,
    -- SHA-256 of the one request that was accepted.
    request            BLOB,
    -- Sealed to that request.
    encrypted_answer   BLOB,
    state              TEXT    NOT NULL CHECK (state IN ('open', 'used', 'locked')),
    -- Requests made with the token that were not the accepted one.
    alarms             INTEGER NOT NULL DEFAULT 0,
    created            INTEGER NOT NULL,
    expires            INTEGER NOT NULL,
    updated            INTEGER NOT NULL,
    UNIQUE (principal_id, epoch)
) STRICT, WITHOUT ROWID;

-- One row for each renewal of an agent's credential: its join-state counter and which request it
-- was. The newest row's credential is the answer.
CREATE TABLE join_states (
    principal_id INTEGER NOT NULL REFERENCES principals (id),
    join_counter INTEGER NOT NULL CHECK (join_counter >= 1),
    request      BLOB    NOT NULL,
    credential   BLOB    NOT NULL,
    -- Other requests under a counter that was used.
    alarms       INTEGER NOT NULL DEFAULT 0,
    created      INTEGER NOT NULL,
    PRIMARY KEY (principal_id, join_counter)
) STRICT, WITHOUT ROWID;
