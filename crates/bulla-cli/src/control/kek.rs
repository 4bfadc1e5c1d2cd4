//! Where the key-encryption key comes from, as `[kek]` says.

use std::path::PathBuf;

use bulla_keystore::{Kek, KekError, KekRing, KekSource, next_file};

use crate::failure::{Failure, Result};
use crate::settings::{Home, Kek as KekSettings, Provider, Settings};

/// The variable, the credential and the token's key that are looked for unless set.
const VARIABLE: &str = "BULLA_KEK";
const CREDENTIAL: &str = "bulla-kek";
#[cfg(feature = "pkcs11")]
const TOKEN_KEY: &str = "bulla-kek";
/// Where a token's PIN is unless a file is named.
#[cfg(feature = "pkcs11")]
const PIN: &str = "BULLA_KEK_PIN";

/// Where the KEKs of this deployment are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The current one.
    pub(crate) current: KekSource,
    /// The one that `[kek.next]` names.
    named_next: Option<KekSource>,
}

impl Sources {
    /// As set for the home folder.
    pub(crate) fn of(home: &Home) -> Result<Self> {
        Self::new(home, &Settings::load(home.dir())?.kek)
    }

    pub(crate) fn new(home: &Home, settings: &KekSettings) -> Result<Self> {
        let current = source(settings, home.kek())?;
        let named_next = match &settings.next {
            None => None,
            Some(next) if next.next.is_some() || next.backup.is_some() => {
                return Err(Failure::usage(
                    "[kek.next] has a `next` or a `backup` of its own: both go into [kek]",
                ));
            }
            Some(next) => Some(source(next, beside(&current).unwrap_or_else(|| home.kek()))?),
        };
        if named_next.as_ref() == Some(&current) {
            return Err(Failure::usage(
                "[kek] and [kek.next] name the same key: take [kek.next] out of bulla.toml, or \
                 name another key there",
            ));
        }
        Ok(Self { current, named_next })
    }

    /// Where a rotation goes: as named, or for a file, beside it.
    pub(crate) fn next(&self) -> Option<KekSource> {
        self.named_next.clone().or_else(|| beside(&self.current).map(KekSource::File))
    }

    /// Every KEK that is there. What is there and can't be used is an error, not a key fewer.
    fn load(&self) -> Result<Vec<Kek>, KekError> {
        let mut keks = Vec::new();
        let mut absent = None;
        let beside = beside(&self.current).map(KekSource::File);
        let mut sources = vec![&self.current];
        sources.extend(&self.named_next);
        sources.extend(beside.as_ref().filter(|beside| Some(*beside) != self.named_next.as_ref()));
        for source in sources {
            match source.load() {
                Ok(kek) => keks.push(kek),
                Err(error) if error.is_absent() => {
                    absent.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match absent {
            Some(error) if keks.is_empty() => Err(error),
            _ => Ok(keks),
        }
    }
}

/// The KEKs of a home folder. A process that meets a value under another one reads the settings
/// and fetches again, so that it goes through a rotation without a restart.
pub(crate) fn ring(home: &Home) -> Result<KekRing> {
    // For the message that a mistake in the settings deserves.
    let first = Sources::of(home)?;
    let home = home.clone();
    let look = move || match Sources::of(&home) {
        Ok(sources) => sources.load(),
        Err(_) => first.load(),
    };
    KekRing::watching(look).map_err(|error| {
        let absent = error.is_absent();
        let failure = Failure::from(error);
        if absent { with_loss(&failure) } else { failure }
    })
}

/// What the loss of the key means, after what was said.
pub(crate) fn with_loss(failure: &Failure) -> Failure {
    Failure::new(format!("{failure}.\n{}", bulla_keystore::LOSS))
}

/// The file beside a KEK's own.
fn beside(current: &KekSource) -> Option<PathBuf> {
    match current {
        KekSource::File(path) => Some(next_file(path)),
        _ => None,
    }
}

/// One source; `file` is where a file lies unless its path is set.
pub(crate) fn source(settings: &KekSettings, file: PathBuf) -> Result<KekSource> {
    let text = |set: &Option<String>, default: &str| {
        set.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    Ok(match settings.provider {
        Provider::File => KekSource::File(settings.path.clone().unwrap_or(file)),
        Provider::Environment => KekSource::Environment(text(&settings.variable, VARIABLE)),
        Provider::Credential => KekSource::Credential(text(&settings.credential, CREDENTIAL)),
        Provider::Pkcs11 => token(settings)?,
    })
}

#[cfg(feature = "pkcs11")]
fn token(settings: &KekSettings) -> Result<KekSource> {
    use bulla_keystore::pkcs11::{Pin, TokenKey};

    let missing =
        |what: &str| Failure::usage(format!("[kek] provider = \"pkcs11\" needs `{what}`"));
    let id = settings.key_id.as_deref().map(hex::decode).transpose();
    Ok(KekSource::Pkcs11(TokenKey {
        module: settings.module.clone().ok_or_else(|| missing("module"))?,
        token: settings.token.clone().ok_or_else(|| missing("token"))?,
        label: settings.key.clone().unwrap_or_else(|| TOKEN_KEY.to_owned()),
        id: id.map_err(|_| Failure::usage("[kek] key-id must be in hex"))?,
        pin: match &settings.pin_file {
            Some(path) => Pin::File(path.clone()),
            None => Pin::Environment(PIN.to_owned()),
        },
    }))
}

#[cfg(not(feature = "pkcs11"))]
fn token(_: &KekSettings) -> Result<KekSource> {
    Err(Failure::usage(
        "[kek] provider = \"pkcs11\" needs a program that was built with `--features pkcs11`",
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sources(text: &str) -> Result<Sources> {
        let settings: Settings = toml::from_str(text).unwrap();
        Sources::new(&Home::new(Path::new("/home")), &settings.kek)
    }

    fn file(path: &str) -> KekSource {
        KekSource::File(path.into())
    }

    #[test]
    fn a_file_in_the_home_folder_unless_something_else_is_set() {
        let set = sources("").unwrap();
        assert_eq!(
            (set.current.clone(), set.next()),
            (file("/home/kek"), Some(file("/home/kek.next")))
        );
        let set = sources("[kek]\npath = '/etc/kek'").unwrap();
        assert_eq!(
            (set.current.clone(), set.next()),
            (file("/etc/kek"), Some(file("/etc/kek.next")))
        );
        let set = sources("[kek]\nprovider = 'environment'").unwrap();
        assert_eq!(set.current, KekSource::Environment("BULLA_KEK".into()));
        assert_eq!(set.next(), None);
        let set = sources("[kek]\nprovider = 'credential'\n[kek.next]\nprovider = 'file'").unwrap();
        assert_eq!(set.current, KekSource::Credential("bulla-kek".into()));
        assert_eq!(set.next(), Some(file("/home/kek")));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "[kek.next]\npath = '/home/kek'",
            "[kek.next]\nprovider = 'file'\nbackup = '/b'",
            "[kek.next.next]\nprovider = 'file'",
        ] {
            assert_eq!(sources(text).unwrap_err().code(), 2, "{text}");
        }
        assert!(toml::from_str::<Settings>("[kek]\nprovider = 'paper'").is_err());
    }

    #[test]
    fn a_key_that_can_not_be_used_is_not_passed_over() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let set = Sources::new(&home, &KekSettings::default()).unwrap();
        assert!(set.load().unwrap_err().is_absent());
        Kek::create_file(home.kek()).unwrap();
        assert_eq!(set.load().unwrap().len(), 1);
        let next = next_file(&home.kek());
        Kek::create_file(&next).unwrap();
        assert_eq!(set.load().unwrap().len(), 2);
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!set.load().unwrap_err().is_absent());
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::remove_file(home.kek()).unwrap();
        assert_eq!(set.load().unwrap().len(), 1);
    }
}
