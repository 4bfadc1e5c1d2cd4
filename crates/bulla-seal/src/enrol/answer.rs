//! The answer: what a new agent gets.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::request::EnrolError;
use super::{open, seal};
use crate::Random;
use crate::cbor::{Reader, Writer};
use crate::credential::{SignedCredential, TrustStore};
use crate::id::Digest;
use crate::kdf;
use crate::random::UnixTime;
use crate::refusal::Refusal;
use crate::secret::Secret;

/// Largest answer in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
/// Most issuers in an answer.
pub const MAX_ISSUERS: usize = 64;
/// Most peers in an answer.
pub const MAX_PEERS: usize = 16;

/// What the enroller gives: everything that a key file holds and the agent does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The agent's credential, as signed.
    pub credential: Bytes,
    /// Issuers' credentials, as the root signed them.
    pub issuers: Vec<Bytes>,
    /// Credentials of peers to begin with, as signed: the control plane's.
    pub peers: Vec<Bytes>,
}

/// What the agent has then, verified.
#[derive(Debug)]
pub struct Enrolled {
    /// Its credential.
    pub credential: SignedCredential,
    /// The root with its issuers.
    pub trust: TrustStore,
    /// Credentials of peers, as signed and verified.
    pub peers: Vec<Bytes>,
}

impl Answer {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        let mut w = Writer::new(&mut out);
        w.array(4);
        w.uint(1);
        w.bytes(&self.credential);
        for list in [&self.issuers, &self.peers] {
            w.array(list.len());
            list.iter().for_each(|item| w.bytes(item));
        }
        out
    }

    fn decode(plain: &[u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(plain);
        r.array(4)?;
        r.this_uint(1)?;
        let answer = Self {
            credential: Bytes::copy_from_slice(r.bytes()?),
            issuers: list(&mut r, MAX_ISSUERS)?,
            peers: list(&mut r, MAX_PEERS)?,
        };
        r.end()?;
        Ok(answer)
    }
}

fn list(r: &mut Reader<'_>, max: usize) -> Result<Vec<Bytes>, Refusal> {
    let count = r.array_up_to(max)?;
    (0..count).map(|_| Ok(Bytes::copy_from_slice(r.bytes()?))).collect()
}

/// The key and the associated data of the answer with this nonce.
fn keyed(answer_key: &Secret<32>, request: &Digest, nonce: &[u8; 16]) -> (Secret<32>, Vec<u8>) {
    let mut info = Vec::with_capacity(96);
    let mut w = Writer::new(&mut info);
    w.array(3);
    w.text("bulla/1 enrol answer key");
    w.bytes(request.as_bytes());
    w.bytes(nonce);
    (kdf::expand(answer_key, &info), info)
}

/// Two contents never get one nonce, even if the random source repeats itself: it is a
/// pseudo-random function of the content too.
fn nonce(
    answer_key: &Secret<32>,
    plain: &[u8],
    now: UnixTime,
    random: &mut dyn Random,
) -> Result<[u8; 16], EnrolError> {
    let drawn = Zeroizing::new(*Secret::<32>::generate(random)?.expose());
    let mut info = Vec::with_capacity(128);
    let mut w = Writer::new(&mut info);
    w.array(4);
    w.text("bulla/1 enrol nonce");
    w.bytes(&*drawn);
    w.uint(now.ns);
    w.bytes(Digest::of(plain).as_bytes());
    let derived = kdf::expand(answer_key, &info);
    derived.expose().first_chunk().copied().ok_or(EnrolError::Seal)
}

pub(super) fn seal_answer(
    answer_key: &Secret<32>,
    request: &Digest,
    answer: &Answer,
    now: UnixTime,
    random: &mut dyn Random,
) -> Result<Bytes, EnrolError> {
    let plain = answer.encode();
    let nonce = nonce(answer_key, &plain, now, random)?;
    let (key, aad) = keyed(answer_key, request, &nonce);
    let sealed = seal(&key, &aad, &plain).ok_or(EnrolError::Seal)?;
    let mut out = Vec::with_capacity(sealed.len() + 64);
    let mut w = Writer::new(&mut out);
    w.array(4);
    w.uint(1);
    w.bytes(request.as_bytes());
    w.bytes(&nonce);
    w.bytes(&sealed);
    Ok(out.into())
}

pub(super) fn open_answer(
    answer_key: &Secret<32>,
    request: &Digest,
    bytes: &[u8],
) -> Result<Answer, Refusal> {
    if bytes.len() > MAX_ANSWER {
        return Err(Refusal::TooLarge);
    }
    let mut r = Reader::new(bytes);
    r.array(4)?;
    r.this_uint(1)?;
    let (named, nonce, sealed) = (Digest(r.fixed()?), r.fixed()?, r.bytes()?);
    r.end()?;
    if named != *request {
        return Err(Refusal::ReplyMismatch);
    }
    let (key, aad) = keyed(answer_key, request, &nonce);
    Answer::decode(&open(&key, &aad, sealed)?)
}
