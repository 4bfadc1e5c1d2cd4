//! The control plane's directory: the keystore behind [`Directory`] for this process, and behind
//! the methods of namespace `directory` for agents and component services elsewhere.

use std::time::Duration;

use async_trait::async_trait;
use bulla_keystore::{Keystore, KeystoreError, PolicyDifference};
use bulla_rpc::directory::wire::{
    self, DifferenceText, DifferencesAnswer, DifferencesArgs, GroupKeyAnswer, GroupKeyArgs,
    GroupsArgs, KeyText, PairArgs, PeerAnswer, PeerArgs, PolicyAnswer, PolicyArgs, StatementAnswer,
    StatementArgs, TrustAnswer, TrustArgs,
};
use bulla_rpc::{
    Context, Directory, DirectoryError, HandlerResult, LookupLimits, Lookups, Method, PairKey,
    PeerKeys, RemoteError, Router, kinds,
};
use bulla_seal::{GroupKey, GroupName, Kid, NameError, Party, Principal, SignedPolicy};

/// The control plane's own component type.
const CONTROL: &str = "control";

/// How long this process goes by what it read: a change in the keystore counts a second later.
const LIMITS: LookupLimits = LookupLimits {
    found_for: Duration::from_secs(1),
    missing_for: Duration::from_secs(1),
    entries: 10_000,
    asking: 1_024,
};

/// The keystore as the directory of a control-plane process, which is `component/control`.
#[derive(Debug, Clone)]
pub(crate) struct KeystoreDirectory {
    keystore: Keystore,
    peers: Lookups<Principal, PeerKeys>,
    kids: Lookups<Kid, PairKey>,
    keys: Lookups<(GroupName, Option<u32>), GroupKey>,
    members: Lookups<Principal, Vec<GroupName>>,
}

impl KeystoreDirectory {
    /// Looks things up in `keystore`.
    pub(crate) fn new(keystore: Keystore) -> Self {
        Self {
            keystore,
            // Asked by this process's own callers only.
            peers: Lookups::new(LookupLimits { missing_for: Duration::ZERO, ..LIMITS }),
            kids: Lookups::new(LIMITS),
            keys: Lookups::new(LIMITS),
            members: Lookups::new(LIMITS),
        }
    }
}

fn failed(error: KeystoreError) -> DirectoryError {
    DirectoryError(error.to_string())
}

fn misnamed(error: NameError) -> DirectoryError {
    DirectoryError(error.to_string())
}

/// What the keystore has, or that it has nothing of the sort.
fn found<T>(result: Result<T, KeystoreError>) -> Result<Option<T>, KeystoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(
            KeystoreError::UnknownPrincipal(_)
            | KeystoreError::UnknownGroup(_)
            | KeystoreError::UnknownGroupEpoch { .. },
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A pair key as a component uses it.
fn of_component(pair: bulla_keystore::PairKey) -> PairKey {
    PairKey { kid: pair.kid, key: pair.key, peer: pair.agent, epoch: pair.epoch }
}

#[async_trait]
impl Directory for KeystoreDirectory {
    async fn peer(&self, peer: &Principal) -> Result<Option<PeerKeys>, DirectoryError> {
        let (keystore, whom) = (self.keystore.clone(), peer.clone());
        let ask = || async move {
            let own = Principal::component(CONTROL).map_err(misnamed)?;
            let keys = found(keystore.peer(&whom, &own).await).map_err(failed)?;
            Ok(keys.map(|keys| match keys {
                bulla_keystore::PeerKeys::Pair(credential) => PeerKeys::Pair(credential.into()),
                bulla_keystore::PeerKeys::Shared(pair) => PeerKeys::Shared(of_component(pair)),
            }))
        };
        self.peers.get(peer.clone(), ask).await
    }

    async fn pair_by_kid(&self, kid: Kid) -> Result<Option<PairKey>, DirectoryError> {
        let keystore = self.keystore.clone();
        let ask = || async move {
            let own = Principal::component(CONTROL).map_err(misnamed)?;
            let pair = keystore.pair_by_kid(kid).await.map_err(failed)?;
            Ok(pair.filter(|pair| pair.component == own).map(of_component))
        };
        self.kids.get(kid, ask).await
    }

    async fn group_key(
        &self,
        group: &GroupName,
        epoch: Option<u32>,
    ) -> Result<Option<GroupKey>, DirectoryError> {
        let (keystore, wanted) = (self.keystore.clone(), group.clone());
        let ask = || async move { found(keystore.group_key(&wanted, epoch).await).map_err(failed) };
        self.keys.get((group.clone(), epoch), ask).await
    }

    fn expire(&self, peer: &Principal) {
        self.peers.forget(peer);
    }

    async fn groups(&self) -> Result<Vec<GroupName>, DirectoryError> {
        let own = Principal::component(CONTROL).map_err(misnamed)?;
        self.keystore.groups_of(&own).await.map_err(failed)
    }

    async fn groups_of(&self, peer: &Principal) -> Result<Vec<GroupName>, DirectoryError> {
        let (keystore, whom) = (self.keystore.clone(), peer.clone());
        let ask = || async move { found(keystore.groups_of(&whom).await).map_err(failed) };
        Ok(self.members.get(peer.clone(), ask).await?.unwrap_or_default())
    }
}

/// The methods by which others ask the directory: namespace `directory`, version 1.0.
pub(crate) fn directory_router(keystore: Keystore) -> Router {
    let open = |method: Method| {
        method
            .namespace(wire::NAMESPACE)
            .of_the_protocol()
            .read_only()
            .open_to_agents()
            .open_to_components()
    };
    let service = Service { keystore };
    let (peer, pair, groups, key) =
        (service.clone(), service.clone(), service.clone(), service.clone());
    let (trust, policy, differences) = (service.clone(), service.clone(), service.clone());
    let members = service.clone();
    let note = move |context: Context, args: DifferencesArgs| {
        let service = differences.clone();
        async move { service.differences(&context, args).await }
    };
    // It counts: what comes twice is counted once.
    let reports = Method::new(wire::POLICY_DIFFERENCES, note)
        .namespace(wire::NAMESPACE)
        .of_the_protocol()
        .open_to_agents()
        .open_to_components();
    Router::new()
        .with(open(Method::new(wire::TRUST, move |context: Context, args: TrustArgs| {
            let service = trust.clone();
            async move { service.trust(&context, &args).await }
        })))
        .with(open(Method::new(wire::POLICY, move |context: Context, args: PolicyArgs| {
            let service = policy.clone();
            async move { service.policy(&context, &args).await }
        })))
        .with(reports)
        .with(open(Method::new(wire::STATEMENT, move |context: Context, _: StatementArgs| {
            let service = service.clone();
            async move { service.statement(&context).await }
        })))
        .with(open(Method::new(wire::PEER, move |context: Context, args: PeerArgs| {
            let service = peer.clone();
            async move { service.peer(&context, &args).await }
        })))
        .with(open(Method::new(wire::PAIR, move |context: Context, args: PairArgs| {
            let service = pair.clone();
            async move { service.pair(&context, &args).await }
        })))
        .with(open(Method::new(wire::GROUPS, move |context: Context, args: GroupsArgs| {
            let service = groups.clone();
            async move { service.groups(&context, &args).await }
        })))
        .with(open(Method::new(wire::GROUPS_OF, move |context: Context, args: PeerArgs| {
            let service = members.clone();
            async move { service.groups_of(&context, &args).await }
        })))
        .with(open(Method::new(wire::GROUP_KEY, move |context: Context, args: GroupKeyArgs| {
            let service = key.clone();
            async move { service.group_key(&context, &args).await }
        })))
}

/// What answers. Who asks is proven by the seal; what they may know follows from that alone.
#[derive(Debug, Clone)]
struct Service {
    keystore: Keystore,
}

impl Service {
    async fn statement(&self, context: &Context) -> HandlerResult<StatementAnswer> {
        self.check_living(context.sender()).await?;
        let statement = self.keystore.statement().await.map_err(broken)?;
        Ok(StatementAnswer { statement: wire::credential_text(statement.as_bytes()) })
    }

    /// What is said of policies, if it is newer than what is held.
    async fn policy(&self, context: &Context, args: &PolicyArgs) -> HandlerResult<PolicyAnswer> {
        self.check_living(context.sender()).await?;
        let document = self.keystore.policy_document_after(args.held).await.map_err(broken)?;
        let text = |document: SignedPolicy| wire::credential_text(document.as_bytes());
        Ok(PolicyAnswer { policy: document.map(text) })
    }

    /// What the policy in the shadow would have decided otherwise at who reports.
    async fn differences(
        &self,
        context: &Context,
        args: DifferencesArgs,
    ) -> HandlerResult<DifferencesAnswer> {
        let sender = context.sender();
        self.check_living(sender).await?;
        if args.differences.len() > wire::MAX_DIFFERENCES {
            return Err(bad_arguments("a report has at most 2048 differences"));
        }
        let row = |found: DifferenceText| PolicyDifference {
            receiver: sender.principal.to_string(),
            sender: found.sender,
            method: found.method,
            allowed: found.allowed,
            rule: found.rule,
            shadow_rule: found.shadow_rule,
            count: found.count,
            last: 0,
        };
        let found: Vec<_> = args.differences.into_iter().map(row).collect();
        let noted = self.keystore.note_differences(args.sequence, &found).await.map_err(broken)?;
        Ok(DifferencesAnswer { noted: noted as u64 })
    }

    /// Which roots followed the one that is trusted by who asks, and what the newest one signed.
    async fn trust(&self, context: &Context, args: &TrustArgs) -> HandlerResult<TrustAnswer> {
        self.check_living(context.sender()).await?;
        let announced = self.keystore.root_announcements(args.root).await.map_err(broken)?;
        let control = Principal::component(CONTROL).map_err(bad_arguments)?;
        let control = self.keystore.credential(&control).await.map_err(broken)?;
        let trust = self.keystore.trust_store();
        Ok(TrustAnswer {
            announcements: announced.iter().map(|bytes| wire::credential_text(bytes)).collect(),
            issuers: trust.issuers().map(|(_, bytes)| wire::credential_text(bytes)).collect(),
            peers: vec![wire::credential_text(control.as_bytes())],
        })
    }

    async fn peer(&self, context: &Context, args: &PeerArgs) -> HandlerResult<Option<PeerAnswer>> {
        let sender = context.sender();
        self.check_living(sender).await?;
        let peer: Principal = args.principal.parse().map_err(bad_arguments)?;
        if sender.principal.is_component() {
            let keys = found(self.keystore.peer(&peer, &sender.principal).await).map_err(broken)?;
            return Ok(keys.map(|keys| match keys {
                bulla_keystore::PeerKeys::Pair(credential) => credential_answer(&credential),
                bulla_keystore::PeerKeys::Shared(pair) => component_answer(&pair),
            }));
        }
        // Agents have business with components only.
        if peer.is_agent() {
            return Err(not_permitted("agents look up components, not agents"));
        }
        match self.keystore.pair_key(&sender.principal, &peer).await {
            Ok(pair) => Ok(Some(agent_answer(&pair))),
            Err(KeystoreError::NotShared(_)) => {
                let credential = found(self.keystore.credential(&peer).await).map_err(broken)?;
                Ok(credential.map(|credential| credential_answer(&credential)))
            }
            Err(KeystoreError::UnknownPrincipal(_)) => Ok(None),
            Err(error) => Err(broken(error)),
        }
    }

    /// Whoever is neither of a pair's two ends hears the same as of a kid that does not exist.
    async fn pair(&self, context: &Context, args: &PairArgs) -> HandlerResult<Option<PeerAnswer>> {
        let sender = context.sender();
        self.check_living(sender).await?;
        let kid = wire::kid(&args.kid).ok_or_else(|| bad_arguments("a kid has 16 hex digits"))?;
        let Some(pair) = self.keystore.pair_by_kid(kid).await.map_err(broken)? else {
            return Ok(None);
        };
        if pair.component == sender.principal {
            Ok(Some(component_answer(&pair)))
        } else if pair.agent == *sender {
            Ok(Some(agent_answer(&pair)))
        } else {
            Ok(None)
        }
    }

    async fn groups(&self, context: &Context, _: &GroupsArgs) -> HandlerResult<Vec<String>> {
        let sender = context.sender();
        self.check_living(sender).await?;
        let groups = self.keystore.groups_of(&sender.principal).await.map_err(broken)?;
        Ok(groups.iter().map(|group| group.as_str().to_owned()).collect())
    }

    /// Which groups a principal is in, for policies that speak of groups.
    async fn groups_of(&self, context: &Context, args: &PeerArgs) -> HandlerResult<Vec<String>> {
        let sender = context.sender();
        self.check_living(sender).await?;
        let peer: Principal = args.principal.parse().map_err(bad_arguments)?;
        if sender.principal.is_agent() && peer.is_agent() && peer != sender.principal {
            return Err(not_permitted("agents look up components, not agents"));
        }
        let groups = found(self.keystore.groups_of(&peer).await).map_err(broken)?;
        let groups = groups.unwrap_or_default();
        Ok(groups.iter().map(|group| group.as_str().to_owned()).collect())
    }

    async fn group_key(
        &self,
        context: &Context,
        args: &GroupKeyArgs,
    ) -> HandlerResult<Option<GroupKeyAnswer>> {
        let sender = context.sender();
        self.check_living(sender).await?;
        let group = GroupName::new(&args.group).map_err(bad_arguments)?;
        let control = sender.principal.as_str().strip_prefix("component/") == Some(CONTROL);
        let groups = self.keystore.groups_of(&sender.principal).await.map_err(broken)?;
        // Whether there is such a group is its members' business too.
        if !control && !groups.contains(&group) {
            return Err(not_permitted(&format!("{} is no member of {group}", sender.principal)));
        }
        let key = found(self.keystore.group_key(&group, args.epoch).await).map_err(broken)?;
        Ok(key.map(|key| GroupKeyAnswer { epoch: key.epoch, key: KeyText::new(&key.key) }))
    }

    /// A credential outlives its holder's removal; what the directory says does not.
    async fn check_living(&self, sender: &Party) -> HandlerResult<()> {
        let living = found(self.keystore.party(&sender.principal).await).map_err(broken)?;
        if living.as_ref() == Some(sender) {
            Ok(())
        } else {
            Err(not_permitted(&format!("{sender} was removed")))
        }
    }
}

fn credential_answer(credential: &bulla_seal::SignedCredential) -> PeerAnswer {
    PeerAnswer {
        credential: Some(wire::credential_text(credential.as_bytes())),
        ..PeerAnswer::default()
    }
}

/// A pair key for the component that it is of.
fn component_answer(pair: &bulla_keystore::PairKey) -> PeerAnswer {
    PeerAnswer {
        principal: Some(pair.agent.principal.to_string()),
        kid: Some(pair.kid.to_string()),
        key: Some(KeyText::new(&pair.key)),
        incarnation: Some(pair.agent.incarnation),
        epoch: Some(pair.epoch),
        credential: None,
    }
}

/// A pair key for its agent, which derives it.
fn agent_answer(pair: &bulla_keystore::PairKey) -> PeerAnswer {
    PeerAnswer {
        principal: Some(pair.component.to_string()),
        kid: Some(pair.kid.to_string()),
        epoch: Some(pair.epoch),
        ..PeerAnswer::default()
    }
}

fn bad_arguments(why: impl ToString) -> RemoteError {
    RemoteError::new(kinds::BAD_ARGUMENTS, why.to_string())
}

fn not_permitted(why: &str) -> RemoteError {
    RemoteError::new(kinds::NOT_PERMITTED, why)
}

/// What is wrong with the keystore is for the log; the caller hears what concerns the caller.
fn broken(error: KeystoreError) -> RemoteError {
    match error {
        KeystoreError::NoCredential(principal) => RemoteError::new(
            "NoCredential",
            format!("{principal} has no credential that is valid now"),
        ),
        error => {
            tracing::error!(%error, "the directory can't read the keystore");
            RemoteError::new(kinds::INTERNAL, "the directory can't read its keystore")
        }
    }
}

#[cfg(test)]
#[path = "directory/tests.rs"]
pub(crate) mod tests;
