//! Files that hold secrets: made once, for their owner alone, and refused when others can read
//! them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// Mode of a file with a secret.
pub(crate) const SECRET: u32 = 0o600;
/// Mode of a file that everybody may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// The largest certificate, key or token file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A file could not be read or made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is missing or may not be read.
    #[error("can't read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others than the owner can read or write a file that holds a secret.
    #[error(
        "{} has mode {mode:04o}, so others than its owner can reach the secret in it; \
         run `chmod 600 {}`, and replace the secret if others have used this machine",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is much larger than what belongs in it.
    #[error("{} is larger than {MAX_FILE} bytes; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file exists already; it is not overwritten.
    #[error("{} exists already and is not overwritten; move it away first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be written.
    #[error("can't write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Reads a file that everybody may see.
pub(crate) fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|source| unreadable(path, source))?;
    read(path, file).map(|mut bytes| std::mem::take(&mut *bytes))
}

/// Reads a file that only its owner may reach.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(|source| unreadable(path, source))?;
    // Asked of the open file: its name may point elsewhere a moment later.
    let mode = file.metadata().map_err(|source| unreadable(path, source))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.into(), mode });
    }
    read(path, file)
}

/// Makes a file that did not exist, with its mode from the first moment.
pub(crate) fn create(path: &Path, mode: u32, content: &[u8]) -> Result<(), FileError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(FileError::Exists { path: path.into() });
        }
        opened => opened.map_err(|source| unwritable(path, source))?,
    };
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|source| {
        // Half a file would be in the way of the next attempt.
        let _ = fs::remove_file(path);
        unwritable(path, source)
    })
}

fn read(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Room for the usual file at once: a growing buffer would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|source| unreadable(path, source))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(FileError::TooLarge { path: path.into() });
    }
    Ok(bytes)
}

fn unreadable(path: &Path, source: io::Error) -> FileError {
    FileError::Unreadable { path: path.into(), source }
}

fn unwritable(path: &Path, source: io::Error) -> FileError {
    FileError::Unwritable { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_for_its_owner_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, SECRET, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(matches!(create(&path, SECRET, b"two"), Err(FileError::Exists { .. })));
        assert_eq!(read_secret(&path).unwrap().as_slice(), b"one");
    }

    #[test]
    fn a_secret_that_others_can_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, SECRET, b"one").unwrap();
        for mode in [0o640, 0o604, 0o660, 0o610, 0o644] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(read_secret(&path), Err(FileError::Exposed { mode: m, .. }) if m == mode)
            );
        }
    }
}
