//! JSON of requests, as Zaqar takes it, and of answers, written straight.

use std::fmt::Write;

use serde::Deserialize;

use crate::fault::Fault;

/// Reads a body.
pub(crate) fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Fault> {
    use serde_json::error::Category;
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => Fault::body(format!("The document does not fit: {error}.")),
        _ => Fault::body("Request body could not be parsed."),
    })
}

/// Refuses whole numbers that don't fit into 64 bits with a sign, which not every reader would take.
/// `json` is JSON.
pub(crate) fn check_numbers(json: &str) -> Result<(), Fault> {
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(byte) = bytes.get(at) {
                    match byte {
                        b'"' => break,
                        b'\\' => at += 2,
                        _ => at += 1,
                    }
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let number = |b: &u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let rest = bytes.get(at..).unwrap_or_default();
                let end = at + rest.iter().position(|b| !number(b)).unwrap_or(rest.len());
                let text = json.get(at..end).unwrap_or_default();
                let whole = !text.contains(['.', 'e', 'E']);
                if whole && text.len() > 18 && text.parse::<i64>().is_err() {
                    return Err(Fault::body("JSON contains integer that is too large."));
                }
                at = end.max(at + 1);
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// Writes a string.
pub(crate) fn write_str(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{0}'..='\u{1f}' => {
                // A String takes everything.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_found_where_they_are_numbers() {
        for good in [
            "9223372036854775807",
            "-9223372036854775808",
            "[\"99999999999999999999\", 1.99999999999999999999, 99999999999999999999e1]",
            "\"\\\"99999999999999999999\"",
            "{}",
        ] {
            assert!(check_numbers(good).is_ok(), "{good}");
        }
        for bad in
            ["9223372036854775808", "[1,-9223372036854775809]", "{\"a\":99999999999999999999}"]
        {
            assert!(check_numbers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strings_are_read_back() {
        let text = "a\"b\\c\n\u{1}ä";
        let mut out = String::new();
        write_str(&mut out, text);
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }
}
