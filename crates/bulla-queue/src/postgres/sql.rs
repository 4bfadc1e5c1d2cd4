//! The statements. `$1` is the time in ms, or nothing for the server's; `$2` and `$3` are project and
//! name of the queue. Each statement is one transaction, and on the disk when it is answered.

use std::sync::LazyLock;

/// The time of the statement.
const NOW: &str = "coalesce($1::int8, (extract(epoch FROM statement_timestamp()) * 1000)::int8)";
const QUEUE: &str = "q AS (SELECT n, max_claims, dead, dead_ttl FROM queue \
                     WHERE project = $2 AND name = $3)";
/// What [`super::rows::message`] reads.
const COLUMNS: &str =
    "seq, tag, ttl, created_ms, free_ms > NOW AS held, claim, claim_tag, claims, body";
/// The first messages that anybody may have, `$4` at the most: those that nobody ever held, and those
/// whose time in somebody's hands is over. What another transaction looks at just now is left to it.
const FREE: &str = "a AS (SELECT seq, tag FROM message WHERE queue = (SELECT n FROM q) \
    AND free_ms = 0 AND expires_ms > NOW ORDER BY seq LIMIT $4 FOR UPDATE SKIP LOCKED), \
    b AS (SELECT seq, tag FROM message WHERE queue = (SELECT n FROM q) \
    AND free_ms > 0 AND free_ms <= NOW AND expires_ms > NOW ORDER BY seq LIMIT $4 \
    FOR UPDATE SKIP LOCKED), \
    f AS (SELECT * FROM (SELECT * FROM a UNION ALL SELECT * FROM b) AS ab \
    ORDER BY seq LIMIT $4)";

macro_rules! statements {
    ($($name:ident $text:literal;)*) => {
        $(pub(super) static $name: LazyLock<String> = LazyLock::new(|| {
            $text.replace("COLUMNS", COLUMNS).replace("QUEUE", QUEUE).replace("FREE", FREE)
                .replace("NOW", NOW)
        });)*
    };
}

statements! {
    // $4 how many, $5 who, $6 to $9 tag, ttl, delay and body of each.
    POST "WITH q AS (INSERT INTO queue (project, name, metadata, last_seq) \
        VALUES ($2, $3, '{}', NOW * 1000 + $4) ON CONFLICT (project, name) DO UPDATE \
        SET last_seq = greatest(queue.last_seq, NOW * 1000) + $4 RETURNING n, last_seq) \
        INSERT INTO message (queue, seq, tag, client, ttl, created_ms, expires_ms, free_ms, claims, \
        body) SELECT q.n, q.last_seq - $4 + m.at, m.tag, $5, m.ttl, NOW, NOW + m.ttl * 1000, \
        CASE WHEN m.delay > 0 THEN NOW + m.delay * 1000 ELSE 0 END, 0, m.body \
        FROM q, unnest($6::int8[], $7::int8[], $8::int8[], $9::text[]) \
        WITH ORDINALITY AS m (tag, ttl, delay, body, at) RETURNING seq";
    // $5 and $6 the claim, $7 and $8 ttl and grace in seconds.
    CLAIM "WITH QUEUE, FREE, \
        u AS (UPDATE message AS m SET claim = $5, claim_tag = $6, free_ms = NOW + $7::int8 * 1000, \
        claims = claims + 1, expires_ms = greatest(expires_ms, NOW + ($7::int8 + $8::int8) * 1000) \
        FROM f WHERE m.queue = (SELECT n FROM q) AND m.seq = f.seq AND m.tag = f.tag RETURNING m.*), \
        c AS (INSERT INTO claim (queue, seq, tag, ttl, created_ms, until_ms, messages) \
        SELECT (SELECT n FROM q), $5, $6, $7, NOW, NOW + $7::int8 * 1000, array_agg(seq) FROM u \
        HAVING count(*) > 0) \
        SELECT COLUMNS, NOW AS now FROM u ORDER BY seq, tag";
    POP "WITH QUEUE, FREE, d AS (DELETE FROM message AS m USING f \
        WHERE m.queue = (SELECT n FROM q) AND m.seq = f.seq AND m.tag = f.tag RETURNING m.*) \
        SELECT COLUMNS FROM d ORDER BY seq, tag";
    BURY "WITH QUEUE, l AS (SELECT m.seq, m.tag FROM message AS m, q WHERE m.queue = q.n \
        AND m.claims > 0 AND m.claims >= q.max_claims AND m.free_ms <= NOW AND m.expires_ms > NOW \
        AND q.dead IS NOT NULL FOR UPDATE OF m SKIP LOCKED), \
        t AS (INSERT INTO queue (project, name, metadata) SELECT $2, q.dead, '{}' FROM q \
        WHERE q.dead <> $3 AND EXISTS (SELECT FROM l) ON CONFLICT (project, name) \
        DO UPDATE SET metadata = queue.metadata RETURNING n), \
        d AS (DELETE FROM message AS m USING l, q WHERE q.dead = $3 AND m.queue = q.n \
        AND m.seq = l.seq AND m.tag = l.tag) \
        UPDATE message AS m SET queue = t.n, free_ms = 0, claim = NULL, claim_tag = NULL, claims = 0, \
        ttl = coalesce(q.dead_ttl, ttl), expires_ms = coalesce(NOW + q.dead_ttl * 1000, expires_ms) \
        FROM l, t, q WHERE m.queue = q.n AND m.seq = l.seq AND m.tag = l.tag";
    // $4 to $8: seq, tag, who may hold it (0 any, 1 nobody, 2 the claim), claim's seq and tag. Answers
    // what becomes of those that are there: 0 gone, 1 held, 2 not held, 3 no claim.
    DELETE "WITH QUEUE, d AS (SELECT m.seq, m.tag, d.at, CASE \
        WHEN d.how = 0 OR d.how = 1 AND NOT (m.claim IS NOT NULL AND m.free_ms > NOW) THEN 0 \
        WHEN d.how = 1 THEN 1 \
        WHEN m.claim = d.claim AND m.claim_tag = d.claim_tag AND m.free_ms > NOW THEN 0 \
        WHEN NOT EXISTS (SELECT FROM claim AS c WHERE c.queue = m.queue AND c.seq = d.claim \
        AND c.tag = d.claim_tag AND c.until_ms > NOW) THEN 3 \
        WHEN m.claim IS NOT NULL AND m.free_ms > NOW THEN 1 ELSE 2 END::int8 AS said \
        FROM message AS m JOIN unnest($4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[]) \
        WITH ORDINALITY AS d (seq, tag, how, claim, claim_tag, at) \
        ON m.seq = d.seq AND m.tag = d.tag \
        WHERE m.queue = (SELECT n FROM q) AND m.expires_ms > NOW \
        ORDER BY m.seq, m.tag FOR UPDATE OF m), \
        g AS (DELETE FROM message AS m USING d WHERE d.said = 0 AND m.queue = (SELECT n FROM q) \
        AND m.seq = d.seq AND m.tag = d.tag) SELECT at, said FROM d";
    // $4 seqs.
    GET "WITH QUEUE SELECT COLUMNS FROM message WHERE queue = (SELECT n FROM q) \
        AND seq = ANY($4::int8[]) AND expires_ms > NOW ORDER BY seq, tag";
    // $4 after, $5 whose not, $6 how many, $7 and $8 those held back, and held, too.
    LIST "WITH QUEUE SELECT COLUMNS FROM ((SELECT * FROM message WHERE queue = (SELECT n FROM q) \
        AND free_ms = 0 AND seq > $4 AND expires_ms > NOW AND ($5::bytea IS NULL OR client <> $5) \
        ORDER BY seq LIMIT $6) UNION ALL (SELECT * FROM message WHERE queue = (SELECT n FROM q) \
        AND free_ms > 0 AND (free_ms <= NOW OR (claim IS NULL AND $7) OR (claim IS NOT NULL AND $8)) \
        AND seq > $4 AND expires_ms > NOW AND ($5::bytea IS NULL OR client <> $5) \
        ORDER BY seq LIMIT $6)) AS m ORDER BY seq, tag LIMIT $6";
    STATS "WITH QUEUE SELECT count(*), count(*) FILTER (WHERE free_ms > NOW), min(seq), max(seq) \
        FROM message WHERE queue = (SELECT n FROM q) AND expires_ms > NOW";
    NEXT_FREE "WITH QUEUE SELECT min(free_ms) FROM message WHERE queue = (SELECT n FROM q) \
        AND free_ms > 0 AND free_ms > NOW";
    // $4 and $5 the claim.
    CLAIMED "WITH QUEUE SELECT ttl, created_ms, messages FROM claim WHERE queue = (SELECT n FROM q) \
        AND seq = $4 AND tag = $5 AND until_ms > NOW";
    // $6 its messages.
    HELD "WITH QUEUE SELECT COLUMNS FROM message WHERE queue = (SELECT n FROM q) \
        AND seq = ANY($6::int8[]) AND claim = $4 AND claim_tag = $5 AND expires_ms > NOW \
        ORDER BY seq, tag";
    // $6 and $7 ttl and grace in seconds.
    RENEW "WITH QUEUE, c AS (UPDATE claim SET ttl = $6, created_ms = NOW, \
        until_ms = NOW + $6::int8 * 1000 WHERE queue = (SELECT n FROM q) AND seq = $4 AND tag = $5 \
        AND until_ms > NOW RETURNING messages), \
        l AS (SELECT m.seq, m.tag FROM message AS m, c WHERE m.queue = (SELECT n FROM q) \
        AND m.seq = ANY(c.messages) AND m.claim = $4 AND m.claim_tag = $5 \
        ORDER BY m.seq, m.tag FOR UPDATE OF m), \
        u AS (UPDATE message AS m SET free_ms = NOW + $6::int8 * 1000, \
        expires_ms = greatest(expires_ms, NOW + ($6::int8 + $7::int8) * 1000) FROM l \
        WHERE m.queue = (SELECT n FROM q) AND m.seq = l.seq AND m.tag = l.tag) \
        SELECT count(*) FROM c";
    RELEASE "WITH QUEUE, c AS (DELETE FROM claim WHERE queue = (SELECT n FROM q) AND seq = $4 \
        AND tag = $5 AND until_ms > NOW RETURNING messages), \
        l AS (SELECT m.seq, m.tag FROM message AS m, c WHERE m.queue = (SELECT n FROM q) \
        AND m.seq = ANY(c.messages) AND m.claim = $4 AND m.claim_tag = $5 \
        ORDER BY m.seq, m.tag FOR UPDATE OF m) \
        UPDATE message AS m SET free_ms = 0, claim = NULL, claim_tag = NULL FROM l \
        WHERE m.queue = (SELECT n FROM q) AND m.seq = l.seq AND m.tag = l.tag";
}
