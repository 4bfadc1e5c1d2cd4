//! The operators' policy on a server: who may call what, with which arguments.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bulla_policy::{Policy, Source};
use bulla_rpc::*;
use bulla_seal::PolicyDocument;
use common::*;
use serde_json::{Value, json};

const REPORTS: &str = r#"
// @argument instance_id: String
@id("agents-report-on-themselves")
permit (principal is Agent, action in [Action::"call", Action::"cast"], resource == Method::"conductor.report")
when { context.args has instance_id && context.args.instance_id == principal.id };
"#;
const NOTHING: &str = "";

fn policy(text: &str) -> Policy {
    let policy = Source::parse(text).unwrap().compile().unwrap();
    // What goes over the wire.
    Policy::from_bytes(&policy.to_bytes()).unwrap()
}

fn conductor() -> Router {
    let report = |_, args: Value| async move { Ok(args) };
    Router::new()
        .with(Method::new("report", report).namespace("conductor").idempotent())
        .with(Method::new("open", report).open_to_agents())
        .with(Method::new("own", report).open_to_agents().of_the_protocol())
}

struct Desk {
    world: World,
    client: Client,
    rule: Arc<PolicyRule>,
    server: Arc<Server>,
}

/// An agent `db-1` and a conductor with a policy.
async fn desk(text: &str) -> Desk {
    let world = World::new();
    let rule = Arc::new(PolicyRule::new(policy(text)));
    let options = ServerOptions { authorization: rule.clone(), ..options() };
    let server =
        Server::start(world.component("conductor", "h1"), conductor(), options).await.unwrap();
    let client = Client::new(world.agent("db-1"));
    Desk { world, client, rule, server: Arc::new(server) }
}

impl Desk {
    async fn report(&self, id: &str) -> Result<Value, CallError> {
        let to: Target = "component/conductor".parse().unwrap();
        let request = self.client.request(&to, "report").namespace("conductor");
        request.call(&json!({ "instance_id": id })).await
    }
}

fn rule_of(error: CallError) -> String {
    let CallError::Remote(error) = error else { panic!("{error}") };
    assert_eq!(error.kind, kinds::NOT_PERMITTED);
    let (_, rule) = error.message.split_once("(rule ").unwrap();
    rule.trim_end_matches(')').to_owned()
}

#[tokio::test]
async fn an_agent_reports_on_itself_alone() {
    let desk = desk(REPORTS).await;
    assert_eq!(desk.report("db-1").await.unwrap(), json!({ "instance_id": "db-1" }));
    // The caller is told the rule's name, never its text.
    let error = desk.report("db-2").await.unwrap_err();
    assert!(!format!("{error:?}").contains("principal"), "{error:?}");
    assert_eq!(rule_of(error), bulla_policy::NO_RULE);
    assert_eq!(desk.server.endpoint().counters().denied.get(), 1);
}

#[tokio::test]
async fn without_a_rule_nothing_is_allowed_but_the_protocol_itself() {
    let desk = desk(NOTHING).await;
    let to: Target = "component/conductor".parse().unwrap();
    let error = desk.client.call::<_, Value>(&to, "open", &1).await.unwrap_err();
    assert_eq!(rule_of(error), bulla_policy::NO_RULE);
    assert_eq!(desk.client.call::<_, Value>(&to, "own", &1).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_forbid_is_named() {
    let text =
        format!("{REPORTS}\n@id(\"closed-for-repair\")\nforbid (principal, action, resource);");
    let desk = desk(&text).await;
    assert_eq!(rule_of(desk.report("db-1").await.unwrap_err()), "closed-for-repair");
}

#[tokio::test]
async fn a_policy_is_replaced_while_calls_flow() {
    let desk = Arc::new(desk(REPORTS).await);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (desk, stop) = (desk.clone(), stop.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    desk.report("db-1").await.unwrap();
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    // Each allows what is asked for, by a rule of another name.
    for n in 0..200 {
        let text = REPORTS.replace("agents-report-on-themselves", &format!("rule-{n}"));
        desk.rule.replace(policy(&text));
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    desk.rule.replace(policy(NOTHING));
    assert_eq!(rule_of(desk.report("db-1").await.unwrap_err()), bulla_policy::NO_RULE);
}

#[tokio::test]
async fn a_policy_in_the_shadow_decides_nothing_and_is_counted() {
    let desk = desk(REPORTS).await;
    let strict = "@id(\"nobody\") forbid (principal, action, resource);";
    desk.rule.shadow(Some(policy(strict)));
    for _ in 0..3 {
        desk.report("db-1").await.unwrap();
    }
    // Both deny: no difference.
    desk.report("db-2").await.unwrap_err();
    let found = desk.rule.differences();
    let [(difference, 3)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(difference.sender, "agent/db-1");
    assert_eq!(difference.method, "conductor.report");
    assert!(difference.allowed);
    assert_eq!(difference.rule, "agents-report-on-themselves");
    assert_eq!(difference.shadow_rule, "nobody");
    desk.rule.shadow(None);
    assert_eq!(desk.rule.differences(), []);
}

impl Desk {
    fn take(&self, sequence: u64, active: Option<&str>, shadow: Option<&str>) -> Taken {
        let compiled = |text: &str| policy(text).to_bytes();
        self.take_bytes(sequence, active.map(compiled), shadow.map(compiled))
    }

    fn take_bytes(&self, sequence: u64, active: Option<Vec<u8>>, shadow: Option<Vec<u8>>) -> Taken {
        let issued_at = now().secs();
        let document = PolicyDocument { sequence, version: 1, issued_at, active, shadow };
        self.rule.take(&self.world.operator.hand_out(&document).unwrap())
    }

    async fn open(&self) -> Result<Value, CallError> {
        self.client.call(&"component/conductor".parse().unwrap(), "open", &1).await
    }
}

#[tokio::test]
async fn a_document_is_taken_if_it_is_newer() {
    let desk = desk(REPORTS).await;
    assert_eq!(desk.take(5, Some(NOTHING), None), Taken::New);
    assert_eq!(rule_of(desk.report("db-1").await.unwrap_err()), bulla_policy::NO_RULE);
    // What somebody kept from before.
    assert_eq!(desk.take(4, Some(REPORTS), None), Taken::Older);
    assert_eq!(desk.take(5, Some(REPORTS), None), Taken::Same);
    assert_eq!(rule_of(desk.report("db-1").await.unwrap_err()), bulla_policy::NO_RULE);
    assert_eq!(desk.take(6, Some(REPORTS), None), Taken::New);
    desk.report("db-1").await.unwrap();
    assert_eq!((desk.rule.sequence(), desk.rule.version()), (6, 1));
}

#[tokio::test]
async fn without_a_policy_the_built_in_rule_decides_and_can_be_rehearsed_against() {
    let desk = desk(NOTHING).await;
    assert_eq!(desk.take(1, None, Some(NOTHING)), Taken::New);
    desk.open().await.unwrap();
    let error = desk.report("db-1").await.unwrap_err();
    assert_eq!(rule_of(error), "default/not-open-to-agents");
    let (sequence, found) = desk.rule.take_differences();
    let [(difference, 1)] = found.as_slice() else { panic!("{found:?}") };
    assert!(difference.allowed && difference.method == "open", "{difference:?}");
    assert_eq!((sequence, desk.rule.differences()), (1, vec![]));
    // What could not be reported is counted again, but not as of another document.
    desk.rule.put_back(sequence, found.clone());
    assert_eq!(desk.rule.differences(), found);
    assert_eq!(desk.take(2, None, Some(NOTHING)), Taken::New);
    desk.rule.put_back(sequence, found);
    assert_eq!(desk.rule.differences(), []);
}

#[tokio::test]
async fn by_a_policy_that_can_not_be_read_nothing_is_allowed() {
    let desk = desk(REPORTS).await;
    let mut newer = policy(REPORTS).to_bytes();
    // A form of later.
    newer[1] = 2;
    assert_eq!(desk.take_bytes(2, Some(newer), None), Taken::New);
    assert_eq!(rule_of(desk.report("db-1").await.unwrap_err()), UNREADABLE);
    assert_eq!(desk.take(3, Some(REPORTS), None), Taken::New);
    desk.report("db-1").await.unwrap();
    // What is held stays, whatever the control plane holds.
    desk.rule.told_there_is_none();
    desk.report("db-1").await.unwrap();
}

#[tokio::test]
async fn what_is_kept_and_damaged_denies_until_the_control_plane_was_heard() {
    let desk = desk(REPORTS).await;
    desk.rule.deny_until_told();
    assert_eq!(rule_of(desk.open().await.unwrap_err()), UNREADABLE);
    desk.rule.told_there_is_none();
    desk.open().await.unwrap();
    // By a policy of its own, it is not what it waits for.
    desk.rule.replace(policy(NOTHING));
    desk.rule.told_there_is_none();
    assert_eq!(rule_of(desk.open().await.unwrap_err()), bulla_policy::NO_RULE);
}
