//! The signature inside the seal (protocol section 1, last lines): what a topic may demand so
//! that a thief of the receiver's KEM key can't forge requests to that receiver.
//!
//! The plaintext [namespace, …, reply address] becomes [namespace, …, reply address, signature].
//! Signed is the array [label, header, external AAD, SHA-256(plaintext without the signature)],
//! so that a signed body can't be sealed again under another header either.

use crate::buffer::{Laid, MessageBuf};
use crate::cbor::{Reader, Stack, Writer};
use crate::header::MAX_HEADER;
use crate::id::Digest;
use crate::refusal::Refusal;
use crate::route::{ExternalAad, MAX_AAD};
use crate::sign::{SIGNATURE, SignatureUse, SigningKey, VerifyingKey};

/// CBOR head of an array of 7 and of 8 items: a body without and with a signature.
const PLAIN: u8 = 0x87;
const SIGNED: u8 = 0x88;
/// The signature as a byte string.
const TAIL: usize = 2 + SIGNATURE;

type ToSign = Stack<{ MAX_HEADER + MAX_AAD + 80 }>;

fn to_sign(header: &[u8], aad: &[u8], body: &Digest) -> ToSign {
    let mut out = ToSign::new();
    let mut w = Writer::new(&mut out);
    w.array(4);
    w.text(SignatureUse::Message.label());
    w.bytes(header);
    w.bytes(aad);
    w.bytes(body.as_bytes());
    out
}

/// Signs the body in `buf` and puts the signature behind it. The header has its id already: the
/// id is a PRF of the body, so one id never goes with two signatures.
pub(crate) fn sign(key: &SigningKey, laid: &Laid, buf: &mut MessageBuf) -> Option<()> {
    if buf.plaintext().first() != Some(&PLAIN) {
        return None;
    }
    let body = Digest::of(buf.plaintext());
    let to_sign = to_sign(buf.header(laid), buf.aad(laid), &body);
    let signature = key.sign(to_sign.get()?);
    *buf.first_mut()? = SIGNED;
    Writer::new(buf.sink()).bytes(&signature);
    Some(())
}

/// Whether an opened body has a signature; if so it must be `key`'s.
pub(crate) fn verify(
    key: Option<&VerifyingKey>,
    header: &[u8],
    aad: &ExternalAad<'_>,
    plaintext: &[u8],
) -> Result<bool, Refusal> {
    let Some((&SIGNED, rest)) = plaintext.split_first() else {
        return Ok(false);
    };
    let key = key.ok_or(Refusal::SignatureInvalid)?;
    let at = rest.len().checked_sub(TAIL).ok_or(Refusal::Malformed)?;
    let (body, signature) = rest.split_at_checked(at).ok_or(Refusal::Malformed)?;
    let mut r = Reader::new(signature);
    let signature = r.fixed::<SIGNATURE>()?;
    let body = Digest::of_parts(&[&[PLAIN], body]);
    let aad = aad.to_buf();
    let to_sign = to_sign(header, aad.get().ok_or(Refusal::Malformed)?, &body);
    key.verify(to_sign.get().ok_or(Refusal::Malformed)?, &signature)?;
    Ok(true)
}
