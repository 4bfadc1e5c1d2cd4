//! What stands in a message of the queue service.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::ReplyName;

/// Bytes of a frame that go into one message: with the third that base64 adds, and what is around it,
/// less than a service takes at once.
pub(super) const PART: usize = 180_000;

/// The body of a message.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    /// The frame, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bulla: Option<String>,
    /// Or the queue with its parts, and their ids in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<(String, Vec<String>)>,
    /// Where a notice may be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
}

/// A message that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Whole(Bytes),
    Parts { queue: String, ids: Vec<String> },
}

impl Body {
    pub(super) fn whole(frame: &[u8], reply: Option<&ReplyName>) -> Self {
        let reply = reply.map(|name| name.as_str().to_owned());
        Self { bulla: Some(BASE64.encode(frame)), parts: None, reply }
    }

    pub(super) fn parts(queue: String, ids: Vec<String>, reply: Option<&ReplyName>) -> Self {
        let reply = reply.map(|name| name.as_str().to_owned());
        Self { bulla: None, parts: Some((queue, ids)), reply }
    }

    /// What it says; `None` if it is none of ours.
    pub(super) fn read(self) -> Option<(Frame, Option<ReplyName>)> {
        let reply = self.reply.as_deref().and_then(ReplyName::parse);
        let frame = match (self.bulla, self.parts) {
            (Some(text), None) => Frame::Whole(BASE64.decode(text).ok()?.into()),
            (None, Some((queue, ids))) => {
                let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
                let fits = |name: &String| name.len() <= 64 && name.bytes().all(known);
                let fit = queue.starts_with("x-") && fits(&queue) && ids.iter().all(fits);
                fit.then_some(Frame::Parts { queue, ids })?
            }
            _ => return None,
        };
        Some((frame, reply))
    }
}

/// A message as it is posted.
#[derive(Serialize)]
pub(super) struct Posted {
    pub(super) ttl: u64,
    pub(super) body: Body,
}

/// The answer to that.
#[derive(Deserialize)]
pub(super) struct Made {
    /// Paths that end with the ids.
    pub(super) resources: Vec<String>,
}

/// Messages to be posted.
#[derive(Serialize)]
pub(super) struct Posting {
    pub(super) messages: Vec<Posted>,
}

/// A message as it is claimed, listed or popped.
#[derive(Debug, Deserialize)]
pub(super) struct Came {
    pub(super) id: String,
    /// Anybody may have put it there.
    pub(super) body: serde_json::Value,
    #[serde(default)]
    pub(super) claim_count: u32,
}

/// Messages that came.
#[derive(Debug, Deserialize)]
pub(super) struct Coming {
    pub(super) messages: Vec<Came>,
}

impl Came {
    pub(super) fn read(&mut self) -> Option<(Frame, Option<ReplyName>)> {
        let body: Body = serde_json::from_value(self.body.take()).ok()?;
        body.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let name = ReplyName::new("component/api", "9f3a").unwrap();
        let whole = Body::whole(b"\0\xff", Some(&name));
        assert_eq!(whole.read(), Some((Frame::Whole(b"\0\xff"[..].into()), Some(name))));
        let ids = vec!["1-a".to_owned(), "2".to_owned()];
        let parts = Body::parts("x-abc".into(), ids.clone(), None);
        let frame = Frame::Parts { queue: "x-abc".into(), ids };
        assert_eq!(parts.read(), Some((frame, None)));
        for bad in [
            r#"{}"#,
            r#"1"#,
            r#"{"bulla":"%"}"#,
            r#"{"bulla":"AA==","parts":["x-a",["1"]]}"#,
            r#"{"parts":["a-b",["1"]]}"#,
            r#"{"parts":["x-../q",["1"]]}"#,
            r#"{"parts":["x-a",["../1"]]}"#,
            r#"{"bulla":"AA==","other":1}"#,
        ] {
            let body = serde_json::from_str::<Body>(bad).ok().and_then(Body::read);
            assert_eq!(body, None, "{bad}");
        }
    }
}
