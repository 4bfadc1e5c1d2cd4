//! What is inside the seal: the plaintext of requests, values and errors (protocol sections 3
//! and 4), as CBOR.

use std::fmt;
use std::ops::Range;

use crate::cbor::{Reader, Sink, Writer};
use crate::refusal::Refusal;

/// The plaintext of a request, borrowed from the buffer that it was opened in. `args`, `context`
/// and the like are CBOR items that were checked to be well formed and are read by the handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestBody<'a> {
    /// The method's namespace, if it has one.
    pub namespace: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The version asked for, `major.minor`.
    pub version: &'a str,
    /// The arguments, one CBOR item.
    pub args: &'a [u8],
    /// The request's context, one CBOR item.
    pub context: Option<&'a [u8]>,
    /// W3C trace context, `traceparent`.
    pub trace_parent: Option<&'a str>,
    /// Where replies go: must lie in the caller's own reply name space.
    pub reply_to: Option<&'a str>,
}

/// Namespace, method and version.
type Names<'a> = (Option<&'a str>, &'a str, &'a str);

impl<'a> RequestBody<'a> {
    /// Writes everything; `args` must be one well-formed CBOR item.
    pub fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        self.write_before_args(out);
        out.put(self.args);
        self.write_after_args(out);
    }

    /// Writes what goes before the arguments, for a caller that then writes the arguments
    /// straight into the message.
    pub fn write_before_args<S: Sink + ?Sized>(&self, out: &mut S) {
        let mut w = Writer::new(out);
        w.array(7);
        w.text_or_null(self.namespace);
        w.text(self.method);
        w.text(self.version);
    }

    /// Writes what goes after the arguments.
    pub fn write_after_args<S: Sink + ?Sized>(&self, out: &mut S) {
        let mut w = Writer::new(out);
        match self.context {
            Some(item) => w.raw(item),
            None => w.null(),
        }
        w.text_or_null(self.trace_parent);
        w.text_or_null(self.reply_to);
    }

    /// Reads a request's plaintext.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(plaintext);
        r.array(7)?;
        let body = Self::read_items(&mut r)?;
        r.end()?;
        Ok(body)
    }

    /// The same for an opened plaintext, which may end with a signature that was checked; and where
    /// the arguments are in it.
    #[inline]
    pub(crate) fn read(plaintext: &'a [u8]) -> Result<(Self, Range<usize>), Refusal> {
        let mut r = Reader::new(plaintext);
        let items = r.array_up_to(8)?;
        let (namespace, method, version) = Self::read_names(&mut r)?;
        let start = r.position();
        let args = r.skip()?;
        let at = start..r.position();
        let body = Self::read_rest(&mut r, (namespace, method, version), args)?;
        match items {
            7 => {}
            8 => drop(r.fixed::<{ crate::sign::SIGNATURE }>()?),
            _ => return Err(Refusal::Malformed),
        }
        r.end()?;
        Ok((body, at))
    }

    /// What was read once, again: the arguments, which may be large, are known to be well formed.
    pub(crate) fn read_again(plaintext: &'a [u8], at: &Range<usize>) -> Result<Self, Refusal> {
        let mut r = Reader::new(plaintext);
        r.array_up_to(8)?;
        let names = Self::read_names(&mut r)?;
        let args = plaintext.get(at.clone()).ok_or(Refusal::Malformed)?;
        let mut r = Reader::new(plaintext.get(at.end..).ok_or(Refusal::Malformed)?);
        Self::read_rest(&mut r, names, args)
    }

    #[inline(always)]
    fn read_items(r: &mut Reader<'a>) -> Result<Self, Refusal> {
        let names = Self::read_names(r)?;
        let args = r.skip()?;
        Self::read_rest(r, names, args)
    }

    #[inline(always)]
    fn read_names(r: &mut Reader<'a>) -> Result<Names<'a>, Refusal> {
        Ok((name_or_null(r)?, name(r)?, name(r)?))
    }

    #[inline(always)]
    fn read_rest(
        r: &mut Reader<'a>,
        (namespace, method, version): Names<'a>,
        args: &'a [u8],
    ) -> Result<Self, Refusal> {
        Ok(Self {
            namespace,
            method,
            version,
            args,
            context: if r.null()? { None } else { Some(r.skip()?) },
            trace_parent: name_or_null(r)?,
            reply_to: name_or_null(r)?,
        })
    }
}

/// Names the call and says nothing of what it carries.
impl fmt::Debug for RequestBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("namespace", &self.namespace)
            .field("method", &self.method)
            .field("version", &self.version)
            .field("args_bytes", &self.args.len())
            .field("context_bytes", &self.context.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

/// A text that must not be empty.
fn name<'a>(r: &mut Reader<'a>) -> Result<&'a str, Refusal> {
    r.text().and_then(|text| if text.is_empty() { Err(Refusal::Malformed) } else { Ok(text) })
}

fn name_or_null<'a>(r: &mut Reader<'a>) -> Result<Option<&'a str>, Refusal> {
    if r.null()? { Ok(None) } else { name(r).map(Some) }
}

/// A failure as it travels: data, never the name of code to load (protocol section 4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorBody<'a> {
    /// Its type, a stable name.
    pub kind: &'a str,
    /// What happened, for people.
    pub message: &'a str,
    /// One CBOR item with more.
    pub details: Option<&'a [u8]>,
    /// Where in the remote code, if the remote side is allowed to tell.
    pub trace: Option<&'a str>,
}

impl<'a> ErrorBody<'a> {
    /// Writes it.
    pub fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        let mut w = Writer::new(out);
        w.array(4);
        w.text(self.kind);
        w.text(self.message);
        match self.details {
            Some(item) => w.raw(item),
            None => w.null(),
        }
        w.text_or_null(self.trace);
    }

    /// Reads it.
    pub fn parse(plaintext: &'a [u8]) -> Result<Self, Refusal> {
        let mut r = Reader::new(plaintext);
        r.array(4)?;
        let body = Self {
            kind: name(&mut r)?,
            message: r.text()?,
            details: if r.null()? { None } else { Some(r.skip()?) },
            trace: r.text_or_null()?,
        };
        r.end()?;
        Ok(body)
    }
}

/// Names the failure and says nothing of what it carries.
impl fmt::Debug for ErrorBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorBody").field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_round_trips() {
        let body = RequestBody {
            namespace: Some("db"),
            method: "resize",
            version: "1.4",
            args: &[0xa1, 0x61, 0x61, 0x01],
            context: None,
            trace_parent: None,
            reply_to: Some("component.control.9f"),
        };
        let mut out = Vec::new();
        body.write(&mut out);
        assert_eq!(RequestBody::parse(&out), Ok(body));
        for len in 0..out.len() {
            assert!(RequestBody::parse(&out[..len]).is_err(), "cut at {len}");
        }
        out.push(0);
        assert!(RequestBody::parse(&out).is_err());
    }

    #[test]
    fn error_round_trips() {
        let body =
            ErrorBody { kind: "NotFound", message: "no such", details: Some(&[0x05]), trace: None };
        let mut out = Vec::new();
        body.write(&mut out);
        assert_eq!(ErrorBody::parse(&out), Ok(body));
    }
}
