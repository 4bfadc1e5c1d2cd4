//! One connection to whichever database it is: texts with `?` or `?1`, a closed set of values.

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Database, Executor, SqlSafeStr, Sqlite};

use super::dialect::{Dialect, Taken};
use super::row::{FromRow, Row};
use crate::error::Result;

/// A value that a statement takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg<'a> {
    Int(Option<i64>),
    Text(Option<&'a str>),
    Bytes(Option<&'a [u8]>),
}

macro_rules! arg {
    ($($from:ty => |$value:ident| $to:expr),* $(,)?) => {$(
        impl<'a> From<$from> for Arg<'a> {
            fn from($value: $from) -> Self {
                $to
            }
        }
    )*};
}

arg! {
    i64 => |value| Self::Int(Some(value)),
    u32 => |value| Self::Int(Some(value.into())),
    Option<i64> => |value| Self::Int(value),
    Option<u32> => |value| Self::Int(value.map(Into::into)),
    &'a str => |value| Self::Text(Some(value)),
    &'a String => |value| Self::Text(Some(value)),
    Option<&'a str> => |value| Self::Text(value),
    &'a [u8] => |value| Self::Bytes(Some(value)),
    &'a Vec<u8> => |value| Self::Bytes(Some(value)),
}

/// The values of a statement, in the order of their places.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::db::Arg::from($value)),*] };
}
pub(crate) use args;

/// A connection out of a pool, or a transaction on one.
///
/// One that is dropped in the middle of a statement, or of a transaction, is closed and not given
/// back: what the database still sends belongs to nobody, and a pool that waits for it waits for
/// ever. Anybody who may give up a call could use the pool up that way.
pub(crate) struct Handle<D: Database> {
    conn: PoolConnection<D>,
    /// In the middle of a statement.
    busy: bool,
    /// In the middle of a transaction.
    begun: bool,
}

impl<D: Database> Handle<D>
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    pub(crate) fn pooled(conn: PoolConnection<D>) -> Self {
        Self { conn, busy: false, begun: false }
    }

    /// Begins a transaction with these statements.
    pub(crate) async fn begin(
        conn: PoolConnection<D>,
        sql: &[&'static str],
    ) -> Result<Self, sqlx::Error> {
        let mut handle = Self { conn, busy: true, begun: true };
        for sql in sql {
            handle.conn.execute(*sql).await?;
        }
        handle.busy = false;
        Ok(handle)
    }

    async fn commit(mut self) -> Result<(), sqlx::Error> {
        if self.begun {
            self.busy = true;
            self.conn.execute("COMMIT").await?;
            (self.busy, self.begun) = (false, false);
        }
        Ok(())
    }
}

impl<D: Database> Drop for Handle<D> {
    fn drop(&mut self) {
        if self.busy || self.begun {
            self.conn.close_on_drop();
        }
    }
}

/// A connection.
pub(crate) enum Conn {
    Sqlite(Handle<Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(Handle<sqlx::Postgres>),
    #[cfg(feature = "mariadb")]
    MariaDb(Handle<sqlx::MySql>),
}

/// Runs to its end on one connection, or leaves it marked.
macro_rules! on_handle {
    ($handle:expr, |$raw:ident| $body:expr) => {{
        $handle.busy = true;
        let done: Result<_, sqlx::Error> = async {
            let $raw = &mut *$handle.conn;
            $body
        }
        .await;
        $handle.busy = false;
        done
    }};
}

/// Does the same on every sort of connection; `D` is the database within.
macro_rules! on_each {
    ($conn:expr, |$raw:ident| $body:expr) => {
        match $conn {
            Conn::Sqlite(handle) => {
                type D = Sqlite;
                on_handle!(handle, |$raw| $body)
            }
            #[cfg(feature = "postgres")]
            Conn::Postgres(handle) => {
                type D = sqlx::Postgres;
                on_handle!(handle, |$raw| $body)
            }
            #[cfg(feature = "mariadb")]
            Conn::MariaDb(handle) => {
                type D = sqlx::MySql;
                on_handle!(handle, |$raw| $body)
            }
        }
    };
}

/// The statement `sql` with its values, for the database `D`.
macro_rules! statement {
    ($dialect:expr, $sql:expr, $args:expr) => {{
        let (text, order) = $dialect.places($sql, $args.len());
        let mut query = sqlx::query::<D>(AssertSqlSafe(text));
        for arg in order.iter().filter_map(|place| $args.get(*place)) {
            query = match *arg {
                Arg::Int(value) => query.bind(value),
                Arg::Text(value) => query.bind(value),
                Arg::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

impl Conn {
    /// Which database it is.
    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Dialect::Postgres,
            #[cfg(feature = "mariadb")]
            Self::MariaDb(_) => Dialect::MariaDb,
        }
    }

    /// Runs a statement; how many rows it found.
    pub(crate) async fn execute(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<u64> {
        Ok(self.try_execute(sql, args).await?)
    }

    async fn try_execute(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<u64, sqlx::Error> {
        let dialect = self.dialect();
        on_each!(self, |raw| {
            let done = statement!(dialect, sql, args).execute(raw).await?;
            Ok(done.rows_affected())
        })
    }

    /// Runs an `INSERT` without a clause for conflicts; `false` if what `taken` says is unique was
    /// there already. Any other conflict is an error.
    pub(crate) async fn insert_new(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
        taken: Taken,
    ) -> Result<bool> {
        let dialect = self.dialect();
        match self.try_execute(&dialect.unless_taken(sql, taken), args).await {
            Ok(rows) => Ok(rows == 1),
            Err(error) if dialect.says_taken(&error, taken) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Every row.
    pub(crate) async fn all<T: FromRow>(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<T>> {
        let dialect = self.dialect();
        let rows: Vec<Row> = on_each!(self, |raw| {
            let rows = statement!(dialect, sql, args).fetch_all(raw).await?;
            Ok(rows.into_iter().map(Into::into).collect())
        })?;
        rows.iter().map(T::read).collect()
    }

    /// The first row, if there is one.
    pub(crate) async fn optional<T: FromRow>(
        &mut self,
        sql: &str,
        args: &[Arg<'_>],
    ) -> Result<Option<T>> {
        let dialect = self.dialect();
        let row: Option<Row> = on_each!(self, |raw| {
            let row = statement!(dialect, sql, args).fetch_optional(raw).await?;
            Ok(row.map(Into::into))
        })?;
        row.as_ref().map(T::read).transpose()
    }

    /// The one row that such a statement always gives.
    pub(crate) async fn one<T: FromRow>(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<T> {
        let row = self.optional(sql, args).await?;
        row.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// Runs a text of several statements that take no values.
    pub(crate) async fn script(&mut self, sql: impl SqlSafeStr) -> Result<()> {
        let script = sqlx::raw_sql(sql);
        on_each!(self, |raw| {
            let _: <D as Database>::QueryResult = script.execute(raw).await?;
            Ok(())
        })?;
        Ok(())
    }

    /// Whether the database has a table of that name.
    pub(crate) async fn has_table(&mut self, name: &str) -> Result<bool> {
        let there: i64 = self.one(self.dialect().has_table(), args![name]).await?;
        Ok(there > 0)
    }

    /// Whether one of its tables has a column of that name.
    pub(crate) async fn has_column(&mut self, table: &str, column: &str) -> Result<bool> {
        let sql = self.dialect().has_column();
        let there: i64 = self.one(sql, args![table, column]).await?;
        Ok(there > 0)
    }

    pub(super) async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(handle) => handle.commit().await?,
            #[cfg(feature = "postgres")]
            Self::Postgres(handle) => handle.commit().await?,
            #[cfg(feature = "mariadb")]
            Self::MariaDb(handle) => handle.commit().await?,
        }
        Ok(())
    }
}
