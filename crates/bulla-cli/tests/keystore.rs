//! Where the keystore is, and its schema.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::Deployment;

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
    assert_eq!(status()["applied"].as_array().unwrap().len() as u64, latest);
    assert!(deployment.ok(&["db", "migrate", "--dry-run"]).contains("nothing to do"));
    let plan = deployment.ok(&["db", "revert", "--to", "1", "--dry-run"]);
    assert!(plan.contains("DROP TABLE") && plan.contains("member_groups"), "{plan}");
    assert_eq!(status()["version"], latest);
    assert!(deployment.fails(1, &["db", "revert", "--to", "0"]).contains("version 1"));
    // One step back unless told how far.
    let moved = deployment.json(&["db", "revert"]);
    assert_eq!((moved["from"].as_u64(), moved["to"].as_u64()), (Some(latest), Some(latest - 1)));
    let said = deployment.fails(1, &["agent", "list"]);
    assert!(said.contains("bulla db migrate"), "{said}");
    assert!(deployment.ok(&["db", "status"]).contains("run `bulla db migrate`"));
    let plan = deployment.json(&["db", "migrate", "--dry-run"]);
    assert_eq!(plan[0]["version"], latest);
    assert!(plan[0]["sql"].as_str().unwrap().contains("CREATE TABLE"), "{plan}");
    let moved = deployment.json(&["db", "migrate"]);
    assert_eq!((moved["from"].as_u64(), moved["to"].as_u64()), (Some(latest - 1), Some(latest)));
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
    deployment.ok(&["doctor"]);
    let up = deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running.");
    assert_eq!(deployment.call("agent/local", "agent.ping", "{}")["pong"], true);
    assert!(deployment.ok(&["peers"]).contains("agent/local"));
    up.stop();
    down_and_up(&deployment);
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
