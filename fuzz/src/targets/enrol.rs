//! A request to enrol, and an answer: parsed, and never taken without the token.

use bulla_seal::enrol::{JoinToken, Request};
use bulla_seal::{Secret, TokenId};

use super::refused;
use crate::Saw;
use crate::cbor::Item;

/// Any bytes as a request.
pub fn run(input: &[u8]) -> Saw {
    let request = match Request::parse(input) {
        Ok(request) => request,
        Err(refusal) => return refused(refusal),
    };
    let item = Item::read(input).expect("what parses is CBOR");
    assert_eq!(item.to_vec(), input, "what parses is written the one way that there is");
    assert_eq!(item.items()[1].bytes(), request.token().as_bytes());
    assert_eq!(item.items()[3].bytes(), request.audience().0);
    let token = JoinToken { id: TokenId([0x77; 16]), secret: Secret::new([0x78; 32]) };
    match request.check_proof(&token.verifier()) {
        // Made with that token: the corpus has one.
        Ok(()) => "proven".to_owned(),
        Err(refusal) => refused(refusal),
    }
}
