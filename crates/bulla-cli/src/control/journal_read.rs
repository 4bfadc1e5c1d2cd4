//! The journals of this host, as the API shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bulla_api::{
    JournalCheckpoint, JournalCheckpoints, JournalEntry, JournalItem, JournalRequest,
    JournalStream, Page,
};
use bulla_journal::{
    CHECKPOINT_FILE, Class, Entry, Reader, SCHEMA, journals, next_seq, read_part, rfc3339,
};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::journal::public_key;
use crate::settings::{Home, Settings};

/// How often it is looked for more.
const LOOK: Duration = Duration::from_millis(200);
/// Records that one request looks at in each journal at the most, whatever it wants.
const MOST: u64 = 100_000;
/// Records of a page unless the request says.
const DEFAULT_LIMIT: u32 = 100;

/// Which records are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    since: Option<String>,
    until: Option<String>,
    kinds: BTreeSet<String>,
    principal: Option<String>,
}

impl Filter {
    /// Of a time (Unix milliseconds), of some events or classes, about a principal.
    pub(crate) fn new(
        (since, until): (Option<u64>, Option<u64>),
        kinds: impl IntoIterator<Item = String>,
        principal: Option<String>,
    ) -> Result<Self> {
        let kinds: BTreeSet<_> = kinds.into_iter().collect();
        for kind in &kinds {
            let event = SCHEMA.iter().any(|info| info.name == kind);
            if !event && !Class::ALL.iter().any(|class| class.as_str() == kind) {
                let classes = Class::ALL.map(Class::as_str).join(", ");
                return Err(Failure::usage(format!(
                    "there is no event and no class `{kind}`; classes are {classes}, and \
                     docs/events.md has the events"
                )));
            }
        }
        let time = |ms: u64| rfc3339(ms.saturating_mul(1_000_000));
        Ok(Self { since: since.map(time), until: until.map(time), kinds, principal })
    }

    fn of(request: &JournalRequest) -> Result<Self> {
        let kinds = request.kind.as_deref().unwrap_or_default().split(',');
        let kinds = kinds.map(str::trim).filter(|kind| !kind.is_empty()).map(str::to_owned);
        Self::new((request.since_ms, request.until_ms), kinds, request.principal.clone())
    }

    pub(crate) fn takes(&self, entry: &Entry) -> bool {
        let late = self.since.as_ref().is_none_or(|since| entry.time >= *since);
        let early = self.until.as_ref().is_none_or(|until| entry.time < *until);
        let kinds = &self.kinds;
        let kind = kinds.is_empty() || kinds.contains(&entry.event) || kinds.contains(&entry.class);
        late && early && kind && self.principal.as_ref().is_none_or(|name| is_about(entry, name))
    }
}

/// Whether one of its fields is that principal, in any incarnation or the one that is named.
fn is_about(entry: &Entry, name: &str) -> bool {
    entry.fields.values().filter_map(Value::as_str).any(|text| {
        text == name || text.split_once('#').is_some_and(|(principal, _)| principal == name)
    })
}

/// How far each journal was read: the number of the next record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Places(BTreeMap<String, u64>);

impl Places {
    fn parse(text: &str) -> Result<Self> {
        let bad = || Failure::usage("that is no place in these journals");
        let mut places = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, next) = part.rsplit_once(':').ok_or_else(bad)?;
            places.insert(name.to_owned(), next.parse().map_err(|_| bad())?);
        }
        Ok(Self(places))
    }

    fn of(request: &JournalRequest) -> Result<Option<Self>> {
        request.after.as_deref().map(Self::parse).transpose()
    }

    fn text(&self) -> String {
        let parts: Vec<_> = self.0.iter().map(|(name, next)| format!("{name}:{next}")).collect();
        parts.join(",")
    }
}

/// Where the journals of a host are.
#[derive(Debug, Clone)]
pub(crate) struct Journals {
    folder: PathBuf,
}

impl Journals {
    pub(crate) fn new(home: &Home, settings: &Settings) -> Self {
        Self { folder: settings.journal.folder(home) }
    }

    /// Name and folder of each that is wanted.
    fn list(&self, only: Option<&str>) -> Result<Vec<(String, PathBuf)>> {
        let found = match journals(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            found => found.map_err(|error| {
                Failure::new(format!("can't read journals in {}: {error}", self.folder.display()))
            })?,
        };
        let named = found
            .into_iter()
            .map(|dir| (dir.file_name().unwrap_or_default().to_string_lossy().into_owned(), dir));
        Ok(named.filter(|(name, _)| only.is_none_or(|only| name == only)).collect())
    }

    /// A part of the records, by time.
    pub(crate) async fn page(self, request: JournalRequest) -> Result<Page<JournalEntry>> {
        tokio::task::spawn_blocking(move || self.read_page(&request)).await?
    }

    fn read_page(&self, request: &JournalRequest) -> Result<Page<JournalEntry>> {
        let filter = Filter::of(request)?;
        let mut places = Places::of(request)?.unwrap_or_default();
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT) as usize;
        let (mut found, mut ended) = (Vec::new(), true);
        for (name, dir) in self.list(request.journal.as_deref())? {
            let from = places.0.get(&name).copied().unwrap_or_default();
            let part = read_part(&dir, from, (limit, MOST), |entry| filter.takes(entry))
                .map_err(|error| Failure::new(format!("can't read the journal {name}: {error}")))?;
            ended &= part.ended;
            places.0.insert(name.clone(), part.next);
            found.extend(part.entries.into_iter().map(|entry| shown(&name, entry)));
        }
        found.sort_by(|one, other| {
            one.time.cmp(&other.time).then_with(|| one.journal.cmp(&other.journal))
        });
        // What is left for the next part is read again there.
        for entry in found.iter().skip(limit) {
            let next = places.0.entry(entry.journal.clone()).or_default();
            *next = (*next).min(entry.seq);
            ended = false;
        }
        found.truncate(limit);
        Ok(Page { items: found, next: (!ended).then(|| places.text()) })
    }

    /// What is written from now on, or behind a place.
    pub(crate) async fn follow(self, request: JournalRequest) -> Result<JournalStream> {
        let filter = Filter::of(&request)?;
        let begin = Places::of(&request)?;
        let mut following = Following {
            journals: self,
            only: request.journal.clone(),
            filter,
            readers: BTreeMap::new(),
            resumed: begin.is_some(),
            places: begin.unwrap_or_default(),
        };
        let following = tokio::task::spawn_blocking(move || {
            following.begin()?;
            Ok::<_, Failure>(following)
        });
        let parts = stream::unfold(Some(following.await??), |following| async move {
            let following = following?;
            let looked = tokio::task::spawn_blocking(move || following.look()).await.ok()?;
            let (following, items) = match looked {
                Ok(looked) => looked,
                Err(failure) => {
                    tracing::error!(%failure, "a journal can't be followed");
                    return None;
                }
            };
            if items.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
            Some((stream::iter(items), Some(following)))
        });
        Ok(parts.flatten().boxed())
    }

    /// The newest signed checkpoint of each.
    pub(crate) fn checkpoints(&self, home: &Home) -> Result<JournalCheckpoints> {
        let mut checkpoints = Vec::new();
        for (journal, dir) in self.list(None)? {
            if let Ok(note) = std::fs::read_to_string(dir.join(CHECKPOINT_FILE)) {
                checkpoints.push(JournalCheckpoint { journal, note });
            }
        }
        Ok(JournalCheckpoints { public_key: public_key(home, None)?.to_string(), checkpoints })
    }
}

/// Journals that are followed.
struct Following {
    journals: Journals,
    only: Option<String>,
    filter: Filter,
    readers: BTreeMap<String, Reader>,
    /// Whether a place was named to go on from.
    resumed: bool,
    places: Places,
}

impl Following {
    /// Goes to the end of what is there, or to the place that was named.
    fn begin(&mut self) -> Result<()> {
        for (name, dir) in self.journals.list(self.only.as_deref())? {
            let reader = match self.places.0.get(&name) {
                Some(next) => Reader::from(&dir, *next),
                // One that began after the place that was named.
                None if self.resumed => Ok(Reader::new(&dir)),
                None => next_seq(&dir).and_then(|next| {
                    self.places.0.insert(name.clone(), next);
                    Reader::from(&dir, next)
                }),
            };
            let reader = reader
                .map_err(|error| Failure::new(format!("can't read the journal {name}: {error}")))?;
            self.readers.insert(name, reader);
        }
        Ok(())
    }

    /// What came since the last look.
    fn look(mut self) -> Result<(Self, Vec<JournalItem>)> {
        for (name, dir) in self.journals.list(self.only.as_deref())? {
            // Another process began one.
            self.readers.entry(name).or_insert_with(|| Reader::new(&dir));
        }
        let mut found = Vec::new();
        for (name, reader) in &mut self.readers {
            let next = self.places.0.get(name).copied().unwrap_or_default();
            let more = reader
                .more()
                .map_err(|error| Failure::new(format!("can't read the journal {name}: {error}")))?;
            let more = more.into_iter().filter(|entry| entry.seq >= next);
            found.extend(more.map(|entry| (name.clone(), entry)));
        }
        found.sort_by(|(_, one), (_, other)| one.time.cmp(&other.time));
        let mut items = Vec::new();
        for (name, entry) in found {
            self.places.0.insert(name.clone(), entry.seq.saturating_add(1));
            if self.filter.takes(&entry) {
                let entry = shown(&name, entry);
                items.push(JournalItem { place: self.places.text(), entry });
            }
        }
        Ok((self, items))
    }
}

fn shown(journal: &str, entry: Entry) -> JournalEntry {
    let Entry { seq, time, event, class, fields } = entry;
    JournalEntry { journal: journal.to_owned(), seq, time, event, class, fields }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_were_written() {
        let places = Places::parse("commands:7,control:12").unwrap();
        assert_eq!(places.text(), "commands:7,control:12");
        assert_eq!(Places::parse("").unwrap(), Places::default());
        for bad in ["x", "x:", "x:-1", ":y"] {
            assert!(Places::parse(bad).is_err(), "{bad}");
        }
    }
}
