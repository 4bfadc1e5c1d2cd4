//! What goes on the wire: the frame [1, envelope, offer or null, statement or null], and its
//! strict parser (protocol section 3).

use std::fmt;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::cbor::{NULL, Reader, Stack, Writer};
use crate::header::{Detail, Form, Header, MAX_HEADER};
use crate::id::Digest;
use crate::mutants::{self, Check, off};
use crate::offer::MAX_OFFER;
use crate::refusal::Refusal;
use crate::sign::{SIGNATURE, TAG_SIGN1};
use crate::statement::MAX_STATEMENT;
use crate::tree::Proof;
use crate::wire::MessageKind;

/// Version of the frame.
pub(crate) const VERSION: u64 = 1;
/// Default limit for a frame, in bytes.
pub const DEFAULT_MAX_FRAME: usize = 1024 * 1024;
/// No receiver may be set to take more, in bytes.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;
/// Bytes of an AES-GCM tag and of an HMAC 256/256 tag.
pub(crate) const GCM_TAG: usize = 16;
pub(crate) const HMAC_TAG: usize = 32;
/// Where the envelope begins in a frame: behind the array's head and the version.
pub(crate) const ENVELOPE_AT: usize = 2;

/// A sealed message before its frame is closed. The envelope never changes again: a message is
/// sealed once, and sending it again sends these bytes.
#[derive(Debug)]
pub struct Sealed {
    /// [1, envelope …
    pub(crate) bytes: BytesMut,
    /// The message's id.
    pub(crate) id: crate::MessageId,
    /// What names it.
    pub(crate) named: Named,
}

/// Where in a frame the two things stand that name its envelope.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) header: Range<usize>,
    pub(crate) authenticator: Range<usize>,
}

impl Named {
    fn digest(&self, frame: &[u8]) -> Digest {
        let part = |at: &Range<usize>| frame.get(at.clone()).unwrap_or_default();
        envelope_digest(part(&self.header), part(&self.authenticator))
    }
}

impl Sealed {
    /// The message's id.
    pub fn id(&self) -> crate::MessageId {
        self.id
    }

    /// Bytes so far.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Names this very envelope: replies are bound to it, claims compare it. Computed when asked
    /// for: a cast needs none.
    pub fn digest(&self) -> Digest {
        self.named.digest(&self.bytes)
    }

    /// Closes the frame. `offer` is what goes beside the envelope (an offer, or in a fanout the
    /// signer's credential).
    #[inline]
    pub fn into_frame(self, offer: Option<&[u8]>) -> Frame {
        self.into_frame_with(offer, None)
    }

    /// The same with a statement of revocation in the last place.
    #[inline]
    pub fn into_frame_with(mut self, offer: Option<&[u8]>, statement: Option<&[u8]>) -> Frame {
        let envelope = ENVELOPE_AT..self.bytes.len();
        close(&mut Writer::new(&mut self.bytes), offer, statement);
        let last = self.bytes.len() - statement.map_or(1, <[u8]>::len);
        Frame { bytes: self.bytes.freeze(), envelope, last, id: self.id, named: self.named }
    }
}

/// A finished frame.
#[derive(Debug, Clone)]
pub struct Frame {
    bytes: Bytes,
    envelope: Range<usize>,
    /// Where the last place begins.
    last: usize,
    id: crate::MessageId,
    named: Named,
}

impl Frame {
    /// What to send.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The message's id.
    pub fn id(&self) -> crate::MessageId {
        self.id
    }

    /// Names this very envelope. Computed when asked for.
    pub fn digest(&self) -> Digest {
        self.named.digest(&self.bytes)
    }

    /// The envelope's bytes.
    pub fn envelope(&self) -> &[u8] {
        self.bytes.get(self.envelope.clone()).unwrap_or_default()
    }

    /// The same envelope, byte for byte, in a frame with `offer`.
    pub fn with_offer(&self, offer: &[u8]) -> Bytes {
        self.with(Some(offer), None)
    }

    /// The same frame with `statement` in its last place.
    pub fn with_statement(self, statement: &[u8]) -> Self {
        let mut out = BytesMut::with_capacity(self.last + statement.len());
        out.extend_from_slice(self.bytes.get(..self.last).unwrap_or_default());
        out.extend_from_slice(statement);
        Self { bytes: out.freeze(), ..self }
    }

    /// The same envelope, byte for byte, with other things beside it.
    pub fn with(&self, offer: Option<&[u8]>, statement: Option<&[u8]>) -> Bytes {
        let beside = offer.map_or(1, <[u8]>::len) + statement.map_or(1, <[u8]>::len);
        let mut out = BytesMut::with_capacity(self.envelope().len() + beside + ENVELOPE_AT);
        let mut w = Writer::new(&mut out);
        w.array(4);
        w.uint(VERSION);
        w.raw(self.envelope());
        close(&mut w, offer, statement);
        out.freeze()
    }
}

/// The last two places of a frame.
#[inline]
fn close(w: &mut Writer<'_, BytesMut>, offer: Option<&[u8]>, statement: Option<&[u8]>) {
    if offer.is_none() && statement.is_none() {
        return w.raw(&[NULL, NULL]);
    }
    w.raw(offer.unwrap_or(&[NULL]));
    w.raw(statement.unwrap_or(&[NULL]));
}

/// Label, longest header, longest authenticator and their heads.
const DIGEST_INPUT: usize = MAX_HEADER + SIGNATURE + 32;

/// What names an envelope: SHA-256 of [label, protected header, authenticator], the
/// authenticator being the AEAD's tag, the MAC or the signature
/// (`docs/adr/0002-envelope-digest.md`).
pub(crate) fn envelope_digest(header: &[u8], authenticator: &[u8]) -> Digest {
    let mut input = Stack::<DIGEST_INPUT>::new();
    let mut w = Writer::new(&mut input);
    w.array(3);
    w.text("bulla/1 envelope");
    w.bytes(header);
    w.bytes(authenticator);
    // The parser takes no header that would not fit.
    Digest::of(input.get().unwrap_or_default())
}

/// A frame that was read and not opened: nothing in it is believed yet.
pub struct Parsed {
    pub(crate) bytes: BytesMut,
    pub(crate) form: Form,
    pub(crate) header: Header,
    pub(crate) protected: Range<usize>,
    /// Ciphertext with its tag, or payload.
    pub(crate) content: Range<usize>,
    /// Tag, MAC or signature.
    pub(crate) authenticator: Range<usize>,
    /// Signature or path of a fanout.
    pub(crate) proof: Option<Range<usize>>,
    offer: Option<Range<usize>>,
    statement: Option<Range<usize>>,
}

impl Parsed {
    /// Reads a frame of at most `max` bytes (steps 1 and 2 of protocol section 9). The bytes are
    /// taken over, so that the message can be opened in place.
    pub fn parse(bytes: impl IntoBytesMut, max: usize) -> Result<Self, Refusal> {
        if bytes.len() > max.min(MAX_FRAME) && !off(Check::FrameSize) {
            return Err(Refusal::TooLarge);
        }
        let mut parsed = Self {
            bytes: bytes.into_bytes_mut(),
            form: Form::Encrypt0,
            header: Header::blank(),
            protected: 0..0,
            content: 0..0,
            authenticator: 0..0,
            proof: None,
            offer: None,
            statement: None,
        };
        parsed.read()?;
        Ok(parsed)
    }

    #[inline]
    fn read(&mut self) -> Result<(), Refusal> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut r = Reader::new(&bytes);
        r.array(4)?;
        if r.uint()? != VERSION {
            return Err(Refusal::VersionUnknown);
        }
        self.read_envelope(&mut r)?;
        self.offer = Self::read_sign1(&mut r, MAX_OFFER)?;
        self.statement = Self::read_sign1(&mut r, MAX_STATEMENT)?;
        r.end()?;
        self.bytes = bytes;
        Ok(())
    }

    /// A tagged COSE message, or [COSE_Encrypt0, proof] for a group.
    #[inline]
    fn read_envelope(&mut self, r: &mut Reader<'_>) -> Result<(), Refusal> {
        let with_proof = r.clone().array(2).is_ok();
        if with_proof {
            r.array(2)?;
        }
        self.read_cose(r)?;
        if with_proof {
            let start = r.position();
            Proof::read(r)?;
            self.proof = Some(start..r.position());
        }
        let group = matches!(self.header.detail, Detail::Group { .. });
        if group != with_proof || (group && self.form != Form::Encrypt0) {
            return Err(Refusal::Malformed);
        }
        Ok(())
    }

    #[inline]
    fn read_cose(&mut self, r: &mut Reader<'_>) -> Result<(), Refusal> {
        self.form = Form::from_tag(r.any_tag()?)?;
        r.array(if self.form == Form::Encrypt0 { 3 } else { 4 })?;
        let header = r.bytes()?;
        self.protected = r.position() - header.len()..r.position();
        r.map(0)?;
        let content = r.bytes()?.len();
        self.content = r.position() - content..r.position();
        self.authenticator = match self.form {
            Form::Encrypt0 if content < GCM_TAG => return Err(Refusal::Malformed),
            Form::Encrypt0 => self.content.end - GCM_TAG..self.content.end,
            Form::Mac0 => Self::read_authenticator(r, HMAC_TAG)?,
            Form::Sign1 => Self::read_authenticator(r, SIGNATURE)?,
        };
        self.header.read(&mutants::header(header), self.form)?;
        if self.header.kind == MessageKind::Fanout && self.form != Form::Encrypt0 {
            return Err(Refusal::LevelNotAllowed);
        }
        Ok(())
    }

    fn read_authenticator(r: &mut Reader<'_>, len: usize) -> Result<Range<usize>, Refusal> {
        if r.bytes()?.len() != len {
            return Err(Refusal::Malformed);
        }
        Ok(r.position() - len..r.position())
    }

    #[inline]
    fn read_sign1(r: &mut Reader<'_>, max: usize) -> Result<Option<Range<usize>>, Refusal> {
        if r.null()? {
            return Ok(None);
        }
        let start = r.position();
        r.tag(TAG_SIGN1)?;
        r.array(4)?;
        r.bytes()?;
        r.map(0)?;
        r.bytes()?;
        r.bytes()?;
        let signed = start..r.position();
        if signed.len() > max { Err(Refusal::TooLarge) } else { Ok(Some(signed)) }
    }

    /// What a reader makes of bytes in the clear that takes them for a message.
    #[cfg(bulla_mutants)]
    pub(crate) fn unsealed(plaintext: &[u8]) -> Self {
        let Digest(digest) = Digest::of(plaintext);
        let mut header = Header::blank();
        header.id.0.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        (header.iat, header.exp) = (4_000_000_000, 4_000_000_000);
        Self {
            bytes: BytesMut::from(plaintext),
            form: Form::Encrypt0,
            header,
            protected: 0..0,
            content: 0..plaintext.len(),
            authenticator: 0..0,
            proof: None,
            offer: None,
            statement: None,
        }
    }

    /// The header, unbelieved.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The sender's name as the header claims it; empty in a reply.
    pub fn claimed_sender(&self) -> &str {
        std::str::from_utf8(self.claimed_sender_bytes()).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn claimed_sender_bytes(&self) -> &[u8] {
        let at = self.header.iss.start + self.protected.start
            ..self.header.iss.end + self.protected.start;
        self.bytes.get(at).unwrap_or_default()
    }

    /// The group's name as the header claims it.
    pub fn claimed_group(&self) -> Option<&str> {
        let Detail::Group { group, .. } = &self.header.detail else { return None };
        let at = group.start + self.protected.start..group.end + self.protected.start;
        self.bytes.get(at).and_then(|name| std::str::from_utf8(name).ok())
    }

    /// What stands beside the envelope: an offer, or in a fanout the signer's credential.
    pub fn offer(&self) -> Option<&[u8]> {
        self.offer.clone().and_then(|at| self.bytes.get(at))
    }

    /// The statement of revocation in the last place: it proves itself, and nothing else here
    /// vouches for it.
    pub fn statement(&self) -> Option<&[u8]> {
        self.statement.clone().and_then(|at| self.bytes.get(at))
    }

    /// Names this very envelope.
    pub fn digest(&self) -> Digest {
        envelope_digest(self.slice(&self.protected), self.slice(&self.authenticator))
    }

    pub(crate) fn slice(&self, at: &Range<usize>) -> &[u8] {
        self.bytes.get(at.clone()).unwrap_or_default()
    }
}

/// Says what it claims to be and nothing of what is in it: it may have been opened in place.
impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parsed")
            .field("form", &self.form)
            .field("header", &self.header)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Bytes that can be had for writing: without a copy where nobody else holds them.
pub trait IntoBytesMut {
    /// How many.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes.
    fn into_bytes_mut(self) -> BytesMut;
}

impl IntoBytesMut for BytesMut {
    fn len(&self) -> usize {
        BytesMut::len(self)
    }

    fn into_bytes_mut(self) -> BytesMut {
        self
    }
}

impl IntoBytesMut for Bytes {
    fn len(&self) -> usize {
        Bytes::len(self)
    }

    fn into_bytes_mut(self) -> BytesMut {
        self.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
    }
}
