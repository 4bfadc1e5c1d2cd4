//! Passwords of roles. The database is told what it checks them with, never the password itself,
//! so that no log of statements holds one.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bulla_seal::{OsRandom, Random, Secret};
use zeroize::Zeroizing;

use crate::error::{KeystoreError, Result};

/// As PostgreSQL has it by default; of random passwords nothing is won by more.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);

/// A role's password. Wipes itself, and prints redacted.
#[derive(Clone)]
pub struct RolePassword(Zeroizing<String>);

impl RolePassword {
    /// A random one.
    pub fn generate() -> Result<Self> {
        let secret = Secret::<32>::generate(&mut OsRandom::default())?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.expose()))))
    }

    /// One that an operator chose.
    ///
    /// # Errors
    /// When it is too short, or has characters that databases may see in different ways.
    pub fn new(text: &str) -> Result<Self> {
        let bad = |why| Err(KeystoreError::RolePassword { why });
        match text.len() {
            ..16 => bad("it is shorter"),
            513.. => bad("it is longer"),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                bad("it has other characters")
            }
            _ => Ok(Self(Zeroizing::new(text.to_owned()))),
        }
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What PostgreSQL stores: a SCRAM-SHA-256 verifier (RFC 5802, RFC 7677).
    pub(super) fn scram(&self) -> Result<String> {
        let mut salt = [0; 16];
        OsRandom::default().fill(&mut salt)?;
        Ok(self.scram_with(&salt))
    }

    fn scram_with(&self, salt: &[u8]) -> String {
        let mut salted = Zeroizing::new([0; 32]);
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, ITERATIONS, salt, self.0.as_bytes(), &mut *salted);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*salted);
        let client = hmac::sign(&key, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client.as_ref());
        let server = hmac::sign(&key, b"Server Key");
        format!(
            "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
            STANDARD.encode(salt),
            STANDARD.encode(stored),
            STANDARD.encode(server)
        )
    }

    /// What MariaDB stores (`mysql_native_password`): SHA-1 of SHA-1, good enough for what is as
    /// random as this.
    pub(super) fn native(&self) -> String {
        let once = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.0.as_bytes());
        let twice = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
        format!("*{}", hex::encode_upper(twice.as_ref()))
    }
}

impl fmt::Debug for RolePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RolePassword(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_long_enough_and_not_printed() {
        for bad in ["short", "fifteen-letters", "with a space in it", "sechzehn-zeichen-ä"] {
            assert!(RolePassword::new(bad).is_err(), "{bad}");
        }
        let password = RolePassword::generate().unwrap();
        assert!(RolePassword::new(password.expose()).is_ok());
        assert!(!format!("{password:?}").contains(password.expose()));
    }

    /// Made by MariaDB's `PASSWORD()`, and with Python's hashlib.
    #[test]
    fn verifiers_are_the_databases_own() {
        let password = RolePassword(Zeroizing::new("test-only".to_owned()));
        assert_eq!(password.native(), NATIVE);
        assert_eq!(password.scram_with(b"0123456789abcdef"), SCRAM);
    }

    const NATIVE: &str = "*6CEBF023AF5A1F54EA7A2C0116AD2064F77EE7BF";
    const SCRAM: &str = "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$heN4maKD+SsWz7k9eh9LbuVwPvS4WhPxGKlryk88F+w=:kZhpr7/1d9xC1WQkC8ND7moGZRBOXUV+PtNV++X06oc=";
}
