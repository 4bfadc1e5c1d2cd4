//! The protected header, the only one there is (protocol section 3): exactly these parameters for
//! each kind of message, in deterministic CBOR.
//!
//! | label | parameter | request | fanout | reply |
//! |---|---|---|---|---|
//! | 1 | alg | yes | yes | yes |
//! | 4 | kid (8 bytes) or session id (16 bytes); the signer's kid in a fanout | yes | yes | yes |
//! | 15 | CWT claims (RFC 9597) | iss, exp, iat, cti | iss, exp, iat, cti | iat, cti |
//! | 16 | typ (RFC 9596) | yes | yes | yes |
//! | -65537 | the protocol's own, an array | suite, kind, level | and group, group epoch, sequence | and in-reply-to, outcome, index |

use std::ops::Range;

use crate::cbor::{Reader, Sink, Stack, Writer};
use crate::id::{Kid, MessageId, SessionId};
use crate::principal::{GroupName, Principal};
use crate::refusal::Refusal;
use crate::route::ExternalAad;
use crate::wire::{Level, MessageKind, Outcome, Suite};

/// Content format of a sealed message in the `typ` parameter: from CoAP's range for experiments,
/// because an integer costs three bytes and a media type twenty.
const TYP: u64 = 65_001;
/// Label of the protocol's own parameter, in COSE's range for private use.
const OWN: i64 = -65_537;
const ALG_A256GCM: i64 = 3;
const ALG_HMAC256: i64 = 5;
const ALG_EDDSA: i64 = crate::sign::ALG_EDDSA;

/// Longest header in bytes.
pub(crate) const MAX_HEADER: usize = 288;

/// Names the key of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Handle {
    /// A pair key's kid, or the signer's in a fanout.
    Key(Kid),
    /// A session.
    Session(SessionId),
}

impl Handle {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Key(kid) => kid.as_bytes(),
            Self::Session(id) => id.as_bytes(),
        }
    }

    #[inline]
    fn read(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        *self = if let Some(id) = bytes.as_array() {
            Self::Session(SessionId(*id))
        } else if let Some(kid) = bytes.as_array() {
            Self::Key(Kid(*kid))
        } else {
            return Err(Refusal::Malformed);
        };
        Ok(())
    }
}

impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(kid) => kid.fmt(f),
            Self::Session(id) => id.fmt(f),
        }
    }
}

/// How a message is protected on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// COSE_Encrypt0, tag 16.
    Encrypt0,
    /// COSE_Mac0, tag 17.
    Mac0,
    /// COSE_Sign1, tag 18.
    Sign1,
}

impl Form {
    pub(crate) const fn tag(self) -> u64 {
        match self {
            Self::Encrypt0 => 16,
            Self::Mac0 => 17,
            Self::Sign1 => 18,
        }
    }

    pub(crate) fn from_tag(tag: u64) -> Result<Self, Refusal> {
        match tag {
            16 => Ok(Self::Encrypt0),
            17 => Ok(Self::Mac0),
            18 => Ok(Self::Sign1),
            _ => Err(Refusal::Malformed),
        }
    }

    const fn alg(self) -> i64 {
        match self {
            Self::Encrypt0 => ALG_A256GCM,
            Self::Mac0 => ALG_HMAC256,
            Self::Sign1 => ALG_EDDSA,
        }
    }

    /// The algorithm as one byte of CBOR.
    const fn alg_byte(self) -> u8 {
        match self.alg() {
            alg @ 0..=23 => alg as u8,
            alg => 0x20 | !alg as u8,
        }
    }

    /// The head of the tagged COSE array.
    pub(crate) fn write_head<S: Sink>(self, w: &mut Writer<'_, S>) {
        w.tag(self.tag());
        w.array(if self == Self::Encrypt0 { 3 } else { 4 });
    }

    /// The beginning of the structure that the cipher, the signature or the MAC covers (RFC 9052
    /// sections 4.4, 5.3 and 6.3): the array's head and the context. Header, external AAD and,
    /// for the last two, payload follow.
    #[inline]
    pub(crate) const fn context(self) -> &'static [u8] {
        match self {
            Self::Encrypt0 => b"\x83\x68Encrypt0",
            Self::Mac0 => b"\x84\x64MAC0",
            Self::Sign1 => b"\x84\x6aSignature1",
        }
    }

    /// The level that this form gives.
    pub const fn level(self) -> Level {
        match self {
            Self::Encrypt0 => Level::Sealed,
            Self::Mac0 | Self::Sign1 => Level::Signed,
        }
    }
}

/// What only one kind of message has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// A request to one principal.
    Request,
    /// A request to a group.
    Group {
        /// Where the group's name stands in the header.
        group: Range<usize>,
        /// Epoch of the group key.
        epoch: u32,
        /// Rises by one with every fanout of this signer.
        sequence: u64,
    },
    /// A reply.
    Reply {
        /// The request's id.
        in_reply_to: MessageId,
        /// What it carries.
        outcome: Outcome,
        /// From 0, rising by one.
        index: u16,
    },
}

/// A parsed header. Nothing in it is believed: it is compared with what the receiver expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The key or session that the message claims.
    pub handle: Handle,
    /// The suite that it claims.
    pub suite: Suite,
    /// The kind that it claims.
    pub kind: MessageKind,
    /// The level that it claims.
    pub level: Level,
    /// Where the sender's name stands in the header (requests only).
    pub(crate) iss: Range<usize>,
    /// End of its life, in seconds since the Unix epoch; 0 in a reply.
    pub exp: u64,
    /// When it was made, in seconds since the Unix epoch.
    pub iat: u64,
    /// Its id.
    pub id: MessageId,
    /// What only its kind has.
    pub detail: Detail,
}

/// Times of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) iat: u64,
    pub(crate) exp: u64,
}

/// What every header says beside its handle and times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common {
    pub(crate) form: Form,
    pub(crate) suite: Suite,
    pub(crate) kind: MessageKind,
    pub(crate) level: Level,
}

/// What the headers of one writer have in common: from the handle to the key of the first time.
/// Made once for a session.
pub(crate) struct HeaderStem(Box<[u8]>);

impl HeaderStem {
    /// Up to the key of the expiry.
    pub(crate) fn request(handle: Handle, iss: &Principal) -> Self {
        let mut out = Vec::with_capacity(128);
        let mut w = Self::start(&mut out, handle);
        w.map(4);
        w.int(1);
        w.text(iss.as_str());
        w.int(4);
        Self(out.into())
    }

    /// Up to the key of issued-at.
    pub(crate) fn reply(handle: Handle) -> Self {
        let mut out = Vec::with_capacity(32);
        let mut w = Self::start(&mut out, handle);
        w.map(2);
        w.int(6);
        Self(out.into())
    }

    fn start(out: &mut Vec<u8>, handle: Handle) -> Writer<'_, Vec<u8>> {
        let mut w = Writer::new(out);
        w.int(4);
        w.bytes(handle.as_bytes());
        w.int(15);
        w
    }
}

/// Longest end of a header: two times, id, `typ` and the protocol's own parameter at its longest
/// (a group's).
const MAX_END: usize = 136;
/// `typ`, and the label of the protocol's own parameter.
const TYP_OWN: [u8; 9] = {
    let [typ_high, typ_low] = (TYP as u16).to_be_bytes();
    let [own3, own2, own1, own0] = (!OWN as u32).to_be_bytes();
    [16, 0x19, typ_high, typ_low, 0x3a, own3, own2, own1, own0]
};
/// Key and head of the id, and the id to be.
const NO_ID: [u8; 18] = {
    let [key, head] = [7, 0x50];
    [key, head, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
};

/// A header with a zero id, in the pieces that it is put together from.
pub(crate) struct Draft<'a> {
    form: Form,
    stem: &'a HeaderStem,
    end: Stack<MAX_END>,
    /// Where the id stands in `end`.
    id_at: usize,
}

impl<'a> Draft<'a> {
    /// Written in place, like everything that is big and short-lived here.
    #[inline(always)]
    fn new(common: &Common, stem: &'a HeaderStem, exp: Option<u64>, iat: u64, items: u8) -> Self {
        let mut draft = Self { form: common.form, stem, end: Stack::new(), id_at: 0 };
        let mut w = Writer::new(&mut draft.end);
        if let Some(exp) = exp {
            w.uint(exp);
            w.int(6);
        }
        w.uint(iat);
        draft.id_at = draft.end.len() + 2;
        draft.end.put(&NO_ID);
        draft.end.put(&TYP_OWN);
        draft.end.put(&[
            ARRAY_HEAD | items,
            common.suite.to_wire(),
            common.kind.to_wire(),
            common.level.to_wire(),
        ]);
        draft
    }

    #[inline(always)]
    pub(crate) fn request(common: &Common, stem: &'a HeaderStem, times: Times) -> Self {
        Self::new(common, stem, Some(times.exp), times.iat, 3)
    }

    pub(crate) fn group(
        common: &Common,
        stem: &'a HeaderStem,
        times: Times,
        (group, epoch, sequence): (&GroupName, u32, u64),
    ) -> Self {
        let mut draft = Self::new(common, stem, Some(times.exp), times.iat, 6);
        let mut w = Writer::new(&mut draft.end);
        w.text(group.as_str());
        w.uint(epoch.into());
        w.uint(sequence);
        draft
    }

    #[inline(always)]
    pub(crate) fn reply(
        common: &Common,
        stem: &'a HeaderStem,
        iat: u64,
        (in_reply_to, outcome, index): (MessageId, Outcome, u16),
    ) -> Self {
        let mut draft = Self::new(common, stem, None, iat, 6);
        let mut w = Writer::new(&mut draft.end);
        w.fixed(&in_reply_to.0);
        w.uint(outcome.to_wire().into());
        w.uint(index.into());
        draft
    }

    /// How many bytes the header has.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        3 + self.stem.0.len() + self.end.len()
    }

    /// Where in the header the id stands.
    #[inline(always)]
    pub(crate) fn id_at(&self) -> usize {
        3 + self.stem.0.len() + self.id_at
    }

    /// Nothing if it is too long.
    #[inline(always)]
    pub(crate) fn write<S: Sink>(&self, out: &mut S) -> Option<()> {
        let end = self.end.get().filter(|_| self.len() <= MAX_HEADER)?;
        // A map of five and the algorithm, which is a small integer.
        out.put(&[MAP_HEAD | 5, 1, self.form.alg_byte()]);
        out.put(&self.stem.0);
        out.put(end);
        Some(())
    }
}

const ARRAY_HEAD: u8 = 0x80;
const MAP_HEAD: u8 = 0xa0;

impl Header {
    /// What a header is before it is read.
    pub(crate) const fn blank() -> Self {
        Self {
            handle: Handle::Key(Kid([0; 8])),
            suite: Suite::Shared,
            kind: MessageKind::Call,
            level: Level::Plaintext,
            iss: 0..0,
            exp: 0,
            iat: 0,
            id: MessageId([0; 16]),
            detail: Detail::Request,
        }
    }

    /// Reads the protected header of a message in `form` into its place. (Each move of so large a
    /// value right after it was written costs about as much as reading it.)
    #[inline]
    pub(crate) fn read(&mut self, bytes: &[u8], form: Form) -> Result<(), Refusal> {
        if bytes.len() > MAX_HEADER {
            return Err(Refusal::Malformed);
        }
        let mut r = Reader::new(bytes);
        r.literal(&[MAP_HEAD | 5, 1, form.alg_byte(), 4])?;
        self.handle.read(r.bytes()?)?;
        r.literal(&[15])?;
        let for_request = self.read_claims(&mut r)?;
        r.literal(&TYP_OWN)?;
        let items = r.array_up_to(6)?;
        self.suite = Suite::from_wire(r.uint()?).ok_or(Refusal::SuiteNotAllowed)?;
        self.kind = MessageKind::from_wire(r.uint()?).ok_or(Refusal::Malformed)?;
        self.level = Level::from_wire(r.uint()?).ok_or(Refusal::Malformed)?;
        if self.level != form.level() || self.kind.is_request() != for_request {
            return Err(Refusal::Malformed);
        }
        self.detail = Self::read_detail(&mut r, self.kind, items)?;
        r.end()
    }

    /// Whether the claims are those of a request.
    #[inline]
    fn read_claims(&mut self, r: &mut Reader<'_>) -> Result<bool, Refusal> {
        let for_request = r.choice(MAP_HEAD | 4, MAP_HEAD | 2)?;
        if for_request {
            r.literal(&[1])?;
            let len = r.text_bytes()?.len();
            self.iss = r.position() - len..r.position();
            r.literal(&[4])?;
            self.exp = r.uint()?;
        }
        r.literal(&[6])?;
        self.iat = r.uint()?;
        r.literal(&[7])?;
        self.id.0 = *r.fixed_ref()?;
        Ok(for_request)
    }

    #[inline]
    fn read_detail(r: &mut Reader<'_>, kind: MessageKind, items: usize) -> Result<Detail, Refusal> {
        match (kind, items) {
            (MessageKind::Call | MessageKind::Cast | MessageKind::Notification, 3) => {
                Ok(Detail::Request)
            }
            (MessageKind::Fanout | MessageKind::Notification, 6) => {
                let group = r.text()?;
                let end = r.position();
                let group = end - group.len()..end;
                Ok(Detail::Group { group, epoch: r.uint32()?, sequence: r.uint()? })
            }
            (MessageKind::Reply, 6) => Ok(Detail::Reply {
                in_reply_to: MessageId(r.fixed()?),
                outcome: Outcome::from_wire(r.uint()?).ok_or(Refusal::Malformed)?,
                index: r.uint()?.try_into().map_err(|_| Refusal::Malformed)?,
            }),
            _ => Err(Refusal::Malformed),
        }
    }
}

/// The structure of [`Form::context`] up to the external AAD.
#[inline(always)]
pub(crate) fn write_structure<S: Sink>(
    out: &mut S,
    form: Form,
    header: &[u8],
    aad: &ExternalAad<'_>,
) {
    out.put(form.context());
    let mut w = Writer::new(out);
    w.bytes(header);
    w.bytes_head(aad.len());
    aad.write(out);
}
