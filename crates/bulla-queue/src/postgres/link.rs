//! Connections, and the tasks beside them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::{
    PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions, PgSslMode,
};
use sqlx::{Error, Executor};
use tokio::sync::mpsc;
use url::Url;

use super::{Clock, PostgresOptions, io_error, schema};
use crate::address;
use crate::limits::Limits;
use crate::name::Place;
use crate::store::{Heard, StoreError};

/// Connections of one process at the most.
const CONNECTIONS: u32 = 16;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often is swept away what is over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// What is swept away at a time.
const SWEEP: i64 = 1000;
/// How long until it is tried again to hear what other hosts post.
const AGAIN: Duration = Duration::from_secs(1);
/// Where is told to what queue something was posted.
const POSTED: &str = "bulla_queue_posted";
/// Posts that are told of together.
const TOLD: usize = 256;

pub(super) struct Link {
    pub(super) pool: PgPool,
    pub(super) at: String,
    clock: Clock,
}

impl Link {
    pub(super) async fn open(options: &PostgresOptions) -> Result<Self, StoreError> {
        let (to, at) = address(options)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT_LIMIT)
            .after_connect(|conn, _| Box::pin(set_up(conn)))
            .connect_with(to)
            .await
            .map_err(|error| io_error(&at, &error))?;
        let mut conn = pool.acquire().await.map_err(|error| io_error(&at, &error))?;
        schema::examine(&mut conn, &at).await?;
        schema::upgrade(&mut conn, &at).await?;
        drop(conn);
        Ok(Self { pool, at, clock: options.clock })
    }

    pub(super) fn failed(&self, error: &Error) -> StoreError {
        match error {
            Error::PoolClosed => StoreError::Closed,
            _ => io_error(&self.at, error),
        }
    }

    #[cfg_attr(
        not(feature = "conformance"),
        expect(unused_variables, reason = "only a test looks at it")
    )]
    pub(super) fn now(&self, now: u64) -> Option<i64> {
        match self.clock {
            Clock::Own => None,
            #[cfg(feature = "conformance")]
            Clock::OfRequest => Some(super::rows::signed(now)),
        }
    }

    /// Sweeps away what is over.
    pub(super) async fn sweep(self: Arc<Self>) {
        let mut every = tokio::time::interval(SWEEP_EVERY);
        loop {
            every.tick().await;
            while match self.sweep_once().await {
                Ok(swept) => swept >= SWEEP as u64,
                Err(error) => {
                    tracing::warn!(%error, "what is over can't be swept out of the queue store");
                    false
                }
            } {}
        }
    }

    async fn sweep_once(&self) -> Result<u64, Error> {
        const TEXTS: [&str; 4] = [
            "DELETE FROM message WHERE ctid = ANY(ARRAY(SELECT ctid FROM message \
             WHERE expires_ms <= now.ms LIMIT $1 FOR UPDATE SKIP LOCKED))",
            "DELETE FROM claim WHERE ctid = ANY(ARRAY(SELECT ctid FROM claim \
             WHERE until_ms <= now.ms LIMIT $1 FOR UPDATE SKIP LOCKED))",
            "DELETE FROM record WHERE ctid = ANY(ARRAY(SELECT ctid FROM record \
             WHERE until_ms <= now.ms LIMIT $1 FOR UPDATE SKIP LOCKED))",
            "DELETE FROM message WHERE ctid = ANY(ARRAY(SELECT ctid FROM message \
             WHERE queue = (SELECT queue FROM gone ORDER BY queue LIMIT 1) LIMIT $1 \
             FOR UPDATE SKIP LOCKED))",
        ];
        const NOW: &str = "(extract(epoch FROM statement_timestamp()) * 1000)::int8";
        let mut most = 0;
        for text in TEXTS {
            let text = sqlx::AssertSqlSafe(text.replace("now.ms", NOW));
            most =
                most.max(sqlx::query(text).bind(SWEEP).execute(&self.pool).await?.rows_affected());
        }
        let empty = "DELETE FROM gone AS g WHERE NOT EXISTS \
                     (SELECT FROM message AS m WHERE m.queue = g.queue)";
        sqlx::query(empty).execute(&self.pool).await?;
        Ok(most)
    }

    /// Tells other hosts what was posted here: several posts at a time, and in no post's transaction, for
    /// one that tells is committed alone.
    pub(super) async fn tell(self: Arc<Self>, mut posted: mpsc::Receiver<Place>) {
        let mut places = Vec::new();
        while posted.recv_many(&mut places, TOLD).await > 0 {
            let mut texts: Vec<_> =
                places.drain(..).map(|at| format!("{} {}", at.name(), at.project())).collect();
            texts.sort_unstable();
            texts.dedup();
            let tell =
                sqlx::query("SELECT pg_notify($1, text) FROM unnest($2::text[]) AS t (text)");
            if let Err(error) = tell.bind(POSTED).bind(texts).execute(&self.pool).await {
                tracing::warn!(%error, "other hosts can't be told of posts");
            }
        }
    }

    /// Hears what any host posts.
    pub(super) async fn listen(self: Arc<Self>, heard: Arc<Mutex<Option<Heard>>>) {
        let tell = |at: Option<&Place>| {
            let heard = heard.lock().clone();
            if let Some(heard) = heard {
                heard(at);
            }
        };
        loop {
            if let Err(error) = self.listen_once(&tell).await {
                tracing::warn!(%error, "posts of other hosts are not heard for now");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn listen_once(&self, tell: &impl Fn(Option<&Place>)) -> Result<(), Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(POSTED).await?;
        // Something may have been posted while nobody listened.
        tell(None);
        loop {
            // None: the connection was lost, and made again.
            let message = listener.try_recv().await?;
            let text = message.as_ref().map(|message| message.payload());
            let at = text
                .and_then(|text| text.split_once(' '))
                .and_then(|(name, project)| Place::new(project.into(), name, &Limits::default()));
            tell(at.as_ref());
        }
    }
}

async fn set_up(conn: &mut PgConnection) -> Result<(), Error> {
    // A host that hangs in a transaction must not stop the others for long.
    conn.execute(
        "SET search_path = bulla_queue; SET idle_in_transaction_session_timeout = '10s'; \
         SET lock_timeout = '10s'; SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local')",
    )
    .await
    .map(drop)
}

/// How to connect, and the address without user and password, for messages.
fn address(options: &PostgresOptions) -> Result<(PgConnectOptions, String), StoreError> {
    let bad = |why: String| StoreError::Address { why };
    // What the parser says could quote the password.
    let url = Url::parse(&options.url).map_err(|_| bad("it can't be parsed".to_owned()))?;
    let at = address::without_credentials(&url);
    let mut to: PgConnectOptions = options.url.parse().map_err(|_| {
        bad(format!("`{at}` is not understood; write postgres://user@host:5432/database"))
    })?;
    let says = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
    let elsewhere = says("host").or_else(|| says("hostaddr"));
    let host = elsewhere.as_deref().or_else(|| url.host_str()).unwrap_or_default();
    // Left to itself, the client would take a connection in the clear from whoever answers.
    if options.authorities.is_some() || (!address::is_local(host) && says("sslmode").is_none()) {
        to = to.ssl_mode(PgSslMode::VerifyFull);
    }
    if let Some(path) = &options.authorities {
        to = to.ssl_root_cert(path);
    }
    Ok((to, at))
}
