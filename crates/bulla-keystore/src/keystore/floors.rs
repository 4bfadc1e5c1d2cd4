//! Floors of peers, exemptions and the census (protocol section 8), for every process that uses
//! the keystore.

use std::fmt;

use async_trait::async_trait;
use bulla_guard::floor::{
    Action, CensusRow, Event, FloorError, FloorStore, PeerRecord, step, unknown_peer,
};
use bulla_seal::{Kid, Level, Party, SignedExemption};
use bytes::Bytes;

use super::Keystore;
use crate::db::floors::{self, FloorRow, SeenRow};
use crate::db::{Conn, Db};
use crate::error::{KeystoreError, Result};

/// Floors, exemptions and the census in a keystore's database. What one process raises counts for
/// all that share it.
#[derive(Clone)]
pub struct KeystoreFloors {
    db: Db,
}

/// The last message of a peer that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// `namespace.method`.
    pub method: String,
    /// Its level.
    pub level: Level,
    /// When, in Unix seconds.
    pub at: u64,
}

impl Keystore {
    /// The last message of a peer in this incarnation, as the census has it: processes write it down
    /// every ten seconds.
    pub async fn last_seen(&self, peer: &Party) -> Result<Option<Sighting>> {
        let mut conn = self.db.read().await?;
        let name = peer.principal.as_str();
        let row = floors::last_seen(&mut conn, name, peer.incarnation).await?;
        let sighting = |(method, number, at): (String, i64, i64)| {
            Ok(Sighting { method, level: level(number)?, at: at.unsigned_abs() })
        };
        row.map(sighting).transpose()
    }

    /// Floors of peers, exemptions and the census, in this keystore.
    pub fn floors(&self) -> KeystoreFloors {
        KeystoreFloors { db: self.db.clone() }
    }
}

impl fmt::Debug for KeystoreFloors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeystoreFloors")
    }
}

fn failed(error: KeystoreError) -> FloorError {
    FloorError { place: "in the keystore".to_owned(), why: error.to_string() }
}

fn level(value: i64) -> Result<Level> {
    let level = u64::try_from(value).ok().and_then(Level::from_wire);
    level.ok_or_else(|| KeystoreError::damaged("level of a peer"))
}

fn number(level: Level) -> i64 {
    signed(level.to_wire().into())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn party(peer: &str, incarnation: u32) -> Result<Party> {
    let principal = peer.parse().map_err(|_| KeystoreError::damaged("peer's name"))?;
    Ok(Party::new(principal, incarnation))
}

fn record(peer: &Party, row: &FloorRow) -> Result<PeerRecord> {
    let new = PeerRecord::new(peer.principal.kind(), level(row.accepts)?, level(row.sends)?);
    Ok(PeerRecord { target: row.target.map(level).transpose()?, ..new })
}

async fn read(conn: &mut Conn, peer: &Party) -> Result<Option<PeerRecord>> {
    let row = floors::find(conn, peer.principal.as_str(), peer.incarnation).await?;
    row.map(|row| record(peer, &row)).transpose()
}

impl KeystoreFloors {
    async fn stepped(&self, peer: &Party, event: Event) -> Result<(PeerRecord, Action)> {
        let mut tx = self.db.write().await?;
        let before = read(&mut tx, peer).await?.unwrap_or_else(|| unknown_peer(peer));
        let (record, action) = step(before, event);
        if action != Action::Keep {
            let (accepts, sends) = (number(record.accepts), number(record.sends));
            let row = FloorRow { accepts, sends, target: record.target.map(number) };
            floors::set(&mut tx, peer.principal.as_str(), peer.incarnation, &row).await?;
            floors::turn(&mut tx).await?;
        }
        tx.commit().await?;
        Ok((record, action))
    }

    async fn exempted(&self, exemption: &SignedExemption) -> Result<()> {
        let mut tx = self.db.write().await?;
        floors::set_exemption(&mut tx, exemption.id.as_bytes(), exemption.as_bytes()).await?;
        floors::turn(&mut tx).await?;
        tx.commit().await
    }

    async fn unexempted(&self, id: Kid) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let was_there = floors::remove_exemption(&mut tx, id.as_bytes()).await?;
        floors::turn(&mut tx).await?;
        tx.commit().await?;
        Ok(was_there)
    }

    async fn counted(&self, rows: &[CensusRow]) -> Result<()> {
        let mut tx = self.db.write().await?;
        for row in rows {
            let seen = SeenRow {
                peer: row.peer.principal.as_str().to_owned(),
                incarnation: row.peer.incarnation,
                method: row.method.clone(),
                level: number(row.level),
                count: signed(row.count),
                last: signed(row.last),
                below: signed(row.below),
                last_below: signed(row.last_below),
            };
            floors::add_seen(&mut tx, &seen).await?;
        }
        tx.commit().await
    }

    async fn every_record(&self) -> Result<Vec<(Party, PeerRecord)>> {
        let rows = floors::all(&mut self.db.read().await?).await?;
        let record = |(peer, incarnation, row): (String, u32, FloorRow)| {
            let peer = party(&peer, incarnation)?;
            let record = record(&peer, &row)?;
            Ok((peer, record))
        };
        rows.into_iter().map(record).collect()
    }

    async fn every_census_row(&self) -> Result<Vec<CensusRow>> {
        let rows = floors::seen(&mut self.db.read().await?).await?;
        let row = |row: SeenRow| {
            Ok(CensusRow {
                peer: party(&row.peer, row.incarnation)?,
                method: row.method,
                level: level(row.level)?,
                count: row.count.unsigned_abs(),
                last: row.last.unsigned_abs(),
                below: row.below.unsigned_abs(),
                last_below: row.last_below.unsigned_abs(),
            })
        };
        rows.into_iter().map(row).collect()
    }
}

#[async_trait]
impl FloorStore for KeystoreFloors {
    async fn record(&self, peer: &Party) -> Result<Option<PeerRecord>, FloorError> {
        let found = async { read(&mut self.db.read().await?, peer).await };
        found.await.map_err(failed)
    }

    async fn apply(&self, peer: &Party, event: Event) -> Result<(PeerRecord, Action), FloorError> {
        self.stepped(peer, event).await.map_err(failed)
    }

    async fn records(&self) -> Result<Vec<(Party, PeerRecord)>, FloorError> {
        self.every_record().await.map_err(failed)
    }

    async fn exemptions(&self) -> Result<Vec<Bytes>, FloorError> {
        let found = async { floors::exemptions(&mut self.db.read().await?).await };
        Ok(found.await.map_err(failed)?.into_iter().map(Into::into).collect())
    }

    async fn add_exemption(&self, exemption: &SignedExemption) -> Result<(), FloorError> {
        self.exempted(exemption).await.map_err(failed)
    }

    async fn remove_exemption(&self, id: Kid) -> Result<bool, FloorError> {
        self.unexempted(id).await.map_err(failed)
    }

    async fn generation(&self) -> Result<u64, FloorError> {
        let found = async { floors::generation(&mut self.db.read().await?).await };
        Ok(found.await.map_err(failed)?.unsigned_abs())
    }

    async fn add_census(&self, rows: &[CensusRow]) -> Result<(), FloorError> {
        self.counted(rows).await.map_err(failed)
    }

    async fn census(&self) -> Result<Vec<CensusRow>, FloorError> {
        self.every_census_row().await.map_err(failed)
    }
}
