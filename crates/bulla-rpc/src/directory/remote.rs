//! The directory of a process that has no keystore: what its key file gave, and beyond that the
//! control plane, asked over sealed calls.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bulla_seal::{GroupKey, GroupName, Kid, Party, Principal, Secret, SignedCredential, UnixTime};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lookups::{LookupLimits, Lookups};
use super::wire::{self, GroupKeyAnswer, GroupKeyArgs, GroupsArgs, PairArgs, PeerAnswer, PeerArgs};
use super::{Directory, DirectoryError, PairKey, PeerKeys, StaticDirectory};
use crate::client::{Client, WeakClient};
use crate::target::Target;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions per second that strangers' messages may cause, and how many at once.
const STRANGERS_PER_SECOND: f64 = 20.0;
const STRANGERS_AT_ONCE: f64 = 100.0;

/// What a key file gave, and beyond that what `component/control` says over sealed calls.
///
/// Nothing that comes back is taken on trust that can be verified: a credential must be good under
/// this process's own root key, name the principal that was asked for and be no older than the
/// newest one verified; a shared-key agent derives its pair keys itself; group keys are taken only
/// if the control plane's credential has the role `group:<name>` or `group:*` (protocol sections 2 and 6).
/// The control plane is never asked about itself.
#[derive(Clone)]
pub struct RemoteDirectory(Arc<Inner>);

struct Inner {
    control: Principal,
    given: StaticDirectory,
    client: RwLock<Option<WeakClient>>,
    seen: Mutex<Seen>,
    strangers: Mutex<Bucket>,
    peers: Lookups<Principal, PeerKeys>,
    kids: Lookups<Kid, PairKey>,
    keys: Lookups<(GroupName, Option<u32>), GroupKey>,
    groups: Lookups<(), Vec<GroupName>>,
    members: Lookups<Principal, Vec<GroupName>>,
}

/// The newest of everything that was believed; nothing older is.
#[derive(Default)]
struct Seen {
    credentials: HashMap<Principal, (u32, u32)>,
    pairs: HashMap<Principal, (u32, u32)>,
    groups: HashMap<GroupName, u32>,
}

/// A rate for all strangers together.
struct Bucket {
    tokens: f64,
    at: Instant,
}

const LIMITS: LookupLimits = LookupLimits {
    found_for: Duration::from_secs(30),
    missing_for: Duration::from_secs(3),
    entries: 20_000,
    asking: 256,
};

fn unusable(why: impl fmt::Display) -> DirectoryError {
    DirectoryError(format!("the control plane's answer can't be used: {why}"))
}

impl RemoteDirectory {
    /// Begins with what the key file gave. It knows no more until it has a
    /// [client](Self::attach).
    pub fn new(given: StaticDirectory) -> Result<Self, bulla_seal::NameError> {
        Self::with_limits(given, LIMITS)
    }

    /// The same with other limits to how much is remembered and for how long.
    pub fn with_limits(
        given: StaticDirectory,
        limits: LookupLimits,
    ) -> Result<Self, bulla_seal::NameError> {
        let control = Principal::component("control")?;
        let mut seen = Seen::default();
        let (peers, kids) = (Lookups::new(limits), Lookups::new(limits));
        for (principal, keys) in given.peers() {
            match &keys {
                PeerKeys::Pair(credential) => {
                    let newest = (credential.party.incarnation, credential.epoch);
                    seen.credentials.insert(principal.clone(), newest);
                }
                PeerKeys::Shared(pair) => kids.insert(pair.kid, pair.clone()),
            }
            peers.insert(principal, keys);
        }
        Ok(Self(Arc::new(Inner {
            control,
            given,
            client: RwLock::default(),
            seen: Mutex::new(seen),
            strangers: Mutex::new(Bucket::full(Instant::now())),
            peers,
            kids,
            keys: Lookups::new(limits),
            groups: Lookups::new(limits),
            members: Lookups::new(limits),
        })))
    }

    /// Asks through this client from now on: the one client of the endpoint that this is the
    /// directory of. It is not kept alive: somebody else must hold it, or nothing can be asked.
    pub fn attach(&self, client: &Client) {
        *self.0.client.write() = Some(client.downgrade());
    }

    /// The client; `None` before it is attached.
    fn client(&self) -> Result<Option<Client>, DirectoryError> {
        let client = self.0.client.read();
        let Some(client) = &*client else { return Ok(None) };
        let gone = || DirectoryError("this process's client is gone".into());
        client.upgrade().map(Some).ok_or_else(gone)
    }

    /// A question that a message from nobody knows whom causes.
    fn for_stranger(&self) -> Result<(), DirectoryError> {
        if self.0.strangers.lock().take(Instant::now()) {
            return Ok(());
        }
        Err(DirectoryError("too many messages name keys that nobody knows".into()))
    }
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { tokens: STRANGERS_AT_ONCE, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = passed.mul_add(STRANGERS_PER_SECOND, self.tokens).min(STRANGERS_AT_ONCE);
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }
}

impl Inner {
    async fn ask<A, R>(&self, client: &Client, method: &str, args: &A) -> Result<R, DirectoryError>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        let target = Target::Principal(self.control.clone());
        let request = client.request(&target, method).namespace(wire::NAMESPACE);
        let answer = request.timeout(PATIENCE).cancel_on_drop(false).call(args).await;
        answer.map_err(|error| DirectoryError(error.to_string()))
    }

    async fn ask_peer(
        &self,
        client: &Client,
        peer: &Principal,
    ) -> Result<Option<PeerKeys>, DirectoryError> {
        let args = PeerArgs { principal: peer.to_string() };
        let answer: Option<PeerAnswer> = self.ask(client, wire::PEER, &args).await?;
        let Some(answer) = answer else { return Ok(None) };
        match &answer.credential {
            Some(text) => {
                let credential = self.credential(client, peer, text)?;
                Ok(Some(PeerKeys::Pair(Arc::new(credential))))
            }
            None => {
                let pair = self.pair(client, peer, &answer)?;
                let epoch = answer.epoch.unwrap_or_default();
                let newest = (pair.peer.incarnation, epoch);
                rises(&mut self.seen.lock().pairs, peer, newest)?;
                self.kids.insert(pair.kid, pair.clone());
                Ok(Some(PeerKeys::Shared(pair)))
            }
        }
    }

    /// Verifies what was said to be `peer`'s credential.
    fn credential(
        &self,
        client: &Client,
        peer: &Principal,
        text: &str,
    ) -> Result<SignedCredential, DirectoryError> {
        let endpoint = client.endpoint();
        let bytes =
            wire::credential_bytes(text).ok_or_else(|| unusable("a credential is not base64"))?;
        let credential = endpoint
            .identity()
            .trust()
            .verify(&bytes, endpoint.now())
            .map_err(|refusal| unusable(format_args!("the credential of {peer}: {refusal}")))?;
        if credential.party.principal != *peer || credential.kem.is_none() {
            return Err(unusable(format_args!("it is no credential to seal to {peer} with")));
        }
        let newest = (credential.party.incarnation, credential.epoch);
        rises(&mut self.seen.lock().credentials, peer, newest)?;
        Ok(credential)
    }

    /// The pair key with `peer`: derived by a shared-key agent, given to a component.
    fn pair(
        &self,
        client: &Client,
        peer: &Principal,
        answer: &PeerAnswer,
    ) -> Result<PairKey, DirectoryError> {
        let identity = client.endpoint().identity();
        let kid = answer.kid.as_deref().and_then(wire::kid);
        let kid = kid.ok_or_else(|| unusable("a pair key has no name"))?;
        let epoch = answer.epoch.ok_or_else(|| unusable("a pair key has no epoch"))?;
        if peer.is_component() {
            let derived = identity.derive_pair(kid, peer, epoch);
            return derived.ok_or_else(|| unusable("this process has no shared key"));
        }
        let own_is_component = identity.principal().is_component();
        let key = answer.key.as_ref().and_then(wire::KeyText::key).filter(|_| own_is_component);
        let key: Secret<32> = key.ok_or_else(|| unusable("a pair key is missing"))?;
        let incarnation = answer.incarnation.filter(|incarnation| *incarnation > 0);
        let incarnation = incarnation.ok_or_else(|| unusable("an incarnation is missing"))?;
        Ok(PairKey { kid, key, peer: Party::new(peer.clone(), incarnation), epoch })
    }

    async fn ask_pair(&self, client: &Client, kid: Kid) -> Result<Option<PairKey>, DirectoryError> {
        let args = PairArgs { kid: kid.to_string() };
        let answer: Option<PeerAnswer> = self.ask(client, wire::PAIR, &args).await?;
        let Some(answer) = answer else { return Ok(None) };
        let peer = answer.principal.as_deref().and_then(|name| name.parse::<Principal>().ok());
        let peer = peer.ok_or_else(|| unusable("a pair key has no peer"))?;
        let pair = self.pair(client, &peer, &answer)?;
        if pair.kid != kid {
            return Err(unusable("another pair key was asked for"));
        }
        // An older epoch may still be under way, but never an older holder of the name.
        let newest = self.seen.lock().pairs.get(&peer).copied().unwrap_or_default();
        if pair.peer.incarnation < newest.0 {
            return Err(unusable(format_args!("{} is gone", pair.peer)));
        }
        Ok(Some(pair))
    }

    async fn ask_group_key(
        &self,
        client: &Client,
        group: &GroupName,
        epoch: Option<u32>,
    ) -> Result<Option<GroupKey>, DirectoryError> {
        self.may_key(group, client.endpoint().now())?;
        let args = GroupKeyArgs { group: group.as_str().to_owned(), epoch };
        let answer: Option<GroupKeyAnswer> = self.ask(client, wire::GROUP_KEY, &args).await?;
        let Some(answer) = answer else { return Ok(None) };
        let key = answer.key.key().ok_or_else(|| unusable("a group key has not 32 bytes"))?;
        match epoch {
            Some(epoch) if epoch != answer.epoch => {
                return Err(unusable(format_args!("it is not of epoch {epoch} of {group}")));
            }
            Some(_) => {}
            None => {
                let mut seen = self.seen.lock();
                let newest = seen.groups.entry(group.clone()).or_default();
                if answer.epoch < *newest {
                    let (old, new) = (answer.epoch, *newest);
                    return Err(unusable(format_args!("{group} had epoch {new}, not {old}")));
                }
                *newest = answer.epoch;
            }
        }
        Ok(Some(GroupKey { group: group.clone(), epoch: answer.epoch, key }))
    }

    /// Whether the control plane's credential lets it hand out this group's keys.
    fn may_key(&self, group: &GroupName, now: UnixTime) -> Result<(), DirectoryError> {
        let credential = self.given.credential(&self.control);
        let may = credential.is_some_and(|credential| {
            credential.may_key_group(group) && credential.validity.check(now).is_ok()
        });
        if may {
            return Ok(());
        }
        Err(DirectoryError(format!(
            "the credential of {} has not the role `group:{}`; its keys are not taken from it",
            self.control,
            group.as_str()
        )))
    }

    async fn ask_groups_of(
        &self,
        client: &Client,
        peer: &Principal,
    ) -> Result<Vec<GroupName>, DirectoryError> {
        let args = PeerArgs { principal: peer.to_string() };
        let names: Vec<String> = self.ask(client, wire::GROUPS_OF, &args).await?;
        names.iter().map(|name| GroupName::new(name).map_err(unusable)).collect()
    }

    async fn ask_groups(&self, client: &Client) -> Result<Vec<GroupName>, DirectoryError> {
        let names: Vec<String> = self.ask(client, wire::GROUPS, &GroupsArgs {}).await?;
        names.iter().map(|name| GroupName::new(name).map_err(unusable)).collect()
    }
}

/// Refuses what is older than what was seen.
fn rises(
    seen: &mut HashMap<Principal, (u32, u32)>,
    peer: &Principal,
    found: (u32, u32),
) -> Result<(), DirectoryError> {
    let newest = seen.entry(peer.clone()).or_insert(found);
    if found < *newest {
        return Err(unusable(format_args!(
            "{peer} is at incarnation {} and epoch {}, not {} and {}",
            newest.0, newest.1, found.0, found.1
        )));
    }
    *newest = found;
    Ok(())
}

/// Whether a peer's keys may be used at `now`.
fn usable(keys: &PeerKeys, now: UnixTime) -> bool {
    match keys {
        PeerKeys::Pair(credential) => credential.validity.check(now).is_ok(),
        PeerKeys::Shared(_) => true,
    }
}

#[async_trait]
impl Directory for RemoteDirectory {
    async fn peer(&self, peer: &Principal) -> Result<Option<PeerKeys>, DirectoryError> {
        let inner = &self.0;
        if *peer == inner.control {
            return inner.given.peer(peer).await;
        }
        let Some(client) = self.client()? else { return inner.given.peer(peer).await };
        let now = client.endpoint().now();
        if let Some(Some(known)) = inner.peers.known(peer)
            && !usable(&known, now)
        {
            inner.peers.forget(peer);
        }
        let (asking, whom) = (inner.clone(), peer.clone());
        let ask = || async move { asking.ask_peer(&client, &whom).await };
        let asked = inner.peers.get(peer.clone(), ask).await;
        // While nobody can be asked, what was good still is, until its own end.
        asked.or_else(|error| {
            let last = inner.peers.last(peer).filter(|keys| usable(keys, now));
            last.map(Some).ok_or(error)
        })
    }

    async fn pair_by_kid(&self, kid: Kid) -> Result<Option<PairKey>, DirectoryError> {
        let inner = &self.0;
        if let Some(pair) = inner.given.pair_by_kid(kid).await? {
            return Ok(Some(pair));
        }
        let Some(client) = self.client()? else { return Ok(None) };
        let has_pairs = client.endpoint().identity().is_shared()
            || client.endpoint().identity().principal().is_component();
        if !has_pairs {
            return Ok(None);
        }
        if let Some(known) = inner.kids.known(&kid) {
            return Ok(known);
        }
        self.for_stranger()?;
        let asking = inner.clone();
        inner.kids.get(kid, || async move { asking.ask_pair(&client, kid).await }).await
    }

    async fn group_key(
        &self,
        group: &GroupName,
        epoch: Option<u32>,
    ) -> Result<Option<GroupKey>, DirectoryError> {
        let inner = &self.0;
        if let Some(key) = inner.given.group_key(group, epoch).await? {
            return Ok(Some(key));
        }
        let Some(client) = self.client()? else { return Ok(None) };
        let key = (group.clone(), epoch);
        if let Some(known) = inner.keys.known(&key) {
            return Ok(known);
        }
        // The epoch of a fanout is from a header that nobody vouched for yet.
        if epoch.is_some() {
            self.for_stranger()?;
        }
        let (asking, group) = (inner.clone(), group.clone());
        let ask = || async move { asking.ask_group_key(&client, &group, epoch).await };
        inner.keys.get(key, ask).await
    }

    fn expire(&self, peer: &Principal) {
        self.0.peers.forget(peer);
    }

    fn learn(&self, credential: Arc<SignedCredential>) {
        let inner = &self.0;
        let about_control = credential.party.principal == inner.control && credential.kem.is_some();
        // A shared-key agent seals to it with a pair key, and learns nothing here.
        let shared = |(name, keys): &(Principal, PeerKeys)| {
            *name == inner.control && matches!(keys, PeerKeys::Shared(_))
        };
        let known = inner.given.credential(&inner.control);
        if about_control
            && !inner.given.peers().iter().any(shared)
            && known.is_none_or(|known| known.epoch < credential.epoch)
        {
            inner.given.add_peer(credential);
        }
    }

    async fn groups(&self) -> Result<Vec<GroupName>, DirectoryError> {
        let inner = &self.0;
        let Some(client) = self.client()? else { return inner.given.groups().await };
        let asking = inner.clone();
        let ask = || async move { asking.ask_groups(&client).await.map(Some) };
        let mut groups = inner.groups.get((), ask).await?.unwrap_or_default();
        for given in inner.given.groups().await? {
            if !groups.contains(&given) {
                groups.push(given);
            }
        }
        Ok(groups)
    }

    async fn groups_of(&self, peer: &Principal) -> Result<Vec<GroupName>, DirectoryError> {
        let inner = &self.0;
        let Some(client) = self.client()? else {
            return Err(DirectoryError("there is nobody to ask about groups yet".into()));
        };
        let (asking, whom) = (inner.clone(), peer.clone());
        let ask = || async move { asking.ask_groups_of(&client, &whom).await.map(Some) };
        Ok(inner.members.get(peer.clone(), ask).await?.unwrap_or_default())
    }
}

impl fmt::Debug for RemoteDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteDirectory({}, {:?})", self.0.control, self.0.peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_cause_a_bounded_number_of_questions() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        let taken = |bucket: &mut Bucket, at: u64| {
            (0..1_000).filter(|_| bucket.take(start + Duration::from_secs(at))).count()
        };
        assert_eq!(taken(&mut bucket, 0), 100);
        assert_eq!(taken(&mut bucket, 1), 20);
        assert_eq!(taken(&mut bucket, 3600), 100);
        assert_eq!(taken(&mut bucket, 0), 0, "a clock that goes back gives nothing");
    }
}
