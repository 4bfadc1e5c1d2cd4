//! Separate processes over a real RabbitMQ: a control plane, agents with both key types, one that
//! must not be able to read or answer for another, and services of the user's own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bulla_services::{RabbitMq, VirtualHost, require};
use bulla_transport::address::routing_word;
use bulla_transport::{
    Address, Outbound, RabbitOptions, RabbitTap, RabbitTransport, ReplyName, Transport,
};
use common::*;
use serde_json::json;

/// A method that appends a line to a file, so that its runs can be counted, and echoes.
fn counting_methods(dir: &Path) -> std::path::PathBuf {
    let methods = dir.join("methods");
    fs::create_dir_all(methods.join("test")).unwrap();
    let log = dir.join("runs");
    let script = format!("#!/bin/sh\ncat | tee -a {0}\necho >> {0}\n", log.display());
    let count = methods.join("test/count");
    fs::write(&count, script).unwrap();
    let slow = methods.join("test/slow");
    fs::write(&slow, "#!/bin/sh\necho 'progress: 1' >&2\nsleep 3\necho '\"slept\"'\n").unwrap();
    let fails = methods.join("test/fails");
    fs::write(&fails, "#!/bin/sh\necho 'it broke' >&2\nexit 3\n").unwrap();
    for path in [&methods, &methods.join("test"), &count, &slow, &fails] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    methods
}

fn runs(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn agents_answer_over_rabbitmq_and_the_bus_sees_only_sealed_bytes() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let pair = deployment.add_agent("db-1", &[]);
    let shared = deployment.add_agent("db-2", &["--key-type", "shared"]);
    let xwing = deployment.add_agent("db-3", &["--suite", "x-wing"]);
    let methods = counting_methods(deployment.dir.path());
    let exec = ["--exec", methods.to_str().unwrap()];
    let first = deployment.agent(&pair, &exec);
    let _second = deployment.agent(&shared, &exec);
    let _third = deployment.agent(&xwing, &[]);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = RabbitOptions::new(&rabbit.url()).unwrap();
    let topics = ["group.all".to_owned()];
    let mut tap = runtime.block_on(RabbitTap::open(&options, "bulla", &topics, &[])).unwrap();

    // Real facts of that process's machine.
    let facts = deployment.call("agent/db-1", "host.facts", "{}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(facts.to_string().contains(host.trim()), "{facts}");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(facts.to_string().contains(kernel.trim()), "{facts}");

    let secret = json!({"password": "correct-horse-battery"});
    for agent in ["agent/db-1", "agent/db-2"] {
        let echoed = deployment.call(agent, "test.count", &secret.to_string());
        assert_eq!(echoed, secret, "{agent}");
        deployment.call(agent, "agent.ping", "{}");
    }
    deployment.call("agent/db-3", "agent.ping", "{}");
    let said = deployment.fails(1, &["call", "agent/db-1", "test.fails"]);
    assert!(said.contains("ExecFailed") && said.contains('3'), "{said}");
    let streamed = deployment.ok(&["call", "agent/db-1", "test.slow", "--json"]);
    assert!(streamed.contains(r#"{"progress":1}"#) && streamed.contains("slept"), "{streamed}");
    // What is sent before an agent has the group's key goes past it, and on a busy machine it may
    // have to ask for that twice.
    let heard = |word: &str| {
        runs(deployment.dir.path()).iter().filter(|line| line.contains(word)).count() == 2
    };
    let mut sent = 0;
    eventually("both agents heard a fanout", || {
        sent += 1;
        let word = format!("correct-horse-fanout-{sent}.");
        let args = json!({ "word": word }).to_string();
        deployment.ok(&["fanout", "group/all", "test.count", &args]);
        let until = Instant::now() + Duration::from_secs(15);
        while Instant::now() < until {
            if heard(&word) {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    });

    // All that passed, and nothing of use in it.
    let mut seen = 0;
    while let Ok(Some(tapped)) = runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(300), tap.next()).await })
    {
        seen += 1;
        for secret in ["correct-horse", "password", "count", "ping", "facts", "ExecFailed", "broke"]
        {
            let found = tapped.payload.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{secret} in {}", tapped.routing_key);
        }
    }
    assert!(seen > 12, "the tap saw only {seen} messages");
    // RabbitMQ's own view: the agents' queues, nothing left in them.
    let queues = rabbit.rabbitmqctl("list_queues", &["-q", "name", "messages"]).unwrap();
    assert!(queues.contains("agent.db-1") && queues.contains("agent.db-2"), "{queues}");

    // A call to an agent that is away waits out its timeout and says so; a cast waits for it.
    assert_eq!(first.stop(), 0);
    let said = deployment.fails(1, &["call", "agent/db-1", "agent.ping", "--timeout", "1"]);
    assert!(said.contains("no answer from agent/db-1 within 1"), "{said}");
    deployment.ok(&["cast", "agent/db-1", "test.count", r#"{"late":1}"#]);
    let late = || runs(deployment.dir.path()).iter().filter(|l| l.contains("late")).count();
    assert_eq!(late(), 0);
    let again = deployment.agent(&pair, &exec);
    eventually("the cast ran", || (late() > 0).then_some(()));
    deployment.call("agent/db-1", "agent.ping", "{}");
    again.kill();
    let _again = deployment.agent(&pair, &exec);
    deployment.call("agent/db-1", "agent.ping", "{}");
    assert_eq!(late(), 1, "it ran once, over a kill and a restart");
}

/// Everything over TLS to the broker, and `up` on it; an agent that is asked to stop lets its
/// method end first.
#[test]
fn over_tls_and_stopped_in_the_middle() {
    let Some(rabbit) = require(RabbitMq::builder().tls(true).start()) else { return };
    let mut deployment = Deployment::new(Some(rabbit.tls_url()));
    // Without the broker's CA nothing is believed.
    let said = deployment.fails(1, &["up", "--once", "--listen", "127.0.0.1:0"]);
    assert!(said.to_lowercase().contains("tls") || said.contains("ca"), "{said}");
    let ca = deployment.path("ca.pem");
    fs::write(&ca, rabbit.ca_pem()).unwrap();
    deployment.env.push(("BULLA_BUS_CA", ca.to_str().unwrap().to_owned()));
    let said = deployment.ok(&["up", "--once", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("What the bus") && said.contains("agent.local"), "{said}");

    let _control = deployment.serve();
    let key = deployment.add_agent("db-1", &[]);
    let methods = counting_methods(deployment.dir.path());
    let log = deployment.path("runs");
    let script =
        format!("#!/bin/sh\necho begun >> {0}\nsleep 2\necho '\"ended\"'\n", log.display());
    fs::write(methods.join("test/slow"), script).unwrap();
    let agent = deployment.agent(&key, &["--exec", methods.to_str().unwrap()]);
    let call = deployment.command(&["call", "agent/db-1", "test.slow", "--timeout", "60"]);
    let call = { call }.stdout(Stdio::piped()).spawn().unwrap();
    eventually("the method runs", || (!runs(deployment.dir.path()).is_empty()).then_some(()));
    assert_eq!(agent.stop(), 0);
    let output = call.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains("ended"), "{output:?}");
}

/// The broker goes away while a call runs and comes back: the call is answered, and its method
/// ran once.
#[test]
fn a_broker_lost_in_mid_call_loses_no_caller() {
    let Some(mut rabbit) = require(RabbitMq::start()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let key = deployment.add_agent("db-1", &[]);
    let methods = counting_methods(deployment.dir.path());
    let log = deployment.path("runs");
    let script = format!("#!/bin/sh\necho begun >> {0}\nsleep 4\necho '\"woke\"'\n", log.display());
    fs::write(methods.join("test/slow"), script).unwrap();
    let _agent = deployment.agent(&key, &["--exec", methods.to_str().unwrap()]);
    let args = ["call", "agent/db-1", "test.slow", "--timeout", "80"];
    let call = deployment.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    eventually("the method runs", || (!runs(deployment.dir.path()).is_empty()).then_some(()));
    rabbit.restart().unwrap();
    let output = call.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stdout).contains("woke"));
    assert_eq!(runs(deployment.dir.path()), ["begun"], "it ran once");
    deployment.call("agent/db-1", "agent.ping", "{}");
}

/// Has the broker's password and one agent's key file: what it can't do.
#[test]
fn another_agent_can_neither_read_nor_answer() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let victim = deployment.add_agent("victim", &[]);
    let intruder = deployment.add_agent("intruder", &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = RabbitOptions::new(&rabbit.url()).unwrap();
    let mut tap = runtime.block_on(RabbitTap::open(&options, "bulla", &[], &[])).unwrap();
    let bus = runtime.block_on(RabbitTransport::connect(options)).unwrap();

    // The victim has a queue and is away; the intruder takes the call, re-directs it to itself,
    // and reflects it as a reply.
    deployment.agent(&victim, &[]).stop();
    let thief = deployment.agent(&intruder, &[]);
    let call =
        deployment.command(&["call", "agent/victim", "agent.ping", "--timeout", "4"]).spawn();
    let taken = runtime.block_on(async {
        loop {
            let tapped = tap.next().await.unwrap();
            if tapped.routing_key == "agent.victim" {
                return tapped;
            }
        }
    });
    let send = |to: Address, payload: bytes::Bytes| {
        let outbound = Outbound { confirm: true, ..Outbound::new(payload) };
        runtime.block_on(bus.publish(&to, outbound)).unwrap();
    };
    let exchange = || "bulla".to_owned();
    send(
        Address::Topic { exchange: exchange(), topic: "agent.intruder".into() },
        taken.payload.clone(),
    );
    let inbox = ReplyName::parse(taken.reply_to.as_deref().unwrap()).unwrap();
    let reply =
        |from: &str| Address::Reply { exchange: exchange(), to: inbox.clone(), from: from.into() };
    send(reply("agent/victim"), taken.payload.clone());
    send(reply("agent/victim"), bytes::Bytes::from_static(b"\x84\x01\xf6\xf6\xf6"));
    send(reply("agent/victim"), bytes::Bytes::from_static(b"{\"result\": \"pong\"}"));
    let output = call.unwrap().wait().unwrap();
    assert_eq!(output.code(), Some(1), "a forged reply was believed");

    // The victim comes back: what is left of the call is over, and nothing ran at the intruder.
    let _victim = deployment.agent(&victim, &[]);
    deployment.call("agent/victim", "agent.ping", "{}");
    deployment.call("agent/intruder", "agent.ping", "{}");
    drop(thief);
    assert_eq!(routing_word("agent/victim"), "agent.victim");
}

#[test]
fn a_revoked_agent_is_cut_off_in_a_moment_and_the_others_go_on() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let _control = deployment.serve();
    let keys = ["db-1", "db-2"].map(|id| deployment.add_agent(id, &[]));
    let [former, _other] = keys.each_ref().map(|key| deployment.agent(key, &[]));
    for agent in ["agent/db-1", "agent/db-2"] {
        assert_eq!(deployment.call(agent, "agent.ping", "{}")["pong"], true);
    }
    let revoked = deployment.json(&["agent", "revoke", "db-1"]);
    assert_eq!((&revoked["agent"], &revoked["incarnation"]), (&json!("agent/db-1"), &json!(1)));
    assert_eq!(revoked["groups_rekeyed"], json!(["group/all"]));
    let said = eventually("the agent is cut off", || {
        let output = deployment.run(&["call", "agent/db-1", "agent.ping", "--timeout", "100"]);
        (!output.status.success()).then(|| text(&output.stderr))
    });
    assert!(said.contains("agent/db-1"), "{said}");
    assert_eq!(deployment.call("agent/db-2", "agent.ping", "{}")["pong"], true);
    // The name is given out anew. (With its broker login, the former holder could still take
    // messages out of the queue, though not read them.)
    drop(former);
    fs::remove_file(&keys[0]).unwrap();
    let key = deployment.add_agent("db-1", &[]);
    let _again =
        deployment.agent(&key, &["--state", deployment.home().join("again").to_str().unwrap()]);
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
    assert_eq!(deployment.json(&["agent", "show", "db-1"])["incarnation"], 2);
    // A third, which joins now, gets the statement with its first message.
    let key = deployment.add_agent("db-3", &["--key-type", "shared"]);
    let _third = deployment.agent(&key, &[]);
    assert_eq!(deployment.call("agent/db-3", "agent.ping", "{}")["pong"], true);
}
