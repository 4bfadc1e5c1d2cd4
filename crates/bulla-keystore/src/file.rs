//! Files that hold one 32-byte secret: a header line that says what it is, then the secret in
//! base64. Mode 0600, made exclusively, written through to the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_seal::Secret;
use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest key file that is read; the ones written here have about 100 bytes.
const MAX_FILE: u64 = 1024;

/// Who else may read a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Nobody.
    Private,
    /// The group, for what a service manager put into a folder of its own: an access list for
    /// one service shows as group bits.
    Credential,
}

impl Protection {
    /// The bits that must not be set.
    const fn forbidden(self) -> u32 {
        match self {
            Self::Private => 0o077,
            Self::Credential => 0o037,
        }
    }
}

/// A key file can't be made or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// There is a file already.
    #[error("{} exists already: a key file is never overwritten; move the old one away first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("cannot use the key file {}: check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("{} is not a regular file: give the path of a key file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("the key file {} may be read or written by others (mode {mode:03o}): run `chmod 600` on it, and make a new key if anyone may have read it", path.display())]
    Unprotected {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else, who can change it.
    #[error("the key file {} belongs to user {owner}: it must belong to the user that runs this program, or to root; run `chown` on it", path.display())]
    WrongOwner {
        /// The file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// The first line is not the one of this sort of key.
    #[error("{} is not a key file of the right sort: its first line must begin with `{expected}`", path.display())]
    WrongHeader {
        /// The file.
        path: PathBuf,
        /// What the first line begins with.
        expected: &'static str,
    },
    /// The second line is not base64, or there is more after it.
    #[error("the key file {} is damaged: after the first line it must have one line of base64 and nothing else", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Not 32 bytes.
    #[error("the key in {} has {found} bytes and must have 32: make a new one with `bulla init`", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// How many bytes it has.
        found: usize,
    },
    /// A key that others know or can guess.
    #[error("the key in {} is {why}: anyone can guess it; make a random one with `bulla init`", path.display())]
    Guessable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Writes `secret` under the line `header` to a new file.
pub(crate) fn create(path: &Path, header: &str, secret: &Secret<32>) -> Result<(), FileError> {
    let io = |source| FileError::Io { path: path.into(), source };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(FileError::Exists { path: path.into() });
        }
        Err(e) => return Err(io(e)),
    };
    let encoded = Zeroizing::new(STANDARD.encode(secret.expose()));
    let text = Zeroizing::new(format!("{header}\n{}\n", *encoded));
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(e) = written.and_then(|()| sync_folder(path)) {
        // Half a key file would only be in the way of the next attempt.
        let _ = std::fs::remove_file(path);
        return Err(io(e));
    }
    Ok(())
}

/// Makes a new entry in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// Reads a file that [`create`] made: the rest of the header line after `header`, and the secret.
pub(crate) fn read(path: &Path, header: &'static str) -> Result<(String, Secret<32>), FileError> {
    read_with(path, header, Protection::Private)
}

/// [`read`] for a file that may be less private.
pub(crate) fn read_with(
    path: &Path,
    header: &'static str,
    protection: Protection,
) -> Result<(String, Secret<32>), FileError> {
    let text = read_protected(path, protection)?;
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let malformed = || FileError::Malformed { path: path.into() };
    let detail = match first.strip_prefix(header) {
        Some("") => "",
        Some(detail) if detail.starts_with(' ') => detail.trim_start(),
        _ => return Err(FileError::WrongHeader { path: path.into(), expected: header }),
    };
    let encoded = rest.strip_suffix('\n').unwrap_or(rest);
    let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| malformed())?);
    let secret = Secret::from_slice(&bytes)
        .ok_or_else(|| FileError::Length { path: path.into(), found: bytes.len() })?;
    Ok((detail.to_owned(), secret))
}

/// The text of a file that only its owner, this user or root, may read.
pub(crate) fn read_protected(
    path: &Path,
    protection: Protection,
) -> Result<Zeroizing<String>, FileError> {
    let io = |source| FileError::Io { path: path.into(), source };
    // A pipe must be refused below, not waited for here.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io)?;
    check_protection(path, &file.metadata().map_err(io)?, protection)?;
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize + 1));
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData => FileError::Malformed { path: path.into() },
        _ => io(e),
    })?;
    if text.len() as u64 > MAX_FILE {
        return Err(FileError::Malformed { path: path.into() });
    }
    Ok(text)
}

fn check_protection(
    path: &Path,
    meta: &std::fs::Metadata,
    protection: Protection,
) -> Result<(), FileError> {
    if !meta.is_file() {
        return Err(FileError::NotAFile { path: path.into() });
    }
    let mode = meta.mode() & 0o777;
    if mode & protection.forbidden() != 0 {
        return Err(FileError::Unprotected { path: path.into(), mode });
    }
    let owner = meta.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(FileError::WrongOwner { path: path.into(), owner });
    }
    Ok(())
}
