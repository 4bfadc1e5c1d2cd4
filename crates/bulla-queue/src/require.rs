//! Queues that take messages of enrolled principals alone, and what is sealed by them.
//!
//! A queue's metadata say so in `_require`. What is looked at is the outside: who signed the request
//! with its own key, and whether what it posts is a frame that claims the same sender. What is inside
//! nobody here can read, and whether it opens is the receiver's to see.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_http::{Authenticator, Identity};
use bulla_seal::{DEFAULT_MAX_FRAME, Level, Parsed};
use serde::Deserialize;

use crate::fault::Fault;
use crate::store::NewMessage;

/// Where metadata say what a queue requires.
pub(crate) const REQUIRE: &str = "_require";

/// What a queue requires of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Require {
    /// That an enrolled principal signs the request that posts them.
    Signed,
    /// That, and that they are frames which that principal sealed.
    Sealed,
}

impl Require {
    /// From its name in metadata.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "signed" => Some(Self::Signed),
            "sealed" => Some(Self::Sealed),
            _ => None,
        }
    }

    /// Whether messages may be posted by whom the listener found out.
    pub(crate) fn check(self, by: Option<&Identity>, messages: &[NewMessage]) -> Result<(), Fault> {
        let refused = |why: &str| {
            tracing::info!(why, "a message was refused at the door of its queue");
            Err(Fault::forbidden(why))
        };
        let Some(sender) = by.and_then(Sender::of) else {
            return refused(
                "This queue takes messages of enrolled principals, signed with their own keys.",
            );
        };
        let sealed = || messages.iter().all(|message| sender.sealed(&message.body));
        match self {
            Self::Sealed if !sealed() => {
                refused("This queue takes sealed messages, each from who posts it.")
            }
            Self::Signed | Self::Sealed => Ok(()),
        }
    }
}

/// An enrolled principal that posts. A token or a grant is nobody's in particular: whoever has it.
#[derive(Debug, PartialEq, Eq)]
enum Sender {
    /// `agent/db-1`, by its own key.
    Agent(String),
    /// By its certificate, which its components share.
    Control,
}

/// The body of a message as the transport over queues writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    bulla: Option<String>,
    parts: Option<(String, Vec<String>)>,
    #[expect(dead_code, reason = "only its type matters")]
    reply: Option<String>,
}

impl Sender {
    fn of(by: &Identity) -> Option<Self> {
        match by.authenticator() {
            Authenticator::AgentKey => Some(Self::Agent(by.to_string())),
            Authenticator::Certificate => Some(Self::Control),
            _ => None,
        }
    }

    /// Whether a message is sealed, by itself as far as can be seen.
    fn sealed(&self, body: &str) -> bool {
        let Ok(Body { bulla, parts, .. }) = serde_json::from_str(body) else { return false };
        match (bulla, parts) {
            (Some(frame), None) => {
                let frame = BASE64.decode(frame).ok();
                let parsed = frame.and_then(|frame| {
                    Parsed::parse(bytes::Bytes::from(frame), DEFAULT_MAX_FRAME).ok()
                });
                parsed.is_some_and(|frame| {
                    frame.header().level == Level::Sealed && self.is(frame.claimed_sender())
                })
            }
            // Where the parts of a long frame are: names of queues and messages, and nothing else.
            (None, Some((queue, ids))) => {
                let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
                let name = |text: &String| text.len() <= 64 && text.bytes().all(known);
                queue.starts_with("x-") && name(&queue) && ids.iter().all(name)
            }
            _ => false,
        }
    }

    /// Whether a frame's claim is its own. A reply claims nobody: whom it answers knows.
    fn is(&self, claimed: &str) -> bool {
        match self {
            Self::Agent(name) => claimed.is_empty() || claimed == name,
            Self::Control => !claimed.starts_with("agent/"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulla_seal::{
        Audience, Hedge, Kid, MessageBuf, MessageKind, Party, Principal, Protection, RequestBody,
        RequestSpec, Route, Secret, UnixTime, shared,
    };
    use serde_json::json;

    use super::*;

    fn frame(protection: Protection) -> String {
        let party = |principal| Party::new(principal, 1);
        let agent = party(Principal::agent("db-1").unwrap());
        let control = party(Principal::component("control").unwrap());
        let key = shared::pair_key(&Secret::new([7; 32]), &agent, &control.principal, 1);
        let session = shared::session(Kid([1; 8]), &key, agent, control.clone());
        let now = UnixTime::from_secs(1_800_000_000);
        let hedge = Hedge { random: [3; 16], now, counter: 1, boot: [4; 16] };
        let audience = Audience::Party(control);
        let route = Route::new("bulla", "component.control", None, audience).unwrap();
        let body = RequestBody {
            namespace: None,
            method: "ping",
            version: "1.0",
            args: &[0xa0],
            context: None,
            trace_parent: None,
            reply_to: None,
        };
        let mut buf = MessageBuf::with_capacity(128);
        body.write(buf.sink());
        let expires = now.secs() + 60;
        let spec = RequestSpec { kind: MessageKind::Cast, route: &route, expires, protection };
        let sealed = Arc::new(session).seal_request(&spec, &hedge, buf).unwrap();
        BASE64.encode(sealed.into_frame(None).bytes())
    }

    #[test]
    fn the_outside_is_looked_at() {
        let agent = |id: &str| Sender::Agent(format!("agent/{id}"));
        let sealed = json!({ "bulla": frame(Protection::Sealed) }).to_string();
        assert!(agent("db-1").sealed(&sealed));
        // Whoever asks is not who it claims to be from.
        assert!(!agent("db-2").sealed(&sealed) && !Sender::Control.sealed(&sealed));
        for bad in [
            json!("x"),
            json!({}),
            json!({ "bulla": "" }),
            json!({ "bulla": "AAAA" }),
            json!({ "bulla": frame(Protection::Maced) }),
            json!({ "bulla": frame(Protection::Sealed), "more": 1 }),
            json!({ "parts": ["inbox", []] }),
        ] {
            assert!(!agent("db-1").sealed(&bad.to_string()), "{bad}");
        }
        assert!(agent("db-1").sealed(&json!({ "parts": ["x-1", ["a"]] }).to_string()));
        assert!(agent("db-1").is("") && Sender::Control.is("component/control"));
    }

    #[test]
    fn what_anybody_may_hold_proves_nobody() {
        let plain = [NewMessage { body: "1".to_owned(), ttl: 60, delay: 0 }];
        let control = Identity::certificate("operator");
        assert!(Require::Signed.check(control.as_ref(), &plain).is_ok());
        assert!(Require::Sealed.check(control.as_ref(), &plain).is_err());
        for nobody in [None, Some(Identity::bearer()), Identity::access_key("program/x")] {
            assert!(Require::Signed.check(nobody.as_ref(), &plain).is_err());
        }
    }
}
