//! A message that was opened: what the steps after it may know of it.

use std::sync::Arc;

use bulla_guard::Scope;
use bulla_guard::floor::{Judgement, Peer};
use bulla_seal::mutants::{Check, off};
use bulla_seal::{
    Digest, Level, MessageId, MessageKind, OpenedFanout, OpenedRequest, Party, Refusal,
    RequestBody, SignedCredential,
};
use bulla_transport::{Address, ReplyName};

use super::place::Place;
use crate::sessions::InSession;
use crate::unsealed::{Exempted, Unseal};

/// A message whose sender is proven and whose content is as it was sealed.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) content: Content,
    pub(super) place: Arc<Place>,
    /// The session of a request, for what its reply carries.
    pub(super) session: Option<Arc<InSession>>,
    /// Under which a fanout was signed.
    pub(super) signer: Option<Arc<SignedCredential>>,
    pub(super) peer: Arc<Peer>,
    pub(super) judgement: Judgement,
    pub(super) now: u64,
    /// Where the message's outside says that replies go: a reply queue of the oslo carrier.
    pub(super) hint: Option<ReplyName>,
}

#[derive(Debug)]
pub(super) enum Content {
    Request(OpenedRequest),
    Fanout(OpenedFanout),
    Unsealed(Exempted),
}

macro_rules! either {
    ($self:ident, $message:ident => $value:expr) => {
        match &$self.content {
            Content::Request($message) => $value,
            Content::Fanout($message) => $value,
            Content::Unsealed($message) => $value,
        }
    };
}

impl Opened {
    pub(crate) fn sender(&self) -> &Party {
        either!(self, m => m.sender())
    }

    /// The roles in the sender's credential; none for a shared key.
    pub(crate) fn roles(&self) -> &[String] {
        let of_session = || self.session.as_ref()?.session.requester_credential();
        self.signer.as_ref().or_else(of_session).map_or(&[], |credential| &credential.roles)
    }

    /// Where it was addressed to: exchange and topic.
    pub(crate) fn place(&self) -> (&str, &str) {
        (self.place.route.exchange(), self.place.route.topic())
    }

    /// When it was opened, in seconds since 1970.
    pub(crate) fn opened_at(&self) -> u64 {
        self.now
    }

    pub(crate) fn kind(&self) -> MessageKind {
        either!(self, m => m.kind())
    }

    pub(crate) fn id(&self) -> MessageId {
        either!(self, m => m.id())
    }

    pub(crate) fn issued_at(&self) -> u64 {
        either!(self, m => m.issued_at())
    }

    pub(crate) fn expires(&self) -> u64 {
        either!(self, m => m.expires())
    }

    pub(crate) fn digest(&self) -> Digest {
        either!(self, m => m.digest())
    }

    pub(crate) fn body(&self) -> Result<RequestBody<'_>, Refusal> {
        either!(self, m => m.body())
    }

    pub(super) fn level(&self) -> Level {
        match &self.content {
            Content::Request(request) => request.level(),
            Content::Fanout(_) => Level::Sealed,
            Content::Unsealed(exempted) => exempted.request.level,
        }
    }

    /// Where the reply to a request goes that was not sealed.
    pub(crate) fn unsealed_path(&self, exchange: &str, me: &Party) -> Option<Address> {
        let (to, _) = self.unsealed_answer()?;
        let (exchange, from) = (exchange.to_owned(), me.principal.to_string());
        Some(Address::Reply { exchange, to: to.clone(), from })
    }

    pub(super) fn is_unsealed(&self) -> bool {
        matches!(self.content, Content::Unsealed(_))
    }

    /// Takes the message into the census, under the name of its method.
    pub(crate) fn note(&self, method: &str) {
        self.peer.note(method, self.level(), self.now, self.judgement);
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.place.scope
    }

    /// The sealed request to answer; `None` for what came by fanout or unsealed.
    pub(crate) fn request(&self) -> Option<&OpenedRequest> {
        match &self.content {
            Content::Request(request) => Some(request),
            Content::Fanout(_) | Content::Unsealed(_) => None,
        }
    }

    /// How a request is answered that was not sealed.
    pub(crate) fn unsealed_answer(&self) -> Option<(&ReplyName, &Arc<dyn Unseal>)> {
        match &self.content {
            Content::Unsealed(exempted) => {
                exempted.request.answer.as_ref().map(|(to, form)| (to, form))
            }
            _ => None,
        }
    }

    /// The session of a call, and where its reply goes: if the address that the caller gave lies
    /// in its own reply name space, or, on a carrier that has names of its own, is the one that the
    /// carrier knows.
    pub(crate) fn reply_path(
        &self,
        exchange: &str,
        me: &Party,
    ) -> Option<(Arc<InSession>, Arc<Address>)> {
        let request = self.request().filter(|request| request.kind() == MessageKind::Call)?;
        let body = request.body().ok()?;
        let named = body.reply_to?;
        let session = self.session.clone()?;
        let address = |to| {
            let (exchange, from) = (exchange.to_owned(), me.principal.to_string());
            Address::Reply { exchange, to, from }
        };
        if let Some(queue) = ReplyName::queue(named) {
            // The carrier takes the reply where its outside says: that has to be the same place.
            let to = self.hint.clone().filter(|hint| hint.as_str() == queue.as_str())?;
            return Some((session, Arc::new(address(to))));
        }
        let make = || {
            let to = ReplyName::parse(named)?;
            #[cfg(bulla_mutants)]
            let to = self.hint.clone().filter(|_| off(Check::ReplyAddress)).unwrap_or(to);
            let own = to.belongs_to(request.sender().principal.as_str());
            (own || off(Check::ReplyNameSpace)).then(|| address(to))
        };
        let address = session.reply_address(named, make)?;
        Some((session, address))
    }
}
