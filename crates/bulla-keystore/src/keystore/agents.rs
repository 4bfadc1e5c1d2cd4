//! Agents: added, removed, listed.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bulla_seal::{
    GroupName, KemSecretKey, MAX_LIFE, OsRandom, Party, Principal, Random, Secret,
    SignedCredential, SigningKey, Suite, UnixTime,
};

use super::issue::NewHolder;
use super::{
    EVERY_AGENT, KID_TRIES, Keystore, PairKeyId, SKEW, current_kek, from_column, kid_from, seconds,
    stored_agent, stored_component,
};
use crate::db::Conn;
use crate::db::keys::{self, InstanceKeyRow};
use crate::db::principals::{self, NewPrincipal, PrincipalRow};
use crate::db::{
    ROWS_AT_ONCE, component_keys, credentials, groups, join, pairs, recalls, revocation,
};
use crate::error::{KeystoreError, Result};
use crate::kek::Row;

/// Most agents in one page.
const MAX_PAGE: u32 = 1_000;

/// Which keys an agent holds (protocol section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// A key pair to sign and one to receive. The default.
    Pair,
    /// One symmetric key, as in the Trove specification: no forward secrecy, and a clone is not
    /// noticed.
    Shared,
}

impl KeyType {
    /// `pair` or `shared`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Shared => "shared",
        }
    }

    fn stored(text: &str) -> Result<Self> {
        [Self::Pair, Self::Shared]
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| KeystoreError::damaged("key type"))
    }
}

/// The secrets of a new agent: given out once.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each new agent, and never in a list")]
pub enum AgentKeys {
    /// Of a key-pair agent. The keystore keeps only the credential.
    Pair {
        /// Signs.
        signing: SigningKey,
        /// Receives.
        kem: KemSecretKey,
        /// Says so.
        credential: SignedCredential,
    },
    /// Of a shared-key agent.
    Shared {
        /// K, from which every pair key is derived.
        key: Secret<32>,
        /// The agent's incarnation.
        incarnation: u32,
        /// The names of its pair keys with every component type that exists now.
        pairs: Vec<PairKeyId>,
    },
}

/// An agent as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRecord {
    /// Its name and incarnation.
    pub party: Party,
    /// Which keys it holds.
    pub key_type: KeyType,
    /// The suite of its keys.
    pub suite: Suite,
    /// When it was added.
    pub created: UnixTime,
    /// When its record last changed.
    pub updated: UnixTime,
}

/// Everything about one agent but its secrets.
#[derive(Debug, Clone)]
pub struct AgentDetails {
    /// Its record.
    pub record: AgentRecord,
    /// A key-pair agent's credential, if it is valid now.
    pub credential: Option<SignedCredential>,
    /// The groups that it is in.
    pub groups: Vec<GroupName>,
    /// A shared-key agent's pair keys that have a name so far.
    pub pairs: Vec<PairKeyId>,
    /// A key-pair agent's credentials that are not over, newest first.
    pub credentials: Vec<CredentialRecord>,
    /// A shared-key agent's own key: its epoch, and since when it has it.
    pub shared: Option<(u32, UnixTime)>,
    /// The join-state counter: how often it renewed its credential.
    pub counter: u64,
    /// When it last did.
    pub renewed: Option<UnixTime>,
}

/// A credential of an agent as it is shown.
#[derive(Debug, Clone)]
pub struct CredentialRecord {
    /// The credential.
    pub credential: SignedCredential,
    /// When it was issued.
    pub issued: UnixTime,
    /// Whether peers are told of it: not before the agent has it.
    pub handed_out: bool,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// Where a list goes on.
#[derive(Debug, Clone)]
pub struct Page {
    /// Names after this one; all if `None`.
    pub after: Option<String>,
    /// How many at most; 1,000 is the limit.
    pub limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: MAX_PAGE }
    }
}

/// A part of the list of agents, ordered by name.
#[derive(Debug, Clone)]
pub struct AgentPage {
    /// The agents.
    pub agents: Vec<AgentRecord>,
    /// The page after this one, if there is more.
    pub next: Option<Page>,
}

impl Keystore {
    /// Adds an agent and makes its keys. It joins group `all`. A name whose former holder was
    /// removed gets the next incarnation. `suite` is that of a key pair; a shared key has none,
    /// and it is not looked at.
    pub async fn add_agent(&self, id: &str, key_type: KeyType, suite: Suite) -> Result<AgentKeys> {
        let mut made = self.add_agents(&[id.to_owned()], key_type, suite).await?;
        made.pop().ok_or_else(|| KeystoreError::damaged("new agent"))
    }

    /// [`add_agent`](Self::add_agent) for many, in one transaction: all or none. Their keys are in
    /// the order of `ids`.
    pub async fn add_agents(
        &self,
        ids: &[String],
        key_type: KeyType,
        suite: Suite,
    ) -> Result<Vec<AgentKeys>> {
        let mut seen = HashSet::with_capacity(ids.len());
        for id in ids {
            let principal = Principal::agent(id)?;
            if !seen.insert(id.as_str()) {
                return Err(KeystoreError::NameTaken(Party::new(principal, 1)));
            }
        }
        let suite = match (key_type, suite) {
            (KeyType::Pair, Suite::Shared) => return Err(KeystoreError::NoKemSuite),
            (KeyType::Pair, suite) => suite,
            (KeyType::Shared, _) => Suite::Shared,
        };
        let now = self.now();
        let mut tx = self.db.write().await?;
        let added = self.insert_agents(&mut tx, ids, key_type, suite, now).await?;
        let made = match key_type {
            KeyType::Pair => self.make_pairs(&mut tx, added, suite, now).await?,
            KeyType::Shared => {
                let mut made = Vec::with_capacity(added.len());
                for (row_id, party) in added {
                    made.push(self.make_shared(&mut tx, row_id, &party, now).await?);
                }
                made
            }
        };
        tx.commit().await?;
        Ok(made)
    }

    /// Removes an agent: no look-up returns it any more, its shared key is wiped, and every group
    /// that it was in starts a new epoch. The next [statement](Self::statement) of revocation lists
    /// its keys.
    pub async fn remove_agent(&self, id: &str) -> Result<Party> {
        let principal = Principal::agent(id)?;
        let now = seconds(self.now());
        let mut tx = self.db.write().await?;
        let row = principals::active(&mut tx, principal.kind().as_str(), id).await?;
        let row = row.ok_or_else(|| KeystoreError::UnknownPrincipal(principal.clone()))?;
        for (group, name, epoch) in groups::of(&mut tx, "agent", id).await? {
            groups::remove(&mut tx, group, row.id).await?;
            super::groups::new_epoch(&mut tx, &self.keks, group, &name, epoch, now).await?;
        }
        // Its shared key is gone from here: nobody takes a pair key of it for longer than a message
        // that was sealed before may live.
        let pairs = self.now().secs().saturating_add(MAX_LIFE + 2 * SKEW.as_secs());
        self.list_kids(&mut tx, row.id, pairs).await?;
        let party = Party::new(principal, row.incarnation);
        self.list_exempted(&mut tx, &party).await?;
        let next = row.incarnation.saturating_add(1);
        self.end_lost(&mut tx, &Party::new(party.principal.clone(), next)).await?;
        self.check_room(&mut tx).await?;
        keys::delete(&mut tx, row.id, now).await?;
        super::copies::forget_agent(&mut tx, id).await?;
        principals::delete(&mut tx, row.id, now).await?;
        tx.commit().await?;
        Ok(party)
    }

    /// One page of the list of agents.
    pub async fn list_agents(&self, page: &Page) -> Result<AgentPage> {
        let limit = page.limit.clamp(1, MAX_PAGE);
        let after = page.after.as_deref().unwrap_or("");
        let mut conn = self.db.read().await?;
        // One more than asked for tells whether there is a next page.
        let mut rows = principals::page(&mut conn, "agent", after, limit + 1).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next =
            rows.last().filter(|_| more).map(|last| Page { after: Some(last.name.clone()), limit });
        let agents = rows.iter().map(record).collect::<Result<_>>()?;
        Ok(AgentPage { agents, next })
    }

    /// How many agents there are.
    pub async fn count_agents(&self) -> Result<u64> {
        principals::count(&mut self.db.read().await?, "agent").await
    }

    /// One agent in full.
    pub async fn show_agent(&self, id: &str) -> Result<AgentDetails> {
        let principal = Principal::agent(id)?;
        let (row, pairs, credentials, shared, reached) = {
            let mut conn = self.db.read().await?;
            let row = principals::active(&mut conn, "agent", id).await?;
            let row = row.ok_or_else(|| KeystoreError::UnknownPrincipal(principal.clone()))?;
            let pairs = pairs::of_agent(&mut conn, row.id).await?;
            let credentials = self.credentials_of(&mut conn, &row, &principal).await?;
            let shared = keys::of(&mut conn, row.id).await?;
            let reached = join::reached(&mut conn, row.id).await?;
            (row, pairs, credentials, shared, reached)
        };
        let credential = match self.credential(&principal).await {
            Ok(credential) => Some(credential),
            Err(KeystoreError::NoCredential(_)) => None,
            Err(e) => return Err(e),
        };
        let pairs = pairs.into_iter().map(|(kid, component, epoch)| {
            let component = stored_component(&component)?;
            Ok(PairKeyId { kid: kid_from(&kid)?, component, epoch })
        });
        Ok(AgentDetails {
            record: record(&row)?,
            credential,
            groups: self.groups_of(&principal).await?,
            pairs: pairs.collect::<Result<_>>()?,
            credentials,
            shared: shared.map(|(epoch, since)| (epoch, from_column(since))),
            counter: reached.map_or(0, |(counter, _)| counter.unsigned_abs()),
            renewed: reached.map(|(_, at)| from_column(at)),
        })
    }

    async fn credentials_of(
        &self,
        conn: &mut Conn,
        row: &PrincipalRow,
        principal: &Principal,
    ) -> Result<Vec<CredentialRecord>> {
        let now = self.now();
        let mut records = Vec::new();
        for stored in credentials::living(conn, row.id, seconds(now)).await? {
            records.push(CredentialRecord {
                credential: self.verified(principal, row.incarnation, &stored.bytes, now)?,
                issued: from_column(stored.created),
                handed_out: stored.not_before <= seconds(now),
                revoked: revocation::is_listed(conn, &stored.kid).await?,
            });
        }
        Ok(records)
    }

    /// New agents, all or none, each in the next incarnation of its name and in group `all`; gives
    /// their rows in the order of `ids`. No id may stand there twice.
    pub(super) async fn insert_agents(
        &self,
        conn: &mut Conn,
        ids: &[String],
        key_type: KeyType,
        suite: Suite,
        now: UnixTime,
    ) -> Result<Vec<(i64, Party)>> {
        let base = recalls::base(conn).await?;
        let group = groups::find(conn, EVERY_AGENT).await?;
        let mut added = Vec::with_capacity(ids.len());
        for some in ids.chunks(ROWS_AT_ONCE) {
            let names: Vec<&str> = some.iter().map(String::as_str).collect();
            let mut last = HashMap::new();
            for (name, incarnation, active) in principals::known(conn, "agent", &names).await? {
                if active {
                    let party = Party::new(Principal::agent(&name)?, incarnation);
                    return Err(KeystoreError::NameTaken(party));
                }
                last.insert(name, incarnation);
            }
            let mut new = Vec::with_capacity(some.len());
            let mut parties = Vec::with_capacity(some.len());
            for name in names {
                let before = last.get(name).copied().unwrap_or_default().max(base);
                let incarnation = before.saturating_add(1);
                let (key_type, suite) = (key_type.as_str(), suite.to_wire().into());
                new.push(NewPrincipal { kind: "agent", name, incarnation, key_type, suite });
                parties.push(Party::new(Principal::agent(name)?, incarnation));
            }
            let rows = principals::insert_many(conn, &new, seconds(now)).await?;
            let rows: HashMap<String, i64> = rows.into_iter().collect();
            let first = added.len();
            for party in parties {
                let row_id = rows.get(party.principal.name());
                let row_id = row_id.ok_or_else(|| KeystoreError::damaged("new agent"))?;
                // Nothing is lost that was never put back.
                if base > 0 {
                    self.end_lost(conn, &party).await?;
                }
                added.push((*row_id, party));
            }
            if let Some((group, _)) = group {
                let members: Vec<i64> =
                    added.iter().skip(first).map(|(row_id, _)| *row_id).collect();
                groups::add_new(conn, group, &members, seconds(now)).await?;
            }
        }
        Ok(added)
    }

    /// A new principal in the next incarnation of its name.
    pub(super) async fn insert_principal(
        &self,
        conn: &mut Conn,
        principal: Principal,
        key_type: &str,
        suite: Suite,
        now: UnixTime,
    ) -> Result<(i64, Party)> {
        let (kind, name) = (principal.kind().as_str(), principal.name());
        if let Some(row) = principals::active(conn, kind, name).await? {
            return Err(KeystoreError::NameTaken(Party::new(principal, row.incarnation)));
        }
        let incarnation = principals::last_incarnation(conn, kind, name).await?.saturating_add(1);
        let suite = suite.to_wire().into();
        let new = NewPrincipal { kind, name, incarnation, key_type, suite };
        let row_id = principals::insert(conn, &new, seconds(now)).await?;
        let party = Party::new(principal, incarnation);
        if party.principal.is_agent() {
            self.end_lost(conn, &party).await?;
        }
        Ok((row_id, party))
    }

    async fn make_pairs(
        &self,
        conn: &mut Conn,
        added: Vec<(i64, Party)>,
        suite: Suite,
        now: UnixTime,
    ) -> Result<Vec<AgentKeys>> {
        let random = &mut OsRandom::default();
        let (mut new, mut keys) =
            (Vec::with_capacity(added.len()), Vec::with_capacity(added.len()));
        for (principal_id, party) in added {
            let (signing, kem) =
                (SigningKey::generate(random)?, KemSecretKey::generate(suite, random)?);
            let public = (signing.verifying_key(), kem.public().clone());
            new.push(NewHolder { principal_id, party, epoch: 1, keys: public });
            keys.push((signing, kem));
        }
        let issued = self.issue_agents(conn, new, now).await?;
        let with = |((signing, kem), credential)| AgentKeys::Pair { signing, kem, credential };
        Ok(keys.into_iter().zip(issued).map(with).collect())
    }

    async fn make_shared(
        &self,
        conn: &mut Conn,
        principal_id: i64,
        party: &Party,
        now: UnixTime,
    ) -> Result<AgentKeys> {
        let key = Secret::<32>::generate(&mut OsRandom::default())?;
        self.store_shared(conn, principal_id, party, &key, now).await?;
        let copied = component_keys::components(conn).await?;
        let mut pairs = Vec::new();
        for (component_id, name, epoch) in pairs::components(conn).await? {
            let kid = self.name_pair(conn, principal_id, component_id, epoch, now).await?;
            if copied.contains(&name) {
                self.copy_pair(conn, party, &name, (kid.as_bytes(), epoch), &key).await?;
            }
            pairs.push(PairKeyId { kid, component: stored_component(&name)?, epoch });
        }
        Ok(AgentKeys::Shared { key, incarnation: party.incarnation, pairs })
    }

    async fn store_shared(
        &self,
        conn: &mut Conn,
        principal_id: i64,
        party: &Party,
        key: &Secret<32>,
        now: UnixTime,
    ) -> Result<()> {
        let random = &mut OsRandom::default();
        let epoch = 1;
        let place = instance_key_row(party.principal.as_str(), party.incarnation, epoch);
        let kek = current_kek(conn, &self.keks).await?;
        let wrapped = kek.wrap_key().wrap(random, &place, key.expose())?;
        let mut id = [0; 16];
        random.fill(&mut id)?;
        let id = uuid::Builder::from_random_bytes(id).into_uuid().to_string();
        for _ in 0..KID_TRIES {
            let kid = self.kid()?;
            let row = InstanceKeyRow {
                id: &id,
                instance_id: party.principal.name(),
                encrypted_key: &STANDARD.encode(&wrapped),
                incarnation: party.incarnation,
                epoch,
                kid: kid.as_bytes(),
                principal_id,
            };
            if keys::insert(conn, &row, seconds(now)).await? {
                return Ok(());
            }
        }
        Err(KeystoreError::NoFreeKid(KID_TRIES))
    }
}

/// The place of a shared key.
pub(super) fn instance_key_row(agent: &str, incarnation: u32, epoch: u32) -> Row<'_> {
    Row { table: "instance_keys", column: "encrypted_key", name: agent, incarnation, epoch }
}

fn record(row: &PrincipalRow) -> Result<AgentRecord> {
    let suite = Suite::from_wire(row.suite.into());
    Ok(AgentRecord {
        party: Party::new(stored_agent(&row.name)?, row.incarnation),
        key_type: KeyType::stored(&row.key_type)?,
        suite: suite.ok_or_else(|| KeystoreError::damaged("suite"))?,
        created: from_column(row.created),
        updated: from_column(row.updated),
    })
}
