//! Taking frames apart as anyone on the bus can: only lengths are looked at, nothing is checked.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Where the parts of a frame are: `[1, envelope, offer, statement]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) envelope: Range<usize>,
    pub(super) offer: Range<usize>,
    pub(super) statement: Range<usize>,
}

const FRAME_OF_FOUR: u8 = 0x84;
const NULL: &[u8] = &[0xf6];

/// What is put together out of two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splice {
    /// This envelope beside the other's offer.
    Offer,
    /// This envelope and offer beside the other's statement.
    Statement,
    /// This header before the other's ciphertext.
    Body,
    /// The head of this frame and the tail of the other, cut at that byte (modulo its length).
    Tail(u64),
}

/// What is taken off a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strip {
    /// The offer (or what stands in its place).
    Offer,
    /// The statement.
    Statement,
    /// Everything that is not the frame: hint, time to live, flags.
    Properties,
}

/// Takes a frame apart; `None` if it has another shape.
pub(super) fn parts(frame: &[u8]) -> Option<Parts> {
    if *frame.first()? != FRAME_OF_FOUR {
        return None;
    }
    let start = item_end(frame, 1)?;
    let envelope = start..item_end(frame, start)?;
    let offer = envelope.end..item_end(frame, envelope.end)?;
    let statement = offer.end..item_end(frame, offer.end)?;
    (statement.end == frame.len()).then_some(Parts { envelope, offer, statement })
}

/// Puts two frames together; the first as it is if they can't be.
pub(super) fn splice(this: &Bytes, other: &Bytes, what: Splice) -> Bytes {
    try_splice(this, other, what).unwrap_or_else(|| this.clone())
}

fn try_splice(this: &Bytes, other: &Bytes, what: Splice) -> Option<Bytes> {
    if let Splice::Tail(at) = what {
        let at = usize::try_from(at % (this.len() as u64).max(1)).ok()?;
        return Some(joined(&[this.get(..at)?, other.get(at..).unwrap_or_default()]));
    }
    let (mine, theirs) = (parts(this)?, parts(other)?);
    match what {
        Splice::Offer => replaced(this, mine.offer, other.get(theirs.offer)?),
        Splice::Statement => replaced(this, mine.statement, other.get(theirs.statement)?),
        _ => {
            let (a, b) = (body(this, &mine.envelope)?, body(other, &theirs.envelope)?);
            replaced(this, a..mine.envelope.end, other.get(b..theirs.envelope.end)?)
        }
    }
}

/// The frame without a part; as it is if it has another shape.
pub(super) fn strip(frame: &Bytes, what: Strip) -> Bytes {
    let place = parts(frame).and_then(|parts| match what {
        Strip::Offer => Some(parts.offer),
        Strip::Statement => Some(parts.statement),
        Strip::Properties => None,
    });
    place.and_then(|place| replaced(frame, place, NULL)).unwrap_or_else(|| frame.clone())
}

/// The frame with another item in its last place; as it is if it has another shape.
pub(super) fn last(frame: &Bytes, item: &[u8]) -> Bytes {
    let place = parts(frame).map(|parts| parts.statement);
    place.and_then(|place| replaced(frame, place, item)).unwrap_or_else(|| frame.clone())
}

/// `frame` with one bit inverted, modulo its length in bits.
pub fn flip(frame: &Bytes, bit: u64) -> Bytes {
    let mut bytes = BytesMut::from(&frame[..]);
    let bit = bit % (bytes.len() as u64 * 8).max(1);
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
        *byte ^= 1 << (bit % 8);
    }
    bytes.freeze()
}

/// Its first `keep` bytes, modulo its length.
pub fn cut(frame: &Bytes, keep: u64) -> Bytes {
    let keep = usize::try_from(keep % (frame.len() as u64).max(1)).unwrap_or_default();
    frame.slice(..keep)
}

/// Where an envelope's header ends: after an outer array, if it has a proof, the tag and the
/// array.
fn body(frame: &[u8], envelope: &Range<usize>) -> Option<usize> {
    let mut at = envelope.start;
    while at < envelope.end {
        let (major, _, next) = head(frame, at)?;
        match major {
            ARRAY | TAG => at = next,
            _ => return item_end(frame, at).filter(|end| *end < envelope.end),
        }
    }
    None
}

fn replaced(frame: &Bytes, place: Range<usize>, with: &[u8]) -> Option<Bytes> {
    Some(joined(&[frame.get(..place.start)?, with, frame.get(place.end..)?]))
}

fn joined(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// Major type, argument and end of an item's head (RFC 8949 section 3).
fn head(bytes: &[u8], at: usize) -> Option<(u8, u64, usize)> {
    let first = *bytes.get(at)?;
    let at = at + 1;
    let width = match first & 31 {
        small @ 0..=23 => return Some((first >> 5, small.into(), at)),
        width @ 24..=27 => 1 << (width - 24),
        _ => return None,
    };
    let end = at + width;
    let value = bytes.get(at..end)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some((first >> 5, value, end))
}

/// Where the item that starts at `at` ends.
fn item_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut pending = 1u64;
    while pending > 0 {
        let (major, value, next) = head(bytes, at)?;
        at = next;
        pending -= 1;
        match major {
            BYTES | TEXT => at = at.checked_add(usize::try_from(value).ok()?)?,
            ARRAY => pending = pending.checked_add(value)?,
            MAP => pending = pending.checked_add(value.checked_mul(2)?)?,
            TAG => pending += 1,
            _ => {}
        }
    }
    (at <= bytes.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[1, 16([h'..', {}, h'..']), offer, null]`.
    fn frame(header: u8, body: u8, offer: &[u8]) -> Bytes {
        let envelope = [0xd0, 0x83, 0x42, header, header, 0xa0, 0x43, body, body, body];
        joined(&[&[0x84, 0x01], &envelope, offer, NULL])
    }

    #[test]
    fn frames_come_apart_and_together() {
        let offer = [0xd2, 0x84, 0x41, 9, 0xa0, 0x41, 8, 0x41, 7];
        let (a, b) = (frame(1, 2, &offer), frame(3, 4, NULL));
        assert_eq!(parts(&a).map(|parts| parts.offer.len()), Some(offer.len()));
        assert_eq!(strip(&a, Strip::Offer), frame(1, 2, NULL));
        assert_eq!(splice(&b, &a, Splice::Offer), frame(3, 4, &offer));
        assert_eq!(splice(&a, &b, Splice::Body), frame(1, 4, &offer));
        assert_eq!(splice(&a, &b, Splice::Statement), a);
        assert_eq!(splice(&a, &b, Splice::Tail(4)), joined(&[&a[..4], &b[4..]]));
    }

    #[test]
    fn what_is_no_frame_is_left_alone_or_cut_safely() {
        let a = frame(1, 2, NULL);
        for end in 0..a.len() {
            let short = a.slice(..end);
            assert_eq!(parts(&short), None);
            assert_eq!(splice(&short, &a, Splice::Body), short);
            assert_eq!(splice(&a, &short, Splice::Offer), a);
            let _ = (splice(&short, &a, Splice::Tail(9)), cut(&short, 9), flip(&short, 9));
        }
        // A length that goes round is no length.
        assert_eq!(item_end(&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255], 0), None);
        assert_eq!(item_end(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255], 0), None);
    }

    #[test]
    fn a_flip_changes_one_bit() {
        let a = frame(1, 2, NULL);
        for bit in 0..a.len() as u64 * 8 {
            let flipped = flip(&a, bit);
            let ones: u32 = a.iter().zip(&flipped).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(ones, 1);
        }
    }
}
