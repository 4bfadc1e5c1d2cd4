//! That every row can fail: with its checks off the attack gets through, with all on it does not.
//! Only in the build with the switches: `cargo xtask test` makes it.
#![cfg(bulla_mutants)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use bulla_attack::{Bus, Cell, ROWS, Row, Settings, Verdict, run};
use bulla_rpc::EndpointOptions;
use bulla_seal::mutants::{Check, switch_off};

/// How often a row is tried before it is said that it can't fail.
const PASSES: u32 = 3;

fn rows() -> Vec<&'static Row> {
    let only = std::env::var("BULLA_ONLY").ok();
    ROWS.iter().filter(|row| only.as_ref().is_none_or(|id| row.id.starts_with(id))).collect()
}

/// Where `row` gets through with `checks` off.
async fn red(row: &'static Row, checks: &[Check]) -> BTreeSet<Cell> {
    let off = switch_off(checks);
    let settings = Settings::like(EndpointOptions::default()).unwrap();
    let report = run(&[row], &Bus::memory(), &settings, |_, _| {}).await;
    drop(off);
    let names: Vec<_> = checks.iter().map(|check| check.name()).collect();
    let mut red = BTreeSet::new();
    for cell in report.rows.iter().flat_map(|row| &row.cells) {
        if cell.verdict != Verdict::NotApplicable {
            println!(
                "{} {} {} without {}: {:?} {} ({} ms)",
                row.id,
                cell.kind,
                cell.key,
                names.join(" + "),
                cell.verdict,
                cell.seen,
                cell.millis
            );
        }
        if cell.verdict == Verdict::GotThrough {
            red.insert(Cell { key: cell.key, kind: cell.kind });
        }
    }
    red
}

/// One test, because the switches are the process's.
#[tokio::test(flavor = "multi_thread")]
async fn every_row_can_fail() {
    let mut wrong = Vec::new();
    let settings = Settings::like(EndpointOptions::default()).unwrap();
    let all_on = run(&rows(), &Bus::memory(), &settings, |_, _| {}).await;
    for (row, cell) in all_on.rows.iter().flat_map(|row| row.cells.iter().map(move |c| (row, c))) {
        if !cell.is_good() {
            wrong.push(format!("{} {cell:?} with every check on", row.id));
        }
    }
    for row in rows() {
        let mut never = Cell::all().filter(|cell| row.not_applicable(*cell).is_none()).collect();
        let mut holds: Vec<_> = row.red.iter().collect();
        // Again where it did not: what an attack waits for may come late on a busy machine.
        for _ in 0..PASSES {
            for checks in row.red {
                let red = red(row, checks).await;
                if !red.is_empty() {
                    holds.retain(|held| *held != checks);
                }
                never = &never - &red;
            }
            if never.is_empty() && holds.is_empty() {
                break;
            }
        }
        wrong.extend(holds.iter().map(|checks| format!("{} holds without {checks:?}", row.id)));
        if !never.is_empty() {
            wrong.push(format!("{} never got through in {never:?}", row.id));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_build_is_marked() {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let mark = bulla_seal::mutants::MARK.as_bytes();
    assert!(program.windows(mark.len()).any(|part| part == mark));
}
