//! Executables over the in-memory bus: real programs, real processes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_keystore::KeyType;
use bulla_rpc::{CallError, Client, RemoteError};
use bulla_seal::Principal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::agent::{self, AgentOptions};
use crate::control::directory::tests::{Deployment, Process, target};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

fn names(dir: &Path) -> (Vec<String>, Vec<String>) {
    let found = scan::scan(dir, &["agent.ping".to_owned()]).unwrap();
    let refused = found.refused.iter().map(|r| {
        let name = r.path.file_name().unwrap().to_string_lossy().into_owned();
        format!("{name}: {}", r.why)
    });
    (found.executables.iter().map(Executable::full_name).collect(), refused.collect())
}

#[test]
fn offers_what_is_named_well_and_says_why_not() {
    let dir = folder();
    script(dir.path(), "restart", "");
    script(dir.path(), "db/resize", "");
    script(dir.path(), ".hidden", "");
    script(dir.path(), "with.dot", "");
    script(dir.path(), "agent/ping", "");
    script(dir.path(), "bulla/cancel", "");
    script(dir.path(), "db/deeper/method", "");
    fs::write(dir.path().join("text"), "no program").unwrap();
    let (offered, refused) = names(dir.path());
    assert_eq!(offered, ["db.resize", "restart"]);
    let refused = refused.join("\n");
    for why in [
        "with.dot: a method's name has no dot",
        "ping: a built-in method",
        "bulla: the namespace `bulla`",
        "deeper: it is no file",
        "text: it is not executable",
    ] {
        assert!(refused.contains(why), "{why} is not in\n{refused}");
    }
    assert_eq!(refused.lines().count(), 5, "{refused}");
}

#[test]
fn refuses_what_others_could_have_put_there() {
    let dir = folder();
    let written = script(dir.path(), "written", "");
    fs::set_permissions(&written, Permissions::from_mode(0o775)).unwrap();
    script(dir.path(), "open/inside", "");
    fs::set_permissions(dir.path().join("open"), Permissions::from_mode(0o777)).unwrap();
    // A link is as good as what it leads to.
    let elsewhere = folder();
    let target = script(&elsewhere.path().join("shared"), "target", "");
    fs::set_permissions(elsewhere.path().join("shared"), Permissions::from_mode(0o777)).unwrap();
    symlink(&target, dir.path().join("link")).unwrap();
    let declared = script(dir.path(), "declared", "");
    fs::write(declared.with_extension("toml"), "effect = 'idempotent'").unwrap();
    fs::set_permissions(declared.with_extension("toml"), Permissions::from_mode(0o666)).unwrap();
    let setuid = script(dir.path(), "setuid", "");
    fs::set_permissions(&setuid, Permissions::from_mode(0o4755)).unwrap();
    let (offered, refused) = names(dir.path());
    assert_eq!(offered, Vec::<String>::new());
    assert_eq!(refused.len(), 5, "{refused:?}");
    assert!(refused.iter().any(|why| why.contains("written by other users (mode 0775)")));

    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let error = scan::scan(dir.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("chmod go-w"), "{error}");
    assert!(matches!(scan::scan(Path::new("/no/such"), &[]), Err(ExecError::Read { .. })));
}

#[test]
fn refuses_what_belongs_to_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = folder();
    let path = script(dir.path(), "theirs", "");
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    let (offered, refused) = names(dir.path());
    assert!(offered.is_empty() && refused[0].contains("another user (uid 12345)"), "{refused:?}");
}

#[test]
fn a_file_beside_it_declares_effect_and_version() {
    let dir = folder();
    for (name, text) in [
        ("plain", None),
        ("again", Some("effect = 'idempotent'")),
        ("reads", Some("effect = 'read-only'\nversion = '2.3'")),
        ("typo", Some("effects = 'read-only'")),
        ("wrong", Some("version = 'two'")),
    ] {
        let path = script(dir.path(), name, "");
        if let Some(text) = text {
            fs::write(path.with_extension("toml"), text).unwrap();
        }
    }
    let found = scan::scan(dir.path(), &[]).unwrap();
    let effects: Vec<_> =
        found.executables.iter().map(|e| (e.name.as_str(), e.effect, e.version)).collect();
    let one = Version::new(1, 0);
    assert_eq!(
        effects,
        [
            ("again", Effect::Idempotent, one),
            ("plain", Effect::Once, one),
            ("reads", Effect::ReadOnly, Version::new(2, 3))
        ]
    );
    assert_eq!(found.refused.len(), 2, "{:?}", found.refused);
}

/// A control plane that calls an agent with a folder of executables.
struct World {
    control: Client,
    agent: Process,
    _deployment: Deployment,
}

impl World {
    async fn new(dir: &Path, output_limit: usize) -> Self {
        let deployment = Deployment::new().await;
        let file = deployment.agent_file("db-1", KeyType::Pair).await;
        let options = AgentOptions { exec: Some(dir.to_owned()), output_limit };
        let router = agent::router(&Principal::agent("db-1").unwrap(), &options).unwrap();
        let agent = deployment.run(&file, router).await;
        Self { control: deployment.control.clone(), agent, _deployment: deployment }
    }

    async fn call(&self, method: &str, args: Value) -> Result<Value, CallError> {
        let target = target("agent/db-1");
        let (namespace, name) = match method.split_once('.') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, method),
        };
        let mut request = self.control.request(&target, name);
        if let Some(namespace) = namespace {
            request = request.namespace(namespace);
        }
        request.call(&args).await
    }

    async fn fails(&self, method: &str) -> RemoteError {
        match self.call(method, json!({})).await {
            Err(CallError::Remote(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn arguments_go_in_and_the_result_comes_out() {
    let dir = folder();
    script(dir.path(), "echo", "cat");
    script(dir.path(), "db/nothing", "cat >/dev/null");
    script(
        dir.path(),
        "env",
        r#"printf '{"sender":"%s","method":"%s","id":"%s","names":"' "$BULLA_SENDER" "$BULLA_METHOD" "$BULLA_MESSAGE_ID"
env | cut -d= -f1 | sort | tr '\n' ' '; printf '","dir":"%s"}' "$(pwd)""#,
    );
    let world = World::new(dir.path(), 1 << 20).await;
    let args = json!({"a": [1, -2, null, "ü"], "big": "x".repeat(200_000)});
    assert_eq!(world.call("echo", args.clone()).await.unwrap(), args);
    assert_eq!(world.call("db.nothing", json!(1)).await.unwrap(), Value::Null);
    let env = world.call("env", Value::Null).await.unwrap();
    assert_eq!((&env["sender"], &env["method"]), (&json!("component/control"), &json!("env")));
    assert_eq!(env["id"].as_str().unwrap().len(), 32);
    assert_eq!(env["dir"], "/");
    for name in env["names"].as_str().unwrap().split_whitespace() {
        // What the shell itself adds is not ours.
        let known = ["PATH", "HOME", "LANG", "PWD", "OLDPWD", "SHLVL", "_"];
        assert!(known.contains(&name) || name.starts_with("BULLA_"), "{name}");
    }
    let pong = world.call("agent.ping", json!({})).await.unwrap();
    assert_eq!((&pong["pong"], &pong["agent"]), (&json!(true), &json!("db-1")));
    let facts = world.call("host.facts", json!({})).await.unwrap();
    assert!(facts["memory"]["total"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn failures_are_told_with_code_and_last_words() {
    let dir = folder();
    script(dir.path(), "fails", "yes 'a long story' | head -c 5000 >&2; echo the end >&2; exit 7");
    script(dir.path(), "prints", "echo not json");
    script(dir.path(), "floods", "yes");
    script(dir.path(), "killed", "kill -9 $$");
    let gone = script(dir.path(), "changed", "echo 1");
    let world = World::new(dir.path(), 10_000).await;
    let error = world.fails("fails").await;
    assert_eq!(error.kind, EXEC_FAILED);
    let details = error.details.unwrap();
    let stderr = details["stderr"].as_str().unwrap();
    assert_eq!(details["exit_code"], 7);
    assert!(stderr.ends_with("the end\n") && stderr.len() == 2048, "{}", stderr.len());
    let error = world.fails("prints").await;
    assert!(error.kind == EXEC_FAILED && error.message.contains("not JSON"), "{error}");
    let error = world.fails("floods").await;
    assert!(error.message.contains("longer than 10000 bytes"), "{error}");
    let error = world.fails("killed").await;
    assert!(error.message.contains("signal: 9"), "{error}");
    fs::set_permissions(&gone, Permissions::from_mode(0o777)).unwrap();
    let error = world.fails("changed").await;
    assert!(error.message.contains("may not be run any more"), "{error}");
}

#[tokio::test]
async fn progress_lines_are_progress() {
    let dir = folder();
    script(
        dir.path(),
        "steps",
        r#"echo 'progress: {"step": 1}' >&2; echo 'progress: no json' >&2
echo text >&2; printf 'progress: 2' >&2; echo '"done"'"#,
    );
    let world = World::new(dir.path(), 1 << 20).await;
    let target = target("agent/db-1");
    let mut seen: Vec<Value> = Vec::new();
    let request = world.control.request(&target, "steps");
    let result: Value =
        request.call_with_progress(&json!(null), |item| seen.push(item)).await.unwrap();
    assert_eq!((result, seen), (json!("done"), vec![json!({"step": 1}), json!(2)]));
}

/// Waits until no process has `mark` in its command line.
async fn gone(mark: &str) -> bool {
    for _ in 0..600 {
        let running = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(mark)
        });
        if !running {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// A program whose child would outlive it, were not the whole group killed.
fn sleeper(dir: &Path, started: &Path, seconds: &str) {
    let started = started.display();
    script(dir, "sleep", &format!("sleep {seconds} & echo x >{started}; wait"));
}

async fn wait_for(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_call_given_up_takes_the_whole_group_with_it() {
    let (dir, state) = (folder(), folder());
    let started = state.path().join("started");
    let mark = "98761.234";
    sleeper(dir.path(), &started, mark);
    let world = World::new(dir.path(), 1 << 20).await;
    let call = world.call("sleep", Value::Null);
    tokio::select! {
        other = call => panic!("{other:?}"),
        () = wait_for(&started) => {}
    }
    assert!(gone(mark).await, "what the program started still runs");
}

#[tokio::test]
async fn time_is_up_for_the_whole_group() {
    let (dir, state) = (folder(), folder());
    let started = state.path().join("started");
    let mark = "98762.345";
    sleeper(dir.path(), &started, mark);
    let world = World::new(dir.path(), 1 << 20).await;
    let target = target("agent/db-1");
    // A cast is not given up by its sender: only its own end stops it.
    let request = world.control.request(&target, "sleep").ttl(Duration::from_secs(2));
    request.cast(&json!(null)).await.unwrap();
    wait_for(&started).await;
    assert!(gone(mark).await, "what the program started still runs");
}

#[tokio::test]
async fn what_stays_behind_holds_no_call_up() {
    let dir = folder();
    script(dir.path(), "leaves", "sleep 5 & echo 5");
    let world = World::new(dir.path(), 1 << 20).await;
    assert_eq!(world.call("leaves", json!(null)).await.unwrap(), json!(5));
    assert_eq!(world.agent.server.drain(Duration::from_secs(60)).await, 0);
}
