//! The one thing that is ever said unsealed: `offer-needed` (protocol section 3). It is not
//! believed; all that it can do is make a sender send the same envelope again, with its offer.

use bulla_seal::cbor::{Reader, Writer};
use bulla_seal::{Handle, MessageId};

/// Says which message named a session that its receiver does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OfferNeeded {
    pub(crate) message: MessageId,
}

impl OfferNeeded {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20);
        let mut w = Writer::new(&mut out);
        w.array(2);
        w.uint(0);
        w.bytes(self.message.as_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        r.array(2).ok()?;
        r.this_uint(0).ok()?;
        let message = MessageId(r.fixed().ok()?);
        r.end().ok()?;
        Some(Self { message })
    }

    /// Whether a message with this handle may be asked for with its offer.
    pub(crate) fn applies_to(handle: Handle) -> bool {
        matches!(handle, Handle::Session(_))
    }
}

/// The message that `offer-needed` is about, if these bytes are that: a carrier has to know where it goes.
pub fn offer_needed(bytes: &[u8]) -> Option<MessageId> {
    OfferNeeded::parse(bytes).map(|notice| notice.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_takes_nothing_else() {
        let notice = OfferNeeded { message: MessageId([7; 16]) };
        let bytes = notice.encode();
        assert_eq!(OfferNeeded::parse(&bytes), Some(notice));
        assert_eq!(OfferNeeded::parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(OfferNeeded::parse(&[0x84, 0x01, 0xf6, 0xf6, 0xf6]), None);
    }
}
