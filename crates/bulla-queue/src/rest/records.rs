//! Records that hold secrets, and where messages may go.

use super::key::Shut;
use super::{EncryptedQueues, Plain};
use crate::name::Place;
use crate::record::{Before, NEVER, Record, RecordKind};
use crate::service;
use crate::store::{Millis, Store, StoreError};

/// How often it is tried anew when another was quicker.
const TRIES: usize = 8;
/// Ways of a queue that are looked at at a time.
const WAYS: usize = 100;
/// The record of no queue that says that a store is encrypted.
const USED: &str = "encrypted";
/// Longer than any message lives, in milliseconds: 30 days.
const LONGEST: Millis = 30 * 86_400_000;

/// Whether records of this kind lie encrypted: options of pools may hold secrets, addresses of
/// subscribers and the headers that they are sent hold what lets them in, and a way says where messages
/// may be opened.
fn is_sealed(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Pool | RecordKind::Subscription | RecordKind::Way)
}

impl EncryptedQueues {
    /// Whether something in a store is encrypted, or was.
    ///
    /// # Errors
    /// It can't be read.
    pub async fn is_used(store: &dyn Store) -> Result<bool, StoreError> {
        let found = store.record(RecordKind::Way, "", USED, service::now()).await?;
        Ok(found.is_some())
    }

    /// Notes that the store is encrypted, under this key and no other.
    pub(super) async fn check_key(&self) -> Result<(), StoreError> {
        let (kind, owner, name) = (RecordKind::Way, String::new(), USED.to_owned());
        let used = Record { kind, owner, name, value: String::new(), until: NEVER };
        let sealed = self.seal_way(&used)?;
        let there = self.inner.keep(sealed, Before::Nothing, service::now()).await?;
        match there.map(|there| self.key.open_record(&there)) {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err(StoreError::Unreadable {
                at: self.inner.name().to_owned(),
                what: "what was encrypted under another key".to_owned(),
            }),
        }
    }

    fn seal_record(&self, record: &Record) -> Result<Record, StoreError> {
        if self.seals { self.seal_way(record) } else { Ok(record.clone()) }
    }

    fn seal_way(&self, record: &Record) -> Result<Record, StoreError> {
        let value = self.key.seal_record(record).ok_or_else(|| self.no_randomness())?;
        Ok(Record { value, ..record.clone() })
    }

    fn unsealed(&self, record: &Record) -> Result<Record, Shut> {
        match self.key.open_record(record) {
            Ok(value) => Ok(Record { value, ..record.clone() }),
            // A way that nobody noted through here is none.
            Err(Shut::Plain) if self.plain == Plain::Taken && record.kind != RecordKind::Way => {
                Ok(record.clone())
            }
            Err(shut) => Err(shut),
        }
    }

    fn unreadable(&self, record: &Record, shut: Shut) -> StoreError {
        let (kind, why) = (record.kind.text(), shut.why());
        tracing::error!(kind, owner = record.owner, name = record.name, why, "a record is shut");
        let what = format!("the {kind} {}", record.name);
        StoreError::Unreadable { at: self.inner.name().to_owned(), what }
    }

    /// A record as it was kept. One that was stored in plain, where that is taken, is stored anew.
    pub(super) async fn open_record(
        &self,
        record: Record,
        now: Millis,
    ) -> Result<Record, StoreError> {
        if !is_sealed(record.kind) {
            return Ok(record);
        }
        let opened = self.unsealed(&record).map_err(|shut| self.unreadable(&record, shut))?;
        if self.seals && opened.value == record.value {
            let before = Before::Value(record.value);
            self.inner.keep(self.seal_record(&opened)?, before, now).await?;
        }
        Ok(opened)
    }

    /// Those that open; of the others the operator is told.
    pub(super) async fn open_records(
        &self,
        records: Vec<Record>,
        now: Millis,
    ) -> Result<Vec<Record>, StoreError> {
        let mut opened = Vec::with_capacity(records.len());
        for record in records {
            match self.open_record(record, now).await {
                Ok(record) => opened.push(record),
                Err(StoreError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    /// What has to be there is compared as it was kept.
    pub(super) async fn keep_sealed(
        &self,
        record: Record,
        before: Before,
        now: Millis,
    ) -> Result<Option<Record>, StoreError> {
        if !is_sealed(record.kind) {
            return self.inner.keep(record, before, now).await;
        }
        let sealed = self.seal_record(&record)?;
        let open =
            |there: &Record| self.unsealed(there).map_err(|shut| self.unreadable(there, shut));
        let Before::Value(value) = before else {
            let is_any = before == Before::Any;
            let there = self.inner.keep(sealed, before, now).await?;
            return match there.as_ref().map(open) {
                // It is not there any more; what it was, nobody is told.
                Some(Err(_)) if is_any => {
                    Ok(there.map(|there| Record { value: String::new(), ..there }))
                }
                there => there.transpose(),
            };
        };
        let (kind, owner, name) = (record.kind, record.owner.as_str(), record.name.as_str());
        for _ in 0..TRIES {
            let Some(there) = self.inner.record(kind, owner, name, now).await? else {
                return Ok(None);
            };
            let opened = open(&there)?;
            if opened.value != value {
                return Ok(Some(opened));
            }
            let before = Before::Value(there.value.clone());
            let found = self.inner.keep(sealed.clone(), before, now).await?;
            if found.is_some_and(|found| found.value == there.value) {
                return Ok(Some(opened));
            }
        }
        let why = "others change a record at the same time".to_owned();
        Err(StoreError::Io { at: self.inner.name().to_owned(), why })
    }

    /// Notes that messages of a queue may be opened in another one.
    pub(super) async fn note_way(&self, from: &Place, to: &Place) -> Result<(), StoreError> {
        let way = Record {
            kind: RecordKind::Way,
            owner: from.owner(),
            name: to.name().to_owned(),
            value: String::new(),
            until: NEVER,
        };
        self.inner.keep(self.seal_way(&way)?, Before::Any, service::now()).await.map(drop)
    }

    /// Whether messages of a queue may be opened in another one of its project.
    pub(super) async fn may_go(&self, from: &Place, to: &Place) -> Result<bool, StoreError> {
        let (kind, owner) = (RecordKind::Way, from.owner());
        let found = self.inner.record(kind, &owner, to.name(), service::now()).await?;
        Ok(found.is_some_and(|way| self.unsealed(&way).is_ok()))
    }

    /// A queue is gone: what went from it elsewhere is still opened there, for as long as it may live.
    pub(super) async fn end_ways(&self, from: &Place) -> Result<(), StoreError> {
        let (now, owner) = (service::now(), from.owner());
        let mut after = String::new();
        loop {
            let ways = self.inner.records(RecordKind::Way, &owner, (&after, WAYS), now).await?;
            let Some(last) = ways.last() else { return Ok(()) };
            after.clone_from(&last.name);
            for way in ways.into_iter().filter(|way| way.until == NEVER) {
                let Ok(way) = self.unsealed(&way) else { continue };
                let ends = Record { until: now.saturating_add(LONGEST), ..way };
                self.inner.keep(self.seal_way(&ends)?, Before::Any, now).await?;
            }
        }
    }
}
