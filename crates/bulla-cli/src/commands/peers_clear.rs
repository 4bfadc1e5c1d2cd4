//! `bulla peers clear`: the files in which services on oslo.messaging say what came to them in clear.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bulla_rpc::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::output::{Output, date};
use crate::when;

/// More than the rows that a service keeps can be.
const LARGEST: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Census {
    in_clear: Vec<Row>,
}

/// Messages that came in clear through a topic. Nothing proves who sent them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    topic: String,
    from: String,
    method: String,
    count: u64,
    /// Unix seconds.
    first: u64,
    last: u64,
    /// Who noted it.
    #[serde(skip_deserializing)]
    file: String,
}

/// Shows the rows of all files, the latest first. With `since`, fails if there are any of then or later.
pub(super) fn run(files: &[PathBuf], since: Option<&str>, out: Output) -> Result<()> {
    let now = SystemClock.now().secs();
    let since = since.map(|since| when::ago(since, now)).transpose().map_err(Failure::usage)?;
    let mut rows = Vec::new();
    for file in files {
        rows.append(&mut read(file)?);
    }
    rows.retain(|row| since.is_none_or(|since| row.last >= since));
    rows.sort_by(|a, b| b.last.cmp(&a.last).then_with(|| a.topic.cmp(&b.topic)));
    out.result(&rows, |out| {
        if rows.is_empty() {
            return out.say("Nothing came in clear.");
        }
        let shown = rows.iter().map(|row| {
            let Row { topic, from, method, count, last, file, .. } = row;
            [topic, from, method, &count.to_string(), &date(*last), file].map(String::clone).into()
        });
        out.table(&["TOPIC", "FROM", "METHOD", "COUNT", "LAST", "FILE"], shown.collect());
    })?;
    match (since, rows.len()) {
        (None, _) | (_, 0) => Ok(()),
        (Some(_), 1) => {
            Err(Failure::new("One row is as new as that: somebody still sends in clear."))
        }
        (Some(_), n) => Err(Failure::new(format!(
            "{n} rows are as new as that: somebody still sends in clear."
        ))),
    }
}

fn read(path: &Path) -> Result<Vec<Row>> {
    let failed = |why: String| {
        Failure::new(format!("{}: {why}. Give files `KEYFILE.clear.json`.", path.display()))
    };
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > LARGEST {
        return Err(failed("it is too long".to_owned()));
    }
    let census: Census =
        serde_json::from_str(&text).map_err(|error| failed(format!("no census ({error})")))?;
    let mut rows = census.in_clear;
    for row in &mut rows {
        // A terminal is told nothing by whoever sends in clear.
        if [&row.topic, &row.from, &row.method].iter().any(|name| name.contains(char::is_control)) {
            return Err(failed("a name in it has control characters".to_owned()));
        }
        row.file = path.display().to_string();
    }
    Ok(rows)
}
