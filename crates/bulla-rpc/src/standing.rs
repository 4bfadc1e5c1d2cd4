//! Whether a key still counts: what this process knows of revocation, and how each session stands
//! to it (step 4 of protocol section 9, and section 10).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bulla_guard::revocation::{Applied, Known, Subject, SubjectKey, apply};
use bulla_journal::events;
use bulla_seal::mutants::{Check, off};
use bulla_seal::{
    Credential, GroupName, Kid, Parsed, Party, Refusal, SignedStatement, UnixTime, statement,
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::directory::PairKey;
use crate::endpoint::Endpoint;

/// Statements that are verified per second at the most; who holds the newest loses nothing.
const VERIFIED_PER_SECOND: f64 = 20.0;

/// What this process knows of revocation.
pub(crate) struct Revocation {
    known: RwLock<Arc<Known>>,
    newest: RwLock<Option<Arc<SignedStatement>>>,
    /// Counts the changes of `known`: who was judged at this number need not be judged again.
    version: AtomicU64,
    epoch: AtomicU64,
    /// First Unix second in which the statement that is held is no longer current, skew included.
    current_until: AtomicU64,
    issued_at: AtomicU64,
    budget: Mutex<(f64, Instant)>,
}

impl Default for Revocation {
    fn default() -> Self {
        Self {
            known: RwLock::default(),
            newest: RwLock::default(),
            // A session starts at 0: not judged yet.
            version: AtomicU64::new(1),
            epoch: AtomicU64::new(0),
            current_until: AtomicU64::new(0),
            issued_at: AtomicU64::new(0),
            budget: Mutex::new((VERIFIED_PER_SECOND, Instant::now())),
        }
    }
}

impl Revocation {
    fn may_verify(&self) -> bool {
        let mut budget = self.budget.lock();
        let (tokens, at) = &mut *budget;
        let passed = at.elapsed().as_secs_f64();
        *tokens = (*tokens + passed * VERIFIED_PER_SECOND).min(VERIFIED_PER_SECOND);
        *at = Instant::now();
        let may = *tokens >= 1.0;
        if may {
            *tokens -= 1.0;
        }
        may
    }

    /// Whether `bytes` may be news: a higher epoch, or other content under the one that is held.
    fn may_be_news(&self, bytes: &[u8]) -> Result<bool, Refusal> {
        let claimed = statement::claimed_epoch(bytes)?;
        let held = self.epoch.load(Ordering::Acquire);
        if claimed != held {
            return Ok(claimed > held || off(Check::StatementEpoch));
        }
        let newest = self.newest.read();
        Ok(newest.as_ref().is_some_and(|newest| newest.as_bytes() != bytes))
    }

    fn apply(&self, statement: SignedStatement, skew: u64) -> Applied {
        let mut newest = self.newest.write();
        let (known, applied) =
            apply(Known::clone(&self.known.read()), &statement, statement.digest());
        if !applied.moved() {
            return applied;
        }
        let held = known.held().copied();
        *self.known.write() = Arc::new(known);
        *newest = Some(Arc::new(statement));
        if let Some(held) = held {
            self.issued_at.store(held.issued_at, Ordering::Release);
            let until = held.not_after.saturating_add(skew);
            self.current_until.store(until, Ordering::Release);
            self.epoch.store(held.epoch, Ordering::Release);
        }
        // Last: who sees the new number sees what it stands for.
        self.version.fetch_add(1, Ordering::Release);
        applied
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The statement to put into a frame for a peer that has shown to hold epoch `shown`.
    pub(crate) fn for_peer(&self, shown: u64) -> Option<Arc<SignedStatement>> {
        if self.epoch() <= shown {
            return None;
        }
        self.newest.read().clone()
    }
}

/// How one session's keys stand, and since when that is known.
#[derive(Debug)]
pub(crate) struct Standing {
    subject: Subject,
    /// A pair key's epoch is judged as its other end's too.
    own: Option<Subject>,
    judged_at: AtomicU64,
}

impl Standing {
    pub(crate) fn of_credential(credential: &Credential) -> Self {
        Self { subject: credential_subject(credential), own: None, judged_at: AtomicU64::new(0) }
    }

    pub(crate) fn of_pair(pair: &PairKey, me: &Party) -> Self {
        let key = SubjectKey::Pair(pair.epoch);
        let subject = |party: &Party| Subject { kid: pair.kid, party: party.clone(), key };
        Self { subject: subject(&pair.peer), own: Some(subject(me)), judged_at: AtomicU64::new(0) }
    }

    pub(crate) fn party(&self) -> &Party {
        &self.subject.party
    }

    /// The same for another form of its session.
    pub(crate) fn again(&self) -> Self {
        let judged_at = AtomicU64::new(self.judged_at.load(Ordering::Relaxed));
        Self { subject: self.subject.clone(), own: self.own.clone(), judged_at }
    }

    fn judge(&self, known: &Known) -> Result<(), Refusal> {
        known.judge(&self.subject)?;
        self.own.as_ref().map_or(Ok(()), |own| known.judge(own))
    }
}

fn credential_subject(credential: &Credential) -> Subject {
    Subject {
        kid: credential.kid,
        party: credential.party.clone(),
        key: SubjectKey::Credential(credential.epoch),
    }
}

impl Endpoint {
    /// Takes a statement of revocation from wherever it came: it proves itself. Sessions and
    /// verified credentials that a newer one refuses are dropped at once.
    ///
    /// # Errors
    /// [`Refusal::StatementInvalid`] if the revocation issuer did not sign it.
    pub fn take_statement(&self, bytes: &[u8]) -> Result<Applied, Refusal> {
        let statement = self.identity.trust().verify_statement(bytes)?;
        let epoch = statement.epoch;
        let applied = self.revocation.apply(statement, self.options.skew);
        match applied {
            Applied::Moved => tracing::debug!(epoch, "a newer statement of revocation"),
            Applied::MovedWithLoss => self.events().emit(events::StatementLoss { epoch }),
            Applied::Conflict => {
                self.counters.refuse("statement-conflict");
                self.events().emit(events::StatementConflict { epoch });
            }
            Applied::Same | Applied::Older => {}
        }
        if applied.moved() {
            self.drop_refused();
        }
        Ok(applied)
    }

    /// The newest statement of revocation that this process holds.
    pub fn statement(&self) -> Option<Arc<SignedStatement>> {
        self.revocation.newest.read().clone()
    }

    /// What this process knows of revocation.
    pub fn revocation(&self) -> Arc<Known> {
        self.revocation.known.read().clone()
    }

    /// The time: an agent's is never before the newest statement was made (protocol section 10).
    pub fn now(&self) -> UnixTime {
        let local = self.clock.now();
        let issued_at = self.revocation.issued_at.load(Ordering::Acquire);
        if self.identity.principal().is_agent() && local.secs() < issued_at {
            return UnixTime::from_secs(issued_at);
        }
        local
    }

    /// Looks at the statement in a frame. One that is no news costs nothing, one that is not good
    /// changes nothing about the message beside it.
    pub(crate) fn note_statement(&self, parsed: &Parsed) {
        let Some(bytes) = parsed.statement() else { return };
        let taken = match self.revocation.may_be_news(bytes) {
            Ok(false) => return,
            Ok(true) if !self.revocation.may_verify() => Err(Refusal::RateLimited),
            Ok(true) => self.take_statement(bytes).map(drop),
            Err(_) => Err(Refusal::StatementInvalid),
        };
        if let Err(refusal) = taken {
            self.refused(refusal, "statement of revocation refused");
        }
    }

    /// Counts a refusal of what nobody vouches for, and tells it now and then.
    pub(crate) fn refused(&self, refusal: Refusal, what: &'static str) {
        let refusal = refusal.as_str();
        if let Some(count) = self.counters.refuse_sampled(refusal) {
            self.events().emit(events::MessageRefused { refusal, count, what });
        }
    }

    /// Whether the key that a session was made with still counts.
    pub(crate) fn check_standing(&self, standing: &Standing) -> Result<(), Refusal> {
        let version = self.revocation.version();
        if standing.judged_at.load(Ordering::Relaxed) == version {
            return Ok(());
        }
        if let Err(refusal) = standing.judge(&self.revocation.known.read()) {
            return if off(Check::Revoked) { Ok(()) } else { Err(refusal) };
        }
        standing.judged_at.store(version, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a party that shows no key still counts.
    pub(crate) fn check_party(&self, party: &Party) -> Result<(), Refusal> {
        // Of no key that could be revoked by itself, and of the newest epoch.
        let key = SubjectKey::Pair(u32::MAX);
        let subject = Subject { kid: Kid([0; 8]), party: party.clone(), key };
        self.revocation.known.read().judge(&subject)
    }

    /// Whether a credential still counts.
    pub(crate) fn check_credential(&self, credential: &Credential) -> Result<(), Refusal> {
        let judged = self.revocation.known.read().judge(&credential_subject(credential));
        if off(Check::Revoked) { Ok(()) } else { judged }
    }

    /// Whether a group's epoch still counts.
    pub(crate) fn check_group_epoch(&self, group: &GroupName, epoch: u32) -> Result<(), Refusal> {
        match self.revocation.known.read().group_epoch(group) {
            Some(current) if epoch < current && !off(Check::GroupEpoch) => Err(Refusal::EpochStale),
            _ => Ok(()),
        }
    }

    /// Whether a message of `sender` may be acted on with the statement that is held: an agent
    /// that demands one acts on no component's message without.
    pub(crate) fn check_current(&self, sender: &Party) -> Result<(), Refusal> {
        if sender.principal.is_component() { self.check_component_messages() } else { Ok(()) }
    }

    /// Whether components' messages are acted on just now; an agent that
    /// [requires](crate::Identity::requiring_statement) a statement needs a current one.
    ///
    /// # Errors
    /// [`Refusal::StatementMissing`]: they are refused.
    pub fn check_component_messages(&self) -> Result<(), Refusal> {
        if !self.identity.requires_statement() || off(Check::StatementCurrent) {
            return Ok(());
        }
        let until = self.revocation.current_until.load(Ordering::Acquire);
        if self.now().secs() < until { Ok(()) } else { Err(Refusal::StatementMissing) }
    }

    /// What goes into the last place of a frame to a peer that has shown to hold epoch `shown`:
    /// components tell, agents have nothing to tell.
    pub(crate) fn statement_for(&self, shown: u64) -> Option<Arc<SignedStatement>> {
        if self.identity.principal().is_agent() {
            return None;
        }
        self.revocation.for_peer(shown)
    }
}

/// The bytes of a statement that leave room for the message in a frame of at most `limit`.
pub(crate) fn fitting(
    statement: &Option<Arc<SignedStatement>>,
    message: usize,
    limit: usize,
) -> Option<&Bytes> {
    let bytes = statement.as_ref()?.as_bytes();
    (message.saturating_add(bytes.len()) <= limit).then_some(bytes)
}
