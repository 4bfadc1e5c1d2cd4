//! Bodies of the oslo carrier (protocol section 19), read once and strictly: what oslo.messaging makes of
//! them is not believed.

use bulla_oslo::wire::{Malformed, Sealed, read_sealed};
use bulla_seal::MAX_FRAME;
use bytes::Bytes;

use crate::bridge::Way;

/// The frame of a request, and the way back to who sent it.
pub(crate) fn request(body: &[u8]) -> Result<(Bytes, Option<Way>), Malformed> {
    let Sealed::Request(request) = read_sealed(body, MAX_FRAME)? else {
        return Err(Malformed::Member("bulla"));
    };
    let way = request.call.map(|call| Way {
        queue: call.reply_queue.as_str().to_owned(),
        message: call.id.to_string(),
        timeout: call.monitor.map(|monitor| monitor.secs()),
    });
    Ok((request.frame.into(), way))
}

/// The frame of a reply.
pub(crate) fn reply(body: &[u8]) -> Result<Bytes, Malformed> {
    match read_sealed(body, MAX_FRAME)? {
        Sealed::Reply(reply) => Ok(reply.frame.into()),
        Sealed::Request(_) => Err(Malformed::Member("result")),
    }
}
