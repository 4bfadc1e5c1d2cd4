//! Messages of peers that do not seal, as oslo.messaging reads and writes them.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::ids::{Call, Id};
use super::json::{self, Members};
use super::{Malformed, sealed, wrap};

/// What a member of the context is called on the wire.
pub(super) const CONTEXT: &str = "_context_";

/// A message in clear.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain {
    /// A request.
    Request(PlainRequest),
    /// A reply.
    Reply(PlainReply),
}

/// A request in clear.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainRequest {
    /// The method.
    pub method: String,
    /// Its arguments, by name.
    pub args: Map<String, Value>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// The version that is asked for; `None` is read as 1.0.
    pub version: Option<String>,
    /// The request's context.
    pub context: Map<String, Value>,
    /// How it is answered; `None` for what is not a call.
    pub call: Option<Call>,
    /// `_unique_id`.
    pub unique_id: Id,
}

/// A reply in clear.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainReply {
    /// The result, or null.
    pub result: Value,
    /// The exception that the method raised.
    pub failure: Option<Failure>,
    /// Whether nothing comes after it: false for a sign of life.
    pub ending: bool,
    /// The call's `_msg_id`.
    pub call: Id,
    /// `_unique_id`.
    pub unique_id: Id,
}

/// An exception. Data: what it names is never looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The class's name.
    pub class: String,
    /// Its module.
    pub module: String,
    /// The exception's text.
    pub message: String,
    /// Lines of a traceback.
    pub traceback: Vec<String>,
    /// The arguments that the exception was made with.
    pub args: Vec<Value>,
    /// Those by name.
    pub kwargs: Map<String, Value>,
}

impl PlainRequest {
    /// The body.
    pub fn body(&self) -> Vec<u8> {
        let mut inner = Map::new();
        inner.insert("method".into(), self.method.as_str().into());
        inner.insert("args".into(), Value::Object(self.args.clone()));
        if let Some(namespace) = &self.namespace {
            inner.insert("namespace".into(), namespace.as_str().into());
        }
        if let Some(version) = &self.version {
            inner.insert("version".into(), version.as_str().into());
        }
        if let Some(call) = &self.call {
            inner.insert("_msg_id".into(), call.id.to_string().into());
            inner.insert("_reply_q".into(), call.reply_queue.as_str().into());
            inner.insert("_timeout".into(), call.monitor.map(number).into());
        }
        inner.insert("_unique_id".into(), self.unique_id.to_string().into());
        for (name, value) in &self.context {
            inner.insert(format!("{CONTEXT}{name}"), value.clone());
        }
        wrap(&Value::Object(inner).to_string()).into_bytes()
    }

    /// The version that is asked for.
    pub fn asked_version(&self) -> &str {
        self.version.as_deref().unwrap_or("1.0")
    }
}

/// As Python writes it: whole seconds without a point.
fn number(monitor: super::Monitor) -> Value {
    let seconds = monitor.secs();
    if seconds.fract() == 0.0 { json!(seconds as u64) } else { json!(seconds) }
}

impl PlainReply {
    /// The body.
    pub fn body(&self) -> Vec<u8> {
        let inner = json!({
            "result": self.result,
            "failure": self.failure.as_ref().map(|failure| failure.to_value().to_string()),
            "ending": self.ending,
            "_msg_id": self.call.to_string(),
            "_unique_id": self.unique_id.to_string(),
        });
        wrap(&inner.to_string()).into_bytes()
    }
}

impl Failure {
    /// The object that `failure` is the text of.
    pub fn to_value(&self) -> Value {
        json!({
            "class": self.class,
            "module": self.module,
            "message": self.message,
            "tb": self.traceback,
            "args": self.args,
            "kwargs": self.kwargs,
        })
    }

    /// From the text that a reply has in `failure`.
    ///
    /// # Errors
    /// It is not such an object.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed::Member("failure");
        let mut members = Members::read(text).map_err(|_| WRONG)?;
        let mut member = |name: &str| {
            members.take(name).and_then(|raw| json::value(raw.get()).ok()).ok_or(WRONG)
        };
        let text = |value| if let Value::String(text) = value { Ok(text) } else { Err(WRONG) };
        let list = |value| if let Value::Array(list) = value { Ok(list) } else { Err(WRONG) };
        let failure = Self {
            class: text(member("class")?)?,
            module: text(member("module")?)?,
            message: text(member("message")?)?,
            traceback: list(member("tb")?)?.into_iter().map(text).collect::<Result<_, _>>()?,
            args: list(member("args")?)?,
            kwargs: match member("kwargs")? {
                Value::Object(kwargs) => kwargs,
                _ => return Err(WRONG),
            },
        };
        if members.is_empty() { Ok(failure) } else { Err(WRONG) }
    }
}

pub(super) fn read(members: Members<'_>) -> Result<Plain, Malformed> {
    if members.has("result") {
        read_reply(members).map(Plain::Reply)
    } else {
        read_request(members).map(Plain::Request)
    }
}

fn read_request(mut members: Members<'_>) -> Result<PlainRequest, Malformed> {
    let method = text(&mut members, "method")?.ok_or(Malformed::Member("method"))?;
    let args = object(&mut members, "args")?;
    let namespace = match members.get("namespace") {
        Some(raw) if raw.get() == "null" => members.take("namespace").and(None),
        _ => text(&mut members, "namespace")?,
    };
    let version = text(&mut members, "version")?;
    let call = sealed::call(&mut members)?;
    let unique_id = sealed::id(&mut members, "_unique_id")?;
    let context = context(members)?;
    Ok(PlainRequest { method, args, namespace, version, context, call, unique_id })
}

fn read_reply(mut members: Members<'_>) -> Result<PlainReply, Malformed> {
    let result = any(members.take("result"), "result")?;
    let failure = members.take("failure").ok_or(Malformed::Member("failure"))?;
    let failure = match failure.get() {
        "null" => None,
        _ => {
            let text = json::as_text(failure).map_err(|_| Malformed::Member("failure"))?;
            Some(Failure::parse(&text)?)
        }
    };
    let (call, unique_id) =
        (sealed::id(&mut members, "_msg_id")?, sealed::id(&mut members, "_unique_id")?);
    let ending = sealed::ending(&mut members)?;
    if !members.is_empty() {
        return Err(Malformed::Unknown);
    }
    Ok(PlainReply { result, failure, ending, call, unique_id })
}

/// What is left: members of the context, and nothing else.
pub(super) fn context(members: Members<'_>) -> Result<Map<String, Value>, Malformed> {
    let mut context = Map::new();
    for (name, raw) in members.rest() {
        let name = name.strip_prefix(CONTEXT).ok_or(Malformed::Unknown)?;
        context.insert(name.to_owned(), any(Some(raw), CONTEXT)?);
    }
    Ok(context)
}

pub(super) fn any(raw: Option<&RawValue>, name: &'static str) -> Result<Value, Malformed> {
    raw.and_then(|raw| json::value(raw.get()).ok()).ok_or(Malformed::Member(name))
}

/// Text that is not empty; `None` if there is no such member.
pub(super) fn text(
    members: &mut Members<'_>,
    name: &'static str,
) -> Result<Option<String>, Malformed> {
    let Some(raw) = members.take(name) else { return Ok(None) };
    let text = json::as_text(raw).ok().filter(|text| !text.is_empty());
    text.map(|text| Some(text.into_owned())).ok_or(Malformed::Member(name))
}

fn object(members: &mut Members<'_>, name: &'static str) -> Result<Map<String, Value>, Malformed> {
    match any(members.take(name), name)? {
        Value::Object(object) => Ok(object),
        _ => Err(Malformed::Member(name)),
    }
}
