//! The deployment behind the API: what operators change and look at, by the same functions as the
//! commands.

use std::time::Duration;

use async_trait::async_trait;
use bulla_api::{
    AccessKey, AddAccessKeyRequest, AddAgentsRequest, AddComponentRequest, AddGroupRequest,
    AddMembersRequest, AddedAccessKey, AddedAgent, AddedAgents, AddedComponent, Administration,
    AgentFile, BrokerUser, CallFailure, ChangeAccessKeyRequest, ChangedAccessKey, Claimed,
    Component, Examination, ExtendedGroup, Group, JournalCheckpoints, JournalEntry, JournalRequest,
    JournalStream, KeySuite, KeyType, Member, Page, PageRequest, RejoinRequest, RequestKey,
    RevokedAgent, RevokedHost, RotateAgentRequest, RotatedAgent, RotatedComponent, Rotation,
    StartsWith,
};
use bulla_http::Identity;
use bulla_journal::{Text, events};
use bulla_keystore::{AccessKeyRecord, ApiUser, EVERY_AGENT, KeystoreError};
use bulla_seal::{GroupName, Principal, Suite, SuiteSet, UnixTime};

use super::agent_file::{Kind, Packed};
use super::agents::{self, Plan, Rotated, Starter};
use super::components::Wanted;
use super::examine::{self, Findings};
use super::journal_read::Journals;
use super::plane::{Plane, component, group, internal, millis};
use super::{agents::now, claims, journals};
use crate::cli::FormatArg;
use crate::failure::{Failure, Result as Outcome};

/// How long an agent that is to renew its keys is waited for unless the request says.
const PATIENCE: Duration = Duration::from_secs(30);

type Answer<T> = Result<T, CallFailure>;

#[async_trait]
impl Administration for Plane {
    async fn add_agents(&self, by: &Identity, request: AddAgentsRequest) -> Answer<AddedAgents> {
        self.tell(by, "add-agents", &some(&request.ids))?;
        let plan = Plan {
            kind: match request.starts_with {
                StartsWith::Token => Kind::Token,
                StartsWith::Key => Kind::Key,
            },
            key_type: match request.key_type {
                KeyType::Pair => bulla_keystore::KeyType::Pair,
                KeyType::Shared => bulla_keystore::KeyType::Shared,
            },
            suite: suite(request.suite),
            lifetime: Duration::from_secs(request.expires_s),
            again: false,
        };
        for (n, id) in request.ids.iter().enumerate() {
            Principal::agent(id).map_err(Failure::from)?;
            if request.ids.iter().take(n).any(|other| other == id) {
                let why = format!("`ids` names {id} twice");
                return Err(CallFailure::BadRequest { why });
            }
        }
        let (mut agents, format) = (Vec::with_capacity(request.ids.len()), request.format);
        let take = &mut |starter: Starter| {
            agents.push(added(&plan, format, &starter));
            Ok(())
        };
        let desk = &self.0.desk;
        match request.ids.as_slice() {
            [id] => desk.add_agent(&plan, id, take).await?,
            ids => desk.add_agents((&plan, &desk.batches().await?), ids, take).await?,
        }
        Ok(AddedAgents { agents })
    }

    async fn rejoin_agent(
        &self,
        by: &Identity,
        id: &str,
        request: RejoinRequest,
    ) -> Answer<AddedAgent> {
        self.tell(by, "rejoin-agent", id)?;
        self.known_agent(id).await?;
        let plan = Plan {
            kind: Kind::Token,
            key_type: bulla_keystore::KeyType::Pair,
            suite: suite(request.suite),
            lifetime: Duration::from_secs(request.expires_s),
            again: true,
        };
        let (mut agent, format) = (None, request.format);
        let take = &mut |starter: Starter| {
            agent = Some(added(&plan, format, &starter));
            Ok(())
        };
        self.0.desk.add_agent(&plan, id, take).await?;
        agent.ok_or_else(|| CallFailure::Internal { why: "there is no file".to_owned() })
    }

    async fn revoke_agent(&self, by: &Identity, id: &str) -> Answer<RevokedAgent> {
        self.tell(by, "revoke-agent", id)?;
        let revoked = self.0.desk.revoke_agent(id).await?;
        let (broker_user, broker_problem) = match revoked.cut {
            Ok(Some(true)) => (BrokerUser::Removed, None),
            Ok(Some(false)) => (BrokerUser::None, None),
            Ok(None) => (BrokerUser::Unmanaged, None),
            Err(failure) => (BrokerUser::NotRemoved, Some(failure.to_string())),
        };
        Ok(RevokedAgent {
            id: id.to_owned(),
            incarnation: revoked.party.map(|party| party.incarnation.into()),
            groups_rekeyed: revoked.groups,
            broker_user,
            broker_problem,
        })
    }

    async fn rotate_agent(
        &self,
        by: &Identity,
        id: &str,
        request: RotateAgentRequest,
    ) -> Answer<RotatedAgent> {
        self.tell(by, "rotate-agent", id)?;
        self.known_agent(id).await?;
        let patience = request.timeout_ms.map_or(PATIENCE, Duration::from_millis);
        let issued_by = request.issued_by_ms.map_or_else(now, |ms| ms / 1000);
        let (outcome, problem) =
            match agents::rotate(&self.0.client, id, issued_by, patience).await? {
                Rotated::Followed => (Rotation::Rotated, None),
                Rotated::Away { queued: true } => (Rotation::Away, None),
                Rotated::Away { queued: false } => (Rotation::NeverThere, None),
                Rotated::Keyless => (Rotation::WithoutKeys, None),
                Rotated::Failed(why) => (Rotation::Failed, Some(why)),
            };
        Ok(RotatedAgent { id: id.to_owned(), outcome, problem })
    }

    async fn component(&self, name: &str) -> Answer<Component> {
        let found = self.0.keystore.list_components().await.map_err(internal)?;
        let record = found.iter().find(|record| record.party.principal.name() == name);
        let unknown = || CallFailure::UnknownTarget { target: format!("component/{name}") };
        record.map(|record| component(record, &self.domain())).ok_or_else(unknown)
    }

    async fn add_component(
        &self,
        by: &Identity,
        request: AddComponentRequest,
    ) -> Answer<AddedComponent> {
        let AddComponentRequest { name, instance, suite: wanted } = request;
        let instance = instance.unwrap_or_else(|| format!("{name}-1"));
        self.tell(by, "add-component", &format!("{name}, host {instance}"))?;
        let mut key_file = String::new();
        let suites = SuiteSet::only(suite(wanted));
        let take = |text: &zeroize::Zeroizing<String>| {
            key_file.clone_from(text);
            Ok(())
        };
        let host = self.0.desk.add_component((&name, &instance), suites, take).await?;
        let database_role_missing = host.without_role.contains(&name);
        Ok(AddedComponent { name, instance, new: host.new, key_file, database_role_missing })
    }

    async fn rotate_component(&self, by: &Identity, name: &str) -> Answer<RotatedComponent> {
        self.tell(by, "rotate-component", name)?;
        let audience = self.0.desk.rotate_component(name).await?;
        Ok(RotatedComponent {
            name: name.to_owned(),
            epoch: audience.epoch.into(),
            kid: audience.kid.to_string(),
            expires_ms: millis(audience.validity.not_after),
        })
    }

    async fn revoke_host(&self, by: &Identity, name: &str, instance: &str) -> Answer<RevokedHost> {
        self.tell(by, "revoke-host", &format!("{name}, host {instance}"))?;
        let revoked = self.0.desk.revoke_host(name, instance).await?;
        Ok(RevokedHost {
            name: name.to_owned(),
            instance: instance.to_owned(),
            kids: revoked.signing.iter().map(ToString::to_string).collect(),
            epoch: revoked.epoch.into(),
            pair_epoch: revoked.pair_epoch.map(Into::into),
            groups_rekeyed: revoked.groups.iter().map(|(group, _)| group.to_string()).collect(),
        })
    }

    async fn group(&self, name: &str) -> Answer<Group> {
        let name = self.known_group(name).await?;
        let found = self.0.keystore.list_groups().await.map_err(internal)?;
        let record = found.iter().find(|record| record.name == name);
        let unknown = || CallFailure::UnknownTarget { target: name.to_string() };
        record.map(group).ok_or_else(unknown)
    }

    async fn members(&self, name: &str, page: PageRequest) -> Answer<Page<Member>> {
        let group = self.known_group(name).await?;
        let found = match group.as_str() {
            EVERY_AGENT => Vec::new(),
            _ => self.0.keystore.members_of(&group).await.map_err(internal)?,
        };
        let member = |principal: &Principal| Member { principal: principal.to_string() };
        let all = found.iter().map(member).collect();
        Ok(Page::of(all, &page, |member: &Member| member.principal.clone()))
    }

    async fn add_group(&self, by: &Identity, request: AddGroupRequest) -> Answer<ExtendedGroup> {
        self.tell(by, "add-group", &request.name)?;
        self.extend(&request.name, &request.members, Wanted::New).await
    }

    async fn add_members(
        &self,
        by: &Identity,
        name: &str,
        request: AddMembersRequest,
    ) -> Answer<ExtendedGroup> {
        self.tell(by, "add-members", name)?;
        self.known_group(name).await?;
        self.extend(name, &request.members, Wanted::Known).await
    }

    async fn policy(&self) -> Answer<bulla_api::PolicyStanding> {
        self.policy_standing().await
    }

    async fn policies(&self, page: PageRequest) -> Answer<Page<bulla_api::PolicyVersion>> {
        self.policy_versions(page).await
    }

    async fn policy_version(&self, version: u32) -> Answer<bulla_api::PolicyVersion> {
        self.policy_of_version(version).await
    }

    async fn check_policy(
        &self,
        source: bulla_api::PolicySource,
    ) -> Answer<bulla_api::PolicyCheck> {
        self.checked(source).await
    }

    async fn explain(&self, request: bulla_api::ExplainRequest) -> Answer<bulla_api::Explanation> {
        self.explained(request).await
    }

    async fn activate_policy(
        &self,
        by: &Identity,
        source: bulla_api::PolicySource,
    ) -> Answer<bulla_api::PolicyChange> {
        self.tell(by, "activate-policy", "policy")?;
        self.activated(source).await
    }

    async fn roll_back(
        &self,
        by: &Identity,
        request: bulla_api::RollBackRequest,
    ) -> Answer<bulla_api::PolicyChange> {
        self.tell(by, "roll-back-policy", "policy")?;
        self.rolled_back(request).await
    }

    async fn shadow(&self) -> Answer<bulla_api::ShadowStanding> {
        self.shadow_standing().await
    }

    async fn begin_shadow(
        &self,
        by: &Identity,
        source: bulla_api::PolicySource,
    ) -> Answer<bulla_api::ShadowStanding> {
        self.tell(by, "begin-shadow", "policy")?;
        self.shadowed(source).await
    }

    async fn end_shadow(&self, by: &Identity) -> Answer<bulla_api::ShadowStanding> {
        self.tell(by, "end-shadow", "policy")?;
        self.shadow_ended().await
    }

    async fn differences(&self, page: PageRequest) -> Answer<Page<bulla_api::Difference>> {
        self.policy_differences(page).await
    }

    async fn journal(&self, request: JournalRequest) -> Answer<Page<JournalEntry>> {
        Ok(self.journals().page(request).await?)
    }

    async fn follow_journal(&self, request: JournalRequest) -> Answer<JournalStream> {
        Ok(self.journals().follow(request).await?)
    }

    async fn checkpoints(&self) -> Answer<JournalCheckpoints> {
        let (journals, home) = (self.journals(), self.0.desk.home.clone());
        let read = tokio::task::spawn_blocking(move || journals.checkpoints(&home)).await;
        let read = read.map_err(|error| CallFailure::Internal { why: error.to_string() })?;
        Ok(read?)
    }

    async fn access_keys(&self, page: PageRequest) -> Answer<Page<AccessKey>> {
        let found = self.0.keystore.list_access_keys().await.map_err(internal)?;
        let key = |key: &AccessKey| format!("{} {}", key.user, key.id);
        Ok(Page::of(found.iter().map(access_key).collect(), &page, key))
    }

    async fn add_access_key(
        &self,
        by: &Identity,
        request: AddAccessKeyRequest,
    ) -> Answer<AddedAccessKey> {
        self.tell(by, "add-access-key", &request.user)?;
        let user: ApiUser = request.user.parse().map_err(|e: KeystoreError| Failure::from(e))?;
        let end = request.expires_ms.map(|ms| UnixTime::from_secs(ms / 1000));
        let key = self.0.desk.add_access_key(&user, end, |_| Ok(())).await?;
        let secret_key = key.secret.expose().to_owned();
        Ok(AddedAccessKey { key: access_key(&key.record), secret_key })
    }

    async fn change_access_key(
        &self,
        by: &Identity,
        id: &str,
        request: ChangeAccessKeyRequest,
    ) -> Answer<ChangedAccessKey> {
        self.tell(by, "change-access-key", id)?;
        let disabled = request.disabled;
        self.0.desk.disable_access_key(id, disabled).await?;
        Ok(ChangedAccessKey { id: id.to_owned(), disabled: Some(disabled), removed: false })
    }

    async fn remove_access_key(&self, by: &Identity, id: &str) -> Answer<ChangedAccessKey> {
        self.tell(by, "remove-access-key", id)?;
        self.0.desk.remove_access_key(id).await?;
        Ok(ChangedAccessKey { id: id.to_owned(), disabled: None, removed: true })
    }

    async fn examine(&self) -> Answer<Examination> {
        let (node, mut findings) = (&self.0, Findings::default());
        let (home, settings) = (&node.desk.home, &node.desk.settings);
        examine::files(home, &mut findings);
        examine::keystore(&node.keystore, Some(settings), &mut findings).await;
        examine::backup(home, settings, &mut findings).await;
        examine::certificates(home, Some(settings), &mut findings);
        let bus = match node.bus_watch.problem() {
            None => Ok(()),
            Some(problem) => Err(Failure::new(problem)),
        };
        findings.judge("bus", bus, |()| format!("{} is connected", node.bus.address()));
        let claims: Outcome<String> = claims::examine(home, &settings.claims).await;
        findings.judge("claims", claims, Clone::clone);
        journals::examine(home, settings, &mut findings);
        examine::clock(&mut findings);
        Ok(Examination { good: findings.bad() == 0, findings: findings.0 })
    }

    async fn first_answer(&self, request: &RequestKey) -> Answer<Claimed> {
        self.0.answers.claim(request).await
    }
}

impl Plane {
    /// What an operator changes is in the journal before it is done, or is not done.
    fn tell(&self, by: &Identity, operation: &'static str, subject: &str) -> Answer<()> {
        let (operator, subject) = (Text::of(by), Text::new(subject));
        let told =
            self.0.events().emit_first(events::OperatorChanges { operator, operation, subject });
        told.map_err(|error| CallFailure::Internal { why: format!("nothing was done: {error}") })
    }

    async fn known_agent(&self, id: &str) -> Answer<()> {
        let agent = Principal::agent(id).map_err(Failure::from)?;
        Ok(self.0.keystore.party(&agent).await.map(drop).map_err(Failure::from)?)
    }

    async fn known_group(&self, name: &str) -> Answer<GroupName> {
        let name = GroupName::new(name.strip_prefix("group/").unwrap_or(name));
        let name = name.map_err(Failure::from)?;
        let found = self.0.keystore.list_groups().await.map_err(internal)?;
        if found.iter().any(|record| record.name == name) {
            return Ok(name);
        }
        Err(CallFailure::UnknownTarget { target: name.to_string() })
    }

    async fn extend(
        &self,
        name: &str,
        members: &[String],
        wanted: Wanted,
    ) -> Answer<ExtendedGroup> {
        let extended = self.0.desk.extend_group(name, members, wanted).await?;
        Ok(ExtendedGroup {
            name: extended.group.as_str().to_owned(),
            new: extended.new,
            added: extended.added,
            broker_problem: extended.permitted.err().map(|failure| failure.to_string()),
        })
    }

    fn journals(&self) -> Journals {
        Journals::new(&self.0.desk.home, &self.0.desk.settings)
    }
}

fn suite(suite: KeySuite) -> Suite {
    match suite {
        KeySuite::X25519 => Suite::X25519,
        KeySuite::XWing => Suite::XWing,
    }
}

fn added(plan: &Plan, format: bulla_api::FileFormat, starter: &Starter) -> AddedAgent {
    let format = match format {
        bulla_api::FileFormat::File => FormatArg::File,
        bulla_api::FileFormat::CloudInit => FormatArg::CloudInit,
        bulla_api::FileFormat::ConfigDrive => FormatArg::ConfigDrive,
        bulla_api::FileFormat::Trove => FormatArg::Trove,
    };
    let packed = Packed { kind: plan.kind, format, id: &starter.id, text: &starter.text };
    let file = |(name, text): (String, zeroize::Zeroizing<String>)| AgentFile {
        name,
        content: String::clone(&text),
    };
    AddedAgent {
        id: starter.id.clone(),
        starts_with: match plan.kind {
            Kind::Token => StartsWith::Token,
            Kind::Key => StartsWith::Key,
        },
        key_type: match plan.key_type {
            bulla_keystore::KeyType::Pair => KeyType::Pair,
            bulla_keystore::KeyType::Shared => KeyType::Shared,
        },
        expires_ms: starter.expires.map(millis),
        files: packed.files().into_iter().map(file).collect(),
    }
}

/// The first few of many.
fn some(ids: &[String]) -> String {
    let shown: Vec<_> = ids.iter().take(5).map(String::as_str).collect();
    match ids.len().saturating_sub(shown.len()) {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}

fn access_key(record: &AccessKeyRecord) -> AccessKey {
    AccessKey {
        id: record.id.clone(),
        user: record.user.to_string(),
        created_ms: millis(record.created.secs()),
        last_used_ms: record.last_used.map(|at| millis(at.secs())),
        expires_ms: record.expires.map(|at| millis(at.secs())),
        disabled: record.disabled,
    }
}
