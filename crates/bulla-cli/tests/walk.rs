//! From an operator's token to the journal: users of the HTTPS API in real processes, what the policy
//! lets them do, what it would let them do, and what is written down of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bulla::{CallError, Connection, Context, Method, Router, ServeOptions, Target};
use bulla_api::{CallRequest, Client, Credential, Endpoint};
use bulla_journal::{Events, Journal, Options, SigningKey};
use bulla_rpc::{EndpointOptions, HandlerResult, KeyFile};
use bulla_services::{Keystone, VirtualHost, require};
use bulla_transport::{RabbitOptions, RabbitTransport};
use common::*;
use serde_json::{Value, json};

const OPEN: &str = r#"
// @argument instance_id: String

@id("control-drives-agents")
permit (principal == Component::"control", action, resource)
when { resource.receiver like "agent/*" };

@id("agents-report")
permit (principal is Agent, action in [Action::"call", Action::"cast"], resource in Component::"conductor");

@id("agents-report-only-on-themselves")
forbid (principal is Agent, action, resource in Component::"conductor")
when { context.args has instance_id && context.args.instance_id != principal.id };

@id("dbas-call-their-agents")
permit (principal in Role::"dba", action == Action::"api:call", resource in Agent::"db-1");

@id("backup-pings")
permit (principal == Program::"backup", action == Action::"api:call", resource == Method::"agent.ping");
"#;
const MORE: &str = r#"
@id("nobody-notes")
forbid (principal is User, action, resource == Method::"test.note");
"#;

fn private(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Users without certificates are let in, by this Keystone's word too.
fn let_users_in(deployment: &Deployment, keystone: &Keystone) {
    let password = private(deployment.path("keystone.password"), "bullabulla");
    let toml = deployment.home().join("bulla.toml");
    let set = fs::read_to_string(&toml).unwrap();
    let set =
        set.replace("#: client-certificates = \"required\"", "client-certificates = \"optional\"");
    let more = format!(
        "\n[api.keystone]\nurl = {:?}\nuser = \"bulla\"\nsecret-file = {:?}\ncache = \"2s\"\n\
         [api.keystone.roles]\nmember = \"dba\"\n",
        keystone.url(),
        password.to_str().unwrap()
    );
    fs::write(&toml, set + &more).unwrap();
}

/// A component that agents report to, with a journal beside the others.
async fn conductor(
    deployment: &Deployment,
    key: &Path,
) -> (Connection, bulla::Serving, Arc<Journal>) {
    let file = KeyFile::read(key).unwrap();
    let bus = file.bus.clone().unwrap();
    let transport = RabbitTransport::connect(RabbitOptions::new(&bus.url).unwrap()).await.unwrap();
    let signing = SigningKey::load_or_create(&deployment.home().join("journal.key"), "journal");
    let signing = signing.unwrap();
    let options = Options::new(&format!("{}/conductor", signing.public().name()));
    let folder = deployment.home().join("state/journal/conductor");
    let journal = Arc::new(Journal::open(&folder, signing, options).unwrap());
    let options =
        EndpointOptions { events: Events::to(journal.clone()), ..EndpointOptions::default() };
    let connection = Connection::over(&file, key, Arc::new(transport), options).unwrap();
    let report = Method::new("report", |_: Context, report: Value| async move {
        Ok(report["instance_id"].clone()) as HandlerResult<Value>
    });
    let router = Router::new().with(report.namespace("conductor").open_to_agents());
    let serving = connection.serve(router, ServeOptions::new().only_host()).await.unwrap();
    (connection, serving, journal)
}

/// An agent's own program reports; the rule that denies it, if one does.
async fn report(agent: &Connection, about: &str) -> Option<String> {
    let target: Target = "component/conductor".parse().unwrap();
    let request = agent.client().request(&target, "report").namespace("conductor");
    match request.call::<_, Value>(&json!({ "instance_id": about })).await {
        Ok(said) => {
            assert_eq!(said, about);
            None
        }
        Err(CallError::Remote(error)) => Some(error.to_string()),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn from_a_token_to_a_journal_that_can_not_be_altered() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let Some(keystone) = require(Keystone::start()) else { return };
    keystone.add("bulla", "service", &["service"]).unwrap();
    keystone.add("ada", "ops", &["member"]).unwrap();
    keystone.add("bob", "ops", &["reader"]).unwrap();
    let deployment = Deployment::new(Some(rabbit.url()));
    let_users_in(&deployment, &keystone);
    let secrets_key = deployment.path("backup.access-key");
    let key = secrets_key.to_str().unwrap();
    deployment.ok(&["access-key", "add", "program/backup", "--out", key]);
    let log = deployment.path("serve.log");
    let mut serve = deployment.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.env("BULLA_LOG", "trace").stderr(fs::File::create(&log).unwrap());
    let control = Process::start_logged(serve, "API at");
    let exec = methods(deployment.dir.path());
    let first = deployment.add_agent("db-1", &[]);
    let _agent = deployment.agent(&first, &["--exec", exec.to_str().unwrap()]);
    let second = deployment.add_agent("db-2", &[]);
    let role = deployment.path("conductor.key");
    deployment.ok(&["component", "add", "conductor", "--out", role.to_str().unwrap()]);

    // As on the operator's own machine: with a token, the API's address and its CA.
    let url = fs::read_to_string(deployment.home().join("api.url")).unwrap();
    let url = url.trim().to_owned();
    let ca = deployment.home().join("tls/ca.crt");
    let token = |user: &str| {
        private(deployment.path(&format!("{user}.token")), &keystone.token(user, "ops").unwrap())
    };
    let (ada, bob) = (token("ada"), token("bob"));
    let call = |flag: &str, file: &Path, target: &str, method: &str| {
        let (file, ca) = (file.to_str().unwrap(), ca.to_str().unwrap());
        let how = ["--api", &url, "--ca", ca, flag, file, "--timeout", "60"];
        let args = [&["call", target, method, "{}"], &how[..]].concat();
        let output = deployment.alone(&args).output().unwrap();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    };
    let with_token = "--keystone-token";
    let denied_by = |called: Result<String, String>, rule: &str| {
        let said = called.unwrap_err();
        assert!(said.contains(&format!("(rule {rule})")), "{said}");
    };
    // Nobody but operators with certificates may do anything until a rule says so.
    denied_by(call(with_token, &ada, "agent/db-1", "agent.ping"), "default/api-needs-a-rule");
    denied_by(
        call("--access-key", &secrets_key, "agent/db-1", "agent.ping"),
        "default/api-needs-a-rule",
    );
    deployment.call("agent/db-1", "agent.ping", "{}");

    let open = deployment.path("open.cedar");
    fs::write(&open, OPEN).unwrap();
    deployment.ok(&["policy", "activate", open.to_str().unwrap()]);
    eventually("an operator with a token may call", || {
        call(with_token, &ada, "agent/db-1", "agent.ping").ok()
    });
    denied_by(call(with_token, &ada, "agent/db-2", "agent.ping"), "policy/no-rule-permits");
    denied_by(call(with_token, &bob, "agent/db-1", "agent.ping"), "policy/no-rule-permits");
    call("--access-key", &secrets_key, "agent/db-1", "agent.ping").unwrap();
    denied_by(
        call("--access-key", &secrets_key, "agent/db-1", "test.note"),
        "policy/no-rule-permits",
    );
    let forged = private(deployment.path("forged"), "gAAAAABforgedforgedforged");
    let said = call(with_token, &forged, "agent/db-1", "agent.ping").unwrap_err();
    assert!(said.contains("does not know this token"), "{said}");
    // Of the operator's own certificate nothing was taken away.
    deployment.ok(&["peers"]);

    // The agent reports on itself, and on nobody else.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (host, serving, journal) = runtime.block_on(conductor(&deployment, &role));
    let agent = runtime.block_on(Connection::open(&second, None)).unwrap();
    eventually("the conductor goes by the policy", || {
        runtime.block_on(report(&agent, "db-1"))?.contains("only-on-themselves").then_some(())
    });
    assert_eq!(runtime.block_on(report(&agent, "db-2")), None);
    let find = |more: &[&str]| -> Vec<Value> {
        let shown = deployment.ok(&[&["audit", "show", "--json"], more].concat());
        shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let only_on_themselves = eventually("the denial is in the journal", || {
        let found = find(&["--kind", "call-denied"]);
        found.into_iter().find(|entry| entry["rule"] == "agents-report-only-on-themselves")
    });
    assert_eq!(only_on_themselves["sender"], "agent/db-2#1");
    let place = |entry: &Value| format!("{}/{}", entry["journal"].as_str().unwrap(), entry["seq"]);
    let explained = deployment.json(&["policy", "explain", "--entry", &place(&only_on_themselves)]);
    assert_eq!(
        (&explained["allowed"], &explained["policy"]),
        (&json!(false), &json!("version 1 of the policy"))
    );
    let of = |explained: &Value, rule: &str| {
        let rules = explained["rules"].as_array().unwrap();
        rules.iter().find(|row| row["rule"] == rule).unwrap().clone()
    };
    let row = of(&explained, "agents-report-only-on-themselves");
    assert_eq!(row["stands"], "unknown");
    assert!(row["why"].as_str().unwrap().contains("instance_id != principal.id"), "{row}");
    // With the arguments it is told whole.
    let args = [
        "policy",
        "explain",
        "--entry",
        &place(&only_on_themselves),
        "--args",
        r#"{"instance_id": "db-1"}"#,
    ];
    let explained = deployment.json(&args);
    assert_eq!(of(&explained, "agents-report-only-on-themselves")["stands"], "holds");
    assert!(explained["to_change"][0].as_str().unwrap().contains("narrow"), "{explained}");
    let denied = find(&["--kind", "api-denied", "--principal", "user/bob@Default"]);
    let said = deployment.ok(&["policy", "explain", "--entry", &place(&denied[0])]);
    assert!(said.contains("user/bob@Default api:call agent.ping at agent/db-1: denied"), "{said}");
    assert!(said.contains("principal in Role::\"dba\""), "{said}");

    // Calls flow while a stricter policy is rehearsed and put in force.
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let credential = Credential::KeystoneToken(ada.clone());
            let endpoint = Endpoint::Shown { url: url.clone(), ca: ca.clone(), credential };
            let (client, stop, calls) =
                (Client::new(&endpoint).unwrap(), stop.clone(), calls.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let mut request = CallRequest::new("agent/db-1", "ping");
                    request.namespace = Some("agent".to_owned());
                    request.timeout_ms = Some(60_000);
                    runtime.block_on(client.call(&request)).unwrap();
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let strict = deployment.path("strict.cedar");
    fs::write(&strict, format!("{OPEN}{MORE}")).unwrap();
    let strict = strict.to_str().unwrap();
    deployment.ok(&["policy", "shadow", strict]);
    let broken = eventually("what it would break is shown", || {
        call(with_token, &ada, "agent/db-1", "test.note").unwrap();
        let rows = deployment.json(&["policy", "shadow"]);
        rows.as_array().unwrap().iter().find(|row| row["sender"] == "user/ada@Default").cloned()
    });
    assert_eq!(
        (&broken["method"], &broken["candidate_rule"]),
        (&json!("test.note"), &json!("nobody-notes"))
    );
    assert_eq!(broken["rule"], "dbas-call-their-agents");
    let before = calls.load(Ordering::Relaxed);
    deployment.ok(&["policy", "activate", strict]);
    eventually("it is in force", || {
        call(with_token, &ada, "agent/db-1", "test.note")
            .err()
            .filter(|said| said.contains("nobody-notes"))
    });
    eventually("calls go on", || (calls.load(Ordering::Relaxed) > before + 20).then_some(()));
    stop.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().unwrap());

    // Revoked, it counts no more.
    let token = fs::read_to_string(&ada).unwrap();
    keystone.revoke(token.trim()).unwrap();
    eventually("a token that was revoked is refused", || {
        let said = call(with_token, &ada, "agent/db-1", "agent.ping").err()?;
        said.contains("does not know this token").then_some(())
    });
    runtime.block_on(async {
        agent.close().await;
        serving.drain(std::time::Duration::from_secs(5)).await;
        host.close().await;
    });
    journal.close();
    assert_eq!(control.stop(), 0);

    let all = find(&[]);
    let has = |event: &str, field: &str, value: &str| {
        assert!(
            all.iter().any(|entry| entry["event"] == event && entry[field] == value),
            "{event} {field} {value}: {all:#?}"
        );
    };
    has("operator-called", "operator", "user/ada@Default");
    has("operator-called", "operator", "program/backup");
    has("operator-called", "operator", "operator/operator");
    has("api-refused", "why", "token-invalid");
    has("api-denied", "rule", "nobody-notes");
    has("policy-changed", "how", "shadowed");
    let logged = fs::read_to_string(&log).unwrap();
    assert!(logged.contains("logged in at Keystone"), "nothing is logged");
    let key_file = fs::read_to_string(&secrets_key).unwrap();
    let secret = key_file.split("secret-key = \"").nth(1).unwrap().split('"').next().unwrap();
    for secret in [token.trim(), secret, "bullabulla", "gAAAAAB"] {
        assert!(!logged.contains(secret), "a secret is in the log");
    }

    deployment.ok(&["audit", "verify"]);
    let file = fs::read_dir(deployment.home().join("state/journal/control")).unwrap();
    let file = file
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|suffix| suffix == "jsonl"))
        .unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(16).position(|part| part == b"user/ada@Default").unwrap();
    bytes[at + 5] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let said = deployment.fails(1, &["audit", "verify"]);
    assert!(said.contains("not as they were written"), "{said}");
}
