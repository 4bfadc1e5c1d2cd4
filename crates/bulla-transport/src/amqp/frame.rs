//! Frames: what is on the wire between the greeting and the end.

use super::error::Malformed;

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
/// The last byte of every frame.
pub(super) const END: u8 = 0xCE;
/// What a frame has around its payload.
pub(super) const AROUND: usize = 8;
/// The largest frame that either side may send before they agreed on another limit, and what we ask
/// for.
pub(super) const FRAME_MAX: u32 = 131_072;
/// The smallest limit that the protocol allows.
pub(super) const FRAME_MIN: u32 = 4096;

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) channel: u16,
    pub(super) payload: &'a [u8],
}

/// What the first bytes of a buffer are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A frame, and what comes after it.
    Frame(Frame<'a>, &'a [u8]),
    /// The beginning of one: it has so many bytes as far as can be told.
    Incomplete(usize),
}

/// Takes the first frame of `bytes`. Its length is judged as soon as it is there, so that nobody
/// waits, or makes room, for more than was agreed.
pub(super) fn parse(bytes: &[u8], limit: u32) -> Result<Parsed<'_>, Malformed> {
    let Some((&[kind, c0, c1, s0, s1, s2, s3], rest)) = bytes.split_first_chunk::<7>() else {
        return Ok(Parsed::Incomplete(AROUND));
    };
    if bytes.starts_with(b"AMQP") {
        return Err(Malformed("it speaks another version of the protocol"));
    }
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    if size > limit.saturating_sub(AROUND as u32) {
        return Err(Malformed("a frame that is larger than agreed"));
    }
    let size = size as usize;
    let Some((payload, after)) = rest.split_at_checked(size) else {
        return Ok(Parsed::Incomplete(size + AROUND));
    };
    match after.split_first() {
        None => Ok(Parsed::Incomplete(size + AROUND)),
        Some((&END, after)) => {
            let channel = u16::from_be_bytes([c0, c1]);
            Ok(Parsed::Frame(Frame { kind, channel, payload }, after))
        }
        Some(_) => Err(Malformed("a frame without its end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_or_waited_for_or_refused() {
        let bytes = [METHOD, 0, 3, 0, 0, 0, 2, 7, 8, END, 9];
        let Parsed::Frame(frame, rest) = parse(&bytes, FRAME_MIN).unwrap() else { panic!() };
        assert_eq!(frame, Frame { kind: METHOD, channel: 3, payload: &[7, 8] });
        assert_eq!(rest, [9]);
        for cut in 0..10 {
            let parsed = parse(&bytes[..cut], FRAME_MIN).unwrap();
            let wanted = if cut < 7 { AROUND } else { 10 };
            assert_eq!(parsed, Parsed::Incomplete(wanted), "{cut}");
        }
        let mut other = bytes;
        other[9] = 0;
        assert!(parse(&other, FRAME_MIN).is_err());
        // Told by the length alone, before any of it is there.
        assert!(parse(&[BODY, 0, 1, 0, 0, 0x0f, 0xf9], FRAME_MIN).is_err());
        assert!(parse(&[BODY, 0, 1, 0, 0, 0x0f, 0xf8], FRAME_MIN).is_ok());
        assert!(parse(b"AMQP\x00\x00\x09\x01", FRAME_MIN).is_err());
    }
}
