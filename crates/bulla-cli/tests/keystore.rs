//! Where the keystore is, and its schema.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::*;

#[test]
fn the_schema_goes_down_and_up_and_a_plan_changes_nothing() {
    let deployment = Deployment::new(None);
    down_and_up(&deployment);
}

/// On any database.
fn down_and_up(deployment: &Deployment) {
    let status = || deployment.json(&["db", "status"]);
    let latest = status()["version"].as_u64().unwrap();
    assert_eq!(status()["known"], latest);
    let applied = status()["applied"].as_array().unwrap().clone();
    assert_eq!(applied.last().unwrap()["version"], latest);
    let below = applied[applied.len() - 2]["version"].as_u64().unwrap();
    assert!(deployment.ok(&["db", "migrate", "--dry-run"]).contains("nothing to do"));
    let plan = deployment.ok(&["db", "revert", "--to", "1", "--dry-run"]);
    assert!(plan.contains("DROP TABLE") && plan.contains("member_groups"), "{plan}");
    assert_eq!(status()["version"], latest);
    assert!(deployment.fails(1, &["db", "revert", "--to", "0"]).contains("version 1"));
    // One step back unless told how far.
    let moved = deployment.json(&["db", "revert"]);
    assert_eq!((moved["from"].as_u64(), moved["to"].as_u64()), (Some(latest), Some(below)));
    let said = deployment.fails(1, &["agent", "list"]);
    assert!(said.contains("bulla db migrate"), "{said}");
    assert!(deployment.ok(&["db", "status"]).contains("run `bulla db migrate`"));
    let plan = deployment.json(&["db", "migrate", "--dry-run"]);
    assert_eq!(plan[0]["version"], latest);
    assert!(plan[0]["sql"].as_str().unwrap().contains("CREATE TABLE"), "{plan}");
    let moved = deployment.json(&["db", "migrate"]);
    assert_eq!((moved["from"].as_u64(), moved["to"].as_u64()), (Some(below), Some(latest)));
    deployment.ok(&["agent", "list"]);
    assert!(deployment.ok(&["db", "migrate"]).contains("already"));
}

#[test]
fn another_file_and_a_bad_address() {
    let mut deployment = Deployment::new(None);
    let other = format!("sqlite:{}", deployment.path("other.db").display());
    deployment.env.push(("BULLA_KEYSTORE_URL", other));
    let said = deployment.fails(1, &["db", "status"]);
    assert!(said.contains("other.db") && said.contains("no keystore"), "{said}");
    for bad in ["redis://u:hush@h/d", "postgres://u:hush@h"] {
        deployment.env = vec![("BULLA_KEYSTORE_URL", bad.to_owned())];
        let said = deployment.fails(2, &["db", "status"]);
        assert!(said.contains("[keystore] url") && !said.contains("hush"), "{said}");
    }
}

/// A whole deployment, its password in a file.
#[cfg(any(feature = "postgres", feature = "mariadb"))]
fn on_a_server(url: &str) {
    let (before, rest) = url.split_once(":test-only@").unwrap();
    let mut deployment =
        Deployment { dir: tempfile::tempdir().unwrap(), bus: None, env: Vec::new() };
    std::fs::write(deployment.path("password"), "test-only\n").unwrap();
    let file = deployment.path("password").display().to_string();
    deployment.env = vec![
        ("BULLA_KEYSTORE_URL", format!("{before}@{rest}")),
        ("BULLA_KEYSTORE_PASSWORD_FILE", file),
    ];
    let said = deployment.ok(&["init"]);
    assert!(said.contains("127.0.0.1") && !said.contains("test-only"), "{said}");
    assert!(!deployment.home().join("keystore.db").exists());
    assert!(deployment.fails(1, &["init"]).contains("already"));
    deployment.add_agent("db-1", &["--key-type", "shared"]);
    deployment.ok(&["group", "add", "databases", "--member", "agent/db-1"]);
    deployment.ok(&["component", "add", "conductor"]);
    let said = deployment.ok(&["doctor"]);
    assert!(said.contains("the control plane is bulla, who may do everything"), "{said}");
    let up = deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running.");
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
    assert!(deployment.ok(&["peers"]).contains("agent/local"));
    up.stop();
    down_and_up(&deployment);
    with_roles(&mut deployment, &format!("{before}@{rest}"));
}

/// The same with a role for the control plane: every command and the running control plane.
#[cfg(any(feature = "postgres", feature = "mariadb"))]
fn with_roles(deployment: &mut Deployment, owner: &str) {
    use std::os::unix::fs::PermissionsExt;

    let printed = deployment.json(&["db", "grants", "--print"]);
    let roles = printed["roles"].as_array().unwrap();
    assert_eq!(roles.len(), 3, "{printed}");
    assert!(deployment.ok(&["db", "grants", "--print"]).contains("'<password>'"));
    assert!(deployment.fails(2, &["db", "grants"]).contains("--apply"));
    let applied = deployment.json(&["db", "grants", "--apply"]);
    let control = applied["roles"].as_array().unwrap().iter();
    let control = control.clone().find(|role| role["component"] == "control").unwrap().clone();
    let file = control["password_file"].as_str().unwrap().to_owned();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let password = std::fs::read_to_string(&file).unwrap();
    let again = deployment.ok(&["db", "grants", "--apply"]);
    assert!(again.contains("as before") && !again.contains(password.trim()), "{again}");

    let (scheme, place) = owner.split_once("://").unwrap();
    let (_, place) = place.split_once('@').unwrap();
    let url = format!("{scheme}://{}@{place}", control["role"].as_str().unwrap());
    deployment.env = vec![
        ("BULLA_KEYSTORE_OWNER_URL", owner.to_owned()),
        ("BULLA_KEYSTORE_OWNER_PASSWORD", "test-only".to_owned()),
        ("BULLA_KEYSTORE_URL", url),
        ("BULLA_KEYSTORE_PASSWORD_FILE", file),
    ];
    deployment.add_agent("db-7", &["--key-type", "shared"]);
    deployment.add_agent("db-8", &[]);
    deployment.ok(&["agent", "add", "db-9"]);
    deployment.ok(&["agent", "add", "db-9", "--again"]);
    deployment.ok(&["group", "add", "few", "--member", "agent/db-7"]);
    let added = deployment.json(&["component", "add", "scheduler"]);
    assert_eq!(added["database_role_missing"], true);
    assert!(
        deployment.ok(&["component", "add", "scheduler", "--instance", "s-2"]).contains("grants")
    );
    deployment.ok(&["db", "grants", "--apply"]);
    deployment.ok(&["component", "kek", "scheduler"]);
    deployment.ok(&["component", "rotate", "scheduler"]);
    deployment.ok(&["component", "revoke", "scheduler", "--instance", "s-2"]);
    assert_eq!(deployment.json(&["db", "restored"])["groups"].as_array().unwrap().len(), 3);
    let key = deployment.json(&["access-key", "add", "operator/alice"]);
    deployment.ok(&["kek", "rotate"]);
    deployment.ok(&["kek", "status"]);
    deployment.ok(&["access-key", "remove", key["access_key_id"].as_str().unwrap()]);
    let said = deployment.ok(&["doctor"]);
    assert!(said.contains("_component_control, with a role's rights"), "{said}");
    let up = deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running.");
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
    assert!(deployment.ok(&["peers"]).contains("agent/local"));
    deployment.ok(&["peers", "exempt", "agent/db-8", "guest.resize", "--until", "2h"]);
    deployment.ok(&["peers", "raise", "agent/db-8", "sealed"]);
    // While it runs.
    deployment.ok(&["db", "grants", "--apply"]);
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
    up.stop();
    deployment.ok(&["agent", "revoke", "db-7"]);
    deployment.ok(&["agent", "show", "db-8"]);
    assert_eq!(
        deployment.json(&["db", "status"])["version"],
        deployment.json(&["db", "status"])["known"]
    );
    assert!(deployment.fails(1, &["db", "revert"]).contains("grants --revert"));
    let dropped = deployment.json(&["db", "grants", "--revert"]);
    assert_eq!(dropped["dropped"].as_array().unwrap().len(), 4);
    deployment.fails(1, &["agent", "list"]);
    assert!(deployment.ok(&["db", "grants", "--revert"]).contains("no roles"));
    deployment.env = vec![
        ("BULLA_KEYSTORE_URL", owner.to_owned()),
        ("BULLA_KEYSTORE_PASSWORD", "test-only".to_owned()),
    ];
    deployment.ok(&["agent", "list"]);
}

#[test]
fn a_file_has_no_roles() {
    let deployment = Deployment::new(None);
    for what in ["--apply", "--revert", "--print"] {
        let said = deployment.fails(1, &["db", "grants", what]);
        assert!(said.contains("SQLite file has no roles"), "{said}");
    }
}

#[cfg(feature = "postgres")]
#[test]
fn a_deployment_on_postgresql() {
    if let Some(server) = bulla_services::require(bulla_services::Postgres::start()) {
        on_a_server(&server.url());
    }
}

#[cfg(feature = "mariadb")]
#[test]
fn a_deployment_on_mariadb() {
    if let Some(server) = bulla_services::require(bulla_services::MariaDb::start()) {
        on_a_server(&server.url());
    }
}

#[test]
fn a_keystore_that_was_put_back_knows_what_was_revoked_since() {
    let deployment = Deployment::new(None);
    let (db, backup) = (deployment.home().join("keystore.db"), deployment.path("backup.db"));
    deployment.add_agent("db-1", &[]);
    deployment.add_agent("db-2", &[]);
    let up = || deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running.");
    let stopped = up();
    assert_eq!(stopped.stop(), 0);
    std::fs::copy(&db, &backup).unwrap();

    let running = up();
    let told = || std::fs::read(deployment.home().join("state/statement")).unwrap();
    let before = told();
    deployment.ok(&["agent", "revoke", "db-1"]);
    eventually("a new statement", || (told() != before).then_some(()));
    running.stop();
    // Revoked is gone; what was put back is there again and good for nothing.
    let used = |id: &str| deployment.json(&["agent", "show", id])["credentials"][0]["use"].clone();
    assert!(deployment.fails(1, &["agent", "show", "db-1"]).contains("no agent/db-1"));
    let put_back = || {
        for end in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(db.with_extension(end));
        }
        std::fs::copy(&backup, &db).unwrap();
    };

    // Nobody says so: whatever opens it next notices.
    put_back();
    assert_eq!(used("db-1"), "revoked");
    let doctor = deployment.run(&["doctor"]);
    assert!(text(&doctor.stdout).contains("was found older"), "{}", text(&doctor.stdout));
    assert_eq!(used("db-2"), "in-use");

    // Somebody does.
    put_back();
    let done = deployment.json(&["db", "restored"]);
    assert!(done["stored"].as_u64() < done["told"].as_u64(), "{done}");
    assert_eq!(done["components"], serde_json::json!(["control"]));
    assert_eq!(used("db-1"), "revoked");
    let again = deployment.json(&["agent", "add", "db-3", "--key", "--out", "db-3.key"]);
    assert_eq!(again["agent"], "agent/db-3");
    let incarnation = deployment.json(&["agent", "show", "db-3"])["incarnation"].clone();
    assert!(incarnation.as_u64().unwrap() > 1_000_000, "{incarnation}");

    let recalls = deployment.ok(&["audit", "show", "--json", "--kind", "keystore-recalled"]);
    assert_eq!(recalls.lines().count(), 2, "{recalls}");

    // And the control plane goes on, with its local agent and its new keys.
    let running = up();
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
    let said = deployment.fails(1, &["call", "agent/db-1", "agent.ping", "--timeout", "5"]);
    assert!(said.contains("revoked"), "{said}");
    running.stop();

    // A statement of another deployment.
    let other = Deployment::new(None);
    other.start(&["up", "--listen", "127.0.0.1:0"], "Running.").stop();
    let file = deployment.home().join("state/statement");
    std::fs::copy(other.home().join("state/statement"), &file).unwrap();
    let said = deployment.fails(1, &["agent", "list"]);
    assert!(said.contains("state/statement") && said.contains("delete the file"), "{said}");
}
