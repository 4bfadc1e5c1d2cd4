//! `docs/attacks.md`, from the rows.

use std::fmt::Write;

use crate::cell::{KeyType, Kind};
use crate::row::{Group, Row};
use crate::rows::ROWS;

const HEAD: &str = "\
# The attack suite

Everything that `bulla attack` tries, from its own table: `cargo xtask attacks` writes this page, and a test fails when it is
out of date. The intruder has the broker's password (or owns the broker), and in many rows one agent's or one component's keys
too. What each must not achieve is in [threat-model.md](threat-model.md); how it is prevented, in [protocol.md](protocol.md).

    bulla attack                      a deployment of its own, in memory, with your settings
    bulla attack --bus URL --yes      the same over your broker, and then your own deployment there
    bulla attack --list               the rows
    bulla attack --only A03           one row

Each row is played in a fresh deployment, on every transport, for each key type (key pair, shared key) and each kind of message
(call, cast, fanout, reply) where it has a meaning. It holds only if the attack had no effect, *and* the expected refusal was
counted under its name, *and* nothing was answered beyond what section 9 of the protocol allows, *and* honest calls still work
afterwards.

A suite that can't fail proves nothing. So each row names the checks that stand in its way. In one build for tests those can be
switched off one by one (`--cfg bulla_mutants`: never a feature, never in a program that anybody runs), and a kept test shows
the attack get through then, in every place of the matrix. Where several sets are named, each turns the row red somewhere. A set
of several checks is defence in depth: all of them have to go before the attack works.

Where the last column of a row's facts says *class*, the row reproduces a known kind of weakness and no single incident.

";

/// The whole page.
pub fn page() -> String {
    let mut out = String::from(HEAD);
    for group in Group::ALL {
        let rows: Vec<&Row> = ROWS.iter().filter(|row| row.group() == group).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(out, "## {}\n", group.title());
        for row in rows {
            entry(&mut out, row);
        }
    }
    let _ = writeln!(out, "{} rows.", ROWS.len());
    out
}

fn entry(out: &mut String, row: &Row) {
    let _ = writeln!(out, "### {}\n", row.id);
    let _ = writeln!(out, "{}.\n", sentence(row.tries));
    let _ = writeln!(out, "- Reproduces: {}.", row.incident);
    let _ = writeln!(out, "- Expected: {}.", row.expected);
    let _ = writeln!(out, "- Tried on: {}.", places(row));
    let sets: Vec<String> = row
        .red
        .iter()
        .map(|set| {
            let names: Vec<_> = set.iter().map(|check| format!("`{}`", check.name())).collect();
            names.join(" + ")
        })
        .collect();
    let _ = writeln!(out, "- Gets through without: {}.\n", sets.join("; or "));
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn places(row: &Row) -> String {
    let kinds: Vec<_> = row.kinds.iter().map(ToString::to_string).collect();
    let keys: Vec<_> = row.keys.iter().map(ToString::to_string).collect();
    let mut text = format!("{}; {}", kinds.join(", "), keys.join(", "));
    if row.kinds.len() < Kind::ALL.len() {
        let _ = write!(text, ". Not on other kinds: {}", row.other_kinds);
    }
    if row.keys.len() < KeyType::ALL.len() {
        let _ = write!(text, ". Not with the other key type: {}", row.other_key);
    }
    text
}
