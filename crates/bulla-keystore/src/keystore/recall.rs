//! A database that was put back from a backup has forgotten what was revoked since. The newest
//! statement of revocation, which every control-plane process keeps beside the database, says what.

use std::collections::{BTreeMap, BTreeSet};

use bulla_seal::statement::MAX_LOWEST;
use bulla_seal::{GroupName, Lowest, Party, SignedStatement, Statement, UnixTime};

use super::revocation::{NO_END, listed_until, told_before};
use super::rotation::every_group;
use super::{Keystore, from_column, seconds, to_column};
use crate::db::revocation::{self, LowestRow};
use crate::db::{Conn, Tx, component_keys, groups, recalls};
use crate::error::Result;

/// 2020-01-01, from which [`Keystore::recall`] counts seconds.
const COUNTED_FROM: u64 = 1_577_836_800;

/// What was made good after the database had lost something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// The epoch of the statement that was told.
    pub told: u64,
    /// The epoch of the newest statement that the database knew.
    pub stored: u64,
    /// Component types; each has a new key to receive with.
    pub components: Vec<String>,
    /// Groups, each with its new epoch.
    pub groups: Vec<(GroupName, u32)>,
    /// How many open join tokens were withdrawn: some of them may have been used.
    pub tokens: u64,
}

impl Keystore {
    /// Holds the database against the newest `statement` that was told, which the caller has
    /// verified. `None` if the database knows all that it says. Otherwise the database is older
    /// than what was told, and is treated as one that was [put back](Self::put_back).
    pub async fn recall(&self, statement: &SignedStatement) -> Result<Option<Recalled>> {
        let mut conn = self.db.read().await?;
        let newest = revocation::statement(&mut conn).await?;
        if newest.as_deref() == Some(statement.as_bytes())
            || self.knows(&mut conn, statement).await?
        {
            return Ok(None);
        }
        drop(conn);
        let mut tx = self.db.write().await?;
        // Another process may have been first.
        if self.knows(&mut tx, statement).await? {
            return Ok(None);
        }
        Ok(Some(self.make_good(tx, statement).await?))
    }

    /// What is to be done after the database was put back from a backup, `told` being the newest
    /// statement that was told before:
    ///
    /// - what it revokes is revoked in the database again;
    /// - every incarnation and epoch that is made from now on is above all that may have been made
    ///   since the backup, and every component type's audience key and every group's key is
    ///   followed by such a one;
    /// - open join tokens are withdrawn.
    ///
    /// A backup from after the newest statement shows by nothing that it is one: [recall](Self::recall)
    /// does not notice it, and only this makes sure that no number is given twice.
    pub async fn put_back(&self, told: &SignedStatement) -> Result<Recalled> {
        self.make_good(self.db.write().await?, told).await
    }

    async fn make_good(&self, mut tx: Tx, told: &Statement) -> Result<Recalled> {
        let stored = revocation::epoch(&mut tx).await?;
        self.count_above(&mut tx, told).await?;
        self.revoke_again(&mut tx, told).await?;
        let components = self.follow_audiences(&mut tx, told).await?;
        let groups = every_group(&mut tx).await?;
        let groups = self.rekey(&mut tx, groups).await?;
        let tokens = recalls::delete_open_tokens(&mut tx).await?;
        self.check_room(&mut tx).await?;
        tx.commit().await?;
        Ok(Recalled { told: told.epoch, stored, components, groups, tokens })
    }

    /// When the database was last found to be older than what was told.
    pub async fn recalled(&self) -> Result<Option<UnixTime>> {
        let newest = recalls::newest(&mut self.db.read().await?).await?;
        Ok(newest.map(|(_, created)| from_column(created)))
    }

    /// Credentials of earlier holders of an agent's name end that may have been lost with a database:
    /// for as long as one may live, a statement says that they count for nothing. Only as many names
    /// as leave half of a statement free: an operator who adds a fleet anew is not kept from it.
    pub(super) async fn end_lost(&self, conn: &mut Conn, lowest: &Party) -> Result<()> {
        let Some((_, recalled)) = recalls::newest(conn).await? else { return Ok(()) };
        let longest = from_column(recalled).secs().saturating_add(self.agent_life.as_secs());
        let (until, now) = (listed_until(longest), self.now().secs());
        let listed = revocation::lowest(conn, seconds(self.now())).await?.len();
        if until <= now || listed >= MAX_LOWEST / 2 {
            return Ok(());
        }
        let row = LowestRow {
            principal: lowest.principal.to_string(),
            incarnation: lowest.incarnation,
            credential_epoch: 0,
            pair_epoch: 0,
            until: to_column(until),
        };
        self.raise_lowest(conn, row).await
    }

    /// Whether the database knows all that a statement says. Nothing that it ever knew goes away:
    /// what is missing was lost.
    async fn knows(&self, conn: &mut Conn, told: &Statement) -> Result<bool> {
        let stored = revocation::epoch(conn).await?;
        if stored.max(told_before(conn).await?) < told.epoch {
            return Ok(false);
        }
        let now = self.now();
        let kids: BTreeSet<Vec<u8>> =
            revocation::kids(conn, seconds(now)).await?.into_iter().map(|(kid, _)| kid).collect();
        let gone = |kid: &[u8]| !kids.contains(kid);
        if told.revoked.iter().any(|r| r.until > now.secs() && gone(r.kid.as_bytes())) {
            return Ok(false);
        }
        let lowest = revocation::lowest(conn, i64::MIN).await?;
        let lowest: BTreeMap<_, _> =
            lowest.iter().map(|row| (row.principal.as_str(), row)).collect();
        let below = |told: &Lowest| {
            lowest.get(told.principal.to_string().as_str()).is_none_or(|row| is_below(row, told))
        };
        if told.lowest.iter().any(below) {
            return Ok(false);
        }
        for (group, epoch) in &told.groups {
            let found = groups::find(conn, group.as_str()).await?;
            // One that is made anew comes in above.
            if found.is_some_and(|(_, stored)| stored < *epoch) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// New incarnations and epochs are above all that was told and above the number of seconds that
    /// have gone by: more than were ever made of anything, and rising with each recall.
    async fn count_above(&self, conn: &mut Conn, told: &Statement) -> Result<()> {
        let seconds_gone = self.now().secs().saturating_sub(COUNTED_FROM);
        let base = u32::try_from(seconds_gone).unwrap_or(u32::MAX);
        let base = base.max(recalls::base(conn).await?.saturating_add(1));
        let of_names = told
            .lowest
            .iter()
            .flat_map(|lowest| [lowest.incarnation, lowest.credential_epoch, lowest.pair_epoch]);
        let of_groups = told.groups.iter().map(|(_, epoch)| *epoch);
        let base = of_names.chain(of_groups).fold(base, u32::max);
        recalls::insert(conn, base, to_column(told.epoch), seconds(self.now())).await
    }

    async fn revoke_again(&self, conn: &mut Conn, told: &Statement) -> Result<()> {
        let now = self.now();
        for revoked in told.revoked.iter().filter(|revoked| revoked.until > now.secs()) {
            let until = to_column(revoked.until);
            revocation::insert_kid(conn, revoked.kid.as_bytes(), until, seconds(now)).await?;
        }
        for lowest in &told.lowest {
            // The statement does not say until when.
            let row = LowestRow {
                principal: lowest.principal.to_string(),
                incarnation: lowest.incarnation,
                credential_epoch: lowest.credential_epoch,
                pair_epoch: lowest.pair_epoch,
                until: to_column(NO_END),
            };
            self.raise_lowest(conn, row).await?;
        }
        Ok(())
    }

    /// A new audience key for each component type, and the pair epoch that was told.
    async fn follow_audiences(&self, conn: &mut Conn, told: &Statement) -> Result<Vec<String>> {
        let names = recalls::components(conn).await?;
        for name in &names {
            let row = self.living_component(conn, name).await?;
            let audience = self.next_audience(conn, &row, name, None).await?;
            let lowest = told.lowest.iter().find(|lowest| {
                lowest.principal == audience.party.principal
                    && lowest.incarnation == row.incarnation
            });
            let Some(lowest) = lowest else { continue };
            let now = seconds(self.now());
            if recalls::raise_pair_epoch(conn, row.id, lowest.pair_epoch, now).await? {
                component_keys::delete_pairs(conn, name).await?;
            }
        }
        Ok(names)
    }
}

fn is_below(row: &LowestRow, told: &Lowest) -> bool {
    let epochs = row.credential_epoch < told.credential_epoch || row.pair_epoch < told.pair_epoch;
    row.incarnation < told.incarnation || (row.incarnation == told.incarnation && epochs)
}
