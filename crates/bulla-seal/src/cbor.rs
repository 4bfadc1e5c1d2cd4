//! The deterministic CBOR (RFC 8949 section 4.2.1) of the closed profile, by hand: a writer that
//! makes only that, and a reader that takes nothing else.
//!
//! The reader works on borrowed bytes and allocates nothing. Any integer that could be shorter,
//! any indefinite length, tag, float or simple value that the profile does not name is refused.

use bytes::BytesMut;

use crate::mutants::{Check, off};
use crate::refusal::Refusal;

/// Where a [`Writer`] writes to.
pub trait Sink {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A sink of fixed size on the stack, for the structures that every message needs.
pub(crate) struct Stack<const N: usize> {
    bytes: [u8; N],
    len: usize,
    overflow: bool,
}

impl<const N: usize> Stack<N> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { bytes: [0; N], len: 0, overflow: false }
    }

    /// What was written; `None` if it did not fit.
    #[inline]
    pub(crate) fn get(&self) -> Option<&[u8]> {
        if self.overflow { None } else { self.bytes.get(..self.len) }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl<const N: usize> Sink for Stack<N> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(to) => {
                to.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.overflow = true,
        }
    }
}

const UINT: u8 = 0;
const NINT: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;
pub(crate) const NULL: u8 = 0xf6;

/// How many bytes the head of an item with argument `value` takes.
pub(crate) const fn head_len(value: u64) -> usize {
    match value {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Writes deterministic CBOR. The caller puts map keys in order.
pub struct Writer<'a, S: Sink + ?Sized> {
    sink: &'a mut S,
}

impl<'a, S: Sink + ?Sized> Writer<'a, S> {
    /// Appends to `sink`.
    pub fn new(sink: &'a mut S) -> Self {
        Self { sink }
    }

    #[inline]
    fn head(&mut self, major: u8, value: u64) {
        match value {
            0..=23 => self.sink.put(&[major << 5 | value as u8]),
            _ => self.long_head(major << 5, value),
        }
    }

    fn long_head(&mut self, major: u8, value: u64) {
        let be = value.to_be_bytes();
        let [.., b4, b5, b6, b7] = be;
        match value {
            0..=0xff => self.sink.put(&[major | 24, b7]),
            0x100..=0xffff => self.sink.put(&[major | 25, b6, b7]),
            0x1_0000..=0xffff_ffff => self.sink.put(&[major | 26, b4, b5, b6, b7]),
            _ => {
                self.sink.put(&[major | 27]);
                self.sink.put(&be);
            }
        }
    }

    /// An unsigned integer.
    pub fn uint(&mut self, value: u64) {
        self.head(UINT, value);
    }

    /// A signed integer.
    pub fn int(&mut self, value: i64) {
        if value >= 0 {
            self.head(UINT, value.unsigned_abs());
        } else {
            self.head(NINT, !value as u64);
        }
    }

    /// A byte string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.bytes_head(value.len());
        self.sink.put(value);
    }

    /// A byte string of 16 bytes, in one piece.
    #[inline]
    pub(crate) fn fixed(&mut self, value: &[u8; 16]) {
        let mut item = [BYTES << 5 | 16; 17];
        let [_, rest @ ..] = &mut item;
        *rest = *value;
        self.sink.put(&item);
    }

    /// The head of a byte string of `len` bytes that the caller appends.
    pub fn bytes_head(&mut self, len: usize) {
        self.head(BYTES, len as u64);
    }

    /// A text string.
    pub fn text(&mut self, value: &str) {
        self.head(TEXT, value.len() as u64);
        self.sink.put(value.as_bytes());
    }

    /// A text string or null.
    pub fn text_or_null(&mut self, value: Option<&str>) {
        match value {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// A byte string or null.
    pub fn bytes_or_null(&mut self, value: Option<&[u8]>) {
        match value {
            Some(bytes) => self.bytes(bytes),
            None => self.null(),
        }
    }

    /// The head of an array of `len` items.
    pub fn array(&mut self, len: usize) {
        self.head(ARRAY, len as u64);
    }

    /// The head of a map of `len` pairs.
    pub fn map(&mut self, len: usize) {
        self.head(MAP, len as u64);
    }

    /// A tag.
    pub fn tag(&mut self, tag: u64) {
        self.head(TAG, tag);
    }

    /// Null.
    pub fn null(&mut self) {
        self.sink.put(&[NULL]);
    }

    /// An item that is encoded already.
    pub fn raw(&mut self, item: &[u8]) {
        self.sink.put(item);
    }
}

/// Deepest nesting that [`Reader::skip`] follows inside a plaintext.
pub const MAX_NESTING: usize = 64;
/// How deep it could follow.
const LEVELS: usize = if cfg!(bulla_mutants) { 1024 } else { MAX_NESTING };

/// Reads the closed profile from borrowed bytes. Every refusal is [`Refusal::Malformed`].
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How far it has read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Everything must have been read.
    pub fn end(&self) -> Result<(), Refusal> {
        let all = self.at == self.bytes.len() || off(Check::TrailingBytes);
        if all { Ok(()) } else { Err(Refusal::Malformed) }
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let end = self.at.checked_add(len).ok_or(Refusal::Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Refusal::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Refusal> {
        let byte = *self.bytes.get(self.at).ok_or(Refusal::Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn next<const N: usize>(&mut self) -> Result<&'a [u8; N], Refusal> {
        let rest = self.bytes.get(self.at..).ok_or(Refusal::Malformed)?;
        let taken = rest.first_chunk().ok_or(Refusal::Malformed)?;
        self.at += N;
        Ok(taken)
    }

    /// Major type and argument, in their shortest form only. The sizes that headers are full of
    /// are read here.
    #[inline]
    fn head(&mut self) -> Result<(u8, u64), Refusal> {
        let first = self.byte()?;
        let (major, info) = (first >> 5, first & 0x1f);
        let (value, least) = match info {
            0..20 if major != SIMPLE => (info.into(), 0),
            24 if major != SIMPLE => (u64::from(self.byte()?), 24),
            25 if major != SIMPLE => (u16::from_be_bytes(*self.next()?).into(), 0x100),
            26 if major != SIMPLE => (u32::from_be_bytes(*self.next()?).into(), 0x1_0000),
            _ => return self.long_head(major, info),
        };
        let shortest = value >= least || off(Check::Canonical);
        if shortest { Ok((major, value)) } else { Err(Refusal::Malformed) }
    }

    #[cold]
    fn long_head(&mut self, major: u8, info: u8) -> Result<(u8, u64), Refusal> {
        let be = |bytes: &[u8]| bytes.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let value = match info {
            0..=23 => u64::from(info),
            24 => be(self.take(1)?),
            25 => be(self.take(2)?),
            26 => be(self.take(4)?),
            27 => be(self.take(8)?),
            _ => return Err(Refusal::Malformed),
        };
        let shortest = match info {
            24 => value > 23,
            25 => value > 0xff,
            26 => value > 0xffff,
            27 => value > 0xffff_ffff,
            _ => true,
        };
        let ok = match major {
            // False, true, null and the three sizes of float; no other simple value.
            SIMPLE => matches!(info, 20..=22 | 25..=27),
            _ => shortest,
        };
        if !ok {
            return Err(Refusal::Malformed);
        }
        Ok((major, value))
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<u64, Refusal> {
        match self.head()? {
            (major, value) if major == wanted => Ok(value),
            _ => Err(Refusal::Malformed),
        }
    }

    /// An unsigned integer.
    #[inline]
    pub fn uint(&mut self) -> Result<u64, Refusal> {
        self.expect(UINT)
    }

    /// An unsigned integer that fits 32 bits.
    pub fn uint32(&mut self) -> Result<u32, Refusal> {
        self.uint()?.try_into().map_err(|_| Refusal::Malformed)
    }

    /// A signed integer.
    pub fn int(&mut self) -> Result<i64, Refusal> {
        match self.head()? {
            (UINT, value) => i64::try_from(value).map_err(|_| Refusal::Malformed),
            (NINT, value) => {
                i64::try_from(value).map(|value| !value).map_err(|_| Refusal::Malformed)
            }
            _ => Err(Refusal::Malformed),
        }
    }

    /// A string's bytes. Whatever its head says, they must be there before anyone acts on it.
    #[inline]
    fn string(&mut self, major: u8) -> Result<&'a [u8], Refusal> {
        let len = usize::try_from(self.expect(major)?).map_err(|_| Refusal::Malformed)?;
        if off(Check::Lengths) {
            // Room is made before anything is there, as by a reader that believes what it reads.
            std::mem::forget(Vec::<u8>::with_capacity(len.min(64 << 20)));
        }
        self.take(len)
    }

    /// A byte string.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Refusal> {
        self.string(BYTES)
    }

    /// A byte string of exactly `N` bytes.
    #[inline]
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        self.fixed_ref().copied()
    }

    /// The same, where it stands.
    #[inline]
    pub(crate) fn fixed_ref<const N: usize>(&mut self) -> Result<&'a [u8; N], Refusal> {
        self.bytes()?.try_into().map_err(|_| Refusal::Malformed)
    }

    /// A byte string, or null.
    pub fn bytes_or_null(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        if self.null()? { Ok(None) } else { self.bytes().map(Some) }
    }

    /// A text string.
    pub fn text(&mut self) -> Result<&'a str, Refusal> {
        std::str::from_utf8(self.string(TEXT)?).map_err(|_| Refusal::Malformed)
    }

    /// A text string of which only the bytes are looked at.
    #[inline]
    pub(crate) fn text_bytes(&mut self) -> Result<&'a [u8], Refusal> {
        let text = self.string(TEXT)?;
        if text.is_ascii() || std::str::from_utf8(text).is_ok() {
            Ok(text)
        } else {
            Err(Refusal::Malformed)
        }
    }

    /// One of two one-byte heads and nothing else; whether it is the first.
    #[inline]
    pub(crate) fn choice(&mut self, one: u8, other: u8) -> Result<bool, Refusal> {
        match self.byte()? {
            head if head == one => Ok(true),
            head if head == other => Ok(false),
            _ => Err(Refusal::Malformed),
        }
    }

    /// These very bytes and nothing else: several heads at once.
    #[inline]
    pub(crate) fn literal<const N: usize>(&mut self, wanted: &[u8; N]) -> Result<(), Refusal> {
        if self.next::<N>()? == wanted { Ok(()) } else { Err(Refusal::Malformed) }
    }

    /// A text string, or null.
    pub fn text_or_null(&mut self) -> Result<Option<&'a str>, Refusal> {
        if self.null()? { Ok(None) } else { self.text().map(Some) }
    }

    /// Takes a null if the next item is one.
    #[inline]
    pub fn null(&mut self) -> Result<bool, Refusal> {
        match self.bytes.get(self.at) {
            Some(&NULL) => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => Ok(false),
            None => Err(Refusal::Malformed),
        }
    }

    /// The head of an array of exactly `len` items.
    #[inline]
    pub fn array(&mut self, len: usize) -> Result<(), Refusal> {
        self.this_head(ARRAY, len as u64)
    }

    /// This very head and nothing else. A short one is one byte, which is all that is looked at.
    #[inline]
    fn this_head(&mut self, major: u8, value: u64) -> Result<(), Refusal> {
        let is = if value < 24 {
            self.byte()? == major << 5 | value as u8
        } else {
            self.expect(major)? == value
        };
        if is { Ok(()) } else { Err(Refusal::Malformed) }
    }

    /// The head of an array of at most `max` items.
    pub fn array_up_to(&mut self, max: usize) -> Result<usize, Refusal> {
        match usize::try_from(self.expect(ARRAY)?) {
            Ok(len) if len <= max => Ok(len),
            _ => Err(Refusal::Malformed),
        }
    }

    /// The head of a map of exactly `len` pairs.
    #[inline]
    pub fn map(&mut self, len: usize) -> Result<(), Refusal> {
        self.this_head(MAP, len as u64)
    }

    /// The head of a map of at most `max` pairs.
    pub fn map_up_to(&mut self, max: usize) -> Result<usize, Refusal> {
        match usize::try_from(self.expect(MAP)?) {
            Ok(len) if len <= max => Ok(len),
            _ => Err(Refusal::Malformed),
        }
    }

    /// True or false.
    pub fn bool(&mut self) -> Result<bool, Refusal> {
        self.choice(SIMPLE << 5 | 21, SIMPLE << 5 | 20)
    }

    /// A given tag.
    pub fn tag(&mut self, wanted: u64) -> Result<(), Refusal> {
        self.this_head(TAG, wanted)
    }

    /// Any tag.
    pub fn any_tag(&mut self) -> Result<u64, Refusal> {
        self.expect(TAG)
    }

    /// The given unsigned integer and nothing else: a map key, a version.
    #[inline]
    pub fn this_uint(&mut self, wanted: u64) -> Result<(), Refusal> {
        self.this_head(UINT, wanted)
    }

    /// The given signed integer and nothing else.
    #[inline]
    pub fn this_int(&mut self, wanted: i64) -> Result<(), Refusal> {
        if wanted >= 0 {
            self.this_head(UINT, wanted.unsigned_abs())
        } else {
            self.this_head(NINT, !wanted as u64)
        }
    }

    /// One whole item of a plaintext, unread: well-formed, definite, at most [`MAX_NESTING`]
    /// deep, no tags. Floats, booleans and null are allowed here.
    pub fn skip(&mut self) -> Result<&'a [u8], Refusal> {
        let start = self.at;
        // What is still to read at each level: no recursion, no allocation.
        let mut open = [0u64; LEVELS];
        let most = if off(Check::Nesting) { LEVELS } else { MAX_NESTING };
        let mut depth = 0usize;
        loop {
            let children = self.skip_one()?;
            if children > 0 {
                let level = open.get_mut(depth).filter(|_| depth < most);
                *level.ok_or(Refusal::Malformed)? = children;
                depth += 1;
                continue;
            }
            while let Some(above) = depth.checked_sub(1) {
                let left = open.get_mut(above).ok_or(Refusal::Malformed)?;
                *left -= 1;
                if *left > 0 {
                    break;
                }
                depth = above;
            }
            if depth == 0 {
                return self.bytes.get(start..self.at).ok_or(Refusal::Malformed);
            }
        }
    }

    /// Reads one head and its own bytes; how many items follow as its children.
    fn skip_one(&mut self) -> Result<u64, Refusal> {
        let left = |reader: &Self| (reader.bytes.len() - reader.at) as u64;
        match self.head()? {
            (UINT | NINT | SIMPLE, _) => Ok(0),
            (BYTES, len) if len <= left(self) => self.take(len as usize).map(|_| 0),
            (TEXT, len) if len <= left(self) => {
                let text = self.take(len as usize)?;
                std::str::from_utf8(text).map(|_| 0).map_err(|_| Refusal::Malformed)
            }
            (ARRAY, len) if len <= left(self) => Ok(len),
            (MAP, len) if len <= left(self) / 2 => Ok(len * 2),
            _ => Err(Refusal::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_their_shortest_form() {
        for value in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 40, u64::MAX] {
            let mut out = Vec::new();
            Writer::new(&mut out).uint(value);
            assert_eq!(out.len(), head_len(value));
            assert_eq!(Reader::new(&out).uint(), Ok(value));
        }
        for long in [&[0x18, 0x17][..], &[0x19, 0, 0xff], &[0x1a, 0, 0, 0xff, 0xff], &[0x1f]] {
            assert_eq!(Reader::new(long).uint(), Err(Refusal::Malformed), "{long:02x?}");
        }
    }

    #[test]
    fn negative_integers_round_trip() {
        for value in [-1, -8, -24, -25, -65_537, i64::MIN, 5] {
            let mut out = Vec::new();
            Writer::new(&mut out).int(value);
            assert_eq!(Reader::new(&out).int(), Ok(value));
        }
    }

    #[test]
    fn a_given_head_is_that_and_nothing_else() {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.array(4);
        w.int(-8);
        w.int(-65_537);
        w.uint(65_001);
        let mut r = Reader::new(&out);
        assert!(r.clone().array(3).is_err() && r.clone().map(4).is_err());
        assert_eq!(r.array(4), Ok(()));
        assert!(r.clone().this_int(8).is_err() && r.clone().this_int(-9).is_err());
        assert_eq!(r.this_int(-8), Ok(()));
        assert!(r.clone().this_int(65_536).is_err());
        assert_eq!(r.this_int(-65_537), Ok(()));
        assert_eq!(r.this_uint(65_001), Ok(()));
        assert!(r.this_uint(0).is_err() && Reader::new(&[0x18, 5]).this_uint(5).is_err());
    }

    #[test]
    fn skip_stops_at_the_end_of_one_item() {
        // [1, {"a": [true, null]}, h'00'] and one byte more.
        let item = [0x83, 0x01, 0xa1, 0x61, 0x61, 0x82, 0xf5, 0xf6, 0x41, 0x00, 0x05];
        let mut reader = Reader::new(&item);
        assert_eq!(reader.skip().unwrap().len(), 10);
        assert_eq!(reader.uint(), Ok(5));
    }

    #[test]
    fn skip_refuses_depth_tags_and_indefinite_lengths() {
        let mut deep = vec![0x81; MAX_NESTING];
        deep.push(0x01);
        assert!(Reader::new(&deep).skip().is_ok());
        deep.insert(0, 0x81);
        assert!(Reader::new(&deep).skip().is_err());
        for bad in [
            &[0xc1, 0x00][..],
            &[0x9f, 0xff],
            &[0x5f, 0xff],
            &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0x82, 1],
            &[],
        ] {
            assert!(Reader::new(bad).skip().is_err(), "{bad:02x?}");
        }
    }
}
