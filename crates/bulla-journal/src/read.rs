//! Reading a journal's records, without judging them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::record::CHECKPOINT;
use crate::segment::Segment;

/// A record as it was read. It is not verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number in its journal.
    pub seq: u64,
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// The event's name.
    pub event: String,
    /// The event's class.
    pub class: String,
    /// Its other fields.
    pub fields: Map<String, Value>,
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Self> {
        if line.starts_with(CHECKPOINT) {
            return None;
        }
        let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
        let seq = fields.remove("seq")?.as_u64()?;
        let mut text = |name| match fields.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (time, event, class) = (text("time")?, text("event")?, text("class")?);
        text("chain")?;
        Some(Self { seq, time, event, class, fields })
    }
}

/// Reads a journal's records in order, and those that come after.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// The file that is read, and up to where.
    at: Option<(Segment, u64)>,
}

impl Reader {
    /// From the oldest record that is kept in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), at: None }
    }

    /// From record `seq` on, or from a little before.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn from(dir: &Path, seq: u64) -> io::Result<Self> {
        let mut reader = Self::new(dir);
        reader.at = segment_of(dir, seq)?.map(|segment| (segment, 0));
        Ok(reader)
    }

    /// What came since it was asked last. Lines that are no records are left out: `verify` tells of
    /// those.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn more(&mut self) -> io::Result<Vec<Entry>> {
        let mut out = Vec::new();
        for segment in Segment::list(&self.dir)? {
            let from = match &self.at {
                Some((at, _)) if segment.first < at.first => continue,
                Some((at, offset)) if segment.first == at.first => *offset,
                _ => 0,
            };
            let read = read_lines(&segment.path, from, &mut out);
            match read {
                Ok(length) => self.at = Some((segment, from + length)),
                // It went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }
}

/// The file that record `seq` is in, or would be.
fn segment_of(dir: &Path, seq: u64) -> io::Result<Option<Segment>> {
    let all = Segment::list(dir)?.into_iter();
    Ok(all.take_while(|segment| segment.first <= seq).last())
}

/// The number that the next record of a journal gets.
///
/// # Errors
/// A file can't be read.
pub fn next_seq(dir: &Path) -> io::Result<u64> {
    let Some(segment) = Segment::list(dir)?.pop() else { return Ok(0) };
    let mut entries = Vec::new();
    read_lines(&segment.path, 0, &mut entries)?;
    Ok(entries.last().map_or(segment.first, |last| last.seq.saturating_add(1)))
}

/// A part of a journal's records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// The records that were wanted, in order.
    pub entries: Vec<Entry>,
    /// The number behind the last record that was looked at.
    pub next: u64,
    /// Whether there is no more.
    pub ended: bool,
}

/// Reads from record `from` on, until `limit` records were taken or `most` were looked at.
///
/// # Errors
/// A file can't be read.
pub fn read_part(
    dir: &Path,
    from: u64,
    (limit, most): (usize, u64),
    takes: impl Fn(&Entry) -> bool,
) -> io::Result<Part> {
    let mut part = Part { next: from, ..Part::default() };
    let begin = segment_of(dir, from)?.map_or(0, |segment| segment.first);
    let mut looked = 0;
    for segment in Segment::list(dir)?.into_iter().filter(|segment| segment.first >= begin) {
        let file = match File::open(&segment.path) {
            // It went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            file.read_until(b'\n', &mut line)?;
            let Some(text) = line.strip_suffix(b"\n") else { break };
            let Some(entry) = Entry::parse(text).filter(|entry| entry.seq >= from) else {
                continue;
            };
            if part.entries.len() >= limit || looked >= most {
                return Ok(part);
            }
            looked += 1;
            part.next = entry.seq.saturating_add(1);
            if takes(&entry) {
                part.entries.push(entry);
            }
        }
    }
    part.ended = true;
    Ok(part)
}

fn read_lines(path: &Path, from: u64, out: &mut Vec<Entry>) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // A line that is being written is read the next time.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
    out.extend(lines.filter_map(Entry::parse));
    Ok(whole as u64)
}

/// All records of the journal in `dir`.
///
/// # Errors
/// A file can't be read.
pub fn read_entries(dir: &Path) -> io::Result<Vec<Entry>> {
    Reader::new(dir).more()
}
