//! Rows of `join_tokens` and `join_states`.

use super::{Conn, args, listed};
use crate::error::Result;

/// A token as it is stored.
pub(crate) struct TokenRow {
    pub(crate) principal_id: i64,
    pub(crate) agent: String,
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    pub(crate) suite: u32,
    pub(crate) encrypted_secret: Option<Vec<u8>>,
    pub(crate) encrypted_verifier: Vec<u8>,
    pub(crate) request: Option<Vec<u8>>,
    pub(crate) encrypted_answer: Option<Vec<u8>>,
    pub(crate) state: String,
    pub(crate) expires: i64,
}

type TokenColumns = (
    i64,
    String,
    u32,
    u32,
    u32,
    Option<Vec<u8>>,
    Vec<u8>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    String,
    i64,
);

impl From<TokenColumns> for TokenRow {
    fn from(columns: TokenColumns) -> Self {
        let (principal_id, agent, incarnation, epoch, suite, secret, verifier, ..) = columns;
        let (.., request, answer, state, expires) = columns;
        Self {
            principal_id,
            agent,
            incarnation,
            epoch,
            suite,
            encrypted_secret: secret,
            encrypted_verifier: verifier,
            request,
            encrypted_answer: answer,
            state,
            expires,
        }
    }
}

pub(crate) const TOKEN: &str = "SELECT principal_id, agent, incarnation, epoch, suite,
         encrypted_secret, encrypted_verifier, request, encrypted_answer, state, expires
     FROM join_tokens WHERE token_id = ?";

/// The token of that name.
pub(crate) async fn token(conn: &mut Conn, token_id: &[u8]) -> Result<Option<TokenRow>> {
    let row: Option<TokenColumns> = conn.optional(TOKEN, args![token_id]).await?;
    Ok(row.map(Into::into))
}

/// An open token, about to be stored.
pub(crate) struct NewToken<'a> {
    pub(crate) token_id: &'a [u8],
    pub(crate) principal_id: i64,
    pub(crate) agent: &'a str,
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    pub(crate) suite: u32,
    pub(crate) encrypted_secret: &'a [u8],
    pub(crate) encrypted_verifier: &'a [u8],
    pub(crate) expires: i64,
}

pub(crate) async fn insert(conn: &mut Conn, new: &[NewToken<'_>], now: i64) -> Result<()> {
    let sql = format!(
        "INSERT INTO join_tokens (token_id, principal_id, agent, incarnation, epoch, suite,
             encrypted_secret, encrypted_verifier, state, created, expires, updated)
         VALUES {}",
        listed("(?, ?, ?, ?, ?, ?, ?, ?, 'open', ?, ?, ?)", new.len())
    );
    let mut values = Vec::with_capacity(11 * new.len());
    for new in new {
        values.extend(args![
            new.token_id,
            new.principal_id,
            new.agent,
            new.incarnation,
            new.epoch,
            new.suite,
            new.encrypted_secret,
            new.encrypted_verifier,
            now,
            new.expires,
            now
        ]);
    }
    conn.execute(&sql, &values).await?;
    Ok(())
}

/// Epoch, state, end and alarms of a principal's newest token.
pub(crate) async fn newest(
    conn: &mut Conn,
    principal_id: i64,
) -> Result<Option<(u32, String, i64, i64)>> {
    let sql = "SELECT epoch, state, expires, alarms FROM join_tokens WHERE principal_id = ?
               ORDER BY epoch DESC LIMIT 1";
    conn.optional(sql, args![principal_id]).await
}

/// Takes away a principal's tokens that were not used.
pub(crate) async fn delete_open(conn: &mut Conn, principal_id: i64) -> Result<()> {
    let sql = "DELETE FROM join_tokens WHERE principal_id = ? AND state = 'open'";
    conn.execute(sql, args![principal_id]).await?;
    Ok(())
}

/// Sets the suite that a principal's keys will have.
pub(crate) async fn set_suite(
    conn: &mut Conn,
    principal_id: i64,
    suite: u32,
    now: i64,
) -> Result<()> {
    let sql = "UPDATE principals SET suite = ?, updated = ? WHERE id = ?";
    conn.execute(sql, args![suite, now, principal_id]).await?;
    Ok(())
}

/// Binds an open token to its request; `false` if it is not open any more.
pub(crate) async fn bind(
    conn: &mut Conn,
    token_id: &[u8],
    request: &[u8],
    encrypted_answer: &[u8],
    now: i64,
) -> Result<bool> {
    let sql = "UPDATE join_tokens SET state = 'used', encrypted_secret = NULL, request = ?,
                   encrypted_answer = ?, updated = ?
               WHERE token_id = ? AND state = 'open'";
    let done = conn.execute(sql, args![request, encrypted_answer, now, token_id]).await?;
    Ok(done == 1)
}

/// Locks a token for good and counts the alarm.
pub(crate) async fn lock(conn: &mut Conn, token_id: &[u8], now: i64) -> Result<()> {
    let sql = "UPDATE join_tokens SET state = 'locked', encrypted_answer = NULL,
                   alarms = alarms + 1, updated = ?
               WHERE token_id = ?";
    conn.execute(sql, args![now, token_id]).await?;
    Ok(())
}

/// The highest join-state counter of an agent with its request and credential.
pub(crate) async fn last_renewal(
    conn: &mut Conn,
    principal_id: i64,
) -> Result<Option<(i64, Vec<u8>, Vec<u8>)>> {
    let sql = "SELECT join_counter, request, credential FROM join_states WHERE principal_id = ?
               ORDER BY join_counter DESC LIMIT 1";
    conn.optional(sql, args![principal_id]).await
}

/// The highest join-state counter of an agent, and when that was.
pub(crate) async fn reached(conn: &mut Conn, principal_id: i64) -> Result<Option<(i64, i64)>> {
    let sql = "SELECT join_counter, created FROM join_states WHERE principal_id = ?
               ORDER BY join_counter DESC LIMIT 1";
    conn.optional(sql, args![principal_id]).await
}

/// The request that was accepted under a counter.
pub(crate) async fn renewal(
    conn: &mut Conn,
    principal_id: i64,
    counter: i64,
) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT request FROM join_states WHERE principal_id = ? AND join_counter = ?";
    conn.optional(sql, args![principal_id, counter]).await
}

pub(crate) async fn insert_renewal(
    conn: &mut Conn,
    principal_id: i64,
    counter: i64,
    request: &[u8],
    credential: &[u8],
    now: i64,
) -> Result<()> {
    let sql = "INSERT INTO join_states (principal_id, join_counter, request, credential, created)
               VALUES (?, ?, ?, ?, ?)";
    conn.execute(sql, args![principal_id, counter, request, credential, now]).await?;
    Ok(())
}

/// Counts an alarm under a counter.
pub(crate) async fn alarm_renewal(conn: &mut Conn, principal_id: i64, counter: i64) -> Result<()> {
    let sql = "UPDATE join_states SET alarms = alarms + 1
               WHERE principal_id = ? AND join_counter = ?";
    conn.execute(sql, args![principal_id, counter]).await?;
    Ok(())
}

/// Names of living agents with alarms.
pub(crate) async fn quarantined(conn: &mut Conn) -> Result<Vec<String>> {
    let sql = "SELECT name FROM principals WHERE kind = 'agent' AND state = 'active' AND (
                   id IN (SELECT principal_id FROM join_tokens WHERE alarms > 0)
                   OR id IN (SELECT principal_id FROM join_states WHERE alarms > 0))
               ORDER BY name";
    conn.all(sql, &[]).await
}

/// How many alarms there were for an agent: of its tokens, and of its renewals.
pub(crate) async fn alarms(conn: &mut Conn, principal_id: i64) -> Result<(i64, i64)> {
    let tokens = "SELECT alarms FROM join_tokens WHERE principal_id = ? AND alarms > 0";
    let tokens: Vec<i64> = conn.all(tokens, args![principal_id]).await?;
    let renewals = "SELECT alarms FROM join_states WHERE principal_id = ? AND alarms > 0";
    let renewals: Vec<i64> = conn.all(renewals, args![principal_id]).await?;
    Ok((tokens.iter().sum(), renewals.iter().sum()))
}
