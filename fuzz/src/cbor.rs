//! A reader and a writer of CBOR of this crate's own, to hold the library's against.

/// One item. Byte and text strings are both bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Major types 0, 1 and 7 (simple values), with their argument.
    Plain(u8, u64),
    /// Major types 2 and 3.
    String(u8, Vec<u8>),
    /// An array, or a map's keys and values in turn.
    List(u8, Vec<Item>),
    /// A tag.
    Tag(u64, Box<Item>),
}

impl Item {
    /// Reads one item that fills `bytes`; `None` for what has indefinite lengths, floats, or is
    /// nested deeper than anything that the protocol takes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let item = read(&mut rest, 100)?;
        rest.is_empty().then_some(item)
    }

    /// Writes it with the shortest heads.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(major, value) => head(out, *major, *value),
            Self::String(major, bytes) => {
                head(out, *major, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Self::List(major, items) => {
                let each = if *major == 5 { 2 } else { 1 };
                head(out, *major, (items.len() / each) as u64);
                items.iter().for_each(|item| item.write(out));
            }
            Self::Tag(tag, item) => {
                head(out, 6, *tag);
                item.write(out);
            }
        }
    }

    /// Written anew.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// The items of an array.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(4, items) => items,
            Self::Tag(_, item) => item.items(),
            _ => &[],
        }
    }

    /// The value under an unsigned key of a map.
    pub fn get(&self, key: u64) -> Option<&Self> {
        let Self::List(5, items) = self else { return None };
        items.chunks_exact(2).find(|pair| pair[0] == Self::Plain(0, key)).map(|pair| &pair[1])
    }

    /// The bytes of a string.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::String(_, bytes) => bytes,
            _ => &[],
        }
    }
}

fn read(rest: &mut &[u8], depth: u32) -> Option<Item> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    let (major, value) = (first >> 5, argument(first & 31, rest)?);
    let depth = depth.checked_sub(1)?;
    match major {
        2 | 3 => {
            let (bytes, after) = rest.split_at_checked(usize::try_from(value).ok()?)?;
            *rest = after;
            Some(Item::String(major, bytes.to_vec()))
        }
        4 | 5 => {
            let count = value.checked_mul(u64::from(major) - 3)?;
            // No more items than bytes: a count alone makes nobody allocate.
            let count = usize::try_from(count).ok().filter(|count| *count <= rest.len())?;
            (0..count)
                .map(|_| read(rest, depth))
                .collect::<Option<_>>()
                .map(|i| Item::List(major, i))
        }
        6 => Some(Item::Tag(value, Box::new(read(rest, depth)?))),
        7 if first & 31 > 24 => None,
        _ => Some(Item::Plain(major, value)),
    }
}

fn argument(info: u8, rest: &mut &[u8]) -> Option<u64> {
    let width = match info {
        0..=23 => return Some(info.into()),
        24..=27 => 1 << (info - 24),
        _ => return None,
    };
    let (bytes, after) = rest.split_at_checked(width)?;
    *rest = after;
    Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let bytes = value.to_be_bytes();
    let (info, from) = match value {
        0..=23 => (value as u8, 8),
        24..=0xff => (24, 7),
        0x100..=0xffff => (25, 6),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 0),
    };
    out.push(major << 5 | info);
    out.extend_from_slice(&bytes[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_shortens() {
        let bytes = hex::decode("8401d083414040a0f6a201181903616120").unwrap();
        assert_eq!(Item::read(&bytes), None, "one item too many");
        let bytes = &bytes[..16];
        assert_eq!(Item::read(bytes).map(|item| item.to_vec()), Some(bytes.to_vec()));
        assert_eq!(Item::read(&[0x18, 5]).map(|item| item.to_vec()), Some(vec![5]));
        assert_eq!(Item::read(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]), None);
        assert_eq!(Item::read(&[0x81; 200]), None);
    }
}
