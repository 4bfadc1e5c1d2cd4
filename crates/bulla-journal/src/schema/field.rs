//! What a field of an event may be. The set is closed, and no type that holds a secret is in it.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use bulla_seal::{Kid, Level, MessageId, Party, Principal, Refusal};

/// Longest text in an event, in bytes: a record stays small whatever somebody sends.
pub const MAX_TEXT: usize = 256;

/// A text from outside: at most [`MAX_TEXT`] bytes, without control characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Arc<str>);

impl Text {
    /// `text` in one line, and cut where it is too long.
    pub fn new(text: &str) -> Self {
        let fits = |c: &char| !c.is_control();
        if text.len() <= MAX_TEXT && text.chars().all(|c| fits(&c)) {
            return Self(text.into());
        }
        let mut out = String::with_capacity(MAX_TEXT);
        for c in text.chars().map(|c| if fits(&c) { c } else { ' ' }) {
            if out.len() + c.len_utf8() + '…'.len_utf8() > MAX_TEXT {
                out.push('…');
                break;
            }
            out.push(c);
        }
        Self(out.into())
    }

    /// The text of something that can be shown.
    pub fn of(shown: &dyn fmt::Display) -> Self {
        Self::new(&shown.to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A value that an event may hold. Only this crate says which.
pub trait Field: sealed::Sealed + Clone + PartialEq + fmt::Debug {
    /// What it is called in the documentation.
    const KIND: &'static str;

    /// Writes it as JSON.
    fn json(&self, out: &mut Vec<u8>);

    /// As a metric's label; `""` for what is no name.
    fn label(&self) -> &'static str {
        ""
    }

    /// As an amount that a metric adds; 1 for what is no number.
    fn amount(&self) -> u64 {
        1
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Writes `text` as a JSON string.
pub(crate) fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if !text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        // Nearly all.
        out.extend_from_slice(text.as_bytes());
        return out.push(b'"');
    }
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(*b"\\n"),
            // Into a vector nothing fails.
            0..0x20 => _ = write!(out, "\\u{byte:04x}"),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    out.push(b'"');
    // Eight at a time: to make room for each digit takes longer than to write it.
    for part in bytes.chunks(8) {
        let mut digits = [0; 16];
        for (to, byte) in digits.chunks_exact_mut(2).zip(part) {
            to.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        out.extend_from_slice(digits.get(..part.len() * 2).unwrap_or_default());
    }
    out.push(b'"');
}

pub(crate) fn decimal(out: &mut Vec<u8>, number: u64) {
    let (mut digits, mut at, mut left) = ([0; 20], 20, number);
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (left % 10) as u8;
        }
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

macro_rules! fields {
    ($($type:ty, $kind:literal, |$me:ident, $out:ident| $json:expr $(, $with:item)*;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Field for $type {
            const KIND: &'static str = $kind;
            fn json(&self, $out: &mut Vec<u8>) {
                let $me = self;
                $json
            }
            $($with)*
        }
    )*};
}

fields! {
    &'static str, "name", |me, out| quoted(out, me), fn label(&self) -> &'static str { self };
    Refusal, "name", |me, out| quoted(out, me.as_str()), fn label(&self) -> &'static str { self.as_str() };
    Text, "text", |me, out| quoted(out, &me.0);
    Principal, "principal", |me, out| quoted(out, me.as_str());
    Party, "principal with incarnation", |me, out| {
        // A principal's name needs no escape.
        out.push(b'"');
        out.extend_from_slice(me.principal.as_str().as_bytes());
        out.push(b'#');
        decimal(out, me.incarnation.into());
        out.push(b'"');
    };
    Level, "level", |me, out| quoted(out, me.as_str());
    MessageId, "message id", |me, out| hex(out, me.as_bytes());
    Kid, "key id", |me, out| hex(out, me.as_bytes());
    bool, "yes or no", |me, out| out.extend_from_slice(if *me { b"true" } else { b"false" });
    u32, "number", |me, out| decimal(out, (*me).into()), fn amount(&self) -> u64 { (*self).into() };
    u64, "number", |me, out| decimal(out, *me), fn amount(&self) -> u64 { *self };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_one_line_and_bounded() {
        assert_eq!(Text::new("a\nb\u{7f}").as_str(), "a b ");
        let long = Text::new(&"ä".repeat(1000));
        assert!(long.as_str().len() <= MAX_TEXT && long.as_str().ends_with('…'));
    }

    #[test]
    fn json_is_what_a_json_library_reads() {
        let mut out = Vec::new();
        Text::new("a \"b\" \\ ü").json(&mut out);
        let read: String = serde_json::from_slice(&out).unwrap();
        assert_eq!(read, "a \"b\" \\ ü");
        for number in [0, 9, 10, u64::MAX] {
            let mut out = Vec::new();
            number.json(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
        let mut out = Vec::new();
        quoted(&mut out, "\u{1}");
        assert_eq!(out, b"\"\\u0001\"");
    }
}
