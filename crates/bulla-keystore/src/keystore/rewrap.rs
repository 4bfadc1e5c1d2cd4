//! Rotation of the key-encryption key: every wrapped value is opened and wrapped anew, while the
//! keystore is in use.
//!
//! A rotation begins by writing down the id of the key that new values are wrapped under. Every
//! writer reads it in its own transaction, so from then on nothing new comes under the old key,
//! in any process. Then all values go over, in batches; both keys open meanwhile. What was cut off goes on where
//! it is called again: what is under the new key already is left alone. It ends with a count
//! under the write lock.

use bulla_seal::{OsRandom, Principal};
use zeroize::Zeroizing;

use super::Keystore;
use crate::db::Conn;
use crate::db::wrapped::{self, WRAPPED, WrappedColumn, WrappedValue};
use crate::error::{KeystoreError, Result};
use crate::kek::{Kek, KekRing, WrapKey, id_of};

/// How many values are rewrapped in one transaction unless something else is asked for. Other
/// writers wait for as long as one takes: some ten milliseconds.
pub const REWRAP_BATCH: u32 = 500;
/// Most values that an error names.
const NAMED: usize = 20;

/// How far a rotation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Values that were looked at.
    pub seen: u64,
    /// Values that were under another key and are now under the new one.
    pub rewrapped: u64,
    /// Values that there were when it began.
    pub total: u64,
}

/// Which keys the stored values are under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekState {
    /// The id of the key that new values are wrapped under.
    pub current: [u8; 8],
    /// Each column of wrapped values.
    pub counts: Vec<KekCount>,
}

/// The values of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KekCount {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// Values under the current key.
    pub current: u64,
    /// Values under any other key, or damaged.
    pub other: u64,
}

impl KekState {
    /// How many values are not under the current key.
    pub fn left(&self) -> u64 {
        self.counts.iter().map(|count| count.other).sum()
    }
}

/// The key that values of this transaction are wrapped under.
pub(super) async fn current_kek(conn: &mut Conn, keks: &KekRing) -> Result<Kek> {
    keks.get(&wrapped::kek_id(conn).await?)
}

impl Keystore {
    /// Goes over to the key-encryption key `next`: begins, or goes on with what was cut off.
    /// Processes that have the keystore open must be able to fetch `next` already. `progress` is
    /// told after each batch of `batch` values.
    ///
    /// When it returns without an error, a count under the write lock found no value that is not
    /// under `next`, and nothing needs another key any more but backups of the database.
    ///
    /// # Errors
    /// [`KeystoreError::NotRewrapped`] if values did not open; all others went over.
    pub async fn rotate_kek(
        &self,
        next: &Kek,
        batch: u32,
        mut progress: impl FnMut(Rewrapped),
    ) -> Result<Rewrapped> {
        self.keks.add(next.clone());
        let mut far = Rewrapped { total: self.begin_rotation(next).await?, ..Rewrapped::default() };
        progress(far);
        let mut damaged = Vec::new();
        for column in WRAPPED {
            let mut after = None;
            while let Some(last) = self
                .rewrap_batch(column, (next, batch.max(1)), after, &mut far, &mut damaged)
                .await?
            {
                progress(far);
                after = Some(last);
            }
        }
        if !damaged.is_empty() {
            return Err(not_rewrapped(damaged));
        }
        let mut tx = self.db.write().await?;
        let state = count(&mut tx, &self.keks).await?;
        tx.commit().await?;
        if state.current != next.id() || state.left() > 0 {
            return Err(KeystoreError::RotationOverrun {
                current: hex::encode(state.current),
                left: state.left(),
            });
        }
        Ok(far)
    }

    /// The key-encryption key that new values are wrapped under.
    pub async fn current_kek(&self) -> Result<Kek> {
        current_kek(&mut self.db.read().await?, &self.keks).await
    }

    /// Which keys the stored values are under.
    pub async fn kek_state(&self) -> Result<KekState> {
        count(&mut self.db.read().await?, &self.keks).await
    }

    /// Has new values wrapped under `next` from now on; gives the number of values.
    async fn begin_rotation(&self, next: &Kek) -> Result<u64> {
        let mut tx = self.db.write().await?;
        // Whoever begins must hold the key that is current so far.
        let current = current_kek(&mut tx, &self.keks).await?;
        if current.id() != next.id() {
            wrapped::set_kek_id(&mut tx, &next.id()).await?;
        }
        let mut total = 0;
        for column in WRAPPED {
            total += wrapped::count(&mut tx, column).await?;
        }
        tx.commit().await?;
        Ok(total)
    }

    /// One batch in one transaction; gives the last value that it looked at.
    async fn rewrap_batch(
        &self,
        column: &WrappedColumn,
        (next, batch): (&Kek, u32),
        after: Option<WrappedValue>,
        far: &mut Rewrapped,
        damaged: &mut Vec<String>,
    ) -> Result<Option<WrappedValue>> {
        let mut tx = self.db.write().await?;
        let values = column.page(&mut tx, after.as_ref(), batch).await?;
        let last = values.last().cloned();
        let mut changes = Vec::with_capacity(values.len());
        for value in values {
            far.seen += 1;
            let name = column.full_name(&value);
            let key = key_of(next, column, &name)?;
            if id_of(&value.bytes) == Some(key.id()) {
                continue;
            }
            let Some(opened) = self.open_value(column, &value, &name)? else {
                damaged.push(format!("{} of {name} in {}", column.column, column.table));
                continue;
            };
            let place = column.place(&name, &value);
            let new = key.wrap(&mut OsRandom::default(), &place, &opened)?;
            changes.push((value, new));
        }
        far.rewrapped += column.set(&mut tx, &changes).await?;
        tx.commit().await?;
        Ok(last)
    }

    /// `None` if it was altered or moved.
    fn open_value(
        &self,
        column: &WrappedColumn,
        value: &WrappedValue,
        name: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let place = column.place(name, value);
        let opened = if column.by_type {
            self.keks.open_for(&component(name)?, &place, &value.bytes, name)
        } else {
            self.keks.open(&place, &value.bytes, name)
        };
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(KeystoreError::Damaged { .. } | KeystoreError::WrongKek { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

async fn count(conn: &mut Conn, keks: &KekRing) -> Result<KekState> {
    let current = current_kek(conn, keks).await?;
    let mut counts = Vec::with_capacity(WRAPPED.len());
    for column in WRAPPED {
        let (table, name) = (column.table, column.column);
        let mut count = KekCount { table, column: name, current: 0, other: 0 };
        let mut after = None;
        loop {
            let values = column.page(conn, after.as_ref(), REWRAP_BATCH).await?;
            for value in &values {
                let key = key_of(&current, column, &column.full_name(value))?;
                if id_of(&value.bytes) == Some(key.id()) {
                    count.current += 1;
                } else {
                    count.other += 1;
                }
            }
            after = values.into_iter().last();
            if after.is_none() {
                break;
            }
        }
        counts.push(count);
    }
    Ok(KekState { current: current.id(), counts })
}

/// The key derived from `kek` that a value of that name is wrapped under.
fn key_of(kek: &Kek, column: &WrappedColumn, name: &str) -> Result<WrapKey> {
    Ok(if column.by_type { kek.for_component(&component(name)?) } else { kek.wrap_key().clone() })
}

/// The type in `component/TYPE`, and in `component/TYPE/` with more behind it.
fn component(name: &str) -> Result<Principal> {
    let end = name.match_indices('/').nth(1).map_or(name.len(), |(at, _)| at);
    let of_type = name.get(..end).unwrap_or_default();
    of_type.parse().map_err(|_| KeystoreError::damaged("component type"))
}

fn not_rewrapped(mut damaged: Vec<String>) -> KeystoreError {
    let count = damaged.len();
    damaged.truncate(NAMED);
    KeystoreError::NotRewrapped { count, damaged }
}
