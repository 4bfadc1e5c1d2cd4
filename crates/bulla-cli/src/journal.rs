//! The journals of a deployment: one for each process that runs, one for what commands do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla_journal::{
    Event, Events, Health, Journal, JournalError, OnFull, Options, PublicKey, SigningKey, Sync,
};
use bulla_rpc::JournalCalls;
use bulla_seal::TrustDomain;
use clap::ValueEnum;
use serde::Deserialize;

use crate::control::{kek, open_keystore_with};
use crate::failure::{Failure, Result};
use crate::settings::{Home, Settings};
use crate::when;

/// What the journal of one process is called if another process has that name already.
const NAMES: u32 = 32;
/// How long a command waits for another that writes the commands' journal.
const TURN: Duration = Duration::from_secs(5);

/// How journals are kept.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct JournalSettings {
    pub(crate) off: bool,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) calls: CallsSetting,
    pub(crate) on_full: FullSetting,
    pub(crate) sync: Option<String>,
    pub(crate) checkpoint: Option<String>,
    pub(crate) file_mib: Option<u64>,
    pub(crate) file_age: Option<String>,
    pub(crate) keep_files: Option<usize>,
    pub(crate) keep: Option<String>,
}

/// Which calls are in the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CallsSetting {
    // Plain comments: the command line lists the values in one line.
    #[default]
    None,
    Mutating,
    All,
}

/// What happens when the journal can't be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FullSetting {
    /// Events are lost and counted.
    #[default]
    Lose,
    /// Nothing is changed any more.
    Stop,
}

impl From<CallsSetting> for JournalCalls {
    fn from(calls: CallsSetting) -> Self {
        match calls {
            CallsSetting::None => Self::None,
            CallsSetting::Mutating => Self::Mutating,
            CallsSetting::All => Self::All,
        }
    }
}

impl JournalSettings {
    /// The folder that the journals of a home folder's processes are in.
    pub(crate) fn folder(&self, home: &Home) -> PathBuf {
        self.folder.clone().unwrap_or_else(|| home.journals())
    }

    /// How the journal `origin` is written.
    pub(crate) fn options(&self, origin: &str) -> Result<Options> {
        let defaults = Options::new(origin);
        let age = |name: &str, text: &Option<String>, default: Duration| match text {
            None => Ok(default),
            Some(text) => when::duration(text).filter(|age| !age.is_zero()).ok_or_else(|| {
                Failure::usage(format!("[journal] {name} {text:?}: give a while such as 10s or 1d"))
            }),
        };
        let sync = match self.sync.as_deref() {
            Some("batch") => Sync::Batch,
            _ => Sync::Every(age("sync", &self.sync, Duration::from_secs(1))?),
        };
        let file_bytes = self.file_mib.map_or(defaults.file_bytes, |mib| mib.max(1) << 20);
        let keep_age = match &self.keep {
            None => None,
            keep => Some(age("keep", keep, Duration::MAX)?),
        };
        let on_full = match self.on_full {
            FullSetting::Lose => OnFull::Lose,
            FullSetting::Stop => OnFull::Stop,
        };
        Ok(Options {
            sync,
            checkpoint_every: age("checkpoint", &self.checkpoint, defaults.checkpoint_every)?,
            file_bytes,
            file_age: age("file-age", &self.file_age, defaults.file_age)?,
            keep_files: self.keep_files.unwrap_or(defaults.keep_files).max(1),
            keep_age,
            on_full,
            ..defaults
        })
    }
}

/// The name under which the journals of a deployment are signed.
fn key_name(domain: &TrustDomain) -> String {
    format!("{domain}/journal")
}

/// The journals' key, made if there is none, with its public key beside it.
pub(crate) fn key(path: &Path, domain: &TrustDomain) -> Result<SigningKey> {
    Ok(SigningKey::load_or_create(path, &key_name(domain))?)
}

/// The journal of a process that runs.
#[derive(Debug, Clone)]
pub(crate) struct Journalled {
    pub(crate) events: Events,
    journal: Option<Arc<Journal>>,
}

impl Journalled {
    /// Opens the journal of a control-plane process.
    pub(crate) fn control(
        home: &Home,
        settings: &JournalSettings,
        domain: &TrustDomain,
    ) -> Result<Self> {
        Self::open(&settings.folder(home), "control", &home.journal_key(), settings, domain)
    }

    /// Opens a journal in `folder`, under the first of its names that is free: other processes may
    /// run beside this one.
    pub(crate) fn open(
        folder: &Path,
        name: &str,
        key_path: &Path,
        settings: &JournalSettings,
        domain: &TrustDomain,
    ) -> Result<Self> {
        if settings.off {
            return Ok(Self { events: Events::default(), journal: None });
        }
        let mut number = 1;
        loop {
            let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            let origin = format!("{}/{name}", key_name(domain));
            let version = Some(env!("CARGO_PKG_VERSION"));
            let options = Options { version, ..settings.options(&origin)? };
            match Journal::open(&folder.join(name), key(key_path, domain)?, options) {
                Err(JournalError::Busy { .. }) if number < NAMES => number += 1,
                opened => {
                    let journal = Arc::new(opened?);
                    let events = Events::to(journal.clone());
                    return Ok(Self { events, journal: Some(journal) });
                }
            }
        }
    }

    /// How it does; `None` if none is kept.
    pub(crate) fn health(&self) -> Option<Health> {
        Some(self.journal.as_ref()?.health())
    }

    /// Bytes that are left on its disk.
    pub(crate) fn disk_free(&self) -> Option<u64> {
        disk_free(self.journal.as_ref()?.dir())
    }

    /// Writes what is left.
    pub(crate) async fn close(&self) {
        let Some(journal) = self.journal.clone() else { return };
        if let Err(error) = tokio::task::spawn_blocking(move || journal.close()).await {
            tracing::error!(%error, "the journal ended badly");
        }
    }
}

/// Bytes that this user may still write to the disk that `path` is on.
pub(crate) fn disk_free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The journal of commands, which take turns with it.
#[derive(Debug)]
pub(crate) struct CommandJournal {
    journal: Option<Arc<Journal>>,
    events: Events,
    stop: bool,
}

impl CommandJournal {
    /// Opens it before anything is done.
    ///
    /// # Errors
    /// It can't be opened, and nothing is to be done that is not in it.
    pub(crate) async fn open(home: &Home) -> Result<Self> {
        let settings = Settings::load(home.dir())?.journal;
        let stop = settings.on_full == FullSetting::Stop;
        let opened = if settings.off { Ok(None) } else { turn(home, &settings).await };
        let journal = match opened {
            Ok(journal) => journal.map(Arc::new),
            Err(failure) if stop => {
                return Err(Failure::new(format!(
                    "nothing was done, because it could not be journalled: {failure}"
                )));
            }
            Err(failure) => {
                tracing::warn!("what this command does is not journalled: {failure}");
                None
            }
        };
        let events = match &journal {
            Some(journal) => Events::to(journal.clone()),
            None => Events::default(),
        };
        Ok(Self { journal, events, stop })
    }

    /// Records what was done. The command tells of it itself.
    pub(crate) fn record(&self, event: impl Into<Event>) {
        self.events.record(event);
    }

    /// Waits until it is on the disk, and ends.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn finish(self) -> Result<()> {
        let flushed = self.flush();
        if let Some(journal) = &self.journal {
            journal.close();
        }
        flushed
    }

    /// Waits until it is on the disk.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn flush(&self) -> Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        match journal.flush() {
            Err(error) if self.stop => Err(Failure::new(format!(
                "it was done, but it is not in the journal {}: {error}",
                journal.dir().display()
            ))),
            Err(error) => {
                tracing::warn!(%error, "what this command did is not in the journal");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Waits for other commands that write it.
async fn turn(home: &Home, settings: &JournalSettings) -> Result<Option<Journal>> {
    let begun = Instant::now();
    let name = "commands";
    if !home.journal_key().exists() {
        // A deployment that was made before there were journals.
        let keystore = open_keystore_with(home, kek::ring(home)?).await??;
        key(&home.journal_key(), keystore.trust_store().domain())?;
        keystore.close().await;
    }
    loop {
        let key = SigningKey::load_or_create(&home.journal_key(), "journal")?;
        let options = settings.options(&format!("{}/{name}", key.public().name()))?;
        // Where nothing may be done that is not journalled, it is tried before.
        let stop = options.on_full == OnFull::Stop;
        let version = stop.then_some(env!("CARGO_PKG_VERSION"));
        let options = Options { version, ..options };
        match Journal::open(&settings.folder(home).join(name), key, options) {
            Err(JournalError::Busy { .. }) if begun.elapsed() < TURN => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            opened => {
                let journal = opened?;
                if stop {
                    journal.flush()?;
                }
                return Ok(Some(journal));
            }
        }
    }
}

/// The public key that a home folder's journals are verified with.
pub(crate) fn public_key(home: &Home, given: Option<&Path>) -> Result<PublicKey> {
    let path = given.map_or_else(|| home.journal_key().with_extension("pub"), Path::to_owned);
    PublicKey::read(&path).map_err(|error| {
        Failure::new(format!(
            "the journals' public key can't be used ({error}); name its file with --key"
        ))
    })
}
