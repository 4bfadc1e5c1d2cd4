//! The one buffer of a message: plaintext is written behind room for what goes before it, sealed
//! in place and sent from there.

use std::fmt;

use bytes::{Buf, BytesMut};

use crate::cbor::{Sink, Stack, Writer, head_len};
use crate::frame::{GCM_TAG, Named, VERSION};
use crate::header::{Draft, Form, MAX_HEADER};
use crate::id::MessageId;
use crate::kdf::MessagePrf;
use crate::mutants::{Check, off};
use crate::random::UnixTime;
use crate::route::{ExternalAad, MAX_AAD};

/// Room before the plaintext: for the inputs of the id at their longest first, for the
/// envelope's head after.
pub(crate) const HEADROOM: usize = LEAD + MAX_HEADER + MAX_AAD + 16;
/// Room behind it: inner signature, authentication tag, two nulls.
const TAILROOM: usize = 96;
/// Longest lead of the inputs of an id: label, randomness, time, counter, incarnation, boot id.
const LEAD: usize = 80;

/// What the hedged rule takes beside the message itself (protocol section 3). Two messages with
/// different content get different ids even if everything here repeats.
#[derive(Debug, Clone, Copy)]
pub struct Hedge {
    /// From the operating system (a pooled draw will do).
    pub random: [u8; 16],
    /// Wall clock.
    pub now: UnixTime,
    /// Rises with every message of this process.
    pub counter: u64,
    /// Changes with every start of the machine or resume of the virtual machine.
    pub boot: [u8; 16],
}

/// A plaintext in the making. Append to it through [`MessageBuf::sink`].
pub struct MessageBuf {
    bytes: BytesMut,
}

/// Where header and external AAD stand in the headroom, one behind the other and right before
/// the head of the payload: in this order they end the inputs of the id and are the middle of the
/// structures of RFC 9052.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Laid {
    /// Where the head of the header's byte string begins.
    start: usize,
    /// Where the header itself begins and ends.
    header: (usize, usize),
    /// The same of the AAD.
    aad: (usize, usize),
}

impl MessageBuf {
    /// Room for `plaintext` bytes without growing.
    pub fn with_capacity(plaintext: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADROOM + plaintext + TAILROOM);
        bytes.resize(HEADROOM, 0);
        Self { bytes }
    }

    /// With this plaintext.
    pub fn from_plaintext(plaintext: &[u8]) -> Self {
        let mut buf = Self::with_capacity(plaintext.len());
        buf.bytes.put(plaintext);
        buf
    }

    /// Where the plaintext is appended. Only append: the bytes before belong to the envelope.
    pub fn sink(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Bytes of plaintext so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(HEADROOM)
    }

    /// Whether there is no plaintext yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was appended.
    pub fn plaintext(&self) -> &[u8] {
        self.bytes.get(HEADROOM..).unwrap_or_default()
    }

    /// The first byte of the plaintext.
    pub(crate) fn first_mut(&mut self) -> Option<&mut u8> {
        self.bytes.get_mut(HEADROOM)
    }

    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.put(bytes);
    }

    /// The header of a message that was laid out.
    pub(crate) fn header(&self, laid: &Laid) -> &[u8] {
        self.bytes.get(laid.header.0..laid.header.1).unwrap_or_default()
    }

    /// The external AAD of a message that was laid out.
    pub(crate) fn aad(&self, laid: &Laid) -> &[u8] {
        self.bytes.get(laid.aad.0..laid.aad.1).unwrap_or_default()
    }

    /// Lays header and AAD out before the plaintext and gives the message its hedged id
    /// (protocol section 3): a PRF under the direction's id key of the CBOR array [label,
    /// randomness, time, counter, incarnation, boot id, header with a zero id, external AAD,
    /// plaintext], in one pass over this buffer. The id is then put into the header.
    #[inline(always)]
    pub(crate) fn assign_id(
        &mut self,
        prf: &MessagePrf,
        (hedge, incarnation): (&Hedge, u32),
        draft: &Draft<'_>,
        aad: &ExternalAad<'_>,
    ) -> Option<(MessageId, Laid)> {
        let (header_len, aad_len, payload) = (draft.len(), aad.len(), self.len());
        let aad_end = HEADROOM - head_len(payload as u64);
        let aad_start = aad_end.checked_sub(aad_len)?;
        let header_end = aad_start.checked_sub(head_len(aad_len as u64))?;
        let header_start = header_end.checked_sub(header_len)?;
        let start = header_start.checked_sub(head_len(header_len as u64))?;
        let lead = lead_len(hedge, incarnation);
        let from = start.checked_sub(lead)?;
        let mut place = Place { bytes: self.bytes.get_mut(from..HEADROOM)?, at: 0 };
        write_lead(&mut place, hedge, incarnation);
        let mut w = Writer::new(&mut place);
        w.bytes_head(header_len);
        draft.write(&mut place)?;
        let mut w = Writer::new(&mut place);
        w.bytes_head(aad_len);
        aad.write(&mut place);
        let mut w = Writer::new(&mut place);
        w.bytes_head(payload);
        let inputs = self.bytes.get(from..)?;
        let covered = if off(Check::HedgedId) { lead } else { inputs.len() };
        let id = MessageId(prf.id(inputs.get(..covered)?)?);
        let at = header_start + draft.id_at();
        *self.bytes.get_mut(at..)?.first_chunk_mut()? = id.0;
        Some((id, Laid { start, header: (header_start, header_end), aad: (aad_start, aad_end) }))
    }

    /// The Enc_structure of RFC 9052 section 5.3 and the plaintext, side by side.
    #[inline(always)]
    pub(crate) fn enc_structure(&mut self, laid: &Laid) -> Option<(&[u8], &mut [u8])> {
        let from = self.write_context(laid, Form::Encrypt0)?;
        let (head, plaintext) = self.bytes.split_at_mut_checked(HEADROOM)?;
        Some((head.get(from..laid.aad.1)?, plaintext))
    }

    /// The Sig_structure or MAC_structure (RFC 9052 sections 4.4 and 6.3) with its payload: it
    /// stands in the buffer as it is.
    pub(crate) fn whole_structure(&mut self, laid: &Laid, form: Form) -> Option<&[u8]> {
        let from = self.write_context(laid, form)?;
        self.bytes.get(from..)
    }

    #[inline(always)]
    fn write_context(&mut self, laid: &Laid, form: Form) -> Option<usize> {
        let context = form.context();
        let from = laid.start.checked_sub(context.len())?;
        self.bytes.get_mut(from..laid.start)?.copy_from_slice(context);
        Some(from)
    }

    /// Puts the heads of frame and envelope before the content, from which the buffer then
    /// begins, and `authenticator` behind it, if the content does not end with one already. With
    /// `group` the envelope is an array of two whose second item follows.
    #[inline(always)]
    pub(crate) fn finish(
        mut self,
        laid: &Laid,
        (form, group): (Form, bool),
        authenticator: Option<&[u8]>,
    ) -> Option<(BytesMut, Named)> {
        let content = self.len();
        let header = laid.header.0..laid.header.1;
        // The header moves up to where the AAD was.
        let to = HEADROOM.checked_sub(1 + head_len(content as u64) + header.len())?;
        let mut front = Stack::<16>::new();
        let mut w = Writer::new(&mut front);
        w.array(4);
        w.uint(VERSION);
        if group {
            w.array(2);
        }
        form.write_head(&mut w);
        w.bytes_head(header.len());
        let front = front.get()?;
        let from = to.checked_sub(front.len())?;
        let end = to + header.len();
        self.bytes.get(header.clone())?;
        self.bytes.copy_within(header, to);
        self.bytes.get_mut(from..to)?.copy_from_slice(front);
        let mut place = Place { bytes: self.bytes.get_mut(end..HEADROOM)?, at: 0 };
        let mut w = Writer::new(&mut place);
        w.map(0);
        w.bytes_head(content);
        if let Some(authenticator) = authenticator {
            Writer::new(&mut self.bytes).bytes(authenticator);
        }
        let length = authenticator.map_or(GCM_TAG, <[u8]>::len);
        self.bytes.advance(from);
        let authenticator = self.bytes.len().checked_sub(length)?..self.bytes.len();
        Some((self.bytes, Named { header: to - from..end - from, authenticator }))
    }
}

impl fmt::Debug for MessageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageBuf({} bytes)", self.len())
    }
}

/// Head and label of the inputs of an id: an array of nine.
const LEAD_LABEL: &[u8; 12] = b"\x89\x6abulla/1 id";

/// How many bytes [`write_lead`] writes.
#[inline(always)]
fn lead_len(hedge: &Hedge, incarnation: u32) -> usize {
    let fixed = LEAD_LABEL.len() + 2 * 17;
    fixed + head_len(hedge.now.ns) + head_len(hedge.counter) + head_len(incarnation.into())
}

/// What the inputs of an id begin with.
#[inline(always)]
fn write_lead(out: &mut Place<'_>, hedge: &Hedge, incarnation: u32) {
    out.put(LEAD_LABEL);
    let mut w = Writer::new(out);
    w.fixed(&hedge.random);
    w.uint(hedge.now.ns);
    w.uint(hedge.counter);
    w.uint(incarnation.into());
    w.fixed(&hedge.boot);
}

/// A place of exactly the right size to write to.
struct Place<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Sink for Place<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if let Some(to) = self.bytes.get_mut(self.at..self.at + bytes.len()) {
            to.copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_plaintext() {
        let buf = MessageBuf::from_plaintext(b"secret word");
        assert_eq!(format!("{buf:?}"), "MessageBuf(11 bytes)");
    }
}
