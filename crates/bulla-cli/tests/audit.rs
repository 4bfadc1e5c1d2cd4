//! The journal of real processes: what is refused and done is in it, and it can't be altered
//! unnoticed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bulla_rpc::{CallError, Target};
use bulla_services::{VirtualHost, require};
use common::*;
use serde_json::{Value, json};

/// What `audit show` shows.
fn shown(deployment: &Deployment, more: &[&str]) -> Vec<Value> {
    let text = deployment.ok(&[&["audit", "show", "--json"], more].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn has(entries: &[Value], event: &str, field: &str, value: &str) -> bool {
    entries.iter().any(|entry| entry["event"] == event && entry[field] == value)
}

/// The files with records below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path));
        } else if path.extension().is_some_and(|suffix| suffix == "jsonl") {
            out.push(path);
        }
    }
    out
}

/// An agent's own program calls what it must not; what it is told.
fn call_as(key: &Path, target: &str, namespace: &str, method: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let connection = bulla::Connection::open(key, None).await.unwrap();
        let target: Target = target.parse().unwrap();
        let request = connection.client().request(&target, method).namespace(namespace);
        let args = json!({ "password": "correct-horse-battery" });
        let answer = request.call::<_, Value>(&args).await;
        connection.close().await;
        match answer {
            Err(CallError::Remote(error)) => error.kind,
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn what_an_agent_is_refused_is_journalled_and_can_not_be_altered() {
    let Some(rabbit) = require(VirtualHost::new()) else { return };
    let deployment = Deployment::new(Some(rabbit.url()));
    let toml = deployment.home().join("bulla.toml");
    let set = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, set.replace("#: calls = \"none\"", "calls = \"mutating\"")).unwrap();
    let control = deployment.serve();
    let (first, second) = (deployment.add_agent("db-1", &[]), deployment.add_agent("db-2", &[]));
    let own = deployment.path("agent-journal");
    let own = own.to_str().unwrap();
    let agent = deployment.agent(&second, &["--journal", own, "--journal-calls", "all"]);
    deployment.ok(&["agent", "add", "db-3"]);

    // A host's business, and no agent's.
    assert_eq!(call_as(&first, "component/control", "renewal", "host"), "NotPermitted");
    deployment.call("agent/db-2", "agent.ping", "{}");
    deployment.ok(&["agent", "revoke", "db-3"]);

    let all = shown(&deployment, &[]);
    assert!(has(&all, "call-denied", "method", "renewal.host"), "{all:#?}");
    assert!(has(&all, "call-denied", "rule", "default/not-open-to-agents"));
    assert!(has(&all, "agent-added", "way", "token") && has(&all, "agent-added", "way", "key"));
    assert!(has(&all, "agent-revoked", "agent", "agent/db-3"));
    assert!(has(&all, "operator-called", "method", "agent.ping"));
    let denied = shown(&deployment, &["--kind", "denial", "--principal", "agent/db-1"]);
    assert!(denied.len() == 1 && denied[0]["sender"] == "agent/db-1#1", "{denied:#?}");
    assert!(shown(&deployment, &["--kind", "denial", "--principal", "agent/db-2"]).is_empty());
    assert!(shown(&deployment, &["--since", "2090-01-01T00:00:00Z"]).is_empty());
    assert!(shown(&deployment, &["--since", "1h"]).len() == all.len());
    let said = deployment.ok(&["audit", "show", "--kind", "call-denied"]);
    assert!(said.contains("sender=agent/db-1#1") && said.contains("control/"), "{said}");
    // The other agent keeps its own.
    let theirs = shown(&deployment, &[own]);
    assert!(has(&theirs, "call-taken", "method", "agent.ping"), "{theirs:#?}");
    let key = format!("{own}/journal.pub");
    assert_eq!(agent.stop(), 0);
    deployment.ok(&["audit", "verify", own, "--key", &key]);

    // While it is written, and when it is not.
    let report = deployment.json(&["audit", "verify"]);
    assert_eq!(report["good"], true, "{report:#}");
    control.kill();
    deployment.ok(&["audit", "verify"]);
    let control = deployment.serve();
    // By then it listens for signals.
    deployment.ok(&["peers"]);
    assert_eq!(control.stop(), 0);
    let report = deployment.json(&["audit", "verify"]);
    let journals = report["journals"].as_array().unwrap();
    assert!(journals.iter().any(|one| one["journal"] == "control" && one["unsigned"] == 0));
    assert_eq!(journals.len(), 2, "{report:#}");

    let folder = deployment.home().join("state/journal");
    for file in files(&folder) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("correct-horse") && !text.contains("secret"), "{text}");
    }
    // With the public key and the files alone.
    let kept = deployment.path("kept.checkpoint");
    fs::copy(folder.join("control/checkpoint"), &kept).unwrap();
    let public = deployment.home().join("journal.pub");
    let (folder, public) = (folder.to_str().unwrap(), public.to_str().unwrap());
    let mut verify = deployment.alone(&[
        "audit",
        "verify",
        folder,
        "--key",
        public,
        "--checkpoint",
        kept.to_str().unwrap(),
    ]);
    assert!(verify.output().unwrap().status.success());

    // Somebody else is to have been it.
    let file = files(&Path::new(folder).join("control")).pop().unwrap();
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.replace("agent/db-1#1", "agent/db-2#1")).unwrap();
    let said = deployment.ok(&["audit", "show", "--kind", "denial"]);
    assert!(said.contains("agent/db-2#1"));
    let output = deployment.run(&["audit", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    let (told, failed) = (text(&output.stdout), text(&output.stderr));
    assert!(told.contains("control: not as it was written") && told.contains(", line "), "{told}");
    assert!(told.contains("commands: good"), "{told}");
    assert!(failed.contains("1 of 2 journals"), "{failed}");
    fs::write(&file, &whole).unwrap();
    deployment.ok(&["audit", "verify"]);
    // The end is cut off.
    let shorter = whole.lines().count() - 2;
    let cut: String = whole.split_inclusive('\n').take(shorter).collect();
    fs::write(&file, cut).unwrap();
    let said = text(&deployment.run(&["audit", "verify"]).stdout);
    assert!(said.contains("the end of the journal was cut off"), "{said}");
}

#[test]
fn commands_keep_a_journal_and_take_turns() {
    let deployment = Deployment::new(None);
    let home = deployment.home();
    let mode = |path: PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        path.metadata().unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(home.join("journal.key")), 0o600);
    let said = deployment.fails(1, &["audit", "show"]);
    assert!(said.contains("no journal") || said.contains("can't read"), "{said}");
    let adding: Vec<_> = ["db-1", "db-2", "db-3", "db-4"]
        .iter()
        .map(|id| deployment.command(&["agent", "add", id]).spawn().unwrap())
        .collect();
    for mut child in adding {
        assert!(child.wait().unwrap().success());
    }
    deployment.ok(&["group", "add", "databases", "--member", "agent/db-1"]);
    deployment.ok(&["agent", "revoke", "db-1"]);
    deployment.ok(&["component", "add", "conductor"]);
    deployment.ok(&["component", "rotate", "conductor"]);
    deployment.ok(&["kek", "rotate"]);
    let all = shown(&deployment, &[]);
    assert_eq!(all.iter().filter(|entry| entry["event"] == "agent-added").count(), 4);
    assert!(has(&all, "group-extended", "member", "agent/db-1"), "{all:#?}");
    assert!(has(&all, "group-rekeyed", "group", "group/databases"), "{all:#?}");
    assert!(has(&all, "component-rotated", "by", "operator"));
    assert!(all.iter().any(|entry| entry["event"] == "kek-rotated"));
    let report = deployment.json(&["audit", "verify"]);
    assert_eq!(report["journals"][0]["unsigned"], 0, "{report:#}");
    let said = deployment.ok(&["doctor"]);
    assert!(said.contains("can be written") && said.contains("MiB are left"), "{said}");
    assert!(said.contains("commands: ") && said.contains("signs all but 0"), "{said}");
    // One byte, in a file that no checkpoint elsewhere speaks for.
    let file = files(&home.join("state/journal")).pop().unwrap();
    let written = fs::read_to_string(&file).unwrap();
    fs::write(&file, written.replacen("agent/db-2", "agent/db-9", 1)).unwrap();
    let said = deployment.run(&["doctor"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stdout).contains("commands is not as it was written"), "{said:?}");
    fs::write(&file, written).unwrap();
    deployment.ok(&["doctor"]);
    let said = deployment.fails(2, &["audit", "show", "--kind", "nonsense"]);
    assert!(said.contains("no event and no class"), "{said}");
}

#[test]
fn what_happens_from_now_on_is_shown_as_it_happens() {
    let deployment = Deployment::new(None);
    deployment.ok(&["agent", "add", "db-1"]);
    let mut follow = deployment
        .command(&["audit", "show", "--follow", "--kind", "key"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("agent-added") && first.contains("agent=agent/db-1"), "{first}");
    deployment.ok(&["component", "add", "conductor"]);
    deployment.ok(&["agent", "add", "db-2"]);
    let second = lines.next().unwrap().unwrap();
    assert!(second.contains("component-added"), "{second}");
    let third = lines.next().unwrap().unwrap();
    assert!(third.contains("agent-added") && third.contains("agent=agent/db-2"), "{third}");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn what_can_not_be_journalled_is_not_done_if_that_is_set() {
    let deployment = Deployment::new(None);
    let toml = deployment.home().join("bulla.toml");
    let set = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, set.replace("#: on-full = \"lose\"", "on-full = \"stop\"")).unwrap();
    // A file where the folder is to be.
    fs::write(deployment.home().join("state/journal"), "").unwrap();
    let said = deployment.fails(1, &["agent", "add", "db-1"]);
    assert!(said.contains("nothing was done"), "{said}");
    assert_eq!(deployment.json(&["agent", "list"]), json!([]));
    let said = deployment.run(&["doctor"]);
    assert!(text(&said.stdout).contains("state/journal can't be written"), "{said:?}");
    fs::remove_file(deployment.home().join("state/journal")).unwrap();
    deployment.ok(&["agent", "add", "db-1"]);
}

#[test]
fn a_control_plane_in_one_process_keeps_one_too() {
    let deployment = Deployment::new(None);
    deployment.ok(&["up", "--once", "--listen", "127.0.0.1:0"]);
    let all = shown(&deployment, &[]);
    assert!(has(&all, "agent-added", "agent", "agent/local"), "{all:#?}");
    assert!(has(&all, "journal-opened", "journal", "control"));
    assert!(has(&all, "journal-closed", "journal", "control"));
    deployment.ok(&["audit", "verify"]);
}
