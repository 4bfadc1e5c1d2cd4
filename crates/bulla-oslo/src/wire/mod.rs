//! Bodies of messages (section 19 of `docs/protocol.md`).
//!
//! ```text
//!   {"oslo.version": "2.0", "oslo.message": "{…}"}
//!                                             │
//!                     {"bulla": …, …} ◄───────┼──────► {"method": …, "args": …, …}
//!                     Sealed                  │        Plain: only through an exemption
//!                                        anything else: refused
//! ```

mod ids;
pub(crate) mod json;
mod notification;
mod plain;
mod sealed;

use std::borrow::Cow;

use thiserror::Error;

pub use ids::{Call, Id, Monitor, ReplyQueue};
pub use notification::{Driver, Notification};
pub use plain::{Failure, Plain, PlainReply, PlainRequest};
pub use sealed::{Sealed, SealedReply, SealedRequest, reply, request};

use json::Members;

/// The content type of every body.
pub const CONTENT_TYPE: &str = "application/json";
/// The content encoding of every body.
pub const CONTENT_ENCODING: &str = "utf-8";

const VERSION: &str = "oslo.version";
const MESSAGE: &str = "oslo.message";
const TWO: &str = "2.0";
/// What a body has beside its frame, at the most, in bytes.
const AROUND: usize = 2048;

/// A body is not in the form that is taken. Which part is wrong is for people who look for a mistake; all
/// are refused alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Larger than a body may be.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// Not the object with `oslo.version` and `oslo.message`, or another version.
    #[error("the body is no envelope of version 2.0")]
    Envelope,
    /// The text inside is no object that can be read in one way only.
    #[error("the message is no JSON object, or has a member twice")]
    Json,
    /// A member is missing, has another form, or is one too many.
    #[error("the member `{0}` is missing, of another form, or one too many")]
    Member(&'static str),
    /// A member that is not known.
    #[error("the message has a member that is not known")]
    Unknown,
}

/// What a body has in it.
#[allow(clippy::large_enum_variant, reason = "read and taken apart at once, never kept")]
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A sealed message.
    Sealed(Sealed),
    /// A message of a peer that does not seal.
    Plain(Plain),
}

/// The largest body that may hold a frame of `max_frame` bytes, in bytes.
pub const fn max_body(max_frame: usize) -> usize {
    max_frame.div_ceil(3).saturating_mul(4).saturating_add(AROUND)
}

/// The largest frame that fits into every body of at most `max_body` bytes, in bytes.
pub const fn max_frame(max_body: usize) -> usize {
    max_body.saturating_sub(AROUND) / 4 * 3
}

/// Reads a body that holds a frame of at most `max_frame` bytes, or a message in clear of as much text.
///
/// # Errors
/// It is not in the form that section 19 gives, nor in that of oslo.messaging.
pub fn read(body: &[u8], max_frame: usize) -> Result<Message, Malformed> {
    let text = inner(body, max_frame)?;
    let mut members = Members::read(&text).map_err(|_| Malformed::Json)?;
    if let Some(frame) = members.take(sealed::FRAME) {
        return sealed::read_request(frame, members).map(|message| Message::Sealed(message.into()));
    }
    if let Some(frame) = sealed::in_reply(&members) {
        return sealed::read_reply(frame, members).map(|message| Message::Sealed(message.into()));
    }
    plain::read(members).map(Message::Plain)
}

/// Reads a body that has to be sealed.
///
/// # Errors
/// As [`read`], and it is in clear.
pub fn read_sealed(body: &[u8], max_frame: usize) -> Result<Sealed, Malformed> {
    match read(body, max_frame)? {
        Message::Sealed(sealed) => Ok(sealed),
        Message::Plain(_) => Err(Malformed::Member(sealed::FRAME)),
    }
}

/// The text within the envelope.
fn inner(body: &[u8], max_frame: usize) -> Result<Cow<'_, str>, Malformed> {
    if body.len() > max_body(max_frame) {
        return Err(Malformed::TooLarge);
    }
    let text = std::str::from_utf8(body).map_err(|_| Malformed::Envelope)?;
    let mut members = Members::read(text).map_err(|_| Malformed::Envelope)?;
    let member = |raw| json::as_text(raw).map_err(|_| Malformed::Envelope);
    let version = members.take(VERSION).ok_or(Malformed::Envelope)?;
    let message = members.take(MESSAGE).ok_or(Malformed::Envelope)?;
    if !members.is_empty() || member(version)? != TWO {
        return Err(Malformed::Envelope);
    }
    member(message)
}

/// Puts a message's text into the envelope.
fn wrap(text: &str) -> String {
    let mut body = String::with_capacity(text.len() + text.len() / 8 + 64);
    body.push_str(r#"{"oslo.version": "2.0", "oslo.message": "#);
    // Writing text into a string does not fail.
    body.push_str(&serde_json::Value::from(text).to_string());
    body.push('}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_the_limit_fits_into_a_body_of_its_limit() {
        for limit in [0, 2048, 2049, 4096, 1 << 20, 16 << 20] {
            let frame = max_frame(limit);
            assert!(frame == 0 || max_body(frame) <= limit, "{limit}");
            assert!(max_body(frame + 1) > limit, "{limit}");
        }
        assert!(max_frame(max_body(1 << 20)) >= 1 << 20);
    }

    #[test]
    fn the_envelope_has_exactly_two_members() {
        let message = r#"{\"method\": \"a\", \"args\": {}, \"version\": \"1.0\", \"_unique_id\": \"29d095e615a842798d9948f7db6b87bc\"}"#;
        let good = format!(r#"{{"oslo.version": "2.0", "oslo.message": "{message}"}}"#);
        assert!(matches!(read(good.as_bytes(), 1024), Ok(Message::Plain(_))));
        assert_eq!(
            read(good.as_bytes(), 1024).and_then(|_| read_sealed(good.as_bytes(), 1024)),
            Err(Malformed::Member("bulla"))
        );
        for bad in [
            good.replace("2.0", "2.1"),
            good.replace("2.0", "1.0"),
            good.replace("{\"oslo.version\"", "{\"x\": 1, \"oslo.version\""),
            good.replace("{\"oslo.version\"", "{\"oslo.version\": \"2.0\", \"oslo.version\""),
            good.replace("\"oslo.version\": \"2.0\", ", ""),
            format!("{good} {{}}"),
            message.replace('\\', ""),
            String::new(),
        ] {
            assert_eq!(read(bad.as_bytes(), 1024), Err(Malformed::Envelope), "{bad}");
        }
        assert_eq!(read(&[b' '; 5000], 1024), Err(Malformed::TooLarge));
        assert_eq!(
            read(b"{\"oslo.version\": \"2.0\", \"oslo.message\": \"[]\"}", 1024),
            Err(Malformed::Json)
        );
    }
}
