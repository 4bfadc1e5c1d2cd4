//! Sealing requests and replies (protocol sections 3, 4 and 5).

use aws_lc_rs::aead::Aad;
use aws_lc_rs::hmac;
use thiserror::Error;

use crate::buffer::{Hedge, Laid, MessageBuf};
use crate::frame::{MAX_FRAME, Sealed};
use crate::header::{Common, Draft, Form, Times};
use crate::id::MessageId;
use crate::inner;
use crate::kdf::MessagePrf;
use crate::mutants::{self, Check, off};
use crate::opened::ReplyBinding;
use crate::route::{ExternalAad, Route};
use crate::session::{Direction, Session};
use crate::sign::SigningKey;
use crate::wire::{Level, MessageKind, Outcome, Suite};

/// Longest life of a request, in seconds (protocol section 7).
pub const MAX_LIFE: u64 = 24 * 3600;

/// A message could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The plaintext is larger than any receiver takes.
    #[error("the message is larger than 16 MiB")]
    TooLarge,
    /// The session is past its end: open a new one.
    #[error("the session's offer or its credential has expired: open a new session")]
    SessionExpired,
    /// The times make no sense: expiry before issue, or more than a day after it.
    #[error("a message must expire after it was made and within a day")]
    Lifetime,
    /// The kind does not go with this call.
    #[error("this kind of message is not sealed this way")]
    Kind,
    /// The target is not the other end of this session or not this group.
    #[error("the target is not the one that these keys are for")]
    Audience,
    /// The protection does not go with the session: signatures need a key-pair session and its
    /// own signing key, a MAC needs a shared key.
    #[error("this protection does not go with the session's keys")]
    Protection,
    /// The plaintext is not a request's.
    #[error("the plaintext is not that of a request")]
    Plaintext,
    /// Names so long that the header has no room.
    #[error("the names in the header are too long")]
    Header,
}

/// Which protection the sender chose.
#[derive(Debug, Clone, Copy)]
pub enum Protection<'a> {
    /// Encrypted and authenticated.
    Sealed,
    /// The same, with the sender's signature inside the seal (key-pair principals): for topics
    /// that demand it (protocol section 1).
    SealedSigned(&'a SigningKey),
    /// Readable, signed with the sender's key (key-pair principals).
    Signed(&'a SigningKey),
    /// Readable, authenticated with the session's MAC key (shared-key principals, and replies).
    Maced,
}

impl Protection<'_> {
    fn form(&self) -> Form {
        match self {
            Self::Sealed | Self::SealedSigned(_) => Form::Encrypt0,
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

/// What sort of reply, and which in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplySpec {
    /// Value, error or progress.
    pub outcome: Outcome,
    /// From 0, rising by one.
    pub index: u16,
}

impl Session {
    /// Seals a request in place. `buf` holds the plaintext ([`crate::RequestBody`]).
    pub fn seal_request(
        &self,
        spec: &RequestSpec<'_>,
        hedge: &Hedge,
        buf: MessageBuf,
    ) -> Result<Sealed, SealError> {
        let times = Times::new(hedge, spec.expires)?;
        if !spec.kind.is_request() || spec.kind == MessageKind::Fanout {
            return Err(SealError::Kind);
        }
        if !spec.route.is_for(self.responder()) {
            return Err(SealError::Audience);
        }
        self.check_protection(&spec.protection)?;
        self.check_window(times.iat).map_err(|_| SealError::SessionExpired)?;
        let common = self.common(spec.protection.form(), spec.kind);
        let draft = Draft::request(&common, &self.request_stem, times);
        let aad = spec.route.request_aad(spec.kind, common.level);
        let author = Author {
            direction: &self.request,
            incarnation: self.requester().incarnation,
            protection: spec.protection,
        };
        author.seal(&draft, &aad, hedge, buf)
    }

    #[inline]
    fn check_protection(&self, protection: &Protection<'_>) -> Result<(), SealError> {
        let ok = match protection {
            Protection::Sealed => true,
            Protection::SealedSigned(key) | Protection::Signed(key) => {
                let own = self.requester_credential().and_then(|credential| credential.signing);
                own == Some(key.verifying_key())
            }
            Protection::Maced => self.suite() == Suite::Shared,
        };
        if ok { Ok(()) } else { Err(SealError::Protection) }
    }

    fn common(&self, form: Form, kind: MessageKind) -> Common {
        Common { form, suite: self.suite(), kind, level: form.level() }
    }

    /// Seals a reply in place, bound to its request (protocol section 4). `buf` holds a value, an
    /// [`crate::ErrorBody`] or a progress item.
    pub fn seal_reply(
        &self,
        to: &ReplyBinding,
        spec: ReplySpec,
        hedge: &Hedge,
        buf: MessageBuf,
    ) -> Result<Sealed, SealError> {
        if !to.route.is_for(self.responder()) {
            return Err(SealError::Audience);
        }
        let protection =
            if to.level >= Level::Sealed { Protection::Sealed } else { Protection::Maced };
        let common = self.common(protection.form(), MessageKind::Reply);
        let detail = (to.request, spec.outcome, spec.index);
        let draft = Draft::reply(&common, &self.reply_stem, hedge.now.secs(), detail);
        let aad = to.route.reply_aad(common.level, &self.encoded_requester, &to.digest);
        let author = Author {
            direction: &self.reply,
            incarnation: self.responder().incarnation,
            protection,
        };
        author.seal(&draft, &aad, hedge, buf)
    }
}

impl Times {
    /// From now to `exp`, which must be later and within a day.
    pub(crate) fn new(hedge: &Hedge, exp: u64) -> Result<Self, SealError> {
        let iat = hedge.now.secs();
        match exp.checked_sub(iat) {
            Some(1..=MAX_LIFE) => Ok(Self { iat, exp }),
            _ => Err(SealError::Lifetime),
        }
    }
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
        draft: &Draft<'_>,
        aad: &ExternalAad<'_>,
        hedge: &Hedge,
        mut buf: MessageBuf,
    ) -> Result<Sealed, SealError> {
        let (id, laid) = self.assign_id(draft, aad, hedge, &mut buf)?;
        let form = self.protection.form();
        let finished = match self.protection {
            Protection::Sealed => {
                encrypt(&self.direction.message, &laid, &mut buf)?;
                buf.finish(&laid, (form, false), None)
            }
            Protection::SealedSigned(key) => {
                inner::sign(key, &laid, &mut buf).ok_or(SealError::Plaintext)?;
                encrypt(&self.direction.message, &laid, &mut buf)?;
                buf.finish(&laid, (form, false), None)
            }
            Protection::Maced => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.direction.mac_key().expose());
                let covered = buf.whole_structure(&laid, form).ok_or(SealError::Header)?;
                let mac = hmac::sign(&key, covered);
                buf.finish(&laid, (form, false), Some(mac.as_ref()))
            }
            Protection::Signed(key) => {
                let covered = buf.whole_structure(&laid, form).ok_or(SealError::Header)?;
                let signature = key.sign(covered);
                buf.finish(&laid, (form, false), Some(&signature))
            }
        };
        let (bytes, named) = finished.ok_or(SealError::Header)?;
        Ok(Sealed { bytes, id, named })
    }

    #[inline(always)]
    pub(crate) fn assign_id(
        &self,
        draft: &Draft<'_>,
        aad: &ExternalAad<'_>,
        hedge: &Hedge,
        buf: &mut MessageBuf,
    ) -> Result<(MessageId, Laid), SealError> {
        if buf.len() > MAX_FRAME {
            return Err(SealError::TooLarge);
        }
        buf.assign_id(self.direction.id(), (hedge, self.incarnation), draft, aad)
            .ok_or(SealError::Header)
    }
}

/// Encrypts the plaintext of `buf` in place under the key that belongs to this very header and
/// AAD, and appends the tag.
#[inline(always)]
pub(crate) fn encrypt(
    prf: &MessagePrf,
    laid: &Laid,
    buf: &mut MessageBuf,
) -> Result<(), SealError> {
    if off(Check::Encryption) {
        buf.append(&[0; 16]);
        return Ok(());
    }
    let (structure, plaintext) = buf.enc_structure(laid).ok_or(SealError::Header)?;
    let tag = {
        let structure = mutants::structure(structure);
        let (key, iv) = prf.key_and_iv(&structure).ok_or(SealError::TooLarge)?;
        key.seal_in_place_separate_tag(iv, Aad::from(&*structure), plaintext)
            .map_err(|_| SealError::TooLarge)?
    };
    buf.append(tag.as_ref());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::header::Handle;
    use crate::random::UnixTime;
    use crate::session::SessionParts;
    use crate::{
        Audience, Expected, Kid, Parsed, Party, Principal, Refusal, RequestBody, Secret, SessionId,
    };

    /// What a thief of the receiver's KEM key can make: everything that the session's keys give.
    fn forge(suite: Suite, protection: Protection<'_>) -> Result<(), Refusal> {
        let requester = Party::new(Principal::component("control").unwrap(), 1);
        let responder = Party::new(Principal::agent("db-1").unwrap(), 1);
        let handle = match suite {
            Suite::Shared => Handle::Key(Kid([1; 8])),
            _ => Handle::Session(SessionId([1; 16])),
        };
        let parts = SessionParts {
            handle,
            suite,
            requester,
            responder: responder.clone(),
            window: None,
            requester_credential: None,
        };
        let session = Arc::new(Session::derive(&Secret::new([1; 32]), parts));
        let route = Route::new("x", "t", None, Audience::Party(responder)).unwrap();
        let now = UnixTime::from_secs(1_800_000_000);
        let hedge = Hedge { random: [0; 16], now, counter: 0, boot: [0; 16] };
        let common = session.common(protection.form(), MessageKind::Call);
        let times = Times::new(&hedge, now.secs() + 60).unwrap();
        let aad = route.request_aad(MessageKind::Call, common.level);
        let mut buf = MessageBuf::with_capacity(32);
        let body = RequestBody {
            namespace: None,
            method: "m",
            version: "1.0",
            args: &[0xa0],
            context: None,
            trace_parent: None,
            reply_to: None,
        };
        body.write(buf.sink());
        let draft = Draft::request(&common, &session.request_stem, times);
        let author = Author { direction: &session.request, incarnation: 1, protection };
        let sealed = author.seal(&draft, &aad, &hedge, buf).unwrap();
        let parsed = Parsed::parse(sealed.into_frame(None).bytes().clone(), MAX_FRAME).unwrap();
        let expected = Expected { level: Level::Signed, ..Expected::new(&route, now) };
        session.open_request(parsed, &expected).map(drop)
    }

    #[test]
    fn session_keys_alone_sign_nothing() {
        let key = SigningKey::from_seed(Secret::new([2; 32])).unwrap();
        assert_eq!(forge(Suite::X25519, Protection::Sealed), Ok(()));
        assert_eq!(forge(Suite::Shared, Protection::Maced), Ok(()));
        assert_eq!(forge(Suite::X25519, Protection::Maced), Err(Refusal::LevelNotAllowed));
        assert_eq!(forge(Suite::XWing, Protection::Maced), Err(Refusal::LevelNotAllowed));
        assert_eq!(forge(Suite::Shared, Protection::Signed(&key)), Err(Refusal::LevelNotAllowed));
    }
}
