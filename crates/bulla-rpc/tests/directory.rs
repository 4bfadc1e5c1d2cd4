//! The remote directory against a control plane that lies: whoever holds its keys.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bulla_rpc::directory::wire::{self, KeyText, PeerAnswer};
use bulla_rpc::*;
use bulla_seal::*;
use common::*;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// What the control plane says, whatever it is asked.
#[derive(Clone, Default)]
struct Says(Arc<Mutex<Value>>);

impl Says {
    fn now(&self, answer: &PeerAnswer) {
        *self.0.lock() = serde_json::to_value(answer).unwrap();
    }

    fn credential(&self, credential: &SignedCredential) {
        self.now(&PeerAnswer {
            credential: Some(wire::credential_text(credential.as_bytes())),
            ..PeerAnswer::default()
        });
    }

    fn router(&self) -> Router {
        [wire::PEER, wire::PAIR, wire::GROUPS, wire::GROUP_KEY].iter().fold(
            Router::new(),
            |router, name| {
                let says = self.clone();
                let method = Method::new(name, move |_, _: Value| {
                    let answer = says.0.lock().clone();
                    async move { Ok(answer) }
                });
                router.with(method.namespace(wire::NAMESPACE).read_only().open_to_components())
            },
        )
    }
}

struct Asking {
    world: World,
    says: Says,
    directory: RemoteDirectory,
    control: Server,
    /// What all credentials of this test begin as.
    base: Credential,
    _client: Client,
}

/// A component that asks anew each time.
async fn asking() -> Asking {
    let world = World::new();
    let says = Says::default();
    let control = world.component("control", "h1");
    let control = Server::start(control, says.router(), options()).await.unwrap();
    let name = Principal::component("control").unwrap();
    let given = StaticDirectory::new();
    let credential = match world.directory.peer(&name).await.unwrap() {
        Some(PeerKeys::Pair(credential)) => credential,
        other => panic!("{other:?}"),
    };
    let base = Credential { roles: vec!["group:all".into()], ..Credential::clone(&credential) };
    // The same key with a role beside it.
    given.add_peer(Arc::new(world.components.issue(&base).unwrap()));

    let mut random = OsRandom::default();
    let party = Party::new(Principal::component("api").unwrap(), 1);
    let key = SigningKey::generate(&mut random).unwrap();
    let signing = Credential {
        party,
        signing: Some(key.verifying_key()),
        kem: None,
        instance: Some("api-1".into()),
        ..base.clone()
    };
    let signing = Arc::new(world.components.issue(&signing).unwrap());
    let identity = Identity::pair(world.trust.clone(), key, signing, vec![]).unwrap();
    let anew = LookupLimits {
        found_for: Duration::ZERO,
        missing_for: Duration::ZERO,
        entries: 100,
        asking: 100,
    };
    let directory = RemoteDirectory::with_limits(given, anew).unwrap();
    let transport = Arc::new(world.bus.transport());
    let for_endpoint = Arc::new(directory.clone());
    let endpoint =
        Endpoint::new(identity, for_endpoint, transport, EndpointOptions::default()).unwrap();
    let client = Client::new(endpoint);
    directory.attach(&client);
    Asking { world, says, directory, control, base, _client: client }
}

impl Asking {
    fn credential(&self, name: &str, incarnation: u32, epoch: u32) -> SignedCredential {
        let party = Party::new(Principal::component(name).unwrap(), incarnation);
        let credential = Credential { party, epoch, ..self.base.clone() };
        self.world.components.issue(&credential).unwrap()
    }

    /// What is believed of `component/worker`: incarnation and epoch, or why nothing is.
    async fn worker(&self) -> Result<Option<(u32, u32)>, String> {
        let worker = Principal::component("worker").unwrap();
        match self.directory.peer(&worker).await {
            Ok(Some(PeerKeys::Pair(found))) => Ok(Some((found.party.incarnation, found.epoch))),
            Ok(Some(PeerKeys::Shared(pair))) => panic!("{pair:?}"),
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[tokio::test]
async fn only_a_good_credential_of_the_one_asked_for_is_taken() {
    let asking = asking().await;
    let refused = |why: &'static str| {
        let asking = &asking;
        async move {
            let error = asking.worker().await.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    };
    assert_eq!(asking.worker().await, Ok(None), "null is nobody");
    asking.says.credential(&asking.credential("other", 1, 1));
    refused("no credential to seal to component/worker with").await;
    let elsewhere = World::new();
    let theirs = Credential {
        party: Party::new(Principal::component("worker").unwrap(), 1),
        ..asking.base.clone()
    };
    asking.says.credential(&elsewhere.components.issue(&theirs).unwrap());
    refused("the credential of component/worker").await;
    let now = now().secs();
    let over = Validity { not_before: now - 500, not_after: now - 1 };
    let over = Credential { validity: over, ..theirs.clone() };
    asking.says.credential(&asking.world.components.issue(&over).unwrap());
    refused("the credential of component/worker").await;
    let key = SigningKey::generate(&mut OsRandom::default()).unwrap().verifying_key();
    let (signing, instance) = (Some(key), Some("h1".into()));
    let signs = Credential { signing, kem: None, instance, ..theirs };
    asking.says.credential(&asking.world.components.issue(&signs).unwrap());
    refused("no credential to seal to component/worker with").await;
    asking.says.now(&PeerAnswer { credential: Some("?".into()), ..PeerAnswer::default() });
    refused("not base64").await;
    asking.says.now(&PeerAnswer::default());
    refused("no name").await;
    asking.says.credential(&asking.credential("worker", 1, 1));
    assert_eq!(asking.worker().await, Ok(Some((1, 1))));
}

#[tokio::test]
async fn nothing_older_than_the_newest_is_taken() {
    let asking = asking().await;
    for (said, believed) in [
        ((1, 1), (1, 1)),
        ((1, 3), (1, 3)),
        ((1, 2), (1, 3)),
        ((2, 1), (2, 1)),
        ((1, 9), (2, 1)),
        ((2, 2), (2, 2)),
    ] {
        asking.says.credential(&asking.credential("worker", said.0, said.1));
        assert_eq!(asking.worker().await, Ok(Some(believed)), "after {said:?}");
    }
    // While nobody answers, what was good still is; once nobody has the name, it is not.
    *asking.says.0.lock() = json!("nonsense");
    assert_eq!(asking.worker().await, Ok(Some((2, 2))));
    *asking.says.0.lock() = Value::Null;
    assert_eq!(asking.worker().await, Ok(None));
    asking.says.credential(&asking.credential("worker", 2, 1));
    assert!(asking.worker().await.is_err());
    asking.control.drain(Duration::from_secs(10)).await;
}

fn pair(name: &str, kid: Kid, key: Option<&Secret<32>>, at: (u32, u32)) -> PeerAnswer {
    PeerAnswer {
        principal: Some(name.into()),
        kid: Some(kid.to_string()),
        key: key.map(KeyText::new),
        incarnation: Some(at.0),
        epoch: Some(at.1),
        credential: None,
    }
}

#[tokio::test]
async fn pair_keys_are_those_asked_for_and_of_a_living_agent() {
    let asking = asking().await;
    let (kid, key) = (Kid([7; 8]), Secret::new([8; 32]));
    let agent = Principal::agent("guest").unwrap();
    asking.says.now(&pair("agent/guest", kid, None, (1, 1)));
    assert!(asking.directory.peer(&agent).await.is_err(), "no key");
    asking.says.now(&pair("agent/guest", kid, Some(&key), (0, 1)));
    assert!(asking.directory.peer(&agent).await.is_err(), "no incarnation");
    asking.says.now(&pair("agent/guest", kid, Some(&key), (2, 5)));
    let Some(PeerKeys::Shared(found)) = asking.directory.peer(&agent).await.unwrap() else {
        panic!("no pair key")
    };
    assert!(found.kid == kid && found.key.ct_eq(&key) && found.peer.incarnation == 2);

    let look_up = async |kid| asking.directory.pair_by_kid(kid).await;
    let other = Kid([9; 8]);
    asking.says.now(&pair("agent/guest", kid, Some(&key), (2, 5)));
    assert!(look_up(other).await.is_err(), "another kid");
    asking.says.now(&pair("agent/guest", other, Some(&key), (1, 9)));
    assert!(look_up(other).await.is_err(), "an older holder of the name");
    asking.says.now(&pair("component/worker", other, Some(&key), (1, 1)));
    assert!(look_up(other).await.is_err(), "components share no keys with each other");
    asking.says.now(&pair("agent/guest", other, Some(&key), (2, 4)));
    let found = look_up(other).await.unwrap().unwrap();
    assert_eq!((found.kid, found.peer.principal), (other, agent), "under way since before");
}

#[tokio::test]
async fn group_epochs_only_rise() {
    let asking = asking().await;
    let (all, web) = (GroupName::new("all").unwrap(), GroupName::new("web").unwrap());
    let key = KeyText::new(&Secret::new([8; 32]));
    let say = |epoch: u32| *asking.says.0.lock() = json!({ "epoch": epoch, "key": key });
    let newest = async |group: &GroupName| {
        asking.directory.group_key(group, None).await.map(|key| key.map(|key| key.epoch))
    };
    say(4);
    assert_eq!(newest(&all).await.unwrap(), Some(4));
    say(3);
    assert!(newest(&all).await.is_err(), "an epoch that is over");
    let of = async |epoch| asking.directory.group_key(&all, Some(epoch)).await;
    assert_eq!(of(3).await.unwrap().unwrap().epoch, 3, "for what is under way");
    assert!(of(2).await.is_err(), "not the epoch asked for");
    let refused = newest(&web).await.unwrap_err().to_string();
    assert!(refused.contains("role `group:web`"), "{refused}");
}
