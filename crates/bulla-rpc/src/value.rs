//! Arguments and results as CBOR, through serde.

use bulla_seal::cbor::MAX_NESTING;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A value could not be turned into CBOR or back.
#[derive(Debug, Clone, Error)]
pub enum ValueError {
    /// It has no CBOR form that the protocol takes (a map or list of unknown length, deeper than
    /// 64 levels, a serializer that failed).
    #[error("the value can't be encoded: {0}")]
    Encode(String),
    /// The bytes are not of the type that was asked for.
    #[error("the value is not of the expected type: {0}")]
    Decode(String),
}

/// Appends `value` to `out` as one CBOR item.
pub fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), ValueError> {
    let start = out.len();
    let writer = minicbor::encode::write::Writer::new(out.writer());
    let mut serializer = minicbor_serde::Serializer::new(writer);
    // Null, not an empty list: JSON's null has to come back as itself.
    serializer.serialize_unit_as_null(true);
    value.serialize(&mut serializer).map_err(|e| ValueError::Encode(e.to_string()))?;
    match well_formed(out.get(start..).unwrap_or_default()) {
        Some(()) => Ok(()),
        None => {
            Err(ValueError::Encode("lists and maps need a known length, at most 64 deep".into()))
        }
    }
}

/// Whether what the serializer wrote is one item of known lengths and no deeper than a reader follows.
/// Its texts are Rust's own and its heads the shortest: a peer, who can't know that, reads all of it.
fn well_formed(item: &[u8]) -> Option<()> {
    let mut rest = item;
    // Items still to come, at each level above the present one.
    let mut above = [0u64; MAX_NESTING];
    let (mut depth, mut left) = (0, 1u64);
    loop {
        while left == 0 {
            let Some(up) = above.get(..depth).and_then(|open| open.last()) else {
                return rest.is_empty().then_some(());
            };
            (left, depth) = (*up, depth - 1);
        }
        left -= 1;
        let (first, after) = rest.split_first()?;
        let (major, info) = (first >> 5, first & 0x1f);
        let size = match info {
            0..24 => 0,
            24..28 => 1usize << (info - 24),
            _ => return None,
        };
        let (argument, after) = after.split_at_checked(size)?;
        let argument = argument.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let argument = if size == 0 { info.into() } else { argument };
        rest = after;
        let children = match major {
            2 | 3 => {
                rest = rest.get(usize::try_from(argument).ok()?..)?;
                0
            }
            4 => argument,
            5 => argument.checked_mul(2)?,
            6 => return None,
            _ => 0,
        };
        if children > 0 {
            *above.get_mut(depth)? = left;
            (left, depth) = (children, depth + 1);
        }
    }
}

/// `value` as one CBOR item.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, ValueError> {
    let mut out = BytesMut::new();
    encode(value, &mut out)?;
    Ok(out.to_vec())
}

/// Reads one CBOR item.
pub fn decode<T: DeserializeOwned>(item: &[u8]) -> Result<T, ValueError> {
    // The codec reads `()` from an empty list only; null is what the rest of the world writes.
    let item = if size_of::<T>() == 0 && item == [0xf6] { &[0x80] } else { item };
    minicbor_serde::from_slice(item).map_err(|e| ValueError::Decode(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn json_values_round_trip() {
        let value =
            json!({"a": [1, -2, 2.5, true, null, "ü"], "b": {"c": 18446744073709551615u64}});
        assert_eq!(decode::<Value>(&to_vec(&value).unwrap()).unwrap(), value);
    }

    #[test]
    fn structs_round_trip_as_maps() {
        #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
        struct Resize {
            size: u32,
            note: Option<String>,
        }
        let value = Resize { size: 5, note: None };
        let bytes = to_vec(&value).unwrap();
        assert_eq!(decode::<Resize>(&bytes).unwrap(), value);
        assert_eq!(decode::<Value>(&bytes).unwrap(), json!({"size": 5, "note": null}));
    }

    #[test]
    fn nothing_is_null() {
        assert_eq!(to_vec(&()).unwrap(), [0xf6]);
        decode::<()>(&[0xf6]).unwrap();
        assert_eq!(decode::<Value>(&[0xf6]).unwrap(), Value::Null);
        assert!(decode::<Vec<u8>>(&[0xf6]).is_err());
    }

    /// Written with and without its length.
    struct Nested(usize, Option<usize>);

    impl Serialize for Nested {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut list = serializer.serialize_seq(self.1)?;
            if self.0 > 1 {
                list.serialize_element(&Self(self.0 - 1, Some(1)))?;
            } else {
                list.serialize_element("x")?;
            }
            list.end()
        }
    }

    #[test]
    fn what_a_peer_would_not_read_is_not_written() {
        assert!(to_vec(&Nested(1, None)).is_err(), "of unknown length");
        assert!(to_vec(&(1, Nested(2, None), "y")).is_err());
        for depth in [1, 2, MAX_NESTING, MAX_NESTING + 1, MAX_NESTING + 9] {
            let written = to_vec(&Nested(depth, Some(1)));
            assert_eq!(written.is_ok(), depth <= MAX_NESTING, "{depth}");
        }
        // The same judgement as a peer's.
        for item in
            [&[0x82, 0xa1, 1, 0x80, 0xf9, 0, 0][..], &[0x81], &[0x80, 0], &[0xc0, 0], &[0x61]]
        {
            let mut reader = bulla_seal::cbor::Reader::new(item);
            let peer = reader.skip().and_then(|_| reader.end());
            assert_eq!(well_formed(item).is_some(), peer.is_ok(), "{item:02x?}");
        }
    }

    #[test]
    fn the_wrong_type_is_an_error() {
        assert!(decode::<String>(&to_vec(&5).unwrap()).is_err());
    }
}
