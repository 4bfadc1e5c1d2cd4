//! What arguments, contexts and results are made of, between Python's objects and CBOR.

use std::fmt;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Items are at most this deep (protocol section 2).
const DEPTH: usize = 64;

/// One item: JSON's kinds, and bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Item {
    /// From an object. What is of no kind that has an item is given to `other` first, which makes
    /// something simpler of it.
    pub(crate) fn of(value: &Bound<'_, PyAny>, other: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Self::at_depth(value, other, DEPTH)
    }

    fn at_depth(
        value: &Bound<'_, PyAny>,
        other: Option<&Bound<'_, PyAny>>,
        left: usize,
    ) -> PyResult<Self> {
        let deeper = || {
            left.checked_sub(1).ok_or_else(|| {
                PyValueError::new_err(format!("nested more than {DEPTH} deep, which no message is"))
            })
        };
        if value.is_none() {
            return Ok(Self::Null);
        }
        // Of exactly these kinds: what is derived from one may mean something else.
        if let Ok(text) = value.cast_exact::<PyString>() {
            return Ok(Self::Text(text.to_str()?.to_owned()));
        }
        if let Ok(flag) = value.cast_exact::<PyBool>() {
            return Ok(Self::Bool(flag.is_true()));
        }
        if value.is_exact_instance_of::<PyInt>() {
            return int(value);
        }
        if let Ok(map) = value.cast_exact::<PyDict>() {
            let left = deeper()?;
            let mut items = Vec::with_capacity(map.len());
            for (key, value) in map {
                items.push((key_of(&key)?, Self::at_depth(&value, other, left)?));
            }
            return Ok(Self::Map(items));
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            let left = deeper()?;
            return list
                .iter()
                .map(|item| Self::at_depth(&item, other, left))
                .collect::<PyResult<_>>()
                .map(Self::List);
        }
        if let Ok(list) = value.cast_exact::<PyTuple>() {
            let left = deeper()?;
            return list
                .iter()
                .map(|item| Self::at_depth(&item, other, left))
                .collect::<PyResult<_>>()
                .map(Self::List);
        }
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            return Ok(Self::Float(number.value()));
        }
        if let Some(other) = other {
            let simpler = other.call1((value,))?;
            return Self::at_depth(&simpler, None, deeper()?);
        }
        Self::derived(value, left)
    }

    /// From what is derived from a kind that has an item.
    fn derived(value: &Bound<'_, PyAny>, left: usize) -> PyResult<Self> {
        if let Ok(bytes) = value.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.as_bytes().to_vec()));
        }
        if let Ok(text) = value.cast::<PyString>() {
            return Ok(Self::Text(text.to_str()?.to_owned()));
        }
        if value.is_instance_of::<PyInt>() {
            return int(value);
        }
        if let Ok(number) = value.cast::<PyFloat>() {
            return Ok(Self::Float(number.value()));
        }
        let left = left.checked_sub(1).ok_or_else(|| PyValueError::new_err("nested too deep"))?;
        if let Ok(map) = value.cast::<PyDict>() {
            let pairs = map.iter();
            let item = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
                Ok((key_of(&key)?, Self::at_depth(&value, None, left)?))
            };
            return pairs.map(item).collect::<PyResult<_>>().map(Self::Map);
        }
        let kind = value.get_type().qualname()?;
        Err(PyTypeError::new_err(format!("a {kind} can't be in a message")))
    }

    /// About how many bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.iter().map(|item| 1 + item.weight()).sum(),
            Self::Map(items) => items.iter().map(|(key, item)| 1 + key.len() + item.weight()).sum(),
            _ => 4,
        }
    }

    /// As an object.
    pub(crate) fn into_object<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self {
            Self::Null => py.None().into_bound(py),
            Self::Bool(flag) => flag.into_pyobject(py)?.to_owned().into_any(),
            Self::Int(number) => number.into_pyobject(py)?.into_any(),
            Self::Uint(number) => number.into_pyobject(py)?.into_any(),
            Self::Float(number) => number.into_pyobject(py)?.into_any(),
            Self::Text(text) => text.into_pyobject(py)?.into_any(),
            Self::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
            Self::List(items) => {
                let list = PyList::empty(py);
                for item in items {
                    list.append(item.into_object(py)?)?;
                }
                list.into_any()
            }
            Self::Map(items) => {
                let map = PyDict::new(py);
                for (key, item) in items {
                    map.set_item(key, item.into_object(py)?)?;
                }
                map.into_any()
            }
        })
    }
}

fn key_of(key: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = key.cast::<PyString>() {
        return Ok(text.to_str()?.to_owned());
    }
    // As JSON's encoder in Python does.
    if key.is_instance_of::<PyInt>() && !key.is_instance_of::<PyBool>() {
        return Ok(key.str()?.to_str()?.to_owned());
    }
    Err(PyTypeError::new_err("keys in a message are text"))
}

fn int(value: &Bound<'_, PyAny>) -> PyResult<Item> {
    if let Ok(number) = value.extract::<i64>() {
        return Ok(Item::Int(number));
    }
    let number = value.extract::<u64>().map_err(|_| {
        PyOverflowError::new_err("a whole number in a message is between -2^63 and 2^64-1")
    })?;
    Ok(Item::Uint(number))
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Uint(number) => serializer.serialize_u64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(items) => {
                let mut map = serializer.serialize_map(Some(items.len()))?;
                items.iter().try_for_each(|(key, item)| map.serialize_entry(key, item))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item::Null)
    }

    fn visit_none<E>(self) -> Result<Item, E> {
        Ok(Item::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item, D::Error> {
        Item::deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Item, E> {
        Ok(Item::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Item, E> {
        Ok(Item::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Item, E> {
        Ok(i64::try_from(number).map_or(Item::Uint(number), Item::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Item, E> {
        Ok(Item::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Item, E> {
        Ok(Item::Bytes(bytes.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Item::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let mut items = Vec::new();
        while let Some(entry) = map.next_entry()? {
            items.push(entry);
        }
        Ok(Item::Map(items))
    }
}
