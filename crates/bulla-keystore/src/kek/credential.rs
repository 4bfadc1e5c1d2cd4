//! A KEK that systemd hands over as a credential: a KEK file in `$CREDENTIALS_DIRECTORY`
//! (systemd.exec(5), `LoadCredential=`, `LoadCredentialEncrypted=`).

use std::path::{Component, Path, PathBuf};

use super::{Kek, KekError};
use crate::file::Protection;

/// The variable that names the folder.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The KEK in the credential `name`.
pub(super) fn load(name: &str) -> Result<Kek, KekError> {
    let folder = std::env::var_os(DIRECTORY).ok_or(KekError::NoCredentials)?;
    load_from(Path::new(&folder), name)
}

fn load_from(folder: &Path, name: &str) -> Result<Kek, KekError> {
    // systemd writes the mode; everything else is checked as for any other KEK file.
    Ok(Kek::read(&path(folder, name)?, Protection::Credential)?)
}

/// A name is one part of a path: it must not lead out of the folder.
fn path(folder: &Path, name: &str) -> Result<PathBuf, KekError> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Ok(folder.join(name)),
        _ => Err(KekError::CredentialName { name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::FileError;

    #[test]
    fn the_file_that_systemd_wrote_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let kek = Kek::create_file(folder.path().join("bulla-kek")).unwrap();
        for mode in [0o400, 0o440, 0o600] {
            let path = folder.path().join("bulla-kek");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(load_from(folder.path(), "bulla-kek").unwrap().id(), kek.id());
        }
        for mode in [0o404, 0o460, 0o644] {
            let path = folder.path().join("bulla-kek");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load_from(folder.path(), "bulla-kek").unwrap_err();
            let unprotected = matches!(error, KekError::File(FileError::Unprotected { .. }));
            assert!(unprotected, "{mode:o}: {error}");
        }
    }

    #[test]
    fn a_name_does_not_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("credentials");
        fs::create_dir(&inner).unwrap();
        Kek::create_file(folder.path().join("kek")).unwrap();
        let absolute = folder.path().join("kek");
        for name in ["../kek", "", ".", "..", "a/b", "kek/", absolute.to_str().unwrap()] {
            let error = load_from(&inner, name).unwrap_err();
            assert!(matches!(error, KekError::CredentialName { .. }), "{name}: {error}");
        }
        let error = load_from(&inner, "kek").unwrap_err();
        assert!(matches!(error, KekError::File(FileError::Io { .. })), "{error}");
    }

    #[test]
    fn a_guessable_one_is_refused_here_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        fs::write(&path, format!("bulla-kek 1\n{}=\n", "A".repeat(43))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        let error = load_from(folder.path(), "kek").unwrap_err();
        assert!(matches!(error, KekError::File(FileError::Guessable { .. })), "{error}");
    }
}
