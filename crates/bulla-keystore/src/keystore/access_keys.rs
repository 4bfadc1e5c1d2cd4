//! Access keys of the API's users: operators and programs (an access key id, which is no secret, and
//! a secret key, with which requests are signed). The server needs the secret itself to check a
//! signature, so it is kept, wrapped.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulla_seal::principal::check_name;
use bulla_seal::{OsRandom, Random, Secret, UnixTime};
use zeroize::Zeroizing;

use super::{KID_TRIES, Keystore, current_kek, from_column, seconds, to_column};
use crate::db::access_keys::{self, AccessKeyRow};
use crate::error::{KeystoreError, Result};
use crate::kek::Row;

/// What every access key id begins with.
const ID_PREFIX: &str = "BULL";
/// The digits of RFC 4648's base32.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A user of the API: `operator/NAME` is a person, `program/NAME` is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiUser(String);

/// An access key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKeyRecord {
    /// Its id, which goes with every request.
    pub id: String,
    /// Whose it is.
    pub user: ApiUser,
    /// Which of this user's keys it is, from 1, never used again.
    pub epoch: u32,
    /// When it was made.
    pub created: UnixTime,
    /// When it was last used, as far as that was noted.
    pub last_used: Option<UnixTime>,
    /// From when on it is refused.
    pub expires: Option<UnixTime>,
    /// Whether it is refused for now.
    pub disabled: bool,
}

/// A secret key. Wipes itself, and prints redacted.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<String>);

/// An access key with its secret.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// What may be shown.
    pub record: AccessKeyRecord,
    /// What requests are signed with.
    pub secret: SecretKey,
}

/// Why an access key is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessKeyRefusal {
    /// There is none of that id, or it was removed.
    Unknown,
    /// It is disabled.
    Disabled,
    /// It is past its end.
    Expired,
}

impl ApiUser {
    /// Its short form, `operator/NAME` or `program/NAME`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiUser {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('/') {
            Some(("operator" | "program", name)) => {
                check_name("name of a user of the API", name)?;
                Ok(Self(text.to_owned()))
            }
            _ => Err(KeystoreError::NotAUser { given: text.chars().take(80).collect() }),
        }
    }
}

impl fmt::Display for ApiUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SecretKey {
    /// The text, whose bytes are the key.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn generate() -> Result<Self> {
        let secret = Secret::<32>::generate(&mut OsRandom::default())?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.expose()))))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl AccessKeyRefusal {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "access-key-unknown",
            Self::Disabled => "access-key-disabled",
            Self::Expired => "access-key-expired",
        }
    }
}

impl fmt::Display for AccessKeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place of a secret key.
pub(super) fn secret_row(api_user: &str, epoch: u32) -> Row<'_> {
    Row {
        table: "access_keys",
        column: "encrypted_secret_key",
        name: api_user,
        incarnation: 0,
        epoch,
    }
}

impl Keystore {
    /// Makes another access key for a user, good until `expires`.
    pub async fn add_access_key(
        &self,
        user: &ApiUser,
        expires: Option<UnixTime>,
    ) -> Result<AccessKey> {
        let now = self.now();
        if expires.is_some_and(|end| end <= now) {
            return Err(KeystoreError::AccessKeyEnd);
        }
        let mut tx = self.db.write().await?;
        let kek = current_kek(&mut tx, &self.keks).await?;
        let secret = SecretKey::generate()?;
        let epoch = access_keys::last_epoch(&mut tx, user.as_str()).await?.saturating_add(1);
        let place = secret_row(user.as_str(), epoch);
        let random = &mut OsRandom::default();
        let wrapped = kek.wrap_key().wrap(random, &place, secret.0.as_bytes())?;
        for _ in 0..KID_TRIES {
            let row = AccessKeyRow {
                id: new_id()?,
                api_user: user.to_string(),
                epoch,
                created: seconds(now),
                last_used: None,
                expires: expires.map(seconds),
                disabled: false,
            };
            if access_keys::insert(&mut tx, &row, &wrapped).await? {
                tx.commit().await?;
                return Ok(AccessKey { record: record(row)?, secret });
            }
        }
        Err(KeystoreError::NoFreeKid(KID_TRIES))
    }

    /// Every access key, by user, without secrets.
    pub async fn list_access_keys(&self) -> Result<Vec<AccessKeyRecord>> {
        let rows = access_keys::list(&mut self.db.read().await?).await?;
        rows.into_iter().map(record).collect()
    }

    /// The access key that a request names, if it is to be taken now.
    pub async fn access_key(&self, id: &str) -> Result<Result<AccessKey, AccessKeyRefusal>> {
        let found = access_keys::find(&mut self.db.read().await?, id).await?;
        let Some((row, wrapped)) = found else { return Ok(Err(AccessKeyRefusal::Unknown)) };
        if row.disabled {
            return Ok(Err(AccessKeyRefusal::Disabled));
        }
        if row.expires.is_some_and(|end| end <= seconds(self.now())) {
            return Ok(Err(AccessKeyRefusal::Expired));
        }
        let what = || format!("secret of access key {}", row.id);
        let opened = self.keks.open(&secret_row(&row.api_user, row.epoch), &wrapped, what())?;
        let text = std::str::from_utf8(&opened).map_err(|_| KeystoreError::damaged(what()))?;
        let secret = SecretKey(Zeroizing::new(text.to_owned()));
        Ok(Ok(AccessKey { record: record(row)?, secret }))
    }

    /// Has an access key refused for now, or taken again.
    pub async fn disable_access_key(&self, id: &str, disabled: bool) -> Result<()> {
        let mut tx = self.db.write().await?;
        if !access_keys::set_disabled(&mut tx, id, disabled).await? {
            return Err(KeystoreError::UnknownAccessKey { id: id.chars().take(80).collect() });
        }
        tx.commit().await
    }

    /// Removes an access key and wipes its secret.
    pub async fn remove_access_key(&self, id: &str) -> Result<()> {
        let mut tx = self.db.write().await?;
        if !access_keys::remove(&mut tx, id, seconds(self.now())).await? {
            return Err(KeystoreError::UnknownAccessKey { id: id.chars().take(80).collect() });
        }
        tx.commit().await
    }

    /// Notes when keys were last used. Of many uses the last one is enough, every now and then: each
    /// call is a transaction.
    pub async fn note_access_keys_used(&self, uses: &[(String, UnixTime)]) -> Result<()> {
        let mut tx = self.db.write().await?;
        for (id, at) in uses {
            access_keys::set_used(&mut tx, id, to_column(at.secs())).await?;
        }
        tx.commit().await
    }
}

fn record(row: AccessKeyRow) -> Result<AccessKeyRecord> {
    let user = row.api_user.parse().map_err(|_| KeystoreError::damaged("user of an access key"))?;
    Ok(AccessKeyRecord {
        id: row.id,
        user,
        epoch: row.epoch,
        created: from_column(row.created),
        last_used: row.last_used.map(from_column),
        expires: row.expires.map(from_column),
        disabled: row.disabled,
    })
}

/// 80 random bits, five to a digit.
fn new_id() -> Result<String> {
    let mut bytes = [0; 16];
    OsRandom::default().fill(&mut bytes)?;
    let digit = |byte: u8| BASE32.get(usize::from(byte % 32)).map_or('A', |d| char::from(*d));
    Ok(ID_PREFIX.chars().chain(bytes.into_iter().map(digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_operators_or_programs() {
        for good in ["operator/alice", "program/backup-1"] {
            assert_eq!(good.parse::<ApiUser>().unwrap().to_string(), good);
        }
        for bad in ["alice", "agent/db-1", "operator/", "operator/a/b", "program/a b", "/"] {
            assert!(bad.parse::<ApiUser>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = SecretKey::generate().unwrap();
        assert_eq!(secret.expose().len(), 43);
        assert_eq!(format!("{secret:?}"), "SecretKey(..)");
    }

    #[test]
    fn ids_look_like_ids() {
        let (one, two) = (new_id().unwrap(), new_id().unwrap());
        assert!(one != two && one.len() == 20 && one.starts_with("BULL"), "{one}");
        assert!(one.bytes().all(|b| BASE32.contains(&b)), "{one}");
    }
}
