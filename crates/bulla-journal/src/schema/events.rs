//! Every event, declared once.

use bulla_seal::{Kid, Level, MessageId, Party, Principal};

use super::declare::{events, label, measured, severity};
use super::field::{Field, Text};
use super::{Class, EventInfo, FieldInfo, Severity};

events! {
    // Refusals.

    /// A message that nobody vouches for was refused: it was not read, and not answered. Told once
    /// a second and name, with how many there were.
    MessageRefused = "message-refused": Refusal, warn, "refused", unproven_refused by refusal adds count {
        /// The refusal's stable name.
        refusal: &'static str,
        /// How many of that name there were since the last one that was told.
        count: u64,
        /// What was refused.
        what: &'static str,
    }
    /// A message was refused although its sender is proven.
    SenderRefused = "sender-refused": Refusal, warn, "message refused", refused by refusal {
        /// The refusal's stable name.
        refusal: &'static str,
        /// Who sent it.
        sender: Party,
        /// The message.
        message: MessageId,
    }
    /// A request to join with a one-time token was refused.
    EnrolmentRefused = "enrolment-refused": Refusal, warn, "a request to join was refused", enrolments_refused by refusal {
        /// The refusal's stable name.
        refusal: &'static str,
        /// How many of that name there were since the last one that was told.
        count: u64,
        /// Whether there is a copy of a join file, or something like it.
        alarm: bool,
        /// Why, for people.
        why: Text,
    }
    /// A request for the next credential was refused.
    RenewalRefused = "renewal-refused": Refusal, warn, "a request to renew was refused", renewals_refused by refusal {
        /// The refusal's stable name.
        refusal: &'static str,
        /// Who asked.
        sender: Party,
        /// Whether there is a copy of the agent.
        alarm: bool,
        /// Why, for people.
        why: Text,
    }
    /// An exemption in the keystore is not signed by the operator, and counts for nothing.
    ExemptionRefused = "exemption-refused": Refusal, error, "an exemption that is kept here is not the operator's", exemptions_refused by refusal {
        /// The refusal's stable name.
        refusal: &'static str,
    }
    /// A request to the HTTPS API was not authenticated. Told once a second and reason, with how many
    /// there were.
    ApiRefused = "api-refused": Refusal, warn, "a request to the API was not authenticated", api_refused by why adds count {
        /// The reason's stable name.
        why: &'static str,
        /// How many of that reason there were since the last one that was told.
        count: u64,
        /// What it showed: `certificate`, `bearer`, `access-key`, `keystone`, `several` or `none`.
        credential: &'static str,
        /// The address that the last one came from.
        from: Text,
    }
    /// Too many requests from an address were not authenticated: more are not looked at for a while.
    ApiShutOut = "api-shut-out": Refusal, warn, "too many requests from an address were not authenticated", api_shut_out {
        /// The address, or the network of it.
        from: Text,
    }
    /// A user of the HTTPS API asks more often than allowed. Told once a second and user, with how many
    /// requests were refused.
    ApiLimited = "api-limited": Refusal, warn, "a user of the API asks too often", api_limited adds count {
        /// The user.
        identity: Text,
        /// How many of its requests were refused since the last one that was told.
        count: u64,
    }

    // Denials.

    /// The policy does not let a proven sender call a method. It was told so, under seal.
    CallDenied = "call-denied": Denial, warn, "call denied", calls_denied {
        /// Who called.
        sender: Party,
        /// What was called, with its namespace.
        method: Text,
        /// The rule that says so.
        rule: Text,
        /// The message.
        message: MessageId,
        /// Who was called.
        receiver: Principal,
        /// What the sender did: `call`, `cast` or `fanout`.
        action: &'static str,
        /// The roles in the sender's credential.
        roles: Text,
        /// The number of the policy that was in force; 0 is the built-in rule.
        policy: u32,
    }
    /// The policy does not let a user of the HTTPS API do something.
    ApiDenied = "api-denied": Denial, warn, "a request to the API was denied", api_denied by action {
        /// The user.
        identity: Text,
        /// What it wanted to do: `api:call`, `api:read` and so on.
        action: &'static str,
        /// With which method or operation.
        method: Text,
        /// Of whom: `agent/ID`, `component/TYPE` or `group/NAME`.
        receiver: Text,
        /// The rule that says so.
        rule: Text,
        /// The user's roles.
        roles: Text,
        /// The project of its token, by id and name.
        projects: Text,
        /// The number of the policy that was in force; 0 is the built-in rule.
        policy: u32,
    }
    /// A call was not run because the journal can't take it (`on-full = "stop"`).
    CallHeldBack = "call-held-back": Denial, error, "a call was not run, because the journal can't take it", calls_held_back {
        /// Who called.
        sender: Party,
        /// What was called, with its namespace.
        method: Text,
        /// The message.
        message: MessageId,
    }

    // Keys.

    /// An agent was added, and a file written for it.
    AgentAdded = "agent-added": Key, info, "an agent was added", agents_added by way {
        /// The agent.
        agent: Principal,
        /// What its file holds: `token`, `key` or `shared-key`.
        way: &'static str,
        /// Whether it comes back as the agent that it was (`--again`).
        again: bool,
    }
    /// An agent joined with its one-time token and has its first credential.
    AgentEnrolled = "agent-enrolled": Key, info, "an agent enrolled", agents_enrolled {
        /// The agent.
        agent: Principal,
        /// Whether it was the stored answer to the same request.
        again: bool,
    }
    /// An agent made new keys and has its next credential.
    AgentRenewed = "agent-renewed": Key, info, "an agent renewed its credential", agents_renewed {
        /// The agent.
        agent: Party,
        /// The credential's epoch.
        epoch: u32,
        /// Whether it was the stored answer to the same request.
        again: bool,
    }
    /// An agent's keys count no more.
    AgentRevoked = "agent-revoked": Key, warn, "an agent was revoked", agents_revoked {
        /// The agent.
        agent: Principal,
    }
    /// There are two of an agent, or there were two uses of its token: all its keys count no more.
    AgentQuarantined = "agent-quarantined": Key, error, "an agent is in quarantine", agents_quarantined by refusal {
        /// The agent.
        agent: Principal,
        /// What it was noticed by.
        refusal: &'static str,
    }
    /// The broker has an agent's new password.
    BrokerLoginChanged = "broker-login-changed": Key, info, "the broker has an agent's new login", broker_logins_changed {
        /// The agent.
        agent: Principal,
    }
    /// An agent's broker user is gone, and its connections are closed.
    BrokerLoginRemoved = "broker-login-removed": Key, warn, "an agent's broker user is gone, and its connections are closed", broker_logins_removed {
        /// The agent.
        agent: Principal,
    }
    /// A component type, or a host of one, was added.
    ComponentAdded = "component-added": Key, info, "a component was added", components_added {
        /// The component type.
        component: Principal,
        /// The host.
        host: Text,
    }
    /// This agent or host made new keys, and has their credential.
    KeysRenewed = "keys-renewed": Key, info, "keys were renewed", keys_renewed {
        /// The new signing key.
        kid: Kid,
        /// The credential's epoch.
        epoch: u32,
    }
    /// A host of a component has its next signing credential.
    HostRenewed = "host-renewed": Key, info, "a host renewed its credential", hosts_renewed {
        /// The component type.
        component: Principal,
        /// The host.
        host: Text,
    }
    /// A component type has its next key to receive with.
    ComponentRotated = "component-rotated": Key, info, "a component type has its next key", components_rotated by by {
        /// The component type.
        component: Principal,
        /// The key's epoch.
        epoch: u32,
        /// Who asked for it: `schedule` or `operator`.
        by: &'static str,
    }
    /// A host of a component was revoked, or all of the type.
    ComponentRevoked = "component-revoked": Key, warn, "a component was revoked", components_revoked {
        /// The component type.
        component: Principal,
        /// The host, or `all`.
        host: Text,
    }
    /// A group was added.
    GroupAdded = "group-added": Key, info, "a group was added", groups_added {
        /// The group.
        group: Text,
    }
    /// Somebody was made a member of a group.
    GroupExtended = "group-extended": Key, info, "a group has another member", groups_extended {
        /// The group.
        group: Text,
        /// The member.
        member: Text,
    }
    /// A group has its next key: who went can't read what comes.
    GroupRekeyed = "group-rekeyed": Key, info, "a group has its next key", groups_rekeyed {
        /// The group.
        group: Text,
        /// The key's epoch.
        epoch: u32,
    }
    /// Every value in the keystore is wrapped under the next key-encryption key.
    KekRotated = "kek-rotated": Key, warn, "the key-encryption key was rotated", kek_rotations {
        /// How many values were wrapped anew.
        wrapped: u64,
    }
    /// Keys of peers that do not seal yet were taken over from Trove's database.
    LegacyKeysImported = "legacy-keys-imported": Key, warn, "keys of peers that do not seal were imported", legacy_imports {
        /// How many are new.
        new: u64,
        /// How many are in the place of another.
        changed: u64,
    }
    /// Another root is trusted.
    RootFollowed = "root-followed": Key, warn, "another root is trusted", roots_followed {
        /// How many roots there were before it.
        sequence: u32,
    }
    /// The root before the present one has ended.
    RootEnded = "root-ended": Key, warn, "the root before this one has ended", roots_ended {
        /// How many roots there were before the present one.
        sequence: u32,
    }
    /// A key for programs that use the HTTPS API was made.
    AccessKeyMade = "access-key-made": Key, info, "an access key was made", access_keys_made {
        /// Its name: the half that is no secret.
        access: Text,
        /// Whose it is.
        user: Text,
    }
    /// A key for programs that use the HTTPS API counts no more, or not for now, or again.
    AccessKeyChanged = "access-key-changed": Key, warn, "an access key was changed", access_keys_changed by how {
        /// `removed`, `disabled` or `enabled`.
        how: &'static str,
        /// Its name: the half that is no secret.
        access: Text,
    }

    // Policy.

    /// The operator put a policy in force or took one back, or let one judge in the shadow.
    PolicyChanged = "policy-changed": Policy, warn, "the policy was changed", policies_changed by how {
        /// `activated`, `activated-from-settings`, `rolled-back`, `shadowed` or `shadow-ended`.
        how: &'static str,
        /// The number of its activation.
        version: u32,
        /// The number of the signed document that says so.
        sequence: u64,
    }
    /// This process goes by another policy.
    PolicyFollowed = "policy-followed": Policy, warn, "there is another policy", policies_followed {
        /// The number of its activation.
        version: u32,
        /// The number of the signed document that says so.
        sequence: u64,
        /// Whether another one judges in the shadow.
        shadow: bool,
    }
    /// Component types' rights in the database were made anew or taken away.
    GrantsChanged = "grants-changed": Policy, warn, "rights in the database were changed", grants_changed by how {
        /// `applied` or `reverted`.
        how: &'static str,
        /// How many component types it was about.
        components: u64,
    }

    // Floors.

    /// An agent's floor rose by itself, with its first message at that level.
    FloorRose = "floor-rose": Floor, info, "the floor of a peer rose", floors_rose {
        /// Whose.
        peer: Party,
        /// The level before.
        from: Level,
        /// The level from now on.
        to: Level,
    }
    /// The operator raised a peer's floor.
    FloorRaised = "floor-raised": Floor, warn, "floor raised", floors_raised {
        /// Who did it.
        operator: Text,
        /// Whose.
        peer: Party,
        /// The level from now on.
        to: Level,
        /// Whether it is only rehearsed.
        shadow: bool,
    }
    /// The operator lets a peer stay below its floor for a while, with one method.
    ExemptionGiven = "exemption-given": Floor, warn, "exemption given", exemptions_given {
        /// Who did it.
        operator: Text,
        /// What it says.
        exemption: Text,
        /// When it ends, Unix seconds.
        until: u64,
    }
    /// The operator took an exemption back.
    ExemptionTakenBack = "exemption-taken-back": Floor, warn, "exemption taken back", exemptions_taken_back {
        /// Who did it.
        operator: Text,
        /// Which.
        exemption: Text,
    }
    /// An exemption let a message through that is below its sender's floor.
    ExemptionUsed = "exemption-used": Floor, warn, "a message below its sender's floor was let through by an exemption", exemptions_used {
        /// Which.
        exemption: Text,
        /// Who sent it.
        sender: Party,
        /// The message's level.
        level: Level,
        /// When the exemption ends, Unix seconds.
        until: u64,
    }

    // Calls.

    /// A method that changes something is about to run. Only with `calls = "mutating"` or `"all"`.
    CallTaken = "call-taken": Call, debug, "call taken", calls_taken {
        /// Who called.
        sender: Party,
        /// What was called, with its namespace.
        method: Text,
        /// What the method may do: `read-only`, `idempotent` or `once`.
        effect: &'static str,
        /// The message.
        message: MessageId,
    }
    /// An operator has a call, a cast or a fanout made.
    OperatorCalled = "operator-called": Call, info, "call", operator_calls by kind {
        /// The user of the API: `operator/NAME`, `program/NAME` or `user/NAME@DOMAIN`.
        operator: Text,
        /// Who is called.
        target: Text,
        /// What is called, with its namespace.
        method: Text,
        /// `call`, `cast` or `fanout`.
        kind: &'static str,
    }
    /// An operator has something changed over the API. What came of it follows, under its own name.
    OperatorChanges = "operator-changes": Call, info, "change", operator_changes by operation {
        /// The operator.
        operator: Text,
        /// The operation, as the API's description names it.
        operation: &'static str,
        /// What is changed.
        subject: Text,
    }
    /// An operator looks at what the bus carries.
    OperatorTapped = "operator-tapped": Call, info, "tap", operator_taps {
        /// The operator.
        operator: Text,
    }

    // Alarms.

    /// Fanouts are missing in a signer's sequence: the broker keeps something back.
    FanoutsMissing = "fanouts-missing": Alarm, warn, "fanouts are missing in the signer's sequence", fanouts_missing adds missing {
        /// The group.
        group: Text,
        /// The signer's key.
        signer: Kid,
        /// How many.
        missing: u64,
    }
    /// Two statements of revocation have one epoch.
    StatementConflict = "statement-conflict": Alarm, error, "two statements of revocation have one epoch", statement_conflicts {
        /// The epoch.
        epoch: u64,
    }
    /// A statement of revocation leaves out what an earlier one said; that holds all the same.
    StatementLoss = "statement-loss": Alarm, error, "a statement of revocation leaves out what an earlier one said; that holds all the same", statement_losses {
        /// The epoch.
        epoch: u64,
    }
    /// The keystore is older than what was told of it, as from a backup: what was revoked since is
    /// revoked again, keys of component types and groups are new, open join tokens are withdrawn.
    KeystoreRecalled = "keystore-recalled": Alarm, error, "the keystore is older than what was told of it, as from a backup; what was revoked since is revoked again", keystore_recalls {
        /// The statement that was told: the second that it was made in, Unix time.
        told: u64,
        /// The newest statement that the keystore knew.
        stored: u64,
        /// How many component types have new keys.
        components: u64,
        /// How many groups have new keys.
        groups: u64,
        /// How many open join tokens were withdrawn.
        tokens: u64,
    }
    /// The machine was started from a copy, or its clock jumped: what was claimed counts as lost.
    ClaimsLost = "claims-lost": Alarm, error, "what was claimed counts as lost", claims_lost {
        /// Why.
        why: Text,
    }

    // The journal.

    /// A process begins to write.
    JournalOpened = "journal-opened": Journal, info, "the journal is open", journals_opened {
        /// The program's version.
        version: &'static str,
        /// How many records there are already.
        size: u64,
    }
    /// A process ends in order.
    JournalClosed = "journal-closed": Journal, info, "the journal is closed", journals_closed {
        /// How many records there are before this one.
        size: u64,
    }
    /// The end of the file was torn by a crash, and was cut off. What was cut is kept beside it.
    JournalCut = "journal-cut": Journal, warn, "the torn end of the journal was cut off", journal_cuts {
        /// How many bytes.
        bytes: u64,
        /// The file that they are in now.
        kept: Text,
    }
    /// There are fewer records than the last checkpoint signed: a backup was put back, or somebody
    /// cut the end off.
    JournalRolledBack = "journal-rolled-back": Journal, error, "the journal has fewer records than its last checkpoint signed", journal_rollbacks {
        /// How many records there are.
        size: u64,
        /// How many there were.
        signed: u64,
    }
    /// Events were lost, because there was no room for them.
    EventsLost = "events-lost": Journal, error, "events were lost, because there was no room for them", events_lost adds lost {
        /// How many.
        lost: u64,
        /// Why.
        why: Text,
    }
    /// Old files go: records before this one are kept no longer.
    JournalTrimmed = "journal-trimmed": Journal, info, "old files of the journal go", journal_trims {
        /// The first record that is kept.
        first: u64,
    }
}
