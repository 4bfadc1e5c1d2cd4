//! Reading requests that are not sealed, by the receiver's settings.

use std::sync::Arc;

use bulla_rpc::{RemoteError, Unseal, Unsealed, UnsealedRequest, kinds, value};
use bulla_seal::{Level, MessageKind, Principal, Refusal};
use bulla_transport::Inbox;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::digest;
use crate::ids::Ids;
use crate::legacy::{self, Decrypted, GuestKeys, LegacyKey, Shape};
use crate::transport::name_of;
use crate::wire::{self, Failure, Id, Message, Plain, PlainReply, PlainRequest};

/// Where oslo.messaging's own exceptions are.
const DISPATCHER: &str = "oslo_messaging.rpc.dispatcher";

/// Who is behind messages that are not sealed, of one topic.
pub struct Rule {
    /// The control exchange.
    pub exchange: String,
    /// The topic.
    pub topic: String,
    /// Who sends there, and how.
    pub peer: LegacyPeer,
}

/// A peer that does not seal.
pub enum LegacyPeer {
    /// Everything in clear is taken for this principal's: whoever may publish there can say so.
    Clear(Principal),
    /// Everything in clear is taken for the agent that this argument names.
    ClearByArgument(String),
    /// Trove's serializer with one key for both ends: the control plane towards guests and task manager.
    Trove(Principal, Arc<LegacyKey>),
    /// Trove's serializer of guests towards the conductor, each with its own key.
    TroveGuests(Arc<dyn GuestKeys>),
}

/// Reads what is not sealed: in clear, or with Trove's serializer. One form is never tried in place of
/// another.
pub struct LegacyReader {
    rules: Vec<Rule>,
    max_frame: usize,
    reader: legacy::Reader,
    ids: Arc<Ids>,
}

impl LegacyReader {
    /// By these rules, for messages of at most `max_frame` bytes. A topic may have several.
    pub fn new(rules: Vec<Rule>, max_frame: usize) -> Self {
        Self { rules, max_frame, reader: legacy::Reader::default(), ids: Arc::new(Ids::default()) }
    }

    fn peers<'a>(&'a self, inbox: &Inbox) -> impl Iterator<Item = &'a LegacyPeer> {
        let place = match inbox {
            Inbox::Topic { exchange, topic }
            | Inbox::Server { exchange, topic, .. }
            | Inbox::Fanout { exchange, topic, .. } => Some((exchange.clone(), topic.clone())),
            Inbox::Reply { .. } | Inbox::Foreign(_) => None,
        };
        let here = move |rule: &&Rule| {
            place.as_ref().is_some_and(|(e, t)| *e == rule.exchange && *t == rule.topic)
        };
        self.rules.iter().filter(here).map(|rule| &rule.peer)
    }

    /// Whose it is, what protected it, and what is in it.
    fn open(&self, request: &PlainRequest, inbox: &Inbox, now: u64) -> Result<Read, Refusal> {
        let (sender, key, label, context) = match legacy::shape(request) {
            None => return self.clear(request, inbox),
            Some(Shape::Secure { context }) => {
                let found = self.peers(inbox).find_map(|peer| match peer {
                    LegacyPeer::Trove(sender, key) => Some((sender.clone(), key.clone())),
                    _ => None,
                });
                let (sender, key) = found.ok_or(Refusal::LevelNotAllowed)?;
                (sender, key, None, context)
            }
            Some(Shape::Guest { label, context }) => {
                let mut guests = self.peers(inbox).filter_map(|peer| match peer {
                    LegacyPeer::TroveGuests(keys) => Some(keys),
                    _ => None,
                });
                let keys = guests.next().ok_or(Refusal::LevelNotAllowed)?;
                let (sender, key) = keys.guest(label).ok_or(Refusal::SessionUnknown)?;
                (sender, key, Some(label), context)
            }
        };
        let opened = self.reader.open(request, (&key, label), context, now)?;
        Ok(Read { sender, key: Some(key), opened })
    }

    fn clear(&self, request: &PlainRequest, inbox: &Inbox) -> Result<Read, Refusal> {
        let sender = self.peers(inbox).find_map(|peer| match peer {
            LegacyPeer::Clear(sender) => Some(sender.clone()),
            LegacyPeer::ClearByArgument(name) => {
                let named = request.args.get(name).and_then(Value::as_str)?;
                Principal::agent(named).ok()
            }
            _ => None,
        });
        let opened = Decrypted {
            args: request.args.clone(),
            context: request.context.clone(),
            // Nothing is protected: this tells a copy from the broker, and no forger.
            digest: digest::of("clear", &[&request.body()]),
        };
        Ok(Read { sender: sender.ok_or(Refusal::LevelNotAllowed)?, key: None, opened })
    }
}

/// A request that was read.
struct Read {
    sender: Principal,
    key: Option<Arc<LegacyKey>>,
    opened: Decrypted,
}

impl Unsealed for LegacyReader {
    fn read(&self, body: &[u8], inbox: &Inbox, now: u64) -> Result<UnsealedRequest, Refusal> {
        let Ok(Message::Plain(Plain::Request(request))) = wire::read(body, self.max_frame) else {
            return Err(Refusal::Malformed);
        };
        let Read { sender, key, opened } = self.open(&request, inbox, now)?;
        let cbor =
            |value: &Map<String, Value>| value::to_vec(value).map_err(|_| Refusal::Malformed);
        let kind = match (inbox, &request.call) {
            (Inbox::Fanout { .. }, _) => MessageKind::Fanout,
            (_, Some(_)) => MessageKind::Call,
            (_, None) => MessageKind::Cast,
        };
        let answer = request.call.as_ref().filter(|_| kind == MessageKind::Call).and_then(|call| {
            let form = AnswerForm { call: call.id, key: key.clone(), ids: self.ids.clone() };
            Some((name_of(call)?, Arc::new(form) as Arc<dyn Unseal>))
        });
        Ok(UnsealedRequest {
            sender,
            level: if key.is_some() { Level::AesCbc } else { Level::Plaintext },
            kind,
            digest: opened.digest,
            version: request.asked_version().to_owned(),
            args: cbor(&opened.args)?,
            context: Some(cbor(&opened.context)?),
            namespace: request.namespace,
            method: request.method,
            answer,
        })
    }
}

/// Answers one call in the form that it came in.
struct AnswerForm {
    call: Id,
    key: Option<Arc<LegacyKey>>,
    ids: Arc<Ids>,
}

impl AnswerForm {
    fn body(&self, result: Value, failure: Option<Failure>, ending: bool) -> Bytes {
        let (call, unique_id) = (self.call, self.ids.next());
        PlainReply { result, failure, ending, call, unique_id }.body().into()
    }
}

impl Unseal for AnswerForm {
    fn value(&self, item: &[u8]) -> Option<Bytes> {
        let result: Value = value::decode(item).ok()?;
        let result = match &self.key {
            Some(key) => legacy::encrypt_result(key, &result)?,
            None => result,
        };
        Some(self.body(result, None, true))
    }

    fn error(&self, error: &RemoteError) -> Option<Bytes> {
        // Trove's form has failures in clear, whatever is in them: then they say no more than their kind.
        let failure = failure(error, self.key.is_none());
        Some(self.body(Value::Null, Some(failure), true))
    }

    fn alive(&self) -> Option<Bytes> {
        Some(self.body(Value::Null, None, false))
    }
}

/// An error as oslo.messaging has exceptions.
fn failure(error: &RemoteError, tell: bool) -> Failure {
    let details = error.details.as_deref().filter(|_| tell);
    let detail = |name: &str| details.and_then(|details| details.get(name)).cloned();
    let own = match error.kind.as_str() {
        kinds::NO_SUCH_METHOD | kinds::UNSUPPORTED_VERSION => DISPATCHER,
        _ => "",
    };
    let message =
        if tell { error.message.clone() } else { format!("the method failed ({})", error.kind) };
    Failure {
        class: error.kind.clone(),
        module: detail("module")
            .and_then(|m| m.as_str().map(str::to_owned))
            .unwrap_or(own.to_owned()),
        args: match detail("args") {
            Some(Value::Array(args)) => args,
            _ => vec![message.clone().into()],
        },
        kwargs: match detail("kwargs") {
            Some(Value::Object(kwargs)) => kwargs,
            _ => Map::new(),
        },
        traceback: error.trace.iter().filter(|_| tell).cloned().collect(),
        message,
    }
}
