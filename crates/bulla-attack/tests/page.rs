//! The table of rows, and the page that is made from it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use bulla_attack::{Cell, Group, ROWS};
use bulla_seal::mutants::Check;

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/attacks.md");
    let page = bulla_attack::page();
    if std::env::var_os("BULLA_WRITE_ATTACKS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/attacks.md is out of date: run `cargo xtask attacks`");
}

#[test]
fn every_switch_belongs_to_a_row_and_every_row_has_one() {
    let used: BTreeSet<Check> = ROWS.iter().flat_map(|row| row.red.concat()).collect();
    let unused: Vec<_> = Check::ALL.iter().filter(|check| !used.contains(check)).collect();
    assert!(unused.is_empty(), "no row needs {unused:?}");
    for row in ROWS {
        assert!(!row.red.is_empty(), "{} was never seen red", row.id);
        assert!(row.red.iter().all(|set| !set.is_empty()), "{}", row.id);
    }
}

#[test]
fn rows_are_told_apart_and_say_why_they_are_not_tried() {
    let ids: BTreeSet<_> = ROWS.iter().map(|row| row.id.split('-').next()).collect();
    assert_eq!(ids.len(), ROWS.len());
    assert!(ROWS.len() >= 45);
    for row in ROWS {
        assert!(Cell::all().any(|cell| row.not_applicable(cell).is_none()), "{}", row.id);
        for cell in Cell::all() {
            assert_ne!(row.not_applicable(cell), Some(""), "{} in {cell}", row.id);
        }
        assert!(Group::ALL.contains(&row.group()));
    }
}
