//! Policies in real processes: activated, denied by, reloaded, rehearsed, gone back to.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bulla_api::CallRequest;
use bulla_services::{VirtualHost, require};
use common::*;
use serde_json::{Value, json};

/// The control plane may do anything with agents.
const OPEN: &str = r#"
@id("control-drives-agents")
permit (principal == Component::"control", action, resource)
when { resource.receiver like "agent/*" };
"#;
/// But for one method, and what the notes are about.
const STRICT: &str = r#"
// @argument secret: String

@id("control-drives-agents")
permit (principal == Component::"control", action, resource)
when { resource.receiver like "agent/*" };

@id("nobody-sleeps")
forbid (principal is Component, action, resource == Method::"test.slow");

@id("no-word-of-the-passphrase")
forbid (principal is Component, action, resource)
when { context.args has secret && context.args.secret like "open*" };
"#;

fn write(deployment: &Deployment, name: &str, text: &str) -> PathBuf {
    let path = deployment.path(name);
    fs::write(&path, text).unwrap();
    path
}

fn activate(deployment: &Deployment, text: &str) -> Value {
    let file = write(deployment, "some.cedar", text);
    deployment.json(&["policy", "activate", file.to_str().unwrap()])
}

/// What a call that is denied says.
fn denied(deployment: &Deployment, target: &str, method: &str, args: &str) -> Option<String> {
    let output = deployment.run(&["call", target, method, args, "--timeout", "30"]);
    (!output.status.success()).then(|| text(&output.stderr))
}

fn is_denied_by(deployment: &Deployment, rule: &str, (target, method, args): (&str, &str, &str)) {
    let said = eventually("it is denied", || denied(deployment, target, method, args));
    assert!(said.contains("NotPermitted") && said.contains(&format!("(rule {rule})")), "{said}");
    // The rule's id, and never its text.
    assert!(!said.contains("forbid") && !said.contains("passphrase\""), "{said}");
}

/// A method that reports progress.
fn sleeps(deployment: &Deployment, target: &str) {
    let said = deployment.ok(&["call", target, "test.slow", "--json", "--timeout", "30"]);
    assert!(said.contains("slept"), "{said}");
}

fn is_allowed(deployment: &Deployment, target: &str, method: &str) {
    eventually("it is allowed", || {
        denied(deployment, target, method, "{}").is_none().then_some(())
    });
}

#[test]
fn one_process_goes_by_a_policy_and_back() {
    let deployment = Deployment::new(None);
    let _up = deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running.");
    assert_eq!(deployment.json(&["policy", "list"])["active"], 0);
    assert_eq!(activate(&deployment, OPEN)["version"], 1);
    is_allowed(&deployment, "agent/local", "agent.ping");
    let ping = ("agent/local", "agent.ping", "{}");
    activate(&deployment, "@id(\"closed\") forbid (principal is Component, action, resource);");
    is_denied_by(&deployment, "closed", ping);
    // To the one before, and then to what was before that: the built-in rule.
    assert_eq!(deployment.json(&["policy", "rollback"])["again"], 1);
    is_allowed(&deployment, "agent/local", "agent.ping");
    assert_eq!(deployment.json(&["policy", "rollback"])["again"], 0);
    is_allowed(&deployment, "agent/local", "agent.ping");
    let said = deployment.fails(1, &["policy", "rollback"]);
    assert!(said.contains("no policy before"), "{said}");
    let said = deployment.fails(1, &["policy", "rollback", "9"]);
    assert!(said.contains("no version 9"), "{said}");
    // Any version.
    assert_eq!(deployment.json(&["policy", "rollback", "2"])["version"], 5);
    is_denied_by(&deployment, "closed", ping);
    let listed = deployment.json(&["policy", "list"]);
    let of = |key: &str| -> Vec<Value> {
        listed["versions"].as_array().unwrap().iter().map(|row| row[key].clone()).collect()
    };
    assert_eq!(of("version"), [5, 4, 3, 2, 1]);
    assert_eq!(of("origin"), ["rollback", "rollback", "rollback", "command", "command"]);
    assert_eq!(of("again"), [json!(2), json!(0), json!(1), Value::Null, Value::Null]);
    assert_eq!(of("active"), [true, false, false, false, false]);
}

#[test]
fn agents_elsewhere_go_by_what_is_activated() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let control = deployment.serve();
    let methods = methods(deployment.dir.path());
    let exec = ["--exec", methods.to_str().unwrap()];
    let first = deployment.add_agent("db-1", &[]);
    let second = deployment.add_agent("db-2", &["--key-type", "shared"]);
    let agent = deployment.agent(&first, &exec);
    let _second = deployment.agent(&second, &exec);
    let slow = |id: &'static str| (id, "test.slow", "{}");
    sleeps(&deployment, "agent/db-1");

    // Those that run are told.
    activate(&deployment, STRICT);
    for id in ["agent/db-1", "agent/db-2"] {
        is_denied_by(&deployment, "nobody-sleeps", slow(id));
        deployment.call(id, "test.note", r#"{"secret": "of no account"}"#);
        let opens = (id, "test.note", r#"{"secret": "open sesame"}"#);
        is_denied_by(&deployment, "no-word-of-the-passphrase", opens);
    }
    let noted = fs::read_to_string(deployment.path("runs")).unwrap();
    assert!(!noted.contains("sesame"), "{noted}");

    // One that starts goes by what it kept, before it hears anything.
    let kept = deployment.path("db-1.key.state").join("policy");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    agent.stop();
    // One that was off hears of it when it starts; an older one than it has is nothing to go back to.
    activate(&deployment, OPEN);
    eventually("db-2 is told", || {
        denied(&deployment, "agent/db-2", "test.slow", "{}").is_none().then_some(())
    });
    let agent = deployment.agent(&first, &exec);
    is_allowed(&deployment, "agent/db-1", "test.slow");
    // What somebody wrote there without the operator's key is not gone by.
    agent.stop();
    let mut bytes = fs::read(&kept).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&kept, &bytes).unwrap();
    let _agent = deployment.agent(&first, &exec);
    is_allowed(&deployment, "agent/db-1", "test.slow");
    assert_ne!(fs::read(&kept).unwrap(), bytes, "it was told anew");

    // A stricter one judges in the shadow: nothing changes but the list.
    let strict = write(&deployment, "strict.cedar", STRICT);
    let said = deployment.fails(1, &["policy", "shadow"]);
    assert!(said.contains("no policy judges in the shadow"), "{said}");
    deployment.ok(&["policy", "shadow", strict.to_str().unwrap()]);
    let list = || deployment.json(&["policy", "shadow"]);
    assert_eq!(list(), json!([]));
    let row = eventually("the difference is listed", || {
        sleeps(&deployment, "agent/db-2");
        list().as_array().unwrap().first().cloned()
    });
    assert!(row["count"].as_u64().unwrap() >= 1, "{row}");
    let of = |key: &str| row[key].as_str().unwrap().to_owned();
    assert_eq!((of("sender"), of("receiver")), ("component/control".into(), "agent/db-2".into()));
    assert_eq!((of("method"), of("active")), ("test.slow".into(), "allowed".into()));
    assert_eq!((of("candidate"), of("rule")), ("denied".into(), "control-drives-agents".into()));
    assert_eq!(of("candidate_rule"), "nobody-sleeps");
    deployment.ok(&["policy", "shadow", "--stop"]);
    deployment.fails(1, &["policy", "shadow"]);
    sleeps(&deployment, "agent/db-2");
    // And is activated.
    activate(&deployment, STRICT);
    is_denied_by(&deployment, "nobody-sleeps", slow("agent/db-2"));
    deployment.ok(&["policy", "rollback"]);
    is_allowed(&deployment, "agent/db-2", "test.slow");
    // What is activated while no control plane runs is told when one does.
    assert_eq!(control.stop(), 0);
    activate(&deployment, STRICT);
    let _control = deployment.serve();
    is_denied_by(&deployment, "nobody-sleeps", slow("agent/db-1"));
}

#[test]
fn the_file_of_the_settings_is_reloaded_and_no_call_is_lost() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let mut deployment = Deployment::new(Some(rabbit.url()));
    let file = write(&deployment, "policy.cedar", OPEN);
    deployment.env.push(("BULLA_POLICY_FILE", file.to_str().unwrap().to_owned()));
    let control = deployment.serve();
    let key = deployment.add_agent("db-1", &[]);
    let _agent = deployment.agent(&key, &[]);
    let listed = deployment.json(&["policy", "list"]);
    assert_eq!((&listed["active"], &listed["versions"][0]["origin"]), (&json!(1), &json!("file")));

    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (client, stop, calls) = (api(&deployment), stop.clone(), calls.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let request = CallRequest {
                        target: "agent/db-1".into(),
                        namespace: Some("agent".into()),
                        method: "ping".into(),
                        version: None,
                        args: json!({}),
                        context: None,
                        timeout_ms: Some(60_000),
                    };
                    runtime.block_on(client.call(&request)).unwrap();
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for n in 0..5 {
        // Each allows what is asked for, by a rule of another name.
        fs::write(&file, OPEN.replace("drives", &format!("drives-{n}"))).unwrap();
        control.hang_up();
        let active = || deployment.json(&["policy", "list"])["active"].as_u64();
        eventually("it is reloaded", || (active() == Some(n + 2)).then_some(()));
        let before = calls.load(Ordering::Relaxed);
        eventually("calls go on", || (calls.load(Ordering::Relaxed) > before + 3).then_some(()));
    }
    // A mistake changes nothing.
    fs::write(&file, "@id(\"a\")\npermit (principal, action);").unwrap();
    control.hang_up();
    let before = calls.load(Ordering::Relaxed);
    eventually("calls go on", || (calls.load(Ordering::Relaxed) > before + 20).then_some(()));
    assert_eq!(deployment.json(&["policy", "list"])["active"], 6);
    stop.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    fs::write(&file, "@id(\"closed\") forbid (principal is Component, action, resource);").unwrap();
    control.hang_up();
    is_denied_by(&deployment, "closed", ("agent/db-1", "agent.ping", "{}"));
    // Who goes back stays there: the file counts again once it changes.
    deployment.ok(&["policy", "rollback"]);
    is_allowed(&deployment, "agent/db-1", "agent.ping");
    assert_eq!(control.stop(), 0);
    let control = deployment.serve();
    is_allowed(&deployment, "agent/db-1", "agent.ping");
    assert_eq!(deployment.json(&["policy", "list"])["active"], 8);
    control.stop();
    // And with a mistake in it, nothing starts.
    fs::write(&file, "permit (principal, action, resource);").unwrap();
    let said = deployment.fails(1, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("policy.cedar") && said.contains("has no id"), "{said}");
}
