//! Where a message belongs, as each end believes it: the external AAD of protocol section 3 is
//! rebuilt from this and never copied from a message.

use std::fmt;
use std::sync::Arc;

use crate::cbor::{Sink, Writer};
use crate::id::Digest;
use crate::principal::{GroupName, Party};
use crate::wire::{Level, MessageKind};

/// Longest exchange name, in bytes.
pub const MAX_EXCHANGE: usize = 64;
/// Longest topic or server name, in bytes.
pub const MAX_TOPIC: usize = 96;

/// Longest external AAD in bytes: the names at their longest.
pub(crate) const MAX_AAD: usize = 416;
pub(crate) type AadBuf = crate::cbor::Stack<MAX_AAD>;

/// For whom a message is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Audience {
    /// One principal in one incarnation.
    Party(Party),
    /// Every member of a group.
    Group(GroupName),
}

/// The target of a request: exchange, topic, server, and whom it is for. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Route(Arc<Target>);

#[derive(PartialEq, Eq, Hash)]
struct Target {
    exchange: Box<str>,
    topic: Box<str>,
    server: Option<Box<str>>,
    audience: Audience,
    /// Exchange, topic and server as they stand in every external AAD, and what ends that of a
    /// request: encoded once, copied into each message.
    encoded: Box<[u8]>,
    /// Where the audience begins in it.
    audience_at: usize,
}

/// A name in a route is empty or too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} must have 1 to {max} bytes")]
pub struct RouteError {
    what: &'static str,
    max: usize,
}

impl Route {
    /// Checks the lengths: exchange at most [`MAX_EXCHANGE`], topic and server [`MAX_TOPIC`].
    pub fn new(
        exchange: &str,
        topic: &str,
        server: Option<&str>,
        audience: Audience,
    ) -> Result<Self, RouteError> {
        let check = |what, text: &str, max| {
            if text.is_empty() || text.len() > max { Err(RouteError { what, max }) } else { Ok(()) }
        };
        check("exchange", exchange, MAX_EXCHANGE)?;
        check("topic", topic, MAX_TOPIC)?;
        server.map(|server| check("server", server, MAX_TOPIC)).transpose()?;
        let (encoded, audience_at) = encode(exchange, topic, server, &audience);
        Ok(Self(Arc::new(Target {
            exchange: exchange.into(),
            topic: topic.into(),
            server: server.map(Into::into),
            audience,
            encoded,
            audience_at,
        })))
    }

    /// The exchange.
    pub fn exchange(&self) -> &str {
        &self.0.exchange
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// The server, for a directed message.
    pub fn server(&self) -> Option<&str> {
        self.0.server.as_deref()
    }

    /// For whom.
    pub fn audience(&self) -> &Audience {
        &self.0.audience
    }

    /// Whether the target is this very principal in this incarnation.
    #[inline]
    pub(crate) fn is_for(&self, party: &Party) -> bool {
        matches!(&self.0.audience, Audience::Party(target) if target == party)
    }

    /// The external AAD of a request.
    #[inline]
    pub(crate) fn request_aad(&self, kind: MessageKind, level: Level) -> ExternalAad<'_> {
        ExternalAad { start: aad_start(kind, level), target: &self.0.encoded, requester: None }
    }

    /// That of a reply: it has its request's target and is for the requester, of whom
    /// `requester` is the encoded form.
    #[inline]
    pub(crate) fn reply_aad<'a>(
        &'a self,
        level: Level,
        requester: &'a EncodedParty,
        request: &'a Digest,
    ) -> ExternalAad<'a> {
        ExternalAad {
            start: aad_start(MessageKind::Reply, level),
            target: self.0.encoded.get(..self.0.audience_at).unwrap_or_default(),
            requester: Some((&requester.0, request)),
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("exchange", &self.0.exchange)
            .field("topic", &self.0.topic)
            .field("server", &self.0.server)
            .field("audience", &self.0.audience)
            .finish()
    }
}

/// A principal and its incarnation as they stand in an external AAD.
pub(crate) struct EncodedParty(Box<[u8]>);

impl EncodedParty {
    pub(crate) fn new(party: &Party) -> Self {
        let mut out = Vec::with_capacity(96);
        write_party(&mut Writer::new(&mut out), party);
        Self(out.into())
    }
}

fn write_party(w: &mut Writer<'_, Vec<u8>>, party: &Party) {
    w.text(party.principal.as_str());
    w.uint(party.incarnation.into());
}

fn encode(
    exchange: &str,
    topic: &str,
    server: Option<&str>,
    audience: &Audience,
) -> (Box<[u8]>, usize) {
    let mut out = Vec::with_capacity(MAX_AAD);
    let mut w = Writer::new(&mut out);
    w.text(exchange);
    w.text(topic);
    w.text_or_null(server);
    let audience_at = out.len();
    let mut w = Writer::new(&mut out);
    match audience {
        Audience::Party(party) => write_party(&mut w, party),
        Audience::Group(group) => {
            w.text(group.as_str());
            w.null();
        }
    }
    w.null();
    (out.into(), audience_at)
}

/// The external AAD [label, kind, level, exchange, topic, server or null, audience, its
/// incarnation or null, request digest or null], in the pieces that it is put together from.
#[derive(Clone, Copy)]
pub(crate) struct ExternalAad<'a> {
    start: [u8; AAD_START],
    target: &'a [u8],
    /// In a reply: for whom it is, and its request.
    requester: Option<(&'a [u8], &'a Digest)>,
}

/// Heads of array and label, label, kind, level.
const AAD_START: usize = 15;
/// Head of a digest as a byte string.
const DIGEST_HEAD: [u8; 2] = [0x58, Digest::LEN as u8];

/// [`AAD_START`] bytes: an array of nine, the label and two small integers.
#[inline]
fn aad_start(kind: MessageKind, level: Level) -> [u8; AAD_START] {
    let (kind, level) = (kind.to_wire(), level.to_wire());
    let mut start = *b"\x89\x6bbulla/1 aad\0\0";
    let [.., kind_at, level_at] = &mut start;
    (*kind_at, *level_at) = (kind, level);
    start
}

impl ExternalAad<'_> {
    /// How many bytes it has.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let end = |(requester, _): (&[u8], _)| requester.len() + DIGEST_HEAD.len() + Digest::LEN;
        AAD_START + self.target.len() + self.requester.map_or(0, end)
    }

    #[inline(always)]
    pub(crate) fn write<S: Sink>(&self, out: &mut S) {
        out.put(&self.start);
        out.put(self.target);
        if let Some((requester, request)) = self.requester {
            out.put(requester);
            out.put(&DIGEST_HEAD);
            out.put(&request.0);
        }
    }

    /// The bytes in one piece.
    pub(crate) fn to_buf(self) -> AadBuf {
        let mut out = AadBuf::new();
        self.write(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Principal;

    #[test]
    fn an_aad_is_the_array_that_the_protocol_names() {
        let party = Party::new(Principal::agent("db-1").unwrap(), 70_000);
        let audiences =
            [Audience::Party(party.clone()), Audience::Group(GroupName::new("all").unwrap())];
        for (audience, server) in audiences.into_iter().zip([Some("host-1"), None]) {
            let route = Route::new("x", &"t".repeat(MAX_TOPIC), server, audience).unwrap();
            let digest = Digest([7; 32]);
            let requester = EncodedParty::new(&party);
            let request = route.request_aad(MessageKind::Cast, Level::Signed);
            let reply = route.reply_aad(Level::Sealed, &requester, &digest);
            for (aad, kind, level, request) in
                [(request, 2, 2, None), (reply, 5, 3, Some(&digest.0[..]))]
            {
                let mut whole = Vec::new();
                let mut w = Writer::new(&mut whole);
                w.array(9);
                w.text("bulla/1 aad");
                w.uint(kind);
                w.uint(level);
                w.text("x");
                w.text(&"t".repeat(MAX_TOPIC));
                w.text_or_null(server);
                match (route.audience(), request) {
                    (Audience::Group(group), None) => {
                        w.text(group.as_str());
                        w.null();
                    }
                    _ => write_party(&mut w, &party),
                }
                w.bytes_or_null(request);
                assert_eq!(aad.to_buf().get(), Some(&whole[..]));
                assert_eq!(aad.len(), whole.len());
            }
        }
    }

    #[test]
    fn the_longest_names_fit() {
        let name = "n".repeat(crate::principal::MAX_NAME);
        let party = Party::new(Principal::component(&name).unwrap(), u32::MAX);
        let (exchange, topic) = ("x".repeat(MAX_EXCHANGE), "t".repeat(MAX_TOPIC));
        let audience = Audience::Party(party.clone());
        let route = Route::new(&exchange, &topic, Some(&topic), audience).unwrap();
        let (requester, digest) = (EncodedParty::new(&party), Digest([0; 32]));
        assert!(route.reply_aad(Level::Sealed, &requester, &digest).to_buf().get().is_some());
    }
}
