//! What can go wrong.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A key that can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a key in the form of a signed note's.
    #[error("{what} is no key for signed notes with Ed25519 ({why})")]
    Malformed {
        /// Which.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Others than its owner can read it.
    #[error(
        "{path} can be read by others than its owner: chmod 600 it, or make another key if somebody did"
    )]
    Readable {
        /// The file.
        path: PathBuf,
    },
    /// The machine gives no random bytes.
    #[error("the machine gives no random bytes")]
    Random,
}

/// The journal can't be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system refuses.
    #[error("can't {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process writes it.
    #[error("{path} is written by another process")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Nothing in the last file is signed with this key, so there is nothing to go on from.
    #[error(
        "the last file of the journal, {path}, holds no checkpoint that is signed with this key: it \
         was altered, or the key is another. Keep the folder {folder} as evidence under another \
         name, and a new journal begins"
    )]
    NoCheckpoint {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// The setting makes no sense.
    #[error("{0}")]
    Usage(&'static str),
}

impl JournalError {
    /// With what was tried.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
