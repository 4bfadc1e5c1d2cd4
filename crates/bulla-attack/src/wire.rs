//! Surgery on frames: what anybody can do who reads the protocol and owns no key.

use bulla_seal::SigningKey;
use bulla_seal::cbor::{Reader, Writer};
use bulla_seal::sign::{SignatureUse, Unverified, sign1};
use bytes::Bytes;

use crate::trouble::Trouble;

/// A frame, taken apart.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The COSE tag.
    pub tag: u64,
    /// The protected header.
    pub header: Vec<u8>,
    /// Ciphertext with its tag, or payload.
    pub content: Vec<u8>,
    /// MAC or signature of a readable message.
    pub authenticator: Option<Vec<u8>>,
    /// What ends a fanout's envelope, one item.
    pub proof: Option<Vec<u8>>,
    /// What stands beside the envelope, one item.
    pub offer: Option<Vec<u8>>,
    /// A statement of revocation that came along, one item.
    pub statement: Option<Vec<u8>>,
}

impl Parts {
    /// Takes a well-formed frame apart.
    pub fn of(frame: &[u8]) -> Result<Self, Trouble> {
        let mut r = Reader::new(frame);
        r.array(4)?;
        r.this_uint(1)?;
        let group = r.clone().array(2).is_ok();
        if group {
            r.array(2)?;
        }
        let tag = r.any_tag()?;
        r.array(if tag == 16 { 3 } else { 4 })?;
        let header = r.bytes()?.to_vec();
        r.map(0)?;
        let content = r.bytes()?.to_vec();
        let authenticator = if tag == 16 { None } else { Some(r.bytes()?.to_vec()) };
        let proof = if group { Some(r.skip()?.to_vec()) } else { None };
        let offer = if r.null()? { None } else { Some(signed(frame, &mut r)?) };
        let statement = if r.null()? { None } else { Some(signed(frame, &mut r)?) };
        Ok(Self { tag, header, content, authenticator, proof, offer, statement })
    }

    /// Puts them together again.
    pub fn frame(&self) -> Bytes {
        self.frame_with(None)
    }

    /// The same with an unusual head in front of the content.
    pub fn frame_with(&self, content_head: Option<&[u8]>) -> Bytes {
        let mut out = Vec::with_capacity(self.content.len() + self.header.len() + 64);
        let mut w = Writer::new(&mut out);
        w.array(4);
        w.uint(1);
        if self.proof.is_some() {
            w.array(2);
        }
        w.tag(self.tag);
        w.array(if self.tag == 16 { 3 } else { 4 });
        w.bytes(&self.header);
        w.map(0);
        match content_head {
            Some(head) => {
                w.raw(head);
                w.raw(&self.content);
            }
            None => w.bytes(&self.content),
        }
        if let Some(authenticator) = &self.authenticator {
            w.bytes(authenticator);
        }
        if let Some(proof) = &self.proof {
            w.raw(proof);
        }
        for item in [&self.offer, &self.statement] {
            match item {
                Some(item) => w.raw(item),
                None => w.null(),
            }
        }
        out.into()
    }

    /// The header, taken apart.
    pub fn head(&self) -> Result<Head, Trouble> {
        Head::of(&self.header)
    }

    /// The same frame with another header.
    #[must_use]
    pub fn with_head(&self, head: &Head) -> Self {
        Self { header: head.bytes(), ..self.clone() }
    }
}

fn signed(frame: &[u8], r: &mut Reader<'_>) -> Result<Vec<u8>, Trouble> {
    let start = r.position();
    r.tag(18)?;
    r.array(4)?;
    r.bytes()?;
    r.map(0)?;
    r.bytes()?;
    r.bytes()?;
    Ok(frame.get(start..r.position()).unwrap_or_default().to_vec())
}

/// A protected header, taken apart.
#[derive(Debug, Clone)]
pub struct Head {
    alg: i64,
    /// Key id or session id.
    pub handle: Vec<u8>,
    /// The sender's name, in a request.
    pub iss: Option<String>,
    /// Expiry, in a request.
    pub exp: Option<u64>,
    /// Issued-at.
    pub iat: u64,
    /// The message's id.
    pub id: Vec<u8>,
    typ: u64,
    /// Suite, kind, level, and what the kind has beside, each as one item.
    pub own: Vec<Vec<u8>>,
}

impl Head {
    fn of(header: &[u8]) -> Result<Self, Trouble> {
        let mut r = Reader::new(header);
        r.map(5)?;
        r.this_uint(1)?;
        let alg = r.int()?;
        r.this_uint(4)?;
        let handle = r.bytes()?.to_vec();
        r.this_uint(15)?;
        let request = r.clone().map(4).is_ok();
        r.map(if request { 4 } else { 2 })?;
        let (mut iss, mut exp) = (None, None);
        if request {
            r.this_uint(1)?;
            iss = Some(r.text()?.to_owned());
            r.this_uint(4)?;
            exp = Some(r.uint()?);
        }
        r.this_uint(6)?;
        let iat = r.uint()?;
        r.this_uint(7)?;
        let id = r.bytes()?.to_vec();
        r.this_uint(16)?;
        let typ = r.uint()?;
        r.this_int(-65_537)?;
        let count = r.array_up_to(16)?;
        let own = (0..count).map(|_| r.skip().map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
        Ok(Self { alg, handle, iss, exp, iat, id, typ, own })
    }

    /// Puts it together again.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        let mut w = Writer::new(&mut out);
        w.map(5);
        w.uint(1);
        w.int(self.alg);
        w.uint(4);
        w.bytes(&self.handle);
        w.uint(15);
        w.map(if self.iss.is_some() { 4 } else { 2 });
        if let Some(iss) = &self.iss {
            w.uint(1);
            w.text(iss);
            w.uint(4);
            w.uint(self.exp.unwrap_or_default());
        }
        w.uint(6);
        w.uint(self.iat);
        w.uint(7);
        w.bytes(&self.id);
        w.uint(16);
        w.uint(self.typ);
        w.int(-65_537);
        w.array(self.own.len());
        self.own.iter().for_each(|item| w.raw(item));
        out
    }

    /// Sets one of the protocol's own small integers: 0 suite, 1 kind, 2 level.
    pub fn set(&mut self, at: usize, value: u8) {
        if let Some(item) = self.own.get_mut(at) {
            *item = vec![value];
        }
    }
}

/// An offer with other times, signed anew by whoever holds its sender's key.
pub fn resign_offer(offer: &[u8], key: &SigningKey, iat: u64, exp: u64) -> Result<Bytes, Trouble> {
    let mut r = Reader::new(Unverified::parse(offer)?.dangerous_payload());
    r.array(10)?;
    let mut out = Vec::with_capacity(offer.len());
    let mut w = Writer::new(&mut out);
    w.array(10);
    for at in 0..10 {
        let item = r.skip()?;
        match at {
            7 => w.uint(iat),
            8 => w.uint(exp),
            _ => w.raw(item),
        }
    }
    Ok(sign1(SignatureUse::Offer, key, None, &out))
}

/// Inverts one bit.
pub fn flip(bytes: &[u8], bit: usize) -> Bytes {
    let mut out = bytes.to_vec();
    if let Some(byte) = out.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    out.into()
}

/// What turns `from` into `to` where it stands in a plaintext that begins `at` bytes into the
/// ciphertext: counter mode lets whoever knows the one write the other.
pub fn steer(content: &mut [u8], at: usize, from: &[u8], to: &[u8]) {
    let bytes = content.iter_mut().skip(at);
    bytes.zip(from.iter().zip(to)).for_each(|(byte, (from, to))| *byte ^= from ^ to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steering_is_exclusive_or() {
        let mut content = *b"xxworkxx";
        steer(&mut content, 2, b"work", b"wipe");
        assert_eq!(&content, b"xxwipexx");
        assert_eq!(flip(&[0, 0], 9), Bytes::from_static(&[0, 2]));
    }
}
