//! How an agent logs in at the broker.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use bulla_seal::{OsRandom, Random};
use url::Url;
use zeroize::Zeroizing;

use crate::error::BrokerError;

/// Bytes of a password, before they are text.
const PASSWORD: usize = 32;
/// Bytes of salt in RabbitMQ's hashes.
const SALT: usize = 4;

/// How agents prove at the broker who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Login {
    /// With a password that is made with the user.
    #[default]
    Password,
    /// With a client certificate (SASL EXTERNAL): the user is the certificate's name, and has no
    /// password.
    Certificate,
}

/// A password for the broker; printed redacted, wiped when it goes.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// A new one: 32 random bytes in base64 that needs no escaping in a URL.
    pub(crate) fn generate() -> Result<Self, BrokerError> {
        let mut bytes = Zeroizing::new([0; PASSWORD]);
        OsRandom::default().fill(&mut *bytes).map_err(|_| BrokerError::Random)?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// One that an agent made for itself: 32 bytes in base64url without padding. `None` if it is
    /// of another form, such as one that somebody could guess.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        (bytes.len() == PASSWORD).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What RabbitMQ keeps of it (`rabbit_password_hashing_sha256`): the password itself is never
    /// sent there before the agent logs in.
    pub(crate) fn hash(&self) -> Result<String, BrokerError> {
        let mut salt = [0; SALT];
        OsRandom::default().fill(&mut salt).map_err(|_| BrokerError::Random)?;
        Ok(self.hash_with(salt))
    }

    fn hash_with(&self, salt: [u8; SALT]) -> String {
        let mut input = Zeroizing::new(salt.to_vec());
        input.extend_from_slice(self.0.as_bytes());
        let mut stored = salt.to_vec();
        stored.extend_from_slice(digest(&SHA256, &input).as_ref());
        BASE64.encode(stored)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// The bus's URL with another login; without one, for a client certificate.
///
/// # Errors
/// [`BrokerError::BadUrl`] if it is no URL of a broker.
pub fn with_login(
    bus: &str,
    login: Option<(&str, &Password)>,
) -> Result<Zeroizing<String>, BrokerError> {
    let bad = |why: &str| BrokerError::BadUrl { why: why.to_owned() };
    // The parser's own message may quote the URL, password and all.
    let mut url = Url::parse(bus).map_err(|_| bad("the bus's is no URL"))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(bad("the bus's does not begin with amqp:// or amqps://"));
    }
    if login.is_none() && url.scheme() != "amqps" {
        return Err(bad("a login with a client certificate needs a bus with amqps://"));
    }
    let unfit = |()| bad("the bus's names no host");
    url.set_username(login.map_or("", |(user, _)| user)).map_err(unfit)?;
    url.set_password(login.map(|(_, password)| password.expose())).map_err(unfit)?;
    Ok(Zeroizing::new(url.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_rabbitmq_s() {
        // The example of RabbitMQ's documentation: password test12, salt 908DC60A.
        let password = Password(Zeroizing::new("test12".to_owned()));
        let hash = password.hash_with([0x90, 0x8D, 0xC6, 0x0A]);
        assert_eq!(hash, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }

    #[test]
    fn a_password_is_new_each_time_and_never_printed() {
        let (one, other) = (Password::generate().unwrap(), Password::generate().unwrap());
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.expose().len(), 43);
        assert!(!format!("{one:?}").contains(one.expose()));
        assert_ne!(one.hash().unwrap(), one.hash().unwrap(), "a salt each");
        assert_eq!(Password::parse(one.expose()).unwrap().expose(), one.expose());
        for other in
            ["", "secret", &format!("{}A", one.expose()), &one.expose().replace('A', "+")[..42]]
        {
            assert!(Password::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn the_login_of_a_url_is_exchanged() {
        let password = Password(Zeroizing::new("pass".to_owned()));
        let login = Some(("agent.db-1", &password));
        let url = |bus| with_login(bus, login).unwrap().to_string();
        assert_eq!(url("amqp://bulla:x@h:5673/%2f"), "amqp://agent.db-1:pass@h:5673/%2f");
        assert_eq!(url("amqps://h/v?heartbeat=5"), "amqps://agent.db-1:pass@h/v?heartbeat=5");
        assert_eq!(url("amqp://a:b@[::1]:1/%2f"), "amqp://agent.db-1:pass@[::1]:1/%2f");
        let external = with_login("amqps://bulla:x@h:5671/%2f", None).unwrap();
        assert_eq!(*external, "amqps://h:5671/%2f");
        for bad in ["amqp://u:secret@h", "http://u:secret@h", "secret"] {
            let error = with_login(bad, None).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
}
