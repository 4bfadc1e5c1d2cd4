//! Sealed messages: base64 of a frame, and what oslo.messaging's driver needs to route it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::Malformed;
use super::ids::{Call, Id, Monitor, ReplyQueue};
use super::json::{self, Members};

pub(super) const FRAME: &str = "bulla";

/// A sealed message.
#[derive(Debug, Clone, PartialEq)]
pub enum Sealed {
    /// A request: call, cast, fanout or notification; which, says the frame.
    Request(SealedRequest),
    /// A reply.
    Reply(SealedReply),
}

/// A sealed request.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedRequest {
    /// What the native carrier's body would be.
    pub frame: Vec<u8>,
    /// How it is answered; `None` for what is not a call.
    pub call: Option<Call>,
    /// `_unique_id`.
    pub unique_id: Id,
}

/// A sealed reply: a value, an error, progress, or `offer-needed`.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedReply {
    /// What the native carrier's body would be.
    pub frame: Vec<u8>,
    /// Whether nothing comes after it: false for progress.
    pub ending: bool,
    /// The call's `_msg_id`.
    pub call: Id,
    /// `_unique_id`.
    pub unique_id: Id,
}

impl From<SealedRequest> for Sealed {
    fn from(request: SealedRequest) -> Self {
        Self::Request(request)
    }
}

impl From<SealedReply> for Sealed {
    fn from(reply: SealedReply) -> Self {
        Self::Reply(reply)
    }
}

/// The body of a sealed request. Every text in it is of characters that need no escape.
pub fn request(frame: &[u8], call: Option<&Call>, unique_id: Id) -> Vec<u8> {
    let mut body = start(frame.len());
    body.push_str(r#"{\"bulla\": \""#);
    STANDARD.encode_string(frame, &mut body);
    if let Some(call) = call {
        body.push_str(r#"\", \"_msg_id\": \""#);
        push(&mut body, call.id);
        body.push_str(r#"\", \"_reply_q\": \""#);
        push(&mut body, &call.reply_queue);
        body.push_str(r#"\", \"_timeout\": "#);
        match call.monitor {
            Some(monitor) => push(&mut body, monitor.secs()),
            None => body.push_str("null"),
        }
        body.push_str(r#", \"_unique_id\": \""#);
    } else {
        body.push_str(r#"\", \"_unique_id\": \""#);
    }
    push(&mut body, unique_id);
    body.push_str("\\\"}\"}");
    body.into_bytes()
}

/// The body of a sealed reply to the call with the `_msg_id` `call`.
pub fn reply(frame: &[u8], ending: bool, call: Id, unique_id: Id) -> Vec<u8> {
    let mut body = start(frame.len());
    body.push_str(r#"{\"result\": {\"bulla\": \""#);
    STANDARD.encode_string(frame, &mut body);
    body.push_str(r#"\"}, \"failure\": null, \"ending\": "#);
    push(&mut body, ending);
    body.push_str(r#", \"_msg_id\": \""#);
    push(&mut body, call);
    body.push_str(r#"\", \"_unique_id\": \""#);
    push(&mut body, unique_id);
    body.push_str("\\\"}\"}");
    body.into_bytes()
}

fn start(frame: usize) -> String {
    let mut body = String::with_capacity(frame.div_ceil(3) * 4 + 512);
    body.push_str(r#"{"oslo.version": "2.0", "oslo.message": ""#);
    body
}

fn push(body: &mut String, item: impl std::fmt::Display) {
    use std::fmt::Write as _;
    // Writing into a string does not fail.
    let _ = write!(body, "{item}");
}

pub(super) fn read_request(
    frame: &RawValue,
    mut members: Members<'_>,
) -> Result<SealedRequest, Malformed> {
    let frame = decode(frame)?;
    let unique_id = id(&mut members, "_unique_id")?;
    let call = call(&mut members)?;
    if !members.is_empty() {
        return Err(Malformed::Unknown);
    }
    Ok(SealedRequest { frame, call, unique_id })
}

/// The members of a call: all of them, or none.
pub(super) fn call(members: &mut Members<'_>) -> Result<Option<Call>, Malformed> {
    if !["_msg_id", "_reply_q", "_timeout"].iter().any(|name| members.has(name)) {
        return Ok(None);
    }
    let id = id(members, "_msg_id")?;
    let queue = members.take("_reply_q").and_then(|raw| json::as_text(raw).ok());
    let reply_queue =
        queue.and_then(|name| ReplyQueue::parse(&name)).ok_or(Malformed::Member("_reply_q"))?;
    let monitor = members.take("_timeout").ok_or(Malformed::Member("_timeout"))?;
    let monitor = serde_json::from_str::<Option<f64>>(monitor.get())
        .ok()
        .and_then(|seconds| seconds.map_or(Some(None), |s| Monitor::from_secs(s).map(Some)))
        .ok_or(Malformed::Member("_timeout"))?;
    Ok(Some(Call { id, reply_queue, monitor }))
}

/// The frame in a reply, if its result is an object with that one member.
pub(super) fn in_reply<'a>(members: &Members<'a>) -> Option<&'a RawValue> {
    let mut result = Members::read(members.get("result")?.get()).ok()?;
    result.take(FRAME).filter(|_| result.is_empty())
}

pub(super) fn read_reply(
    frame: &RawValue,
    mut members: Members<'_>,
) -> Result<SealedReply, Malformed> {
    let frame = decode(frame)?;
    let (call, unique_id) = (id(&mut members, "_msg_id")?, id(&mut members, "_unique_id")?);
    let null = members.take("failure").is_some_and(|raw| raw.get() == "null");
    let ending = ending(&mut members)?;
    if !null {
        return Err(Malformed::Member("failure"));
    }
    if members.take("result").is_none() || !members.is_empty() {
        return Err(Malformed::Unknown);
    }
    Ok(SealedReply { frame, ending, call, unique_id })
}

pub(super) fn id(members: &mut Members<'_>, name: &'static str) -> Result<Id, Malformed> {
    let text = members.take(name).and_then(|raw| json::as_text(raw).ok());
    text.and_then(|text| Id::parse(&text)).ok_or(Malformed::Member(name))
}

pub(super) fn ending(members: &mut Members<'_>) -> Result<bool, Malformed> {
    match members.take("ending").map(RawValue::get) {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        _ => Err(Malformed::Member("ending")),
    }
}

fn decode(frame: &RawValue) -> Result<Vec<u8>, Malformed> {
    let text = json::as_text(frame).map_err(|_| Malformed::Member(FRAME))?;
    let frame = STANDARD.decode(text.as_bytes()).map_err(|_| Malformed::Member(FRAME))?;
    if frame.is_empty() { Err(Malformed::Member(FRAME)) } else { Ok(frame) }
}

#[cfg(test)]
mod tests {
    use super::super::read_sealed;
    use super::*;
    use serde_json::{Value, json};

    const ID: Id = Id([0x29; 16]);

    fn call_of(monitor: Option<f64>) -> Call {
        Call {
            id: Id([7; 16]),
            reply_queue: ReplyQueue::parse("reply_host:api:1").unwrap(),
            monitor: monitor.and_then(Monitor::from_secs),
        }
    }

    fn members(body: &[u8]) -> Value {
        let outer: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(outer["oslo.version"], "2.0");
        serde_json::from_str(outer["oslo.message"].as_str().unwrap()).unwrap()
    }

    #[test]
    fn a_request_is_what_the_page_says() {
        let body = request(b"frame", Some(&call_of(Some(2.5))), ID);
        let expected = json!({
            "bulla": "ZnJhbWU=", "_msg_id": "07".repeat(16), "_reply_q": "reply_host:api:1",
            "_timeout": 2.5, "_unique_id": "29".repeat(16),
        });
        assert_eq!(members(&body), expected);
        let cast = request(b"frame", None, ID);
        assert_eq!(members(&cast), json!({"bulla": "ZnJhbWU=", "_unique_id": "29".repeat(16)}));
        for call in [None, Some(call_of(None)), Some(call_of(Some(2.0)))] {
            let sent = SealedRequest { frame: vec![0x84, 1], call, unique_id: ID };
            let body = request(&sent.frame, sent.call.as_ref(), sent.unique_id);
            assert_eq!(read_sealed(&body, 64), Ok(Sealed::Request(sent)));
        }
    }

    #[test]
    fn a_reply_is_what_the_page_says() {
        let body = reply(b"frame", true, Id([7; 16]), ID);
        let expected = json!({
            "result": {"bulla": "ZnJhbWU="}, "failure": null, "ending": true,
            "_msg_id": "07".repeat(16), "_unique_id": "29".repeat(16),
        });
        assert_eq!(members(&body), expected);
        for ending in [true, false] {
            let sent = SealedReply { frame: vec![0x84], ending, call: Id([7; 16]), unique_id: ID };
            let body = reply(&sent.frame, ending, sent.call, sent.unique_id);
            assert_eq!(read_sealed(&body, 64), Ok(Sealed::Reply(sent)));
        }
    }

    #[test]
    fn nothing_else_stands_beside_a_seal() {
        let good = members(&request(b"frame", Some(&call_of(None)), ID));
        let answer = members(&reply(b"frame", true, Id([7; 16]), ID));
        let refused = |inner: &Value| {
            let body = json!({"oslo.version": "2.0", "oslo.message": inner.to_string()});
            read_sealed(body.to_string().as_bytes(), 4096).is_err()
        };
        assert!(!refused(&good) && !refused(&answer));
        for name in ["method", "args", "_context_user", "namespace", "version", "result", "x"] {
            let mut more = good.clone();
            more[name] = json!({});
            assert!(refused(&more), "{name}");
        }
        for (name, value) in [
            ("bulla", json!("ZnJhbWU")),
            ("bulla", json!("")),
            ("bulla", json!("Zn JhbWU=")),
            ("bulla", json!(1)),
            ("_unique_id", json!("29")),
            ("_msg_id", json!(null)),
            ("_reply_q", json!("taskmanager")),
            ("_timeout", json!(-1)),
            ("_timeout", json!("2")),
        ] {
            let mut other = good.clone();
            other[name] = value;
            assert!(refused(&other), "{name}");
        }
        for missing in ["_unique_id", "_msg_id", "_reply_q", "_timeout"] {
            let mut less = good.clone();
            less.as_object_mut().unwrap().remove(missing);
            assert!(refused(&less), "{missing}");
        }
        for (name, value) in [
            ("failure", json!("x")),
            ("ending", json!(1)),
            ("_msg_id", json!("7")),
            ("result", json!({"bulla": "ZnJhbWU=", "x": 1})),
            ("method", json!("x")),
            ("_reply_q", json!("reply_a")),
        ] {
            let mut other = answer.clone();
            other[name] = value;
            assert!(refused(&other), "{name}");
        }
    }
}
