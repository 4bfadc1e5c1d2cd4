//! The calls of RabbitMQ's management API that are needed here.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::BrokerError;
use crate::http::{Answer, Http, escape};

/// How often it is asked again about connections that come and go, and after how long.
const ATTEMPTS: u32 = 5;
const SETTLES: Duration = Duration::from_millis(200);

/// One RabbitMQ, as an administrator.
pub(crate) struct Management {
    http: Http,
    user: String,
}

/// A user, as far as it matters.
#[derive(Debug, Deserialize)]
pub(crate) struct User {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) tags: Tags,
}

/// A connection, as far as it matters.
#[derive(Debug, Deserialize)]
pub(crate) struct Connection {
    /// Both ends.
    pub(crate) name: String,
}

/// A list since RabbitMQ 3.9, before that one text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Tags {
    List(Vec<String>),
    Text(String),
}

impl Default for Tags {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Tags {
    pub(crate) fn has(&self, tag: &str) -> bool {
        match self {
            Self::List(tags) => tags.iter().any(|have| have == tag),
            Self::Text(tags) => tags.split(',').any(|have| have.trim() == tag),
        }
    }
}

/// What is to be there, all of it in one request: RabbitMQ adds it to what it has, or replaces what
/// has the same name.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Definitions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) users: Vec<NewUser>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) exchanges: Vec<NewExchange>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) topic_permissions: Vec<NewTopicPermission>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) permissions: Vec<NewPermission>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NewUser {
    pub(crate) name: String,
    pub(crate) password_hash: String,
    pub(crate) hashing_algorithm: &'static str,
    pub(crate) tags: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct NewExchange {
    pub(crate) name: String,
    pub(crate) vhost: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NewPermission {
    pub(crate) user: String,
    pub(crate) vhost: String,
    pub(crate) configure: String,
    pub(crate) write: String,
    pub(crate) read: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct NewTopicPermission {
    pub(crate) user: String,
    pub(crate) vhost: String,
    pub(crate) exchange: String,
    pub(crate) write: String,
    pub(crate) read: String,
}

/// What the API says of a failure.
#[derive(Debug, Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    error: serde_json::Value,
    #[serde(default)]
    reason: serde_json::Value,
}

#[derive(Debug, Deserialize)]
struct Whoami {
    name: String,
}

impl Management {
    pub(crate) fn new(http: Http, user: String) -> Self {
        Self { http, user }
    }

    pub(crate) fn address(&self) -> &str {
        self.http.address()
    }

    /// That it is there, is RabbitMQ, and takes our login.
    pub(crate) async fn check(&self) -> Result<(), BrokerError> {
        let who: Option<Whoami> = self.get("/whoami", "to say who we are").await?;
        match who {
            Some(who) if who.name == self.user => Ok(()),
            _ => Err(self.http.odd("it does not know us")),
        }
    }

    /// Every user.
    pub(crate) async fn users(&self) -> Result<Vec<User>, BrokerError> {
        let users = self.get("/users?columns=name,tags", "to list its users").await?;
        users.ok_or_else(|| self.http.odd("it has no list of users"))
    }

    /// The user `name`, if there is one.
    pub(crate) async fn user(&self, name: &str) -> Result<Option<User>, BrokerError> {
        self.get(&format!("/users/{}", escape(name)), &format!("to show the user {name}")).await
    }

    /// Makes everything that is in `definitions`.
    pub(crate) async fn define(
        &self,
        definitions: &Definitions,
        what: &str,
    ) -> Result<(), BrokerError> {
        let body = serde_json::to_vec(definitions)
            .map_err(|error| self.http.odd(&format!("it can't be asked: {error}")))?;
        let answer = self.http.ask(Method::POST, "/definitions", Some(body.into())).await?;
        self.done(&answer, what).map(drop)
    }

    /// Removes the user; whether there was one.
    pub(crate) async fn remove_user(&self, name: &str) -> Result<bool, BrokerError> {
        let path = format!("/users/{}", escape(name));
        let answer = self.http.ask(Method::DELETE, &path, None).await?;
        self.done(&answer, &format!("to remove the user {name}"))
    }

    /// Closes every connection of a user, as the broker itself tracks them (what it lists of
    /// connections is some seconds old).
    pub(crate) async fn close_connections(&self, user: &str) -> Result<(), BrokerError> {
        let path = format!("/connections/username/{}", escape(user));
        let answer = self.settled(Method::DELETE, &path).await?;
        self.done(&answer, &format!("to close the connections of {user}")).map(drop)
    }

    /// Asks again when it fails: RabbitMQ does that when a connection begins or ends just then.
    async fn settled(&self, method: Method, path: &str) -> Result<Answer, BrokerError> {
        for _ in 0..ATTEMPTS {
            let answer = self.http.ask(method.clone(), path, None).await?;
            if answer.status != StatusCode::INTERNAL_SERVER_ERROR {
                return Ok(answer);
            }
            tokio::time::sleep(SETTLES).await;
        }
        self.http.ask(method, path, None).await
    }

    /// Where a user's connections come from, as the broker itself tracks them.
    pub(crate) async fn connections(&self, user: &str) -> Result<Vec<Connection>, BrokerError> {
        let path = format!("/connections/username/{}", escape(user));
        let answer = self.settled(Method::GET, &path).await?;
        if !self.done(&answer, &format!("to list the connections of {user}"))? {
            return Ok(Vec::new());
        }
        let parsed = serde_json::from_slice(&answer.body);
        parsed.map_err(|_| self.http.odd("its answer is of another form"))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &str,
    ) -> Result<Option<T>, BrokerError> {
        let answer = self.http.ask(Method::GET, path, None).await?;
        if !self.done(&answer, what)? {
            return Ok(None);
        }
        let parsed = serde_json::from_slice(&answer.body);
        parsed.map(Some).map_err(|_| self.http.odd("its answer is of another form"))
    }

    /// Whether what was asked for is there.
    fn done(&self, answer: &Answer, what: &str) -> Result<bool, BrokerError> {
        if answer.status.is_success() {
            return Ok(true);
        }
        let complaint = complaint(&answer.body);
        match answer.status {
            StatusCode::NOT_FOUND if complaint.is_some() => Ok(false),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(BrokerError::NotAllowed {
                address: self.http.address().to_owned(),
                user: self.user.clone(),
                why: complaint.unwrap_or_else(|| answer.status.to_string()),
            }),
            status => match complaint {
                Some(why) => Err(BrokerError::Refused {
                    what: what.to_owned(),
                    status: status.as_u16(),
                    why,
                }),
                None => Err(self.http.odd(&format!("it answered {status}"))),
            },
        }
    }
}

/// What RabbitMQ says in words; nothing if that is not how it speaks.
fn complaint(body: &Bytes) -> Option<String> {
    let Complaint { error, reason } = serde_json::from_slice(body).ok()?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    text(reason).or_else(|| text(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_in_both_forms() {
        let has = |json: &str| serde_json::from_str::<User>(json).unwrap().tags.has("bulla:x");
        assert!(has(r#"{"name":"a","tags":["management","bulla:x"]}"#));
        assert!(has(r#"{"name":"a","tags":"management,bulla:x"}"#));
        assert!(!has(r#"{"name":"a","tags":["bulla:xy"]}"#));
        assert!(!has(r#"{"name":"a"}"#));
    }

    #[test]
    fn what_it_complains_of_is_told() {
        let said = |json: &'static str| complaint(&Bytes::from_static(json.as_bytes()));
        let text = said(r#"{"error":"not_authorised","reason":"Login failed"}"#);
        assert_eq!(text.as_deref(), Some("Login failed"));
        assert_eq!(said(r#"{"error":"bad_request"}"#).as_deref(), Some("bad_request"));
        assert_eq!(said("<html>"), None);
    }
}
