//! The newest statement of revocation that this host told, kept in its home and not in the database:
//! it says what a database that was put back from a backup has forgotten.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use bulla_journal::{Events, events};
use bulla_keystore::{Keystore, Recalled};
use bulla_seal::SignedStatement;

use crate::failure::{Failure, Result};
use crate::journal::CommandJournal;
use crate::output::date;
use crate::settings::Home;

fn file(home: &Home) -> PathBuf {
    home.state().join("statement")
}

/// Revokes again what the database has forgotten.
pub(super) async fn recall_from_home(home: &Home, keystore: &Keystore) -> Result<()> {
    let Some(statement) = read(home, keystore)? else { return Ok(()) };
    let Some(recalled) = keystore.recall(&statement).await? else { return Ok(()) };
    say(&recalled);
    keystore.fill_component_keys().await?;
    journal(home, &recalled).await
}

async fn journal(home: &Home, recalled: &Recalled) -> Result<()> {
    let journal = CommandJournal::open(home).await?;
    journal.record(event(recalled));
    journal.finish()
}

/// What is done once the database was put back, whether or not that shows.
pub(crate) async fn put_back(home: &Home) -> Result<Recalled> {
    let keystore = super::open_keystore_with(home, super::kek::ring(home)?).await??;
    let told = match read(home, &keystore)? {
        Some(statement) => statement,
        None => keystore.statement().await?,
    };
    let done = keystore.put_back(&told).await?;
    keystore.fill_component_keys().await?;
    keystore.close().await;
    journal(home, &done).await?;
    Ok(done)
}

fn read(home: &Home, keystore: &Keystore) -> Result<Option<SignedStatement>> {
    let path = file(home);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(format!("can't read {}: {error}", path.display()))),
    };
    let verified = keystore.trust_store().verify_statement(&bytes);
    verified.map(Some).map_err(|_| {
        Failure::new(format!(
            "{} was not signed by an issuer that this keystore knows: it is another deployment's \
             keystore, or one from before its root changed. If that is meant, delete the file: what \
             it revokes is not revoked then",
            path.display()
        ))
    })
}

/// The same for a statement that is held.
pub(super) async fn recall(
    keystore: &Keystore,
    statement: &SignedStatement,
    events: &Events,
) -> Result<()> {
    let Some(recalled) = keystore.recall(statement).await? else { return Ok(()) };
    say(&recalled);
    events.record(event(&recalled));
    keystore.fill_component_keys().await?;
    Ok(())
}

/// For people, with what is left to do.
fn say(recalled: &Recalled) {
    tracing::error!(
        told = %date(recalled.told),
        stored = %date(recalled.stored),
        components = recalled.components.len(),
        groups = recalled.groups.len(),
        tokens = recalled.tokens,
        "the keystore is older than what was told of it, as from a backup: what was revoked since \
         is revoked again, keys of component types and groups are new, open join tokens are \
         withdrawn. See \"Backups and loss\" in docs/operate.md for what is left to do"
    );
}

fn event(recalled: &Recalled) -> events::KeystoreRecalled {
    let count = |many: usize| u64::try_from(many).unwrap_or(u64::MAX);
    events::KeystoreRecalled {
        told: recalled.told,
        stored: recalled.stored,
        components: count(recalled.components.len()),
        groups: count(recalled.groups.len()),
        tokens: recalled.tokens,
    }
}

/// Keeps `statement` in the home, whole or not at all.
pub(super) fn note(home: &Home, statement: &SignedStatement) -> io::Result<()> {
    let path = file(home);
    let folder = home.state();
    fs::create_dir_all(&folder)?;
    let new = folder.join(format!("statement.{}", std::process::id()));
    let mut to = OpenOptions::new();
    let mut to = to.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    to.set_permissions(Permissions::from_mode(0o600))?;
    to.write_all(statement.as_bytes())?;
    to.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(&folder)?.sync_all()
}
