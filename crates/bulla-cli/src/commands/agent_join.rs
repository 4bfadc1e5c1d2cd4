//! The first start of an agent: from a join file to a key file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_rpc::enrol;
use bulla_rpc::identity::{self, Injected, JoinFile, JoinTerms, PendingFile};
use bulla_rpc::{Clock, KeyFile, KeyFileError, SystemClock};
use bulla_seal::Refusal;
use bulla_seal::enrol::{Application, Request};

use super::agent::agent_bus;
use super::private_folder;
use crate::cli::AgentRunArgs;
use crate::failure::{Failure, Result};
use crate::output::{Output, date};

/// The key file that an agent runs with, and where it is. With a join file, the agent joins first,
/// unless it did before.
pub(super) async fn key_file(args: &AgentRunArgs, out: Output) -> Result<(KeyFile, PathBuf)> {
    let given = args.join.as_ref().or(args.key.as_ref());
    let given = given.ok_or_else(|| Failure::usage("give --key FILE or --join FILE"))?;
    let key_path = key_path(given, args.state.as_deref());
    let injected = match Injected::read(given) {
        Ok(injected) => injected,
        // It was burnt when the agent joined.
        Err(error) if gone(&error) && key_path != *given && key_path.exists() => {
            return Ok((KeyFile::read(&key_path)?, key_path));
        }
        Err(error) => {
            // A fragment whose line was burnt is no key file any more.
            if key_path != *given && key_path.exists() && args.join.is_some() {
                return Ok((KeyFile::read(&key_path)?, key_path));
            }
            return Err(error.into());
        }
    };
    let join = match injected {
        Injected::Key(file) => return given_key(file, given, key_path),
        Injected::Join(join) => join,
    };
    if key_path != *given
        && let Some(file) = joined_before(&join, &key_path)?
    {
        // The last start was cut off after the agent had its keys, or could not remove it.
        burn(given, out);
        return Ok((file, key_path));
    }
    let file = join_now(args, &join, given, &key_path, out).await?;
    Ok((file, key_path))
}

/// A key file as it was given, or what became of its keys: those of a configuration file can't be
/// renewed in their place, so a key file of its own is kept for them.
fn given_key(file: KeyFile, given: &Path, key_path: PathBuf) -> Result<(KeyFile, PathBuf)> {
    if !identity::is_fragment(given) {
        return Ok((file, given.to_owned()));
    }
    if key_path.exists() {
        let kept = KeyFile::read(&key_path)?;
        if kept.principal == file.principal && kept.incarnation >= file.incarnation {
            return Ok((kept, key_path));
        }
    }
    Ok((file, key_path))
}

fn gone(error: &KeyFileError) -> bool {
    matches!(error, KeyFileError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::NotFound)
}

/// In the state folder if there is one, else beside the join file; `db-1.join` gives `db-1.key`.
fn key_path(given: &Path, state: Option<&Path>) -> PathBuf {
    let beside = given.with_extension("key");
    match (state, beside.file_name()) {
        (Some(state), Some(name)) => state.join(name),
        _ => beside,
    }
}

/// The key file that is there, if it is not of an earlier incarnation than the join file.
fn joined_before(join: &JoinFile, key_path: &Path) -> Result<Option<KeyFile>> {
    if !key_path.exists() {
        return Ok(None);
    }
    let file = KeyFile::read(key_path)?;
    if file.principal != join.principal {
        return Err(Failure::new(format!(
            "{} is the key file of {}, and the join file is for {}: take one of them away, or \
             name another folder with --state",
            key_path.display(),
            file.principal,
            join.principal
        )));
    }
    // One that was off for longer than its keys live comes back with a join file.
    let over = matches!(
        file.open(key_path, SystemClock.now()),
        Err(KeyFileError::Credential { refusal: Refusal::CredentialExpired, .. })
    );
    Ok((file.incarnation >= join.incarnation && !over).then_some(file))
}

async fn join_now(
    args: &AgentRunArgs,
    join: &JoinFile,
    given: &Path,
    key_path: &Path,
    out: Output,
) -> Result<KeyFile> {
    let terms = join.open(given, SystemClock.now())?;
    if let Some(dir) = key_path.parent().filter(|dir| !dir.as_os_str().is_empty())
        && !dir.exists()
    {
        private_folder(dir)?;
    }
    let mut pending = key_path.to_owned();
    pending.as_mut_os_string().push(".joining");
    let application = application(&terms, &pending)?;
    let (bus, options) = agent_bus(args, &join.principal, join.bus.as_ref())?;
    out.say(format!("{} joins over {} …", terms.party.principal, bus.address()));
    let transport = bus.transport().await?;
    let patience = Duration::from_secs(args.join_timeout.max(1));
    let joined =
        enrol::join(&transport, &options.exchange, &application, &terms.trust, patience).await;
    transport.close().await;
    let enrolled = joined?;
    let file = join.key_file(&application, &enrolled);
    identity::replace(key_path, &file)?;
    out.say(format!(
        "Joined. Its keys are in {}; its credential ends {}.",
        key_path.display(),
        date(enrolled.credential.validity.not_after)
    ));
    if key_path != given {
        burn(given, out);
    }
    // Nobody needs it any more; what can't be removed is only in the way of a later agent.
    if let Err(error) = identity::burn_file(&pending) {
        tracing::warn!(%error, path = %pending.display(), "can't remove the kept application");
    }
    Ok(file)
}

/// The application that was kept, if one is under way with this token, else a new one, which is
/// kept before it is sent: a restart must ask with the same request.
fn application(terms: &JoinTerms, pending: &Path) -> Result<Application> {
    if pending.exists() {
        let kept = PendingFile::read(pending)
            .and_then(|kept| kept.application(pending, &terms.party))
            .ok()
            .filter(|kept| {
                Request::parse(kept.request()).is_ok_and(|r| r.token() == terms.token())
            });
        if let Some(kept) = kept {
            return Ok(kept);
        }
        identity::burn_file(pending).map_err(|error| {
            Failure::new(format!("can't remove the old file {}: {error}", pending.display()))
        })?;
    }
    let now = SystemClock.now();
    if terms.expires <= now.secs() {
        return Err(Failure::new(format!(
            "the join file of {} was good until {}: have a new one made with `bulla agent add {} \
             --again`, or check this machine's clock",
            terms.party.principal,
            date(terms.expires),
            terms.party.principal.name()
        )));
    }
    let application = terms.apply(now)?;
    PendingFile::new(&application).write(pending)?;
    Ok(application)
}

fn burn(path: &Path, out: Output) {
    match identity::burn(path) {
        Ok(()) => out.say(format!("{} is burnt.", path.display())),
        Err(error) => tracing::warn!(
            %error,
            path = %path.display(),
            "the join file can't be removed; its token is used and worth nothing, but a second use \
             of it raises an alarm"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_file_goes_beside_the_join_file_or_into_the_state_folder() {
        let path = |given: &str, state: Option<&str>| {
            key_path(Path::new(given), state.map(Path::new)).display().to_string()
        };
        assert_eq!(path("db-1.join", None), "db-1.key");
        assert_eq!(path("/etc/bulla/agent.key", None), "/etc/bulla/agent.key");
        assert_eq!(path("/mnt/db-1.join", Some("/var/lib/b")), "/var/lib/b/db-1.key");
        assert_eq!(path("/c/guest_info.conf", Some("s")), "s/guest_info.key");
    }
}
