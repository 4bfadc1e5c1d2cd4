//! The file: appended to by one process at a time, read from its beginning by the next.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record::{HEAD, LONGEST, Record, head};

/// What every log begins with.
const MAGIC: &[u8; 16] = b"bulla claims 1\n\0";

/// An open log, at whose end records are written.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    file: Arc<File>,
    /// How far it is good: what stands behind was half written.
    len: u64,
    /// Something may stand behind.
    torn: bool,
    buffer: Vec<u8>,
}

/// Why a log can't be opened.
#[derive(Debug)]
pub(super) enum NotOpened {
    Io(io::Error),
    /// Another process has it.
    Taken,
    /// It is something else.
    Foreign,
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl LogFile {
    /// Opens the log, or makes it, for this process alone. Says whether it was there.
    pub(super) fn open(path: &Path) -> Result<(Self, bool), NotOpened> {
        let file = taken(path)?;
        let len = file.metadata()?.len();
        let mut log = Self::around(path.to_owned(), file, len);
        if len < MAGIC.len() as u64 {
            // A process that was cut off here had claimed nothing.
            log.file.set_len(0)?;
            (&*log.file).write_all(MAGIC)?;
            log.len = MAGIC.len() as u64;
            log.file.sync_all()?;
            sync_folder(path)?;
            return Ok((log, false));
        }
        let mut magic = [0; MAGIC.len()];
        log.file.read_exact_at(&mut magic, 0)?;
        if magic != *MAGIC {
            return Err(NotOpened::Foreign);
        }
        Ok((log, true))
    }

    fn around(path: PathBuf, file: File, len: u64) -> Self {
        Self { path, file: Arc::new(file), len, torn: false, buffer: Vec::with_capacity(4096) }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads all records, up to the first that is not whole; what is behind it is cut off.
    pub(super) fn read_all(&mut self, mut each: impl FnMut(Record)) -> io::Result<()> {
        let end = self.len;
        self.len = self.scan(end, |record, _| {
            each(record);
            Ok(())
        })?;
        self.file.set_len(self.len)
    }

    /// Reads records, with how they stand there; says how far they are good.
    fn scan(
        &self,
        end: u64,
        mut each: impl FnMut(Record, &[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(MAGIC.len() as u64))?;
        let mut from = BufReader::with_capacity(1 << 18, file.take(end - MAGIC.len() as u64));
        let (mut good, mut body) = (MAGIC.len() as u64, Vec::new());
        loop {
            let mut first = [0; HEAD];
            if !filled(&mut from, &mut first)? {
                return Ok(good);
            }
            let (len, _) = first.split_at(4);
            let len = len.try_into().map_or(0, u32::from_le_bytes) as usize;
            if len == 0 || len > LONGEST {
                return Ok(good);
            }
            body.clear();
            body.resize(len, 0);
            if !filled(&mut from, &mut body)? || head(&body) != first {
                return Ok(good);
            }
            let Some(record) = Record::read(&body) else { return Ok(good) };
            each(record, &body)?;
            good += (HEAD + len) as u64;
        }
    }

    /// Appends records: when this returns, they outlive this process, though not the machine.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        self.buffer.clear();
        for record in records {
            record.write(&mut self.buffer);
        }
        self.torn = true;
        (&*self.file).write_all(&self.buffer)?;
        self.torn = false;
        self.len += self.buffer.len() as u64;
        Ok(())
    }

    /// For syncing it while others append.
    pub(super) fn handle(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Puts a log in its place that has only the records that `keep` says, then `last`.
    pub(super) fn rewrite(
        &mut self,
        first: &Record,
        mut keep: impl FnMut(&Record) -> bool,
        last: &[Record],
    ) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let file = private(&beside)?;
        file.set_len(0)?;
        file.try_lock()?;
        let mut out = io::BufWriter::with_capacity(1 << 18, &file);
        out.write_all(MAGIC)?;
        let (mut len, mut bytes) = (MAGIC.len() as u64, Vec::new());
        first.write(&mut bytes);
        out.write_all(&bytes)?;
        len += bytes.len() as u64;
        self.scan(self.len, |record, body| {
            if keep(&record) {
                out.write_all(&head(body))?;
                out.write_all(body)?;
                len += (HEAD + body.len()) as u64;
            }
            Ok(())
        })?;
        bytes.clear();
        last.iter().for_each(|record| record.write(&mut bytes));
        out.write_all(&bytes)?;
        len += bytes.len() as u64;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        sync_folder(&self.path)?;
        let (path, buffer) = (std::mem::take(&mut self.path), std::mem::take(&mut self.buffer));
        *self = Self { buffer, ..Self::around(path, file, len) };
        Ok(())
    }
}

/// Whether there was enough to fill it.
fn filled(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Opens it and locks it, and is sure that it is still what stands there.
fn taken(path: &Path) -> Result<File, NotOpened> {
    let file = private(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(NotOpened::Taken),
        Err(fs::TryLockError::Error(error)) => return Err(error.into()),
    }
    // Who had it before may have put another in its place.
    if fs::metadata(path)?.ino() != file.metadata()?.ino() {
        return Err(NotOpened::Taken);
    }
    Ok(file)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
