//! What rules may speak of.

use crate::author::Mistake;
use crate::request::ArgType;

/// How an argument is declared, in a comment of its own.
const DECLARES: &str = "@argument";
/// Most arguments of a policy: they are looked through for each that a message brings.
const MAX_ARGUMENTS: usize = 64;

const TYPES: [(ArgType, &str); 5] = [
    (ArgType::Text, "String"),
    (ArgType::Long, "Long"),
    (ArgType::Bool, "Bool"),
    (ArgType::Texts, "Set<String>"),
    (ArgType::Longs, "Set<Long>"),
];

/// The arguments that a policy's comments declare.
pub(super) fn declared(text: &str) -> Result<Vec<(String, ArgType)>, Vec<Mistake>> {
    let (mut declared, mut mistakes) = (Vec::<(String, ArgType)>::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let comment = line.trim_start().strip_prefix("//").map(str::trim_start);
        let Some(rest) = comment.and_then(|comment| comment.strip_prefix(DECLARES)) else {
            continue;
        };
        let mut wrong =
            |message| mistakes.push(Mistake { line: Some(at + 1), column: None, message });
        match declaration(rest) {
            Err(why) => wrong(why),
            Ok((name, _)) if declared.iter().any(|(known, _)| *known == name) => {
                wrong(format!("the argument `{name}` is declared twice"));
            }
            Ok(_) if declared.len() == MAX_ARGUMENTS => {
                wrong(format!("more than {MAX_ARGUMENTS} arguments are declared"));
            }
            Ok(argument) => declared.push(argument),
        }
    }
    if mistakes.is_empty() { Ok(declared) } else { Err(mistakes) }
}

fn declaration(rest: &str) -> Result<(String, ArgType), String> {
    let form = "write `// @argument name: Type`";
    let (name, of) = rest.split_once(':').ok_or_else(|| form.to_owned())?;
    let (name, of) = (name.trim(), of.trim().replace(' ', ""));
    let usable = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !usable {
        return Err(format!("`{name}` is no name of an argument; {form}"));
    }
    let known = TYPES.iter().find(|(_, written)| *written == of);
    let (of, _) = known.ok_or_else(|| {
        let types: Vec<_> = TYPES.iter().map(|(_, written)| *written).collect();
        format!("`{of}` is no type of an argument; there are {}", types.join(", "))
    })?;
    Ok((name.to_owned(), *of))
}

/// Cedar's schema for a policy that declares these arguments. Each of them may be missing, so that
/// validation insists on asking `context.args has name` first.
pub(super) fn schema(declared: &[(String, ArgType)]) -> String {
    let written =
        |of: &ArgType| TYPES.iter().find(|(known, _)| known == of).map_or("", |(_, text)| text);
    let arguments: Vec<_> =
        declared.iter().map(|(name, of)| format!("    {name:?}?: {},\n", written(of))).collect();
    format!(
        r#"// A role from a sender's credential, or that the settings give a user of the HTTPS API.
entity Role;
// A group of the keystore's, by its bare name.
entity Group;
// What is sent to a group, by the group's bare name.
entity Fanout;
// A project of Keystone's, by its id or as NAME@DOMAIN.
entity Project;
// A namespace of methods; the methods without one are in Namespace::"".
entity Namespace;
// One managed machine.
entity Agent in [Role, Group] {{ id: String }};
// A type of control-plane service.
entity Component in [Role, Group] {{ id: String }};
// Users of the HTTPS API: a person with a certificate or an access key, a program with an access key,
// a user of Keystone's (NAME@DOMAIN) with a token.
entity Operator in [Role] {{ id: String }};
entity Program in [Role] {{ id: String }};
entity User in [Role, Project] {{ id: String }};
// A method by its full name, in its namespace and in the agent or component that has it, or the group
// that it is sent to. Routes of the API are methods of Component::"control" in Namespace::"api":
// Method::"api.GET /v1/agents".
entity Method in [Namespace, Agent, Component, Fanout] {{
    exchange: String,
    topic: String,
    namespace: String,
    name: String,
    // The version that is asked for.
    major: Long,
    minor: Long,
    // What its receiver declares; false in what users of the API ask for.
    open_to_agents: Bool,
    open_to_components: Bool,
    read_only: Bool,
    // "agent/ID", "component/TYPE" or "group/NAME".
    receiver: String,
}};
type Arguments = {{
{}}};
action "call", "cast", "fanout", "reply-progress" appliesTo {{
    principal: [Agent, Component],
    resource: [Method],
    context: {{
        // The receiver's clock, in seconds since 1970.
        now: Long,
        args: Arguments,
    }},
}};
action "api:call", "api:cast", "api:fanout", "api:read", "api:manage", "api:watch" appliesTo {{
    principal: [Operator, Program, User],
    resource: [Method],
    context: {{
        now: Long,
        args: Arguments,
    }},
}};
"#,
        arguments.concat()
    )
}
