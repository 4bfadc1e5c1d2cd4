//! The one buffer of a message: plaintext is written behind room for what goes before it, sealed
//! in place and sent from there.

use std::fmt;
use std::ops::Range;

use bytes::{Buf, BytesMut};

use crate::cbor::{Sink, Stack, Writer, head_len};
use crate::frame::VERSION;
use crate::header::{Draft, Form};
use crate::id::MessageId;
use crate::kdf::MessagePrf;
use crate::random::UnixTime;

/// Room before the plaintext: for the inputs of the id first, for the envelope's head after.
pub(crate) const HEADROOM: usize = 1024;
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
    /// Where the AAD ends.
    end: usize,
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
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(HEADROOM)
    }

    /// Whether there is no plaintext yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn plaintext(&self) -> &[u8] {
        self.bytes.get(HEADROOM..).unwrap_or_default()
    }

    /// The first byte of the plaintext.
    pub(crate) fn first_mut(&mut self) -> Option<&mut u8> {
        self.bytes.get_mut(HEADROOM)
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.put(bytes);
    }

    /// Lays header and AAD out before the plaintext and gives the message its hedged id
    /// (protocol section 3): a PRF under the direction's id key of the CBOR array [label,
    /// randomness, time, counter, incarnation, boot id, header with a zero id, external AAD,
    /// plaintext], in one pass over this buffer. The id is put into both copies of the header.
    pub(crate) fn assign_id(
        &mut self,
        prf: &MessagePrf,
        (hedge, incarnation): (&Hedge, u32),
        draft: &mut Draft,
        aad: &[u8],
    ) -> Option<(MessageId, Laid)> {
        let lead = lead(hedge, incarnation);
        let lead = lead.get()?;
        let header = draft.bytes.get()?;
        let payload = self.len();
        let total = lead.len() + string_len(header) + string_len(aad) + head_len(payload as u64);
        let from = HEADROOM.checked_sub(total)?;
        let mut place = Place { bytes: self.bytes.get_mut(from..HEADROOM)?, at: 0 };
        let mut w = Writer::new(&mut place);
        w.raw(lead);
        w.bytes(header);
        w.bytes(aad);
        w.bytes_head(payload);
        let start = from + lead.len();
        let header_end = start + string_len(header);
        let laid = Laid {
            start,
            header: (header_end - header.len(), header_end),
            end: header_end + string_len(aad),
        };
        let id = MessageId(prf.id(self.bytes.get(from..)?)?);
        let at = laid.header.0 + draft.id_at();
        self.bytes.get_mut(at..at + MessageId::LEN)?.copy_from_slice(id.as_bytes());
        draft.set_id(id);
        Some((id, laid))
    }

    /// The Enc_structure of RFC 9052 section 5.3 and the plaintext, side by side.
    pub(crate) fn enc_structure(&mut self, laid: &Laid) -> Option<(&[u8], &mut [u8])> {
        let from = self.write_context(laid, Form::Encrypt0)?;
        let (head, plaintext) = self.bytes.split_at_mut_checked(HEADROOM)?;
        Some((head.get(from..laid.end)?, plaintext))
    }

    /// The Sig_structure or MAC_structure (RFC 9052 sections 4.4 and 6.3) with its payload: it
    /// stands in the buffer as it is.
    pub(crate) fn whole_structure(&mut self, laid: &Laid, form: Form) -> Option<&[u8]> {
        let from = self.write_context(laid, form)?;
        self.bytes.get(from..)
    }

    fn write_context(&mut self, laid: &Laid, form: Form) -> Option<usize> {
        let mut context = Stack::<16>::new();
        form.write_context(&mut context);
        let context = context.get()?;
        let from = laid.start.checked_sub(context.len())?;
        self.bytes.get_mut(from..laid.start)?.copy_from_slice(context);
        Some(from)
    }

    /// Puts the heads of frame and envelope before the content, from which the buffer then
    /// begins. With `group` the envelope is an array of two whose second item follows.
    pub(crate) fn finish(mut self, laid: &Laid, form: Form, group: bool) -> Option<BytesMut> {
        let content = self.len();
        let header: Range<usize> = laid.header.0..laid.header.1;
        // The header moves up to where the AAD was.
        let behind = 1 + head_len(content as u64);
        let to = HEADROOM.checked_sub(behind + header.len())?;
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
        self.bytes.get(header.clone())?;
        let end = to + header.len();
        self.bytes.copy_within(header, to);
        self.bytes.get_mut(from..to)?.copy_from_slice(front);
        let mut place = Place { bytes: self.bytes.get_mut(end..HEADROOM)?, at: 0 };
        let mut w = Writer::new(&mut place);
        w.map(0);
        w.bytes_head(content);
        self.bytes.advance(from);
        Some(self.bytes)
    }
}

impl fmt::Debug for MessageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageBuf({} bytes)", self.len())
    }
}

fn lead(hedge: &Hedge, incarnation: u32) -> Stack<LEAD> {
    let mut out = Stack::new();
    let mut w = Writer::new(&mut out);
    w.array(9);
    w.text("bulla/1 id");
    w.bytes(&hedge.random);
    w.uint(hedge.now.ns);
    w.uint(hedge.counter);
    w.uint(incarnation.into());
    w.bytes(&hedge.boot);
    out
}

/// How many bytes `bytes` take as a CBOR byte string.
fn string_len(bytes: &[u8]) -> usize {
    head_len(bytes.len() as u64) + bytes.len()
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
