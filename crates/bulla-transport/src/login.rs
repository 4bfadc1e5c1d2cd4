//! Logins at a broker that change while a transport is in use.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

/// A user and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Zeroizing<String>,
}

/// The logins with which a transport may be let in, newest first: while one takes the place of
/// another, nobody but the broker knows which of the two is good just now. Clones are the same.
#[derive(Clone, Default)]
pub struct Logins(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    newest_first: Vec<Login>,
    used: Option<Login>,
}

impl Login {
    /// The login in the URL of a bus; `None` if it has no user or no password.
    pub fn of_url(url: &str) -> Option<Self> {
        let (user, password) = userinfo(url)?.split_once(':')?;
        Some(Self { user: decoded(user)?, password: Zeroizing::new(decoded(password)?) })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, redacted)", self.user)
    }
}

impl Logins {
    /// Those of these URLs, newest first.
    pub fn of_urls<'a>(urls: impl IntoIterator<Item = &'a str>) -> Self {
        let logins = Self::default();
        logins.set_urls(urls);
        logins
    }

    /// The same from now on. What is connected stays connected.
    pub fn set_urls<'a>(&self, urls: impl IntoIterator<Item = &'a str>) {
        self.0.lock().newest_first = urls.into_iter().filter_map(Login::of_url).collect();
    }

    /// In the order in which they are tried.
    pub fn newest_first(&self) -> Vec<Login> {
        self.0.lock().newest_first.clone()
    }

    /// Whether the connection that is there, or was there last, was opened with the newest.
    pub fn newest_is_used(&self) -> bool {
        let inner = self.0.lock();
        inner.used.is_some() && inner.used.as_ref() == inner.newest_first.first()
    }

    /// A transport says which login let it in.
    pub fn opened_with(&self, login: &Login) {
        self.0.lock().used = Some(login.clone());
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logins({:?})", self.0.lock().newest_first)
    }
}

/// The URL with another password, which needs no escaping there; `None` if it has none to exchange.
pub fn with_password(url: &str, password: &str) -> Option<Zeroizing<String>> {
    let userinfo = userinfo(url)?;
    let (user, _) = userinfo.split_once(':')?;
    let at = url.find("://")?.checked_add(3)?;
    let (scheme, rest) = (url.get(..at)?, url.get(at..)?.get(userinfo.len()..)?);
    Some(Zeroizing::new(format!("{scheme}{user}:{password}{rest}")))
}

/// What stands before the `@`.
fn userinfo(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once('@')?.0)
}

pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut left = text.as_bytes().iter();
    while let Some(byte) = left.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let (high, low) = (left.next().and_then(digit)?, left.next().and_then(digit)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_s_login_is_read_and_exchanged() {
        let url = "amqp://agent.db%401:s3%3Acret@host:5672/%2f?x=@";
        let login = Login::of_url(url).unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("agent.db@1", "s3:cret"));
        let next = with_password(url, "n3w").unwrap();
        assert_eq!(*next, "amqp://agent.db%401:n3w@host:5672/%2f?x=@");
        for none in ["amqps://host/%2f", "amqp://user@host", "host", "amqp://h/@:b@", "a://%4:x@h"]
        {
            assert_eq!(Login::of_url(none), None, "{none}");
        }
        assert!(with_password("amqps://host/v", "x").is_none());
    }

    #[test]
    fn the_newest_is_tried_first_and_told_apart() {
        let logins = Logins::of_urls(["amqp://a:new@h", "amqp://a:old@h", "amqps://h"]);
        let [new, old] = &logins.newest_first()[..] else { panic!("two logins") };
        assert!(!logins.newest_is_used());
        logins.opened_with(old);
        assert!(!logins.newest_is_used());
        logins.opened_with(new);
        assert!(logins.newest_is_used());
        logins.clone().set_urls(["amqp://a:newer@h", "amqp://a:new@h"]);
        assert!(!logins.newest_is_used());
        let text = format!("{logins:?} {new:?}");
        assert!(!text.contains("newer") && !text.contains("old"), "{text}");
    }
}
