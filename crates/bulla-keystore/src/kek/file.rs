//! KEK files: the next one beside the current one, and what becomes of the old one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::file::{FileError, sync_folder};

/// Where the KEK that a rotation goes over to lies: beside `path`, with `.next` after its name.
pub fn next_file(path: &Path) -> PathBuf {
    beside(path, ".next")
}

/// Retires the KEK file `path` after a rotation: it becomes `path.old-DATE`, and `next`, if there
/// is one, takes its place. At no moment is there no file at `path` that had one and gets one,
/// and a call that was cut off can be repeated. Gives the old file's new name.
///
/// # Errors
/// When a file can't be linked or renamed.
pub fn retire_file(path: &Path, next: Option<&Path>, date: &str) -> Result<PathBuf, FileError> {
    let fail = |source| FileError::Io { path: path.into(), source };
    let old = set_aside(path, date).map_err(fail)?;
    match next {
        Some(next) => fs::rename(next, path).map_err(fail)?,
        None => fs::remove_file(path).map_err(fail)?,
    }
    sync_folder(path).map_err(fail)?;
    Ok(old)
}

/// A second name for the file: one that an earlier, interrupted call gave it, or a new one.
fn set_aside(path: &Path, date: &str) -> io::Result<PathBuf> {
    let file = fs::metadata(path)?;
    for n in 1u32.. {
        let suffix = if n == 1 { format!(".old-{date}") } else { format!(".old-{date}-{n}") };
        let old = beside(path, &suffix);
        match fs::hard_link(path, &old) {
            Ok(()) => {
                sync_folder(&old)?;
                return Ok(old);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let there = fs::symlink_metadata(&old)?;
                if (there.dev(), there.ino()) == (file.dev(), file.ino()) {
                    return Ok(old);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kek;

    #[test]
    fn the_next_file_takes_the_place_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let (old, new) = (Kek::create_file(&path).unwrap(), next_file(&path));
        let next = Kek::create_file(&new).unwrap();
        let kept = retire_file(&path, Some(&new), "2026-11-22").unwrap();
        assert_eq!(kept, folder.path().join("kek.old-2026-11-22"));
        assert_eq!(Kek::from_file(&path).unwrap().id(), next.id());
        assert_eq!(Kek::from_file(&kept).unwrap().id(), old.id());
        assert!(!new.exists());
        // Again on the same day: nothing is overwritten.
        let third = Kek::create_file(&new).unwrap();
        let second = retire_file(&path, Some(&new), "2026-11-22").unwrap();
        assert_eq!(second, folder.path().join("kek.old-2026-11-22-2"));
        assert_eq!(Kek::from_file(&kept).unwrap().id(), old.id());
        assert_eq!(Kek::from_file(&second).unwrap().id(), next.id());
        assert_eq!(Kek::from_file(&path).unwrap().id(), third.id());
    }

    #[test]
    fn a_call_that_was_cut_off_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let (old, new) = (Kek::create_file(&path).unwrap(), next_file(&path));
        let next = Kek::create_file(&new).unwrap();
        fs::hard_link(&path, folder.path().join("kek.old-2026-11-22")).unwrap();
        let kept = retire_file(&path, Some(&new), "2026-11-22").unwrap();
        assert_eq!(kept, folder.path().join("kek.old-2026-11-22"));
        assert_eq!(Kek::from_file(&kept).unwrap().id(), old.id());
        assert_eq!(Kek::from_file(&path).unwrap().id(), next.id());
        // Without a successor the place is empty afterwards.
        let kept = retire_file(&path, None, "2026-11-23").unwrap();
        assert_eq!(Kek::from_file(&kept).unwrap().id(), next.id());
        assert!(!path.exists());
    }
}
