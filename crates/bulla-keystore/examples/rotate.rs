//! How long the rotation of the key-encryption key takes:
//! `cargo run --release -p bulla-keystore --example rotate -- 100000`.
//!
//! Makes a keystore with that many shared-key agents and goes over to another KEK file, while a
//! reader opens agents' keys. A SQLite file in `$TMPDIR`; with `--features postgres` and `postgres`
//! after the number, a private PostgreSQL, and so for `mariadb`. With `--features pkcs11` and `token` at
//! the end the new KEK is in a SoftHSM of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement fails like a test"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use bulla_keystore::{Kek, Keystore, REWRAP_BATCH};
use common::{Database, Fixture, agent, component, many};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

#[tokio::main]
async fn main() {
    let count = std::env::args().nth(1).map_or(100_000, |n| n.parse().expect("a number"));
    let database = match std::env::args().nth(2).as_deref() {
        Some("postgres") => Database::Postgres,
        Some("mariadb") => Database::MariaDb,
        _ => Database::Sqlite,
    };
    let in_token = std::env::args().any(|arg| arg == "token");
    if in_token && std::env::var_os(SOFTHSM).is_none() {
        return again_with_token();
    }
    let fixture = Fixture::on(database).await.expect("such a server");
    let fixture = fixture.and_components(&["control"]).await;
    let new = match in_token {
        true => kek_in_token(),
        false => Kek::create_file(fixture.folder.path().join("kek.next")).unwrap(),
    };
    many::add_shared(&mut fixture.raw().await, &fixture.kek, count).await;
    let keystore = fixture.keystore.clone();

    // Pair keys are named at their first use.
    look_ups(&keystore, Stop::After(200)).await;
    let alone = look_ups(&keystore, Stop::After(2_000)).await;
    let (stop, stopped) = oneshot::channel();
    let reader = tokio::spawn({
        let keystore = keystore.clone();
        async move { look_ups(&keystore, Stop::When(stopped)).await }
    });
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut last = begun;
    let far = keystore
        .rotate_kek(&new, REWRAP_BATCH, |_| {
            slowest = slowest.max(last.elapsed());
            last = Instant::now();
        })
        .await
        .unwrap();
    let (took, end) = (begun.elapsed(), last.elapsed());
    stop.send(()).unwrap();
    let during = reader.await.unwrap();
    assert_eq!(keystore.kek_state().await.unwrap().left(), 0);
    println!(
        "{} values in {:.2} s: {:.0} values/s; slowest batch of {REWRAP_BATCH} {:.1} ms, final count {:.1} ms",
        far.rewrapped,
        took.as_secs_f64(),
        far.rewrapped as f64 / took.as_secs_f64(),
        slowest.as_secs_f64() * 1e3,
        end.as_secs_f64() * 1e3,
    );
    println!("look-ups of agents' keys: p99 {alone:.3} ms before, {during:.3} ms during it");
}

/// The library reads it when it is loaded.
const SOFTHSM: &str = "SOFTHSM2_CONF";
#[cfg(feature = "pkcs11")]
const MODULE: &str = "BULLA_ROTATE_MODULE";
#[cfg(feature = "pkcs11")]
const PIN: &str = "BULLA_ROTATE_PIN";

#[cfg(feature = "pkcs11")]
fn again_with_token() {
    let hsm = bulla_services::SoftHsm::with_token("rotate").unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(std::env::args().skip(1))
        .env(SOFTHSM, hsm.settings())
        .env(MODULE, hsm.module())
        .env(PIN, bulla_services::SoftHsm::PIN)
        .status()
        .unwrap();
    assert!(status.success());
}

#[cfg(feature = "pkcs11")]
fn kek_in_token() -> Kek {
    use bulla_keystore::pkcs11::{Pin, TokenKey};
    let key = TokenKey {
        module: std::env::var_os(MODULE).unwrap().into(),
        token: "rotate".to_owned(),
        label: "next".to_owned(),
        id: None,
        pin: Pin::Environment(PIN.to_owned()),
    };
    bulla_keystore::KekSource::Pkcs11(key).create().unwrap()
}

#[cfg(not(feature = "pkcs11"))]
fn again_with_token() {
    panic!("built without --features pkcs11");
}

#[cfg(not(feature = "pkcs11"))]
fn kek_in_token() -> Kek {
    panic!("built without --features pkcs11");
}

enum Stop {
    After(usize),
    When(oneshot::Receiver<()>),
}

/// The 99th percentile of a look-up of an agent's pair key, in milliseconds.
async fn look_ups(keystore: &Keystore, mut stop: Stop) -> f64 {
    let control = component("control");
    let mut times = Vec::new();
    loop {
        let done = match &mut stop {
            Stop::After(n) => times.len() >= *n,
            Stop::When(stopped) => stopped.try_recv() != Err(TryRecvError::Empty),
        };
        if done && !times.is_empty() {
            break;
        }
        // A few agents only: that each pair is named at its first use is not what is measured.
        let agent = agent(&many::id(times.len() * 7 % 200));
        let begun = Instant::now();
        keystore.pair_key(&agent, &control).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
