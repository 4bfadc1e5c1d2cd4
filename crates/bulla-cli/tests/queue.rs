//! No broker anywhere: a control plane with a queue service, and agents on machines that have one file
//! each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bulla_rpc::KeyFile;
use bulla_transport::{
    Address, ConsumeOptions, Inbox, Outbound, QueueOptions, QueueTransport, Transport,
    TransportError,
};
use common::*;

fn inbox(topic: &str) -> Inbox {
    Inbox::Topic { exchange: "bulla".to_owned(), topic: topic.to_owned() }
}

fn address(topic: &str) -> Address {
    Address::Topic { exchange: "bulla".to_owned(), topic: topic.to_owned() }
}

/// The queue service as the holder of a key file sees it.
fn options(key: &Path) -> QueueOptions {
    let file = KeyFile::read(key).unwrap();
    let url = file.bus.as_ref().unwrap().url.clone();
    bulla::queue_options(&file, key, &url).unwrap()
}

fn is_refused<T: std::fmt::Debug>(result: Result<T, impl std::fmt::Display + std::fmt::Debug>) {
    let said = result.unwrap_err().to_string();
    assert!(said.contains("403") || said.contains("401"), "{said}");
}

#[test]
fn an_agent_with_one_file_answers_over_https_and_takes_nobody_elses() {
    let deployment = Deployment::new(None);
    let up = ["up", "--queue", "--queue-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let _control = deployment.start(&up, "Running.");
    let add = |id: &str| deployment.add_agent(id, &["--transport", "queue"]);
    let (first, second) = (add("db-1"), add("db-2"));
    let text = fs::read_to_string(&first).unwrap();
    assert!(text.contains("queue+https://") && text.contains("BEGIN CERTIFICATE"), "{text}");
    assert!(!text.contains("amqp"), "a broker's address");
    let said = deployment.fails(2, &["agent", "add", "db-3", "--transport", "queue", "--token"]);
    assert!(said.contains("knows an agent by its key"), "{said}");

    let methods = methods(deployment.dir.path());
    deployment.ok(&["group", "add", "web", "--member", "agent/db-1"]);
    let agent = deployment.run_alone(&first, &["--exec", methods.to_str().unwrap()]);
    let facts = deployment.call("agent/db-1", "host.facts", "{}");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(facts.to_string().contains(kernel.trim()), "{facts}");
    for group in ["group/all", "group/web"] {
        let args = format!("{{\"to\":\"{group}\"}}");
        eventually("a fanout reaches the agent", || {
            deployment.ok(&["fanout", group, "test.note", &args]);
            std::thread::sleep(std::time::Duration::from_millis(300));
            let runs = fs::read_to_string(deployment.path("runs")).unwrap_or_default();
            runs.contains(group).then_some(())
        });
    }
    assert_eq!(agent.stop(), 0);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let connect = async |options| QueueTransport::connect(options).await.unwrap();
        let mine = connect(options(&first)).await;
        // What is its own, and what it may post to.
        let own = inbox("agent.db-1");
        mine.declare(&own, &ConsumeOptions::default()).await.unwrap();
        mine.publish(&address("component.control"), Outbound::new("x".into())).await.unwrap();
        // What is another's, a component's, or nobody's.
        for topic in ["agent.db-2", "component.control", "enrol.control"] {
            is_refused(mine.consume(&inbox(topic), &ConsumeOptions::default()).await.map(drop));
            is_refused(mine.waiting(&inbox(topic)).await);
        }
        is_refused(mine.publish(&address("agent.db-2"), Outbound::new("x".into())).await);
        is_refused(mine.publish(&address("agent.db-1"), Outbound::new("x".into())).await);
        let all = Address::Fanout { exchange: "bulla".into(), topic: "group.all".into() };
        is_refused(mine.publish(&all, Outbound::new("x".into())).await);
        // Without a key, nothing.
        let nobody = Arc::new(connect(options(&first).without_key()).await);
        is_refused(nobody.waiting(&own).await);
        mine.close().await;
    });
    // With a key that does not count any more, nothing either.
    deployment.ok(&["agent", "revoke", "db-2"]);
    runtime.block_on(async {
        let gone = QueueTransport::connect(options(&second)).await;
        // Which versions there are is told to anybody; a key that is shown has to be good.
        assert!(matches!(gone, Err(TransportError::Refused { .. })), "{gone:?}");
    });
}

#[test]
fn an_agent_with_a_shared_key_answers_over_https_until_it_is_revoked() {
    let deployment = Deployment::new(None);
    let up = ["up", "--queue", "--queue-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let _control = deployment.start(&up, "Running.");
    let file = deployment.add_agent("db-1", &["--transport", "queue", "--key-type", "shared"]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("queue+https://") && text.contains("shared-key = "), "{text}");
    assert!(!text.contains("amqp") && !text.contains("signing-key"), "{text}");
    let agent = deployment.run_alone(&file, &[]);
    let facts = deployment.call("agent/db-1", "host.facts", "{}");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(facts.to_string().contains(kernel.trim()), "{facts}");
    assert_eq!(agent.stop(), 0);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mine = runtime.block_on(QueueTransport::connect(options(&file))).unwrap();
    runtime.block_on(async {
        mine.waiting(&inbox("agent.db-1")).await.unwrap();
        is_refused(mine.waiting(&inbox("agent.local")).await);
        is_refused(mine.publish(&address("agent.local"), Outbound::new("x".into())).await);
    });
    deployment.ok(&["agent", "revoke", "db-1"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    runtime.block_on(async { is_refused(mine.waiting(&inbox("agent.db-1")).await) });
    // A namesake is another one: the former key is worth nothing.
    let again = deployment.path("again.key");
    let out = ["agent", "add", "db-1", "--key", "--out", again.to_str().unwrap()];
    deployment.ok(&[&out[..], &["--transport", "queue", "--key-type", "shared"]].concat());
    runtime.block_on(async { is_refused(mine.waiting(&inbox("agent.db-1")).await) });
}

#[test]
fn a_program_with_an_access_key_has_queues_of_its_own() {
    let deployment = Deployment::new(None);
    let key = |user: &str, name: &str| {
        let file = deployment.path(name).to_str().unwrap().to_owned();
        deployment.ok(&["access-key", "add", user, "--out", &file]);
        file
    };
    let (one, ada) = (key("program/backup", "one.key"), key("operator/ada", "ada.key"));
    let started = [
        (
            &["up", "--queue", "--queue-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"][..],
            "Running.",
        ),
        (&["queue", "serve", "--listen", "127.0.0.1:0"][..], "Queue service at"),
    ];
    for (args, ready) in started {
        let process = deployment.start(args, ready);
        let url = process.lines.iter().find_map(|line| line.split("Queue service at ").nth(1));
        let url = url.map(|url| url.trim().trim_end_matches('.').to_owned());
        let at: Vec<&str> = url.iter().flat_map(|url| ["--url", url]).collect();
        let with = |args: &[&str], key: &str| {
            [&["--json", "queue"], args, &at, &["--access-key", key]].concat().join("\n")
        };
        let ok = |args: &[&str], key: &str| {
            let args = with(args, key);
            deployment.ok(&args.split('\n').collect::<Vec<_>>())
        };
        ok(&["create", "nightly"], &one);
        assert!(ok(&["list", "--project", "elsewhere"], &one).contains("nightly"));
        assert!(!ok(&["list", "--project", "bulla"], &one).contains("inbox"));
        assert!(ok(&["list", "--project", "program/backup"], &ada).contains("nightly"));
        assert!(!ok(&["list", "--project", "elsewhere"], &ada).contains("nightly"));
        ok(&["delete", "nightly"], &one);
        if url.is_some() {
            let id = deployment.json(&["access-key", "list"]).to_string();
            let id = id.split('"').find(|text| text.starts_with("BULL")).unwrap().to_owned();
            deployment.ok(&["access-key", "remove", &id]);
            std::thread::sleep(std::time::Duration::from_secs(1));
            let refused = [&one, &ada].map(|key| {
                let args = with(&["list"], key);
                deployment.run(&args.split('\n').collect::<Vec<_>>()).status.success()
            });
            assert_eq!(refused.iter().filter(|taken| !**taken).count(), 1);
        }
        assert_eq!(process.stop(), 0);
    }
}

/// A queue service that asks nobody who they are, and its address.
fn open_service(deployment: &Deployment, store: &str) -> (Process, String) {
    let args = ["queue", "serve", "--noauth", "--listen", "127.0.0.1:0", "--store", store];
    let process = deployment.start(&args, "Queue service at");
    let line = process.lines.iter().find(|line| line.contains("Queue service at")).unwrap();
    let url = line.split("at ").nth(1).unwrap().trim().trim_end_matches('.').to_owned();
    (process, url)
}

#[test]
fn what_was_answered_is_there_after_the_service_was_killed() {
    let deployment = Deployment::new(None);
    let store = deployment.path("queue.db");
    let store = store.to_str().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (inbox, to) = (inbox("component.control"), address("component.control"));
    let mut answered = std::collections::BTreeSet::new();
    for round in 0..5 {
        let (process, url) = open_service(&deployment, store);
        answered.extend(runtime.block_on(async {
            let options = QueueOptions::new(&format!("queue+{url}")).unwrap();
            let transport = Arc::new(QueueTransport::connect(options).await.unwrap());
            let mut posters = tokio::task::JoinSet::new();
            for poster in 0..8 {
                let (transport, to) = (transport.clone(), to.clone());
                posters.spawn(async move {
                    let mut answered = Vec::new();
                    for n in 0.. {
                        let payload = format!("{round}.{poster}.{n}");
                        let brief = Some(std::time::Duration::from_millis(1));
                        let message =
                            Outbound { ttl: brief, ..Outbound::new(payload.clone().into()) };
                        match transport.publish(&to, message).await {
                            Ok(()) => answered.push(payload),
                            Err(_) => break,
                        }
                    }
                    answered
                });
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            process.kill();
            posters.join_all().await.into_iter().flatten().collect::<Vec<_>>()
        }));
    }
    assert!(answered.len() > 100, "only {} messages were answered", answered.len());
    // Two who share the queue get each message once, and every one that was answered.
    let (_process, url) = open_service(&deployment, store);
    let seen = runtime.block_on(async {
        let connect = async || {
            let options = QueueOptions::new(&format!("queue+{url}")).unwrap();
            QueueTransport::connect(options).await.unwrap()
        };
        let (one, two) = (connect().await, connect().await);
        let left = one.waiting(&inbox).await.unwrap();
        let mut first = one.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
        let mut second = two.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..left {
            let delivery = tokio::select! {
                delivery = first.next() => delivery,
                delivery = second.next() => delivery,
            };
            let delivery = delivery.unwrap();
            let payload = String::from_utf8(delivery.payload.to_vec()).unwrap();
            assert!(seen.insert(payload.clone()), "{payload} came twice");
            delivery.acker.ack();
        }
        seen
    });
    let lost: Vec<_> = answered.difference(&seen).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), answered.len());
}

#[test]
fn an_operator_manages_queues_from_the_command_line() {
    let deployment = Deployment::new(None);
    let store = deployment.path("queue.db");
    let (_process, url) = open_service(&deployment, store.to_str().unwrap());
    let ask = |args: &[&str]| {
        let args = [&["--json", "queue"], args, &["--url", &url, "--project", "ops"]].concat();
        serde_json::from_str::<serde_json::Value>(&deployment.ok(&args)).unwrap()
    };
    let made = ask(&["create", "backups", "--require", "signed", "--set", "color=red"]);
    assert_eq!(made["created"], true);
    assert_eq!(ask(&["create", "backups"])["created"], false);
    for n in 0..25 {
        ask(&["create", &format!("q{n:02}")]);
    }
    let all = ask(&["list"]);
    assert_eq!(all.as_array().unwrap().len(), 26);
    assert_eq!(ask(&["list", "--name", "back"])[0]["metadata"]["_require"], "signed");
    assert_eq!(ask(&["show", "backups"])["color"], "red");
    assert_eq!(
        ask(&["set", "backups", "_default_message_ttl", "600"])["_default_message_ttl"],
        600
    );
    assert!(ask(&["set", "backups", "color"])["color"].is_null());
    assert_eq!(ask(&["stats", "backups"])["total"], 0);
    let grant = ask(&["grant", "backups", "--paths", "messages,claims", "--methods", "GET"]);
    assert!(grant["URL-Signature"].as_str().unwrap().contains('.'), "{grant}");
    for change in ["revoke", "purge", "delete"] {
        ask(&[change, "backups"]);
    }
    let gone = ["queue", "show", "backups", "--url", &url, "--project", "ops"];
    assert!(deployment.fails(1, &gone).contains("there is no queue backups in ops"));
}

#[test]
fn encrypted_queues_live_through_a_rotation_and_are_not_served_without_their_key() {
    let deployment = Deployment::new(None);
    let settings = deployment.home().join("bulla.toml");
    let set = |from: &str, to: &str| {
        let text = fs::read_to_string(&settings).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&settings, text.replace(from, to)).unwrap();
    };
    set("#: encrypt = false", "encrypt = true");
    let (word, store) = ("a-word-that-stands-nowhere-else", deployment.home().join("queue.db"));
    let store = store.to_str().unwrap().to_owned();
    let (inbox, to) = (inbox("component.control"), address("component.control"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connect = async |url: &str| {
        let options = QueueOptions::new(&format!("queue+{url}")).unwrap();
        QueueTransport::connect(options).await.unwrap()
    };
    let post = |url: &str| {
        runtime.block_on(async {
            let transport = connect(url).await;
            transport.publish(&to, Outbound::new(word.into())).await.unwrap();
            transport.close().await;
        });
    };
    let in_a_file = || {
        fs::read_dir(deployment.home()).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, word);
            path.file_name().unwrap().to_string_lossy().starts_with("queue.db")
                && [word, base64.trim_end_matches('=')].iter().any(|what| {
                    let bytes = fs::read(&path).unwrap();
                    bytes.windows(what.len()).any(|part| part == what.as_bytes())
                })
        })
    };
    let (first, url) = open_service(&deployment, &store);
    post(&url);
    assert!(!in_a_file());
    // While it runs, and while it does not.
    deployment.json(&["kek", "rotate"]);
    post(&url);
    assert_eq!(first.stop(), 0);
    deployment.json(&["kek", "rotate"]);
    let (second, url) = open_service(&deployment, &store);
    runtime.block_on(async {
        let transport = connect(&url).await;
        let mut messages = transport.consume(&inbox, &ConsumeOptions::default()).await.unwrap();
        for _ in 0..2 {
            let delivery = messages.next().await.unwrap();
            assert_eq!(delivery.payload, word.as_bytes());
            delivery.acker.ack();
        }
        transport.close().await;
    });
    post(&url);
    assert!(!in_a_file());
    assert_eq!(second.stop(), 0);

    // Turned off, it still needs the key for what is there; another keystore has another.
    set("encrypt = true", "encrypt = false");
    let (third, url) = open_service(&deployment, &store);
    assert_eq!(runtime.block_on(async { connect(&url).await.waiting(&inbox).await.unwrap() }), 1);
    post(&url);
    assert!(in_a_file());
    assert_eq!(third.stop(), 0);
    let other = Deployment::new(None);
    let args = ["queue", "serve", "--noauth", "--listen", "127.0.0.1:0", "--store", &store];
    assert!(other.fails(1, &args).contains("belongs to another keystore"));
    set("encrypt = false", "accept-plain = true");
    assert!(deployment.fails(2, &args).contains("accept-plain"));
}
