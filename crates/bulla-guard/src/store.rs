//! What every claim store offers.

use std::fmt;
use std::hash::{Hash, Hasher};

use async_trait::async_trait;
use bulla_seal::{Digest, Party};
use bytes::Bytes;
use thiserror::Error;

use crate::claim::Limits;
use crate::key::{ClaimKey, Worker};

/// How far clocks may differ by default, in seconds (protocol section 7).
pub const DEFAULT_SKEW_S: u64 = 120;

/// How a store is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// How much it may hold.
    pub limits: Limits,
    /// How far clocks may differ, in seconds.
    pub skew_s: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), skew_s: DEFAULT_SKEW_S }
    }
}

/// What it means that a store is new: that its file is not there yet, or its tables are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewStore {
    /// This receiver never received anything: its principal and incarnation, or the bus, are as
    /// new as the store.
    NothingBefore,
    /// The store may have been lost: what was issued up to now and the skew after is refused.
    MayBeLost,
}

/// Asks for the right to run a message that passed every earlier check of protocol section 9.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// What names the message.
    pub key: ClaimKey,
    /// SHA-256 of its envelope.
    pub digest: Digest,
    /// Its authenticated issue time, in Unix seconds.
    pub iat: u64,
    /// Its authenticated expiry, in Unix seconds.
    pub exp: u64,
    /// Whether its method is declared idempotent, so that another worker may run it again when
    /// this one is lost.
    pub idempotent: bool,
    /// Who would run it.
    pub worker: Worker,
    /// The wall clock, in Unix milliseconds. A store that several processes share goes by its
    /// own clock instead.
    pub now_ms: u64,
    /// How long the worker may hold it before it counts as lost, in milliseconds.
    pub lease_ms: u64,
    /// The envelope, where the broker limits how long a message may stay unacknowledged: then
    /// [`ClaimStore::sweep`] hands it out again. `None` where a redelivery does that.
    pub envelope: Option<Bytes>,
}

/// The right to run a message, and the token to complete it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Who holds it.
    pub worker: Worker,
    /// 1 for the first run; higher after a take-over.
    pub attempt: u32,
    /// When the lease ends, in Unix milliseconds.
    pub until_ms: u64,
}

/// A sealed reply as stored.
#[derive(Debug, Clone)]
pub struct Reply {
    /// `None` as long as nobody asked and the bytes are here.
    digest: Option<Digest>,
    /// The sealed bytes, to be sent again as they are; `None` if they went past the byte budget.
    /// The duplicate is then answered with a sealed error "done, result not held".
    sealed: Option<Bytes>,
}

impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        self.sealed == other.sealed && self.digest() == other.digest()
    }
}

impl Eq for Reply {}

impl Hash for Reply {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
    }
}

impl Reply {
    /// A reply with its bytes.
    pub fn new(sealed: Bytes) -> Self {
        Self { digest: None, sealed: Some(sealed) }
    }

    /// A reply that is known by its digest.
    pub fn with_digest(digest: Digest, sealed: Option<Bytes>) -> Self {
        Self { digest: Some(digest), sealed }
    }

    /// The bytes, if they are held.
    pub fn sealed(&self) -> Option<&Bytes> {
        self.sealed.as_ref()
    }

    /// The bytes, to be sent again.
    pub fn into_sealed(self) -> Option<Bytes> {
        self.sealed
    }

    /// SHA-256 of the sealed bytes. Made when it is asked for: a store that keeps the bytes in memory
    /// needs it for nothing.
    pub fn digest(&self) -> Digest {
        self.digest.unwrap_or_else(|| Digest::of(self.sealed.as_deref().unwrap_or_default()))
    }

    /// Its digest alone is kept.
    pub(crate) fn drop_bytes(&mut self) {
        self.digest = Some(self.digest());
        self.sealed = None;
    }

    /// How many bytes count against the budget.
    pub(crate) fn size(&self) -> u64 {
        self.sealed.as_ref().map_or(0, |sealed| sealed.len() as u64)
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// It ran to its end, well or not, or policy denied it.
    Done {
        /// The sealed value, error or denial; `None` for a kind that is not answered.
        reply: Option<Reply>,
    },
    /// It may have had an effect and nobody can say (for instance its handler was killed).
    InDoubt {
        /// The sealed error "outcome unknown"; `None` for a kind that is not answered.
        error: Option<Reply>,
    },
}

/// The answer to a [`ClaimRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// Run it, then [`ClaimStore::complete`] it with this grant.
    Granted(Grant),
    /// It is here already.
    Duplicate(Duplicate),
    /// Don't run it, don't answer it; count it.
    Refused(Refused),
}

impl From<Duplicate> for ClaimOutcome {
    fn from(duplicate: Duplicate) -> Self {
        Self::Duplicate(duplicate)
    }
}

/// A message that was claimed before, byte for byte the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duplicate {
    /// A worker runs it: keep it unacknowledged and ask again when the lease ends.
    Held {
        /// When that is, in Unix milliseconds.
        until_ms: u64,
    },
    /// It ran: send the reply again, without a new policy decision, and acknowledge.
    Done {
        /// The reply; `None` if it is of a kind that is not answered.
        reply: Option<Reply>,
    },
    /// It may or may not have run: send the error, and acknowledge.
    InDoubt {
        /// The sealed error. `None` if none was sealed yet: seal "outcome unknown", hand it to
        /// [`ClaimStore::answer_in_doubt`], and send what that returns.
        error: Option<Reply>,
    },
}

impl Duplicate {
    /// A stable name for counters and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Held { .. } => "held",
            Self::Done { .. } => "done",
            Self::InDoubt { .. } => "in-doubt",
        }
    }
}

/// Why a store does not take a message. None is answered; all are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refused {
    /// The id was used for two different envelopes by one sender: alarm.
    IdConflict,
    /// It expires no later than something that was already forgotten, so it may have run.
    Purged,
    /// It was issued before the store began to remember, so it may have run.
    BeforeStart,
    /// Its sender has used up its places: alarm.
    SenderQuota,
    /// No further sender fits: alarm.
    StoreFull,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::IdConflict, Self::Purged, Self::BeforeStart, Self::SenderQuota, Self::StoreFull];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdConflict => "id-conflict",
            Self::Purged => "purged",
            Self::BeforeStart => "before-start",
            Self::SenderQuota => "sender-quota",
            Self::StoreFull => "store-full",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// It is stored (durably, where the store is durable): the reply may be sent and the message
    /// acknowledged.
    Stored,
    /// The claim was no longer this worker's: send nothing.
    Lost(Lost),
}

/// Why a claim is no longer its worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The store has no such claim (expired and purged, or never made).
    Unknown,
    /// Another attempt holds it.
    TakenOver,
    /// It is already done.
    Done,
    /// It is already in doubt.
    InDoubt,
}

impl Lost {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::TakenOver => "taken-over",
            Self::Done => "done",
            Self::InDoubt => "in-doubt",
        }
    }
}

/// The sweeper's turn.
#[derive(Debug, Clone, Copy)]
pub struct SweepRequest {
    /// The wall clock, in Unix milliseconds.
    pub now_ms: u64,
    /// Who takes over what can be run again.
    pub worker: Worker,
    /// For how long, in milliseconds.
    pub lease_ms: u64,
}

/// What the sweeper found.
#[derive(Debug, Clone, Default)]
pub struct Swept {
    /// Claims whose lease ran out and that are now in doubt: seal the error and hand it to
    /// [`ClaimStore::answer_in_doubt`].
    pub in_doubt: Vec<Expired>,
    /// Claims of idempotent methods that now belong to the sweeper: run them.
    pub taken_over: Vec<(Expired, Grant)>,
    /// How many ids were forgotten.
    pub purged: u64,
}

/// A claim whose lease ran out.
#[derive(Debug, Clone)]
pub struct Expired {
    /// What names it.
    pub key: ClaimKey,
    /// Its envelope, if the claim came with it.
    pub envelope: Option<Bytes>,
}

/// How a store is doing. Counters run since the store was opened by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Ids held now.
    pub entries: u64,
    /// Of these, claims that no worker completed yet.
    pub in_flight: u64,
    /// Senders with at least one id.
    pub senders: u64,
    /// Bytes of stored replies.
    pub reply_bytes: u64,
    /// The greatest `exp` ever purged, in Unix seconds.
    pub purged_exp: u64,
    /// Everything issued at or before is refused, in Unix seconds.
    pub blind_until: Option<u64>,
    /// Claims granted for the first time.
    pub granted: u64,
    /// Claims granted again after a lease ran out.
    pub taken_over: u64,
    /// Duplicates answered.
    pub duplicates: u64,
    /// Claims that became in doubt because a lease ran out.
    pub in_doubt: u64,
    /// Completions refused because the claim was no longer the worker's.
    pub lost: u64,
    /// Replies of which only the digest was kept.
    pub replies_dropped: u64,
    /// Ids forgotten after their expiry.
    pub purged: u64,
    /// Refusals, in the order of [`Refused::ALL`].
    pub refused: [u64; 5],
}

impl Stats {
    /// How often `reason` was given.
    pub fn refused(&self, reason: Refused) -> u64 {
        self.refused.get(reason as usize).copied().unwrap_or_default()
    }
}

/// A store could not do its work. The message stays unacknowledged; nothing was promised.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The folder can't be written to.
    #[error("claims can't be kept in `{path}`: {why}; give a folder that this user can write to")]
    NotWritable {
        /// The file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The file is not a claim store, or is damaged.
    #[error(
        "`{path}` is not a usable claim store: {why}; move it away and start again with the \
         store counted as lost"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file was written by a newer Bulla.
    #[error(
        "`{path}` has schema version {found} and this program knows up to {known}; run the newer \
         program, or revert the schema with it"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// Reading or writing failed; the claim or completion may be repeated.
    #[error(
        "the claim store `{path}` failed: {why}; nothing was acknowledged, it is tried again on redelivery"
    )]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The server does not promise what claims need.
    #[error("`{path}` can't be a claim store: {why}")]
    Unfit {
        /// Its address, without credentials.
        path: String,
        /// What is wrong, and what to set.
        why: String,
    },
    /// The address of a store can't be used.
    #[error("this is no address of a claim store: {why}")]
    Address {
        /// What is wrong with it.
        why: String,
    },
    /// The store was closed.
    #[error("the claim store is closed")]
    Closed,
}

/// Remembers which messages were run, so that none runs twice.
///
/// All methods are atomic: of any number of concurrent claimers of one key exactly one is granted.
/// What a durable store returns is on disk.
#[async_trait]
pub trait ClaimStore: Send + Sync + fmt::Debug {
    /// Inserts a claim, or compares with the one that is there.
    async fn claim(&self, request: ClaimRequest) -> Result<ClaimOutcome, StoreError>;

    /// The same from a store that never waits; `None` from one that may, and then nothing was done.
    /// Asking it first saves a future for every message.
    fn claim_now(&self, _request: &ClaimRequest) -> Option<ClaimOutcome> {
        None
    }

    /// [`complete`](Self::complete) by a store that never waits; one that may gives `completion` back.
    ///
    /// # Errors
    /// Nothing was done: use [`complete`](Self::complete).
    fn complete_now(
        &self,
        _key: &ClaimKey,
        _grant: Grant,
        completion: Completion,
    ) -> Result<Completed, Completion> {
        Err(completion)
    }

    /// Ends a run, if the claim is still held under `grant` (worker and attempt).
    async fn complete(
        &self,
        key: &ClaimKey,
        grant: Grant,
        completion: Completion,
    ) -> Result<Completed, StoreError>;

    /// Moves the end of the lease to `until_ms` (Unix milliseconds; never earlier than it is).
    /// The inner error says why the claim is no longer this worker's: stop running it.
    async fn extend(
        &self,
        key: &ClaimKey,
        grant: Grant,
        until_ms: u64,
    ) -> Result<Result<Grant, Lost>, StoreError>;

    /// Attaches a sealed "outcome unknown" to a claim in doubt. The first one stays and is what
    /// every caller gets back and sends; `None` if the claim is not in doubt.
    async fn answer_in_doubt(
        &self,
        key: &ClaimKey,
        error: Reply,
    ) -> Result<Option<Reply>, StoreError>;

    /// Settles leases that ran out, and forgets ids past their expiry and the skew. Call it every
    /// few seconds.
    async fn sweep(&self, request: SweepRequest) -> Result<Swept, StoreError>;

    /// Counts the store as lost at `now_ms`: the boot or VM generation id changed, or the wall
    /// clock jumped. Everything issued up to then and the skew after is refused, even after a
    /// restart.
    async fn declare_lost(&self, now_ms: u64) -> Result<(), StoreError>;

    /// How many ids are held.
    async fn len(&self) -> Result<u64, StoreError> {
        Ok(self.stats().await?.entries)
    }

    /// Whether no id is held.
    async fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.len().await? == 0)
    }

    /// How many ids `sender` has.
    async fn held_by(&self, sender: &Party) -> Result<u64, StoreError>;

    /// How the store is doing.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Whether competing consumers on several machines may use it together.
    fn is_shared(&self) -> bool;
}
