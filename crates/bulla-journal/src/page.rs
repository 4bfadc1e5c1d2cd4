//! `docs/events.md`, from the schema.

use std::fmt::Write;

use crate::schema::{Class, EventInfo, SCHEMA};

const HEAD: &str = "\
# Events

Everything that is told, counted and journalled, from its one declaration (`crates/bulla-journal/src/schema/events.rs`):
`BULLA_WRITE_EVENTS=1 cargo test -p bulla-journal --test page` writes this page, and a test fails when it is out of date.

Each event is a line in the log (`event=NAME`, at the severity given here), a counter, and a record of the journal, where it has
`seq`, `time`, `event`, `class` and `chain` beside its own fields. No field holds a secret: the types of fields have no room for
one. Texts from outside are cut at 256 bytes. Who writes the journal, and how it is verified, is in
[operate.md](operate.md#the-journal).
";

/// The whole page.
pub fn page() -> String {
    let mut out = String::from(HEAD);
    for class in Class::ALL {
        let of_it = || SCHEMA.iter().filter(move |info| info.class == class);
        if of_it().next().is_none() {
            continue;
        }
        let _ = writeln!(out, "\n## Class `{}`\n", class.as_str());
        out.push_str("| event | meaning | fields | severity | metric |\n|---|---|---|---|---|\n");
        of_it().for_each(|info| row(&mut out, info));
    }
    out
}

fn row(out: &mut String, info: &EventInfo) {
    let fields: Vec<String> = info
        .fields
        .iter()
        .map(|field| format!("`{}` ({}): {}", field.name, field.kind, cell(field.meaning)))
        .collect();
    let label = info.label.map_or_else(String::new, |label| format!(" by `{label}`"));
    let _ = writeln!(
        out,
        "| `{}` | {} | {} | {} | `{}`{label} |",
        info.name,
        cell(info.meaning),
        if fields.is_empty() { "–".to_owned() } else { fields.join("<br>") },
        info.severity.as_str(),
        info.metric
    );
}

fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|")
}
