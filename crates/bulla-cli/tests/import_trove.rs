//! Keys out of Trove's database: rows as Trove's own models make them, on SQLite, and the same in MariaDB and
//! PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulla_oslo::LegacyFile;
use bulla_oslo::legacy::GuestKeys;
use bulla_rpc::{Clock, KeyFile, SystemClock};
use common::*;
use serde_json::{Value, json};

/// Debian's, whatever else is on the path.
const PYTHON: &str = "/usr/bin/python3";
/// What this Trove wraps its instances' keys with; and what one does that nobody configured.
const WRAPPING: &str = "a-wrapping-key-of-this-cloud";
const PRINTED: &str = "emYjgHFqfXNB1NGehAFIUeoyw4V4XwWHEaKP";

/// What Trove has: its database's address, the rows, and the keys in them.
struct Trove {
    url: String,
    rows: Value,
    keys: Value,
}

impl Trove {
    fn made(deployment: &Deployment, name: &str, wrapping: &str) -> Option<Self> {
        let file = deployment.path(&format!("{name}.sqlite"));
        let url = format!("sqlite:///{}", file.display());
        let config = deployment.path(&format!("{name}.conf"));
        let text = format!(
            "[DEFAULT]\ninst_rpc_key_encr_key = {wrapping}\n[database]\nconnection = {url}\n"
        );
        fs::write(&config, text).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trove_keys.py");
        let output = Command::new(PYTHON)
            .arg(script)
            .arg(config)
            .env("OSLO_LOCK_PATH", deployment.dir.path())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let made: Value = serde_json::from_str(said.lines().last()?).ok()?;
        Some(Self { url, rows: made["rows"].clone(), keys: made["keys"].clone() })
    }

    /// The columns that Trove's migrations make and this is about, with the rows.
    fn sql(&self) -> String {
        let text = |value: &Value| value.as_str().map_or("NULL".to_owned(), |v| format!("'{v}'"));
        let rows = self.rows.as_array().unwrap().iter().map(|row| {
            let (id, key, deleted) = (text(&row[0]), text(&row[1]), row[2].as_bool().unwrap());
            format!("({id}, 'db', {deleted}, NULL, {key})")
        });
        let rows: Vec<String> = rows.collect();
        format!(
            "CREATE TABLE instances (id VARCHAR(36) NOT NULL PRIMARY KEY, name VARCHAR(255), \
             deleted BOOLEAN, deleted_at TIMESTAMP NULL, encrypted_key VARCHAR(255));\n\
             INSERT INTO instances VALUES {};\n",
            rows.join(", ")
        )
    }
}

fn installed() -> bool {
    let found = Command::new(PYTHON).args(["-c", "import trove"]).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    let must = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let must = must("CI", "true") || must("BULLA_TEST_REQUIRE", "1");
    assert!(found || !must, "Debian's Trove is not installed: cargo xtask test installs it");
    if !found {
        eprintln!("\n*** SKIPPED, NOT TESTED: Debian's Trove is not installed ***\n");
    }
    found
}

fn key_file(deployment: &Deployment, name: &str, key: &str) -> PathBuf {
    let path = deployment.path(name);
    fs::write(&path, format!("{key}\n")).unwrap();
    path
}

fn import<'a>(url: &'a str, key: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["keystore", "import-trove", url, "--key-file", key.to_str().unwrap()];
    [&args, more].concat()
}

fn counts(said: &Value) -> [u64; 5] {
    ["new", "changed", "unchanged", "without_key", "deleted"]
        .map(|name| said[name].as_u64().unwrap())
}

#[test]
fn troves_keys_are_imported_once_and_handed_out_under_exemptions() {
    if !installed() {
        return;
    }
    let deployment = Deployment::new(None);
    let trove = Trove::made(&deployment, "trove", WRAPPING).unwrap();
    let key = key_file(&deployment, "wrapping", WRAPPING);
    let dry = deployment.json(&import(&trove.url, &key, &["--dry-run"]));
    assert_eq!(counts(&dry), [3, 0, 0, 1, 1]);
    let first = deployment.json(&import(&trove.url, &key, &[]));
    assert_eq!((counts(&first), &first["without_agent"]), ([3, 0, 0, 1, 1], &json!(3)));
    let again = deployment.json(&import(&trove.url, &key, &[]));
    assert_eq!(counts(&again), [0, 0, 3, 1, 1]);
    on_servers(&deployment, &trove, &key);

    // Nothing of it is in clear in the keystore.
    let stored = ["keystore.db", "keystore.db-wal"]
        .map(|name| fs::read(deployment.home().join(name)).unwrap_or_default());
    for key in trove.keys.as_object().unwrap().values() {
        let key = key.as_str().unwrap().as_bytes();
        let there = stored.iter().any(|file| file.windows(key.len()).any(|part| part == key));
        assert!(!there, "a key is in clear in the keystore");
    }

    // Another wrapping key opens nothing, and that is said; so is a database that is none.
    let wrong = key_file(&deployment, "wrong", "another-wrapping-key-of-another-cloud");
    let said = deployment.fails(1, &import(&trove.url, &wrong, &[]));
    assert!(said.contains("none of the 3 keys") && said.contains("nothing was imported"), "{said}");
    let other = format!("sqlite:{}", deployment.home().join("keystore.db").display());
    let said = deployment.fails(1, &import(&other, &key, &[]));
    assert!(said.contains("no such table"), "{said}");

    handed_out(&deployment, &trove);
}

/// The same rows where Trove has them, by SQLAlchemy's addresses: nothing is new.
#[cfg(all(feature = "mariadb", feature = "postgres"))]
fn on_servers(deployment: &Deployment, trove: &Trove, key: &Path) {
    use bulla_services::{MariaDb, Postgres, require};
    let (Some(mariadb), Some(postgres)) = (require(MariaDb::start()), require(Postgres::start()))
    else {
        return;
    };
    let url = mariadb.load("trove", trove.sql().as_bytes()).unwrap();
    let url = url.replacen("mysql://", "mysql+pymysql://", 1) + "?charset=utf8";
    let said = deployment.json(&import(&url, key, &[]));
    assert_eq!(counts(&said), [0, 0, 3, 1, 1], "{said}");
    let url = postgres.load("trove", trove.sql().as_bytes()).unwrap();
    let url = url.replacen("postgres://", "postgresql+psycopg2://", 1);
    let said = deployment.json(&import(&url, key, &[]));
    assert_eq!(counts(&said), [0, 0, 3, 1, 1], "{said}");
    let password = |url: &str| url.split_once("://").unwrap().1.split(':').nth(1).unwrap().len();
    assert!(password(&url) > 3 && !said.to_string().contains("psycopg2"), "{said}");
}

#[cfg(not(all(feature = "mariadb", feature = "postgres")))]
fn on_servers(_: &Deployment, _: &Trove, _: &Path) {}

/// A component gets what live exemptions name, and no more.
fn handed_out(deployment: &Deployment, trove: &Trove) {
    let file = |name: &str| deployment.path(name);
    let write = |name: &str| {
        deployment.json(&["keystore", "legacy-file", "--out", file(name).to_str().unwrap()])
    };
    let said = deployment.fails(1, &["keystore", "legacy-file", "--out", "x"]);
    assert!(said.contains("no exemption"), "{said}");
    let (id, secret) = trove.keys.as_object().unwrap().iter().next().unwrap();
    let agent = deployment.add_agent(id, &[]);
    let up = deployment.start(&["up", "--listen", "127.0.0.1:0"], "Running");
    let of = format!("agent/{id}");
    deployment.ok(&["peers", "exempt", &of, "heartbeat", "--level", "aes-cbc", "--until", "2h"]);
    // One for a level above needs no key.
    deployment.ok(&["peers", "exempt", "agent/local", "heartbeat", "--until", "2h"]);
    let said = write("one.legacy");
    assert_eq!((&said["exemptions"], &said["keys"]), (&json!(1), &json!(1)));
    let mode = fs::metadata(file("one.legacy")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text: Value =
        serde_json::from_str(&fs::read_to_string(file("one.legacy")).unwrap()).unwrap();
    assert_eq!(text["keys"], json!({of.as_str(): secret}));
    let (identity, _) = KeyFile::read(&agent).unwrap().open(&agent, SystemClock.now()).unwrap();
    let read = LegacyFile::read(&file("one.legacy"), &identity.trust()).unwrap();
    assert_eq!(read.exemptions().len(), 1);
    assert_eq!(read.guest(id).unwrap().0.as_str(), of);
    assert!(read.guest("another").is_none());
    // A revoked agent's key is not handed out any more.
    deployment.ok(&["agent", "revoke", id]);
    assert_eq!(write("none.legacy")["keys"], 0);
    drop(up);
}

#[test]
fn the_default_key_is_used_on_purpose_only() {
    if !installed() {
        return;
    }
    let deployment = Deployment::new(None);
    let trove = Trove::made(&deployment, "trove", PRINTED).unwrap();
    let key = key_file(&deployment, "wrapping", PRINTED);
    let said = deployment.fails(1, &import(&trove.url, &key, &[]));
    assert!(
        said.contains("printed in its source") && said.contains("--accept-public-key"),
        "{said}"
    );
    let done = deployment.json(&import(&trove.url, &key, &["--accept-public-key"]));
    assert_eq!(counts(&done), [3, 0, 0, 1, 1]);
    let told = deployment.ok(&import(&trove.url, &key, &["--accept-public-key"]));
    assert!(told.contains("whoever had a copy of that database has them"), "{told}");
}
