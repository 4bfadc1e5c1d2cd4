//! What stands in the log: the events that the state machines were given, and what is known of
//! the store as a whole. Whoever gives the same machines the same events again gets the same
//! states.

use bulla_seal::Digest;
use bytes::Bytes;

use crate::cbor::{self, Reader};
use crate::claim::Gate;
use crate::key::{ClaimKey, Worker};
use crate::store::{ClaimRequest, Completion, Grant, Reply, SweepRequest};

/// Length and check, before what they are of.
pub(super) const HEAD: usize = 12;
/// Nothing that is longer was written by this code: a key, a reply and an envelope.
pub(super) const LONGEST: usize = 64 << 20;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A process began to use the file, under this boot id if it has one.
    Opened {
        boot: Option<String>,
    },
    /// It left the file in good order: nothing was claimed after this.
    Closed,
    /// All before this was on its way to the disk at that time, in Unix milliseconds.
    Mark {
        now_ms: u64,
    },
    /// What is refused though it is not in the store.
    Gate(Gate),
    Claim(Box<Claimed>),
    Complete {
        key: ClaimKey,
        grant: Grant,
        completion: Completion,
    },
    Extend {
        key: ClaimKey,
        grant: Grant,
        until_ms: u64,
    },
    Answer {
        key: ClaimKey,
        error: Reply,
    },
    Sweep {
        now_ms: u64,
        worker: Worker,
        lease_ms: u64,
    },
}

/// What a [`ClaimRequest`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) key: ClaimKey,
    digest: Digest,
    iat: u64,
    exp: u64,
    idempotent: bool,
    worker: Worker,
    now_ms: u64,
    lease_ms: u64,
    envelope: Option<Bytes>,
}

impl Claimed {
    pub(super) fn request(self) -> ClaimRequest {
        let Self { key, digest, iat, exp, idempotent, worker, now_ms, lease_ms, envelope } = self;
        ClaimRequest { key, digest, iat, exp, idempotent, worker, now_ms, lease_ms, envelope }
    }
}

impl From<&ClaimRequest> for Claimed {
    fn from(request: &ClaimRequest) -> Self {
        let ClaimRequest { key, digest, iat, exp, idempotent, worker, now_ms, lease_ms, envelope } =
            request.clone();
        Self { key, digest, iat, exp, idempotent, worker, now_ms, lease_ms, envelope }
    }
}

impl From<&SweepRequest> for Record {
    fn from(request: &SweepRequest) -> Self {
        let SweepRequest { now_ms, worker, lease_ms } = *request;
        Self::Sweep { now_ms, worker, lease_ms }
    }
}

const OPENED: u64 = 0;
const CLOSED: u64 = 1;
const MARK: u64 = 2;
const GATE: u64 = 3;
const CLAIM: u64 = 4;
const COMPLETE: u64 = 5;
const EXTEND: u64 = 6;
const ANSWER: u64 = 7;
const SWEEP: u64 = 8;

impl Record {
    /// The claim that it is about.
    pub(super) fn key(&self) -> Option<&ClaimKey> {
        match self {
            Self::Claim(claimed) => Some(&claimed.key),
            Self::Complete { key, .. } | Self::Extend { key, .. } | Self::Answer { key, .. } => {
                Some(key)
            }
            _ => None,
        }
    }

    /// Appends it, with length and check before it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&[0; HEAD]);
        self.encode(out);
        let body = out.get(begin + HEAD..).unwrap_or_default();
        let head = head(body);
        if let Some(place) = out.get_mut(begin..begin + HEAD) {
            place.copy_from_slice(&head);
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Opened { boot } => {
                cbor::uint(out, OPENED);
                cbor::text_or_null(out, boot.as_deref());
            }
            Self::Closed => cbor::uint(out, CLOSED),
            Self::Mark { now_ms } => {
                cbor::uint(out, MARK);
                cbor::uint(out, *now_ms);
            }
            Self::Gate(gate) => {
                cbor::uint(out, GATE);
                cbor::uint(out, gate.purged_exp);
                optional(out, gate.blind_until.as_ref(), |out, until| cbor::uint(out, *until));
            }
            Self::Claim(claimed) => {
                cbor::uint(out, CLAIM);
                cbor::bytes(out, &claimed.key.to_bytes());
                cbor::bytes(out, claimed.digest.as_bytes());
                cbor::uint(out, claimed.iat);
                cbor::uint(out, claimed.exp);
                cbor::uint(out, claimed.idempotent.into());
                cbor::uint(out, claimed.worker.0);
                cbor::uint(out, claimed.now_ms);
                cbor::uint(out, claimed.lease_ms);
                optional(out, claimed.envelope.as_ref(), |out, bytes| cbor::bytes(out, bytes));
            }
            Self::Complete { key, grant, completion } => {
                cbor::uint(out, COMPLETE);
                cbor::bytes(out, &key.to_bytes());
                put_grant(out, grant);
                let (doubt, told) = match completion {
                    Completion::Done { reply } => (0, reply),
                    Completion::InDoubt { error } => (1, error),
                };
                cbor::uint(out, doubt);
                optional(out, told.as_ref(), put_reply);
            }
            Self::Extend { key, grant, until_ms } => {
                cbor::uint(out, EXTEND);
                cbor::bytes(out, &key.to_bytes());
                put_grant(out, grant);
                cbor::uint(out, *until_ms);
            }
            Self::Answer { key, error } => {
                cbor::uint(out, ANSWER);
                cbor::bytes(out, &key.to_bytes());
                put_reply(out, error);
            }
            Self::Sweep { now_ms, worker, lease_ms } => {
                cbor::uint(out, SWEEP);
                cbor::uint(out, *now_ms);
                cbor::uint(out, worker.0);
                cbor::uint(out, *lease_ms);
            }
        }
    }

    /// From what follows length and check; `None` for anything that was not written by this code.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let from = &mut reader;
        let record = match from.uint()? {
            OPENED => Self::Opened { boot: from.text_or_null()?.map(str::to_owned) },
            CLOSED => Self::Closed,
            MARK => Self::Mark { now_ms: from.uint()? },
            GATE => {
                let purged_exp = from.uint()?;
                Self::Gate(Gate { purged_exp, blind_until: read_optional(from, Reader::uint)? })
            }
            CLAIM => Self::Claim(Box::new(Claimed {
                key: read_key(from)?,
                digest: read_digest(from)?,
                iat: from.uint()?,
                exp: from.uint()?,
                idempotent: read_flag(from)?,
                worker: Worker(from.uint()?),
                now_ms: from.uint()?,
                lease_ms: from.uint()?,
                envelope: read_optional(from, |from| from.bytes().map(Bytes::copy_from_slice))?,
            })),
            COMPLETE => {
                let (key, grant) = (read_key(from)?, read_grant(from)?);
                let (doubt, told) = (read_flag(from)?, read_optional(from, read_reply)?);
                let completion = match doubt {
                    false => Completion::Done { reply: told },
                    true => Completion::InDoubt { error: told },
                };
                Self::Complete { key, grant, completion }
            }
            EXTEND => {
                let (key, grant) = (read_key(from)?, read_grant(from)?);
                Self::Extend { key, grant, until_ms: from.uint()? }
            }
            ANSWER => Self::Answer { key: read_key(from)?, error: read_reply(from)? },
            SWEEP => Self::Sweep {
                now_ms: from.uint()?,
                worker: Worker(from.uint()?),
                lease_ms: from.uint()?,
            },
            _ => return None,
        };
        reader.is_empty().then_some(record)
    }
}

/// Length and check of a record's body.
pub(super) fn head(body: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let (len, check) = head.split_at_mut(4);
    // Longer than that is nothing that a frame or a key can make.
    len.copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    check.copy_from_slice(&check_of(body).to_le_bytes());
    head
}

/// FNV-1a, 64 bits: against what a power cut leaves half written, not against anybody.
fn check_of(body: &[u8]) -> u64 {
    body.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn optional<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    cbor::uint(out, value.is_some().into());
    if let Some(value) = value {
        put(out, value);
    }
}

fn read_optional<'a, T>(
    from: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
) -> Option<Option<T>> {
    match read_flag(from)? {
        true => read(from).map(Some),
        false => Some(None),
    }
}

fn read_flag(from: &mut Reader<'_>) -> Option<bool> {
    match from.uint()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn read_key(from: &mut Reader<'_>) -> Option<ClaimKey> {
    ClaimKey::from_bytes(from.bytes()?)
}

fn read_digest(from: &mut Reader<'_>) -> Option<Digest> {
    Digest::from_slice(from.bytes()?)
}

fn put_grant(out: &mut Vec<u8>, grant: &Grant) {
    cbor::uint(out, grant.worker.0);
    cbor::uint(out, grant.attempt.into());
    cbor::uint(out, grant.until_ms);
}

fn read_grant(from: &mut Reader<'_>) -> Option<Grant> {
    let worker = Worker(from.uint()?);
    let attempt = u32::try_from(from.uint()?).ok()?;
    Some(Grant { worker, attempt, until_ms: from.uint()? })
}

/// The bytes, or the digest of what went past the budget.
fn put_reply(out: &mut Vec<u8>, reply: &Reply) {
    optional(out, reply.sealed(), |out, sealed| cbor::bytes(out, sealed));
    if reply.sealed().is_none() {
        cbor::bytes(out, reply.digest().as_bytes());
    }
}

fn read_reply(from: &mut Reader<'_>) -> Option<Reply> {
    Some(match read_optional(from, Reader::bytes)? {
        Some(sealed) => Reply::new(Bytes::copy_from_slice(sealed)),
        None => Reply::with_digest(read_digest(from)?, None),
    })
}
