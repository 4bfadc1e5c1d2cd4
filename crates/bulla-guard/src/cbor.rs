//! The few CBOR items (RFC 8949, deterministic encoding) that keys are made of.

/// Where encoded bytes go: a buffer, or straight into a hash.
pub(crate) trait Sink {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

const UINT: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const NULL: u8 = 0xf6;

fn head(out: &mut impl Sink, major: u8, value: u64) {
    let major = major << 5;
    match value {
        0..=23 => out.put(&[major | value as u8]),
        24..=0xff => out.put(&[major | 24, value as u8]),
        0x100..=0xffff => {
            let [a, b] = (value as u16).to_be_bytes();
            out.put(&[major | 25, a, b]);
        }
        0x1_0000..=0xffff_ffff => {
            out.put(&[major | 26]);
            out.put(&(value as u32).to_be_bytes());
        }
        _ => {
            out.put(&[major | 27]);
            out.put(&value.to_be_bytes());
        }
    }
}

pub(crate) fn array(out: &mut impl Sink, len: u64) {
    head(out, ARRAY, len);
}

pub(crate) fn uint(out: &mut impl Sink, value: u64) {
    head(out, UINT, value);
}

pub(crate) fn text(out: &mut impl Sink, value: &str) {
    head(out, TEXT, value.len() as u64);
    out.put(value.as_bytes());
}

pub(crate) fn bytes(out: &mut impl Sink, value: &[u8]) {
    head(out, BYTES, value.len() as u64);
    out.put(value);
}

pub(crate) fn text_or_null(out: &mut impl Sink, value: Option<&str>) {
    match value {
        Some(value) => text(out, value),
        None => out.put(&[NULL]),
    }
}

/// Reads items back, strictly in the order in which they were written.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn head(&mut self, major: u8) -> Option<u64> {
        let first = *self.take(1)?.first()?;
        if first >> 5 != major {
            return None;
        }
        let width = match first & 31 {
            small @ 0..=23 => return Some(small.into()),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return None,
        };
        let value = self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        // One key is written one way: a longer head would be another key for the same claim.
        let shorter = match width {
            1 => 23,
            2 => 0xff,
            4 => 0xffff,
            _ => 0xffff_ffff,
        };
        (value > shorter).then_some(value)
    }

    pub(crate) fn array(&mut self) -> Option<u64> {
        self.head(ARRAY)
    }

    pub(crate) fn uint(&mut self) -> Option<u64> {
        self.head(UINT)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.head(BYTES)?;
        self.take(usize::try_from(len).ok()?)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let len = self.head(TEXT)?;
        std::str::from_utf8(self.take(usize::try_from(len).ok()?)?).ok()
    }

    pub(crate) fn text_or_null(&mut self) -> Option<Option<&'a str>> {
        if self.0.first() == Some(&NULL) {
            self.take(1)?;
            return Some(None);
        }
        self.text().map(Some)
    }
}
