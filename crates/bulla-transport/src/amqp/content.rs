//! Messages: what goes around a body.

use std::sync::Arc;

use bytes::Bytes;

use super::error::{AmqpError, Malformed};
use super::frame::{AROUND, BODY, HEADER};
use super::read::Cursor;
use super::write::{close_frame, method, open_frame, short};

const BASIC: u16 = 60;
const PUBLISH: (u16, u16) = (BASIC, 40);

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
/// Whether more flags follow, of which the class has none.
const MORE: u16 = 1;

/// A message on its way out.
pub(crate) struct Publish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) mandatory: bool,
    pub(crate) content_type: &'a str,
    pub(crate) content_encoding: Option<&'a str>,
    pub(crate) persistent: bool,
    pub(crate) reply_to: Option<&'a str>,
    /// Milliseconds.
    pub(crate) expiration: Option<u32>,
    pub(crate) body: &'a Bytes,
}

/// A message that arrived.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) reply_to: Option<Arc<str>>,
    pub(crate) body: Bytes,
    /// Only where it was asked for.
    pub(crate) route: Option<Box<Route>>,
}

/// Where a message was published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
}

impl Publish<'_> {
    /// Method, header and body, in frames of at most `frame_max` bytes. Nothing stays in the buffer of
    /// one that can't be written.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        channel: u16,
        frame_max: usize,
    ) -> Result<(), AmqpError> {
        let start = out.len();
        out.reserve(self.body.len() + 256);
        let written = self.write_head(out, channel);
        if written.is_err() {
            out.truncate(start);
            return written;
        }
        for part in self.body.chunks(frame_max.saturating_sub(AROUND).max(1)) {
            let mark = open_frame(out, BODY, channel);
            out.extend_from_slice(part);
            close_frame(out, mark);
        }
        Ok(())
    }

    fn write_head(&self, out: &mut Vec<u8>, channel: u16) -> Result<(), AmqpError> {
        method(out, channel, PUBLISH, |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, self.exchange)?;
            short(out, self.routing_key)?;
            out.push(u8::from(self.mandatory));
            Ok(())
        })?;
        let mark = open_frame(out, HEADER, channel);
        out.extend_from_slice(&BASIC.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&(self.body.len() as u64).to_be_bytes());
        let mut flags = CONTENT_TYPE | DELIVERY_MODE;
        if self.content_encoding.is_some() {
            flags |= CONTENT_ENCODING;
        }
        if self.reply_to.is_some() {
            flags |= REPLY_TO;
        }
        if self.expiration.is_some() {
            flags |= EXPIRATION;
        }
        out.extend_from_slice(&flags.to_be_bytes());
        short(out, self.content_type)?;
        if let Some(encoding) = self.content_encoding {
            short(out, encoding)?;
        }
        out.push(if self.persistent { 2 } else { 1 });
        if let Some(reply_to) = self.reply_to {
            short(out, reply_to)?;
        }
        if let Some(ms) = self.expiration {
            decimal(out, ms);
        }
        close_frame(out, mark);
        Ok(())
    }
}

/// A number as a short string.
fn decimal(out: &mut Vec<u8>, mut number: u32) {
    let mark = out.len();
    out.push(0);
    loop {
        // A remainder of ten is a digit.
        out.push(b'0' + u8::try_from(number % 10).unwrap_or(0));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some([length, digits @ ..]) = out.get_mut(mark..) {
        digits.reverse();
        *length = u8::try_from(digits.len()).unwrap_or(0);
    }
}

/// What a content header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) size: u64,
    pub(super) reply_to: Option<Arc<str>>,
}

impl Header {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut r = Cursor::new(payload);
        if r.u16()? != BASIC || r.u16()? != 0 {
            return Err(Malformed("a header of another class"));
        }
        let size = r.u64()?;
        let flags = r.u16()?;
        if flags & MORE != 0 {
            return Err(Malformed("a header with properties that do not exist"));
        }
        let has = |flag: u16| flags & flag != 0;
        if has(CONTENT_TYPE) {
            r.short()?;
        }
        if has(CONTENT_ENCODING) {
            r.short()?;
        }
        if has(HEADERS) {
            r.long()?;
        }
        if has(DELIVERY_MODE) {
            r.u8()?;
        }
        if has(PRIORITY) {
            r.u8()?;
        }
        if has(CORRELATION_ID) {
            r.short()?;
        }
        let reply_to = if has(REPLY_TO) {
            Some(String::from_utf8_lossy(r.short()?).as_ref().into())
        } else {
            None
        };
        // Nothing of what follows is of use here.
        Ok(Self { size, reply_to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::frame::{Parsed, parse};

    #[test]
    fn what_is_written_is_read() {
        let body = Bytes::from(vec![7; 10]);
        let message = Publish {
            exchange: "e",
            routing_key: "key",
            mandatory: true,
            content_type: "application/cose",
            content_encoding: None,
            persistent: true,
            reply_to: Some("agent.db-1.9"),
            expiration: Some(60_090),
            body: &body,
        };
        let mut out = Vec::new();
        message.write(&mut out, 5, 12).unwrap();
        let (mut rest, mut frames) = (out.as_slice(), Vec::new());
        while let Parsed::Frame(frame, after) = parse(rest, 4096).unwrap() {
            assert_eq!(frame.channel, 5);
            frames.push(frame);
            rest = after;
        }
        assert!(rest.is_empty());
        let kinds: Vec<_> = frames.iter().map(|frame| (frame.kind, frame.payload.len())).collect();
        assert_eq!(kinds[2..], [(BODY, 4), (BODY, 4), (BODY, 2)]);
        assert_eq!(frames[0].payload, [&b"\0\x3c\0\x28\0\0\x01e\x03key"[..], &[1]].concat());
        let header = Header::parse(frames[1].payload).unwrap();
        assert_eq!(header, Header { size: 10, reply_to: Some("agent.db-1.9".into()) });
        assert!(frames[1].payload.ends_with(b"\x0560090"));
        for cut in 0..frames[1].payload.len() - 6 {
            assert!(Header::parse(&frames[1].payload[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_leaves_nothing_behind() {
        let long = "x".repeat(256);
        let body = Bytes::new();
        let mut message = Publish {
            exchange: "e",
            routing_key: &long,
            mandatory: false,
            content_type: "t",
            content_encoding: None,
            persistent: false,
            reply_to: None,
            expiration: Some(0),
            body: &body,
        };
        let mut out = vec![1, 2];
        assert!(message.write(&mut out, 1, 4096).is_err());
        message.routing_key = "";
        message.reply_to = Some(&long);
        assert!(message.write(&mut out, 1, 4096).is_err());
        assert_eq!(out, [1, 2]);
        message.reply_to = None;
        message.write(&mut out, 1, 4096).unwrap();
        assert!(out.ends_with(b"\x010\xce"));
    }
}
