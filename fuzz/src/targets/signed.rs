//! What issuers sign. The input is the payload; the target signs it with a key that is trusted,
//! so that the decoder behind the signature is reached.

use bulla_seal::sign::{SignatureUse, sign1};

use super::{FIXED, NOW, refused};
use crate::Saw;

/// Any payload as an agent's credential.
pub fn credential(input: &[u8]) -> Saw {
    let bytes = sign1(SignatureUse::Credential, &FIXED.keys[0], Some(kid(0xa1)), input);
    match FIXED.trust.verify(&bytes, NOW) {
        Ok(signed) => {
            let again = FIXED.agents.issue(&signed).expect("what verifies can be issued");
            assert_eq!(again.as_bytes(), &bytes, "a credential is written one way");
            assert!(signed.party.principal.is_agent(), "an issuer of agents spoke for another");
            format!("{:?} {}", signed.kem.is_some(), signed.roles.len())
        }
        Err(refusal) => refused(refusal),
    }
}

/// Any payload as a statement of revocation.
pub fn statement(input: &[u8]) -> Saw {
    let bytes = sign1(SignatureUse::Statement, &FIXED.keys[1], Some(kid(0xe1)), input);
    let claimed = bulla_seal::statement::claimed_epoch(&bytes);
    match FIXED.trust.verify_statement(&bytes) {
        Ok(signed) => {
            let again = FIXED.revocation.state(&signed).expect("what verifies can be stated");
            assert_eq!(again.as_bytes(), &bytes, "a statement is written one way");
            assert_eq!(claimed, Ok(signed.epoch), "the quick look says another epoch");
            format!("{} {}", signed.revoked.len(), signed.lowest.len())
        }
        Err(refusal) => refused(refusal),
    }
}

/// Any payload as an operator's exemption.
pub fn exemption(input: &[u8]) -> Saw {
    let bytes = sign1(SignatureUse::Exemption, &FIXED.keys[2], Some(kid(0xf1)), input);
    match FIXED.trust.verify_exemption(&bytes) {
        Ok(signed) => {
            let again = FIXED.operator.exempt(&signed).expect("what verifies can be signed");
            assert_eq!(again.as_bytes(), &bytes, "an exemption is written one way");
            format!("{:?}", signed.level)
        }
        Err(refusal) => refused(refusal),
    }
}

fn kid(n: u8) -> bulla_seal::Kid {
    bulla_seal::Kid([n; 8])
}
