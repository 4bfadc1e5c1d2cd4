//! The way through a journal's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Finding, Report};
use crate::checkpoint::Checkpoint;
use crate::key::PublicKey;
use crate::record::{CHECKPOINT, Signed, State};
use crate::segment::{CHECKPOINT_FILE, Segment};
use crate::tree::Hash;

/// A line that is just being written is looked at again so many times.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);
const TRIMMED: &[u8] = b"\"event\":\"journal-trimmed\"";

pub(super) struct Walk<'a> {
    dir: &'a Path,
    key: &'a PublicKey,
    origin: Option<String>,
    state: Option<State>,
    first: u64,
    /// From which record on files are kept, as recorded.
    kept: u64,
    /// Every good checkpoint's size and root.
    signed: Vec<(u64, Hash)>,
    /// The last two notes.
    notes: [Option<String>; 2],
    /// The newest checkpoint when the walk began.
    begun: Option<Vec<u8>>,
}

type Found<T> = Result<T, Finding>;

impl<'a> Walk<'a> {
    pub(super) fn new(dir: &'a Path, key: &'a PublicKey) -> Self {
        Self {
            dir,
            key,
            origin: None,
            state: None,
            first: 0,
            kept: 0,
            signed: Vec::new(),
            notes: [None, None],
            begun: fs::read(dir.join(CHECKPOINT_FILE)).ok(),
        }
    }

    pub(super) fn report(self, finding: Option<Finding>) -> Report {
        let size = self.state.as_ref().map_or(self.first, State::size);
        Report {
            dir: self.dir.to_owned(),
            origin: self.origin,
            first: self.first,
            records: size - self.first,
            signed: self.signed.last().map_or(0, |(size, _)| *size),
            finding,
        }
    }

    /// The last file alone.
    pub(super) fn last(&mut self) -> Found<()> {
        let segments = Segment::list(self.dir)
            .map_err(|error| self.wrong(self.dir, format!("can't be read: {error}")))?;
        let Some(last) = segments.last() else {
            return Err(self.wrong(self.dir, "it holds no journal: its files are missing"));
        };
        self.segment(last, true)?;
        self.newest()
    }

    pub(super) fn all(&mut self) -> Found<()> {
        let segments = Segment::list(self.dir)
            .map_err(|error| self.wrong(self.dir, format!("can't be read: {error}")))?;
        let Some(last) = segments.last() else {
            return Err(self.wrong(self.dir, "it holds no journal: its files are missing"));
        };
        for segment in &segments {
            self.segment(segment, segment == last)?;
        }
        if self.first > self.kept {
            let what = format!(
                "the records before {} are missing, and it is not recorded that they were let go",
                self.first
            );
            return Err(self.wrong(self.dir, what));
        }
        self.newest()
    }

    fn segment(&mut self, segment: &Segment, last: bool) -> Found<()> {
        let mut bytes = self.read(&segment.path)?;
        let mut attempts = 0;
        while last && bytes.last() != Some(&b'\n') && attempts < ATTEMPTS {
            std::thread::sleep(PAUSE);
            bytes = self.read(&segment.path)?;
            attempts += 1;
        }
        if let Some(state) = &self.state
            && state.size() != segment.first
        {
            let what = format!(
                "it begins with record {}, and the file before it ends with {} records: a file is \
                 missing, or the end of one",
                segment.first,
                state.size()
            );
            return Err(self.wrong(&segment.path, what));
        }
        let Some(whole) = bytes.strip_suffix(b"\n") else {
            let line = bytes.split(|byte| *byte == b'\n').count() as u64;
            let what = "the last line has no end: it was torn by a crash (the next start cuts it \
                        off and records that), or altered";
            return Err(Finding {
                file: segment.path.clone(),
                line: Some(line),
                what: what.into(),
            });
        };
        for (line, number) in whole.split(|byte| *byte == b'\n').zip(1..) {
            self.line(segment, line, number).map_err(|what| Finding {
                file: segment.path.clone(),
                line: Some(number),
                what,
            })?;
        }
        Ok(())
    }

    fn line(&mut self, segment: &Segment, line: &[u8], number: u64) -> Result<(), String> {
        if number == 1 || line.starts_with(CHECKPOINT) {
            let signed = Signed::read(line, self.key).map_err(|fault| fault.to_string())?;
            return self.checkpoint(segment, signed, number);
        }
        let state = self.state.get_or_insert_default();
        state.take_record(line).map_err(|fault| fault.to_string())?;
        if line.windows(TRIMMED.len()).any(|part| part == TRIMMED) {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
            if value.get("event").and_then(|name| name.as_str()) == Some("journal-trimmed") {
                let first = value.get("first").and_then(serde_json::Value::as_u64);
                self.kept = first.unwrap_or(0);
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, segment: &Segment, signed: Signed, number: u64) -> Result<(), String> {
        let Checkpoint { origin, size, root } = signed.checkpoint.clone();
        if number == 1 && size != segment.first {
            return Err(format!(
                "the file is named after record {}, and begins with record {size}",
                segment.first
            ));
        }
        match &self.origin {
            Some(mine) if *mine != origin => {
                return Err(format!(
                    "this is a checkpoint of the journal `{origin}`, not `{mine}`"
                ));
            }
            _ => self.origin = Some(origin),
        }
        let [_, last] = &self.notes;
        if number > 1 && last.as_ref() == Some(&signed.note) {
            return Err("this checkpoint stands twice: it was copied".to_owned());
        }
        if number == 1 && self.state.is_some() && last.as_ref() != Some(&signed.note) {
            return Err(
                "the file before it does not end with the checkpoint that this one begins \
                        with: the end of that one was cut off"
                    .to_owned(),
            );
        }
        match &mut self.state {
            Some(state) => state.take_checkpoint(&signed).map_err(|fault| fault.to_string())?,
            None => {
                self.first = size;
                self.state = Some(signed.state());
            }
        }
        self.signed.push((size, root));
        let [_, last] = &mut self.notes;
        // The first of a file repeats the last of the one before.
        if last.as_ref() != Some(&signed.note) {
            let before = last.replace(signed.note);
            let [first, _] = &mut self.notes;
            *first = before;
        }
        Ok(())
    }

    /// The newest checkpoint, which is alone in its file, is the last of the records' or (between
    /// two steps of the writer) the one before. If the journal is being written, it was that when
    /// the walk began.
    fn newest(&self) -> Found<()> {
        let path = self.dir.join(CHECKPOINT_FILE);
        let now = self.read(&path)?;
        let begun = self.begun.as_ref().unwrap_or(&now);
        if self.is_last(begun) {
            return Ok(());
        }
        self.compare(&path, &String::from_utf8_lossy(begun))?;
        if *begun != now {
            return Ok(());
        }
        Err(self.wrong(
            &path,
            "it is older than the checkpoints among the records: it was put back, or altered",
        ))
    }

    fn is_last(&self, note: &[u8]) -> bool {
        self.notes.iter().flatten().any(|last| last.as_bytes() == note)
    }

    /// Whether the journal holds what a checkpoint from elsewhere signs.
    pub(super) fn agrees(&self, note: &str) -> Found<()> {
        self.compare(&PathBuf::from("the given checkpoint"), note)
    }

    fn compare(&self, from: &Path, note: &str) -> Found<()> {
        let opened = Checkpoint::open(note, self.key);
        let opened = opened
            .map_err(|why| self.wrong(from, format!("this checkpoint is not good: {why}")))?;
        if self.origin.as_ref() != Some(&opened.origin) {
            let what = format!("it is of another journal, `{}`", opened.origin);
            return Err(self.wrong(from, what));
        }
        let size = self.state.as_ref().map_or(0, State::size);
        if opened.size > size {
            let what = format!(
                "it signs {} records, and there are {size}: the end of the journal was cut off, or \
                 an old copy put back",
                opened.size
            );
            return Err(self.wrong(from, what));
        }
        if opened.size < self.first {
            let what = format!(
                "it signs {} records, and the journal keeps none before {}: they can't be compared",
                opened.size, self.first
            );
            return Err(self.wrong(from, what));
        }
        if self.signed.contains(&(opened.size, opened.root)) {
            return Ok(());
        }
        let what = format!(
            "the first {} records were others when it was signed: this is another journal",
            opened.size
        );
        Err(self.wrong(from, what))
    }

    fn read(&self, path: &Path) -> Found<Vec<u8>> {
        fs::read(path).map_err(|error| self.wrong(path, format!("can't be read: {error}")))
    }

    fn wrong(&self, file: &Path, what: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line: None, what: what.into() }
    }
}
