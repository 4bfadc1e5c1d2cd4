//! A frame: what parses is deterministic CBOR to the last byte, and says what it was read as.

use bulla_seal::{Detail, Handle, Parsed};
use bytes::Bytes;

use super::refused;
use crate::Saw;
use crate::cbor::Item;

const MAX: usize = 1 << 20;

/// Any bytes as a frame.
pub fn run(input: &[u8]) -> Saw {
    let parsed = match Parsed::parse(Bytes::copy_from_slice(input), MAX) {
        Ok(parsed) => parsed,
        Err(refusal) => return refused(refusal),
    };
    let item = Item::read(input).expect("what parses is CBOR");
    assert_eq!(item.to_vec(), input, "what parses is written the one way that there is");
    let [version, envelope, offer, statement] = item.items() else { panic!("{item:?}") };
    assert_eq!(*version, Item::Plain(0, 1));
    let part = |item: &Item| (*item != Item::Plain(7, 22)).then(|| item.to_vec());
    assert_eq!(parsed.offer().map(<[u8]>::to_vec), part(offer));
    assert_eq!(parsed.statement().map(<[u8]>::to_vec), part(statement));
    // With a proof, the envelope is an array around the COSE structure.
    let cose = match envelope {
        Item::List(..) => &envelope.items()[0],
        tagged => tagged,
    };
    check_header(&parsed, cose);
    let _ = parsed.digest();
    format!("{:?} {:?} {}", parsed.header().kind, parsed.header().level, parsed.offer().is_some())
}

fn check_header(parsed: &Parsed, cose: &Item) {
    let header = parsed.header();
    let bytes = cose.items()[0].bytes();
    assert!(bytes.len() <= 288, "a header has at most 288 bytes");
    let map = Item::read(bytes).expect("a header is CBOR");
    assert_eq!(map.to_vec(), bytes, "a header is written the one way that there is");
    let handle = map.get(4).expect("every header has a handle").bytes();
    match header.handle {
        Handle::Key(kid) => assert_eq!(handle, kid.0),
        Handle::Session(id) => assert_eq!(handle, id.0),
    }
    let claims = map.get(15).expect("every header has claims");
    assert_eq!(claims.get(7).expect("an id").bytes(), header.id.0);
    assert_eq!(claims.get(6), Some(&Item::Plain(0, header.iat)));
    match header.detail {
        Detail::Reply { .. } => assert_eq!((claims.get(1), claims.get(4)), (None, None)),
        _ => {
            assert_eq!(claims.get(4), Some(&Item::Plain(0, header.exp)));
            let iss = claims.get(1).expect("a sender").bytes();
            assert_eq!(parsed.claimed_sender().as_bytes(), iss);
        }
    }
}
