//! The plaintext of a request, of a sender who is proven and hostile: written again it is the
//! same, and its arguments make no decoder fail.

use bulla_seal::*;
use serde_json::Value;

use super::{FIXED, NOW, hedge, refused};
use crate::Saw;

/// Any bytes as a request's plaintext.
pub fn run(input: &[u8]) -> Saw {
    let parsed = RequestBody::parse(input);
    // An eighth item is a signature, which is refused before the rest is looked at.
    assert_eq!(opens_as(input).is_ok(), parsed.is_ok(), "two readers differ");
    let body = match parsed {
        Ok(body) => body,
        Err(refusal) => return refused(refusal),
    };
    let mut again = Vec::new();
    body.write(&mut again);
    assert_eq!(again, input, "a body is written one way");
    let args = bulla_rpc::value::decode::<Value>(body.args).is_ok();
    let context = body.context.map(|item| bulla_rpc::value::decode::<Value>(item).is_ok());
    format!("{args} {context:?} {}", body.namespace.is_some())
}

/// Sealed by its sender and opened by its receiver.
fn opens_as(plaintext: &[u8]) -> Result<(), Refusal> {
    let spec = RequestSpec {
        kind: MessageKind::Call,
        route: &FIXED.route,
        expires: NOW.secs() + 60,
        protection: Protection::Sealed,
    };
    let buf = MessageBuf::from_plaintext(plaintext);
    let sealed =
        FIXED.session.seal_request(&spec, &hedge(1), buf).map_err(|_| Refusal::TooLarge)?;
    let parsed = Parsed::parse(sealed.into_frame(None).bytes().clone(), 1 << 20)?;
    let request = FIXED.session.open_request(parsed, &Expected::new(&FIXED.route, NOW))?;
    request.body().map(|_| ())
}
