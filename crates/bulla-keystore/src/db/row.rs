//! Rows as the tables' files want them, whichever database gave them.

use sqlx::sqlite::SqliteRow;

use crate::error::{KeystoreError, Result};

/// A row of a result.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
    #[cfg(feature = "mariadb")]
    MariaDb(sqlx::mysql::MySqlRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

#[cfg(feature = "postgres")]
impl From<sqlx::postgres::PgRow> for Row {
    fn from(row: sqlx::postgres::PgRow) -> Self {
        Self::Postgres(row)
    }
}

#[cfg(feature = "mariadb")]
impl From<sqlx::mysql::MySqlRow> for Row {
    fn from(row: sqlx::mysql::MySqlRow) -> Self {
        Self::MariaDb(row)
    }
}

/// A column's value.
pub(crate) trait Column: Sized {
    fn read(row: &Row, at: usize) -> Result<Self>;
}

macro_rules! column {
    ($($value:ty),*) => {$(
        impl Column for Option<$value> {
            fn read(row: &Row, at: usize) -> Result<Self> {
                Ok(match row {
                    Row::Sqlite(row) => sqlx::Row::try_get(row, at)?,
                    #[cfg(feature = "postgres")]
                    Row::Postgres(row) => sqlx::Row::try_get(row, at)?,
                    #[cfg(feature = "mariadb")]
                    Row::MariaDb(row) => sqlx::Row::try_get(row, at)?,
                })
            }
        }

        impl Column for $value {
            fn read(row: &Row, at: usize) -> Result<Self> {
                <Option<Self> as Column>::read(row, at)?.ok_or_else(missing)
            }
        }
    )*};
}

column!(i64, String, Vec<u8>);

impl Column for Option<u32> {
    fn read(row: &Row, at: usize) -> Result<Self> {
        let value: Option<i64> = Column::read(row, at)?;
        value.map(u32::try_from).transpose().map_err(|_| out_of_range())
    }
}

impl Column for u32 {
    fn read(row: &Row, at: usize) -> Result<Self> {
        Self::try_from(<i64 as Column>::read(row, at)?).map_err(|_| out_of_range())
    }
}

fn missing() -> KeystoreError {
    KeystoreError::damaged("row: a value is missing")
}

fn out_of_range() -> KeystoreError {
    KeystoreError::damaged("row: a number is out of range")
}

/// What a row is read into: one value, or several.
pub(crate) trait FromRow: Sized {
    fn read(row: &Row) -> Result<Self>;
}

macro_rules! single {
    ($($value:ty),*) => {$(
        impl FromRow for $value {
            fn read(row: &Row) -> Result<Self> {
                Column::read(row, 0)
            }
        }
    )*};
}

single!(i64, u32, String, Vec<u8>, Option<i64>);

macro_rules! several {
    ($($column:ident $at:literal),*) => {
        impl<$($column: Column),*> FromRow for ($($column,)*) {
            fn read(row: &Row) -> Result<Self> {
                Ok(($($column::read(row, $at)?,)*))
            }
        }
    };
}

several!(A 0, B 1);
several!(A 0, B 1, C 2);
several!(A 0, B 1, C 2, D 3);
several!(A 0, B 1, C 2, D 3, E 4);
several!(A 0, B 1, C 2, D 3, E 4, F 5);
several!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
several!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
several!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8);
several!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9);
several!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10);
