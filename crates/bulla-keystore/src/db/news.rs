//! That something changed which other processes should act on at once. PostgreSQL pushes it; whoever
//! has another database, or whom it did not reach, looks for itself now and then.

#[cfg(feature = "postgres")]
use sqlx::postgres::{PgListener, PgPoolOptions, Postgres};

use super::{Conn, Db, Dialect};
use crate::error::Result;

/// What PostgreSQL calls the channel.
#[cfg(feature = "postgres")]
const CHANNEL: &str = "bulla_news";

/// Tells every process that listens, once this transaction is committed. Of what it told twice,
/// the database says one.
pub(crate) async fn tell(conn: &mut Conn) -> Result<()> {
    if conn.dialect() == Dialect::Postgres {
        conn.execute("SELECT pg_notify('bulla_news', '')", &[]).await?;
    }
    Ok(())
}

/// Listens on a connection of its own.
pub(crate) enum News {
    /// This database pushes nothing.
    Silent,
    /// A connection, if there is one.
    #[cfg(feature = "postgres")]
    Postgres { pools: super::Pools<Postgres>, listener: Option<PgListener> },
}

impl News {
    pub(crate) fn of(db: &Db) -> Self {
        match db {
            #[cfg(feature = "postgres")]
            Db::Postgres(pools) => Self::Postgres { pools: pools.clone(), listener: None },
            _ => Self::Silent,
        }
    }

    /// Waits until something changed, or something may have been missed. An error is a lost
    /// connection; asking again makes a new one.
    pub(crate) async fn next(&mut self) -> Result<()> {
        match self {
            Self::Silent => std::future::pending().await,
            #[cfg(feature = "postgres")]
            Self::Postgres { pools, listener } => {
                let Some(listening) = listener else {
                    *listener = Some(listen(pools).await?);
                    // What changed before nobody pushed.
                    return Ok(());
                };
                // `None` is a new connection: what was told meanwhile is lost.
                let heard = listening.try_recv().await;
                if heard.is_err() {
                    *listener = None;
                }
                heard?;
                Ok(())
            }
        }
    }
}

#[cfg(feature = "postgres")]
async fn listen(pools: &super::Pools<Postgres>) -> Result<PgListener> {
    let options = pools.readers.connect_options().as_ref().clone();
    let own = PgPoolOptions::new().max_connections(1).acquire_timeout(super::BUSY);
    let mut listener = PgListener::connect_with(&own.connect_lazy_with(options)).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
