//! Rotation of keys with calls flowing, in separate processes over a real RabbitMQ.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bulla_keystore::{Kek, KeyType, Keystore};
use bulla_rpc::{Clock, KeyFile, SystemClock};
use bulla_seal::{Suite, UnixTime};
use bulla_services::{VirtualHost, require};
use common::*;
use serde_json::Value;

fn rotate(deployment: &Deployment, id: &str) -> Value {
    deployment.json(&["agent", "rotate", id, "--timeout", "150s"])
}

fn show(deployment: &Deployment, id: &str) -> Value {
    deployment.json(&["agent", "show", id])
}

fn epoch(deployment: &Deployment, id: &str) -> u64 {
    show(deployment, id)["credential"]["epoch"].as_u64().unwrap()
}

fn ping(deployment: &Deployment, id: &str) {
    let answer = deployment.call(&format!("agent/{id}"), "agent.ping", "{}");
    assert_eq!(answer["pong"], true);
}

fn beside(key: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", key.display()))
}

/// A copy of everything that an agent has on its disk, in a folder of its own.
fn copy_of(deployment: &Deployment, key: &Path, name: &str) -> PathBuf {
    let folder = deployment.path(name);
    fs::create_dir(&folder).unwrap();
    let copy = folder.join(key.file_name().unwrap());
    fs::copy(key, &copy).unwrap();
    copy
}

fn keystore(deployment: &Deployment, at: u64) -> Keystore {
    let kek = Kek::from_file(deployment.home().join("kek")).unwrap();
    let path = deployment.home().join("keystore.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let keystore = runtime.block_on(Keystore::open(path, kek)).unwrap();
    keystore.with_clock(move || UnixTime::from_secs(at))
}

#[test]
fn keys_made_by_the_control_plane_and_by_the_agent_rotate_and_go_on_after_a_restart() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let key = deployment.add_agent("db-1", &["--suite", "x-wing"]);
    let join = deployment.path("db-2.join");
    deployment.ok(&["agent", "add", "db-2", "--out", join.to_str().unwrap()]);
    let run = ["agent", "run", "--join", join.to_str().unwrap()];
    for (id, key) in [("db-1", key), ("db-2", deployment.path("db-2.key"))] {
        let start = || match id {
            "db-1" => deployment.agent(&key, &[]),
            _ => deployment.start(&run, "answers on"),
        };
        let agent = start();
        ping(&deployment, id);
        let before = KeyFile::read(&key).unwrap();
        assert_eq!(rotate(&deployment, id)["rotated"], 1);
        let after = KeyFile::read(&key).unwrap();
        assert_ne!(before.signing_key, after.signing_key);
        // The new key before the old one, to which something may be under way.
        assert_eq!((before.receive.len(), after.receive.len()), (1, 2));
        assert_eq!(before.receive[0].key, after.receive[1].key);
        assert!(!beside(&key, ".renewing").exists());
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let shown = show(&deployment, id);
        assert_eq!((&shown["credential"]["epoch"], &shown["counter"]), (&2.into(), &1.into()));
        assert_eq!(shown["credentials"][0]["use"], "in-use");
        assert_eq!(shown["credentials"][1]["use"], "former");
        ping(&deployment, id);
        assert_eq!(agent.stop(), 0);
        let _agent = start();
        ping(&deployment, id);
        assert_eq!(rotate(&deployment, id)["rotated"], 1);
        ping(&deployment, id);
        assert_eq!(epoch(&deployment, id), 3);
    }
}

#[test]
fn what_waits_for_the_old_key_opens_after_the_rotation() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let control = deployment.serve();
    let key = deployment.add_agent("db-1", &[]);
    let exec = deployment.path("exec");
    let done = deployment.path("done");
    fs::create_dir_all(exec.join("note")).unwrap();
    fs::set_permissions(&exec, fs::Permissions::from_mode(0o755)).unwrap();
    let method = exec.join("note/down");
    fs::write(&method, format!("#!/bin/sh\ncat >> {}\necho 1\n", done.display())).unwrap();
    fs::set_permissions(&method, fs::Permissions::from_mode(0o755)).unwrap();
    let with_exec = ["--exec", exec.to_str().unwrap()];
    let agent = deployment.agent(&key, &with_exec);
    ping(&deployment, "db-1");
    assert_eq!(agent.stop(), 0);
    // Sealed to the first key, in a session of its own: the agent is away.
    deployment.ok(&["cast", "agent/db-1", "note.down", "\"early\""]);
    control.stop();
    let _control = deployment.serve();
    deployment.ok(&["cast", "agent/db-1", "note.down", "\"late\""]);
    let said = deployment.json(&["agent", "rotate", "db-1", "--timeout", "2s"]);
    assert_eq!((&said["rotated"], &said["away"][0]), (&0.into(), &"db-1".into()));
    let _agent = deployment.agent(&key, &with_exec);
    let text = eventually("both were taken", || {
        let text = fs::read_to_string(&done).unwrap_or_default();
        (text.contains("early") && text.contains("late")).then_some(text)
    });
    assert_eq!(text.matches("early").count(), 1, "{text}");
    // And the request to rotate waited too.
    eventually("it rotated", || (epoch(&deployment, "db-1") == 2).then_some(()));
    ping(&deployment, "db-1");
    // Asked for by a call and by a cast, it happened once.
    assert_eq!(show(&deployment, "db-1")["counter"], 1);
}

#[test]
fn a_copy_of_an_agent_is_noticed_when_it_renews_and_both_are_cut_off() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let log = fs::File::create(deployment.path("control.log")).unwrap();
    let mut control = deployment.command(&["serve", "--listen", "127.0.0.1:0"]);
    control.env("BULLA_LOG", "warn").stderr(log);
    let _control = Process::start_logged(control, "API at");
    let key = deployment.add_agent("db-1", &[]);
    let other = deployment.add_agent("db-2", &[]);
    let agent = deployment.agent(&key, &[]);
    let _other = deployment.agent(&other, &[]);
    ping(&deployment, "db-1");
    let copy = copy_of(&deployment, &key, "copy");
    assert_eq!(rotate(&deployment, "db-1")["rotated"], 1);
    // The control plane has seen the new credential: offers under the old one are stale.
    agent.stop();
    let agent = deployment.agent(&key, &[]);
    ping(&deployment, "db-1");
    agent.stop();
    // The copy alone, as somebody would run it who has the disk of last night.
    let _copy = deployment.agent(&copy, &[]);
    let copied = deployment.run(&["agent", "rotate", "db-1", "--timeout", "20s", "--json"]);
    let said = format!("{}{}", text(&copied.stdout), text(&copied.stderr));
    eventually("it is in quarantine", || {
        let shown = show(&deployment, "db-1");
        (shown["join"] == "quarantined").then_some(())
    });
    let shown = show(&deployment, "db-1");
    assert_eq!(shown["alarms"], 1, "{said}");
    assert_eq!(shown["next_renewal"], Value::Null);
    assert!(shown["credentials"].as_array().unwrap().iter().all(|own| own["use"] == "revoked"));
    let said = eventually("it is cut off", || {
        let output = deployment.run(&["call", "agent/db-1", "agent.ping", "--timeout", "5"]);
        (!output.status.success()).then(|| text(&output.stderr))
    });
    assert!(said.contains("revoked"), "{said}");
    let log = fs::read_to_string(deployment.path("control.log")).unwrap();
    assert!(log.contains("renew-cloned") && log.contains("agent/db-1"), "{log}");
    ping(&deployment, "db-2");
    assert_eq!(rotate(&deployment, "db-2")["rotated"], 1);
    // Its people see it on the terminal.
    let screen = deployment.ok(&["agent", "show", "db-1"]);
    assert!(screen.contains("QUARANTINED"), "{screen}");
}

/// Killed whenever it may be: what was begun is ended at the next start, and nobody is taken for a
/// copy of itself.
#[test]
fn an_agent_that_is_killed_while_it_renews_goes_on_at_its_next_start() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let key = deployment.add_agent("db-1", &[]);
    let rounds = std::env::var("BULLA_TEST_KILLS").ok().and_then(|n| n.parse().ok());
    let rounds: u32 = rounds.unwrap_or(4);
    let mut agent = deployment.agent(&key, &[]);
    ping(&deployment, "db-1");
    for round in 0..rounds {
        let asked = deployment
            .command(&["agent", "rotate", "db-1", "--timeout", "2s", "--json"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let renewing = beside(&key, ".renewing");
        // Either a moment after it wrote its keys down, or after a while whose length walks
        // through the whole of it.
        let begun = std::time::Instant::now();
        while !renewing.exists() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(u64::from(round) * 1_500));
        agent.kill();
        asked.unwrap().wait().unwrap();
        agent = deployment.agent(&key, &[]);
        eventually("what was begun is ended", || (!renewing.exists()).then_some(()));
    }
    let shown = show(&deployment, "db-1");
    assert_eq!(shown["join"], Value::Null, "{shown}");
    let counter = shown["counter"].as_u64().unwrap();
    assert!(counter >= u64::from(rounds) / 2, "{shown}");
    assert_eq!(shown["credential"]["epoch"], counter + 1);
    ping(&deployment, "db-1");
}

#[test]
fn an_agent_past_the_half_of_its_keys_renews_by_itself_and_one_past_the_end_says_what_to_do() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let day = 86_400;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let now = SystemClock.now().secs();
    for (id, age) in [("db-1", 20 * day), ("db-2", 31 * day)] {
        let key = deployment.add_agent(id, &[]);
        // As if it had been added then.
        let then = keystore(&deployment, now - age);
        runtime.block_on(then.remove_agent(id)).unwrap();
        let keys = runtime.block_on(then.add_agent(id, KeyType::Pair, Suite::X25519)).unwrap();
        let bulla_keystore::AgentKeys::Pair { signing, kem, credential } = keys else { panic!() };
        let mut file = KeyFile::read(&key).unwrap();
        let base64 = |bytes: &[u8]| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.encode(bytes)
        };
        file.incarnation = credential.party.incarnation;
        file.signing_key = Some(base64(signing.seed().expose()));
        file.signing_credential = Some(base64(credential.as_bytes()));
        file.receive[0].key = base64(kem.expose());
        file.receive[0].credential = base64(credential.as_bytes());
        fs::remove_file(&key).unwrap();
        file.write(&key).unwrap();
    }
    let _agent = deployment.agent(&deployment.path("db-1.key"), &[]);
    assert!(show(&deployment, "db-1")["credential"]["epoch"].is_u64());
    eventually("it renewed by itself", || (epoch(&deployment, "db-1") == 2).then_some(()));
    ping(&deployment, "db-1");

    let over = deployment.path("db-2.key");
    let said = deployment.fails(1, &["agent", "run", "--key", over.to_str().unwrap()]);
    assert!(said.contains("bulla agent add db-2 --again"), "{said}");
    let screen = deployment.ok(&["agent", "show", "db-2"]);
    assert!(screen.contains("--again"), "{screen}");
    // And that is what helps: the same name, in the same incarnation, with the file in its place.
    let join = deployment.path("db-2.join");
    deployment.ok(&["agent", "add", "db-2", "--again", "--out", join.to_str().unwrap()]);
    let run = ["agent", "run", "--join", join.to_str().unwrap()];
    let _agent = deployment.start(&run, "answers on");
    ping(&deployment, "db-2");
    let shown = show(&deployment, "db-2");
    assert_eq!((&shown["credential"]["epoch"], &shown["counter"]), (&2.into(), &1.into()));
    assert_eq!(rotate(&deployment, "db-2")["rotated"], 1);
    assert_eq!(epoch(&deployment, "db-2"), 3);
}

/// How many agents rotate under load: a handful, or as many as `BULLA_TEST_AGENTS` says.
fn many() -> usize {
    std::env::var("BULLA_TEST_AGENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

const PER_CONNECTION: usize = 100;

/// An agent in this process, that doubles.
async fn double(
    key: &Path,
    transport: Arc<dyn bulla_transport::Transport>,
) -> (bulla::Connection, bulla::Serving) {
    let file = KeyFile::read(key).unwrap();
    let options = bulla::EndpointOptions::default();
    let connection = bulla::Connection::over(&file, key, transport, options).unwrap();
    let double = |_, n: u64| async move { Ok(2 * n) as bulla::HandlerResult<u64> };
    let router = bulla::Router::new().with(bulla::Method::new("double", double));
    // The bus was born with this test: nothing can have run before.
    let claims = bulla_guard::MemoryClaims::for_new_bus(bulla_guard::StoreOptions::default());
    let options = bulla::ServeOptions::new().claims(bulla::Claims::Store(Arc::new(claims)));
    let serving = connection.serve(router, options).await.unwrap();
    (connection, serving)
}

#[test]
fn many_agents_rotate_and_no_call_fails() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let ids: Vec<String> = (0..many()).map(|n| format!("guest-{n}")).collect();
    let list = deployment.path("ids.csv");
    fs::write(&list, ids.join("\n")).unwrap();
    let files = deployment.path("files");
    let from = ["--from", list.to_str().unwrap(), "--out", files.to_str().unwrap()];
    deployment.ok(&[&["agent", "add", "--key"], &from[..]].concat());
    deployment.ok(&["agent", "add", "old-1", "--key-type", "shared"]);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _running: Vec<_> = runtime.block_on(async {
        let mut running = Vec::new();
        // Hundreds of agents on one connection to the broker: this machine has other work too.
        for ids in ids.chunks(PER_CONNECTION) {
            let options = bulla_transport::RabbitOptions::new(&rabbit.url()).unwrap();
            let transport = bulla_transport::RabbitTransport::connect(options).await.unwrap();
            let transport: Arc<dyn bulla_transport::Transport> = Arc::new(transport);
            for id in ids {
                running.push(double(&files.join(format!("{id}.key")), transport.clone()).await);
            }
        }
        running
    });
    // Callers that never stop, each with an agent after the other, through the API's own client.
    let (stop, done, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let client = api(&deployment);
    let callers: Vec<_> = (0..4)
        .map(|start| {
            let (stop, done, failed) = (stop.clone(), done.clone(), failed.clone());
            let (client, ids) = (client.clone(), ids.clone());
            runtime.spawn(async move {
                for n in start.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let target = format!("agent/{}", ids[n % ids.len()]);
                    let request = bulla_api::CallRequest {
                        args: n.into(),
                        timeout_ms: Some(60_000),
                        ..bulla_api::CallRequest::new(target, "double")
                    };
                    match client.call(&request).await {
                        Ok(answer) if answer == 2 * n => done.fetch_add(1, Ordering::SeqCst),
                        other => {
                            eprintln!("call {n}: {other:?}");
                            failed.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
            })
        })
        .collect();
    // And one that opens everything anew all the time: it seals to whatever key peers are told of.
    let caller_key = deployment.path("caller.key");
    deployment.ok(&["component", "add", "caller", "--out", caller_key.to_str().unwrap()]);
    let anew = {
        let (stop, done, failed) = (stop.clone(), done.clone(), failed.clone());
        let ids = ids.clone();
        runtime.spawn(async move {
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let caller = bulla::Connection::open(&caller_key, None).await.unwrap();
                for id in ids.iter().cycle().skip(n % ids.len()).take(8) {
                    let target: bulla::Target = format!("agent/{id}").parse().unwrap();
                    match caller.client().call::<_, usize>(&target, "double", &n).await {
                        Ok(answer) if answer == 2 * n => done.fetch_add(1, Ordering::SeqCst),
                        other => {
                            eprintln!("call {n} anew: {other:?}");
                            failed.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
                caller.close().await;
            }
        })
    };
    eventually("calls flow", || (done.load(Ordering::SeqCst) > 20).then_some(()));
    for round in 1..=2 {
        let begun = std::time::Instant::now();
        let before = done.load(Ordering::SeqCst);
        let over = format!("{}s", 2 + ids.len() / 50);
        let said = deployment.json(&["agent", "rotate", "--all", "--over", &over]);
        let during = done.load(Ordering::SeqCst) - before;
        eprintln!("round {round}: {} in {:?}, {during} calls", said["rotated"], begun.elapsed());
        assert_eq!(said["rotated"], ids.len(), "{said}");
        assert_eq!((&said["away"], &said["shared"][0]), (&Value::Array(vec![]), &"old-1".into()));
    }
    // A while under the new keys.
    let so_far = done.load(Ordering::SeqCst);
    eventually("calls still flow", || (done.load(Ordering::SeqCst) > so_far + 200).then_some(()));
    stop.store(true, Ordering::SeqCst);
    for caller in callers.into_iter().chain([anew]) {
        runtime.block_on(caller).unwrap();
    }
    assert_eq!(failed.load(Ordering::SeqCst), 0);
    eprintln!("{} calls, none failed", done.load(Ordering::SeqCst));
    for id in &ids {
        assert_eq!(epoch(&deployment, id), 3, "{id}");
    }
}

/// A host of `component/svc` in this process, that doubles.
async fn host(key: &Path) -> (bulla::Connection, bulla::Serving) {
    let connection = bulla::Connection::open(key, None).await.unwrap();
    let double = |_, n: u64| async move { Ok(2 * n) as bulla::HandlerResult<u64> };
    let method = bulla::Method::new("double", double).open_to_components();
    let options = bulla::ServeOptions::new().only_host();
    let serving = connection.serve(bulla::Router::new().with(method), options).await.unwrap();
    (connection, serving)
}

#[test]
fn hosts_get_their_types_next_key_and_one_that_was_revoked_gets_nothing() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let add = |name: &str, instance: &str| {
        let key = deployment.path(&format!("{instance}.key"));
        let out = key.to_str().unwrap();
        deployment.ok(&["component", "add", name, "--instance", instance, "--out", out]);
        key
    };
    let (one, two, caller) = (add("svc", "one"), add("svc", "two"), add("caller", "caller-1"));
    let epochs = |key: &Path| -> Vec<u64> {
        let file = KeyFile::read(key).unwrap();
        let identity = file.open(key, SystemClock.now()).unwrap().0;
        identity.receive_keys().iter().map(|own| own.credential.epoch.into()).collect()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (connection, _serving) = runtime.block_on(host(&one));
    let caller = runtime.block_on(bulla::Connection::open(&caller, None)).unwrap();
    let target: bulla::Target = "component/svc".parse().unwrap();
    let double = |n: u64| {
        let called = caller.client().call::<_, u64>(&target, "double", &n);
        assert_eq!(runtime.block_on(called).unwrap(), 2 * n);
    };
    double(1);
    deployment.ok(&["component", "rotate", "svc"]);
    double(2);
    eventually("the host has the next key", || (epochs(&one) == [2, 1]).then_some(()));
    assert_eq!(epochs(&two), [1]);
    double(3);

    // Its own signing key, and with it whatever it asks for next.
    // Having agents renew is the control plane's business.
    let _agent = deployment.agent(&deployment.add_agent("db-1", &[]), &[]);
    let agent: bulla::Target = "agent/db-1".parse().unwrap();
    let renew = caller.client().request(&agent, "renew").namespace("bulla");
    let denied = runtime.block_on(renew.call::<_, Value>(&serde_json::json!({})));
    assert!(
        matches!(&denied, Err(bulla::CallError::Remote(e)) if e.kind == bulla::kinds::NOT_PERMITTED),
        "{denied:?}"
    );
    assert_eq!(epoch(&deployment, "db-1"), 1);

    let mut renewer = renewer(&connection, &one);
    let before = renewer.credential().unwrap();
    let after = runtime.block_on(renewer.renew()).unwrap();
    assert!(after.kid != before.kid && after.instance == before.instance);
    assert_eq!(KeyFile::read(&one).unwrap().receive.len(), 2);
    double(4);

    deployment.ok(&["component", "revoke", "svc", "--instance", "two"]);
    eventually("the other host has what is new", || (epochs(&one) == [3]).then_some(()));
    eventually("it is called with it", || {
        let call = caller.client().request(&target, "double");
        let call = call.timeout(Duration::from_secs(2));
        runtime.block_on(call.call::<_, u64>(&5)).ok()
    });
    let (revoked, serving) = runtime.block_on(host(&two));
    runtime.block_on(serving.drain(Duration::ZERO));
    let mut asking = self::renewer(&revoked, &two);
    let waited = Duration::from_secs(4);
    let asked = runtime.block_on(async {
        let keys = tokio::time::timeout(waited, asking.fetch_keys()).await;
        let renewed = tokio::time::timeout(waited, asking.renew()).await;
        (matches!(keys, Ok(Ok(_))), matches!(renewed, Ok(Ok(_))))
    });
    assert_eq!(asked, (false, false));
    assert_eq!(KeyFile::read(&two).unwrap().receive.len(), 1);
}

fn renewer(connection: &bulla::Connection, key: &Path) -> bulla_rpc::Renewer {
    bulla_rpc::Renewer::new(connection.client(), &KeyFile::read(key).unwrap(), key)
}
