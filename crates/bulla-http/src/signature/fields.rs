//! The part of structured fields (RFC 9651) that signatures are written in, read strictly: what is
//! not in the one form in which it would be written again is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest value of a field that is read, in bytes.
const MAX: usize = 4096;
/// Most items of a list.
const MAX_ITEMS: usize = 32;

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bare {
    Integer(u64),
    Text(String),
}

/// A dictionary's only member, an inner list of strings with parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) label: String,
    pub(super) components: Vec<String>,
    pub(super) parameters: Vec<(String, Bare)>,
    /// The list and its parameters as they were written.
    pub(super) text: String,
}

/// Something else than what is written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

type Read<T> = Result<T, Malformed>;

/// Reads `label=("a" "b");name=1;other="x"`.
pub(super) fn input(value: &str) -> Read<Input> {
    let mut rest = Rest::new(value)?;
    let label = rest.key()?;
    rest.take(b'=')?;
    let text = rest.0.to_owned();
    rest.take(b'(')?;
    let mut components = Vec::new();
    while !rest.next_is(b')') {
        if !components.is_empty() {
            rest.take(b' ')?;
        }
        if components.len() == MAX_ITEMS {
            return Err(Malformed);
        }
        components.push(rest.string()?);
    }
    rest.take(b')')?;
    let mut parameters: Vec<(String, Bare)> = Vec::new();
    while rest.next_is(b';') {
        rest.take(b';')?;
        let name = rest.key()?;
        rest.take(b'=')?;
        let value = match rest.0.as_bytes().first() {
            Some(b'"') => Bare::Text(rest.string()?),
            _ => Bare::Integer(rest.integer()?),
        };
        if parameters.len() == MAX_ITEMS || parameters.iter().any(|(known, _)| *known == name) {
            return Err(Malformed);
        }
        parameters.push((name, value));
    }
    rest.end()?;
    Ok(Input { label, components, parameters, text })
}

/// Reads a dictionary of byte sequences: `a=:…:, b=:…:`.
pub(super) fn bytes(value: &str) -> Read<Vec<(String, Vec<u8>)>> {
    let mut rest = Rest::new(value)?;
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    loop {
        let name = rest.key()?;
        rest.take(b'=')?;
        rest.take(b':')?;
        let (text, after) = rest.0.split_once(':').ok_or(Malformed)?;
        let decoded = STANDARD.decode(text).map_err(|_| Malformed)?;
        rest.0 = after;
        if found.len() == MAX_ITEMS || found.iter().any(|(known, _)| *known == name) {
            return Err(Malformed);
        }
        found.push((name, decoded));
        if rest.0.is_empty() {
            return Ok(found);
        }
        rest.take(b',')?;
        rest.take(b' ')?;
    }
}

/// Writes a string; `None` for what can't be in one.
pub(super) fn quoted(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => return None,
        }
    }
    out.push('"');
    Some(out)
}

/// Writes a byte sequence.
pub(super) fn sequence(bytes: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(bytes))
}

struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn new(value: &'a str) -> Read<Self> {
        if value.len() <= MAX && value.is_ascii() { Ok(Self(value)) } else { Err(Malformed) }
    }

    fn next_is(&self, byte: u8) -> bool {
        self.0.as_bytes().first() == Some(&byte)
    }

    fn take(&mut self, byte: u8) -> Read<()> {
        if !self.next_is(byte) {
            return Err(Malformed);
        }
        self.0 = self.0.get(1..).ok_or(Malformed)?;
        Ok(())
    }

    fn end(&self) -> Read<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        let end = self.0.bytes().position(|b| !belongs(b)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn key(&mut self) -> Read<String> {
        let key =
            self.run(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b));
        let begins = key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*');
        if begins { Ok(key.to_owned()) } else { Err(Malformed) }
    }

    fn integer(&mut self) -> Read<u64> {
        let digits = self.run(|b| b.is_ascii_digit());
        // One form: no leading zero, at most 15 digits.
        let fits = (1..=15).contains(&digits.len()) && (digits == "0" || !digits.starts_with('0'));
        if fits { digits.parse().map_err(|_| Malformed) } else { Err(Malformed) }
    }

    fn string(&mut self) -> Read<String> {
        self.take(b'"')?;
        let mut out = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = self.0.get(at + 1..).ok_or(Malformed)?;
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => out.push(c),
                    _ => return Err(Malformed),
                },
                ' '..='~' => out.push(c),
                _ => return Err(Malformed),
            }
        }
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read() {
        let read = input(r#"sig=("@method" "a\"b");created=1;keyid="k""#).unwrap();
        assert_eq!(read.label, "sig");
        assert_eq!(read.components, ["@method", "a\"b"]);
        let wanted =
            [("created".to_owned(), Bare::Integer(1)), ("keyid".into(), Bare::Text("k".into()))];
        assert_eq!(read.parameters, wanted);
        assert_eq!(read.text, r#"("@method" "a\"b");created=1;keyid="k""#);
    }

    #[test]
    fn another_form_is_refused() {
        for bad in [
            "",
            "sig",
            "sig=",
            "sig=(\"a\"",
            "sig=(\"a\"  \"b\")",
            "sig=( \"a\")",
            "sig=(a)",
            "sig=(\"a\";sf)",
            "sig=(\"a\"), other=(\"b\")",
            "sig=(\"a\");x=1;x=1",
            "sig=(\"a\");x=01",
            "sig=(\"a\");x=1234567890123456",
            "sig=(\"a\");x=-1",
            "sig=(\"a\");x=1.0",
            "sig=(\"a\");x",
            "sig=(\"a\"); x=1",
            "sig=(\"a\\n\")",
            "sig=(\"ä\")",
            "Sig=(\"a\")",
            " sig=(\"a\")",
        ] {
            assert_eq!(input(bad), Err(Malformed), "{bad}");
        }
        let long = format!("sig=(\"{}\")", "a".repeat(MAX));
        assert_eq!(input(&long), Err(Malformed));
        for bad in ["", "a", "a=:", "a=:AA:", "a=:AAA=", "a=::,b=::", "a=::, a=::", "a=:AB==:"] {
            assert_eq!(bytes(bad), Err(Malformed), "{bad}");
        }
        assert_eq!(bytes("a=:AA==:, b=::").unwrap(), [("a".into(), vec![0]), ("b".into(), vec![])]);
    }
}
