//! Notifications, as oslo.messaging's two drivers for them write them.

use serde_json::{Map, Value, json};

use super::ids::Id;
use super::json::Members;
use super::plain::{CONTEXT, any, context, text};
use super::{Malformed, inner, max_body, sealed, wrap};

/// How a notification is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// `messaging`: not at all.
    Messaging,
    /// `messagingv2`: in the envelope of version 2.0.
    MessagingV2,
}

/// A notification in clear.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// A UUID with dashes.
    pub message_id: String,
    /// `service.host`.
    pub publisher_id: String,
    /// What happened.
    pub event_type: String,
    /// `INFO` and so on; its lower case is part of the queue's name.
    pub priority: String,
    /// More about it.
    pub payload: Value,
    /// UTC, `2026-01-31 23:59:59.123456`.
    pub timestamp: String,
    /// The request's context, as far as it is told.
    pub context: Map<String, Value>,
    /// `_unique_id`.
    pub unique_id: Id,
}

impl Notification {
    /// Reads one of either driver, with at most `max_frame` bytes of content.
    ///
    /// # Errors
    /// It is not in the form of either.
    pub fn read(body: &[u8], max_frame: usize) -> Result<(Self, Driver), Malformed> {
        if let Ok(text) = inner(body, max_frame) {
            return Ok((Self::from_text(&text)?, Driver::MessagingV2));
        }
        if body.len() > max_body(max_frame) {
            return Err(Malformed::TooLarge);
        }
        let text = std::str::from_utf8(body).map_err(|_| Malformed::Json)?;
        Ok((Self::from_text(text)?, Driver::Messaging))
    }

    fn from_text(content: &str) -> Result<Self, Malformed> {
        let mut members = Members::read(content).map_err(|_| Malformed::Json)?;
        let mut field =
            |name| text(&mut members, name).and_then(|text| text.ok_or(Malformed::Member(name)));
        let (message_id, publisher_id) = (field("message_id")?, field("publisher_id")?);
        let (event_type, priority) = (field("event_type")?, field("priority")?);
        let timestamp = field("timestamp")?;
        let payload = any(members.take("payload"), "payload")?;
        let unique_id = sealed::id(&mut members, "_unique_id")?;
        let context = context(members)?;
        Ok(Self {
            message_id,
            publisher_id,
            event_type,
            priority,
            payload,
            timestamp,
            context,
            unique_id,
        })
    }

    /// The body.
    pub fn body(&self, driver: Driver) -> Vec<u8> {
        let mut content = json!({
            "message_id": self.message_id,
            "publisher_id": self.publisher_id,
            "event_type": self.event_type,
            "priority": self.priority,
            "payload": self.payload,
            "timestamp": self.timestamp,
            "_unique_id": self.unique_id.to_string(),
        });
        if let Value::Object(members) = &mut content {
            for (name, value) in &self.context {
                members.insert(format!("{CONTEXT}{name}"), value.clone());
            }
        }
        let text = content.to_string();
        match driver {
            Driver::Messaging => text.into_bytes(),
            Driver::MessagingV2 => wrap(&text).into_bytes(),
        }
    }

    /// The routing key, which is the queue's name too: `<topic>.<priority in lower case>`.
    pub fn routing_key(&self, topic: &str) -> String {
        format!("{topic}.{}", self.priority.to_ascii_lowercase())
    }
}
