//! Keystone's identity API, version 3, as far as it is needed.

use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::KeystoneLogin;

/// What Keystone says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validated {
    pub(super) user: String,
    pub(super) domain: String,
    pub(super) project: Option<Project>,
    pub(super) roles: Vec<String>,
    /// Unix seconds.
    pub(super) expires: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Project {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) domain: String,
}

#[derive(Deserialize)]
struct Answer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    expires_at: String,
    user: Named,
    project: Option<Named>,
    #[serde(default)]
    roles: Vec<Role>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    name: String,
    domain: Domain,
}

#[derive(Deserialize)]
struct Domain {
    name: String,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

type Odd = &'static str;
const NOT_IT: Odd = "is not what Keystone answers";
const NO_TIME: Odd = "has no time of expiry that can be read";

/// Reads the answer to a validation.
pub(super) fn validated(body: &[u8]) -> Result<Validated, Odd> {
    let Answer { token } = serde_json::from_slice(body).map_err(|_| NOT_IT)?;
    Ok(Validated {
        expires: unix(&token.expires_at).ok_or(NO_TIME)?,
        user: token.user.name,
        domain: token.user.domain.name,
        project: token.project.map(|project| Project {
            id: project.id,
            name: project.name,
            domain: project.domain.name,
        }),
        roles: token.roles.into_iter().map(|role| role.name).collect(),
    })
}

/// When the token ends that a login gave.
pub(super) fn expires(body: &[u8]) -> Result<u64, Odd> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| NOT_IT)?;
    let text = answer.pointer("/token/expires_at").and_then(Value::as_str).ok_or(NO_TIME)?;
    unix(text).ok_or(NO_TIME)
}

/// The body of a login.
pub(super) fn login(login: &KeystoneLogin, secret: &str) -> Zeroizing<Vec<u8>> {
    let auth = match login {
        KeystoneLogin::Password { user, user_domain, project, project_domain, .. } => json!({
            "identity": {
                "methods": ["password"],
                "password": { "user": {
                    "name": user, "domain": { "name": user_domain }, "password": secret,
                } },
            },
            "scope": { "project": { "name": project, "domain": { "name": project_domain } } },
        }),
        KeystoneLogin::ApplicationCredential { id, .. } => json!({
            "identity": {
                "methods": ["application_credential"],
                "application_credential": { "id": id, "secret": secret },
            },
        }),
    };
    Zeroizing::new(serde_json::to_vec(&json!({ "auth": auth })).unwrap_or_default())
}

/// `2026-11-23T03:30:13.000000Z` as Unix seconds.
fn unix(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |text: &str| {
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten()
    };
    let mut parts = date.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let mut parts = time.split('.').next()?.split(':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !fits {
        return None;
    }
    // Days since 1970 (Howard Hinnant's days_from_civil).
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-23T03:30:13.000000Z", Some(1_795_404_613)),
            ("2024-02-29T23:59:59.999999Z", Some(1_709_251_199)),
            ("2026-11-23T03:30:13+00:00", None),
            ("2026-13-23T03:30:13Z", None),
            ("2026-11-23 03:30:13Z", None),
            ("", None),
        ] {
            assert_eq!(unix(text), secs, "{text}");
        }
    }

    #[test]
    fn an_answer_is_read_or_refused_whole() {
        let body = br#"{"token": {"methods": ["password"], "user": {"domain": {"id": "default",
            "name": "Default"}, "id": "1f", "name": "ada", "password_expires_at": null},
            "expires_at": "2026-11-23T03:30:13.000000Z", "project": {"domain": {"id": "default",
            "name": "Default"}, "id": "cb", "name": "ops"}, "is_domain": false,
            "roles": [{"id": "d4", "name": "admin"}, {"id": "74", "name": "member"}]}}"#;
        let read = validated(body).unwrap();
        assert_eq!((read.user.as_str(), read.domain.as_str()), ("ada", "Default"));
        assert_eq!(read.project.unwrap().id, "cb");
        assert_eq!(read.roles, ["admin", "member"]);
        for bad in [&b"{}"[..], b"", b"{\"token\": {\"expires_at\": \"2026-11-23T03:30:13Z\"}}"] {
            assert_eq!(validated(bad), Err(NOT_IT));
        }
    }
}
