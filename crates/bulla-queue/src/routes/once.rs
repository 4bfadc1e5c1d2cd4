//! `Idempotency-Key`.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bulla_http::Identity;

use super::Asked;
use crate::fault::Fault;
use crate::once::Once;
use crate::store::Millis;

/// Longest key, in bytes.
pub(super) const MAX_KEY: usize = 255;
/// The header with the key.
pub(super) const KEY: &str = "idempotency-key";
/// Says that an answer was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key, with or without the quotes that RFC 9651 puts around a string.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let bad = || {
        Fault::request(format!(
            "`Idempotency-Key` must be one key of 1 to {MAX_KEY} printable ASCII characters \
             without blanks, quotes inside and backslashes, such as a UUID."
        ))
    };
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad())?;
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    let good =
        values.next().is_none() && (1..=MAX_KEY).contains(&bare.len()) && bare.bytes().all(plain);
    if good { Ok(Some(bare.to_owned())) } else { Err(bad()) }
}

/// What is to be done once. One caller's keys are not another's.
pub(super) fn of(asked: &Asked<'_>, key: &str, body: &[u8], now: Millis) -> Once {
    let who = asked.parts.extensions.get::<Identity>();
    let who = who.map_or_else(String::new, Identity::to_string);
    let by = format!("{who} {}", hex::encode(asked.caller.client.as_bytes()));
    Once::new((&by, key), body, now)
}

/// An answer that was given before.
pub(super) fn again(mut response: Response) -> Result<Response, Fault> {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

pub(super) fn other() -> Fault {
    Fault::conflict("Something else was posted with this Idempotency-Key; make up another one.")
}

pub(super) fn unknown() -> Fault {
    Fault::conflict(
        "It is not known whether this was posted: a request with this Idempotency-Key is under \
         way, or did not get to its end. Look into the queue.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_printable() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(KEY, HeaderValue::from_str(value).unwrap());
            }
            key(&headers)
        };
        assert_eq!(of(&[]).unwrap(), None);
        for text in ["8e03978e-40d5", "\"8e03978e-40d5\""] {
            assert_eq!(of(&[text]).unwrap().unwrap(), "8e03978e-40d5");
        }
        let long = "x".repeat(256);
        for bad in [&[""][..], &["\"\""], &["a b"], &["a\"b"], &["a", "b"], &[&long]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
