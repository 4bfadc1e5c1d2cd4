//! What is judged: who wants to do what, where, with which arguments.

use std::fmt;

use bulla_seal::PrincipalKind;
use bulla_seal::cbor::Reader;

/// What a sender does with a method, or a user of the HTTPS API with the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Asks, and waits for the answer.
    Call,
    /// Tells one receiver.
    Cast,
    /// Tells a group.
    Fanout,
    /// Reports on the way to an answer.
    ReplyProgress,
    /// Has the control plane call a method, by the HTTPS API.
    ApiCall,
    /// Has it cast.
    ApiCast,
    /// Has it send to a group.
    ApiFanout,
    /// Reads what the control plane knows.
    ApiRead,
    /// Changes what the control plane knows.
    ApiManage,
    /// Watches what happens: the tap, the journal.
    ApiWatch,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Call,
        Self::Cast,
        Self::Fanout,
        Self::ReplyProgress,
        Self::ApiCall,
        Self::ApiCast,
        Self::ApiFanout,
        Self::ApiRead,
        Self::ApiManage,
        Self::ApiWatch,
    ];

    /// As rules name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Cast => "cast",
            Self::Fanout => "fanout",
            Self::ReplyProgress => "reply-progress",
            Self::ApiCall => "api:call",
            Self::ApiCast => "api:cast",
            Self::ApiFanout => "api:fanout",
            Self::ApiRead => "api:read",
            Self::ApiManage => "api:manage",
            Self::ApiWatch => "api:watch",
        }
    }

    /// Whether users of the HTTPS API do it, and not senders of messages.
    pub const fn is_api(self) -> bool {
        !matches!(self, Self::Call | Self::Cast | Self::Fanout | Self::ReplyProgress)
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    pub(crate) const fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What sort of somebody it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WhoKind {
    /// A managed machine.
    Agent,
    /// A type of control-plane service.
    Component,
    /// A group that is sent to.
    Group,
    /// A person who uses the HTTPS API, by certificate or access key.
    Operator,
    /// A program that uses it, by access key.
    Program,
    /// A user of Keystone's who uses it.
    User,
}

impl WhoKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Agent, Self::Component, Self::Group, Self::Operator, Self::Program, Self::User];

    /// What short names begin with.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Component => "component",
            Self::Group => "group",
            Self::Operator => "operator",
            Self::Program => "program",
            Self::User => "user",
        }
    }

    /// Whether it uses the HTTPS API, and sends no messages.
    pub const fn is_api(self) -> bool {
        matches!(self, Self::Operator | Self::Program | Self::User)
    }
}

impl From<PrincipalKind> for WhoKind {
    fn from(kind: PrincipalKind) -> Self {
        match kind {
            PrincipalKind::Agent => Self::Agent,
            PrincipalKind::Component => Self::Component,
        }
    }
}

/// Whoever sends, or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// What sort of somebody.
    pub kind: WhoKind,
    /// The agent's id, the component's type, a group's or a user's name.
    pub id: &'a str,
}

impl<'a> Who<'a> {
    /// From its short name, `agent/db-1`.
    pub fn parse(short: &'a str) -> Option<Self> {
        let (kind, id) = short.split_once('/')?;
        let kind = WhoKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        (!id.is_empty()).then_some(Self { kind, id })
    }
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.id)
    }
}

/// A method as its receiver declares it, and where it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodOf<'a> {
    /// Who has it.
    pub receiver: Who<'a>,
    /// The exchange that the message was addressed to.
    pub exchange: &'a str,
    /// The topic that it was addressed to.
    pub topic: &'a str,
    /// Empty for none.
    pub namespace: &'a str,
    /// Without its namespace.
    pub name: &'a str,
    /// The version that is asked for: major and minor.
    pub version: (u32, u32),
    /// Declared as open to agents.
    pub open_to_agents: bool,
    /// Declared as open to components.
    pub open_to_components: bool,
    /// Declared to change nothing.
    pub read_only: bool,
}

impl MethodOf<'_> {
    /// With its namespace: how rules name it.
    pub fn full_name(&self) -> String {
        match self.namespace {
            "" => self.name.to_owned(),
            namespace => format!("{namespace}.{}", self.name),
        }
    }

    /// The same without making a string.
    pub(crate) fn is_named(&self, full: &str) -> bool {
        match self.namespace {
            "" => full == self.name,
            namespace => full
                .strip_prefix(namespace)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|name| name == self.name),
        }
    }
}

/// One question: may `sender` do `action` with `method`?
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who asks; proven.
    pub sender: Who<'a>,
    /// The roles in the sender's credential, or that the settings give a user of the API.
    pub roles: &'a [String],
    /// The projects that the token of a user of Keystone's is for.
    pub projects: &'a [String],
    /// The groups that the sender is a member of; `None` if that is not known, which only
    /// [policies that speak of groups](crate::Policy::needs_groups) ask.
    pub groups: Option<&'a [String]>,
    /// What it does.
    pub action: Action,
    /// With what.
    pub method: MethodOf<'a>,
    /// The arguments: one CBOR item, a map from names to values.
    pub args: &'a [u8],
    /// Seconds since 1970, by the receiver's clock.
    pub now: u64,
}

/// A value in a rule or of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Long(i64),
    /// Text.
    Text(std::borrow::Cow<'a, str>),
    /// Values without order, each once.
    Set(Vec<Self>),
    /// A principal, a role, a group, a method and the like.
    Entity(EntityRef<'a>),
}

/// What kind of thing a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKind {
    /// An agent.
    Agent,
    /// A component type.
    Component,
    /// A role from a credential.
    Role,
    /// A method, by its full name.
    Method,
    /// A namespace of methods.
    Namespace,
    /// An action.
    Action,
    /// A group that senders are members of.
    Group,
    /// A person who uses the HTTPS API.
    Operator,
    /// A program that uses it.
    Program,
    /// A user of Keystone's who uses it.
    User,
    /// A project of Keystone's.
    Project,
    /// A group that is sent to.
    Fanout,
}

impl EntityKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Agent,
        Self::Component,
        Self::Role,
        Self::Method,
        Self::Namespace,
        Self::Action,
        Self::Group,
        Self::Operator,
        Self::Program,
        Self::User,
        Self::Project,
        Self::Fanout,
    ];

    /// As rules name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "Agent",
            Self::Component => "Component",
            Self::Role => "Role",
            Self::Method => "Method",
            Self::Namespace => "Namespace",
            Self::Action => "Action",
            Self::Group => "Group",
            Self::Operator => "Operator",
            Self::Program => "Program",
            Self::User => "User",
            Self::Project => "Project",
            Self::Fanout => "Fanout",
        }
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) const fn of(kind: WhoKind) -> Self {
        match kind {
            WhoKind::Agent => Self::Agent,
            WhoKind::Component => Self::Component,
            WhoKind::Group => Self::Fanout,
            WhoKind::Operator => Self::Operator,
            WhoKind::Program => Self::Program,
            WhoKind::User => Self::User,
        }
    }
}

/// One thing by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntityRef<'a> {
    /// What it is.
    pub kind: EntityKind,
    /// Its name.
    pub id: std::borrow::Cow<'a, str>,
}

/// What an argument holds, as a policy declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgType {
    /// Text.
    Text,
    /// A whole number.
    Long,
    /// True or false.
    Bool,
    /// A list of texts, without order.
    Texts,
    /// A list of whole numbers, without order.
    Longs,
}

/// An argument is not of the type that the policy declares, or the arguments are no map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfit;

/// Most values of a list that a rule looks at.
const MAX_SET: usize = 10_000;

/// The declared arguments of a request, in the order of `declared`; `None` for what is not there.
/// Null counts as not there. A name that comes twice is unfit: nobody knows which one the method
/// will take.
pub(crate) fn arguments<'a>(
    item: &'a [u8],
    declared: &[(String, ArgType)],
) -> Result<Vec<Option<Value<'a>>>, Unfit> {
    let mut found = vec![None; declared.len()];
    let mut seen = vec![false; declared.len()];
    // No arguments at all are an empty list or null.
    if matches!(item, [] | [0x80] | [0xf6]) {
        return Ok(found);
    }
    let mut reader = Reader::new(item);
    let pairs = reader.map_up_to(usize::MAX).map_err(|_| Unfit)?;
    for _ in 0..pairs {
        let name = reader.text().map_err(|_| Unfit)?;
        let Some(at) = declared.iter().position(|(declared, _)| declared == name) else {
            reader.skip().map_err(|_| Unfit)?;
            continue;
        };
        let (Some(place), Some(seen), Some((_, wanted))) =
            (found.get_mut(at), seen.get_mut(at), declared.get(at))
        else {
            return Err(Unfit);
        };
        if std::mem::replace(seen, true) {
            return Err(Unfit);
        }
        *place = value(&mut reader, *wanted)?;
    }
    reader.end().map_err(|_| Unfit)?;
    Ok(found)
}

fn value<'a>(reader: &mut Reader<'a>, wanted: ArgType) -> Result<Option<Value<'a>>, Unfit> {
    if reader.null().map_err(|_| Unfit)? {
        return Ok(None);
    }
    let one = |reader: &mut Reader<'a>, wanted| match wanted {
        ArgType::Text | ArgType::Texts => {
            reader.text().map(|text| Value::Text(text.into())).map_err(|_| Unfit)
        }
        ArgType::Long | ArgType::Longs => reader.int().map(Value::Long).map_err(|_| Unfit),
        ArgType::Bool => reader.bool().map(Value::Bool).map_err(|_| Unfit),
    };
    if !matches!(wanted, ArgType::Texts | ArgType::Longs) {
        return one(reader, wanted).map(Some);
    }
    let len = reader.array_up_to(MAX_SET).map_err(|_| Unfit)?;
    let mut set = Vec::with_capacity(len.min(64));
    for _ in 0..len {
        set.push(one(reader, wanted)?);
    }
    Ok(Some(Value::set(set)))
}

impl Value<'_> {
    /// A set: in order, each value once.
    pub(crate) fn set(mut values: Vec<Self>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self::Set(values)
    }
}
