//! The page that is made from the schema.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events.md");
    let page = bulla_journal::page();
    if std::env::var_os("BULLA_WRITE_EVENTS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/events.md is out of date: BULLA_WRITE_EVENTS=1 cargo test -p bulla-journal --test page"
    );
}
