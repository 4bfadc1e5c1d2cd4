//! Joining with a one-time token, in separate processes over a real RabbitMQ.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bulla_keystore::{Kek, Keystore};
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::{Suite, UnixTime};
use bulla_services::{VirtualHost, require};
use bulla_transport::{Address, Outbound, RabbitOptions, RabbitTap, RabbitTransport, Transport};
use common::*;
use serde_json::json;

fn invite(deployment: &Deployment, id: &str, more: &[&str]) -> PathBuf {
    let join = deployment.path(&format!("{id}.join"));
    deployment.ok(&[&["agent", "add", id, "--out", join.to_str().unwrap()], more].concat());
    join
}

fn run_with<'a>(file: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&["agent", "run", "--join", file.to_str().unwrap()], more].concat()
}

fn join(deployment: &Deployment, file: &Path, more: &[&str]) -> Process {
    deployment.start(&run_with(file, more), "answers on")
}

/// One value of a join or key file.
fn value(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ="))).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn an_agent_joins_with_its_token_and_goes_on_with_its_keys() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let file = invite(&deployment, "db-1", &[]);
    assert_eq!(mode(&file), 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("signing-key"), "{text}");
    assert_eq!(deployment.json(&["agent", "show", "db-1"])["join"], "invited");

    let agent = join(&deployment, &file, &[]);
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
    let key = deployment.path("db-1.key");
    assert!(!file.exists() && !deployment.path("db-1.key.joining").exists());
    assert_eq!(mode(&key), 0o600);
    let shown = deployment.json(&["agent", "show", "db-1"]);
    assert_eq!(shown["join"], "joined");
    assert_eq!(shown["credential"]["epoch"], 1);

    // The same command again, as a service manager would: no second use of the token.
    assert_eq!(agent.stop(), 0);
    let agent = join(&deployment, &file, &[]);
    deployment.call("agent/db-1", "agent.ping", "{}");
    agent.stop();
    let agent = deployment.agent(&key, &[]);
    deployment.call("agent/db-1", "agent.ping", "{}");
    drop(agent);

    // X-Wing, into a state folder, from what `--key` names.
    let file = invite(&deployment, "db-2", &["--suite", "x-wing", "--expires", "10m"]);
    let state = deployment.path("state");
    let args = ["agent", "run", "--key", file.to_str().unwrap(), "--state"];
    let args = [&args[..], &[state.to_str().unwrap()]].concat();
    let agent = deployment.start(&args, "answers on");
    deployment.call("agent/db-2", "agent.ping", "{}");
    assert_eq!(mode(&state.join("db-2.key")), 0o600);
    agent.stop();
    let _agent = deployment.start(&args, "answers on");
    deployment.call("agent/db-2", "agent.ping", "{}");
}

#[test]
fn a_second_use_of_a_join_file_is_refused_and_quarantines() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let log = fs::File::create(deployment.path("control.log")).unwrap();
    let mut control = deployment.command(&["serve", "--listen", "127.0.0.1:0"]);
    control.env("BULLA_LOG", "warn").stderr(log);
    let _control = Process::start_logged(control, "API at");
    let file = invite(&deployment, "db-1", &[]);
    let copy = deployment.path("thief/db-1.join");
    fs::create_dir(deployment.path("thief")).unwrap();
    fs::copy(&file, &copy).unwrap();
    let first = join(&deployment, &file, &[]);
    let _other = join(&deployment, &invite(&deployment, "db-2", &[]), &[]);
    deployment.call("agent/db-1", "agent.ping", "{}");

    let said = deployment.fails(1, &run_with(&copy, &["--join-timeout", "3"]));
    assert!(said.contains("did not answer") && said.contains("used before"), "{said}");
    assert!(!deployment.path("thief/db-1.key").exists());
    assert_eq!(deployment.json(&["agent", "show", "db-1"])["join"], "quarantined");
    let said = eventually("the agent is cut off", || {
        let output = deployment.run(&["call", "agent/db-1", "agent.ping", "--timeout", "100"]);
        (!output.status.success()).then(|| text(&output.stderr))
    });
    assert!(said.contains("revoked"), "{said}");
    let log = fs::read_to_string(deployment.path("control.log")).unwrap();
    assert!(log.contains("enrol-token-reused") && log.contains("agent/db-1"), "{log}");
    assert_eq!(deployment.call("agent/db-2", "agent.ping", "{}")["pong"], true);
    // Removed and added anew, it is another incarnation, which starts clean.
    deployment.ok(&["agent", "revoke", "db-1"]);
    first.stop();
    let file = deployment.path("again.join");
    deployment.ok(&["agent", "add", "db-1", "--out", file.to_str().unwrap()]);
    let _again = join(&deployment, &file, &[]);
    // The control plane goes by what it read for a second.
    eventually("the next incarnation is called", || {
        let output = deployment.run(&["call", "agent/db-1", "agent.ping", "--timeout", "100"]);
        output.status.success().then_some(())
    });
}

/// Has the broker's password and every message, and not the token.
#[test]
fn who_hears_everything_learns_and_forges_nothing() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = RabbitOptions::new(&rabbit.url()).unwrap();
    let mut tap = runtime.block_on(RabbitTap::open(&options, "bulla", &[], &[])).unwrap();
    let bus = runtime.block_on(RabbitTransport::connect(options)).unwrap();
    let file = invite(&deployment, "db-1", &[]);
    let given = fs::read_to_string(&file).unwrap();
    let secret = value(&given, "secret");
    let _agent = join(&deployment, &file, &[]);

    let (mut request, mut answer) = (None, None);
    while request.is_none() || answer.is_none() {
        let tapped = runtime.block_on(tap.next()).unwrap();
        if tapped.routing_key == "enrol.control" {
            request.get_or_insert(tapped.payload);
        } else if tapped.routing_key.ends_with(".component.control") {
            answer.get_or_insert(tapped.payload);
        }
    }
    let (request, answer) = (request.unwrap(), answer.unwrap());
    let key = fs::read_to_string(deployment.path("db-1.key")).unwrap();
    let holds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
    for secret in [secret, value(&key, "signing-key"), value(&key, "key")] {
        let secret = BASE64.decode(secret).unwrap();
        assert!(!holds(&request, &secret) && !holds(&answer, &secret));
    }
    // Not even who joins, or with which credential.
    let credential = BASE64.decode(value(&key, "signing-credential")).unwrap();
    assert!(!holds(&request, b"agent/db-1") && !holds(&answer, b"agent/db-1"));
    assert!(!holds(&answer, &credential[8..40]));

    // Sent again, altered, cut, and with another's: nothing happens to the agent.
    let send = |payload: Vec<u8>| {
        let address =
            Address::Topic { exchange: "bulla".into(), topic: bulla_rpc::enrol::TOPIC.into() };
        let outbound = Outbound { confirm: true, ..Outbound::new(payload.into()) };
        runtime.block_on(bus.publish(&address, outbound)).unwrap();
    };
    send(request.to_vec());
    for at in (0..request.len()).step_by(7) {
        let mut altered = request.to_vec();
        altered[at] ^= 1;
        send(altered);
        send(request[..at].to_vec());
    }
    // A request of its own under the token's name, with a secret that it made up.
    let guessed = deployment.path("guessed.join");
    let made_up = BASE64.encode([7; 32]);
    let other = given.replace(&value(&given, "secret"), &made_up);
    fs::write(&guessed, other).unwrap();
    fs::set_permissions(&guessed, fs::Permissions::from_mode(0o600)).unwrap();
    let said = deployment.fails(1, &run_with(&guessed, &["--join-timeout", "3"]));
    assert!(said.contains("did not answer"), "{said}");
    assert_eq!(deployment.json(&["agent", "show", "db-1"])["join"], "joined");
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
    // And the door is still open to who has a token.
    let _next = join(&deployment, &invite(&deployment, "db-2", &[]), &[]);
    assert_eq!(deployment.call("agent/db-2", "agent.ping", "{}")["pong"], true);
}

#[test]
fn an_expired_token_is_refused_on_both_sides() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let file = invite(&deployment, "db-1", &[]);
    expire(&deployment, &file);
    assert_eq!(deployment.json(&["agent", "show", "db-1"])["join"], "expired");
    let said = deployment.fails(1, &run_with(&file, &["--join-timeout", "2"]));
    assert!(said.contains("did not answer"), "{said}");
    // The agent knows by itself.
    fs::remove_file(deployment.path("db-1.key.joining")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let expires = text.lines().find(|line| line.starts_with("expires")).unwrap();
    fs::write(&file, text.replace(expires, "expires = 1795305600")).unwrap();
    let said = deployment.fails(1, &run_with(&file, &[]));
    assert!(said.contains("--again"), "{said}");
    // Another one, in its place.
    let again = ["agent", "add", "db-1", "--again", "--out", file.to_str().unwrap()];
    let said = deployment.fails(1, &["agent", "add", "db-1"]);
    assert!(said.contains("--again"), "{said}");
    deployment.ok(&again);
    let _agent = join(&deployment, &file, &[]);
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
    let said = deployment.fails(1, &again);
    assert!(said.contains("exists"), "{said}");
}

/// Puts into a join file a token of an hour ago, which says nothing of its age.
fn expire(deployment: &Deployment, file: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let invitation = runtime.block_on(async {
        let kek = Kek::from_file(deployment.home().join("kek")).unwrap();
        let keystore = Keystore::open(deployment.home().join("keystore.db"), kek).await.unwrap();
        let then = SystemClock.now().secs() - 3600;
        let keystore = keystore.with_clock(move || UnixTime::from_secs(then));
        let half_hour = Duration::from_secs(1800);
        keystore.invite_agent("db-1", Suite::X25519, half_hour, true).await.unwrap()
    });
    let text = fs::read_to_string(file).unwrap();
    let text = text
        .replace(&value(&text, "id"), &BASE64.encode(invitation.token.id.as_bytes()))
        .replace(&value(&text, "secret"), &BASE64.encode(invitation.token.secret.expose()));
    fs::write(file, text).unwrap();
}

/// The agent is killed after it asked: what it kept is enough to be answered at the next start.
#[test]
fn an_agent_that_was_cut_off_joins_at_its_next_start() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let control = deployment.serve();
    let file = invite(&deployment, "db-1", &[]);
    control.stop();
    // It asks, and nobody is there.
    let said = deployment.fails(1, &run_with(&file, &["--join-timeout", "1"]));
    assert!(said.contains("did not answer"), "{said}");
    let kept = fs::read_to_string(deployment.path("db-1.key.joining")).unwrap();
    assert_eq!(mode(&deployment.path("db-1.key.joining")), 0o600);
    let _control = deployment.serve();
    let agent = join(&deployment, &file, &[]);
    deployment.call("agent/db-1", "agent.ping", "{}");
    agent.stop();
    // As if it had been killed before it wrote its keys down: the same request is answered again.
    fs::remove_file(deployment.path("db-1.key")).unwrap();
    let pending = deployment.path("db-1.key.joining");
    fs::write(&pending, &kept).unwrap();
    fs::set_permissions(&pending, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!file.exists());
    assert_eq!(deployment.json(&["agent", "show", "db-1"])["join"], "joined");
}

#[test]
fn files_are_packed_for_their_way() {
    let deployment = Deployment::new(Some("amqp://u:p@rabbit.example".into()));
    let agents = deployment.home().join("agents");
    let said = deployment.ok(&["agent", "add", "db-1", "--format", "cloud-init"]);
    assert!(said.contains("--user-data") && said.contains("one-time token"), "{said}");
    let config = fs::read_to_string(agents.join("db-1.join.cloud-init.yaml")).unwrap();
    assert!(config.starts_with("#cloud-config\n"), "{config}");
    let said = deployment.ok(&["agent", "add", "db-2", "--key", "--format", "config-drive"]);
    assert!(said.contains("stays readable") && said.contains("long-term key"), "{said}");
    let drive = agents.join("db-2.key.config-drive/openstack/latest");
    assert!(fs::read_to_string(drive.join("user_data")).unwrap().contains("agent.key"));
    let meta = fs::read_to_string(drive.join("meta_data.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&meta).unwrap()["name"], "db-2");
    assert_eq!(mode(&drive.join("user_data")), 0o600);
    let said = deployment.ok(&["agent", "add", "db-3", "--format", "trove"]);
    assert!(said.contains("guest_info.conf"), "{said}");
    assert!(
        fs::read_to_string(agents.join("db-3.join.guest_info.conf")).unwrap().contains("[bulla]")
    );
    let shared = deployment.json(&["agent", "add", "db-4", "--key-type", "shared"]);
    assert_eq!((&shared["kind"], &shared["key_type"]), (&json!("key"), &json!("shared")));
    deployment.fails(2, &["agent", "add", "db-5", "--key-type", "shared", "--token"]);
    for expires in ["5m", "2h", "soon"] {
        let said = deployment.fails(2, &["agent", "add", "db-5", "--expires", expires]);
        assert!(said.contains("10m to 60m"), "{said}");
    }
}

#[test]
fn many_are_added_from_a_list() {
    let deployment = Deployment::new(Some("amqp://u:p@rabbit.example".into()));
    let list = deployment.path("ids.csv");
    let ids: Vec<String> = (0..1200).map(|n| format!("guest-{n}")).collect();
    fs::write(&list, format!("id,rack\n{}\n", ids.join(",a\n"))).unwrap();
    let folder = deployment.path("files");
    let from = ["--from", list.to_str().unwrap(), "--out", folder.to_str().unwrap()];
    let added = deployment.json(&[&["agent", "add"], &from[..]].concat());
    assert_eq!(added.as_array().unwrap().len(), 1200);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1200);
    assert_eq!(mode(&folder.join("guest-7.join")), 0o600);
    // Each its own token.
    let secret =
        |id| value(&fs::read_to_string(folder.join(format!("{id}.join"))).unwrap(), "secret");
    assert_ne!(secret("guest-1"), secret("guest-2"));
    // Again: nothing is overwritten, and nothing is half done.
    let said = deployment.fails(1, &[&["agent", "add"], &from[..]].concat());
    assert!(said.contains("not overwritten"), "{said}");
    fs::write(&list, "new-1\nguest-3\nnew-2\n").unwrap();
    let other = deployment.path("other");
    let from = ["--from", list.to_str().unwrap(), "--out", other.to_str().unwrap()];
    let said = deployment.fails(1, &[&["agent", "add"], &from[..]].concat());
    assert!(said.contains("guest-3") && said.contains("0 of 3"), "{said}");
    deployment.fails(1, &["agent", "show", "new-1"]);
    let doubled = deployment.path("doubled.csv");
    fs::write(&doubled, "a\nb\na\n").unwrap();
    let said = deployment.fails(1, &["agent", "add", "--from", doubled.to_str().unwrap()]);
    assert!(said.contains("line 3") && said.contains("twice"), "{said}");
}
