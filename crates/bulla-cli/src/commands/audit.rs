//! `bulla audit`: what happened, and whether that is what was written down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_journal::verify::{Report, origin_of, verify};
use bulla_journal::{Entry, Reader, journals};
use bulla_rpc::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::cli::{AuditCommand, AuditShowArgs, AuditVerifyArgs};
use crate::control::journal_read::Filter;
use crate::failure::{Failure, Result};
use crate::journal::public_key;
use crate::output::Output;
use crate::settings::{Home, Settings};
use crate::when;

/// How often `--follow` looks for more.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(home: &Home, command: &AuditCommand, out: Output) -> Result<()> {
    match command {
        AuditCommand::Show(args) => show(home, args, out).await,
        AuditCommand::Verify(args) => check(home, args, out),
    }
}

/// The journals that are meant.
fn folders(home: &Home, given: Option<&PathBuf>) -> Result<Vec<PathBuf>> {
    let path = match given {
        Some(path) => path.clone(),
        None => Settings::load(home.dir())?.journal.folder(home),
    };
    let found = journals(&path).map_err(|error| {
        Failure::new(format!("can't read journals in {}: {error}", path.display()))
    })?;
    if found.is_empty() {
        return Err(Failure::new(format!(
            "there is no journal in {}; name the folder of one, or of several",
            path.display()
        )));
    }
    Ok(found)
}

/// One record, by its journal and its number: `control/17`.
pub(crate) fn entry(home: &Home, given: Option<&PathBuf>, place: &str) -> Result<Entry> {
    let form = || Failure::usage(format!("`{place}` names no record; write control/17"));
    let (journal, seq) = place.rsplit_once('/').ok_or_else(form)?;
    let seq: u64 = seq.parse().map_err(|_| form())?;
    let folders = folders(home, given)?;
    let dir = folders.iter().find(|dir| name(dir) == journal).ok_or_else(|| {
        let known: Vec<_> = folders.iter().map(|dir| name(dir)).collect();
        Failure::new(format!("there is no journal `{journal}`; there is {}", known.join(", ")))
    })?;
    let entries = Reader::new(dir)
        .more()
        .map_err(|error| Failure::new(format!("can't read the journal {journal}: {error}")))?;
    entries.into_iter().find(|entry| entry.seq == seq).ok_or_else(|| {
        Failure::new(format!("the journal {journal} has no record {seq}, or not any more"))
    })
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn filter(args: &AuditShowArgs) -> Result<Filter> {
    let since = args.since.as_deref().map(|text| when::ago(text, SystemClock.now().secs()));
    let since = since.transpose().map_err(Failure::usage)?.map(|secs| secs.saturating_mul(1000));
    Filter::new((since, None), args.kinds.iter().cloned(), args.principal.clone())
}

async fn show(home: &Home, args: &AuditShowArgs, out: Output) -> Result<()> {
    let filter = filter(args)?;
    let folders = folders(home, args.path.as_ref())?;
    let mut readers: Vec<_> = folders.iter().map(|dir| (name(dir), Reader::new(dir))).collect();
    loop {
        let mut found = Vec::new();
        for (journal, reader) in &mut readers {
            let more = reader.more().map_err(|error| {
                Failure::new(format!("can't read the journal {journal}: {error}"))
            })?;
            let more = more.into_iter().filter(|entry| filter.takes(entry));
            found.extend(more.map(|entry| (journal.clone(), entry)));
        }
        found.sort_by(|(_, one), (_, other)| one.time.cmp(&other.time));
        found.iter().try_for_each(|(journal, entry)| print(journal, entry, out))?;
        if !args.follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn print(journal: &str, entry: &Entry, out: Output) -> Result<()> {
    if out.is_json() {
        let mut value = entry.fields.clone();
        let own = [
            ("journal", json!(journal)),
            ("seq", json!(entry.seq)),
            ("time", json!(entry.time)),
            ("event", json!(entry.event)),
            ("class", json!(entry.class)),
        ];
        value.extend(own.map(|(name, value)| (name.to_owned(), value)));
        return out.json_line(&value);
    }
    let fields = entry.fields.iter().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let text = if text.contains(' ') { format!("{text:?}") } else { text };
        format!("{}{text}", out.dim(&format!("{name}=")))
    });
    let event = match entry.class.as_str() {
        "refusal" | "denial" | "alarm" => out.bad(&entry.event),
        _ => out.bold(&entry.event),
    };
    let time = entry.time.get(..23).unwrap_or(&entry.time);
    let place = out.dim(&format!("{journal}/{}", entry.seq));
    out.line(&format!("{time}Z {event} {} {place}", fields.collect::<Vec<_>>().join(" ")));
    Ok(())
}

fn check(home: &Home, args: &AuditVerifyArgs, out: Output) -> Result<()> {
    let key = public_key(home, args.key.as_deref())?;
    let folders = folders(home, args.path.as_ref())?;
    let kept = match &args.checkpoint {
        None => None,
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("can't read {}: {error}", path.display())))?,
        ),
    };
    // A checkpoint is of one journal: the one that says so, or the only one.
    let origin = kept.as_deref().and_then(|note| origin_of(note, &key));
    let alone = folders.len() == 1;
    let mut compared = false;
    let reports: Vec<_> = folders
        .iter()
        .map(|dir| {
            let own = bulla_journal::verify::origin_in(dir, &key);
            let mine = alone || (origin.is_some() && own == origin);
            compared |= mine;
            verify(dir, &key, kept.as_deref().filter(|_| mine))
        })
        .collect();
    let good = reports.iter().all(Report::is_good);
    let shown: Vec<_> = reports.iter().map(as_json).collect();
    out.result(&json!({ "good": good, "journals": shown }), |out| {
        reports.iter().for_each(|report| tell(report, out));
    })?;
    if kept.is_some() && !compared {
        return Err(Failure::new(
            "the given checkpoint is of none of these journals, or not signed with this key",
        ));
    }
    if good {
        return Ok(());
    }
    let bad = reports.iter().filter(|report| !report.is_good()).count();
    Err(Failure::new(format!("{bad} of {} journals are not as they were written", reports.len())))
}

fn as_json(report: &Report) -> Value {
    let finding = report
        .finding
        .as_ref()
        .map(|finding| json!({ "file": finding.file, "line": finding.line, "what": finding.what }));
    json!({
        "journal": name(&report.dir),
        "origin": report.origin,
        "first": report.first,
        "records": report.records,
        "signed": report.signed,
        "unsigned": report.unsigned(),
        "good": report.is_good(),
        "finding": finding,
    })
}

fn tell(report: &Report, out: Output) {
    let journal = out.bold(&name(&report.dir));
    if let Some(finding) = &report.finding {
        out.line(&format!("{journal}: {}: {finding}", out.bad("not as it was written")));
        return;
    }
    let from = match report.first {
        0 => String::new(),
        first => format!(" from record {first} on (older ones were let go)"),
    };
    let rest = match report.unsigned() {
        0 => "all of them signed".to_owned(),
        rest => format!("the last {rest} not signed yet"),
    };
    out.line(&format!("{journal}: {}: {} records{from}, {rest}", out.good("good"), report.records));
}
