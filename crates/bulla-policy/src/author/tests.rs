use super::*;
use crate::request::WhoKind::{self, Agent, Component};
use crate::request::{Action, MethodOf, Request, Who};

fn mistakes(text: &str) -> Vec<String> {
    let found = Source::parse(text).and_then(|source| source.compile());
    found.unwrap_err().iter().map(ToString::to_string).collect()
}

fn request<'a>(
    sender: (WhoKind, &'a str),
    to: (WhoKind, &'a str),
    name: &'a str,
    args: &'a [u8],
) -> Request<'a> {
    Request {
        sender: Who { kind: sender.0, id: sender.1 },
        roles: &[],
        projects: &[],
        groups: None,
        action: Action::Cast,
        method: MethodOf {
            receiver: Who { kind: to.0, id: to.1 },
            exchange: "bulla",
            topic: to.1,
            namespace: "",
            name,
            version: (1, 0),
            open_to_agents: false,
            open_to_components: false,
            read_only: false,
        },
        args,
        now: 1,
    }
}

#[test]
fn the_starters_are_good() {
    for text in [starter::FLEET, starter::TROVE] {
        Source::parse(text).unwrap().compile().unwrap();
    }
}

#[test]
fn agents_of_trove_report_on_themselves_alone() {
    let policy = Source::parse(starter::TROVE).unwrap().compile().unwrap();
    let report = |args| {
        policy
            .decide(&request((Agent, "db-1"), (Component, "conductor"), "heartbeat", args))
            .rule()
            .to_owned()
    };
    assert_eq!(report(b"\xa1\x6binstance_id\x64db-1"), "agents-report-to-the-conductor");
    assert_eq!(report(b"\xa1\x6binstance_id\x64db-2"), "agents-report-only-on-themselves");
    assert_eq!(report(b"\xa0"), "agents-report-to-the-conductor");
    // Twice, of another type, not a map at all: nobody knows what the method would take.
    for args in [
        &b"\xa2\x6binstance_id\x64db-1\x6binstance_id\x64db-2"[..],
        b"\xa1\x6binstance_id\x01",
        b"\x81\x64db-2",
        b"\xa1\x6binstance_id\x64db-",
        b"\xa1\x6binstance_id\x64db-1\x00",
    ] {
        assert_eq!(report(args), crate::FAULT, "{args:x?}");
    }
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (text, line, about) in [
        ("@id(\"a\")\npermit (principal, action);", "line 2", "missing the `resource`"),
        ("@id(\"a\")\npermit (principal, action == Action::\"cal\", resource);", "", "cal"),
        (
            "@id(\"a\")\npermit (principal, action, resource)\nwhen { principal.name == \"x\" };",
            "line 3",
            "name",
        ),
        (
            "// @argument who: String\n@id(\"a\")\npermit (principal, action, resource)\nwhen { context.args.who == \"x\" };",
            "line 4",
            "who",
        ),
        (
            "@id(\"a\")\npermit (principal, action, resource)\nwhen { context.args has who };",
            "",
            "",
        ),
        ("permit (principal, action, resource);", "rule 1", "has no id"),
        (
            "@id(\"a\")\npermit (principal, action, resource);\n\n@id(\"a\")\nforbid (principal, action, resource);",
            "",
            "two rules",
        ),
        ("// @argument who: Text\n", "line 1", "Set<String>"),
        ("// @argument who: Long\n// @argument who: Long\n", "line 2", "twice"),
        ("// @argument a b: Long\n", "line 1", "no name"),
        ("@id(\"a\")\npermit (principal == ?principal, action, resource);", "", "slot"),
        (
            "@id(\"a\")\npermit (principal, action, resource)\nwhen { context.args == {} };",
            "line 1",
            "not judged",
        ),
    ] {
        let said = mistakes(text).join("\n");
        println!("{said}\n");
        assert!(said.contains(line) && said.contains(about), "{text}\n-> {said}");
    }
}

#[test]
fn an_empty_policy_denies() {
    let policy = Source::parse("").unwrap().compile().unwrap();
    let decision = policy.decide(&request((Component, "api"), (Agent, "db-1"), "ping", b"\xa0"));
    assert_eq!(decision, crate::Decision::Deny { rule: crate::NO_RULE });
}

#[test]
fn lists_are_sets() {
    let text = "// @argument hosts: Set<String>\n@id(\"a\") permit (principal, action, resource)\n\
                when { context.args has hosts && context.args.hosts == [\"b\", \"a\"] };";
    let policy = Source::parse(text).unwrap().compile().unwrap();
    let may = |args: &[u8]| {
        policy.decide(&request((Component, "api"), (Agent, "db-1"), "ping", args)).allows()
    };
    assert!(may(b"\xa1\x65hosts\x83\x61a\x61b\x61a"));
    assert!(may(b"\xa1\x65hosts\x82\x61b\x61a"));
    assert!(!may(b"\xa1\x65hosts\x81\x61b"));
}

#[test]
fn members_of_a_group_may_if_it_is_known_who_they_are() {
    let text = "@id(\"web\") permit (principal in Group::\"web\", action, resource);\n\
                @id(\"ping\") permit (principal, action, resource == Method::\"ping\");\n\
                @id(\"not-old\") forbid (principal, action, resource == Method::\"new\")\n\
                when { principal in [Group::\"old\", Group::\"older\"] };";
    let policy = Source::parse(text).unwrap().compile().unwrap();
    assert!(policy.needs_groups());
    let policy = crate::Policy::from_bytes(&policy.to_bytes()).unwrap();
    assert!(policy.needs_groups());
    let by = |method: &'static str, groups: Option<&[&str]>| {
        let groups: Option<Vec<String>> =
            groups.map(|groups| groups.iter().map(|&group| group.to_owned()).collect());
        let asked = request((Agent, "db-1"), (Component, "conductor"), method, b"\xa0");
        policy.decide(&Request { groups: groups.as_deref(), ..asked }).rule().to_owned()
    };
    assert_eq!(by("new", Some(&["web"])), "web");
    assert_eq!(by("new", Some(&["all"])), crate::NO_RULE);
    assert_eq!(by("new", Some(&["web", "older"])), "not-old");
    assert_eq!(by("ping", Some(&[])), "ping");
    // Nobody knows: what would be permitted anyway is no exception.
    for method in ["new", "ping"] {
        assert_eq!(by(method, None), crate::NO_GROUPS);
    }
    let none = Source::parse(starter::TROVE).unwrap().compile().unwrap();
    assert!(!none.needs_groups());
}

#[test]
fn a_rule_about_another_method_is_passed_over_only_if_it_says_so_first() {
    let text = |conditions: &str| {
        format!(
            "// @argument size: Long\n@id(\"all\") permit (principal, action, resource);\n\
             @id(\"small\") forbid (principal, action, resource) when {{ {conditions} }};"
        )
    };
    let small = "context.args has size && context.args.size > 9";
    let by = |conditions: String| {
        let policy = Source::parse(&text(&conditions)).unwrap().compile().unwrap();
        let asked = request((Agent, "db-1"), (Component, "c"), "ping", b"\xa1\x64size\x61x");
        policy.decide(&asked).rule().to_owned()
    };
    assert_eq!(by(format!("resource.name == \"pong\" && {small}")), "all");
    assert_eq!(by(format!("{small} && resource.name == \"pong\"")), crate::FAULT);
    assert_eq!(by(format!("\"ping\" == resource.name && {small}")), crate::FAULT);
}

#[test]
fn users_of_the_api_are_judged_by_roles_projects_and_names() {
    let text = "// @argument id: String\n\
        @id(\"viewers\") permit (principal in Role::\"viewer\", action == Action::\"api:read\", resource);\n\
        @id(\"dbas\") permit (principal is User in Project::\"db@Default\", action in [Action::\"api:call\", Action::\"api:cast\"], resource in Agent::\"db-1\");\n\
        @id(\"web\") permit (principal, action == Action::\"api:fanout\", resource in Fanout::\"web\");\n\
        @id(\"backup\") permit (principal == Program::\"backup\", action, resource == Method::\"api.POST /v1/agents/{id}/revoke\")\n\
            when { context.args has id && context.args.id == \"db-1\" };";
    let policy = Source::parse(text).unwrap().compile().unwrap();
    assert!(!policy.needs_groups(), "a group that is sent to is nobody's membership");
    let policy = crate::Policy::from_bytes(&policy.to_bytes()).unwrap();
    let (viewer, db) = (["viewer".to_owned()], ["db@Default".to_owned()]);
    let ask = |kind, id, action, to: (WhoKind, &'static str), method: &'static str| {
        let (namespace, name) = method.split_once('.').unwrap_or(("", method));
        let asked = request((kind, id), to, name, b"\xa1\x62id\x64db-1");
        let method = MethodOf { namespace, name, ..asked.method };
        Request { action, groups: Some(&[]), method, ..asked }
    };
    let by = |asked: &Request<'_>| policy.decide(asked).rule().to_owned();
    let control = (Component, "control");
    let list = ask(WhoKind::Operator, "eve", Action::ApiRead, control, "api.GET /v1/agents");
    assert_eq!(by(&list), crate::NO_RULE);
    assert_eq!(by(&Request { roles: &viewer, ..list }), "viewers");
    assert_eq!(by(&Request { roles: &viewer, action: Action::ApiManage, ..list }), crate::NO_RULE);
    let call = ask(WhoKind::User, "ada@Default", Action::ApiCall, (Agent, "db-1"), "guest.resize");
    assert_eq!(by(&call), crate::NO_RULE);
    assert_eq!(by(&Request { projects: &db, ..call }), "dbas");
    let other = MethodOf { receiver: Who { kind: Agent, id: "db-2" }, ..call.method };
    assert_eq!(by(&Request { projects: &db, method: other, ..call }), crate::NO_RULE);
    let web = (WhoKind::Group, "web");
    assert_eq!(by(&ask(WhoKind::Operator, "x", Action::ApiFanout, web, "ping")), "web");
    let all = (WhoKind::Group, "all");
    assert_eq!(by(&ask(WhoKind::Operator, "x", Action::ApiFanout, all, "ping")), crate::NO_RULE);
    let revoke = "api.POST /v1/agents/{id}/revoke";
    let revoked = ask(WhoKind::Program, "backup", Action::ApiManage, control, revoke);
    assert_eq!(by(&revoked), "backup");
    assert_eq!(by(&Request { args: b"\xa1\x62id\x64db-2", ..revoked }), crate::NO_RULE);
    // The same name is another's.
    let operator = Who { kind: WhoKind::Operator, id: "backup" };
    assert_eq!(by(&Request { sender: operator, ..revoked }), crate::NO_RULE);
}
