//! Where a message belongs, as each end believes it: the external AAD of protocol section 3 is
//! rebuilt from this and never copied from a message.

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

/// The target of a request: exchange, topic, server, and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    exchange: Arc<str>,
    topic: Arc<str>,
    server: Option<Arc<str>>,
    audience: Audience,
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
        Ok(Self {
            exchange: exchange.into(),
            topic: topic.into(),
            server: server.map(Into::into),
            audience,
        })
    }

    /// The exchange.
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The server, for a directed message.
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// For whom.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Whether the target is this very principal in this incarnation.
    pub(crate) fn is_for(&self, party: &Party) -> bool {
        matches!(&self.audience, Audience::Party(target) if target == party)
    }

    /// Writes [label, kind, level, exchange, topic, server or null, audience, its incarnation
    /// or null, request digest or null].
    fn write_aad<S: Sink>(
        &self,
        out: &mut S,
        kind: MessageKind,
        level: Level,
        audience: Result<&Party, &GroupName>,
        request: Option<&Digest>,
    ) {
        let mut w = Writer::new(out);
        w.array(9);
        w.text("bulla/1 aad");
        w.uint(kind.to_wire().into());
        w.uint(level.to_wire().into());
        w.text(&self.exchange);
        w.text(&self.topic);
        w.text_or_null(self.server.as_deref());
        match audience {
            Ok(party) => {
                w.text(party.principal.as_str());
                w.uint(party.incarnation.into());
            }
            Err(group) => {
                w.text(group.as_str());
                w.null();
            }
        }
        w.bytes_or_null(request.map(|digest| &digest.0[..]));
    }

    pub(crate) fn write_request_aad<S: Sink>(&self, out: &mut S, kind: MessageKind, level: Level) {
        let audience = match &self.audience {
            Audience::Party(party) => Ok(party),
            Audience::Group(group) => Err(group),
        };
        self.write_aad(out, kind, level, audience, None);
    }

    /// A reply has its request's target and is for the requester.
    pub(crate) fn write_reply_aad<S: Sink>(
        &self,
        out: &mut S,
        level: Level,
        requester: &Party,
        request: &Digest,
    ) {
        self.write_aad(out, MessageKind::Reply, level, Ok(requester), Some(request));
    }
}
