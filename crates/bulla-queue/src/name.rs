//! Whose queue, and which.

use std::sync::Arc;

use crate::limits::Limits;

/// What the topics of a project are kept under: no project's id has a line's end in it.
const TOPICS: &str = "topics\n";

/// Under which name a store keeps a project's topics, which are queues to it.
pub(crate) fn topics_of(project: &str) -> String {
    format!("{TOPICS}{project}")
}

/// A queue of a project. Everything in a queue is looked up by all of it: project, name and id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    project: Arc<str>,
    name: Arc<str>,
}

impl Place {
    /// `name` of a project; `None` if it is no queue's name.
    #[must_use]
    pub fn new(project: Arc<str>, name: &str, limits: &Limits) -> Option<Self> {
        let fits = (1..=limits.max_name).contains(&name.len());
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        (fits && name.bytes().all(known)).then(|| Self { project, name: name.into() })
    }

    /// Another queue of the same project.
    #[must_use]
    pub fn beside(&self, name: &str, limits: &Limits) -> Option<Self> {
        Self::new(Arc::clone(&self.project), name, limits)
    }

    /// The topic of that name: another queue, as stores see it.
    #[must_use]
    pub(crate) fn topic(self) -> Self {
        Self { project: topics_of(&self.project).into(), name: self.name }
    }

    /// Whether it is a topic.
    pub(crate) fn is_topic(&self) -> bool {
        self.project.starts_with(TOPICS)
    }

    /// Whose it is, as requests name it.
    pub(crate) fn tenant(&self) -> &str {
        self.project.strip_prefix(TOPICS).unwrap_or(&self.project)
    }

    /// Where it is in the API.
    pub(crate) fn path(&self) -> String {
        let kind = if self.is_topic() { "topics" } else { "queues" };
        format!("/v2/{kind}/{}", self.name)
    }

    /// Whose it is, as stores keep it.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// What its records are of: no two queues have the same, as a name has no slash.
    #[must_use]
    pub fn owner(&self) -> String {
        format!("{}/{}", self.project, self.name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Who posted a message, so that a reader need not hear its own: a UUID. It proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId([u8; 16]);

impl ClientId {
    /// The service itself.
    pub(crate) const NOBODY: Self = Self([0; 16]);

    /// From a UUID with or without dashes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = [0_u8; 32];
        let mut count = 0;
        let well_dashed = match text.len() {
            32 => !text.contains('-'),
            36 => [8, 13, 18, 23].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-')),
            _ => false,
        };
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            *digits.get_mut(count)? = byte;
            count += 1;
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(digits.get(..count)?, &mut bytes).ok()?;
        well_dashed.then_some(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_zaqars() {
        let limits = Limits::default();
        let place = |name: &str| Place::new("p".into(), name, &limits);
        for good in ["a", "A-z_0.9", &"a".repeat(64)] {
            assert!(place(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert!(place(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_topic_is_another_queue_of_the_same_tenant() {
        let queue = Place::new("p".into(), "a", &Limits::default()).unwrap();
        let topic = queue.clone().topic();
        assert_ne!((queue.project(), queue.owner()), (topic.project(), topic.owner()));
        assert_eq!((queue.tenant(), topic.tenant()), ("p", "p"));
        assert_eq!([queue.path(), topic.path()], ["/v2/queues/a", "/v2/topics/a"]);
    }

    #[test]
    fn clients_are_uuids() {
        let dashed = ClientId::parse("30387f00-39a0-11ee-be56-0242ac120002").unwrap();
        assert_eq!(ClientId::parse("30387F0039A011EEBE560242AC120002"), Some(dashed));
        for bad in [
            "",
            "30387f00-39a0-11ee-be56-0242ac12000",
            "30387f0-039a0-11ee-be56-0242ac120002",
            "30387f0039a011eebe560242ac12000g",
            "30387f0039a011eebe560242ac1200020000",
        ] {
            assert_eq!(ClientId::parse(bad), None, "{bad}");
        }
    }
}
