//! Which methods a server has.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bulla_journal::Text;
use bulla_seal::MessageBuf;
use bulla_seal::mutants::{Check, off};
use foldhash::fast::RandomState;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::error::{RemoteError, kinds};
use crate::value;

/// A handler's result before it is encoded.
pub type HandlerResult<T> = Result<T, RemoteError>;

/// A method that runs.
pub(crate) type Handling = Pin<Box<dyn Future<Output = HandlerResult<MessageBuf>> + Send>>;
/// Reads its arguments before it returns the future, so that they are not copied.
type Handler = dyn Fn(Context, &[u8]) -> Handling + Send + Sync;

/// A version, `major.minor`. A server's is compatible with a request's if the major is the same
/// and the server's minor is at least the request's (oslo.messaging's rule).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Incompatible changes.
    pub major: u32,
    /// Compatible additions.
    pub minor: u32,
}

impl Version {
    /// A version from its parts.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Parses `major.minor`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Whether this server version serves a request for `asked`.
    pub const fn serves(self, asked: Self) -> bool {
        self.major == asked.major && self.minor >= asked.minor
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One method with what is declared about it.
pub struct Method {
    name: String,
    namespace: Option<String>,
    full_name: String,
    event_name: Text,
    version: Version,
    access: Access,
    effect: Effect,
    handler: Box<Handler>,
}

/// Who may call a method of a component. Methods of an agent are for components, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Agents may.
    pub agents: bool,
    /// Components may.
    pub components: bool,
    /// It belongs to the protocol itself: the default rule judges it, whatever the policy.
    pub protocol: bool,
}

/// What running a method does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effect {
    /// Anything: it must not run twice.
    #[default]
    Once,
    /// Running it again has no further effect: a lost worker's run is taken over.
    Idempotent,
    /// None at all, at a bounded cost: no claim is made.
    ReadOnly,
}

impl Effect {
    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Idempotent => "idempotent",
            Self::ReadOnly => "read-only",
        }
    }
}

impl Method {
    /// An async function from typed arguments to a typed result.
    pub fn new<A, R, F, Fut>(name: &str, handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult<R>> + Send + 'static,
    {
        let handler = move |context: Context, args: &[u8]| -> Handling {
            // A guess: many results are as large as what was asked with.
            let room = args.len().clamp(256, 64 << 10);
            let args = match value::decode::<A>(args) {
                Ok(args) => args,
                Err(error) => {
                    let error = RemoteError::new(kinds::BAD_ARGUMENTS, error.to_string());
                    return Box::pin(std::future::ready(Err(error)));
                }
            };
            let running = handler(context, args);
            Box::pin(async move {
                let result = running.await?;
                let mut out = MessageBuf::with_capacity(room);
                value::encode(&result, out.sink())
                    .map_err(|e| RemoteError::new(kinds::INTERNAL, e.to_string()))?;
                Ok(out)
            })
        };
        Self {
            name: name.to_owned(),
            namespace: None,
            full_name: name.to_owned(),
            event_name: Text::new(name),
            version: Version::new(1, 0),
            access: Access::default(),
            effect: Effect::default(),
            handler: Box::new(handler),
        }
    }

    /// In a namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self.full_name = format!("{namespace}.{}", self.name);
        self.event_name = Text::new(&self.full_name);
        self
    }

    /// The version that the server has; 1.0 unless set.
    #[must_use]
    pub fn version(mut self, major: u32, minor: u32) -> Self {
        self.version = Version::new(major, minor);
        self
    }

    /// Lets agents call this method of a component.
    #[must_use]
    pub fn open_to_agents(mut self) -> Self {
        self.access.agents = true;
        self
    }

    /// Lets components call this method of a component.
    #[must_use]
    pub fn open_to_components(mut self) -> Self {
        self.access.components = true;
        self
    }

    /// Says that it belongs to the protocol itself, as look-ups in the directory do: the default
    /// rule judges it, whatever the policy, which could otherwise cut off everybody for good.
    #[must_use]
    pub fn of_the_protocol(mut self) -> Self {
        self.access.protocol = true;
        self
    }

    /// Running it again has no further effect.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.effect = Effect::Idempotent;
        self
    }

    /// It has no side effect and a bounded cost, and its messages live at most 120 s.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.effect = Effect::ReadOnly;
        self
    }

    /// Who may call it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// What running it does.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Its namespace.
    pub fn in_namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Its name without its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name with its namespace.
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    /// The same, as events have it.
    pub(crate) fn event_name(&self) -> &Text {
        &self.event_name
    }

    pub(crate) fn run(&self, context: Context, args: &[u8]) -> Handling {
        (self.handler)(context, args)
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Method({} {})", self.full_name(), self.version)
    }
}

/// Why no method answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    Unknown,
    Version,
}

/// A server's methods, by namespace, name and major version.
#[derive(Default, Clone)]
pub struct Router {
    methods: HashMap<String, Vec<Arc<Method>>, RandomState>,
    others: Option<Arc<Others>>,
}

/// Makes methods of names that nobody registered.
type Others = dyn Fn(Option<&str>, &str, Version) -> Option<Method> + Send + Sync;

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.methods()).finish()
    }
}

impl Router {
    /// No methods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an async function as a method, with the defaults of [`Method`].
    #[must_use]
    pub fn method<A, R, F, Fut>(self, name: &str, handler: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize + 'static,
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult<R>> + Send + 'static,
    {
        self.with(Method::new(name, handler))
    }

    /// Adds a method; one with the same namespace, name and major version is replaced.
    #[must_use]
    pub fn with(mut self, method: Method) -> Self {
        let same = |m: &Arc<Method>| {
            m.namespace == method.namespace && m.version.major == method.version.major
        };
        let versions = self.methods.entry(method.name.clone()).or_default();
        versions.retain(|m| !same(m));
        versions.push(Arc::new(method));
        self
    }

    /// Asks `make` for a method that is not here by namespace, name and version, where another part of
    /// the program knows what there is. It is judged like any other before it runs; `None` is no method.
    #[must_use]
    pub fn others<F>(mut self, make: F) -> Self
    where
        F: Fn(Option<&str>, &str, Version) -> Option<Method> + Send + Sync + 'static,
    {
        self.others = Some(Arc::new(make));
        self
    }

    /// Every method that was registered.
    pub fn methods(&self) -> impl Iterator<Item = &Arc<Method>> {
        self.methods.values().flatten()
    }

    pub(crate) fn find(
        &self,
        namespace: Option<&str>,
        name: &str,
        version: &str,
    ) -> Result<Cow<'_, Arc<Method>>, NoRoute> {
        let named = self.methods.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut in_namespace =
            named.iter().filter(|m| m.namespace.as_deref() == namespace).peekable();
        if in_namespace.peek().is_none() {
            if off(Check::MethodDeclared) {
                let any = self.methods().max_by_key(|any| any.full_name());
                return any.map(Cow::Borrowed).ok_or(NoRoute::Unknown);
            }
            let others = self.others.as_ref().ok_or(NoRoute::Unknown)?;
            let asked = Version::parse(version).ok_or(NoRoute::Version)?;
            let made = others(namespace, name, asked).ok_or(NoRoute::Unknown)?;
            return Ok(Cow::Owned(Arc::new(made)));
        }
        let asked = Version::parse(version).ok_or(NoRoute::Version)?;
        let found = in_namespace.find(|m| m.version.serves(asked));
        found.map(Cow::Borrowed).ok_or(NoRoute::Version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing(_: Context, (): ()) -> HandlerResult<()> {
        Ok(())
    }

    #[test]
    fn versions_follow_oslo_messaging() {
        let server = Version::new(1, 4);
        assert!(server.serves(Version::new(1, 0)));
        assert!(server.serves(Version::new(1, 4)));
        assert!(!server.serves(Version::new(1, 5)));
        assert!(!server.serves(Version::new(2, 0)));
        assert_eq!(Version::parse("1.10"), Some(Version::new(1, 10)));
        for bad in ["", "1", "1.", ".1", "1.0.0", "a.b", "-1.0"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn finds_by_namespace_name_and_version() {
        let router = Router::new()
            .method("ping", nothing)
            .with(Method::new("ping", nothing).namespace("db").version(2, 3));
        let found =
            |ns, name, version| router.find(ns, name, version).map(|m| m.full_name().to_owned());
        assert_eq!(found(None, "ping", "1.0"), Ok("ping".into()));
        assert_eq!(found(Some("db"), "ping", "2.1"), Ok("db.ping".into()));
        assert_eq!(found(Some("db"), "ping", "1.0"), Err(NoRoute::Version));
        assert_eq!(found(Some("other"), "ping", "1.0"), Err(NoRoute::Unknown));
        assert_eq!(found(None, "pong", "1.0"), Err(NoRoute::Unknown));
    }

    #[test]
    fn others_are_asked_for_last() {
        let router = Router::new().method("ping", nothing).others(|namespace, name, asked| {
            let made = Method::new(name, nothing).version(asked.major, asked.minor);
            (namespace == Some("db")).then(|| made.namespace("db"))
        });
        let found =
            |ns, name, version| router.find(ns, name, version).map(|m| m.full_name().to_owned());
        assert_eq!(found(None, "ping", "1.0"), Ok("ping".into()));
        assert_eq!(found(None, "ping", "2.0"), Err(NoRoute::Version));
        assert_eq!(found(Some("db"), "grow", "2.1"), Ok("db.grow".into()));
        assert_eq!(found(Some("db"), "grow", "x"), Err(NoRoute::Version));
        assert_eq!(found(None, "grow", "1.0"), Err(NoRoute::Unknown));
    }
}
