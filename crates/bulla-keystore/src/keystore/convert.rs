//! What rows go through between two versions of the schema: batches of one transaction each.

use bulla_seal::OsRandom;
use zeroize::Zeroizing;

use super::access_keys::secret_row;
use super::current_kek;
use crate::db::migrations::DataStep;
use crate::db::{Db, access_keys};
use crate::error::{KeystoreError, Result};
use crate::kek::KekRing;

/// How far a change of rows is that comes with a change of the schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Converted {
    /// Rows that were changed.
    pub done: u64,
    /// Rows that there were to change when it began.
    pub total: u64,
}

/// Does what is left of a step. Rows that are done are left alone, so that it may be cut off at any
/// point and called again.
pub(super) async fn run(
    step: DataStep,
    db: &Db,
    keks: &KekRing,
    batch: u32,
    progress: &mut impl FnMut(Converted),
) -> Result<()> {
    let total = access_keys::count_to_convert(&mut db.read().await?, step).await?;
    let mut far = Converted { done: 0, total };
    progress(far);
    let mut after = String::new();
    while let Some(last) = one_batch(step, db, keks, (&after, batch), &mut far).await? {
        progress(far);
        after = last;
    }
    if step == DataStep::EncryptAccessKeys {
        // Also if the batches were done before and only this was cut off.
        db.rebuild("access_keys").await?;
    }
    Ok(())
}

/// Gives the id of its last key; `None` if there was nothing to do.
async fn one_batch(
    step: DataStep,
    db: &Db,
    keks: &KekRing,
    (after, batch): (&str, u32),
    far: &mut Converted,
) -> Result<Option<String>> {
    match step {
        DataStep::EncryptAccessKeys => encrypt(db, keks, after, batch, far).await,
        DataStep::DecryptAccessKeys => decrypt(db, keks, after, batch, far).await,
    }
}

async fn encrypt(
    db: &Db,
    keks: &KekRing,
    after: &str,
    batch: u32,
    far: &mut Converted,
) -> Result<Option<String>> {
    let mut tx = db.write().await?;
    let kek = current_kek(&mut tx, keks).await?;
    let rows = access_keys::in_clear(&mut tx, after, batch.max(1)).await?;
    for row in &rows {
        let place = secret_row(&row.api_user, row.epoch);
        let wrapped =
            kek.wrap_key().wrap(&mut OsRandom::default(), &place, row.secret.as_bytes())?;
        far.done += u64::from(access_keys::set_encrypted(&mut tx, row, &wrapped).await?);
    }
    tx.commit().await?;
    Ok(rows.into_iter().last().map(|row| row.id))
}

/// The same back.
async fn decrypt(
    db: &Db,
    keks: &KekRing,
    after: &str,
    batch: u32,
    far: &mut Converted,
) -> Result<Option<String>> {
    let mut tx = db.write().await?;
    let rows = access_keys::encrypted(&mut tx, after, batch.max(1)).await?;
    for row in &rows {
        let what = || format!("secret of access key {}", row.id);
        let opened =
            keks.open(&secret_row(&row.api_user, row.epoch), &row.encrypted_secret, what())?;
        let secret = String::from_utf8(opened.to_vec()).map(Zeroizing::new);
        let secret = secret.map_err(|_| KeystoreError::damaged(what()))?;
        far.done += u64::from(access_keys::set_in_clear(&mut tx, row, &secret).await?);
    }
    tx.commit().await?;
    Ok(rows.into_iter().last().map(|row| row.id))
}
