//! The plaintext of a reply, of a peer who is proven and hostile.

use bulla_seal::*;
use serde_json::Value;

use super::{FIXED, NOW, hedge, refused};
use crate::Saw;

/// The first byte chooses the outcome; the rest is its plaintext.
pub fn run(input: &[u8]) -> Saw {
    let Some((first, plaintext)) = input.split_first() else { return "nothing".into() };
    let outcome = match first % 3 {
        0 => Outcome::Value,
        1 => Outcome::Error,
        _ => Outcome::Progress,
    };
    let binding = ReplyBinding {
        request: MessageId([3; 16]),
        digest: Digest([4; 32]),
        level: Level::Sealed,
        route: FIXED.route.clone(),
    };
    let spec = ReplySpec { outcome, index: 0 };
    let buf = MessageBuf::from_plaintext(plaintext);
    let Ok(sealed) = FIXED.session.seal_reply(&binding, spec, &hedge(2), buf) else {
        return "not sealed".into();
    };
    let opened = Parsed::parse(sealed.into_frame(None).bytes().clone(), 1 << 20)
        .and_then(|parsed| FIXED.session.open_reply(parsed, &binding));
    let reply = match opened {
        Ok(reply) => reply,
        Err(refusal) => return refused(refusal),
    };
    assert_eq!(reply.payload(), plaintext);
    assert_eq!(reply.outcome, outcome);
    if outcome == Outcome::Error {
        let body = reply.error().expect("an error that opened can be read");
        let mut again = Vec::new();
        body.write(&mut again);
        assert_eq!(again, plaintext, "an error is written one way");
        return format!("error {}", body.details.is_some());
    }
    let _ = NOW;
    format!("{outcome:?} {}", bulla_rpc::value::decode::<Value>(plaintext).is_ok())
}
