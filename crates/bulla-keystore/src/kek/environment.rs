//! A KEK in an environment variable: 32 bytes in hex or base64.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bulla_seal::Secret;
use zeroize::Zeroizing;

use super::{Kek, KekError, guess};

/// The KEK in the variable `name`.
pub(super) fn load(name: &str) -> Result<Kek, KekError> {
    let value = match std::env::var(name) {
        Ok(value) => Zeroizing::new(value),
        Err(std::env::VarError::NotPresent) => {
            return Err(KekError::VariableMissing { name: name.to_owned() });
        }
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(KekError::VariableMalformed { name: name.to_owned() });
        }
    };
    parse(name, &value)
}

fn parse(name: &str, value: &str) -> Result<Kek, KekError> {
    let secret = decode(value.trim())
        .ok_or_else(|| KekError::VariableMalformed { name: name.to_owned() })?;
    match guess::guessable(secret.expose()) {
        Some(why) => Err(KekError::VariableGuessable { name: name.to_owned(), why }),
        None => Ok(Kek::derive(secret)),
    }
}

/// The lengths tell hex (64) from base64 (44, or 43 without padding).
fn decode(text: &str) -> Option<Secret<32>> {
    let bytes = match text.len() {
        64 => hex::decode(text).ok(),
        44 => STANDARD.decode(text).ok(),
        43 => STANDARD_NO_PAD.decode(text).ok(),
        _ => None,
    };
    Secret::from_slice(&Zeroizing::new(bytes?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_base64_are_the_same_key() {
        let bytes: [u8; 32] =
            std::array::from_fn(|i| (i as u8).wrapping_mul(91) ^ (i as u8).wrapping_mul(i as u8));
        let expected = Kek::derive(Secret::new(bytes)).id();
        let hex = hex::encode(bytes);
        for text in [
            hex.clone(),
            hex.to_uppercase(),
            format!(" {hex}\n"),
            STANDARD.encode(bytes),
            STANDARD_NO_PAD.encode(bytes),
        ] {
            assert_eq!(parse("KEY", &text).unwrap().id(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_random_key_is_refused_without_being_quoted() {
        let hush = "correct-horse-battery-staple-and-more";
        for text in ["", "00", hush, &"0".repeat(63), &"x".repeat(64), &"!".repeat(44)] {
            let error = parse("KEY", text).unwrap_err();
            assert!(matches!(error, KekError::VariableMalformed { .. }), "{text}: {error}");
            let said = format!("{error} {error:?}");
            assert!(said.contains("KEY") && !said.contains(hush), "{said}");
        }
        let rising: Vec<u8> = (0..32).collect();
        for text in
            ["0".repeat(64), "a5".repeat(32), hex::encode(&rising), STANDARD.encode(&rising)]
        {
            let error = parse("KEY", &text).unwrap_err();
            assert!(matches!(error, KekError::VariableGuessable { .. }), "{text}: {error}");
            assert!(!error.to_string().contains(&text));
        }
    }
}
