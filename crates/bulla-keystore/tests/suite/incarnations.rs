//! Whatever is added, removed and added again: nothing of an old incarnation is ever returned.
use std::collections::{HashMap, HashSet};

use crate::common::{Database, Fixture, agent, component, fixture};
use bulla_keystore::{AgentKeys, KeyType, KeystoreError};
use bulla_seal::{GroupName, Kid, Secret, SignedCredential, Suite, SuiteSet, shared};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Add { id: u8, key_type: KeyType },
    Remove { id: u8 },
    AddComponent { id: u8 },
    LookUp { id: u8, component: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let key_type = prop_oneof![Just(KeyType::Pair), Just(KeyType::Shared)];
    prop_oneof![
        4 => (0..3u8, key_type).prop_map(|(id, key_type)| Step::Add { id, key_type }),
        3 => (0..3u8).prop_map(|id| Step::Remove { id }),
        1 => (0..2u8).prop_map(|id| Step::AddComponent { id }),
        4 => (0..3u8, 0..2u8).prop_map(|(id, component)| Step::LookUp { id, component }),
    ]
}

enum Holder {
    Pair(Box<SignedCredential>),
    Shared(Secret<32>),
}

/// What ought to be so.
#[derive(Default)]
struct Model {
    living: HashMap<u8, (u32, Holder)>,
    incarnations: HashMap<u8, u32>,
    components: HashSet<u8>,
    /// Kids of pairs whose agent was removed.
    dead: HashSet<Kid>,
    /// Kids of pairs by agent.
    kids: HashMap<u8, HashSet<Kid>>,
    epoch: u32,
}

struct Run {
    fixture: Fixture,
    model: Model,
}

impl Run {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Add { id, key_type } => self.add(*id, *key_type).await,
            Step::Remove { id } => self.remove(*id).await,
            Step::AddComponent { id } => {
                let name = format!("c-{id}");
                let added =
                    self.fixture.keystore.add_component(&name, &[], SuiteSet::only(Suite::X25519));
                assert_eq!(added.await.is_ok(), self.model.components.insert(*id));
            }
            Step::LookUp { id, component } => self.look_up(*id, *component).await,
        }
    }

    async fn add(&mut self, id: u8, key_type: KeyType) {
        let name = format!("a-{id}");
        let keys = match self.fixture.keystore.add_agent(&name, key_type, Suite::X25519).await {
            Ok(keys) => keys,
            Err(KeystoreError::NameTaken(party)) => {
                assert_eq!(party.incarnation, self.model.living[&id].0);
                return;
            }
            Err(e) => panic!("{e}"),
        };
        assert!(!self.model.living.contains_key(&id));
        let expected = self.model.incarnations.entry(id).or_default();
        *expected += 1;
        let (incarnation, holder) = match keys {
            AgentKeys::Pair { credential, .. } => {
                (credential.party.incarnation, Holder::Pair(Box::new(credential)))
            }
            AgentKeys::Shared { key, incarnation, pairs } => {
                // The control plane's role is there for its own component type.
                let own = usize::from(crate::AS_CONTROL);
                assert_eq!(pairs.len(), self.model.components.len() + own);
                let kids: HashSet<_> = pairs.iter().map(|pair| pair.kid).collect();
                assert!(kids.is_disjoint(&self.model.dead));
                self.model.kids.insert(id, kids);
                (incarnation, Holder::Shared(key))
            }
        };
        assert_eq!(incarnation, *expected);
        self.model.living.insert(id, (incarnation, holder));
    }

    async fn remove(&mut self, id: u8) {
        let removed = self.fixture.keystore.remove_agent(&format!("a-{id}")).await;
        let Some((incarnation, _)) = self.model.living.remove(&id) else {
            assert!(matches!(removed, Err(KeystoreError::UnknownPrincipal(_))));
            return;
        };
        assert_eq!(removed.unwrap().incarnation, incarnation);
        self.model.dead.extend(self.model.kids.remove(&id).unwrap_or_default());
        self.model.epoch += 1;
    }

    async fn look_up(&mut self, id: u8, component_id: u8) {
        let keystore = &self.fixture.keystore;
        let (a, c) = (agent(&format!("a-{id}")), component(&format!("c-{component_id}")));
        let pair = keystore.pair_key(&a, &c).await;
        let credential = keystore.credential(&a).await;
        let party = keystore.party(&a).await;
        let Some((incarnation, holder)) = self.model.living.get(&id) else {
            assert!(pair.is_err() && credential.is_err() && party.is_err());
            return;
        };
        assert_eq!(party.unwrap().incarnation, *incarnation);
        match holder {
            Holder::Pair(ours) => {
                assert_eq!(credential.unwrap(), **ours);
                assert!(pair.is_err());
            }
            Holder::Shared(_) if !self.model.components.contains(&component_id) => {
                assert!(pair.is_err());
            }
            Holder::Shared(k) => {
                let pair = pair.unwrap();
                assert!(credential.is_err());
                assert_eq!(pair.agent.incarnation, *incarnation);
                assert!(pair.key.ct_eq(&shared::pair_key(k, &pair.agent, &c, 1)));
                assert!(!self.model.dead.contains(&pair.kid));
                self.model.kids.entry(id).or_default().insert(pair.kid);
            }
        }
    }

    async fn check(&self) {
        let keystore = &self.fixture.keystore;
        for kid in &self.model.dead {
            assert!(keystore.pair_by_kid(*kid).await.unwrap().is_none());
        }
        for (id, kids) in &self.model.kids {
            for kid in kids {
                let pair = keystore.pair_by_kid(*kid).await.unwrap().unwrap();
                assert_eq!(pair.agent.principal, agent(&format!("a-{id}")));
                assert_eq!(pair.agent.incarnation, self.model.living[id].0);
            }
        }
        let all = GroupName::new("all").unwrap();
        let mut living: Vec<_> =
            self.model.living.keys().map(|id| agent(&format!("a-{id}"))).collect();
        living.sort();
        assert_eq!(keystore.members_of(&all).await.unwrap(), living);
        assert_eq!(keystore.group_key(&all, None).await.unwrap().epoch, self.model.epoch + 1);
    }
}

/// A server takes long to make a database.
const CASES: u32 = if matches!(crate::DATABASE, Database::Sqlite) { 24 } else { 6 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_an_old_incarnation_comes_back(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run { fixture: fixture!(), model: Model::default() };
            for step in &steps {
                run.step(step).await;
            }
            run.check().await;
        });
    }
}
