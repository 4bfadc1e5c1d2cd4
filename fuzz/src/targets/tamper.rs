//! A genuine message that is altered: it never opens, unless what was altered is not of the
//! message (the offer and statement beside it).

use bulla_seal::*;
use bytes::Bytes;

use super::{FIXED, NOW, hedge, refused};
use crate::Saw;

fn genuine(n: u8) -> Frame {
    let arguments = [0x18, 0x20 | n];
    let body = RequestBody {
        namespace: (n.is_multiple_of(2)).then_some("guest"),
        method: "resize",
        version: "1.0",
        args: if n.is_multiple_of(8) { &arguments } else { &[0xa0] },
        context: None,
        trace_parent: None,
        reply_to: Some("component.control.9f3a"),
    };
    let mut buf = MessageBuf::with_capacity(64);
    body.write(buf.sink());
    let protection = if n.is_multiple_of(3) { Protection::Maced } else { Protection::Sealed };
    let spec = RequestSpec {
        kind: if n.is_multiple_of(4) { MessageKind::Cast } else { MessageKind::Call },
        route: &FIXED.route,
        expires: NOW.secs() + 60,
        protection,
    };
    let sealed = FIXED.session.seal_request(&spec, &hedge(n.into()), buf).expect("it is sealed");
    sealed.into_frame(None)
}

/// The first byte chooses a message; then each three bytes are a place, and what is put there.
pub fn run(input: &[u8]) -> Saw {
    let Some((first, changes)) = input.split_first() else { return "nothing".into() };
    let frame = genuine(*first);
    let mut bytes = frame.bytes().to_vec();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] ^= change[2];
    }
    let expected = Expected { level: Level::Signed, ..Expected::new(&FIXED.route, NOW) };
    let opened = Parsed::parse(Bytes::from(bytes.clone()), 1 << 20)
        .and_then(|parsed| FIXED.session.open_request(parsed, &expected));
    match opened {
        Ok(request) => {
            let envelope = frame.envelope();
            assert_eq!(bytes[2..2 + envelope.len()], *envelope, "an altered message opened");
            assert_eq!(request.digest(), frame.digest());
            "opened".into()
        }
        Err(refusal) => {
            assert_ne!(&bytes[..], &frame.bytes()[..], "a genuine message was refused: {refusal}");
            refused(refusal)
        }
    }
}
