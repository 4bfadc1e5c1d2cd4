//! A deployment whose key-encryption key is in a PKCS#11 token (SoftHSM 2).
#![cfg(feature = "pkcs11")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bulla_services::{SoftHsm, require};
use common::*;

const TOKEN: &str = "bulla";

/// A deployment that is not made yet, with a token that it can reach.
fn with_token(hsm: &SoftHsm, settings: &str) -> Deployment {
    let deployment = Deployment {
        dir: tempfile::tempdir().unwrap(),
        bus: None,
        env: vec![("SOFTHSM2_CONF", hsm.settings().to_str().unwrap().to_owned())],
    };
    fs::create_dir(deployment.home()).unwrap();
    fs::set_permissions(deployment.home(), fs::Permissions::from_mode(0o700)).unwrap();
    let pin = deployment.path("pin");
    fs::write(&pin, format!("{}\n", SoftHsm::PIN)).unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    set(&deployment, settings);
    deployment
}

fn set(deployment: &Deployment, settings: &str) {
    fs::write(deployment.home().join("bulla.toml"), settings).unwrap();
}

/// A section that names a key in the token.
fn section(name: &str, hsm: &SoftHsm, key: &str, pin: &str) -> String {
    let module = hsm.module().display();
    format!(
        "[{name}]\nprovider = 'pkcs11'\nmodule = '{module}'\ntoken = '{TOKEN}'\nkey = '{key}'\n{pin}"
    )
}

#[test]
fn made_with_a_token_and_served_from_it() {
    let Some(hsm) = require(SoftHsm::with_token(TOKEN)) else { return };
    let mut deployment = with_token(&hsm, &section("kek", &hsm, "kek", ""));
    // No PIN, a wrong PIN, and the right one in the environment.
    assert!(deployment.fails(1, &["init"]).contains("PIN"));
    deployment.env.push(("BULLA_KEK_PIN", "wrong".to_owned()));
    let said = deployment.fails(1, &["init"]);
    assert!(said.contains("refused the PIN"), "{said}");
    deployment.env[1].1 = SoftHsm::PIN.to_owned();
    deployment.ok(&["init"]);
    assert!(!deployment.home().join("kek").exists(), "there is no file to steal");
    deployment.add_agent("db-1", &["--key-type", "shared"]);
    let said = deployment.ok(&["up", "--once", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("host.facts"), "{said}");
    deployment.ok(&["doctor"]);
    deployment.ok(&[
        "kek",
        "check",
        "--provider",
        "pkcs11",
        "--module",
        hsm.module().to_str().unwrap(),
        "--token",
        TOKEN,
        "--key",
        "kek",
    ]);
    // Without the token nothing opens.
    deployment.env[1].1 = "wrong".to_owned();
    assert!(deployment.fails(1, &["agent", "list"]).contains("refused the PIN"));
    let elsewhere = require(SoftHsm::with_token(TOKEN)).unwrap();
    deployment.env[1].1 = SoftHsm::PIN.to_owned();
    deployment.env[0].1 = elsewhere.settings().to_str().unwrap().to_owned();
    let said = deployment.fails(1, &["agent", "list"]);
    assert!(said.contains("no secret key") && said.contains("Not lost"), "{said}");
}

#[test]
fn from_a_file_to_a_token_and_back_beside_a_running_control_plane() {
    let Some(hsm) = require(SoftHsm::with_token(TOKEN)) else { return };
    let deployment = with_token(&hsm, "");
    let pin = format!("pin-file = '{}'\n", deployment.path("pin").display());
    deployment.ok(&["init"]);
    for i in 0..10 {
        deployment.add_agent(&format!("db-{i}"), &["--key-type", "shared"]);
    }
    let up = deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running.");
    deployment.call("agent/local", "agent.ping", "{}");

    set(&deployment, &section("kek.next", &hsm, "kek-2", &pin));
    let rotated = deployment.json(&["kek", "rotate"]);
    assert_eq!(rotated["left"], 0);
    let old = rotated["retired"].as_str().unwrap().to_owned();
    assert!(!deployment.home().join("kek").exists(), "the file is out of use");
    assert!(deployment.fails(1, &["kek", "check", &old]).contains("does not open"));
    // The running one fetches the new key from the token; so does one that starts.
    deployment.json(&["fanout", "group/all", "agent.ping"]);
    deployment.call("agent/local", "agent.ping", "{}");
    deployment.add_agent("late-1", &["--key-type", "shared"]);
    // Again, because nobody remembers whether it was done: nothing happens.
    assert_eq!(deployment.json(&["kek", "rotate"])["rewrapped"], 0);
    set(&deployment, &section("kek", &hsm, "kek-2", &pin));
    deployment.add_agent("late-2", &["--key-type", "shared"]);

    set(&deployment, &(section("kek", &hsm, "kek-2", &pin) + "[kek.next]\nprovider = 'file'\n"));
    assert_eq!(deployment.json(&["kek", "rotate"])["left"], 0);
    set(&deployment, "");
    let kek = deployment.home().join("kek");
    assert_eq!(deployment.json(&["kek", "check", kek.to_str().unwrap()])["opens"], true);
    deployment.json(&["fanout", "group/all", "agent.ping"]);
    deployment.call("agent/local", "agent.ping", "{}");
    deployment.add_agent("late-3", &["--key-type", "shared"]);
    drop(up);
    deployment.ok(&["up", "--once", "--listen", "127.0.0.1:0"]);
}
