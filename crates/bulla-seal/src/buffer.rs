//! The one buffer of a message: plaintext is written behind room for what goes before it, sealed
//! in place and sent from there.

use bytes::{Buf, BytesMut};

use crate::cbor::{Sink, Stack, Writer};
use crate::id::MessageId;
use crate::kdf::MessagePrf;
use crate::random::UnixTime;

/// Room before the plaintext: for the inputs of the id first, for the envelope's head after.
pub(crate) const HEADROOM: usize = 1024;
/// Room behind it: authentication tag, two nulls.
const TAILROOM: usize = 96;

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
#[derive(Debug)]
pub struct MessageBuf {
    bytes: BytesMut,
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

    /// Where the plaintext is appended.
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

    pub(crate) fn plaintext_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(HEADROOM..).unwrap_or_default()
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.bytes.put(bytes);
    }

    /// Writes `head` so that it ends where the plaintext begins; where it begins then.
    fn prepend(&mut self, head: &[u8]) -> Option<usize> {
        let start = HEADROOM.checked_sub(head.len())?;
        self.bytes.get_mut(start..HEADROOM)?.copy_from_slice(head);
        Some(start)
    }

    /// The hedged id (protocol section 3): a PRF under the session's nonce key of the CBOR array
    /// [label, randomness, time, counter, incarnation, boot id, header with a zero id, external
    /// AAD, plaintext], in one pass over the buffer that the plaintext is in already.
    pub(crate) fn hedged_id(
        &mut self,
        prf: &MessagePrf,
        hedge: &Hedge,
        incarnation: u32,
        header: &[u8],
        aad: &[u8],
    ) -> Option<MessageId> {
        let mut head = Stack::<HEADROOM>::new();
        let mut w = Writer::new(&mut head);
        w.array(9);
        w.text("bulla/1 id");
        w.bytes(&hedge.random);
        w.uint(hedge.now.ns);
        w.uint(hedge.counter);
        w.uint(incarnation.into());
        w.bytes(&hedge.boot);
        w.bytes(header);
        w.bytes(aad);
        w.bytes_head(self.len());
        let start = self.prepend(head.get()?)?;
        Some(MessageId(prf.id(self.bytes.get(start..)?)))
    }

    /// The buffer from the first byte of `head`, which is put before the content.
    pub(crate) fn finish(mut self, head: &[u8]) -> Option<BytesMut> {
        let start = self.prepend(head)?;
        self.bytes.advance(start);
        Some(self.bytes)
    }
}
