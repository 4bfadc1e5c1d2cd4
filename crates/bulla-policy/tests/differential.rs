//! What this crate decides is what Cedar decides, for random rules and random requests.
#![cfg(feature = "author")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use bulla_policy::{Action, MethodOf, Request, Source, Standing, Who, WhoKind};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, RestrictedExpression, Schema,
};
use proptest::prelude::*;
use proptest::sample::select;

const DECLARED: &str = "// @argument who: String\n// @argument size: Long\n\
                        // @argument force: Bool\n// @argument hosts: Set<String>\n";
/// Few, so that they meet.
const WORDS: [&str; 5] = ["db-1", "db-2", "web", "conductor", ""];
const METHODS: [(&str, &str); 4] =
    [("", "ping"), ("host", "facts"), ("conductor", "report"), ("a.b", "c")];

fn word() -> impl Strategy<Value = &'static str> {
    select(&WORDS[..])
}

fn long() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..4i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN + 1)]
}

fn text_of() -> impl Strategy<Value = String> {
    prop_oneof![
        word().prop_map(|word| format!("{word:?}")),
        Just("principal.id".to_owned()),
        select(&["exchange", "topic", "namespace", "name", "receiver"][..])
            .prop_map(|attr| format!("resource.{attr}")),
    ]
}

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        long().prop_map(|n| format!("{n}")),
        select(&["resource.major", "resource.minor", "context.now"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (inner.clone(), select(&["+", "-", "*"][..]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.prop_map(|a| format!("(-({a}))")),
        ]
    })
}

fn place() -> impl Strategy<Value = String> {
    let kinds =
        &["Agent", "Component", "Role", "Group", "Operator", "Program", "User", "Project"][..];
    (select(kinds), word()).prop_map(|(kind, id)| format!("{kind}::{id:?}"))
}

fn method_place() -> impl Strategy<Value = String> {
    prop_oneof![
        (select(&["Agent", "Component", "Namespace", "Fanout"][..]), word())
            .prop_map(|(kind, id)| format!("{kind}::{id:?}")),
        select(&METHODS[..]).prop_map(|(space, name)| format!("Method::{:?}", full(space, name))),
    ]
}

fn full(space: &str, name: &str) -> String {
    if space.is_empty() { name.to_owned() } else { format!("{space}.{name}") }
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(|value| value.to_string()),
        (text_of(), select(&["==", "!="][..]), text_of())
            .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (number(), select(&["<", "<=", ">", ">=", "==", "!="][..]), number())
            .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text_of(), select(&["db-*", "*", "*/db-1", "*-*", "co*or", "*b*1"][..]))
            .prop_map(|(a, pattern)| format!("{a} like {pattern:?}")),
        select(&["open_to_agents", "open_to_components", "read_only"][..])
            .prop_map(|attr| format!("resource.{attr}")),
        place().prop_map(|place| format!("principal in {place}")),
        (place(), place()).prop_map(|(a, b)| format!("principal in [{a}, {b}]")),
        method_place().prop_map(|place| format!("resource in {place}")),
        select(&SENDERS[..]).prop_map(|kind| format!("principal is {}", named(kind))),
        place().prop_map(|place| format!("principal is Agent in {place}")),
        select(&Action::ALL[..]).prop_map(|action| format!("action == Action::\"{action}\"")),
        place().prop_map(|place| format!("principal == {place}")),
        (word(), word()).prop_map(|(a, b)| format!("[{a:?}, {b:?}].contains(principal.id)")),
        text_of().prop_map(|a| format!("(context.args has who && context.args.who == {a})")),
        (select(&["<", ">="][..]), number())
            .prop_map(|(op, a)| format!("(context.args has size && context.args.size {op} {a})")),
        Just("(context.args has force && context.args.force)".to_owned()),
        Just("context.args has hosts".to_owned()),
        (word(), word()).prop_map(|(a, b)| {
            format!("(context.args has hosts && context.args.hosts == [{a:?}, {b:?}])")
        }),
        (select(&["containsAll", "containsAny"][..]), word(), word()).prop_map(|(op, a, b)| {
            format!("(context.args has hosts && context.args.hosts.{op}([{a:?}, {b:?}]))")
        }),
        text_of().prop_map(|a| format!(
            "(context.args has hosts && (context.args.hosts.isEmpty() || context.args.hosts.contains({a})))"
        )),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), select(&["&&", "||"][..]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("(if {a} then {b} else {c})")),
        ]
    })
}

fn rule() -> impl Strategy<Value = String> {
    let principal = prop_oneof![
        2 => Just("principal".to_owned()),
        2 => select(&SENDERS[..]).prop_map(|kind| format!("principal is {}", named(kind))),
        1 => word().prop_map(|id| format!("principal == User::{id:?}")),
        1 => word().prop_map(|id| format!("principal in Project::{id:?}")),
        1 => word().prop_map(|id| format!("principal is Program in Role::{id:?}")),
        1 => word().prop_map(|id| format!("principal == Agent::{id:?}")),
        1 => place().prop_map(|place| format!("principal in {place}")),
        1 => word().prop_map(|id| format!("principal is Agent in Role::{id:?}")),
        1 => word().prop_map(|id| format!("principal in Group::{id:?}")),
    ];
    let action = prop_oneof![
        Just("action".to_owned()),
        select(&Action::ALL[..]).prop_map(|action| format!("action == Action::\"{action}\"")),
        Just("action in [Action::\"call\", Action::\"cast\"]".to_owned()),
    ];
    let resource = prop_oneof![
        2 => Just("resource".to_owned()),
        2 => select(&METHODS[..]).prop_map(|(space, name)| format!("resource == Method::{:?}", full(space, name))),
        1 => method_place().prop_map(|place| format!("resource in {place}")),
        1 => word().prop_map(|id| format!("resource is Method in Component::{id:?}")),
    ];
    let clauses = proptest::collection::vec((select(&["when", "unless"][..]), condition()), 0..3);
    let effect = prop_oneof![3 => Just("permit"), 1 => Just("forbid")];
    (effect, principal, action, resource, clauses).prop_map(
        |(effect, principal, action, resource, clauses)| {
            let clauses: String =
                clauses.iter().map(|(kind, body)| format!("{kind} {{ {body} }}\n")).collect();
            format!("{effect} ({principal}, {action}, {resource})\n{clauses};\n")
        },
    )
}

/// A request with room of its own.
#[derive(Debug, Clone)]
struct Asked {
    kind: WhoKind,
    id: &'static str,
    roles: Vec<String>,
    projects: Vec<String>,
    groups: Vec<String>,
    action: Action,
    to: WhoKind,
    receiver: &'static str,
    method: (&'static str, &'static str),
    version: (u32, u32),
    flags: [bool; 3],
    who: Option<&'static str>,
    size: Option<i64>,
    force: Option<bool>,
    hosts: Option<Vec<&'static str>>,
    now: u64,
}

fn asked() -> impl Strategy<Value = Asked> {
    let names = || proptest::collection::vec(word().prop_map(str::to_owned), 0..3);
    let of = proptest::option::of::<BoxedStrategy<&'static str>>;
    let sender = select(&SENDERS[..]).prop_flat_map(move |kind| {
        let may = |action: &Action| action.is_api() == kind.is_api();
        let actions: Vec<_> = Action::ALL.into_iter().filter(may).collect();
        (Just(kind), word(), (names(), names(), names()), select(actions))
    });
    let receivers = &[WhoKind::Agent, WhoKind::Component, WhoKind::Group][..];
    let method =
        (select(receivers), word(), select(&METHODS[..]), (0..4u32, 0..4u32), any::<[bool; 3]>());
    let args = (
        of(word().boxed()),
        proptest::option::of(long()),
        proptest::option::of(any::<bool>()),
        proptest::option::of(proptest::collection::vec(word(), 0..4)),
    );
    (sender, method, args, 0..4u64).prop_map(
        |(
            (kind, id, (roles, groups, projects), action),
            method,
            (who, size, force, hosts),
            now,
        )| {
            let (to, receiver, method, version, flags) = method;
            Asked {
                kind,
                id,
                roles,
                projects,
                groups,
                action,
                to,
                receiver,
                method,
                version,
                flags,
                who,
                size,
                force,
                hosts,
                now,
            }
        },
    )
}

const SENDERS: [WhoKind; 5] =
    [WhoKind::Agent, WhoKind::Component, WhoKind::Operator, WhoKind::Program, WhoKind::User];

const fn named(kind: WhoKind) -> &'static str {
    match kind {
        WhoKind::Agent => "Agent",
        WhoKind::Component => "Component",
        WhoKind::Group => "Fanout",
        WhoKind::Operator => "Operator",
        WhoKind::Program => "Program",
        WhoKind::User => "User",
    }
}

impl Asked {
    fn args(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = bulla_seal::cbor::Writer::new(&mut out);
        let there =
            [self.who.is_some(), self.size.is_some(), self.force.is_some(), self.hosts.is_some()];
        w.map(2 + there.iter().filter(|there| **there).count());
        // What is not declared is passed over.
        w.text("other");
        w.array(2);
        w.null();
        w.int(-5);
        if let Some(hosts) = &self.hosts {
            w.text("hosts");
            w.array(hosts.len());
            hosts.iter().for_each(|host| w.text(host));
        }
        if let Some(who) = self.who {
            w.text("who");
            w.text(who);
        }
        if let Some(size) = self.size {
            w.text("size");
            w.int(size);
        }
        if let Some(force) = self.force {
            w.text("force");
            w.raw(if force { &[0xf5] } else { &[0xf4] });
        }
        w.text("last");
        w.uint(1);
        out
    }

    /// Users of the API are in no group.
    fn groups(&self) -> &[String] {
        if self.kind.is_api() { &[] } else { &self.groups }
    }

    /// And nobody else in a project.
    fn projects(&self) -> &[String] {
        if self.kind == WhoKind::User { &self.projects } else { &[] }
    }

    fn request<'a>(&'a self, args: &'a [u8]) -> Request<'a> {
        Request {
            sender: Who { kind: self.kind, id: self.id },
            roles: &self.roles,
            projects: self.projects(),
            groups: Some(self.groups()),
            action: self.action,
            method: MethodOf {
                receiver: Who { kind: self.to, id: self.receiver },
                exchange: "web",
                topic: self.receiver,
                namespace: self.method.0,
                name: self.method.1,
                version: self.version,
                open_to_agents: self.flags[0],
                open_to_components: self.flags[1],
                read_only: self.flags[2],
            },
            args,
            now: self.now,
        }
    }

    /// The same for Cedar.
    fn cedar(&self, schema: &Schema) -> (cedar_policy::Request, Entities) {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let principal = uid(named(self.kind), self.id);
        let roles = self.roles.iter().map(|role| uid("Role", role));
        let groups = self.groups().iter().map(|group| uid("Group", group));
        let projects = self.projects().iter().map(|project| uid("Project", project));
        let parents: HashSet<_> = roles.chain(groups).chain(projects).collect();
        let attrs = HashMap::from([("id".to_owned(), text(self.id))]);
        let who = Entity::new(principal.clone(), attrs, parents).unwrap();
        let resource = uid("Method", &full(self.method.0, self.method.1));
        let above =
            HashSet::from([uid("Namespace", self.method.0), uid(named(self.to), self.receiver)]);
        let number = |n: u32| RestrictedExpression::new_long(n.into());
        let receiver = format!("{}/{}", self.to.as_str(), self.receiver);
        let attrs = HashMap::from([
            ("exchange".to_owned(), text("web")),
            ("topic".to_owned(), text(self.receiver)),
            ("namespace".to_owned(), text(self.method.0)),
            ("name".to_owned(), text(self.method.1)),
            ("receiver".to_owned(), text(&receiver)),
            ("major".to_owned(), number(self.version.0)),
            ("minor".to_owned(), number(self.version.1)),
            ("open_to_agents".to_owned(), RestrictedExpression::new_bool(self.flags[0])),
            ("open_to_components".to_owned(), RestrictedExpression::new_bool(self.flags[1])),
            ("read_only".to_owned(), RestrictedExpression::new_bool(self.flags[2])),
        ]);
        let method = Entity::new(resource.clone(), attrs, above).unwrap();
        let mut args = Vec::new();
        args.extend(self.who.map(|who| ("who".to_owned(), text(who))));
        args.extend(self.size.map(|n| ("size".to_owned(), RestrictedExpression::new_long(n))));
        args.extend(
            self.force.map(|yes| ("force".to_owned(), RestrictedExpression::new_bool(yes))),
        );
        args.extend(self.hosts.iter().map(|hosts| {
            let hosts = hosts.iter().map(|host| text(host));
            ("hosts".to_owned(), RestrictedExpression::new_set(hosts))
        }));
        let context = Context::from_pairs([
            ("now".to_owned(), RestrictedExpression::new_long(self.now as i64)),
            ("args".to_owned(), RestrictedExpression::new_record(args).unwrap()),
        ]);
        let action = uid("Action", self.action.name());
        let entities = Entities::from_entities([who, method], Some(schema)).unwrap();
        let request =
            cedar_policy::Request::new(principal, action, resource, context.unwrap(), Some(schema));
        (request.unwrap(), entities)
    }
}

fn uid(kind: &str, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(EntityTypeName::from_str(kind).unwrap(), EntityId::new(id))
}

#[test]
fn every_prefix_and_every_flip_of_a_table_is_no_other_policy_in_silence() {
    let source = Source::parse(bulla_policy::starter::TROVE).unwrap();
    let policy = source.compile().unwrap();
    let bytes = policy.to_bytes();
    for end in 0..bytes.len() {
        assert!(bulla_policy::Policy::from_bytes(&bytes[..end]).is_err(), "{end}");
    }
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << bit;
        // One form for each policy: what is read is written the same.
        if let Ok(other) = bulla_policy::Policy::from_bytes(&flipped) {
            assert_ne!(other, policy);
            assert_eq!(other.to_bytes(), flipped, "{at} {bit}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_cedar_decides(
        rules in proptest::collection::vec(rule(), 0..16),
        asked in proptest::collection::vec(asked(), 16),
    ) {
        // A rule that strict validation refuses is left out.
        let whole = |rules: &[String]| {
            let numbered = rules.iter().enumerate();
            numbered.fold(DECLARED.to_owned(), |text, (n, rule)| text + &format!("@id(\"r{n}\")\n{rule}"))
        };
        let fits = |rules: &[String]| match Source::parse(&whole(rules)).unwrap().compile() {
            Ok(_) => true,
            Err(mistakes) => {
                // Nothing of what is made here is foreign to receivers.
                assert!(!mistakes.iter().any(|m| m.message.contains("not judged")), "{mistakes:?}");
                false
            }
        };
        let good = match fits(&rules) {
            true => rules,
            false => rules.into_iter().filter(|rule| fits(std::slice::from_ref(rule))).collect(),
        };
        let text = whole(&good);
        let source = Source::parse(&text).unwrap();
        let compiled = source.compile().unwrap();
        // What receivers get.
        let policy = bulla_policy::Policy::from_bytes(&compiled.to_bytes()).unwrap();
        prop_assert_eq!(&policy, &compiled);
        let schema = Schema::from_str(&source.schema()).unwrap();
        let set = PolicySet::from_str(&text).unwrap();
        let alone: Vec<PolicySet> = set
            .policies()
            .map(|rule| PolicySet::from_policies([rule.clone()]).unwrap())
            .collect();
        for asked in &asked {
            let args = asked.args();
            let ours = policy.decide(&asked.request(&args));
            let (request, entities) = asked.cedar(&schema);
            let cedars = Authorizer::new().is_authorized(&request, &set, &entities);
            let allowed = cedars.decision() == Decision::Allow;
            if cedars.diagnostics().errors().next().is_none() {
                prop_assert_eq!(ours.allows(), allowed, "{:?} {:?}\n{}", ours, asked, text);
                let reasons: Vec<_> = cedars
                    .diagnostics()
                    .reason()
                    .filter_map(|id| set.annotation(id, "id"))
                    .collect();
                let named = reasons.contains(&ours.rule()) || reasons.is_empty();
                prop_assert!(named, "{:?} is none of {:?}", ours, reasons);
            } else {
                // A rule that can't be judged denies, or comes after one that decided.
                prop_assert!(allowed || !ours.allows(), "{:?} {:?}\n{}", ours, asked, text);
            }
            let explained = policy.explain(&asked.request(&args));
            prop_assert_eq!(explained.decision, ours);
            // And so each rule by itself.
            for alone in &alone {
                let cedars = Authorizer::new().is_authorized(&request, alone, &entities);
                let id = alone.policies().next().and_then(|rule| rule.annotation("id")).unwrap();
                let (rule, standing) =
                    explained.rules.iter().find(|(rule, _)| rule.id() == id).unwrap();
                let holds = cedars.diagnostics().reason().next().is_some();
                let faulty = cedars.diagnostics().errors().next().is_some();
                prop_assert_eq!(*standing == Standing::Holds, holds, "{:?} {:?}", rule, asked);
                let fault = matches!(standing, Standing::Faulty(_));
                prop_assert_eq!(fault, faulty, "{:?} {:?}", rule, asked);
            }
        }
    }
}
