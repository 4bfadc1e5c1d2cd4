//! Revocation: what is listed, and the statements that say so (protocol section 10).

use std::sync::atomic::Ordering;
use std::time::Duration;

use bulla_seal::statement::{MAX_LOWEST, MAX_REVOKED};
use bulla_seal::{
    Exemption, GroupName, IssuerRight, Kid, Level, Lowest, MAX_LIFE, Party, Principal, Revoked,
    SignedExemption, SignedStatement, Statement,
};

use super::{Keystore, SKEW, from_column, kid_from, seconds, to_column};
use crate::db::Conn;
use crate::db::revocation::{self, LowestRow};
use crate::db::{floors, groups, principals, recalls};
use crate::error::{KeystoreError, Result};

/// How long a statement is current.
pub const STATEMENT_LIFETIME: Duration =
    Duration::from_secs(bulla_seal::statement::MAX_STATEMENT_LIFE);
/// The end of what has none: pair keys. 31 December 9999.
pub(super) const NO_END: u64 = 253_402_300_799;

/// The epoch of what was told before the database was put back; 0 if it never was.
pub(super) async fn told_before(conn: &mut Conn) -> Result<u64> {
    Ok(recalls::newest(conn).await?.map_or(0, |(epoch, _)| epoch.unsigned_abs()))
}

/// Until when a kid has to be listed whose credential ends at `end`.
pub(super) fn listed_until(end: u64) -> u64 {
    end.saturating_add(MAX_LIFE).saturating_add(SKEW.as_secs())
}

impl Keystore {
    /// Revokes one credential or pair key by its name. The next [statement](Self::statement)
    /// says so.
    pub async fn revoke_kid(&self, kid: Kid) -> Result<()> {
        let now = self.now();
        let mut tx = self.db.write().await?;
        let end = revocation::end_of_kid(&mut tx, kid.as_bytes()).await?;
        let end = match end.ok_or(KeystoreError::UnknownKid(kid))? {
            Some(end) => listed_until(from_column(end).secs()),
            None => NO_END,
        };
        revocation::insert_kid(&mut tx, kid.as_bytes(), to_column(end), seconds(now)).await?;
        self.check_room(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Revokes everything that a principal holds in this incarnation, credentials and pair keys,
    /// by raising its lowest incarnation. A later holder of the name is not touched.
    pub async fn revoke_principal(&self, principal: &Principal) -> Result<Party> {
        let mut tx = self.db.write().await?;
        let (kind, name) = (principal.kind().as_str(), principal.name());
        let row = principals::active(&mut tx, kind, name).await?;
        let row = row.ok_or_else(|| KeystoreError::UnknownPrincipal(principal.clone()))?;
        let mut end = listed_until(self.now().secs());
        for (_, not_after) in revocation::credentials_of(&mut tx, row.id).await? {
            end = end.max(listed_until(from_column(not_after).secs()));
        }
        if !revocation::pairs_of(&mut tx, row.id).await?.is_empty() {
            end = NO_END;
        }
        let lowest = LowestRow {
            principal: principal.to_string(),
            incarnation: row.incarnation.saturating_add(1),
            credential_epoch: 0,
            pair_epoch: 0,
            until: to_column(end),
        };
        self.raise_lowest(&mut tx, lowest).await?;
        self.check_room(&mut tx).await?;
        tx.commit().await?;
        Ok(Party::new(principal.clone(), row.incarnation))
    }

    /// Lists every kid of a principal; pair keys until `pairs`.
    pub(super) async fn list_kids(
        &self,
        conn: &mut Conn,
        principal_id: i64,
        pairs: u64,
    ) -> Result<()> {
        let now = self.now();
        for (kid, end) in revocation::credentials_of(conn, principal_id).await? {
            let until = listed_until(from_column(end).secs());
            if until > now.secs() {
                revocation::insert_kid(conn, &kid, to_column(until), seconds(now)).await?;
            }
        }
        for kid in revocation::pairs_of(conn, principal_id).await? {
            revocation::insert_kid(conn, &kid, to_column(pairs), seconds(now)).await?;
        }
        Ok(())
    }

    /// Messages that an exemption lets through below any seal show no key that could be listed: the party
    /// itself is, until the last of its exemptions ends.
    pub(super) async fn list_exempted(&self, conn: &mut Conn, party: &Party) -> Result<()> {
        let (trust, now) = (self.trust(), self.now().secs());
        let signed = floors::exemptions(conn).await?;
        let ends = signed
            .iter()
            .filter_map(|bytes| trust.verify_exemption(bytes).ok())
            .filter(|given| given.peer == *party && given.level < Level::Signed)
            .map(|given| given.until);
        let Some(end) = ends.max().filter(|end| *end > now) else { return Ok(()) };
        let lowest = LowestRow {
            principal: party.principal.to_string(),
            incarnation: party.incarnation.saturating_add(1),
            credential_epoch: 0,
            pair_epoch: 0,
            until: to_column(listed_until(end)),
        };
        self.raise_lowest(conn, lowest).await
    }

    /// Never lowers anything.
    pub(super) async fn raise_lowest(&self, conn: &mut Conn, new: LowestRow) -> Result<()> {
        let now = seconds(self.now());
        let known = revocation::lowest(conn, i64::MIN).await?;
        let known = known.into_iter().find(|row| row.principal == new.principal);
        let row = match known {
            Some(old) if old.incarnation > new.incarnation => old,
            Some(old) if old.incarnation == new.incarnation => LowestRow {
                credential_epoch: old.credential_epoch.max(new.credential_epoch),
                pair_epoch: old.pair_epoch.max(new.pair_epoch),
                until: old.until.max(new.until),
                ..new
            },
            _ => new,
        };
        revocation::set_lowest(conn, &row, now).await
    }

    /// Everything that is revoked fits into a statement, or it is not revoked: better an operator
    /// who is told now than agents that get no statement.
    pub(super) async fn check_room(&self, conn: &mut Conn) -> Result<()> {
        let now = seconds(self.now());
        let kids = revocation::kids(conn, now).await?.len();
        let lowest = revocation::lowest(conn, now).await?.len();
        if kids > MAX_REVOKED || lowest > MAX_LOWEST {
            return Err(KeystoreError::RevocationFull { kids: MAX_REVOKED, names: MAX_LOWEST });
        }
        Ok(())
    }

    /// The statement of revocation to tell peers: the newest one while it says what there is to
    /// say and is not past its half, else a new one of the next epoch, which is kept before it is
    /// given out. Any number of processes may ask.
    pub async fn statement(&self) -> Result<SignedStatement> {
        if let Some(current) = self.current_statement(&mut self.db.read().await?).await? {
            return Ok(current);
        }
        let mut tx = self.db.write().await?;
        // Another process may have been first.
        if let Some(current) = self.current_statement(&mut tx).await? {
            return Ok(current);
        }
        let content = self.to_state(&mut tx).await?;
        // Never below the time: a keystore that was brought back from a backup, or reverted, goes
        // on above what receivers have seen.
        let last = revocation::epoch(&mut tx).await?.max(told_before(&mut tx).await?);
        let epoch = last.saturating_add(1).max(content.issued_at);
        let issuer = self.issuer(&mut tx, IssuerRight::Revocation).await?;
        let end = issuer.credential().validity.not_after;
        let not_after = content.not_after.min(end);
        let signed = issuer.state(&Statement { epoch, not_after, ..content })?;
        let issued_at = to_column(signed.issued_at);
        revocation::set_statement(&mut tx, to_column(epoch), issued_at, signed.as_bytes()).await?;
        tx.commit().await?;
        self.issued.fetch_max(epoch, Ordering::Relaxed);
        Ok(signed)
    }

    /// The epoch of the newest [statement](Self::statement) that this process issued itself; 0 before
    /// the first. Of many processes that hold it, this one tells agents of it.
    pub fn issued_epoch(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// The statement that is kept, if nothing has to be said anew.
    async fn current_statement(&self, conn: &mut Conn) -> Result<Option<SignedStatement>> {
        let Some(bytes) = revocation::statement(conn).await? else { return Ok(None) };
        let kept = self.trust().verify_statement(&bytes);
        let kept = kept.map_err(|_| KeystoreError::damaged("statement of revocation"))?;
        let content = self.to_state(conn).await?;
        let half = STATEMENT_LIFETIME.as_secs() / 2;
        let now = self.now().secs();
        // A clock that was set back makes no reason to keep one from the future.
        let fresh = (kept.issued_at..kept.issued_at.saturating_add(half)).contains(&now);
        let same = (&kept.revoked, &kept.lowest, &kept.groups)
            == (&content.revoked, &content.lowest, &content.groups);
        let newest = kept.epoch > told_before(conn).await?;
        Ok((fresh && same && newest).then_some(kept))
    }

    /// What there is to say now, without an epoch.
    async fn to_state(&self, conn: &mut Conn) -> Result<Statement> {
        let now = self.now();
        let mut revoked = Vec::new();
        for (kid, until) in revocation::kids(conn, seconds(now)).await? {
            revoked.push(Revoked { kid: kid_from(&kid)?, until: from_column(until).secs() });
        }
        let mut lowest = Vec::new();
        for row in revocation::lowest(conn, seconds(now)).await? {
            let principal = row.principal.parse();
            lowest.push(Lowest {
                principal: principal.map_err(|_| KeystoreError::damaged("principal"))?,
                incarnation: row.incarnation,
                credential_epoch: row.credential_epoch,
                pair_epoch: row.pair_epoch,
            });
        }
        let mut epochs: Vec<(GroupName, u32)> = Vec::new();
        for (name, epoch) in groups::raised(conn).await? {
            let name = GroupName::new(&name).map_err(|_| KeystoreError::damaged("group name"))?;
            epochs.push((name, epoch));
        }
        Ok(Statement {
            epoch: 0,
            issued_at: now.secs(),
            not_after: now.secs().saturating_add(STATEMENT_LIFETIME.as_secs()),
            revoked,
            lowest,
            groups: epochs,
        })
    }

    /// Signs an exemption from a peer's floor with the operator's issuer (protocol section 8).
    /// It is kept with [`floors`](Self::floors).
    pub async fn exempt(
        &self,
        peer: &Party,
        method: &str,
        level: Level,
        until: u64,
    ) -> Result<SignedExemption> {
        let issuer = self.issuer(&mut self.db.read().await?, IssuerRight::Exemptions).await?;
        let exemption = Exemption {
            id: self.kid()?,
            peer: peer.clone(),
            method: method.to_owned(),
            level,
            not_before: self.now().secs(),
            until,
        };
        Ok(issuer.exempt(&exemption)?)
    }
}
