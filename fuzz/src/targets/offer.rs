//! An offer: parsed, judged, and never taken unless somebody known signed it.

use bulla_seal::{Offer, Party, Principal};

use super::{FIXED, NOW, refused};
use crate::Saw;
use crate::cbor::Item;

/// Any bytes as an offer.
pub fn run(input: &[u8]) -> Saw {
    let offer = match Offer::parse(input) {
        Ok(offer) => offer,
        Err(refusal) => return refused(refusal),
    };
    let item = Item::read(input).expect("what parses is CBOR");
    assert_eq!(item.to_vec(), input, "what parses is written the one way that there is");
    let payload = item.items()[2].bytes();
    let payload_item = Item::read(payload).expect("so is its payload");
    assert_eq!(payload_item.to_vec(), payload);
    assert_eq!(payload_item.items()[3].bytes(), offer.credential());
    assert_eq!(payload_item.items()[4].bytes(), offer.audience().0);
    let me = Party::new(Principal::agent("db-1").expect("a name"), 1);
    let said = match offer.check(&me, NOW, 120) {
        Ok(()) => "good".to_owned(),
        Err(refusal) => refused(refusal),
    };
    // The vectors' issuers are not among those that are trusted here.
    assert!(FIXED.trust.verify(offer.credential(), NOW).is_err());
    format!("{:?} {said}", offer.suite())
}
