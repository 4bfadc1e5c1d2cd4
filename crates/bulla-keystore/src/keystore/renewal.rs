//! Renewal of an agent's credential under its join-state counter (protocol section 10): the second
//! live copy of an agent is noticed when both renew.

use bulla_seal::{
    Credential, Digest, IssuerRight, KemPublicKey, Kid, Party, SignedCredential, UnixTime,
    VerifyingKey,
};
use thiserror::Error;

use super::issue::Place;
use super::{Keystore, from_column, seconds, to_column};
use crate::db::credentials::StoredRow;
use crate::db::{Conn, Tx, credentials, join, principals, revocation};
use crate::error::{KeystoreError, Result};

/// What an agent asks for, as its signature under the key of its present credential proved it.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Who asks.
    pub party: Party,
    /// The credential that it asked under: the one that is to be followed.
    pub credential: Kid,
    /// One more than at its last renewal; 1 at its first.
    pub counter: u64,
    /// Of the whole request.
    pub request: Digest,
    /// The new key to sign with.
    pub signing: VerifyingKey,
    /// The new key to receive with.
    pub kem: KemPublicKey,
}

/// What became of a renewal.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time")]
pub enum Renewed {
    /// The new credential.
    Issued {
        /// It.
        credential: SignedCredential,
        /// The request came before, and this is what it got then.
        again: bool,
    },
    /// There is none.
    Refused(RenewRefusal),
}

/// Why a renewal was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RenewRefusal {
    /// Another request under this counter was accepted, or a credential that was followed asks for
    /// another: there are two copies of this agent. All its credentials are revoked.
    #[error(
        "there are two copies of {0}: both asked for its next credential. Its credentials are revoked; find the copy, then `bulla agent revoke` it and add it anew"
    )]
    Cloned(Party),
    /// A request that was answered long ago, and others after it.
    #[error("{0} asks again for what it was given before its last renewal")]
    Stale(Party),
    /// The agent has counted further than the keystore has: one of the two was put back.
    #[error(
        "{0} counts further than the keystore: the keystore is from a backup, or the agent's state was changed. `bulla agent revoke` it and add it anew"
    )]
    Ahead(Party),
    /// The agent was removed or revoked, its name has another holder, or it is in quarantine.
    #[error("{0} was removed or revoked, or is in quarantine")]
    Gone(Party),
}

impl RenewRefusal {
    /// Its stable name, for logs and counters.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Cloned(_) => "renew-cloned",
            Self::Stale(_) => "renew-stale",
            Self::Ahead(_) => "renew-ahead",
            Self::Gone(_) => "renew-agent-gone",
        }
    }

    /// Whether somebody holds keys that are not theirs: an alarm, and not just a refusal.
    pub const fn is_alarm(&self) -> bool {
        matches!(self, Self::Cloned(_))
    }
}

impl Keystore {
    /// Gives a key-pair agent its next credential, for keys that it made itself. Peers are told of
    /// it when the agent [has it](Self::confirm_renewal), or when the former one ends.
    ///
    /// The same request under the same counter gets the same credential again. Another request
    /// under a counter that was used, or one under a credential that was followed, is a second copy
    /// of the agent: all its credentials are revoked, the new one too.
    pub async fn renew_agent(&self, renewal: &Renewal) -> Result<Renewed> {
        let now = self.now();
        let party = &renewal.party;
        let refused =
            |why: fn(Party) -> RenewRefusal| Ok(Renewed::Refused(why(renewal.party.clone())));
        let mut tx = self.db.write().await?;
        let row = principals::active(&mut tx, "agent", party.principal.name()).await?;
        let row = row.filter(|row| row.incarnation == party.incarnation);
        let Some(row) = row else { return refused(RenewRefusal::Gone) };
        if join::alarms(&mut tx, row.id).await? != (0, 0) {
            return refused(RenewRefusal::Gone);
        }
        if renewal.counter == 0 {
            return refused(RenewRefusal::Stale);
        }
        if self.is_revoked(&mut tx, row.id, party).await? {
            return refused(RenewRefusal::Gone);
        }
        let counter = to_column(renewal.counter);
        let last = join::last_renewal(&mut tx, row.id).await?;
        let reached = last.as_ref().map_or(0, |(counter, ..)| *counter);
        if counter == reached.saturating_add(1) {
            let newest = credentials::newest(&mut tx, row.id, "agent").await?;
            let newest =
                newest.ok_or_else(|| KeystoreError::NoCredential(party.principal.clone()))?;
            if newest.kid != renewal.credential.as_bytes() {
                return self.cloned(tx, row.id, reached, party).await;
            }
            let credential = self.issue_renewed(&mut tx, row.id, renewal, &newest, now).await?;
            let (request, bytes) = (renewal.request.as_bytes(), credential.as_bytes());
            join::insert_renewal(&mut tx, row.id, counter, request, bytes, seconds(now)).await?;
            tx.commit().await?;
            return Ok(Renewed::Issued { credential, again: false });
        }
        let Some(known) = join::renewal(&mut tx, row.id, counter).await? else {
            return refused(RenewRefusal::Ahead);
        };
        if known != renewal.request.as_bytes() {
            return self.cloned(tx, row.id, counter, party).await;
        }
        match last {
            Some((newest, _, bytes)) if newest == counter => {
                let credential = self.verified(&party.principal, party.incarnation, &bytes, now)?;
                Ok(Renewed::Issued { credential, again: true })
            }
            _ => refused(RenewRefusal::Stale),
        }
    }

    /// The agent has its new credential and receives under it: peers are told of it from now on.
    /// Whether that is news.
    pub async fn confirm_renewal(&self, party: &Party, kid: Kid) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let row = principals::active(&mut tx, "agent", party.principal.name()).await?;
        let row = row.filter(|row| row.incarnation == party.incarnation);
        let row = row.ok_or_else(|| KeystoreError::UnknownPrincipal(party.principal.clone()))?;
        let now = seconds(self.now());
        let news = credentials::hand_out(&mut tx, row.id, kid.as_bytes(), now).await?;
        tx.commit().await?;
        Ok(news)
    }

    /// Both copies are cut off.
    async fn cloned(
        &self,
        mut tx: Tx,
        principal_id: i64,
        counter: i64,
        party: &Party,
    ) -> Result<Renewed> {
        self.quarantine(&mut tx, principal_id).await?;
        join::alarm_renewal(&mut tx, principal_id, counter).await?;
        tx.commit().await?;
        Ok(Renewed::Refused(RenewRefusal::Cloned(party.clone())))
    }

    /// Whether a credential of this incarnation was revoked, by name or by its incarnation or
    /// epoch: a renewal must not bring back what an operator took away.
    async fn is_revoked(&self, tx: &mut Conn, principal_id: i64, party: &Party) -> Result<bool> {
        for (kid, _) in revocation::credentials_of(tx, principal_id).await? {
            if revocation::is_listed(tx, &kid).await? {
                return Ok(true);
            }
        }
        let lowest = revocation::lowest(tx, i64::MIN).await?;
        let name = party.principal.to_string();
        Ok(lowest.iter().any(|row| row.principal == name && row.incarnation > party.incarnation))
    }

    async fn issue_renewed(
        &self,
        tx: &mut Conn,
        principal_id: i64,
        renewal: &Renewal,
        former: &StoredRow,
        now: UnixTime,
    ) -> Result<SignedCredential> {
        let principal = &renewal.party.principal;
        // One that is over is not renewed: its holder could not have asked.
        let current = self.verified(principal, renewal.party.incarnation, &former.bytes, now)?;
        let issuer = self.issuer(tx, IssuerRight::Agents).await?;
        let credential = Credential {
            kid: Kid([0; Kid::LEN]),
            epoch: current.epoch.saturating_add(1),
            signing: Some(renewal.signing),
            kem: Some(renewal.kem.clone()),
            validity: self.validity(&issuer, self.agent_life),
            ..Credential::clone(&current)
        };
        let held_until = Some(from_column(former.not_after).secs());
        let place = Place { principal_id, purpose: "agent", held_until };
        self.issue(tx, &issuer, place, credential, now).await
    }
}
