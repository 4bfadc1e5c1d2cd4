//! Where a server remembers which messages ran, and when it must fear that it forgot.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_guard::{
    ClaimStore, LogClaims, LogOptions, MemoryClaims, NewStore, SqliteClaims, SqliteOptions,
    StoreOptions,
};
use bulla_rpc::{Clock, SystemClock};
use bulla_seal::{MAX_LIFE, Party};

use crate::error::ConnectError;
use crate::shared::SharedClaims;

/// What a note says of claims in a folder; of shared ones it says their place.
const IN_FOLDER: &str = "folder";
/// Of claims in a log.
const IN_LOG: &str = "log";
/// The claims' file in the state folder.
const FILE: &str = "claims.db";
/// The claims' log in the state folder.
const LOG: &str = "claims.log";

/// Where a server remembers which messages ran (protocol section 7).
#[derive(Debug, Clone)]
pub enum Claims {
    /// In a file of this folder, which must outlive the process. If it is lost, everything that
    /// may have run is refused: what was sealed before the start and the allowed difference of
    /// clocks (2 minutes) after.
    Folder(PathBuf),
    /// In memory, with a log in a file of this folder, which one process has. Nobody waits for the disk:
    /// it survives the end of the process, and when the machine went down without warning, what was
    /// sealed until then and 2 minutes after is refused unless the log knows it.
    Log(PathBuf),
    /// In memory: after every start, what was sealed before it and 2 minutes after is refused,
    /// but for `read_only` methods.
    Memory,
    /// On a server that hosts share. When it is found empty, or the claims were in another place
    /// before, what may have run is refused as above.
    Shared(SharedClaims),
    /// In a store of the caller's.
    Store(Arc<dyn ClaimStore>),
}

/// The folder beside a key file that claims go to unless another is named: `<key file>.state`.
pub fn default_state(key_file: &Path) -> PathBuf {
    beside(key_file, ".state")
}

fn beside(key_file: &Path, suffix: &str) -> PathBuf {
    let mut path = key_file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Whose claims, and since when there can be any.
pub(crate) struct Owner<'a> {
    pub(crate) key_file: &'a Path,
    pub(crate) party: &'a Party,
    /// Since when this principal and incarnation exists, in Unix seconds, as far as is known.
    pub(crate) since: Option<u64>,
}

/// What a lost store looks like, and what a first run: in both, there is no file. It is a first
/// run only if nothing beside the key file says that it was served before, and if the key file is
/// younger than the longest life of a message: one that was brought back from a backup, without
/// what lay beside it, is then no danger for longer than it was new.
fn new_file(owner: &Owner<'_>, now: u64) -> NewStore {
    let before = served(owner).is_some();
    let young = owner.since.is_some_and(|since| now.saturating_sub(since) <= MAX_LIFE);
    if young && !before { NewStore::NothingBefore } else { NewStore::MayBeLost }
}

/// Where this principal and incarnation kept its claims when it was last served, as far as a note
/// beside the key file says.
fn served(owner: &Owner<'_>) -> Option<String> {
    let note = fs::read_to_string(beside(owner.key_file, ".served")).unwrap_or_default();
    let mut lines = note.lines().map(str::trim);
    let ours = lines.next() == Some(owner.party.to_string().as_str());
    ours.then(|| lines.next().unwrap_or(IN_FOLDER).to_owned())
}

/// What ran while claims were kept elsewhere is not in a store that is come back to.
async fn lost_if_moved(
    store: &dyn ClaimStore,
    owner: &Owner<'_>,
    place: &str,
    now_ms: u64,
) -> Result<(), ConnectError> {
    let Some(before) = served(owner).filter(|before| before != place) else { return Ok(()) };
    tracing::warn!(
        before,
        place,
        "claims were kept elsewhere: what was sent before now and two minutes after is refused"
    );
    Ok(store.declare_lost(now_ms).await?)
}

/// Notes beside the key file that it was served. Where nothing can be written, its age alone
/// decides.
fn note_served(owner: &Owner<'_>, place: &str) {
    let path = beside(owner.key_file, ".served");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| {
            writeln!(file, "{}\n{place}", owner.party)?;
            file.sync_all()
        });
    if let Err(error) = written {
        tracing::debug!(path = %path.display(), %error, "can't note that the key file was served");
    }
}

pub(crate) async fn open(
    claims: &Claims,
    owner: &Owner<'_>,
) -> Result<Arc<dyn ClaimStore>, ConnectError> {
    let now = SystemClock.now();
    let now_ms = now.ns / 1_000_000;
    match claims {
        Claims::Store(store) => Ok(store.clone()),
        Claims::Memory => Ok(Arc::new(MemoryClaims::new(StoreOptions::default(), now_ms))),
        Claims::Shared(shared) => {
            // Of a component's other hosts this one knows nothing: they may have run things.
            let new_store = match owner.party.principal.is_component() {
                true => NewStore::MayBeLost,
                false => new_file(owner, now.secs()),
            };
            let store = shared.open(&owner.party.to_string(), new_store).await?;
            lost_if_moved(&*store, owner, shared.place(), now_ms).await?;
            note_served(owner, shared.place());
            Ok(store)
        }
        Claims::Log(folder) => {
            let (path, new_file) = place(folder, LOG, owner, now.secs())?;
            let store = LogClaims::open(&path, LogOptions::new(new_file, now_ms)).await?;
            lost_if_moved(&store, owner, IN_LOG, now_ms).await?;
            note_served(owner, IN_LOG);
            Ok(Arc::new(store))
        }
        Claims::Folder(folder) => {
            let (path, new_file) = place(folder, FILE, owner, now.secs())?;
            let store = SqliteClaims::open(&path, SqliteOptions::new(new_file, now_ms)).await?;
            lost_if_moved(&store, owner, IN_FOLDER, now_ms).await?;
            note_served(owner, IN_FOLDER);
            Ok(Arc::new(store))
        }
    }
}

/// The file in a folder of its own, and what it means if it is not there.
fn place(
    folder: &Path,
    file: &str,
    owner: &Owner<'_>,
    now: u64,
) -> Result<(PathBuf, NewStore), ConnectError> {
    private_folder(folder)
        .map_err(|source| ConnectError::State { path: folder.to_owned(), source })?;
    let path = folder.join(file);
    let new_file = new_file(owner, now);
    if new_file == NewStore::MayBeLost && !path.exists() {
        tracing::warn!(
            folder = %folder.display(),
            "there is no memory of which messages ran: what was sent before now and two minutes \
             after is refused"
        );
    }
    Ok((path, new_file))
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o022 != 0 {
        // Others could put an old file in the place of this one.
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bulla_seal::Principal;

    use super::*;

    fn party(incarnation: u32) -> Party {
        Party::new(Principal::agent("db-1").unwrap(), incarnation)
    }

    async fn blind(folder: &Path, key_file: &Path, party: &Party, since: Option<u64>) -> bool {
        let owner = Owner { key_file, party, since };
        let store = open(&Claims::Folder(folder.to_owned()), &owner).await.unwrap();
        store.stats().await.unwrap().blind_until.is_some()
    }

    #[tokio::test]
    async fn only_a_first_run_begins_with_nothing_to_fear() {
        let folder = tempfile::tempdir().unwrap();
        let (key, state) = (folder.path().join("db-1.key"), folder.path().join("state"));
        let now = SystemClock.now().secs();
        let lost = || fs::remove_dir_all(&state).unwrap();
        assert!(!blind(&state, &key, &party(1), Some(now)).await, "first run");
        assert!(!blind(&state, &key, &party(1), Some(now)).await, "second run");
        lost();
        assert!(blind(&state, &key, &party(1), Some(now)).await, "lost");
        // Under its next incarnation the agent shares nothing with what it was.
        lost();
        assert!(!blind(&state, &key, &party(2), Some(now)).await, "new key file");
        // A key file from a backup.
        let old = folder.path().join("old.key");
        lost();
        assert!(blind(&state, &old, &party(1), Some(now - MAX_LIFE - 1)).await, "old");
        lost();
        let unknown = folder.path().join("unknown.key");
        assert!(blind(&state, &unknown, &party(1), None).await, "of unknown age");
    }

    #[tokio::test]
    async fn a_log_beside_what_was_a_file_begins_with_something_to_fear() {
        let folder = tempfile::tempdir().unwrap();
        let (key, state) = (folder.path().join("db-1.key"), folder.path().join("state"));
        let party = party(1);
        let owner = Owner { key_file: &key, party: &party, since: Some(SystemClock.now().secs()) };
        let blind = async |claims: Claims| {
            let store = open(&claims, &owner).await.unwrap();
            store.stats().await.unwrap().blind_until.is_some()
        };
        assert!(!blind(Claims::Log(state.clone())).await, "first run");
        assert!(!blind(Claims::Log(state.clone())).await, "second run");
        assert!(blind(Claims::Folder(state.clone())).await, "moved");
        fs::remove_file(state.join(LOG)).unwrap();
        assert!(blind(Claims::Log(state.clone())).await, "lost");
    }

    #[tokio::test]
    async fn the_folder_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
        blind(&state, &folder.path().join("a.key"), &party(1), None).await;
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o077, 0);
        let taken = folder.path().join("taken");
        fs::write(&taken, "").unwrap();
        let owner = Owner { key_file: &taken, party: &party(1), since: None };
        let error = open(&Claims::Folder(taken.clone()), &owner).await.unwrap_err();
        assert!(matches!(error, ConnectError::State { .. }), "{error}");
    }
}
