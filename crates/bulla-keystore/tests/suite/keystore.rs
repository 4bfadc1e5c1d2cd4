//! What the keystore does for its callers, and what it refuses.
use std::time::Duration;

use crate::common::{agent, component, fixture};
use bulla_keystore::{
    AgentKeys, CREDENTIAL_LIFETIME, ISSUER_LIFETIME, KeyType, KeystoreError, Page, PeerKeys,
    SIGNING_LIFETIME,
};
use bulla_seal::{
    GroupName, IssuerRight, Kid, Level, OsRandom, Principal, Refusal, SigningKey, Suite, SuiteSet,
    UnixTime, shared,
};

fn later(by: Duration) -> impl Fn() -> UnixTime {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    move || UnixTime::from_secs((now + by).as_secs())
}

#[tokio::test]
async fn init_makes_four_issuers_under_the_root() {
    let fixture = fixture!();
    let trust = fixture.keystore.trust_store();
    assert_eq!(*trust.root(), fixture.root.verifying_key());
    let mut rights: Vec<_> = trust.issuers().map(|(issuer, _)| issuer.right).collect();
    rights.sort_by_key(|right| right.as_str());
    let mut all = IssuerRight::ALL.to_vec();
    all.sort_by_key(|right| right.as_str());
    assert_eq!(rights, all);
    let groups = fixture.keystore.list_groups().await.unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!((groups[0].name.as_str(), groups[0].epoch, groups[0].members), ("all", 1, 0));
}

#[tokio::test]
async fn a_key_pair_agent_gets_keys_that_its_credential_names() {
    let fixture = fixture!();
    let keystore = &fixture.keystore;
    for suite in [Suite::X25519, Suite::XWing] {
        let id = format!("db-{suite}");
        let keys = keystore.add_agent(&id, KeyType::Pair, suite).await.unwrap();
        let AgentKeys::Pair { signing, kem, credential } = keys else { panic!("{keys:?}") };
        assert_eq!(credential.signing, Some(signing.verifying_key()));
        assert_eq!(credential.kem.as_ref(), Some(kem.public()));
        assert_eq!(kem.suite(), suite);
        assert_eq!((credential.party.incarnation, credential.epoch), (1, 1));
        assert_eq!((credential.accepts, credential.sends), (Level::Sealed, Level::Sealed));
        assert_eq!(keystore.credential(&agent(&id)).await.unwrap(), credential);
        let groups = keystore.groups_of(&agent(&id)).await.unwrap();
        assert_eq!(groups, [GroupName::new("all").unwrap()]);
        let details = keystore.show_agent(&id).await.unwrap();
        assert_eq!(details.credential, Some(credential));
        assert_eq!((details.record.key_type, details.record.suite), (KeyType::Pair, suite));
    }
    let error = keystore.add_agent("db-x", KeyType::Pair, Suite::Shared).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NoKemSuite), "{error}");
}

#[tokio::test]
async fn a_pair_key_is_what_the_agent_derives() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    let keys = keystore.add_agent("db-1", KeyType::Shared, Suite::Shared).await.unwrap();
    let AgentKeys::Shared { key, incarnation, pairs } = keys else { panic!("{keys:?}") };
    let pair = keystore.pair_key(&agent("db-1"), &component("control")).await.unwrap();
    assert_eq!(pairs.len(), 1);
    assert_eq!((pairs[0].kid, pairs[0].epoch), (pair.kid, pair.epoch));
    assert_eq!((pair.agent.incarnation, incarnation, pair.epoch), (1, 1, 1));
    let derived = shared::pair_key(&key, &pair.agent, &component("control"), 1);
    assert!(pair.key.ct_eq(&derived));
    let error = keystore.credential(&agent("db-1")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NoCredential(_)), "{error}");
}

#[tokio::test]
async fn a_later_component_gets_its_pair_on_first_look_up() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    fixture.shared("db-1").await;
    keystore.add_component("backup", &[], SuiteSet::only(Suite::X25519)).await.unwrap();
    assert_eq!(keystore.show_agent("db-1").await.unwrap().pairs.len(), 1);
    let first = keystore.pair_key(&agent("db-1"), &component("backup")).await.unwrap();
    let second = keystore.pair_key(&agent("db-1"), &component("backup")).await.unwrap();
    let control = keystore.pair_key(&agent("db-1"), &component("control")).await.unwrap();
    assert_eq!(first.kid, second.kid);
    assert_ne!(first.kid, control.kid);
    assert!(!first.key.ct_eq(&control.key));
    let named = keystore.pair_by_kid(first.kid).await.unwrap().unwrap();
    assert!(named.key.ct_eq(&first.key));
    assert_eq!(named.component, component("backup"));
    assert!(keystore.pair_by_kid(Kid([0; 8])).await.unwrap().is_none());
    assert_eq!(keystore.show_agent("db-1").await.unwrap().pairs.len(), 2);
}

#[tokio::test]
async fn a_pair_needs_a_shared_key_agent_and_a_component() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await.unwrap();
    fixture.shared("db-2").await;
    let (db1, db2, control) = (agent("db-1"), agent("db-2"), component("control"));
    let failed =
        |a: Principal, b: Principal| async move { keystore.pair_key(&a, &b).await.unwrap_err() };
    let error = failed(db1.clone(), control.clone()).await;
    assert!(matches!(error, KeystoreError::NotShared(_)), "{error}");
    for (a, b) in [(control.clone(), control.clone()), (db2.clone(), db1)] {
        let error = failed(a, b).await;
        assert!(matches!(error, KeystoreError::NotAPair(_)), "{error}");
    }
    for (a, b) in [(agent("none"), control), (db2, component("none"))] {
        let error = failed(a, b).await;
        assert!(
            matches!(&error, KeystoreError::UnknownPrincipal(p) if p.name() == "none"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn component_keys_belong_to_their_credential() {
    let fixture = fixture!();
    let keystore = &fixture.keystore;
    let roles = ["group:all".to_owned()];
    for (name, suites, suite) in [
        ("conductor", SuiteSet::all(), Suite::XWing),
        ("small", SuiteSet::only(Suite::X25519), Suite::X25519),
    ] {
        let record = keystore.add_component(name, &roles, suites).await.unwrap();
        let (key, audience) = keystore.component_keys(name).await.unwrap();
        assert_eq!(audience.kem.as_ref(), Some(key.public()));
        assert_eq!((key.suite(), record.suite, audience.suites), (suite, suite, suites));
        assert_eq!(record.audience, audience);
        assert!(audience.may_key_group(&GroupName::new("all").unwrap()));
        assert!(keystore.list_components().await.unwrap().contains(&record));
    }
    let error = keystore.add_component("none", &[], SuiteSet::EMPTY).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NoKemSuite), "{error}");
    let error = keystore.component_keys("other").await.unwrap_err();
    assert!(matches!(error, KeystoreError::UnknownPrincipal(_)), "{error}");
}

#[tokio::test]
async fn hosts_of_a_component_sign_with_keys_of_their_own() {
    let fixture = fixture!();
    let keystore = &fixture.keystore;
    let roles = ["group:all".to_owned()];
    let record = keystore.add_component("conductor", &roles, SuiteSet::all()).await.unwrap();
    let issue = |host: &'static str| keystore.issue_signing("conductor", host, SIGNING_LIFETIME);
    let (key1, first) = issue("host-1").await.unwrap();
    let (key2, second) = issue("host-2").await.unwrap();
    assert_ne!(key1.verifying_key(), key2.verifying_key());
    assert_ne!(first.kid, second.kid);
    assert_eq!((first.instance.as_deref(), first.epoch), (Some("host-1"), record.epoch));
    assert_eq!((first.signing, &first.kem), (Some(key1.verifying_key()), &None));
    assert_eq!(first.roles, roles);
    let own = SigningKey::generate(&mut OsRandom::default()).unwrap().verifying_key();
    let third = keystore.issue_signing_for("conductor", "host-1", own, SIGNING_LIFETIME);
    assert_eq!(third.await.unwrap().signing, Some(own));
    let now = UnixTime::from_secs(first.validity.not_before + 120);
    assert!(keystore.trust_store().verify(first.as_bytes(), now).is_ok());
    assert_eq!(
        keystore.trust_store().verify(first.as_bytes(), later(SIGNING_LIFETIME * 2)()),
        Err(Refusal::CredentialExpired)
    );
    for lifetime in [Duration::ZERO, CREDENTIAL_LIFETIME * 2] {
        let error = keystore.issue_signing("conductor", "host-1", lifetime).await.unwrap_err();
        assert!(matches!(error, KeystoreError::Lifetime { .. }), "{error}");
    }
    let error = keystore.issue_signing("conductor", "a b", SIGNING_LIFETIME).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Name(_)), "{error}");
    let error = keystore.issue_signing("none", "h", SIGNING_LIFETIME).await.unwrap_err();
    assert!(matches!(error, KeystoreError::UnknownPrincipal(_)), "{error}");
}

#[tokio::test]
async fn a_name_that_exists_is_taken() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    fixture.shared("db-1").await;
    for key_type in [KeyType::Pair, KeyType::Shared] {
        let error = keystore.add_agent("db-1", key_type, Suite::X25519).await.unwrap_err();
        assert!(matches!(&error, KeystoreError::NameTaken(p) if p.incarnation == 1), "{error}");
        assert!(error.to_string().contains("choose another name"), "{error}");
    }
    let error = keystore.add_component("control", &[], SuiteSet::all()).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NameTaken(_)), "{error}");
    let error = keystore.add_agent("a/b", KeyType::Pair, Suite::X25519).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Name(_)), "{error}");
    // An agent and a component may share a name.
    fixture.shared("control").await;
    assert_eq!(keystore.count_agents().await.unwrap(), 2);
}

#[tokio::test]
async fn a_removed_agent_is_gone_and_its_name_comes_back_anew() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    let (old_key, _) = fixture.shared("db-1").await;
    let (db1, control) = (agent("db-1"), component("control"));
    let old = keystore.pair_key(&db1, &control).await.unwrap();
    assert_eq!(keystore.remove_agent("db-1").await.unwrap(), old.agent);
    for error in [
        keystore.party(&db1).await.unwrap_err(),
        keystore.credential(&db1).await.unwrap_err(),
        keystore.pair_key(&db1, &control).await.unwrap_err(),
        keystore.groups_of(&db1).await.unwrap_err(),
        keystore.remove_agent("db-1").await.unwrap_err(),
    ] {
        assert!(matches!(error, KeystoreError::UnknownPrincipal(_)), "{error}");
    }
    assert!(keystore.pair_by_kid(old.kid).await.unwrap().is_none());
    assert!(keystore.list_agents(&Page::default()).await.unwrap().agents.is_empty());
    let row = "FROM instance_keys WHERE instance_id = 'db-1'";
    let mut raw = fixture.raw().await;
    assert_eq!(raw.text(&format!("SELECT encrypted_key {row}")).await, "");
    assert_eq!(raw.number(&format!("SELECT deleted {row}")).await, 1);

    let (new_key, incarnation) = fixture.shared("db-1").await;
    assert_eq!(incarnation, 2);
    assert!(!new_key.ct_eq(&old_key));
    let new = keystore.pair_key(&db1, &control).await.unwrap();
    assert_ne!(new.kid, old.kid);
    assert!(!new.key.ct_eq(&old.key));
    assert!(keystore.pair_by_kid(old.kid).await.unwrap().is_none());
    keystore.remove_agent("db-1").await.unwrap();
    keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await.unwrap();
    assert_eq!(keystore.party(&db1).await.unwrap().incarnation, 3);
    let error = keystore.pair_key(&db1, &control).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NotShared(_)), "{error}");
}

#[tokio::test]
async fn who_leaves_a_group_can_not_read_its_next_epoch() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    let group = GroupName::new("blue").unwrap();
    keystore.add_group(&group).await.unwrap();
    let error = keystore.add_group(&group).await.unwrap_err();
    assert!(matches!(error, KeystoreError::GroupTaken(_)), "{error}");
    for id in ["db-1", "db-2"] {
        fixture.shared(id).await;
        assert!(keystore.add_member(&group, &agent(id)).await.unwrap());
        assert!(!keystore.add_member(&group, &agent(id)).await.unwrap());
    }
    keystore.add_member(&group, &component("control")).await.unwrap();
    let first = keystore.group_key(&group, None).await.unwrap();
    assert_eq!(first.epoch, 1);
    assert!(keystore.remove_member(&group, &agent("db-1")).await.unwrap());
    let second = keystore.group_key(&group, None).await.unwrap();
    assert_eq!(second.epoch, 2);
    assert!(!second.key.ct_eq(&first.key));
    assert!(!keystore.remove_member(&group, &agent("db-1")).await.unwrap());
    assert_eq!(keystore.group_key(&group, None).await.unwrap().epoch, 2);
    keystore.remove_agent("db-2").await.unwrap();
    assert_eq!(keystore.group_key(&group, None).await.unwrap().epoch, 3);
    let again = keystore.group_key(&group, Some(1)).await.unwrap();
    assert!(again.key.ct_eq(&first.key));
    assert_eq!(keystore.members_of(&group).await.unwrap(), [component("control")]);
    assert_eq!(
        keystore.groups_of(&component("control")).await.unwrap(),
        std::slice::from_ref(&group)
    );
    let all = GroupName::new("all").unwrap();
    assert_eq!(keystore.group_key(&all, None).await.unwrap().epoch, 2);
    let error = keystore.remove_member(&all, &agent("db-1")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::GroupBuiltIn(_)), "{error}");
    let error = keystore.group_key(&group, Some(9)).await.unwrap_err();
    assert!(matches!(error, KeystoreError::UnknownGroupEpoch { epoch: 9, .. }), "{error}");
    let none = GroupName::new("none").unwrap();
    let error = keystore.group_key(&none, None).await.unwrap_err();
    assert!(matches!(error, KeystoreError::UnknownGroup(_)), "{error}");
}

#[tokio::test]
async fn credentials_and_issuers_end() {
    let fixture = fixture!("control");
    let keystore = fixture.keystore.clone();
    keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await.unwrap();
    let keystore = keystore.with_clock(later(CREDENTIAL_LIFETIME));
    let error = keystore.credential(&agent("db-1")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NoCredential(_)), "{error}");
    let error = keystore.component_keys("control").await.unwrap_err();
    assert!(matches!(error, KeystoreError::NoCredential(_)), "{error}");
    assert!(keystore.show_agent("db-1").await.unwrap().credential.is_none());
    // Shortly before an issuer's end, nothing that it issues outlives it.
    let almost = ISSUER_LIFETIME - Duration::from_secs(3_600);
    let keystore = keystore.with_clock(later(almost));
    let keys = keystore.add_agent("db-2", KeyType::Pair, Suite::X25519).await.unwrap();
    let AgentKeys::Pair { credential, .. } = keys else { panic!("{keys:?}") };
    let trust = keystore.trust_store();
    let issuer = trust.issuers().find(|(issuer, _)| issuer.right == IssuerRight::Agents).unwrap();
    assert_eq!(credential.validity.not_after, issuer.0.validity.not_after);
    let keystore = keystore.with_clock(later(ISSUER_LIFETIME));
    let error = keystore.add_agent("db-3", KeyType::Pair, Suite::X25519).await.unwrap_err();
    assert!(matches!(error, KeystoreError::IssuerExpired(IssuerRight::Agents)), "{error}");
    let error = keystore.party(&agent("db-3")).await.unwrap_err();
    assert!(matches!(error, KeystoreError::UnknownPrincipal(_)), "nothing half done: {error}");
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let fixture = fixture!();
    for i in 0..25 {
        fixture.shared(&format!("db-{i:02}")).await;
    }
    let mut page = Some(Page { after: None, limit: 10 });
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    while let Some(this) = page {
        let found = fixture.keystore.list_agents(&this).await.unwrap();
        sizes.push(found.agents.len());
        names.extend(found.agents.iter().map(|a| a.party.principal.name().to_owned()));
        page = found.next;
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(names, (0..25).map(|i| format!("db-{i:02}")).collect::<Vec<_>>());
    let exact = Page { after: Some("db-14".into()), limit: 10 };
    let exact = fixture.keystore.list_agents(&exact).await.unwrap();
    assert_eq!(exact.agents.len(), 10);
    assert!(exact.next.is_none());
}

#[tokio::test]
async fn a_peer_is_sealed_to_with_what_it_holds() {
    let fixture = fixture!("control", "backup");
    let keystore = &fixture.keystore;
    let control = component("control");
    keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await.unwrap();
    fixture.shared("db-2").await;
    for peer in [agent("db-1"), component("backup")] {
        let keys = keystore.peer(&peer, &control).await.unwrap();
        let PeerKeys::Pair(credential) = keys else { panic!("{keys:?}") };
        assert_eq!(credential.party.principal, peer);
        assert_eq!(credential, keystore.credential(&peer).await.unwrap());
    }
    let keys = keystore.peer(&agent("db-2"), &control).await.unwrap();
    let PeerKeys::Shared(pair) = keys else { panic!("{keys:?}") };
    let same = keystore.pair_key(&agent("db-2"), &control).await.unwrap();
    assert!(pair.kid == same.kid && pair.key.ct_eq(&same.key));
    keystore.remove_agent("db-1").await.unwrap();
    for (peer, own) in [(agent("db-1"), control.clone()), (agent("db-2"), component("none"))] {
        let error = keystore.peer(&peer, &own).await.unwrap_err();
        assert!(matches!(error, KeystoreError::UnknownPrincipal(_)), "{error}");
    }
    keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await.unwrap();
    let late = keystore.clone().with_clock(later(CREDENTIAL_LIFETIME));
    let error = late.peer(&agent("db-1"), &control).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NoCredential(_)), "{error}");
}

#[tokio::test]
async fn roles_that_do_not_fit_are_refused() {
    let fixture = fixture!();
    for roles in [vec![String::new()], vec!["r".repeat(81)], vec!["r".to_owned(); 33]] {
        let added = fixture.keystore.add_component("conductor", &roles, SuiteSet::all()).await;
        assert!(matches!(added, Err(KeystoreError::Role { .. })), "{added:?}");
    }
    let full = vec!["r".repeat(80); 32];
    fixture.keystore.add_component("conductor", &full, SuiteSet::all()).await.unwrap();
    assert_eq!(fixture.keystore.component_keys("conductor").await.unwrap().1.roles, full);
}

#[tokio::test]
async fn debug_output_holds_no_secret() {
    let fixture = fixture!("control");
    let keystore = &fixture.keystore;
    let pair = keystore.add_agent("db-1", KeyType::Pair, Suite::X25519).await.unwrap();
    let shared = keystore.add_agent("db-2", KeyType::Shared, Suite::Shared).await.unwrap();
    let (AgentKeys::Pair { signing, kem, .. }, AgentKeys::Shared { key, .. }) = (&pair, &shared)
    else {
        panic!("one of each")
    };
    let pair_key = keystore.pair_key(&agent("db-2"), &component("control")).await.unwrap();
    let all = GroupName::new("all").unwrap();
    let group_key = keystore.group_key(&all, None).await.unwrap();
    let text =
        format!("{pair:?} {shared:?} {pair_key:?} {group_key:?} {keystore:?} {:?}", fixture.kek);
    let secrets = [
        &signing.seed().expose()[..],
        kem.expose(),
        key.expose(),
        pair_key.key.expose(),
        group_key.key.expose(),
    ];
    for secret in secrets {
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let list = format!("{secret:?}");
        assert!(!text.contains(&hex[..16]), "{text}");
        assert!(!text.contains(list.trim_matches(['[', ']'])), "{text}");
    }
}
