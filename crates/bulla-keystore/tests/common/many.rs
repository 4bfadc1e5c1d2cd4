//! Many shared-key agents at once, past the keystore, so that nobody has to wait for as many.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_keystore::{Kek, Row};
use bulla_seal::{OsRandom, Random};

use super::Raw;

/// Rows in one statement.
const ROWS: usize = 500;

/// The id of an agent.
pub fn id(i: usize) -> String {
    format!("vm-{i:06}")
}

/// Adds agents `vm-000000` and so on, each with a random key under `kek`.
pub async fn add_shared(raw: &mut Raw, kek: &Kek, count: usize) {
    for from in (0..count).step_by(ROWS) {
        let (mut principals, mut keys) = (String::new(), String::new());
        for i in from..count.min(from + ROWS) {
            let comma = if i == from { "" } else { ", " };
            write!(principals, "{comma}('agent', '{}', 1, 'shared', 0, 'active', 0, 0)", id(i))
                .unwrap();
            keys.push_str(comma);
            keys.push_str(&key_row(raw, kek, i));
        }
        raw.run(&format!(
            "INSERT INTO principals (kind, name, incarnation, key_type, suite, state, created, updated)
             VALUES {principals}"
        ))
        .await;
        raw.run(&format!(
            "INSERT INTO instance_keys (id, instance_id, encrypted_key, created, updated, deleted,
                 incarnation, epoch, kid, principal_id) VALUES {keys}"
        ))
        .await;
    }
}

fn key_row(raw: &Raw, kek: &Kek, i: usize) -> String {
    let random = &mut OsRandom::default();
    let (mut key, mut kid) = ([0; 32], [0; 8]);
    random.fill(&mut key).unwrap();
    random.fill(&mut kid).unwrap();
    let (id, name) = (id(i), format!("agent/{}", id(i)));
    let place = Row {
        table: "instance_keys",
        column: "encrypted_key",
        name: &name,
        incarnation: 1,
        epoch: 1,
    };
    let wrapped = STANDARD.encode(kek.wrap_key().wrap(random, &place, &key).unwrap());
    let kid = raw.literal(&kid);
    format!(
        "('{i:032}', '{id}', '{wrapped}', 0, 0, 0, 1, 1, {kid},
          (SELECT id FROM principals WHERE kind = 'agent' AND name = '{id}'))"
    )
}
