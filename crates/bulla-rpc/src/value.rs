//! Arguments and results as CBOR, through serde.

use bulla_seal::cbor::Reader;
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
    let written = out.get(start..).unwrap_or_default();
    let mut reader = Reader::new(written);
    reader.skip().and_then(|_| reader.end()).map_err(|_| {
        ValueError::Encode("lists and maps need a known length, at most 64 deep".into())
    })
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

    #[test]
    fn the_wrong_type_is_an_error() {
        assert!(decode::<String>(&to_vec(&5).unwrap()).is_err());
    }
}
