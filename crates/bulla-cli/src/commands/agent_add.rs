//! `bulla agent add`: agents, one or many, and the files that they start with.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_broker::Survey;
use bulla_journal::events;
use bulla_keystore::{Invitation, KeyType, Keystore};
use bulla_rpc::KeyFile;
use bulla_rpc::identity::BusEntry;
use bulla_seal::{Principal, Suite};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::component::refuse_existing;
use super::inject::{Kind, Packed};
use super::private_folder;
use crate::cli::{AgentAddArgs, FormatArg, KeyTypeArg};
use crate::control::enrol::JoinFiles;
use crate::control::key_file::{self, KeyFiles};
use crate::control::logins::Logins;
use crate::control::open_keystore;
use crate::failure::{Failure, Result};
use crate::journal::CommandJournal;
use crate::output::{Output, date};
use crate::settings::{Home, Settings};
use crate::when;

/// Agents added in one transaction.
const BATCH: usize = 500;
/// Progress is shown for more than this many, and for fewer where the broker makes their users.
const SHOW_FROM: usize = BATCH;
const SHOW_USERS_FROM: usize = 100;

/// What is to be made, for one agent or for many.
struct Plan {
    kind: Kind,
    key_type: KeyType,
    suite: Suite,
    lifetime: Duration,
    again: bool,
    format: FormatArg,
}

/// One agent with its file, written.
struct Added {
    id: String,
    path: PathBuf,
    expires: Option<u64>,
}

impl Plan {
    /// That an agent was added in this way.
    fn event(&self, id: &str) -> Result<events::AgentAdded> {
        let way = match (self.kind, self.key_type) {
            (Kind::Token, _) => "token",
            (Kind::Key, KeyType::Pair) => "key",
            (Kind::Key, KeyType::Shared) => "shared-key",
        };
        Ok(events::AgentAdded { agent: Principal::agent(id)?, way, again: self.again })
    }

    fn new(args: &AgentAddArgs) -> Result<Self> {
        let (key_type, kind) = match args.key_type {
            KeyTypeArg::Shared if args.token => {
                return Err(Failure::usage(
                    "a shared key comes with its file: --token is for key pairs, which agents \
                     make themselves",
                ));
            }
            KeyTypeArg::Shared => (KeyType::Shared, Kind::Key),
            KeyTypeArg::Pair if args.key => (KeyType::Pair, Kind::Key),
            KeyTypeArg::Pair => (KeyType::Pair, Kind::Token),
        };
        let seconds = when::parse(&args.expires, 0).ok().filter(|_| args.expires.len() < 8);
        let Some(seconds) = seconds.filter(|seconds| (600..=3600).contains(seconds)) else {
            return Err(Failure::usage(format!(
                "--expires {}: a token is good for 10m to 60m",
                args.expires
            )));
        };
        let lifetime = Duration::from_secs(seconds);
        let (suite, again, format) = (args.suite.suite(), args.again, args.format);
        Ok(Self { kind, key_type, suite, lifetime, again, format })
    }
}

pub(super) async fn run(home: &Home, args: &AgentAddArgs, out: Output) -> Result<()> {
    let plan = Plan::new(args)?;
    match (&args.id, &args.from) {
        (Some(id), _) => one(home, &plan, id, args.out.as_deref(), out).await,
        (None, Some(from)) => many(home, &plan, from, args.out.as_deref(), out).await,
        (None, None) => Err(Failure::usage("give an id, or --from FILE")),
    }
}

async fn one(home: &Home, plan: &Plan, id: &str, to: Option<&Path>, out: Output) -> Result<()> {
    Principal::agent(id)?;
    let default = || home.agents().join(plan.kind.file_name(id, plan.format));
    let path = to.map_or_else(default, Path::to_owned);
    let former = plan.again && path.is_file();
    if !former {
        refuse_existing(&path)?;
    }
    let settings = Settings::load(home.dir())?;
    let keystore = open_keystore(home).await?;
    let journal = CommandJournal::open(home).await?;
    let logins = Logins::new(&settings, &keystore)?;
    let added = match plan.kind {
        Kind::Key => add_key(&keystore, &logins, plan, id, &path).await,
        Kind::Token => {
            let files = JoinFiles::new(&keystore).await?;
            let invited = keystore.invite_agent(id, plan.suite, plan.lifetime, plan.again).await?;
            if former {
                bulla_rpc::identity::burn_file(&path)?;
            }
            let written = match logins.one(&keystore, id).await {
                Ok(bus) => write_join(&files, plan, &invited, bus, &path, true),
                Err(failure) => Err(failure),
            };
            if written.is_err() && !plan.again {
                // Nobody has its token: the name is free again.
                take_back(&keystore, &logins, id).await?;
            }
            written
        }
    };
    keystore.close().await;
    let added = added?;
    journal.record(plan.event(&added.id)?);
    let journalled = journal.finish();
    show_one(plan, &added, &settings, out)?;
    journalled
}

/// Takes an agent back whose file could not be written.
async fn take_back(keystore: &Keystore, logins: &Logins, id: &str) -> Result<()> {
    keystore.remove_agent(id).await?;
    logins.take_back(id).await;
    Ok(())
}

/// An agent with its keys in its file.
async fn add_key(
    keystore: &Keystore,
    logins: &Logins,
    plan: &Plan,
    id: &str,
    path: &Path,
) -> Result<Added> {
    let keys = keystore.add_agent(id, plan.key_type, plan.suite).await?;
    let written = async {
        let bus = logins.one(keystore, id).await?;
        write_key(plan, id, &key_file::agent_key_file(keystore, id, keys, bus).await?, path, true)
    };
    let written = written.await;
    if written.is_err() {
        // Nobody has its keys: the name is free again.
        take_back(keystore, logins, id).await?;
    }
    written
}

fn write_key(plan: &Plan, id: &str, file: &KeyFile, path: &Path, durable: bool) -> Result<Added> {
    write(plan, id, path, &file.to_text()?, durable)?;
    Ok(Added { id: id.to_owned(), path: path.to_owned(), expires: None })
}

fn write_join(
    files: &JoinFiles,
    plan: &Plan,
    invitation: &Invitation,
    bus: Option<BusEntry>,
    path: &Path,
    durable: bool,
) -> Result<Added> {
    let id = invitation.party.principal.name();
    write(plan, id, path, &files.make(invitation, bus).to_text()?, durable)?;
    let expires = Some(invitation.expires);
    Ok(Added { id: id.to_owned(), path: path.to_owned(), expires })
}

fn write(
    plan: &Plan,
    id: &str,
    path: &Path,
    text: &Zeroizing<String>,
    durable: bool,
) -> Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        private_folder(dir)?;
    }
    Packed { kind: plan.kind, format: plan.format, id, text }.write(path, durable)
}

fn shown(plan: &Plan, added: &Added) -> Value {
    let mut value = json!({
        "agent": format!("agent/{}", added.id),
        "kind": plan.kind.as_str(),
        "key_type": plan.key_type.as_str(),
        "expires": added.expires,
    });
    let name = match plan.kind {
        Kind::Key => "key_file",
        Kind::Token => "join_file",
    };
    if let Some(map) = value.as_object_mut() {
        map.insert(name.to_owned(), json!(added.path));
    }
    value
}

fn show_one(plan: &Plan, added: &Added, settings: &Settings, out: Output) -> Result<()> {
    let id = &added.id;
    out.result(&shown(plan, added), |out| {
        match (plan.kind, added.expires) {
            (Kind::Token, Some(expires)) => {
                out.say(format!("Added agent/{id}. Its join file, with a one-time token:"));
                out.say(format!("  {}", out.bold(&added.path.display().to_string())));
                out.say(format!(
                    "Good for one use until {}. Who uses it first is agent/{id}.",
                    date(expires)
                ));
            }
            _ => {
                let key_type = plan.key_type.as_str();
                out.say(format!("Added agent/{id} with a {key_type} key. Its key file:"));
                out.say(format!("  {}", out.bold(&added.path.display().to_string())));
                out.say(format!("Whoever has it is agent/{id}, for as long as the key is good."));
            }
        }
        if plan.key_type == KeyType::Shared {
            out.say(
                "The keystore holds a shared key too: whoever gets it reads all that was recorded.",
            );
        }
        for line in super::inject::instruction(plan.kind, plan.format, id, &added.path) {
            out.say(line);
        }
    })?;
    super::agent::bus_notice(settings, out);
    Ok(())
}

/// Adds every agent of a list, in batches of one transaction each.
async fn many(home: &Home, plan: &Plan, from: &Path, to: Option<&Path>, out: Output) -> Result<()> {
    let ids = read_ids(from)?;
    let folder = to.map_or_else(|| home.agents(), Path::to_owned);
    let path = |id: &str| folder.join(plan.kind.file_name(id, plan.format));
    for id in &ids {
        refuse_existing(&path(id))?;
    }
    private_folder(&folder)?;
    let settings = Settings::load(home.dir())?;
    let keystore = open_keystore(home).await?;
    let journal = CommandJournal::open(home).await?;
    let logins = Logins::new(&settings, &keystore)?;
    let survey = logins.survey().await?;
    let files = JoinFiles::new(&keystore).await?;
    let many = Many { keystore: &keystore, logins: &logins, survey, files: &files, plan };
    let from = if logins.users().is_some() { SHOW_USERS_FROM } else { SHOW_FROM };
    let bar = progress(ids.len(), from, out);
    let mut all = Vec::with_capacity(ids.len());
    let mut failed = None;
    for batch in ids.chunks(BATCH) {
        let added = many.add(batch, &path, &bar).await;
        match added {
            Ok(added) => {
                added.iter().try_for_each(|added| {
                    journal.record(plan.event(&added.id)?);
                    Ok::<_, Failure>(())
                })?;
                // A list may be longer than what the journal lets wait.
                journal.flush()?;
                all.extend(added);
            }
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    bar.finish_and_clear();
    keystore.close().await;
    journal.finish()?;
    // What was written without waiting for the disk is there before it is spoken of.
    if let Ok(folder) = std::fs::File::open(&folder) {
        rustix::fs::syncfs(&folder).ok();
    }
    if let Some(failure) = failed {
        return Err(Failure::new(format!(
            "{failure}. {} of {} agents were added before; the batch that failed was not",
            all.len(),
            ids.len()
        )));
    }
    let value: Vec<_> = all.iter().map(|added| shown(plan, added)).collect();
    out.result(&value, |out| {
        let what = plan.kind.as_str();
        out.say(format!("Added {} agents, with a {what} file each in:", all.len()));
        out.say(format!("  {}", out.bold(&folder.display().to_string())));
        if let Some(expires) = all.iter().filter_map(|added| added.expires).min() {
            out.say(format!("Good for one use each, the first until {}.", date(expires)));
        }
        for line in super::inject::instruction(plan.kind, plan.format, "ID", &path("ID")) {
            out.say(line);
        }
    })?;
    super::agent::bus_notice(&settings, out);
    Ok(())
}

/// What a batch of agents is added with.
struct Many<'a> {
    keystore: &'a Keystore,
    logins: &'a Logins,
    survey: Option<Survey>,
    files: &'a JoinFiles,
    plan: &'a Plan,
}

impl Many<'_> {
    /// Adds a batch whole, or not at all.
    async fn add(
        &self,
        ids: &[String],
        path: impl Fn(&str) -> PathBuf,
        bar: &ProgressBar,
    ) -> Result<Vec<Added>> {
        let mut known = Vec::new();
        let mut added = Vec::with_capacity(ids.len());
        let tried = self.try_add(ids, path, (&mut known, &mut added), bar).await;
        if let Err(failure) = tried {
            self.undo(&known, &added).await?;
            return Err(failure);
        }
        Ok(added)
    }

    /// The same, noting which ids the keystore knows by now, and which files were written.
    async fn try_add(
        &self,
        ids: &[String],
        path: impl Fn(&str) -> PathBuf,
        (known, added): (&mut Vec<String>, &mut Vec<Added>),
        bar: &ProgressBar,
    ) -> Result<()> {
        let Self { keystore, plan, .. } = self;
        let logins = || self.logins.many(self.survey.as_ref(), ids);
        match plan.kind {
            Kind::Token => {
                let invited = keystore.invite_agents(ids, plan.suite, plan.lifetime).await?;
                known.extend_from_slice(ids);
                for (invitation, bus) in invited.iter().zip(logins().await?) {
                    let path = path(invitation.party.principal.name());
                    added.push(write_join(self.files, plan, invitation, bus, &path, false)?);
                    bar.inc(1);
                }
            }
            Kind::Key => {
                let keys = keystore.add_agents(ids, plan.key_type, plan.suite).await?;
                known.extend_from_slice(ids);
                let files = KeyFiles::new(keystore).await?;
                for ((id, keys), bus) in ids.iter().zip(keys).zip(logins().await?) {
                    let file = files.agent(id, keys, bus)?;
                    added.push(write_key(plan, id, &file, &path(id), false)?);
                    bar.inc(1);
                }
            }
        }
        Ok(())
    }

    /// Takes a batch back whose files could not all be written.
    async fn undo(&self, known: &[String], written: &[Added]) -> Result<()> {
        for id in known {
            take_back(self.keystore, self.logins, id).await?;
        }
        for one in written.iter().filter(|one| one.path.is_file()) {
            // The agent is gone: what stands there is worth nothing.
            let _ = bulla_rpc::identity::burn_file(&one.path);
        }
        Ok(())
    }
}

fn progress(count: usize, from: usize, out: Output) -> ProgressBar {
    if count <= from || out.is_json() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} agents, {per_sec}, {eta} left");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The ids in the first column, each once; `#` begins a comment, and a first line `id` is a
/// heading.
fn read_ids(from: &Path) -> Result<Vec<String>> {
    let cant = |error| Failure::new(format!("can't read {}: {error}", from.display()));
    let text = if from == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(cant)?;
        text
    } else {
        std::fs::read_to_string(from).map_err(cant)?
    };
    parse_ids(&text)
        .map_err(|(line, why)| Failure::new(format!("{} line {line}: {why}", from.display())))
}

fn parse_ids(text: &str) -> std::result::Result<Vec<String>, (usize, String)> {
    let (mut ids, mut seen) = (Vec::new(), HashSet::new());
    for (line, text) in (1..).zip(text.lines()) {
        let id = text.split([',', ';', '\t']).next().unwrap_or_default().trim();
        let id = id.trim_matches('"').trim_start_matches('\u{feff}');
        if id.is_empty() || id.starts_with('#') || (ids.is_empty() && id == "id") {
            continue;
        }
        Principal::agent(id).map_err(|error| (line, error.to_string()))?;
        if !seen.insert(id.to_owned()) {
            return Err((line, format!("{id} stands there twice")));
        }
        ids.push(id.to_owned());
    }
    match ids.is_empty() {
        true => Err((1, "no id is in it".to_owned())),
        false => Ok(ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_first_column() {
        let text = "id,rack\ndb-1,a\n# none\n\n\"db-2\";b\n db-3\t\n";
        assert_eq!(parse_ids(text).unwrap(), ["db-1", "db-2", "db-3"]);
        assert_eq!(parse_ids("db-1\ndb-2\ndb-1\n").unwrap_err().0, 3);
        assert_eq!(parse_ids("db-1\na/b\n").unwrap_err().0, 2);
        assert!(parse_ids("id\n#\n").is_err());
    }
}
