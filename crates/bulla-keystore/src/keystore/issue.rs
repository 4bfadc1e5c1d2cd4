//! Issuing: taking an issuer's key out of its wrapping and signing a credential with it.

use std::collections::HashSet;
use std::time::Duration;

use bulla_seal::{
    Credential, Issuer, IssuerRight, KemPublicKey, Kid, Level, Party, SignedCredential, SigningKey,
    SuiteSet, UnixTime, Validity, VerifyingKey,
};

use super::{KID_TRIES, Keystore, seconds, to_column};
use crate::db::credentials::{self, CredentialRow};
use crate::db::trust;
use crate::db::{Conn, ROWS_AT_ONCE};
use crate::error::{KeystoreError, Result};
use crate::kek::Row;

/// How long an issuer may issue; then the root key is needed again.
pub const ISSUER_LIFETIME: Duration = Duration::from_secs(5 * 365 * 86_400);
/// How long the audience credentials of components live.
pub const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// How long the credentials of agents live unless the operator says otherwise. Agents renew them at
/// their half; one that was off for longer has to join again.
pub const AGENT_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// How long the signing credential of a host with a key file lives; it renews it at its half.
pub const HOST_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Least and most that the operator may say.
pub const AGENT_LIFETIMES: (Duration, Duration) = (Duration::from_secs(3_600), CREDENTIAL_LIFETIME);
/// How long a component type's new key waits before peers are told of it: every host of the type has
/// it by then.
pub const HAND_OUT_AFTER: Duration = Duration::from_secs(60);
/// How long the signing credential of one host lives unless something else is asked for.
pub const SIGNING_LIFETIME: Duration = Duration::from_secs(3_600);
/// Most that may be asked for.
pub const MAX_SIGNING_LIFETIME: Duration = CREDENTIAL_LIFETIME;
/// Credentials begin this long before they are issued, for peers whose clock is behind (protocol
/// section 7).
pub const SKEW: Duration = Duration::from_secs(120);

/// The place of an issuer's key.
pub(super) fn issuer_row(right: IssuerRight, epoch: u32) -> Row<'static> {
    Row { table: "issuers", column: "encrypted_seed", name: right.as_str(), incarnation: 0, epoch }
}

/// Who gets an agent's credential of an epoch, for keys that were made here or by the agent.
pub(super) struct NewHolder {
    pub(super) principal_id: i64,
    pub(super) party: Party,
    pub(super) epoch: u32,
    pub(super) keys: (VerifyingKey, KemPublicKey),
}

/// Where a credential is stored.
pub(super) struct Place {
    pub(super) principal_id: i64,
    pub(super) purpose: &'static str,
    /// Not handed out to peers before then, in Unix seconds, unless it is confirmed: its holder may
    /// not have it yet.
    pub(super) held_until: Option<u64>,
}

impl Place {
    /// Of a credential that is handed out at once.
    pub(super) const fn of(principal_id: i64, purpose: &'static str) -> Self {
        Self { principal_id, purpose, held_until: None }
    }
}

impl Keystore {
    pub(super) async fn issuer(&self, conn: &mut Conn, right: IssuerRight) -> Result<Issuer> {
        let row = trust::issuer(conn, right.as_str()).await?;
        let (row, former_until) = row.ok_or(KeystoreError::NoIssuer(right))?;
        let what = || format!("key of the {}", row.right);
        let seed =
            self.keks.open_fixed(&issuer_row(right, row.epoch), &row.encrypted_seed, what())?;
        let key = SigningKey::from_seed(seed).ok_or_else(|| KeystoreError::damaged(what()))?;
        let public = key.verifying_key();
        let trust = self.trust();
        let credential = trust.issuers().map(|(issuer, _)| issuer);
        let credential = credential.filter(|i| i.right == right && i.key == public).last();
        let credential = credential.ok_or_else(|| KeystoreError::damaged(what()))?;
        let mut credential = credential.clone();
        // Who knows only the former root knows only that end.
        if seconds(self.now()) < former_until {
            let end = &mut credential.validity.not_after;
            *end = (*end).min(row.not_after.unsigned_abs());
        }
        if credential.validity.not_after <= self.now().secs() {
            return Err(KeystoreError::IssuerExpired(right));
        }
        Ok(Issuer::new(key, credential)?)
    }

    /// `lifetime` from now, but not beyond the issuer's own end.
    pub(super) fn validity(&self, issuer: &Issuer, lifetime: Duration) -> Validity {
        let now = self.now().secs();
        Validity {
            not_before: now.saturating_sub(SKEW.as_secs()),
            not_after: now
                .saturating_add(lifetime.as_secs())
                .min(issuer.credential().validity.not_after),
        }
    }

    /// Signs `credential` under a kid of its own and stores it.
    pub(super) async fn issue(
        &self,
        conn: &mut Conn,
        issuer: &Issuer,
        place: Place,
        mut credential: Credential,
        now: UnixTime,
    ) -> Result<SignedCredential> {
        for _ in 0..KID_TRIES {
            credential.kid = self.kid()?;
            let signed = issuer.issue(&credential)?;
            let row = CredentialRow {
                kid: credential.kid.as_bytes(),
                principal_id: place.principal_id,
                purpose: place.purpose,
                instance: credential.instance.as_deref(),
                epoch: credential.epoch,
                bytes: signed.as_bytes(),
                not_before: to_column(place.held_until.unwrap_or(credential.validity.not_before)),
                not_after: to_column(credential.validity.not_after),
            };
            if credentials::insert(conn, &row, seconds(now)).await? {
                return Ok(signed);
            }
        }
        Err(KeystoreError::NoFreeKid(KID_TRIES))
    }

    /// The credentials of key-pair agents that are added or join, in their order: by few statements,
    /// however many they are.
    pub(super) async fn issue_agents(
        &self,
        conn: &mut Conn,
        new: Vec<NewHolder>,
        now: UnixTime,
    ) -> Result<Vec<SignedCredential>> {
        let issuer = self.issuer(conn, IssuerRight::Agents).await?;
        let validity = self.validity(&issuer, self.agent_life);
        let mut kids = self.free_kids(conn, new.len()).await?.into_iter();
        let mut issued = Vec::with_capacity(new.len());
        for NewHolder { principal_id, party, epoch, keys: (signing, kem) } in new {
            let credential = Credential {
                kid: kids.next().ok_or(KeystoreError::NoFreeKid(KID_TRIES))?,
                party,
                epoch,
                signing: Some(signing),
                kem: Some(kem),
                // The set begins wide and shrinks by itself (protocol section 2).
                suites: SuiteSet::all(),
                validity,
                accepts: Level::Sealed,
                sends: Level::Sealed,
                roles: Vec::new(),
                instance: None,
            };
            issued.push((principal_id, issuer.issue(&credential)?));
        }
        for some in issued.chunks(ROWS_AT_ONCE) {
            let mut rows = Vec::with_capacity(some.len());
            for (principal_id, signed) in some {
                rows.push(CredentialRow {
                    kid: signed.kid.as_bytes(),
                    principal_id: *principal_id,
                    purpose: "agent",
                    instance: None,
                    epoch: signed.epoch,
                    bytes: signed.as_bytes(),
                    not_before: to_column(signed.validity.not_before),
                    not_after: to_column(signed.validity.not_after),
                });
            }
            credentials::insert_many(conn, &rows, seconds(now)).await?;
        }
        Ok(issued.into_iter().map(|(_, signed)| signed).collect())
    }

    /// Key ids that no credential has, and that stay free as long as the write lock is held.
    async fn free_kids(&self, conn: &mut Conn, count: usize) -> Result<Vec<Kid>> {
        let mut kids: Vec<Kid> = Vec::with_capacity(count);
        let mut seen = HashSet::with_capacity(count);
        for _ in 0..KID_TRIES {
            let mut fresh = Vec::with_capacity(count - kids.len());
            for _ in kids.len()..count {
                let kid = self.kid()?;
                if seen.insert(kid) {
                    fresh.push(kid);
                }
            }
            for some in fresh.chunks(ROWS_AT_ONCE) {
                let taken = credentials::taken(conn, some).await?;
                kids.extend(some.iter().filter(|kid| !taken.iter().any(|t| t == kid.as_bytes())));
            }
            if kids.len() == count {
                return Ok(kids);
            }
        }
        Err(KeystoreError::NoFreeKid(KID_TRIES))
    }
}
