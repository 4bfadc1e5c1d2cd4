//! Random lives of agents, a component type and the key-encryption key, beside a model of who holds
//! what: no key that ended opens or signs anything new, and none that lives is lost.
//!
//! `BULLA_LIVES=20` plays so many lives, `BULLA_LIFE_SEED` begins with another one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_guard::revocation::{Applied, Known, Subject, SubjectKey, apply};
use bulla_keystore::{
    AgentKeys, Kek, KeyType, Keystore, KeystoreError, PeerKeys, REWRAP_BATCH, Reach, RenewRefusal,
    Renewal, Renewed, SIGNING_LIFETIME,
};
use bulla_seal::{
    Digest, KemSecretKey, Kid, OsRandom, Party, Secret, SignedStatement, SigningKey, Suite,
    SuiteSet, UnixTime, shared,
};

use crate::common::{self, Fixture, agent, component, fixture, group};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const STEPS: usize = 60;

/// The keys that a living agent holds.
#[derive(Clone)]
enum Keys {
    Pair { kid: Kid, epoch: u32, counter: u64 },
    Shared { key: Secret<32> },
}

#[derive(Clone)]
struct Agent {
    party: Party,
    keys: Keys,
    /// Revoked or in quarantine: its name is still taken.
    revoked: bool,
    /// The keys that it renewed to, if the database was put back to before that.
    later: Option<Keys>,
}

impl Agent {
    fn new(party: Party, keys: Keys) -> Self {
        Self { party, keys, revoked: false, later: None }
    }
}

/// A key that ended, and what of group `all` its holder had.
struct Ended {
    subject: Subject,
    group_epoch: Option<u32>,
}

/// The database as it was, and what the model knew then.
struct Backup {
    bytes: Vec<u8>,
    kek: Kek,
    agents: BTreeMap<&'static str, Agent>,
}

struct Life {
    fixture: Fixture,
    keystore: Keystore,
    kek: Kek,
    keks: u32,
    agents: BTreeMap<&'static str, Agent>,
    ended: Vec<Ended>,
    backup: Option<Backup>,
    /// Agents that the database forgot, by name: their keys end when the name is given again.
    lost: Vec<(&'static str, Agent)>,
    known: Known,
    /// How far the clock is ahead.
    later: Duration,
    /// The newest statement, which a control-plane process holds.
    told: SignedStatement,
    random: u64,
    hosts: u32,
    /// The newest audience credential that was handed out.
    audience: (Kid, u32),
}

impl Life {
    async fn new(fixture: Fixture, seed: u64) -> Self {
        let (keystore, kek) = (fixture.keystore.clone(), fixture.kek.clone());
        let roles = ["group:all".to_owned()];
        keystore.add_component("control", &roles, SuiteSet::all()).await.unwrap();
        let audience = keystore.credential(&component("control")).await.unwrap();
        let told = keystore.statement().await.unwrap();
        Self {
            fixture,
            keystore,
            kek,
            keks: 0,
            agents: BTreeMap::new(),
            ended: Vec::new(),
            backup: None,
            lost: Vec::new(),
            later: Duration::ZERO,
            told,
            known: Known::default(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            hosts: 0,
            audience: (audience.kid, audience.epoch),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    async fn step(&mut self) -> String {
        let name = NAMES[self.draw(NAMES.len() as u64) as usize];
        let what = self.draw(14);
        let done = match (what, self.agents.get(name).map(|agent| agent.revoked)) {
            (0..=2, None) => self.add(name, KeyType::Pair).await,
            (3..=4, None) => self.add(name, KeyType::Shared).await,
            (0..=2, Some(false)) => self.renew(name).await,
            (3, Some(_)) => self.remove(name, false).await,
            (4, Some(_)) => self.remove(name, true).await,
            (5, Some(false)) => self.revoke(name).await,
            (6, Some(false)) => self.clone_of(name).await,
            (7, _) => self.rotate_component().await,
            (8, _) => self.revoke_host().await,
            (9, _) => self.rotate_kek().await,
            (10, _) => self.reopen().await,
            (12, _) => self.back_up().await,
            (13, _) => self.restore().await,
            (11, None) => self.add_and_crash(name).await,
            _ => return "nothing".to_owned(),
        };
        format!("{done} ({name})")
    }

    async fn add(&mut self, name: &'static str, key_type: KeyType) -> &'static str {
        let keys = self.keystore.add_agent(name, key_type, Suite::X25519).await.unwrap();
        let (incarnation, keys) = match keys {
            AgentKeys::Pair { credential, .. } => {
                let keys = Keys::Pair { kid: credential.kid, epoch: credential.epoch, counter: 0 };
                (credential.party.incarnation, keys)
            }
            AgentKeys::Shared { key, incarnation, .. } => (incarnation, Keys::Shared { key }),
        };
        let party = Party::new(agent(name), incarnation);
        let former = self.ended.iter().filter(|e| e.subject.party.principal == party.principal);
        assert!(former.clone().all(|ended| ended.subject.party.incarnation < incarnation));
        self.agents.insert(name, Agent::new(party, keys));
        self.end_lost(name);
        "added"
    }

    /// The process dies somewhere in the middle.
    async fn add_and_crash(&mut self, name: &'static str) -> &'static str {
        let moment = Duration::from_micros(self.draw(3_000));
        let added = self.keystore.add_agent(name, KeyType::Shared, Suite::Shared);
        let added = tokio::time::timeout(moment, added).await;
        self.crash().await;
        if let Ok(added) = added {
            let AgentKeys::Shared { key, incarnation, .. } = added.unwrap() else { panic!() };
            let party = Party::new(agent(name), incarnation);
            self.agents.insert(name, Agent::new(party, Keys::Shared { key }));
            self.end_lost(name);
            return "added before a crash";
        }
        // All of it or nothing; if all, nobody has its keys.
        match self.keystore.remove_agent(name).await {
            Ok(_) => "added in a crash, and removed",
            Err(KeystoreError::UnknownPrincipal(_)) => "not added in a crash",
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything that an agent holds ends.
    async fn end(&mut self, name: &str) {
        let before = self.keystore.group_key(&group("all"), None).await.unwrap().epoch;
        let agent = &self.agents[name];
        let (kid, key) = match &agent.keys {
            Keys::Pair { kid, epoch, .. } => (*kid, SubjectKey::Credential(*epoch)),
            Keys::Shared { .. } => {
                let control = component("control");
                let pair = self.keystore.pair_key(&agent.party.principal, &control).await.unwrap();
                (pair.kid, SubjectKey::Pair(pair.epoch))
            }
        };
        let party = agent.party.clone();
        if let Some(Keys::Pair { kid, epoch, .. }) = agent.later {
            self.end_pair(party.clone(), kid, epoch);
        }
        let subject = Subject { kid, party, key };
        self.ended.push(Ended { subject, group_epoch: Some(before) });
    }

    /// A credential that the database does not know.
    fn end_pair(&mut self, party: Party, kid: Kid, epoch: u32) {
        let subject = Subject { kid, party, key: SubjectKey::Credential(epoch) };
        self.ended.push(Ended { subject, group_epoch: None });
    }

    /// What former holders of a name have that the database forgot. Shared keys it finds no more.
    fn end_lost(&mut self, name: &str) {
        for (_, agent) in self.lost.extract_if(.., |(of, _)| *of == name).collect::<Vec<_>>() {
            for keys in [Some(agent.keys), agent.later].into_iter().flatten() {
                if let Keys::Pair { kid, epoch, .. } = keys {
                    self.end_pair(agent.party.clone(), kid, epoch);
                }
            }
        }
    }

    async fn back_up(&mut self) -> &'static str {
        let bytes = common::backup(&self.fixture).await;
        self.backup = Some(Backup { bytes, kek: self.kek.clone(), agents: self.agents.clone() });
        "backed it up"
    }

    /// The database of before, under the processes that told what happened since.
    async fn restore(&mut self) -> &'static str {
        let Some(Backup { bytes, kek, agents }) = self.backup.take() else { return "nothing" };
        self.keystore.clone().close().await;
        self.fixture.keystore.clone().close().await;
        common::restore(&self.fixture, &bytes).await;
        self.kek = kek.clone();
        // It takes a while.
        self.later += Duration::from_secs(60);
        self.reopen().await;
        self.keystore.put_back(&self.told).await.unwrap();
        assert_eq!(self.keystore.recall(&self.told).await.unwrap(), None, "recalled twice");
        let mut since = std::mem::replace(&mut self.agents, agents.clone());
        for (name, agent) in &mut self.agents {
            let Some(now) = since.remove(name) else {
                agent.revoked = true;
                continue;
            };
            if now.party != agent.party {
                agent.revoked = true;
                self.lost.push((*name, now));
                continue;
            }
            agent.revoked |= now.revoked;
            let known = match (&agent.keys, &now.keys) {
                (Keys::Pair { kid, .. }, Keys::Pair { kid: later, .. }) => kid == later,
                _ => true,
            };
            agent.later = if known { now.later } else { Some(now.later.unwrap_or(now.keys)) };
        }
        self.lost.extend(since);
        self.backup = Some(Backup { bytes, kek, agents });
        "put the backup back"
    }

    async fn remove(&mut self, name: &'static str, crash: bool) -> &'static str {
        let ended = self.ended.len();
        self.end(name).await;
        if crash {
            let moment = Duration::from_micros(self.draw(3_000));
            let removed = tokio::time::timeout(moment, self.keystore.remove_agent(name)).await;
            self.crash().await;
            if removed.is_err() && self.keystore.party(&agent(name)).await.is_ok() {
                self.ended.truncate(ended);
                return "not removed in a crash";
            }
        } else {
            self.keystore.remove_agent(name).await.unwrap();
        }
        self.agents.remove(name);
        "removed"
    }

    async fn revoke(&mut self, name: &'static str) -> &'static str {
        self.end(name).await;
        // It is still in the group.
        self.ended.last_mut().unwrap().group_epoch = None;
        self.keystore.revoke_principal(&agent(name)).await.unwrap();
        self.agents.get_mut(name).unwrap().revoked = true;
        "revoked"
    }

    fn renewal(party: &Party, credential: Kid, counter: u64, request: u64) -> Renewal {
        let random = &mut OsRandom::default();
        Renewal {
            party: party.clone(),
            credential,
            counter,
            request: Digest::of(&request.to_be_bytes()),
            signing: SigningKey::generate(random).unwrap().verifying_key(),
            kem: KemSecretKey::generate(Suite::X25519, random).unwrap().public().clone(),
        }
    }

    async fn renew(&mut self, name: &'static str) -> &'static str {
        let request = self.draw(u64::MAX);
        let Agent { party, keys: Keys::Pair { kid, epoch, counter }, later, .. } =
            self.agents.get_mut(name).unwrap()
        else {
            return "nothing";
        };
        if let Some(Keys::Pair { kid, counter, .. }) = later {
            let asked = Self::renewal(party, *kid, *counter + 1, request);
            let refused = self.keystore.renew_agent(&asked).await.unwrap();
            assert!(matches!(refused, Renewed::Refused(_)), "{refused:?}");
            return "did not renew what the database forgot";
        }
        let asked = Self::renewal(party, *kid, *counter + 1, request);
        let renewed = self.keystore.renew_agent(&asked).await.unwrap();
        let Renewed::Issued { credential, .. } = renewed else { panic!("{renewed:?}") };
        assert_eq!(credential.epoch, *epoch + 1);
        self.keystore.confirm_renewal(party, credential.kid).await.unwrap();
        (*kid, *epoch, *counter) = (credential.kid, credential.epoch, *counter + 1);
        "renewed"
    }

    /// Two copies of one agent renew.
    async fn clone_of(&mut self, name: &'static str) -> &'static str {
        let agent = &self.agents[name];
        let (Keys::Pair { kid, counter, .. }, None) = (&agent.keys, &agent.later) else {
            return "nothing";
        };
        let (kid, counter) = (*kid, *counter);
        let (party, counter) = (agent.party.clone(), counter + 1);
        self.end(name).await;
        self.ended.last_mut().unwrap().group_epoch = None;
        let [one, other] = [0, 1].map(|n| Self::renewal(&party, kid, counter, counter * 2 + n));
        let issued = self.keystore.renew_agent(&one).await.unwrap();
        let Renewed::Issued { credential, .. } = issued else { panic!("{issued:?}") };
        let key = SubjectKey::Credential(credential.epoch);
        let subject = Subject { kid: credential.kid, party: party.clone(), key };
        self.ended.push(Ended { subject, group_epoch: None });
        let noticed = self.keystore.renew_agent(&other).await.unwrap();
        assert!(
            matches!(noticed, Renewed::Refused(RenewRefusal::Cloned(_))),
            "{noticed:?} for a clone"
        );
        for counter in [counter, counter + 1] {
            let again = Self::renewal(&party, credential.kid, counter, 99);
            let refused = self.keystore.renew_agent(&again).await.unwrap();
            assert!(matches!(refused, Renewed::Refused(RenewRefusal::Gone(_))), "{refused:?}");
        }
        self.agents.get_mut(name).unwrap().revoked = true;
        "noticed a clone"
    }

    async fn rotate_component(&mut self) -> &'static str {
        self.keystore.rotate_component("control").await.unwrap();
        "rotated the component"
    }

    async fn revoke_host(&mut self) -> &'static str {
        self.hosts += 1;
        let host = format!("host-{}", self.hosts);
        let (_, signing) =
            self.keystore.issue_signing("control", &host, SIGNING_LIFETIME).await.unwrap();
        let party = signing.party.clone();
        let mut ended = vec![(signing.kid, SubjectKey::Credential(signing.epoch))];
        for (_, audience) in self.keystore.receive_keys("control").await.unwrap() {
            ended.push((audience.kid, SubjectKey::Credential(audience.epoch)));
        }
        for agent in self.agents.values().filter(|agent| matches!(agent.keys, Keys::Shared { .. }))
        {
            let control = component("control");
            let pair = self.keystore.pair_key(&agent.party.principal, &control).await.unwrap();
            ended.push((pair.kid, SubjectKey::Pair(pair.epoch)));
        }
        let group_epoch = Some(self.keystore.group_key(&group("all"), None).await.unwrap().epoch);
        self.keystore.revoke_host("control", &host, Reach::Type).await.unwrap();
        for (kid, key) in ended {
            let subject = Subject { kid, party: party.clone(), key };
            self.ended.push(Ended { subject, group_epoch });
        }
        "revoked a host"
    }

    async fn rotate_kek(&mut self) -> &'static str {
        self.keks += 1;
        let path = self.fixture.folder.path().join(format!("kek.{}", self.keks));
        let next = Kek::create_file(path).unwrap();
        self.keystore.rotate_kek(&next, REWRAP_BATCH, |_| {}).await.unwrap();
        let former = std::mem::replace(&mut self.kek, next);
        let opened = Keystore::open(&self.fixture.address, former).await;
        assert!(opened.is_err(), "the former KEK opens it still");
        self.reopen().await;
        "rotated the KEK"
    }

    /// Another process, once what the database was told by the one before is done or undone.
    async fn crash(&mut self) {
        self.keystore.clone().close().await;
        self.reopen().await;
    }

    /// Another process, while the one before is gone without a word.
    async fn reopen(&mut self) -> &'static str {
        let opened = Keystore::open(&self.fixture.address, self.kek.clone()).await;
        let later = self.later;
        let clock = move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + later;
            UnixTime::from_secs(now.as_secs())
        };
        self.keystore = opened.unwrap().with_clock(clock);
        "opened it anew"
    }

    async fn check(&mut self) {
        let statement = self.keystore.statement().await.unwrap();
        self.told = statement.clone();
        let digest = Digest::of(statement.as_bytes());
        let (known, applied) = apply(std::mem::take(&mut self.known), &statement, digest);
        self.known = known;
        assert!(matches!(applied, Applied::Moved | Applied::Same), "{applied:?}");
        // Of a receiver that heard nothing before.
        let (fresh, _) = apply(Known::default(), &statement, digest);
        let (control, all) = (component("control"), group("all"));
        let group_now = self.keystore.group_key(&all, None).await.unwrap().epoch;
        for Ended { subject, group_epoch } in &self.ended {
            assert!(self.known.judge(subject).is_err(), "{subject:?} is taken still");
            assert!(fresh.judge(subject).is_err(), "{subject:?} is taken by a new receiver");
            if let Some(epoch) = group_epoch {
                assert!(group_now > *epoch, "{subject:?} reads the group still");
                assert!(self.known.group_epoch(&all).is_some_and(|known| known > *epoch));
            }
            if let (SubjectKey::Pair(_), true) = (subject.key, subject.party.principal.is_agent()) {
                let found = self.keystore.pair_by_kid(subject.kid).await.unwrap();
                let revoked = self.agents.values().any(|agent| agent.party == subject.party);
                assert!(found.is_none() || revoked, "{subject:?} is found still");
            }
        }
        for (name, agent) in &self.agents {
            let found = self.keystore.peer(&agent.party.principal, &control).await;
            if agent.revoked {
                // Its name may still be looked up; whoever judges what is found refuses it.
                continue;
            }
            let subject = match (found.unwrap(), &agent.keys) {
                (PeerKeys::Pair(credential), Keys::Pair { kid, epoch, .. }) => {
                    assert_eq!((credential.kid, credential.epoch), (*kid, *epoch), "{name}");
                    assert_eq!(credential.party, agent.party);
                    let key = SubjectKey::Credential(*epoch);
                    Subject { kid: *kid, party: agent.party.clone(), key }
                }
                (PeerKeys::Shared(pair), Keys::Shared { key }) => {
                    let derived = shared::pair_key(key, &agent.party, &control, pair.epoch);
                    assert!(derived.ct_eq(&pair.key), "{name} derives another key");
                    let named = self.keystore.pair_by_kid(pair.kid).await.unwrap().unwrap();
                    assert!(named.key.ct_eq(&derived));
                    let party = Party::new(control.clone(), 1);
                    let key = SubjectKey::Pair(pair.epoch);
                    let other_end = Subject { kid: pair.kid, party, key };
                    self.known.judge(&other_end).unwrap();
                    Subject { kid: pair.kid, party: agent.party.clone(), key }
                }
                (found, _) => panic!("{name}: {found:?}"),
            };
            self.known.judge(&subject).unwrap_or_else(|e| panic!("{subject:?} is lost: {e}"));
        }
        let audience = self.keystore.credential(&control).await.unwrap();
        assert!(audience.epoch >= self.audience.1, "an older audience key is handed out");
        self.audience = (audience.kid, audience.epoch);
        let key = SubjectKey::Credential(audience.epoch);
        let subject = Subject { kid: audience.kid, party: audience.party.clone(), key };
        self.known.judge(&subject).unwrap();
    }
}

#[tokio::test]
async fn no_life_lets_an_old_key_in_or_loses_a_live_one() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let first = number("BULLA_LIFE_SEED").unwrap_or(1);
    for seed in first..first + number("BULLA_LIVES").unwrap_or(2) {
        let mut life = Life::new(fixture!(), seed).await;
        let mut done = Vec::new();
        for _ in 0..STEPS {
            done.push(life.step().await);
            println!("seed {seed}: {}", done.last().unwrap());
            life.check().await;
        }
        assert!(done.iter().filter(|step| !step.starts_with("nothing")).count() > STEPS / 2);
    }
}
