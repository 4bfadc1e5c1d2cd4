//! `amqp://user:password@host:port/vhost?heartbeat=10`.

use zeroize::Zeroizing;

use crate::login::decoded;

/// How we say who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// User and password.
    Plain,
    /// By the client certificate.
    External,
}

/// Where a broker is, and who we are there. Nothing prints it: it holds the password.
#[derive(Clone)]
pub(crate) struct Uri {
    pub(crate) tls: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) vhost: String,
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
    pub(crate) has_credentials: bool,
    pub(crate) heartbeat: Option<u16>,
    pub(crate) frame_max: Option<u32>,
    pub(crate) mechanism: Option<Mechanism>,
}

impl Uri {
    /// From its text; the error says what is wrong and quotes nothing of it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "it must look like amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://HOST/VHOST";
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let tls = match scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(FORM),
        };
        if text.bytes().any(|byte| byte.is_ascii_control() || matches!(byte, b' ' | b'#')) {
            return Err(FORM);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (rest, None),
        };
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        let (user, password) = match userinfo.map(|info| info.split_once(':').unwrap_or((info, "")))
        {
            Some((user, password)) => (decoded(user).ok_or(FORM)?, decoded(password).ok_or(FORM)?),
            None => ("guest".to_owned(), "guest".to_owned()),
        };
        let (host, port) = place(host, if tls { 5671 } else { 5672 })?;
        let mut uri = Self {
            tls,
            host,
            port,
            vhost: decoded(path.unwrap_or("%2f")).ok_or(FORM)?,
            user,
            password: Zeroizing::new(password),
            has_credentials: userinfo.is_some(),
            heartbeat: None,
            frame_max: None,
            mechanism: None,
        };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            uri.set(key, value)?;
        }
        Ok(uri)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "heartbeat" => {
                self.heartbeat = Some(value.parse().map_err(|_| "its heartbeat is no number")?);
            }
            "frame_max" => {
                self.frame_max = Some(value.parse().map_err(|_| "its frame_max is no number")?);
            }
            "auth_mechanism" => {
                self.mechanism = Some(match value.to_ascii_lowercase().as_str() {
                    "plain" => Mechanism::Plain,
                    "external" => Mechanism::External,
                    _ => return Err("its auth_mechanism must be plain or external"),
                });
            }
            // Other clients have settings of their own.
            _ => {}
        }
        Ok(())
    }
}

/// Host and port.
fn place(text: &str, default: u16) -> Result<(String, u16), &'static str> {
    const HOST: &str = "its host is none";
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(HOST)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| HOST)?;
            let port =
                if rest.is_empty() { None } else { rest.strip_prefix(':').ok_or(HOST)?.into() };
            (host.to_owned(), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (decoded(host).ok_or(HOST)?, port)
        }
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    let port = match port {
        None | Some("") => default,
        Some(port) => port.parse().map_err(|_| "its port is none")?,
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_s_address_is_read_as_others_read_it() {
        let uri = Uri::parse("amqp://us%40er:p%3Ass@host:10/v%2fh?heartbeat=3&x=y").unwrap();
        assert_eq!((uri.tls, uri.host.as_str(), uri.port), (false, "host", 10));
        assert_eq!((uri.user.as_str(), uri.password.as_str()), ("us@er", "p:ss"));
        assert_eq!((uri.vhost.as_str(), uri.heartbeat), ("v/h", Some(3)));
        let uri = Uri::parse("amqps://broker").unwrap();
        assert_eq!((uri.port, uri.vhost.as_str(), uri.user.as_str()), (5671, "/", "guest"));
        assert!(!uri.has_credentials);
        assert_eq!(Uri::parse("amqp://h/").unwrap().vhost, "");
        let uri = Uri::parse("amqp://[::1]:9/%2F?auth_mechanism=EXTERNAL").unwrap();
        assert_eq!((uri.host.as_str(), uri.port), ("::1", 9));
        assert_eq!(uri.mechanism, Some(Mechanism::External));
        for bad in [
            "http://h",
            "h",
            "amqp://",
            "amqp://u:p@",
            "amqp://h:99999",
            "amqp://h:x",
            "amqp://[::1",
            "amqp://[zz]",
            "amqp://h/%4",
            "amqp://h/v?heartbeat=never",
            "amqp://h/v?auth_mechanism=amqplain",
            "amqp://h h/v",
            "amqp://h/v#x",
        ] {
            assert!(Uri::parse(bad).is_err(), "{bad}");
        }
    }
}
