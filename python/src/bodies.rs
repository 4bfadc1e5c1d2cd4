//! Bodies of the oslo carrier (protocol section 19), read once and strictly: what oslo.messaging makes of
//! them is not believed.

use bulla_oslo::wire::{Call, Malformed, Sealed, read_sealed};
use bulla_seal::MAX_FRAME;
use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// The frame of a request, and the way back to who sent it.
pub(crate) fn request(body: &[u8]) -> Result<(Bytes, Option<Call>), Malformed> {
    match read_sealed(body, MAX_FRAME)? {
        Sealed::Request(request) => Ok((request.frame.into(), request.call)),
        Sealed::Reply(_) => Err(Malformed::Member("bulla")),
    }
}

/// The frame of a reply.
pub(crate) fn reply(body: &[u8]) -> Result<Bytes, Malformed> {
    match read_sealed(body, MAX_FRAME)? {
        Sealed::Reply(reply) => Ok(reply.frame.into()),
        Sealed::Request(_) => Err(Malformed::Member("result")),
    }
}

/// A body as the AMQP library gives it: as text if it says that it is.
pub(crate) fn bytes_of<'a>(body: &'a Bound<'_, PyAny>) -> Option<&'a [u8]> {
    if let Ok(text) = body.cast::<PyString>() {
        return text.to_str().ok().map(str::as_bytes);
    }
    body.cast::<PyBytes>().ok().map(|bytes| bytes.as_bytes())
}
