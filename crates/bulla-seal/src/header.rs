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
pub(crate) type HeaderBuf = Stack<MAX_HEADER>;

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

    fn from_slice(bytes: &[u8]) -> Result<Self, Refusal> {
        let kid = Kid::from_slice(bytes).map(Self::Key);
        kid.or_else(|| SessionId::from_slice(bytes).map(Self::Session)).ok_or(Refusal::Malformed)
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

    /// The head of the tagged COSE array.
    pub(crate) fn write_head<S: Sink>(self, w: &mut Writer<'_, S>) {
        w.tag(self.tag());
        w.array(if self == Self::Encrypt0 { 3 } else { 4 });
    }

    /// The beginning of the structure that the cipher, the signature or the MAC covers (RFC 9052
    /// sections 4.4, 5.3 and 6.3); header, external AAD and, for the last two, payload follow.
    pub(crate) fn write_context<S: Sink>(self, out: &mut S) {
        let mut w = Writer::new(out);
        let (context, items) = match self {
            Self::Encrypt0 => ("Encrypt0", 3),
            Self::Mac0 => ("MAC0", 4),
            Self::Sign1 => ("Signature1", 4),
        };
        w.array(items);
        w.text(context);
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

/// What every header has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common {
    pub(crate) form: Form,
    pub(crate) handle: Handle,
    pub(crate) suite: Suite,
    pub(crate) kind: MessageKind,
    pub(crate) level: Level,
}

impl Common {
    fn write_start(&self, w: &mut Writer<'_, HeaderBuf>) {
        w.map(5);
        w.int(1);
        w.int(self.form.alg());
        w.int(4);
        w.bytes(self.handle.as_bytes());
        w.int(15);
    }

    fn write_own(&self, w: &mut Writer<'_, HeaderBuf>, items: usize) {
        w.int(16);
        w.uint(TYP);
        w.int(OWN);
        w.array(items);
        w.uint(self.suite.to_wire().into());
        w.uint(self.kind.to_wire().into());
        w.uint(self.level.to_wire().into());
    }
}

/// A header with its id still to come; `id_at` is where.
pub(crate) struct Draft {
    pub(crate) bytes: HeaderBuf,
    id_at: usize,
}

impl Draft {
    fn request_claims(
        bytes: &mut HeaderBuf,
        common: &Common,
        iss: &Principal,
        times: Times,
    ) -> usize {
        let mut w = Writer::new(bytes);
        common.write_start(&mut w);
        w.map(4);
        w.int(1);
        w.text(iss.as_str());
        w.int(4);
        w.uint(times.exp);
        w.int(6);
        w.uint(times.iat);
        w.int(7);
        w.bytes(&[0; 16]);
        bytes.get().map_or(0, <[u8]>::len).saturating_sub(16)
    }

    pub(crate) fn request(common: &Common, iss: &Principal, times: Times) -> Self {
        let mut bytes = HeaderBuf::new();
        let id_at = Self::request_claims(&mut bytes, common, iss, times);
        common.write_own(&mut Writer::new(&mut bytes), 3);
        Self { bytes, id_at }
    }

    pub(crate) fn group(
        common: &Common,
        iss: &Principal,
        times: Times,
        (group, epoch, sequence): (&GroupName, u32, u64),
    ) -> Self {
        let mut bytes = HeaderBuf::new();
        let id_at = Self::request_claims(&mut bytes, common, iss, times);
        let mut w = Writer::new(&mut bytes);
        common.write_own(&mut w, 6);
        w.text(group.as_str());
        w.uint(epoch.into());
        w.uint(sequence);
        Self { bytes, id_at }
    }

    pub(crate) fn reply(
        common: &Common,
        iat: u64,
        (in_reply_to, outcome, index): (MessageId, Outcome, u16),
    ) -> Self {
        let mut bytes = HeaderBuf::new();
        let mut w = Writer::new(&mut bytes);
        common.write_start(&mut w);
        w.map(2);
        w.int(6);
        w.uint(iat);
        w.int(7);
        w.bytes(&[0; 16]);
        let id_at = bytes.get().map_or(0, <[u8]>::len).saturating_sub(16);
        let mut w = Writer::new(&mut bytes);
        common.write_own(&mut w, 6);
        w.bytes(in_reply_to.as_bytes());
        w.uint(outcome.to_wire().into());
        w.uint(index.into());
        Self { bytes, id_at }
    }

    /// Where in the header the id stands.
    pub(crate) fn id_at(&self) -> usize {
        self.id_at
    }

    pub(crate) fn set_id(&mut self, id: MessageId) {
        let at = self.id_at..self.id_at + MessageId::LEN;
        if let Some(place) = self.bytes.get_mut().and_then(|bytes| bytes.get_mut(at)) {
            place.copy_from_slice(id.as_bytes());
        }
    }
}

impl Header {
    /// Parses the protected header of a message in `form`.
    #[inline]
    pub(crate) fn parse(bytes: &[u8], form: Form) -> Result<Self, Refusal> {
        if bytes.len() > MAX_HEADER {
            return Err(Refusal::Malformed);
        }
        let mut r = Reader::new(bytes);
        r.map(5)?;
        r.this_int(1)?;
        r.this_int(form.alg())?;
        r.this_int(4)?;
        let handle = Handle::from_slice(r.bytes()?)?;
        r.this_int(15)?;
        let claims = Claims::read(&mut r)?;
        r.this_int(16)?;
        r.this_uint(TYP)?;
        r.this_int(OWN)?;
        let items = r.array_up_to(6)?;
        let suite = Suite::from_wire(r.uint()?).ok_or(Refusal::SuiteNotAllowed)?;
        let kind = MessageKind::from_wire(r.uint()?).ok_or(Refusal::Malformed)?;
        let level = Level::from_wire(r.uint()?).ok_or(Refusal::Malformed)?;
        if level != form.level() || kind.is_request() != claims.request.is_some() {
            return Err(Refusal::Malformed);
        }
        let detail = Self::read_detail(&mut r, kind, items)?;
        r.end()?;
        let (iss, exp) = claims.request.unwrap_or((0..0, 0));
        Ok(Self { handle, suite, kind, level, iss, exp, iat: claims.iat, id: claims.id, detail })
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

struct Claims {
    /// Sender's name and expiry.
    request: Option<(Range<usize>, u64)>,
    iat: u64,
    id: MessageId,
}

impl Claims {
    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, Refusal> {
        let mut peek = r.clone();
        let request = if peek.map(4).is_ok() {
            r.map(4)?;
            r.this_int(1)?;
            let iss = r.text()?;
            let end = r.position();
            r.this_int(4)?;
            Some((end - iss.len()..end, r.uint()?))
        } else {
            r.map(2)?;
            None
        };
        r.this_int(6)?;
        let iat = r.uint()?;
        r.this_int(7)?;
        Ok(Self { request, iat, id: MessageId(r.fixed()?) })
    }
}

/// The structure of [`Form::write_context`] up to the external AAD.
pub(crate) fn write_structure<S: Sink>(out: &mut S, form: Form, header: &[u8], aad: &[u8]) {
    form.write_context(out);
    let mut w = Writer::new(out);
    w.bytes(header);
    w.bytes(aad);
}
