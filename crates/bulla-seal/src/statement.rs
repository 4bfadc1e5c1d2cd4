//! Statements of revocation: the only thing that moves epochs (protocol section 10).

use bytes::Bytes;

use crate::cbor::{Reader, Writer};
use crate::credential::{Issuer, IssuerRight, TrustStore};
use crate::id::{Digest, Kid};
use crate::principal::{GroupName, Principal};
use crate::refusal::Refusal;
use crate::sign::{SignatureUse, Unverified};

/// Longest life of a statement, in seconds.
pub const MAX_STATEMENT_LIFE: u64 = 3600;
/// Largest statement with its signature, in bytes.
pub const MAX_STATEMENT: usize = 256 * 1024;
/// Most revoked kids in one statement.
pub const MAX_REVOKED: usize = 4096;
/// Most principals with lowest epochs in one statement.
pub const MAX_LOWEST: usize = 1024;
/// Most groups in one statement.
pub const MAX_GROUPS: usize = 1024;

/// A kid that counts for nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revoked {
    /// Names a credential or a pair key.
    pub kid: Kid,
    /// Until when it has to stay listed, in Unix seconds: its credential's end, the longest `exp`
    /// and the skew.
    pub until: u64,
}

/// The lowest that still counts of one principal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lowest {
    /// Whose.
    pub principal: Principal,
    /// Lowest incarnation; the two epochs are of this one.
    pub incarnation: u32,
    /// Lowest epoch of a credential.
    pub credential_epoch: u32,
    /// Lowest epoch of a pair key.
    pub pair_epoch: u32,
}

/// What the revocation issuer says of all keys at once. Each list is in strictly ascending order
/// of its first item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Statement {
    /// Counts up with every statement of a trust domain.
    pub epoch: u64,
    /// Unix seconds.
    pub issued_at: u64,
    /// First Unix second in which it is no longer current.
    pub not_after: u64,
    /// Kids that count for nothing.
    pub revoked: Vec<Revoked>,
    /// Lowest epochs of principals.
    pub lowest: Vec<Lowest>,
    /// The current epoch of each group.
    pub groups: Vec<(GroupName, u32)>,
}

impl Statement {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.revoked.len() * 16 + self.lowest.len() * 48);
        let mut w = Writer::new(&mut out);
        w.array(7);
        w.uint(1);
        w.uint(self.epoch);
        w.uint(self.issued_at);
        w.uint(self.not_after);
        w.array(self.revoked.len());
        for revoked in &self.revoked {
            w.array(2);
            w.bytes(revoked.kid.as_bytes());
            w.uint(revoked.until);
        }
        w.array(self.lowest.len());
        for lowest in &self.lowest {
            w.array(4);
            w.text(lowest.principal.as_str());
            w.uint(lowest.incarnation.into());
            w.uint(lowest.credential_epoch.into());
            w.uint(lowest.pair_epoch.into());
        }
        w.array(self.groups.len());
        for (group, epoch) in &self.groups {
            w.array(2);
            w.text(group.as_str());
            w.uint((*epoch).into());
        }
        out
    }

    fn decode(payload: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(payload);
        r.array(7)?;
        r.this_uint(1)?;
        let statement = Self {
            epoch: r.uint()?,
            issued_at: r.uint()?,
            not_after: r.uint()?,
            revoked: list(&mut r, MAX_REVOKED, Revoked::read)?,
            lowest: list(&mut r, MAX_LOWEST, Lowest::read)?,
            groups: list(&mut r, MAX_GROUPS, read_group)?,
        };
        r.end()?;
        statement.check_shape()?;
        Ok(statement)
    }

    /// Limits, order and life.
    fn check_shape(&self) -> Result<(), Refusal> {
        let life = self.not_after.checked_sub(self.issued_at);
        let ok = self.epoch > 0
            && life.is_some_and(|life| (1..=MAX_STATEMENT_LIFE).contains(&life))
            && self.revoked.len() <= MAX_REVOKED
            && self.lowest.len() <= MAX_LOWEST
            && self.groups.len() <= MAX_GROUPS
            && self.revoked.is_sorted_by(|a, b| a.kid < b.kid)
            && self.lowest.is_sorted_by(|a, b| a.principal.as_str() < b.principal.as_str())
            && self.groups.is_sorted_by(|a, b| a.0.as_str() < b.0.as_str())
            && self.lowest.iter().all(|lowest| lowest.incarnation > 0);
        if ok { Ok(()) } else { Err(Refusal::StatementInvalid) }
    }
}

impl Revoked {
    fn read(r: &mut Reader<'_>) -> Result<Self, Refusal> {
        r.array(2)?;
        Ok(Self { kid: Kid(r.fixed()?), until: r.uint()? })
    }
}

impl Lowest {
    fn read(r: &mut Reader<'_>) -> Result<Self, Refusal> {
        r.array(4)?;
        Ok(Self {
            principal: r.text()?.parse().map_err(|_| Refusal::StatementInvalid)?,
            incarnation: r.uint32()?,
            credential_epoch: r.uint32()?,
            pair_epoch: r.uint32()?,
        })
    }
}

fn read_group(r: &mut Reader<'_>) -> Result<(GroupName, u32), Refusal> {
    r.array(2)?;
    let name = GroupName::new(r.text()?).map_err(|_| Refusal::StatementInvalid)?;
    Ok((name, r.uint32()?))
}

/// A list of at most `max`; grows with what was read and not with what its head promises.
fn list<T>(
    r: &mut Reader<'_>,
    max: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T, Refusal>,
) -> Result<Vec<T>, Refusal> {
    let count = r.array_up_to(max)?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(read(r)?);
    }
    Ok(items)
}

impl Issuer {
    /// Signs `statement`. Refuses what this issuer has no right to, what is not well formed, what
    /// is too large and what would outlive the issuer itself.
    pub fn state(&self, statement: &Statement) -> Result<SignedStatement, Refusal> {
        statement.check_shape()?;
        self.check_may(IssuerRight::Revocation, statement.issued_at, statement.not_after)
            .map_err(|_| Refusal::StatementInvalid)?;
        let bytes = self.sign(SignatureUse::Statement, &statement.encode());
        if bytes.len() > MAX_STATEMENT {
            return Err(Refusal::TooLarge);
        }
        Ok(SignedStatement::new(bytes, statement.clone()))
    }
}

impl TrustStore {
    /// Verifies a statement: signed by a known issuer with the right to revoke, that was valid
    /// when the statement was made and will be until it ends.
    ///
    /// Whether it is current is not judged here: an old one proves an epoch all the same.
    pub fn verify_statement(&self, bytes: &[u8]) -> Result<SignedStatement, Refusal> {
        if bytes.len() > MAX_STATEMENT {
            return Err(Refusal::TooLarge);
        }
        let (payload, issuer) = self
            .verify_by(IssuerRight::Revocation, SignatureUse::Statement, bytes)
            .map_err(|_| Refusal::StatementInvalid)?;
        let statement = Statement::decode(payload).map_err(|_| Refusal::StatementInvalid)?;
        issuer
            .covers_time(statement.issued_at, statement.not_after)
            .map_err(|_| Refusal::StatementInvalid)?;
        Ok(SignedStatement::new(Bytes::copy_from_slice(bytes), statement))
    }
}

/// The epoch that a statement claims, before anybody checked its signature: only for leaving out
/// the check of what would not be news.
pub fn claimed_epoch(bytes: &[u8]) -> Result<u64, Refusal> {
    let mut r = Reader::new(Unverified::parse(bytes)?.dangerous_payload());
    r.array(7)?;
    r.this_uint(1)?;
    r.uint()
}

/// A statement with its signature: made by an [`Issuer`] or verified by a [`TrustStore`], never
/// built from parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    bytes: Bytes,
    digest: Digest,
    statement: Statement,
}

impl SignedStatement {
    fn new(bytes: Bytes, statement: Statement) -> Self {
        Self { digest: Digest::of(&bytes), bytes, statement }
    }

    /// The COSE_Sign1.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// SHA-256 of the COSE_Sign1.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl std::ops::Deref for SignedStatement {
    type Target = Statement;

    fn deref(&self) -> &Statement {
        &self.statement
    }
}
