//! `bulla agent add`: agents, one or many, and the files that they start with.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulla_keystore::KeyType;
use bulla_seal::Principal;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::component::refuse_existing;
use super::private_folder;
use crate::cli::{AgentAddArgs, FormatArg, KeyTypeArg, TransportArg};
use crate::control::agent_file::{Kind, Packed, instruction};
use crate::control::agents::{Plan, Starter};
use crate::control::desk::Desk;
use crate::failure::{Failure, Result};
use crate::output::{Output, date};
use crate::settings::{Home, Settings};
use crate::when;

/// Agents added in one transaction.
const BATCH: usize = 500;
/// Progress is shown for more than this many, and for fewer where the broker makes their users.
const SHOW_FROM: usize = BATCH;
const SHOW_USERS_FROM: usize = 100;

/// What was asked for.
struct Asked {
    plan: Plan,
    format: FormatArg,
    over_queue: bool,
}

/// One agent with its file, written.
struct Added {
    id: String,
    path: PathBuf,
    expires: Option<u64>,
}

impl Asked {
    fn new(args: &AgentAddArgs) -> Result<Self> {
        let over_queue = args.transport == TransportArg::Queue;
        if over_queue && args.token {
            return Err(Failure::usage(
                "--transport queue is for keys that come with the file: the queue service knows an \
                 agent by its key, and nobody who has none yet",
            ));
        }
        let (key_type, kind) = match args.key_type {
            KeyTypeArg::Shared if args.token => {
                return Err(Failure::usage(
                    "a shared key comes with its file: --token is for key pairs, which agents \
                     make themselves",
                ));
            }
            KeyTypeArg::Shared => (KeyType::Shared, Kind::Key),
            KeyTypeArg::Pair if args.key || over_queue => (KeyType::Pair, Kind::Key),
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
        let plan = Plan { kind, key_type, suite: args.suite.suite(), lifetime, again: args.again };
        Ok(Self { plan, format: args.format, over_queue })
    }

    fn kind(&self) -> Kind {
        self.plan.kind
    }

    /// Writes the file that an agent starts with.
    fn write(&self, starter: &Starter, path: &Path, durable: bool) -> Result<Added> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            private_folder(dir)?;
        }
        let Starter { id, text, expires } = starter;
        Packed { kind: self.kind(), format: self.format, id, text }.write(path, durable)?;
        Ok(Added { id: id.to_owned(), path: path.to_owned(), expires: *expires })
    }
}

pub(super) async fn run(home: &Home, args: &AgentAddArgs, out: Output) -> Result<()> {
    let asked = Asked::new(args)?;
    match (&args.id, &args.from) {
        (Some(id), _) => one(home, &asked, id, args.out.as_deref(), out).await,
        (None, Some(from)) => many(home, &asked, from, args.out.as_deref(), out).await,
        (None, None) => Err(Failure::usage("give an id, or --from FILE")),
    }
}

async fn one(home: &Home, asked: &Asked, id: &str, to: Option<&Path>, out: Output) -> Result<()> {
    Principal::agent(id)?;
    let default = || home.agents().join(asked.kind().file_name(id, asked.format));
    let path = to.map_or_else(default, Path::to_owned);
    let former = asked.plan.again && path.is_file();
    if !former {
        refuse_existing(&path)?;
    }
    let mut desk = Desk::open(home).await?;
    if asked.over_queue {
        desk.over_queue()?;
    }
    let settings = desk.settings.clone();
    let mut added = None;
    let mut take = |starter: Starter| {
        if former {
            bulla_rpc::identity::burn_file(&path)?;
        }
        added = Some(asked.write(&starter, &path, true)?);
        Ok(())
    };
    let taken = desk.add_agent(&asked.plan, id, &mut take).await;
    let journalled = desk.close().await;
    taken?;
    if let Some(added) = &added {
        show_one(asked, added, &settings, out)?;
    }
    journalled
}

fn shown(asked: &Asked, added: &Added) -> Value {
    let mut value = json!({
        "agent": format!("agent/{}", added.id),
        "kind": asked.kind().as_str(),
        "key_type": asked.plan.key_type.as_str(),
        "expires": added.expires,
    });
    let name = match asked.kind() {
        Kind::Key => "key_file",
        Kind::Token => "join_file",
    };
    if let Some(map) = value.as_object_mut() {
        map.insert(name.to_owned(), json!(added.path));
    }
    value
}

fn show_one(asked: &Asked, added: &Added, settings: &Settings, out: Output) -> Result<()> {
    let id = &added.id;
    out.result(&shown(asked, added), |out| {
        match (asked.kind(), added.expires) {
            (Kind::Token, Some(expires)) => {
                out.say(format!("Added agent/{id}. Its join file, with a one-time token:"));
                out.say(format!("  {}", out.bold(&added.path.display().to_string())));
                out.say(format!(
                    "Good for one use until {}. Who uses it first is agent/{id}.",
                    date(expires)
                ));
            }
            _ => {
                let key_type = asked.plan.key_type.as_str();
                out.say(format!("Added agent/{id} with a {key_type} key. Its key file:"));
                out.say(format!("  {}", out.bold(&added.path.display().to_string())));
                out.say(format!("Whoever has it is agent/{id}, for as long as the key is good."));
            }
        }
        if asked.plan.key_type == KeyType::Shared {
            out.say(
                "The keystore holds a shared key too: whoever gets it reads all that was recorded.",
            );
        }
        for line in instruction(asked.kind(), asked.format, id, &added.path) {
            out.say(line);
        }
    })?;
    super::agent::bus_notice(settings, out);
    Ok(())
}

/// Adds every agent of a list, in batches of one transaction each.
async fn many(
    home: &Home,
    asked: &Asked,
    from: &Path,
    to: Option<&Path>,
    out: Output,
) -> Result<()> {
    let ids = read_ids(from)?;
    let folder = to.map_or_else(|| home.agents(), Path::to_owned);
    let path = |id: &str| folder.join(asked.kind().file_name(id, asked.format));
    for id in &ids {
        refuse_existing(&path(id))?;
    }
    private_folder(&folder)?;
    let mut desk = Desk::open(home).await?;
    if asked.over_queue {
        desk.over_queue()?;
    }
    let settings = desk.settings.clone();
    let batches = desk.batches().await?;
    let from = if desk.logins()?.users().is_some() { SHOW_USERS_FROM } else { SHOW_FROM };
    let bar = progress(ids.len(), from, out);
    let mut all = Vec::with_capacity(ids.len());
    let mut failed = None;
    for batch in ids.chunks(BATCH) {
        let mut written = Vec::with_capacity(batch.len());
        let mut take = |starter: Starter| {
            written.push(asked.write(&starter, &path(&starter.id), false)?);
            bar.inc(1);
            Ok(())
        };
        let added = desk.add_agents((&asked.plan, &batches), batch, &mut take).await;
        if let Err(failure) = added {
            for one in written.iter().filter(|one| one.path.is_file()) {
                // The agent is gone: what stands there is worth nothing.
                let _ = bulla_rpc::identity::burn_file(&one.path);
            }
            failed = Some(failure);
            break;
        }
        all.extend(written);
    }
    bar.finish_and_clear();
    desk.close().await?;
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
    let value: Vec<_> = all.iter().map(|added| shown(asked, added)).collect();
    out.result(&value, |out| {
        let what = asked.kind().as_str();
        out.say(format!("Added {} agents, with a {what} file each in:", all.len()));
        out.say(format!("  {}", out.bold(&folder.display().to_string())));
        if let Some(expires) = all.iter().filter_map(|added| added.expires).min() {
            out.say(format!("Good for one use each, the first until {}.", date(expires)));
        }
        for line in instruction(asked.kind(), asked.format, "ID", &path("ID")) {
            out.say(line);
        }
    })?;
    super::agent::bus_notice(&settings, out);
    Ok(())
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
