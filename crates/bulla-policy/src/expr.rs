//! What a rule asks of a request: a small language, a part of Cedar's, judged without Cedar.

use std::borrow::Cow;
use std::fmt;

use crate::request::{ArgType, EntityKind, EntityRef, Request, Unfit, Value, arguments};

/// A condition. Of two values of different types none is equal to the other; what can't be added
/// or compared is an error, and an error denies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expr {
    Literal(Value<'static>),
    Field(Field),
    /// The argument with this index of the policy's declarations.
    Arg(usize),
    HasArg(usize),
    Set(Vec<Self>),
    Not(Box<Self>),
    Negative(Box<Self>),
    IsEmpty(Box<Self>),
    Two(Op, Box<(Self, Self)>),
    If(Box<(Self, Self, Self)>),
    Like(Box<Self>, Pattern),
    Is(Subject, EntityKind),
    /// Whether the subject is, or is below, an entity, or one of a set of them.
    Within(Subject, Box<Self>),
}

impl Expr {
    /// The field that it holds equal to a text, and the text, if that is all that it says.
    pub(crate) fn demands(&self) -> Option<(Field, &str)> {
        let Self::Two(Op::Equal, two) = self else { return None };
        match (&two.0, &two.1) {
            (Self::Field(field), Self::Literal(Value::Text(text)))
            | (Self::Literal(Value::Text(text)), Self::Field(field)) => Some((*field, text)),
            _ => None,
        }
    }

    /// Whether it looks at an argument anywhere.
    pub(crate) fn looks_at_arguments(&self) -> bool {
        match self {
            Self::Arg(_) | Self::HasArg(_) => true,
            Self::Set(items) => items.iter().any(Self::looks_at_arguments),
            Self::Not(inner)
            | Self::Negative(inner)
            | Self::IsEmpty(inner)
            | Self::Like(inner, _)
            | Self::Within(_, inner) => inner.looks_at_arguments(),
            Self::Two(_, two) => two.0.looks_at_arguments() || two.1.looks_at_arguments(),
            Self::If(three) => {
                let (condition, then, otherwise) = three.as_ref();
                [condition, then, otherwise].into_iter().any(Self::looks_at_arguments)
            }
            Self::Literal(_) | Self::Field(_) | Self::Is(..) => false,
        }
    }

    /// Whether it names a thing of this kind anywhere that may be said of a sender.
    pub(crate) fn names(&self, kind: EntityKind) -> bool {
        let in_value = |value: &Value<'_>| match value {
            Value::Entity(entity) => entity.kind == kind,
            Value::Set(values) => {
                values.iter().any(|value| matches!(value, Value::Entity(e) if e.kind == kind))
            }
            _ => false,
        };
        match self {
            Self::Literal(value) => in_value(value),
            Self::Set(items) => items.iter().any(|item| item.names(kind)),
            Self::Not(inner)
            | Self::Negative(inner)
            | Self::IsEmpty(inner)
            | Self::Like(inner, _)
            | Self::Within(_, inner) => inner.names(kind),
            Self::Two(_, two) => two.0.names(kind) || two.1.names(kind),
            Self::If(three) => three.0.names(kind) || three.1.names(kind) || three.2.names(kind),
            Self::Field(_) | Self::Arg(_) | Self::HasArg(_) | Self::Is(..) => false,
        }
    }
}

/// The two things of a request that are somebody or something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Principal,
    Resource,
    Action,
}

/// What a request holds beside its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Field {
    Principal,
    Action,
    Resource,
    SenderId,
    Exchange,
    Topic,
    Namespace,
    Name,
    Major,
    Minor,
    OpenToAgents,
    OpenToComponents,
    ReadOnly,
    Receiver,
    Now,
}

/// Each field with the variable and the attribute that name it.
pub(crate) const FIELDS: [(Field, &str, &str); 15] = [
    (Field::Principal, "principal", ""),
    (Field::Action, "action", ""),
    (Field::Resource, "resource", ""),
    (Field::SenderId, "principal", "id"),
    (Field::Exchange, "resource", "exchange"),
    (Field::Topic, "resource", "topic"),
    (Field::Namespace, "resource", "namespace"),
    (Field::Name, "resource", "name"),
    (Field::Major, "resource", "major"),
    (Field::Minor, "resource", "minor"),
    (Field::OpenToAgents, "resource", "open_to_agents"),
    (Field::OpenToComponents, "resource", "open_to_components"),
    (Field::ReadOnly, "resource", "read_only"),
    (Field::Receiver, "resource", "receiver"),
    (Field::Now, "context", "now"),
];

impl Field {
    /// From the variable and the attribute; no attribute is the variable itself.
    #[cfg(feature = "author")]
    pub(crate) fn named(variable: &str, attribute: &str) -> Option<Self> {
        let found = FIELDS.iter().find(|(_, var, attr)| *var == variable && *attr == attribute);
        found.map(|(field, _, _)| *field)
    }

    /// Its text, if it is one that need not be put together.
    pub(crate) fn text<'a>(self, request: &Request<'a>) -> Option<&'a str> {
        let method = &request.method;
        match self {
            Self::SenderId => Some(request.sender.id),
            Self::Exchange => Some(method.exchange),
            Self::Topic => Some(method.topic),
            Self::Namespace => Some(method.namespace),
            Self::Name => Some(method.name),
            _ => None,
        }
    }

    fn of<'a>(self, request: &Request<'a>) -> Value<'a> {
        let method = &request.method;
        let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
        match self {
            Self::Principal => Value::Entity(EntityRef {
                kind: EntityKind::of(request.sender.kind),
                id: Cow::Borrowed(request.sender.id),
            }),
            Self::Action => Value::Entity(EntityRef {
                kind: EntityKind::Action,
                id: Cow::Borrowed(request.action.name()),
            }),
            Self::Resource => Value::Entity(EntityRef {
                kind: EntityKind::Method,
                id: Cow::Owned(method.full_name()),
            }),
            Self::SenderId => text(request.sender.id),
            Self::Exchange => text(method.exchange),
            Self::Topic => text(method.topic),
            Self::Namespace => text(method.namespace),
            Self::Name => text(method.name),
            Self::Major => Value::Long(method.version.0.into()),
            Self::Minor => Value::Long(method.version.1.into()),
            Self::OpenToAgents => Value::Bool(method.open_to_agents),
            Self::OpenToComponents => Value::Bool(method.open_to_components),
            Self::ReadOnly => Value::Bool(method.read_only),
            Self::Receiver => Value::Text(Cow::Owned(method.receiver.to_string())),
            Self::Now => Value::Long(i64::try_from(request.now).unwrap_or(i64::MAX)),
        }
    }
}

/// What takes two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    And,
    Or,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Contains,
    ContainsAll,
    ContainsAny,
}

/// Each with how Cedar writes it.
pub(crate) const OPS: [(Op, &str); 14] = [
    (Op::And, "&&"),
    (Op::Or, "||"),
    (Op::Equal, "=="),
    (Op::Unequal, "!="),
    (Op::Less, "<"),
    (Op::LessOrEqual, "<="),
    (Op::Greater, ">"),
    (Op::GreaterOrEqual, ">="),
    (Op::Add, "+"),
    (Op::Subtract, "-"),
    (Op::Multiply, "*"),
    (Op::Contains, "contains"),
    (Op::ContainsAll, "containsAll"),
    (Op::ContainsAny, "containsAny"),
];

impl Op {
    #[cfg(feature = "author")]
    pub(crate) fn named(name: &str) -> Option<Self> {
        OPS.iter().find(|(_, written)| *written == name).map(|(op, _)| *op)
    }

    fn written(self) -> &'static str {
        OPS.iter().find(|(op, _)| *op == self).map_or("?", |(_, written)| written)
    }
}

/// Text with places where anything may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) Vec<Piece>);

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Anything,
}

impl Pattern {
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (mut rest, mut floating) = (text, false);
        let mut pieces = self.0.iter().peekable();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Anything => floating = true,
                // The last one stands at the end; where it was found before says nothing.
                Piece::Text(wanted) if floating && pieces.peek().is_none() => {
                    return rest.ends_with(wanted.as_str());
                }
                Piece::Text(wanted) if floating => {
                    let Some(at) = rest.find(wanted.as_str()) else { return false };
                    rest = rest.get(at + wanted.len()..).unwrap_or_default();
                    floating = false;
                }
                Piece::Text(wanted) => match rest.strip_prefix(wanted.as_str()) {
                    Some(left) => rest = left,
                    None => return false,
                },
            }
        }
        floating || rest.is_empty()
    }
}

/// A condition could not be judged; who asks is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An argument has another type than the policy declares, or a number is too large.
    Unfit,
    /// It is not known which groups the sender is in.
    Groups,
}

impl From<Unfit> for Fault {
    fn from(_: Unfit) -> Self {
        Self::Unfit
    }
}

/// A request while rules are held against it. Its arguments are read when the first rule asks.
pub(crate) struct Judged<'r, 'a> {
    request: &'r Request<'a>,
    declared: &'r [(String, ArgType)],
    args: std::cell::OnceCell<Result<Vec<Option<Value<'a>>>, Unfit>>,
}

impl<'r, 'a> Judged<'r, 'a> {
    pub(crate) fn new(request: &'r Request<'a>, declared: &'r [(String, ArgType)]) -> Self {
        Self { request, declared, args: std::cell::OnceCell::new() }
    }

    fn arg(&self, index: usize) -> Result<Option<&Value<'a>>, Fault> {
        let read = || arguments(self.request.args, self.declared);
        let args = self.args.get_or_init(read).as_ref().map_err(|unfit| *unfit)?;
        Ok(args.get(index).ok_or(Fault::Unfit)?.as_ref())
    }

    pub(crate) fn holds(&self, expr: &Expr) -> Result<bool, Fault> {
        // What most rules ask, without making a value of it.
        match expr {
            Expr::Two(Op::And, two) => return Ok(self.holds(&two.0)? && self.holds(&two.1)?),
            Expr::Two(op @ (Op::Equal | Op::Unequal), two) => {
                if let (Some(left), Some(right)) = (self.text(&two.0), self.text(&two.1)) {
                    return Ok((left == right) == (*op == Op::Equal));
                }
            }
            Expr::Like(inner, pattern) => {
                if let Some(text) = self.text(inner) {
                    return Ok(pattern.matches(text));
                }
            }
            _ => {}
        }
        match self.value(expr)?.as_ref() {
            Value::Bool(holds) => Ok(*holds),
            _ => Err(Fault::Unfit),
        }
    }

    fn text<'e>(&'e self, expr: &'e Expr) -> Option<&'e str> {
        match expr {
            Expr::Literal(Value::Text(text)) => Some(text),
            Expr::Field(field) => field.text(self.request),
            _ => None,
        }
    }

    fn value<'e>(&'e self, expr: &'e Expr) -> Result<Cow<'e, Value<'a>>, Fault>
    where
        'r: 'e,
    {
        let bool = |holds| Ok(Cow::Owned(Value::Bool(holds)));
        match expr {
            Expr::Literal(value) => Ok(Cow::Borrowed(value)),
            Expr::Field(field) => Ok(Cow::Owned(field.of(self.request))),
            Expr::Arg(index) => self.arg(*index)?.map(Cow::Borrowed).ok_or(Fault::Unfit),
            Expr::HasArg(index) => bool(self.arg(*index)?.is_some()),
            Expr::Set(items) => {
                let of = |item| Ok(self.value(item)?.into_owned());
                let values = items.iter().map(of).collect::<Result<_, Fault>>()?;
                Ok(Cow::Owned(Value::set(values)))
            }
            Expr::Not(inner) => bool(!self.holds(inner)?),
            Expr::Negative(inner) => {
                let value = self.long(inner)?.checked_neg().ok_or(Fault::Unfit)?;
                Ok(Cow::Owned(Value::Long(value)))
            }
            Expr::IsEmpty(inner) => match self.value(inner)?.as_ref() {
                Value::Set(values) => bool(values.is_empty()),
                _ => Err(Fault::Unfit),
            },
            Expr::Two(op, two) => self.two(*op, &two.0, &two.1),
            Expr::If(three) => {
                let (condition, then, otherwise) = three.as_ref();
                self.value(if self.holds(condition)? { then } else { otherwise })
            }
            Expr::Like(inner, pattern) => match self.value(inner)?.as_ref() {
                Value::Text(text) => bool(pattern.matches(text)),
                _ => Err(Fault::Unfit),
            },
            Expr::Is(subject, kind) => bool(self.is(*subject, *kind)),
            Expr::Within(subject, places) => match self.value(places)?.as_ref() {
                Value::Entity(place) => bool(self.within(*subject, place)?),
                Value::Set(places) => {
                    let mut any = false;
                    for place in places {
                        let Value::Entity(place) = place else { return Err(Fault::Unfit) };
                        any |= self.within(*subject, place)?;
                    }
                    bool(any)
                }
                _ => Err(Fault::Unfit),
            },
        }
    }

    fn two<'e>(
        &'e self,
        op: Op,
        left: &'e Expr,
        right: &'e Expr,
    ) -> Result<Cow<'e, Value<'a>>, Fault>
    where
        'r: 'e,
    {
        let bool = |holds| Ok(Cow::Owned(Value::Bool(holds)));
        match op {
            Op::And => return bool(self.holds(left)? && self.holds(right)?),
            Op::Or => return bool(self.holds(left)? || self.holds(right)?),
            Op::Less => return bool(self.long(left)? < self.long(right)?),
            Op::LessOrEqual => return bool(self.long(left)? <= self.long(right)?),
            Op::Greater => return bool(self.long(left)? > self.long(right)?),
            Op::GreaterOrEqual => return bool(self.long(left)? >= self.long(right)?),
            Op::Add | Op::Subtract | Op::Multiply => {
                let (left, right) = (self.long(left)?, self.long(right)?);
                let value = match op {
                    Op::Add => left.checked_add(right),
                    Op::Subtract => left.checked_sub(right),
                    _ => left.checked_mul(right),
                };
                return Ok(Cow::Owned(Value::Long(value.ok_or(Fault::Unfit)?)));
            }
            _ => {}
        }
        let (left, right) = (self.value(left)?, self.value(right)?);
        match (op, left.as_ref(), right.as_ref()) {
            (Op::Equal, left, right) => bool(left == right),
            (Op::Unequal, left, right) => bool(left != right),
            (Op::Contains, Value::Set(set), value) => bool(set.contains(value)),
            (Op::ContainsAll, Value::Set(set), Value::Set(some)) => {
                bool(some.iter().all(|value| set.contains(value)))
            }
            (Op::ContainsAny, Value::Set(set), Value::Set(some)) => {
                bool(some.iter().any(|value| set.contains(value)))
            }
            _ => Err(Fault::Unfit),
        }
    }

    fn long(&self, expr: &Expr) -> Result<i64, Fault> {
        match self.value(expr)?.as_ref() {
            Value::Long(value) => Ok(*value),
            _ => Err(Fault::Unfit),
        }
    }

    pub(crate) fn is(&self, subject: Subject, kind: EntityKind) -> bool {
        kind == match subject {
            Subject::Principal => EntityKind::of(self.request.sender.kind),
            Subject::Resource => EntityKind::Method,
            Subject::Action => EntityKind::Action,
        }
    }

    pub(crate) fn within(&self, subject: Subject, place: &EntityRef<'_>) -> Result<bool, Fault> {
        let Request { sender, roles, projects, groups, action, method, .. } = *self.request;
        let id = place.id.as_ref();
        Ok(match (subject, place.kind) {
            (Subject::Action, EntityKind::Action) => action.name() == id,
            (Subject::Principal, EntityKind::Role) => roles.iter().any(|role| role == id),
            (Subject::Principal, EntityKind::Project) => projects.iter().any(|known| known == id),
            (Subject::Principal, EntityKind::Group) => {
                groups.ok_or(Fault::Groups)?.iter().any(|group| group == id)
            }
            (Subject::Principal, kind) => kind == EntityKind::of(sender.kind) && sender.id == id,
            (Subject::Resource, EntityKind::Method) => method.is_named(id),
            (Subject::Resource, EntityKind::Namespace) => method.namespace == id,
            (Subject::Resource, kind) => {
                kind == EntityKind::of(method.receiver.kind) && method.receiver.id == id
            }
            (Subject::Action, _) => false,
        })
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Long(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Set(values) => list(f, values),
            Self::Entity(entity) => write!(f, "{entity}"),
        }
    }
}

impl fmt::Display for EntityRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{:?}", self.kind.name(), self.id)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Principal => "principal",
            Self::Resource => "resource",
            Self::Action => "action",
        })
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    f.write_str("[")?;
    for (n, item) in items.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    f.write_str("]")
}

/// An expression with the names of the arguments: as a person would write it.
pub(crate) struct Written<'a>(pub(crate) &'a Expr, pub(crate) &'a [(String, ArgType)]);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(expr, declared) = *self;
        let of = |expr| Written(expr, declared);
        let name = |index: usize| declared.get(index).map_or("?", |(name, _)| name.as_str());
        match expr {
            Expr::Literal(value) => write!(f, "{value}"),
            Expr::Field(field) => {
                let found = FIELDS.iter().find(|(known, ..)| known == field);
                match found.map_or(("?", ""), |(_, var, attr)| (*var, *attr)) {
                    (var, "") => f.write_str(var),
                    (var, attr) => write!(f, "{var}.{attr}"),
                }
            }
            Expr::Arg(index) => write!(f, "context.args.{}", name(*index)),
            Expr::HasArg(index) => write!(f, "context.args has {}", name(*index)),
            Expr::Set(items) => list(f, &items.iter().map(of).collect::<Vec<_>>()),
            Expr::Not(inner) => write!(f, "!({})", of(inner)),
            Expr::Negative(inner) => write!(f, "-({})", of(inner)),
            Expr::IsEmpty(inner) => write!(f, "({}).isEmpty()", of(inner)),
            Expr::Two(op @ (Op::Contains | Op::ContainsAll | Op::ContainsAny), two) => {
                write!(f, "({}).{}({})", of(&two.0), op.written(), of(&two.1))
            }
            Expr::Two(op @ (Op::And | Op::Or), two) => {
                write!(f, "({} {} {})", of(&two.0), op.written(), of(&two.1))
            }
            Expr::Two(op, two) => write!(f, "{} {} {}", of(&two.0), op.written(), of(&two.1)),
            Expr::If(three) => {
                write!(f, "if {} then {} else {}", of(&three.0), of(&three.1), of(&three.2))
            }
            Expr::Like(inner, pattern) => {
                let text: String = pattern.0.iter().map(Piece::written).collect();
                write!(f, "{} like \"{text}\"", of(inner))
            }
            Expr::Is(subject, kind) => write!(f, "{subject} is {}", kind.name()),
            Expr::Within(subject, places) => write!(f, "{subject} in {}", of(places)),
        }
    }
}

impl Piece {
    fn written(&self) -> String {
        match self {
            Self::Anything => "*".to_owned(),
            Self::Text(text) => text.escape_debug().to_string().replace('*', "\\*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_people_read_them() {
        let of = |text: &str| {
            let mut pieces = Vec::new();
            for (n, part) in text.split('*').enumerate() {
                if n > 0 {
                    pieces.push(Piece::Anything);
                }
                if !part.is_empty() {
                    pieces.push(Piece::Text(part.to_owned()));
                }
            }
            Pattern(pieces)
        };
        for (pattern, text, matches) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "ab", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*aba", "ababa", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(of(pattern).matches(text), matches, "{pattern} on {text}");
        }
    }
}
