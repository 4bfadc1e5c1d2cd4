//! Sealing and opening requests and replies (protocol sections 3, 4 and 5).

use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::aead::{Aad, Nonce};
use aws_lc_rs::hmac;
use bytes::BytesMut;
use thiserror::Error;

use crate::body::{ErrorBody, RequestBody};
use crate::buffer::{HEADROOM, Hedge, MessageBuf};
use crate::cbor::{Stack, Writer};
use crate::frame::{MAX_FRAME, Parsed, Sealed, VERSION, envelope_digest};
use crate::header::{Common, Detail, Draft, Form, Times, write_structure};
use crate::id::{Digest, MessageId};
use crate::kdf::{self, MessagePrf};
use crate::principal::Party;
use crate::random::UnixTime;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::session::{Direction, Session};
use crate::sign::SigningKey;
use crate::wire::{Level, MessageKind, Outcome};

/// Longest life of a request, in seconds (protocol section 7).
pub const MAX_LIFE: u64 = 24 * 3600;
/// Allowed difference between two clocks, in seconds, unless configured.
pub const DEFAULT_SKEW: u64 = 120;

/// Room for header, external AAD and their heads; the limits on names keep them below it.
type Structure = Stack<HEADROOM>;
type AadBuf = Stack<640>;

/// A message could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The plaintext is larger than any receiver takes.
    #[error("the message is larger than 16 MiB")]
    TooLarge,
    /// The session is past its end: open a new one.
    #[error("the session's offer has expired")]
    SessionExpired,
    /// The times make no sense: expiry before issue, or more than a day after it.
    #[error("a message must expire after it was made and within a day")]
    Lifetime,
    /// The kind does not go with this call.
    #[error("this kind of message is not sealed this way")]
    Kind,
    /// Names so long that the header has no room.
    #[error("the names in the header are too long")]
    Header,
}

/// Which protection the sender chose.
#[derive(Debug, Clone, Copy)]
pub enum Protection<'a> {
    /// Encrypted and authenticated.
    Sealed,
    /// Readable, signed with the sender's key (key-pair principals).
    Signed(&'a SigningKey),
    /// Readable, authenticated with the session's MAC key (shared-key principals, and replies).
    Maced,
}

impl Protection<'_> {
    fn form(&self) -> Form {
        match self {
            Self::Sealed => Form::Encrypt0,
            Self::Signed(_) => Form::Sign1,
            Self::Maced => Form::Mac0,
        }
    }
}

/// A request to seal.
#[derive(Debug, Clone, Copy)]
pub struct RequestSpec<'a> {
    /// Call, cast or notification.
    pub kind: MessageKind,
    /// Where it goes and for whom.
    pub route: &'a Route,
    /// End of its life, in seconds since the Unix epoch.
    pub expires: u64,
    /// How it is protected.
    pub protection: Protection<'a>,
}

/// What a receiver expects of a request in the place where it took it from.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Where it was consumed from, and as whom.
    pub route: &'a Route,
    /// The lowest level that this place takes.
    pub level: Level,
    /// Now.
    pub now: UnixTime,
    /// Allowed difference of clocks, in seconds.
    pub skew: u64,
}

impl Session {
    /// Seals a request in place. `buf` holds the plaintext ([`RequestBody`]).
    pub fn seal_request(
        &self,
        spec: &RequestSpec<'_>,
        hedge: &Hedge,
        buf: MessageBuf,
    ) -> Result<Sealed, SealError> {
        let times = Times { iat: hedge.now.secs(), exp: spec.expires };
        if !spec.kind.is_request() || spec.kind == MessageKind::Fanout {
            return Err(SealError::Kind);
        }
        if times.exp <= times.iat || times.exp - times.iat > MAX_LIFE {
            return Err(SealError::Lifetime);
        }
        self.check_window(times.iat).map_err(|_| SealError::SessionExpired)?;
        let common = self.common(spec.protection.form(), spec.kind);
        let draft = Draft::request(&common, &self.requester().principal, times);
        let mut aad = AadBuf::new();
        spec.route.write_request_aad(&mut aad, spec.kind, common.level);
        let author = Author {
            direction: &self.request,
            incarnation: self.requester().incarnation,
            protection: spec.protection,
        };
        author.seal(draft, aad.get().ok_or(SealError::Header)?, hedge, buf)
    }

    fn common(&self, form: Form, kind: MessageKind) -> Common {
        Common { form, handle: self.handle(), suite: self.suite(), kind, level: form.level() }
    }

    /// Opens a request in place (steps 5 to 8 of protocol section 9): everything that can be
    /// compared before the cipher runs, then the cipher.
    pub fn open_request(
        self: &Arc<Self>,
        parsed: Parsed,
        expected: &Expected<'_>,
    ) -> Result<OpenedRequest, Refusal> {
        let header = parsed.header();
        if header.handle != self.handle() {
            return Err(Refusal::SessionUnknown);
        }
        if header.suite != self.suite() {
            return Err(Refusal::SuiteNotAllowed);
        }
        if header.detail != Detail::Request {
            return Err(Refusal::KindNotAllowed);
        }
        if header.level < expected.level {
            return Err(Refusal::LevelNotAllowed);
        }
        if parsed.claimed_sender() != self.requester().principal.as_str() {
            return Err(Refusal::SenderMismatch);
        }
        self.check_window(header.iat)?;
        check_times(header.iat, header.exp, expected.now, expected.skew)?;
        let mut aad = AadBuf::new();
        expected.route.write_request_aad(&mut aad, header.kind, header.level);
        let aad = aad.get().ok_or(Refusal::Malformed)?;
        let opened = match parsed.form {
            Form::Encrypt0 => open_sealed(&self.request.message, parsed, aad)?,
            Form::Mac0 => open_maced(&self.request, parsed, aad)?,
            Form::Sign1 => self.open_signed(parsed, aad)?,
        };
        OpenedRequest::new(opened, self.clone(), expected.route)
    }

    fn open_signed(&self, parsed: Parsed, aad: &[u8]) -> Result<Opened, Refusal> {
        let credential = self.requester_credential().ok_or(Refusal::SignatureInvalid)?;
        let key = credential.signing.ok_or(Refusal::SignatureInvalid)?;
        let structure = structure_with_payload(&parsed, aad);
        key.verify(&structure, parsed.slice(&parsed.authenticator))
            .map_err(|_| Refusal::NotAuthentic)?;
        Ok(Opened::readable(parsed))
    }

    /// Seals a reply in place, bound to its request (protocol section 4). `buf` holds a value, an
    /// [`ErrorBody`] or a progress item.
    pub fn seal_reply(
        &self,
        to: &ReplyBinding,
        spec: ReplySpec,
        hedge: &Hedge,
        buf: MessageBuf,
    ) -> Result<Sealed, SealError> {
        let protection =
            if to.level >= Level::Sealed { Protection::Sealed } else { Protection::Maced };
        let common = self.common(protection.form(), MessageKind::Reply);
        let detail = (to.request, spec.outcome, spec.index);
        let draft = Draft::reply(&common, hedge.now.secs(), detail);
        let mut aad = AadBuf::new();
        to.route.write_reply_aad(&mut aad, common.level, self.requester(), &to.digest);
        let author = Author {
            direction: &self.reply,
            incarnation: self.responder().incarnation,
            protection,
        };
        author.seal(draft, aad.get().ok_or(SealError::Header)?, hedge, buf)
    }

    /// Opens a reply to `binding`: from the principal addressed, for that very request, at its
    /// level or higher.
    pub fn open_reply(
        &self,
        parsed: Parsed,
        binding: &ReplyBinding,
    ) -> Result<OpenedReply, Refusal> {
        let header = parsed.header();
        let Detail::Reply { in_reply_to, outcome, index } = header.detail else {
            return Err(Refusal::KindNotAllowed);
        };
        if header.handle != self.handle() || header.suite != self.suite() {
            return Err(Refusal::ReplyMismatch);
        }
        if in_reply_to != binding.request {
            return Err(Refusal::ReplyMismatch);
        }
        if header.level < binding.level {
            return Err(Refusal::LevelNotAllowed);
        }
        let mut aad = AadBuf::new();
        binding.route.write_reply_aad(&mut aad, header.level, self.requester(), &binding.digest);
        let aad = aad.get().ok_or(Refusal::Malformed)?;
        let id = header.id;
        let opened = match parsed.form {
            Form::Encrypt0 => open_sealed(&self.reply.message, parsed, aad)?,
            Form::Mac0 => open_maced(&self.reply, parsed, aad)?,
            Form::Sign1 => return Err(Refusal::LevelNotAllowed),
        };
        Ok(OpenedReply { opened, outcome, index, id })
    }
}

/// Refuses what is over, not yet made, or lives too long (step 6 of protocol section 9).
pub(crate) fn check_times(iat: u64, exp: u64, now: UnixTime, skew: u64) -> Result<(), Refusal> {
    let now = now.secs();
    if exp <= iat || exp - iat > MAX_LIFE {
        return Err(Refusal::LifetimeTooLong);
    }
    if iat > now.saturating_add(skew) {
        return Err(Refusal::NotYetValid);
    }
    if now > exp.saturating_add(skew) {
        return Err(Refusal::Expired);
    }
    Ok(())
}

/// Who writes a message: the keys of one direction and the writer's incarnation.
pub(crate) struct Author<'a> {
    pub(crate) direction: &'a Direction,
    pub(crate) incarnation: u32,
    pub(crate) protection: Protection<'a>,
}

impl Author<'_> {
    fn seal(
        &self,
        mut draft: Draft,
        aad: &[u8],
        hedge: &Hedge,
        mut buf: MessageBuf,
    ) -> Result<Sealed, SealError> {
        let id = self.assign_id(&mut draft, aad, hedge, &mut buf)?;
        let header = draft.bytes.get().ok_or(SealError::Header)?;
        match self.protection {
            Protection::Sealed => {
                let tag = encrypt(&self.direction.message, header, aad, &mut buf)?;
                finish(buf, Form::Encrypt0, header, id, &tag)
            }
            Protection::Maced => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.direction.mac_key().expose());
                let mut structure = Vec::with_capacity(buf.len() + 512);
                write_structure(&mut structure, Form::Mac0, header, aad);
                Writer::new(&mut structure).bytes(buf.plaintext());
                let mac = hmac::sign(&key, &structure);
                finish(buf, Form::Mac0, header, id, mac.as_ref())
            }
            Protection::Signed(key) => {
                let mut structure = Vec::with_capacity(buf.len() + 512);
                write_structure(&mut structure, Form::Sign1, header, aad);
                Writer::new(&mut structure).bytes(buf.plaintext());
                finish(buf, Form::Sign1, header, id, &key.sign(&structure))
            }
        }
    }

    pub(crate) fn assign_id(
        &self,
        draft: &mut Draft,
        aad: &[u8],
        hedge: &Hedge,
        buf: &mut MessageBuf,
    ) -> Result<MessageId, SealError> {
        if buf.len() > MAX_FRAME {
            return Err(SealError::TooLarge);
        }
        let header = draft.bytes.get().ok_or(SealError::Header)?;
        let id = buf
            .hedged_id(&self.direction.id, hedge, self.incarnation, header, aad)
            .ok_or(SealError::Header)?;
        draft.set_id(id);
        Ok(id)
    }
}

/// Encrypts the plaintext of `buf` in place under the key that belongs to this very header and
/// AAD, and appends the tag.
pub(crate) fn encrypt(
    prf: &MessagePrf,
    header: &[u8],
    aad: &[u8],
    buf: &mut MessageBuf,
) -> Result<[u8; 16], SealError> {
    let mut structure = Structure::new();
    write_structure(&mut structure, Form::Encrypt0, header, aad);
    let structure = structure.get().ok_or(SealError::Header)?;
    let (key, iv) = prf.key_and_iv(structure);
    let nonce = Nonce::assume_unique_for_key(iv);
    let tag = kdf::gcm(&key)
        .seal_in_place_separate_tag(nonce, Aad::from(structure), buf.plaintext_mut())
        .map_err(|_| SealError::TooLarge)?;
    let mut out = [0; 16];
    out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    buf.append(&out);
    Ok(out)
}

/// Puts frame and envelope heads before the content and the authenticator behind it.
fn finish(
    mut buf: MessageBuf,
    form: Form,
    header: &[u8],
    id: MessageId,
    authenticator: &[u8],
) -> Result<Sealed, SealError> {
    let mut head = Stack::<HEADROOM>::new();
    let mut w = Writer::new(&mut head);
    w.array(4);
    w.uint(VERSION);
    write_cose_head(&mut w, form, header, buf.len());
    if form != Form::Encrypt0 {
        let sink = buf.sink();
        Writer::new(sink).bytes(authenticator);
    }
    let bytes = buf.finish(head.get().ok_or(SealError::Header)?).ok_or(SealError::Header)?;
    Ok(Sealed { bytes, id, digest: envelope_digest(header, authenticator) })
}

pub(crate) fn write_cose_head(
    w: &mut Writer<'_, Stack<HEADROOM>>,
    form: Form,
    header: &[u8],
    content: usize,
) {
    w.tag(form.tag());
    w.array(if form == Form::Encrypt0 { 3 } else { 4 });
    w.bytes(header);
    w.map(0);
    w.bytes_head(content);
}

pub(crate) fn open_sealed(
    prf: &MessagePrf,
    mut parsed: Parsed,
    aad: &[u8],
) -> Result<Opened, Refusal> {
    let mut structure = Structure::new();
    write_structure(&mut structure, Form::Encrypt0, parsed.slice(&parsed.protected), aad);
    let structure = structure.get().ok_or(Refusal::Malformed)?;
    let (key, iv) = prf.key_and_iv(structure);
    let digest = parsed.digest();
    let content = parsed.content.clone();
    let ciphertext = parsed.bytes.get_mut(content.clone()).ok_or(Refusal::Malformed)?;
    let nonce = Nonce::assume_unique_for_key(iv);
    let plaintext = kdf::gcm(&key)
        .open_in_place(nonce, Aad::from(structure), ciphertext)
        .map_err(|_| Refusal::NotAuthentic)?
        .len();
    let plaintext = content.start..content.start + plaintext;
    Ok(Opened { parsed, plaintext, digest })
}

fn open_maced(direction: &Direction, parsed: Parsed, aad: &[u8]) -> Result<Opened, Refusal> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, direction.mac_key().expose());
    let structure = structure_with_payload(&parsed, aad);
    hmac::verify(&key, &structure, parsed.slice(&parsed.authenticator))
        .map_err(|_| Refusal::NotAuthentic)?;
    Ok(Opened::readable(parsed))
}

fn structure_with_payload(parsed: &Parsed, aad: &[u8]) -> Vec<u8> {
    let payload = parsed.slice(&parsed.content);
    let mut out = Vec::with_capacity(payload.len() + 512);
    write_structure(&mut out, parsed.form, parsed.slice(&parsed.protected), aad);
    Writer::new(&mut out).bytes(payload);
    out
}

/// A message whose seal was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) parsed: Parsed,
    plaintext: Range<usize>,
    digest: Digest,
}

impl Opened {
    fn readable(parsed: Parsed) -> Self {
        let (plaintext, digest) = (parsed.content.clone(), parsed.digest());
        Self { parsed, plaintext, digest }
    }

    pub(crate) fn plaintext(&self) -> &[u8] {
        self.parsed.slice(&self.plaintext)
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }
}

/// A request whose sender is proven and whose content is as it was sealed. Only the openers of
/// this crate make one.
#[derive(Debug)]
pub struct OpenedRequest {
    opened: Opened,
    session: Arc<Session>,
    route: Route,
}

impl OpenedRequest {
    fn new(opened: Opened, session: Arc<Session>, route: &Route) -> Result<Self, Refusal> {
        RequestBody::parse(opened.plaintext())?;
        Ok(Self { opened, session, route: route.clone() })
    }

    /// Who sent it.
    pub fn sender(&self) -> &Party {
        self.session.requester()
    }

    /// Its kind.
    pub fn kind(&self) -> MessageKind {
        self.opened.parsed.header.kind
    }

    /// Its level.
    pub fn level(&self) -> Level {
        self.opened.parsed.header.level
    }

    /// Its id.
    pub fn id(&self) -> MessageId {
        self.opened.parsed.header.id
    }

    /// When it was made, in seconds since the Unix epoch.
    pub fn issued_at(&self) -> u64 {
        self.opened.parsed.header.iat
    }

    /// End of its life, in seconds since the Unix epoch.
    pub fn expires(&self) -> u64 {
        self.opened.parsed.header.exp
    }

    /// Names its envelope.
    pub fn digest(&self) -> Digest {
        self.opened.digest
    }

    /// Where it was taken from.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The session that it came in.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// What was asked.
    pub fn body(&self) -> Result<RequestBody<'_>, Refusal> {
        RequestBody::parse(self.opened.plaintext())
    }

    /// What a reply to it is bound to.
    pub fn reply_binding(&self) -> ReplyBinding {
        ReplyBinding {
            request: self.id(),
            digest: self.digest(),
            level: self.level(),
            route: self.route.clone(),
        }
    }

    /// The buffer, for using again.
    pub fn into_buffer(self) -> BytesMut {
        self.opened.parsed.bytes
    }
}

/// What ties a reply to its request; both ends make it from what they know.
#[derive(Debug, Clone)]
pub struct ReplyBinding {
    /// The request's id.
    pub request: MessageId,
    /// The request's envelope.
    pub digest: Digest,
    /// The request's level: a reply may not be below it.
    pub level: Level,
    /// The request's target.
    pub route: Route,
}

/// What sort of reply, and which in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplySpec {
    /// Value, error or progress.
    pub outcome: Outcome,
    /// From 0, rising by one.
    pub index: u16,
}

/// A reply that the addressed peer made for that very request.
#[derive(Debug)]
pub struct OpenedReply {
    opened: Opened,
    /// What it carries.
    pub outcome: Outcome,
    /// Which in the stream.
    pub index: u16,
    /// Its id.
    pub id: MessageId,
}

impl OpenedReply {
    /// The plaintext: a CBOR item for a value or progress.
    pub fn payload(&self) -> &[u8] {
        self.opened.plaintext()
    }

    /// The failure, if it carries one.
    pub fn error(&self) -> Result<ErrorBody<'_>, Refusal> {
        match self.outcome {
            Outcome::Error => ErrorBody::parse(self.opened.plaintext()),
            _ => Err(Refusal::Malformed),
        }
    }
}
