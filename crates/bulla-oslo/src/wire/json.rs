//! JSON that can be read in one way only: no member twice, a bounded depth, nothing behind the end.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// Objects and lists within each other at the most, as in a sealed plaintext.
pub(super) const DEPTH: u8 = 64;
/// Members of the outermost object of a message at the most.
const MEMBERS: usize = 256;

/// The members of an object, each as text that was not read further. A member that is there twice is
/// refused: readers differ in which of the two they take.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        let Object(members) = serde_json::from_str(text)?;
        let twice = |(at, (name, _)): (usize, &(Cow<'_, str>, _))| {
            members.iter().take(at).any(|(known, _)| known == name)
        };
        if members.len() > MEMBERS || members.iter().enumerate().any(twice) {
            return Err(wrong("a member is there twice, or there are too many"));
        }
        Ok(Self(members))
    }

    /// Takes one out.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Looks at one.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, raw)| *raw)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub(super) fn rest(self) -> impl Iterator<Item = (Cow<'a, str>, &'a RawValue)> {
        self.0.into_iter()
    }
}

/// A member's name, borrowed where it can be.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer).map(Self)
    }
}

/// Text, borrowed where it has no escapes.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text")
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }

        fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text))
        }
    }
    deserializer.deserialize_str(Text)
}

/// Reads text from what was not read yet.
pub(super) fn as_text(raw: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let text = text(&mut deserializer)?;
    deserializer.end()?;
    Ok(text)
}

/// Reads any value, strictly, and numbers exactly: the library's own way is a digit off in the last place
/// now and then, which a peer's float does not survive.
///
/// # Errors
/// It is no JSON, has a member twice, a whole number of more than 64 bits, is deeper than [`DEPTH`] or goes
/// on behind its end.
pub(crate) fn value(text: &str) -> Result<Value, serde_json::Error> {
    read(serde_json::from_str(text)?, DEPTH)
}

fn read(raw: &RawValue, left: u8) -> Result<Value, serde_json::Error> {
    let deeper = || left.checked_sub(1).ok_or_else(|| wrong("nested too deeply"));
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let left = deeper()?;
            let Object(members) = serde_json::from_str(text)?;
            let mut object = Map::new();
            for (name, raw) in members {
                if object.insert(name.into_owned(), read(raw, left)?).is_some() {
                    return Err(wrong("a member is there twice"));
                }
            }
            Ok(Value::Object(object))
        }
        Some(b'[') => {
            let left = deeper()?;
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            items.into_iter().map(|raw| read(raw, left)).collect()
        }
        Some(b'-' | b'0'..=b'9') => number(text).ok_or_else(|| wrong("a number that is not exact")),
        _ => serde_json::from_str(text),
    }
}

fn number(text: &str) -> Option<Value> {
    if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        return Number::from_f64(text.parse().ok()?).map(Value::Number);
    }
    let whole =
        text.parse().map(|n: i64| n.into()).or_else(|_| text.parse().map(|n: u64| n.into()));
    whole.ok()
}

fn wrong(why: &str) -> serde_json::Error {
    serde_json::Error::custom(why)
}

/// Members in their order, however often they are there.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Each).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_could_take_differently_is_refused() {
        assert!(value(r#"{"a": 1, "b": [1, -2, 2.5, null, true, "é"]}"#).is_ok());
        for bad in [
            r#"{"a": 1, "a": 2}"#,
            r#"[{"a": {"b": 1, "b": 1}}]"#,
            r#"{"a": 1} x"#,
            r#"{"a": NaN}"#,
            r#"{"a": 1e999}"#,
            r#"{"a": 18446744073709551616}"#,
            "",
        ] {
            assert!(value(bad).is_err(), "{bad}");
        }
        for exact in ["103310161.33238067", "1795299829.2872586", "18446744073709551615"] {
            assert_eq!(value(exact).unwrap().to_string(), exact);
        }
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(value(&nested(usize::from(DEPTH))).is_ok());
        assert!(value(&nested(usize::from(DEPTH) + 1)).is_err());
    }

    #[test]
    fn members_are_told_apart_by_what_they_mean() {
        // The same name, written in two ways.
        assert!(Members::read("{\"a\": 1, \"\\u0061\": 2}").is_err());
        let mut members = Members::read(r#"{"a": {"b": 1}, "c": "d"}"#).unwrap();
        assert_eq!(members.take("c").unwrap().get(), r#""d""#);
        assert!(members.has("a") && !members.has("c") && !members.is_empty());
        assert_eq!(members.rest().count(), 1);
    }
}
