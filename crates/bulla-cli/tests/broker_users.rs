//! A broker user for each agent, in separate processes over a real RabbitMQ: an agent works with
//! nothing but its own login, and a revoked one loses it at once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_rpc::KeyFile;
use bulla_services::{RabbitMq, require};
use bulla_transport::{RabbitOptions, RabbitTransport, Transport, with_password};
use common::*;
use serde_json::json;

/// A deployment with broker users.
fn start() -> Option<(RabbitMq, Deployment)> {
    let rabbit = require(RabbitMq::builder().management(true).start())?;
    let mut deployment = Deployment::new(Some(rabbit.url()));
    deployment.with_broker_users(&rabbit);
    Some((rabbit, deployment))
}

#[test]
fn agents_work_with_their_own_login_and_a_revoked_one_is_out_at_once() {
    let Some((rabbit, deployment)) = start() else { return };
    let _control = deployment.serve();
    let join = deployment.invite("db-1");
    let file = fs::read_to_string(&join).unwrap();
    let (_, password) = rabbit.admin();
    assert!(file.contains("amqp://agent.db-1:") && !file.contains(password), "{file}");
    let shared = deployment.add_agent("db-2", &["--key-type", "shared"]);
    deployment.ok(&["group", "add", "dbs", "--member", "agent/db-2"]);

    // Joins, is called, reports progress, takes casts, hears fanouts of its groups.
    let methods = methods(deployment.dir.path());
    let exec = ["--exec", methods.to_str().unwrap()];
    let first = deployment.run_alone(&join, &exec);
    let _second = deployment.run_alone(&shared, &exec);
    let mut users = connections(&rabbit);
    users.sort();
    assert_eq!(users, ["agent.db-1", "agent.db-2"], "nobody else's login");
    for agent in ["agent/db-1", "agent/db-2"] {
        assert_eq!(deployment.call(agent, "agent.ping", "{}")["pong"], true);
        let streamed = deployment.ok(&["call", agent, "test.slow", "--json"]);
        assert!(streamed.contains(r#"{"progress":1}"#) && streamed.contains("slept"), "{streamed}");
    }
    let heard = |word: &str| {
        let runs = fs::read_to_string(deployment.path("runs")).unwrap_or_default();
        runs.matches(word).count()
    };
    deployment.ok(&["cast", "agent/db-1", "test.note", r#"{"word":"cast"}"#]);
    deployment.ok(&["fanout", "group/all", "test.note", r#"{"word":"every"}"#]);
    eventually("casts and fanouts arrive", || {
        (heard("cast") == 1 && heard("every") == 2).then_some(())
    });
    eventually("the other group's member listens to it", || {
        let queues = rabbit.rabbitmqctl(&["list_queues", "-q", "name", "consumers"]).unwrap();
        queues.contains("group.dbs_fanout_agent~db-2\t1").then_some(())
    });
    let said = deployment.ok(&["doctor"]);
    assert!(said.contains("2 agents have theirs"), "{said}");

    // Revoked, its process has no connection any more, and gets none.
    let revoked = deployment.json(&["agent", "revoke", "db-1"]);
    assert_eq!(revoked["broker_user"], "removed");
    eventually("its connection is closed", || {
        (connections(&rabbit) == ["agent.db-2"]).then_some(())
    });
    let users = rabbit.rabbitmqctl(&["list_users", "-q"]).unwrap();
    assert!(!users.contains("agent.db-1") && users.contains("agent.db-2"), "{users}");
    let key = deployment.path("db-1.key");
    let output = deployment.alone(&["agent", "run", "--key", key.to_str().unwrap()]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("ACCESS_REFUSED"), "{output:?}");
    assert_eq!(deployment.call("agent/db-2", "agent.ping", "{}")["pong"], true);

    // Its name, given out anew, is another user with another password.
    let key = deployment.path("again.key");
    deployment.ok(&["agent", "add", "db-1", "--key", "--out", key.to_str().unwrap()]);
    let _again = deployment.run_alone(&key, &[]);
    eventually("the next incarnation is called", || {
        let output = deployment.run(&["call", "agent/db-1", "agent.ping", "--timeout", "100"]);
        output.status.success().then_some(())
    });
    assert_eq!(connections(&rabbit).iter().filter(|user| *user == "agent.db-1").count(), 1);
    drop(first);
}

#[test]
fn what_fails_half_way_is_told_and_can_be_repeated() {
    let Some((rabbit, mut deployment)) = start() else { return };
    let users = || rabbit.rabbitmqctl(&["list_users", "-q"]).unwrap();
    deployment.add_agent("db-1", &[]);
    let with = |deployment: &mut Deployment, url: String| {
        deployment.env[0].1 = url;
    };

    // The broker can't be reached: no agent is added, but one is revoked, and that is said.
    with(&mut deployment, "http://127.0.0.1:1".to_owned());
    let out = deployment.path("db-2.join");
    let said = deployment.fails(1, &["agent", "add", "db-2", "--out", out.to_str().unwrap()]);
    assert!(said.contains("can't reach RabbitMQ's management API"), "{said}");
    assert!(!out.exists());
    assert_eq!(deployment.json(&["agent", "list"]).as_array().unwrap().len(), 1);
    let said = deployment.fails(1, &["agent", "revoke", "db-1"]);
    assert!(said.contains("is revoked, but its broker user could not be removed"), "{said}");
    assert!(said.contains("`bulla agent revoke db-1` again"), "{said}");
    assert_eq!(deployment.json(&["agent", "list"]), json!([]));
    assert!(users().contains("agent.db-1"));
    let said = deployment.run(&["doctor"]);
    assert!(text(&said.stdout).contains("broker users") && !said.status.success());

    // It can: the doctor sees the user that is left over, and the same command removes it.
    with(&mut deployment, rabbit.management_address());
    let said = deployment.run(&["doctor"]);
    let said = text(&said.stdout);
    assert!(
        said.contains("without an agent: agent.db-1") && said.contains("broker sync"),
        "{said}"
    );
    let said = deployment.ok(&["agent", "revoke", "db-1"]);
    assert!(said.contains("was revoked before"), "{said}");
    assert!(!users().contains("agent.db-1"));
    let said = deployment.fails(1, &["agent", "revoke", "db-1"]);
    assert!(said.contains("db-1"), "{said}");

    // Orphans both ways, and what puts them right.
    deployment.add_agent("db-3", &[]);
    deployment.add_agent("db-4", &[]);
    rabbit.rabbitmqctl(&["delete_user", "agent.db-3"]).unwrap();
    let set = std::mem::take(&mut deployment.env);
    deployment.ok(&["agent", "revoke", "db-4"]);
    deployment.env = set;
    let listed = deployment.json(&["broker", "list"]);
    assert_eq!(listed["users_without_agent"], json!(["agent.db-4"]));
    assert_eq!(listed["agents_without_user"], json!(["db-3"]));
    let synced = deployment.json(&["broker", "sync"]);
    assert_eq!(synced["removed"], json!(["agent.db-4"]));
    assert_eq!(synced["agents_without_user"], json!(["db-3"]));
    assert!(!users().contains("agent.db-4") && users().contains("bulla"));
    // Another's user of that name is not taken over.
    rabbit.rabbitmqctl(&["add_user", "agent.db-5", "secret"]).unwrap();
    let said = deployment.fails(1, &["agent", "add", "db-5", "--key"]);
    assert!(said.contains("did not make"), "{said}");
    let agents = deployment.json(&["agent", "list"]);
    assert_eq!(agents.as_array().unwrap().len(), 1, "{agents}");
}

#[test]
fn a_list_of_agents_gets_a_user_each() {
    let Some((rabbit, deployment)) = start() else { return };
    let ids: Vec<String> = (0..250).map(|n| format!("vm-{n}")).collect();
    let list = deployment.path("ids.csv");
    fs::write(&list, ids.join("\n")).unwrap();
    let folder = deployment.path("files");
    let (list, to) = (list.to_str().unwrap(), folder.to_str().unwrap());
    deployment.ok(&["agent", "add", "--from", list, "--out", to]);
    let users = rabbit.rabbitmqctl(&["list_users", "-q"]).unwrap();
    assert_eq!(users.lines().filter(|line| line.starts_with("agent.vm-")).count(), ids.len());
    let mut urls: Vec<String> = ids
        .iter()
        .map(|id| {
            let text = fs::read_to_string(folder.join(format!("{id}.join"))).unwrap();
            let line = text.lines().find(|line| line.starts_with("url =")).unwrap();
            assert!(line.contains(&format!("amqp://agent.{id}:")), "{line}");
            line.to_owned()
        })
        .collect();
    urls.dedup();
    assert_eq!(urls.len(), ids.len());
    assert_eq!(deployment.json(&["broker", "list"])["paired"], 250);

    // The agent of `up` has one too.
    deployment.ok(&["up", "--once", "--listen", "127.0.0.1:0"]);
    assert_eq!(deployment.json(&["broker", "list"])["paired"], 251);
    deployment.ok(&["agent", "revoke", "local"]);

    // One of a batch has a name that is somebody else's: none of them is added.
    rabbit.rabbitmqctl(&["add_user", "agent.vm-900", "secret"]).unwrap();
    fs::write(list, "vm-899\nvm-900\n").unwrap();
    for kind in ["--token", "--key"] {
        let said = deployment.fails(1, &["agent", "add", "--from", list, "--out", to, kind]);
        assert!(said.contains("did not make"), "{said}");
    }
    assert_eq!(deployment.json(&["agent", "list"]).as_array().unwrap().len(), 250);
}

/// A password of one's own, told once; what was in the file before is worth nothing.
#[test]
fn another_join_file_has_another_login() {
    let Some((_rabbit, deployment)) = start() else { return };
    let _control = deployment.serve();
    let join = deployment.invite("db-1");
    let former = deployment.path("former.join");
    fs::copy(&join, &former).unwrap();
    deployment.ok(&["agent", "add", "db-1", "--again", "--out", join.to_str().unwrap()]);
    let args = ["agent", "run", "--join", former.to_str().unwrap()];
    let output = deployment.alone(&args).output().unwrap();
    assert!(text(&output.stderr).contains("ACCESS_REFUSED"), "{output:?}");
    let _agent = deployment.run_alone(&join, &[]);
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
}

#[test]
fn an_agent_logs_in_with_its_certificate() {
    let builder = RabbitMq::builder().tls(true).management(true);
    let Some(rabbit) = require(builder.start()) else { return };
    let mut deployment = Deployment::new(Some(rabbit.tls_url()));
    let ca = deployment.path("ca.pem");
    fs::write(&ca, rabbit.ca_pem()).unwrap();
    let ca = ca.to_str().unwrap().to_owned();
    let (user, password) = rabbit.admin();
    let [cert, key] = ["agent.pem", "agent.key"].map(|name| deployment.path(name));
    let settings = format!(
        "[broker-users]\nlogin = 'certificate'\nprefix = ''\nclient-cert = '{}'\n\
         client-key = '{}'\n",
        cert.display(),
        key.display()
    );
    fs::write(deployment.home().join("bulla.toml"), settings).unwrap();
    deployment.env.extend([
        ("BULLA_BUS_CA", ca.clone()),
        ("BULLA_BROKER_USERS_URL", rabbit.management_tls_address()),
        ("BULLA_BROKER_USERS_CA", ca),
        ("BULLA_BROKER_USERS_USER", user.to_owned()),
        ("BULLA_BROKER_USERS_PASSWORD", password.to_owned()),
    ]);
    let _control = deployment.serve();
    let join = deployment.invite("db-1");
    let file = fs::read_to_string(&join).unwrap();
    assert!(!file.contains('@') && file.contains("agent.pem"), "{file}");
    let identity = rabbit.client_certificate("db-1").unwrap();
    fs::write(&cert, identity.certificate).unwrap();
    fs::write(&key, &identity.key).unwrap();
    let _agent = deployment.run_alone(&join, &[]);
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
    let users = || rabbit.rabbitmqctl(&["list_connections", "-q", "user"]).unwrap();
    assert!(users().lines().any(|user| user == "db-1"), "{}", users());
    // A user that is gone comes back with the next sync: there is no password to hand out.
    rabbit.rabbitmqctl(&["delete_user", "db-1"]).unwrap();
    assert_eq!(deployment.json(&["broker", "sync"])["made"], 1);
    eventually("the agent is back", || users().lines().any(|user| user == "db-1").then_some(()));
    deployment.ok(&["agent", "revoke", "db-1"]);
    eventually("it is out", || (!users().lines().any(|user| user == "db-1")).then_some(()));
}

fn renewing(key: &Path) -> PathBuf {
    PathBuf::from(format!("{}.renewing", key.display()))
}

/// Ends a renewal that is under way: keys and password.
fn ends(key: &Path) {
    eventually("what was begun is ended", || {
        (!renewing(key).exists() && !bus(key).login_pending).then_some(())
    });
}

/// Every moment of a change of the password is one in which the agent may be killed.
#[test]
fn a_rotation_changes_the_password_too_and_locks_no_agent_out() {
    let Some((rabbit, deployment)) = start() else { return };
    let _control = deployment.serve();
    let join = deployment.invite("db-1");
    let key = deployment.path("db-1.key");
    let ping = || assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
    let rotate = || deployment.json(&["agent", "rotate", "db-1", "--timeout", "150s"]);
    let agent = deployment.run_alone(&join, &[]);
    let before = bus(&key);
    assert_eq!(rotate()["rotated"], 1);
    ends(&key);
    let after = bus(&key);
    assert_ne!(before.url, after.url);
    assert_eq!(after.former_url.as_deref(), Some(before.url.as_str()));
    assert!(lets_in(&after.url) && !lets_in(&before.url), "the new password alone");
    ping();
    assert_eq!(connections(&rabbit), ["agent.db-1"]);
    agent.kill();

    // Written down, and the broker does not know; the broker knows, and the agent does not know that.
    for told in [false, true] {
        let mut file = KeyFile::read(&key).unwrap();
        let entry = file.bus.as_mut().unwrap();
        let password = if told { "B" } else { "A" }.repeat(42) + "A";
        let next = with_password(&entry.url, &password).unwrap().to_string();
        entry.former_url = Some(std::mem::replace(&mut entry.url, next));
        entry.login_pending = true;
        let next = entry.url.clone();
        fs::remove_file(&key).unwrap();
        file.write(&key).unwrap();
        if told {
            rabbit.rabbitmqctl(&["change_password", "agent.db-1", &password]).unwrap();
        }
        let agent = deployment.run_alone(&key, &[]);
        ends(&key);
        assert!(lets_in(&next) && bus(&key).url == next);
        ping();
        agent.kill();
    }

    // At every step.
    let rounds = std::env::var("BULLA_TEST_KILLS").ok().and_then(|n| n.parse().ok());
    let rounds: u32 = rounds.unwrap_or(2);
    let mut agent = deployment.run_alone(&key, &[]);
    for round in 0..rounds {
        let former = bus(&key).url;
        let asked = deployment
            .command(&["agent", "rotate", "db-1", "--timeout", "2s", "--json"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let begun = std::time::Instant::now();
        while !renewing(&key).exists() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(u64::from(round) * 80));
        agent.kill();
        asked.unwrap().wait().unwrap();
        agent = deployment.run_alone(&key, &[]);
        ends(&key);
        assert!(lets_in(&bus(&key).url), "round {round}");
        assert_ne!(bus(&key).url, former, "round {round}");
    }
    ping();
}

#[test]
fn a_copy_that_is_logged_in_is_noticed_and_both_lose_their_login() {
    let Some((rabbit, deployment)) = start() else { return };
    let log = fs::File::create(deployment.path("control.log")).unwrap();
    let mut control = deployment.command(&["serve", "--listen", "127.0.0.1:0"]);
    control.env("BULLA_LOG", "warn").stderr(log);
    let _control = Process::start_logged(control, "API at");
    let join = deployment.invite("db-1");
    let key = deployment.path("db-1.key");
    let _other = deployment.run_alone(&deployment.invite("db-2"), &[]);
    let agent = deployment.run_alone(&join, &[]);
    fs::create_dir(deployment.path("copy")).unwrap();
    let copy = deployment.path("copy/db-1.key");
    fs::copy(&key, &copy).unwrap();
    let twin = deployment.run_alone(&copy, &[]);
    let _first = noticed(&deployment, "db-1", (&key, agent), (&copy, twin));
    eventually("both are out", || (connections(&rabbit) == ["agent.db-2"]).then_some(()));
    for url in [&key, &copy].map(|key| bus(key).url) {
        assert!(!lets_in(&url));
    }
    let log = fs::read_to_string(deployment.path("control.log")).unwrap();
    assert!(log.contains("renew-cloned") && log.contains("logged in at the broker as"), "{log}");
    // Nobody misses its user, until the agent is added anew.
    let listed = deployment.json(&["broker", "list"]);
    assert_eq!(
        (&listed["users_without_agent"], &listed["agents_without_user"]),
        (&json!([]), &json!([]))
    );
    deployment.ok(&["agent", "revoke", "db-1"]);
    let again = deployment.path("again.join");
    deployment.ok(&["agent", "add", "db-1", "--out", again.to_str().unwrap()]);
    let _agent = deployment.run_alone(&again, &[]);
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
}

#[test]
fn who_has_only_the_password_delays_its_change_and_is_out_then() {
    let Some((rabbit, deployment)) = start() else { return };
    let _control = deployment.serve();
    let key = deployment.add_agent("db-1", &[]);
    let agent = deployment.run_alone(&key, &[]);
    let before = bus(&key).url;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let thief = RabbitTransport::connect(RabbitOptions::new(&before).unwrap());
    let thief = runtime.block_on(thief).unwrap();
    assert_eq!(deployment.json(&["agent", "rotate", "db-1", "--timeout", "150s"])["rotated"], 1);
    assert!(bus(&key).login_pending && lets_in(&before));
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
    runtime.block_on(thief.close());
    eventually("it is gone", || (connections(&rabbit).len() == 1).then_some(()));
    // It is asked again at the next start, or a minute later.
    agent.stop();
    let _agent = deployment.run_alone(&key, &[]);
    ends(&key);
    assert!(!lets_in(&before));
    assert_eq!(deployment.call("agent/db-1", "agent.ping", "{}")["pong"], true);
}
