//! Where the control plane remembers which messages ran.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla::SharedClaims;
use bulla_guard::{ClaimStore, MemoryClaims, NewStore, SqliteClaims, SqliteOptions, StoreOptions};
use bulla_rpc::{Clock, SystemClock};

use super::bus::Bus;
use crate::failure::{Failure, Result};
use crate::settings::{Claims, Home, password};

/// Keeps the control plane's claims apart from others' on one Redis.
const NAME: &str = "component/control";

/// How a note names the file that is used unless another store is set.
const IN_HOME: &str = "home";

/// What is set.
enum Choice {
    Memory,
    Sqlite(PathBuf),
    Shared(SharedClaims),
}

impl Choice {
    fn new(home: &Home, settings: &Claims) -> Result<Self> {
        let Some(store) = &settings.store else { return Ok(Self::Sqlite(default_file(home))) };
        if store == "memory" {
            return Ok(Self::Memory);
        }
        if let Some(path) = store.strip_prefix("sqlite:") {
            // Also as a URL.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(Failure::usage("[claims] store: `sqlite:` needs the path of a file")),
                path => Ok(Self::Sqlite(path.into())),
            };
        }
        let shared = SharedClaims::new(store)
            .map_err(|error| Failure::usage(format!("[claims] store: {error}")))?;
        let password =
            password(settings.password.as_ref(), settings.password_file.as_ref(), "claim store")?;
        Ok(Self::Shared(match password {
            Some(password) => shared.password(&password)?,
            None => shared,
        }))
    }

    /// How a note names it.
    fn place(&self, home: &Home) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Sqlite(path) if *path == default_file(home) => IN_HOME.to_owned(),
            Self::Sqlite(path) => {
                let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                format!("sqlite:{}", whole.display())
            }
            Self::Shared(shared) => shared.place().to_owned(),
        }
    }
}

fn default_file(home: &Home) -> PathBuf {
    home.state().join("control-claims.db")
}

/// `init` leaves a mark that nothing ran yet; the first start takes it away. Without it a missing
/// or empty store means that what ran is forgotten, and then what may have run is refused.
fn new_store(home: &Home) -> NewStore {
    if home.unused().exists() { NewStore::NothingBefore } else { NewStore::MayBeLost }
}

/// A bus in memory was born with this process, so nothing was received before. On a broker's
/// queues the memory has to outlive the process, or what may have run is refused.
pub(crate) async fn open(home: &Home, settings: &Claims, bus: &Bus) -> Result<Arc<dyn ClaimStore>> {
    if bus.is_memory() {
        return Ok(Arc::new(MemoryClaims::for_new_bus(StoreOptions::default())));
    }
    make_folder(&home.state())?;
    let choice = Choice::new(home, settings)?;
    let now_ms = SystemClock.now().ns / 1_000_000;
    let store: Arc<dyn ClaimStore> = match &choice {
        Choice::Memory => Arc::new(MemoryClaims::new(StoreOptions::default(), now_ms)),
        Choice::Sqlite(path) => {
            let options = SqliteOptions::new(new_store(home), now_ms);
            Arc::new(SqliteClaims::open(path, options).await?)
        }
        Choice::Shared(shared) => shared.open(NAME, new_store(home)).await?,
    };
    note_place(home, &choice.place(home), &*store, now_ms).await?;
    take_away(&home.unused())?;
    Ok(store)
}

/// What ran while claims were kept elsewhere is not in a store that is come back to.
async fn note_place(home: &Home, place: &str, store: &dyn ClaimStore, now_ms: u64) -> Result<()> {
    let note = home.state().join("claims.place");
    let before = match fs::read_to_string(&note) {
        Ok(text) => text.trim().to_owned(),
        // Until there was a choice, they were here.
        Err(error) if error.kind() == ErrorKind::NotFound => IN_HOME.to_owned(),
        Err(error) => return Err(Failure::new(format!("can't read {}: {error}", note.display()))),
    };
    if before == place {
        return Ok(());
    }
    if !home.unused().exists() {
        tracing::warn!(
            before,
            place,
            "claims were kept elsewhere: what was sent before now and two minutes after is refused"
        );
        store.declare_lost(now_ms).await?;
    }
    fs::write(&note, format!("{place}\n"))
        .map_err(|error| Failure::new(format!("can't write {}: {error}", note.display())))
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .map_err(|error| Failure::new(format!("can't make {}: {error}", path.display())))
}

fn take_away(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::new(format!("can't take {} away: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// What `bulla doctor` says: a shared store is opened as a start would open it, which refuses one
/// that forgets (a Redis that evicts, a database that does not wait for its disk).
pub(crate) async fn examine(home: &Home, settings: &Claims) -> Result<String> {
    match Choice::new(home, settings)? {
        Choice::Memory => Ok("in memory; each start refuses what was sent before it".to_owned()),
        Choice::Sqlite(path) => Ok(format!("in {}, for one host", path.display())),
        Choice::Shared(shared) => {
            shared.open(NAME, new_store(home)).await?;
            Ok(format!("{} keeps them, for any number of hosts", shared.place()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(store: &str) -> Claims {
        Claims { store: Some(store.to_owned()), ..Claims::default() }
    }

    async fn is_blind(home: &Home, settings: &Claims) -> bool {
        let bus = crate::settings::Bus { url: Some("amqp://h".into()), ..Default::default() };
        let bus = Bus::from_settings(&bus, "test").unwrap();
        let store = open(home, settings, &bus).await.unwrap();
        store.stats().await.unwrap().blind_until.is_some()
    }

    #[tokio::test]
    async fn a_store_that_is_come_back_to_counts_as_lost() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        make_folder(&home.state()).unwrap();
        fs::write(home.unused(), "").unwrap();
        assert!(!is_blind(&home, &Claims::default()).await, "nothing ran yet");
        assert!(!is_blind(&home, &Claims::default()).await, "as it was");
        let other = set(&format!("sqlite:{}", folder.path().join("other.db").display()));
        assert!(is_blind(&home, &other).await, "moved");
        assert!(is_blind(&home, &Claims::default()).await, "and back: what ran there is not here");
    }

    #[test]
    fn bad_stores_are_told_without_their_password() {
        let home = Home::new(Path::new("/nowhere"));
        for bad in ["sqlite:", "amqp://u:secret@h", "secret"] {
            let Err(failure) = Choice::new(&home, &set(bad)) else { panic!("{bad}") };
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
        let file = Claims { password_file: Some("/nowhere/x".into()), ..set("redis://h") };
        assert!(Choice::new(&home, &file).is_err());
    }
}
