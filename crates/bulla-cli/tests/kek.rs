//! The key-encryption key: its providers, its rotation beside running processes, and its loss.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::*;

fn up(deployment: &Deployment) -> Process {
    deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running.")
}

/// A deployment that is not made yet.
fn unmade(env: Vec<(&'static str, String)>) -> Deployment {
    Deployment { dir: tempfile::tempdir().unwrap(), bus: None, env }
}

fn random_hex() -> String {
    let mut bytes = [0u8; 32];
    let mut source = fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut source, &mut bytes).unwrap();
    hex::encode(bytes)
}

fn left(deployment: &Deployment) -> u64 {
    deployment.json(&["kek", "status"])["left"].as_u64().unwrap()
}

fn names(deployment: &Deployment) -> Vec<String> {
    let entries = fs::read_dir(deployment.home()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_running_control_plane_goes_through_a_rotation() {
    let deployment = Deployment::new(None);
    let _up = up(&deployment);
    for i in 0..20 {
        deployment.add_agent(&format!("db-{i}"), &["--key-type", "shared"]);
    }
    deployment.call("agent/local", "agent.ping", "{}");
    let before = deployment.json(&["kek", "status"]);
    let rotated = deployment.json(&["kek", "rotate"]);
    assert_ne!(rotated["current"], before["current"]);
    assert_eq!(rotated["left"], 0);
    assert!(rotated["rewrapped"].as_u64().unwrap() > 20, "{rotated}");
    let retired = rotated["retired"].as_str().unwrap();
    assert!(retired.contains("kek.old-20"), "{retired}");
    let mode = fs::metadata(retired).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(!names(&deployment).contains(&"kek.next".to_owned()));

    // The control plane was not told; it opens the group's key and the agents' keys all the same.
    deployment.json(&["fanout", "group/all", "agent.ping"]);
    deployment.call("agent/local", "agent.ping", "{}");
    deployment.add_agent("late", &["--key-type", "shared"]);
    assert_eq!(left(&deployment), 0);
    // The old key is worth nothing for what is there now.
    let said = deployment.fails(1, &["kek", "check", retired]);
    assert!(said.contains("does not open"), "{said}");
    let current = deployment.home().join("kek");
    assert_eq!(deployment.json(&["kek", "check", current.to_str().unwrap()])["opens"], true);
    // And once more, on the same day.
    let again = deployment.json(&["kek", "rotate"]);
    assert!(again["retired"].as_str().unwrap().ends_with("-2"), "{again}");
    deployment.json(&["fanout", "group/all", "agent.ping"]);
    deployment.call("agent/local", "agent.ping", "{}");
}

#[test]
fn what_was_cut_off_at_any_point_is_finished() {
    let deployment = Deployment::new(None);
    deployment.add_agent("db-1", &["--key-type", "shared"]);
    // Cut off after the next key was made.
    let prepared = deployment.json(&["kek", "rotate", "--prepare"]);
    let next = deployment.home().join("kek.next");
    assert!(next.exists());
    assert_eq!(deployment.json(&["kek", "status"])["keys"][1]["role"], "next");
    deployment.add_agent("db-2", &["--key-type", "shared"]);
    // Cut off after everything was rewrapped, while the old file was retired.
    let copy = deployment.path("copy");
    fs::copy(&next, &copy).unwrap();
    let old = fs::read(deployment.home().join("kek")).unwrap();
    let rotated = deployment.json(&["kek", "rotate"]);
    assert_eq!(rotated["current"], prepared["next"]);
    fs::rename(deployment.home().join("kek"), &next).unwrap();
    fs::write(deployment.home().join("kek"), &old).unwrap();
    fs::set_permissions(deployment.home().join("kek"), fs::Permissions::from_mode(0o600)).unwrap();
    deployment.ok(&["agent", "list"]);
    let finished = deployment.json(&["kek", "rotate"]);
    assert_eq!((finished["rewrapped"].as_u64(), finished["left"].as_u64()), (Some(0), Some(0)));
    assert_eq!(finished["current"], prepared["next"]);
    assert_eq!(fs::read(deployment.home().join("kek")).unwrap(), fs::read(&copy).unwrap());
    assert!(!next.exists());
}

#[test]
fn a_lost_key_is_told_with_what_is_lost() {
    let deployment = Deployment::new(None);
    deployment.add_agent("db-1", &["--key-type", "shared"]);
    let (kek, away) = (deployment.home().join("kek"), deployment.path("away"));
    fs::rename(&kek, &away).unwrap();
    for args in [&["agent", "list"][..], &["agent", "add", "db-2"], &["kek", "rotate"]] {
        let said = deployment.fails(1, args);
        for part in ["Not lost", "shared keys", "backup", "bulla init"] {
            assert!(said.contains(part), "{args:?}: {part}: {said}");
        }
    }
    assert!(
        !deployment.home().join("kek.next").exists(),
        "no key is made for a store that is shut"
    );
    // Another deployment's key is no help.
    let other = Deployment::new(None);
    fs::copy(other.home().join("kek"), &kek).unwrap();
    let said = deployment.fails(1, &["agent", "list"]);
    assert!(said.contains("is wrapped under") && said.contains("Not lost"), "{said}");
    assert!(
        deployment.fails(1, &["kek", "check", kek.to_str().unwrap()]).contains("does not open")
    );
    // The backup is.
    deployment.ok(&["kek", "check", away.to_str().unwrap()]);
    fs::rename(&away, &kek).unwrap();
    deployment.ok(&["agent", "list"]);
}

#[test]
fn doctor_tries_the_backup() {
    let mut deployment = Deployment::new(None);
    assert!(deployment.ok(&["doctor"]).contains("KEK backup"));
    let backup = deployment.path("backup");
    deployment.env.push(("BULLA_KEK_BACKUP", backup.to_str().unwrap().to_owned()));
    let said = text(&deployment.run(&["doctor"]).stdout);
    assert!(said.contains("bad  KEK backup"), "{said}");
    fs::copy(deployment.home().join("kek"), &backup).unwrap();
    let said = deployment.ok(&["doctor"]);
    assert!(said.contains("opens the keystore"), "{said}");
    // A rotation makes it worthless, and doctor says so.
    deployment.ok(&["kek", "rotate"]);
    let output = deployment.run(&["doctor"]);
    let said = text(&output.stdout);
    assert!(output.status.code() == Some(1) && said.contains("does not open"), "{said}");
}

#[test]
fn a_key_in_the_environment() {
    let (key, provider) = (random_hex(), ("BULLA_KEK_PROVIDER", "environment".to_owned()));
    let mut deployment = unmade(vec![provider.clone()]);
    let said = deployment.fails(1, &["init"]);
    assert!(said.contains("BULLA_KEK") && said.contains("openssl rand"), "{said}");
    deployment.env.push(("BULLA_KEK", "0".repeat(64)));
    assert!(deployment.fails(1, &["init"]).contains("guess"));
    deployment.env[1].1 = key.clone();
    deployment.ok(&["init"]);
    assert!(!deployment.home().join("kek").exists());
    deployment.add_agent("db-1", &["--key-type", "shared"]);
    assert!(deployment.ok(&["up", "--once", "--listen", "127.0.0.1:0"]).contains("host.facts"));
    // The same key in base64.
    deployment.env[1].1 = STANDARD.encode(hex::decode(&key).unwrap());
    deployment.ok(&["kek", "check", "--provider", "environment"]);
    deployment.env[1].1 = random_hex();
    let said = deployment.fails(1, &["agent", "list"]);
    assert!(said.contains("Not lost") && !said.contains(&deployment.env[1].1), "{said}");
    // Over to a file, which is made.
    deployment.env[1].1 = key;
    let said = deployment.fails(2, &["kek", "rotate"]);
    assert!(said.contains("[kek.next]"), "{said}");
    let settings = deployment.home().join("bulla.toml");
    fs::write(&settings, "[kek.next]\nprovider = 'file'\n").unwrap();
    let said = deployment.ok(&["kek", "rotate"]);
    assert!(said.contains("[kek.next] the [kek]"), "{said}");
    fs::write(&settings, "").unwrap();
    deployment.env.clear();
    deployment.ok(&["agent", "list"]);
    assert_eq!(left(&deployment), 0);
}

#[test]
fn a_key_from_systemd() {
    let other = Deployment::new(None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bulla-kek");
    fs::copy(other.home().join("kek"), &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
    let mut deployment = unmade(vec![("BULLA_KEK_PROVIDER", "credential".to_owned())]);
    assert!(deployment.fails(1, &["init"]).contains("CREDENTIALS_DIRECTORY"));
    let directory = folder.path().to_str().unwrap().to_owned();
    deployment.env.push(("CREDENTIALS_DIRECTORY", directory));
    deployment.ok(&["init"]);
    deployment.ok(&["agent", "list"]);
    deployment.ok(&["kek", "check", other.home().join("kek").to_str().unwrap()]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    assert!(deployment.fails(1, &["agent", "list"]).contains("others"));
}

#[test]
fn a_failed_init_takes_nothing_away() {
    let deployment = unmade(Vec::new());
    let kek = deployment.home().join("kek");
    fs::create_dir(deployment.home()).unwrap();
    fs::set_permissions(deployment.home(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(&kek, "somebody's").unwrap();
    assert!(deployment.fails(1, &["init"]).contains("exists already"));
    assert_eq!(fs::read_to_string(&kek).unwrap(), "somebody's");
}
