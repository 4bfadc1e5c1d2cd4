//! Join tokens: good once, for one request; and renewals under their counter.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::*;
use bulla_keystore::*;
use bulla_seal::enrol::{Applicant, Application, JoinToken};
use bulla_seal::{
    Digest, KemSecretKey, Kid, OsRandom, Party, Refusal, Secret, SignedCredential, SigningKey,
    Suite, TrustStore, UnixTime,
};

const HALF_HOUR: Duration = TOKEN_LIFETIME;

struct World {
    fixture: Fixture,
    keystore: Keystore,
    control: SignedCredential,
    clock: Arc<AtomicU64>,
}

impl World {
    async fn of(fixture: Fixture) -> Self {
        let control = fixture.keystore.credential(&component("control")).await.unwrap();
        let clock = Arc::new(AtomicU64::new(0));
        let (passed, start) = (clock.clone(), control.validity.not_before + 120);
        let now = move || UnixTime::from_secs(start + passed.load(Ordering::SeqCst));
        let keystore = fixture.keystore.clone().with_clock(now);
        Self { fixture, keystore, control, clock }
    }

    /// Puts the clock to this Unix time.
    fn at(&self, secs: u64) {
        let start = self.control.validity.not_before + 120;
        self.clock.store(secs - start, Ordering::SeqCst);
    }

    async fn invite(&self, id: &str) -> Invitation {
        self.keystore.invite_agent(id, Suite::X25519, HALF_HOUR, false).await.unwrap()
    }

    fn now(&self) -> UnixTime {
        let start = self.control.validity.not_before + 120;
        UnixTime::from_secs(start + self.clock.load(Ordering::SeqCst))
    }

    fn apply(&self, invitation: &Invitation) -> Application {
        self.apply_with(invitation, &invitation.token, Suite::X25519)
    }

    fn apply_with(&self, to: &Invitation, token: &JoinToken, suite: Suite) -> Application {
        let random = &mut OsRandom::default();
        let signing = SigningKey::generate(random).unwrap();
        let kem = KemSecretKey::generate(suite, random).unwrap();
        let trust = self.keystore.trust_store();
        let applicant =
            Applicant { domain: trust.domain(), party: &to.party, token, enroller: &self.control };
        applicant.apply(signing, kem, self.now(), random).unwrap()
    }

    async fn enrol(&self, application: &Application) -> Enrolment {
        self.keystore.enrol("control", application.request()).await.unwrap()
    }

    async fn refused(&self, application: &Application) -> EnrolRefusal {
        match self.enrol(application).await {
            Enrolment::Refused(refusal) => refusal,
            Enrolment::Answered { party, .. } => panic!("{party} was answered"),
        }
    }

    /// The answer, which must be one that the applicant takes.
    async fn answered(&self, application: &Application) -> (Vec<u8>, bool, Kid) {
        let Enrolment::Answered { answer, again, .. } = self.enrol(application).await else {
            panic!("refused")
        };
        let trust = self.keystore.trust_store();
        let root = TrustStore::new(trust.domain().clone(), *trust.root());
        let enrolled = application.open_answer(&answer, &root, self.now()).unwrap();
        (answer, again, enrolled.credential.kid)
    }

    async fn revoked(&self) -> Vec<Kid> {
        let statement = self.keystore.statement().await.unwrap();
        statement.revoked.iter().map(|revoked| revoked.kid).collect()
    }

    async fn state(&self, id: &str) -> Option<JoinState> {
        self.keystore.join_state(id).await.unwrap()
    }
}

#[tokio::test]
async fn the_first_request_gets_a_credential_and_gets_it_again() {
    let world = World::of(fixture!("control")).await;
    let invitation = world.invite("a").await;
    assert_eq!(world.state("a").await, Some(JoinState::Invited { until: invitation.expires }));
    let none = world.keystore.credential(&agent("a")).await.unwrap_err();
    assert!(matches!(none, KeystoreError::NoCredential(_)), "{none}");
    let application = world.apply(&invitation);
    let (first, again, kid) = world.answered(&application).await;
    assert!(!again);
    assert_eq!(world.state("a").await, Some(JoinState::Joined));
    let credential = world.keystore.credential(&agent("a")).await.unwrap();
    assert_eq!((credential.kid, credential.party.clone()), (kid, invitation.party.clone()));
    let (second, again, _) = world.answered(&application).await;
    assert_eq!((second, again), (first.clone(), true));
    // Long after the token's time too: it is the same answer to the same agent.
    world.clock.store(86_400, Ordering::SeqCst);
    assert_eq!(world.answered(&application).await.0, first);
    assert!(world.revoked().await.is_empty());
    assert_eq!(world.keystore.members_of(&group("all")).await.unwrap(), [agent("a")]);
}

#[tokio::test]
async fn any_other_request_with_a_used_token_locks_it_and_revokes() {
    let world = World::of(fixture!("control")).await;
    let (invitation, other) = (world.invite("a").await, world.invite("b").await);
    let application = world.apply(&invitation);
    let (_, _, kid) = world.answered(&application).await;
    let (_, _, unharmed) = world.answered(&world.apply(&other)).await;
    let thief = world.apply(&invitation);
    let refusal = world.refused(&thief).await;
    assert_eq!(refusal, EnrolRefusal::Reused(invitation.party.clone()));
    assert_eq!((refusal.as_str(), refusal.is_alarm()), ("enrol-token-reused", true));
    assert_eq!(world.revoked().await, [kid]);
    assert_ne!(kid, unharmed);
    assert_eq!(world.state("a").await, Some(JoinState::Quarantined { alarms: 1 }));
    // From now on nobody is answered, not even the first.
    for application in [&thief, &application, &world.apply(&invitation)] {
        let refusal = world.refused(application).await;
        assert_eq!(refusal, EnrolRefusal::Locked(invitation.party.clone()));
    }
    assert_eq!(world.state("a").await, Some(JoinState::Quarantined { alarms: 4 }));
    assert_eq!(world.state("b").await, Some(JoinState::Joined));
}

#[tokio::test]
async fn a_second_use_long_after_the_tokens_time_is_noticed_too() {
    let world = World::of(fixture!("control")).await;
    let invitation = world.invite("a").await;
    let (_, _, kid) = world.answered(&world.apply(&invitation)).await;
    let thief = world.apply(&invitation);
    world.clock.store(7 * 86_400, Ordering::SeqCst);
    assert_eq!(world.refused(&thief).await, EnrolRefusal::Reused(invitation.party));
    assert_eq!(world.revoked().await, [kid]);
}

#[tokio::test]
async fn whoever_only_saw_the_tokens_name_changes_nothing() {
    let world = World::of(fixture!("control")).await;
    let invitation = world.invite("a").await;
    let guess = JoinToken { id: invitation.token.id, secret: Secret::new([9; 32]) };
    let forged = world.apply_with(&invitation, &guess, Suite::X25519);
    let not_authentic = EnrolRefusal::Invalid(Refusal::NotAuthentic);
    assert_eq!(world.refused(&forged).await, not_authentic);
    let application = world.apply(&invitation);
    let (answer, ..) = world.answered(&application).await;
    // Neither before the first use nor after it.
    assert_eq!(world.refused(&forged).await, not_authentic);
    let mut altered = application.request().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let altered = world.keystore.enrol("control", &altered).await.unwrap();
    assert!(matches!(altered, Enrolment::Refused(EnrolRefusal::Invalid(_))), "{altered:?}");
    assert_eq!(world.state("a").await, Some(JoinState::Joined));
    assert!(world.revoked().await.is_empty());
    assert_eq!(world.answered(&application).await.0, answer);
    // And a token that nobody gave out.
    let none = JoinToken::generate(&mut OsRandom::default()).unwrap();
    let stranger = world.apply_with(&invitation, &none, Suite::X25519);
    assert_eq!(world.refused(&stranger).await, EnrolRefusal::Unknown);
}

#[tokio::test]
async fn an_expired_token_is_refused_and_can_be_made_anew() {
    let world = World::of(fixture!("control")).await;
    let invitation = world.invite("a").await;
    let application = world.apply(&invitation);
    world.clock.store(HALF_HOUR.as_secs(), Ordering::SeqCst);
    let refusal = world.refused(&application).await;
    assert_eq!(refusal, EnrolRefusal::Expired(invitation.party.clone()));
    assert_eq!(world.state("a").await, Some(JoinState::Expired));
    // Not without being told to.
    let error =
        world.keystore.invite_agent("a", Suite::X25519, HALF_HOUR, false).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NotJoined(_)), "{error}");
    let again = world.keystore.invite_agent("a", Suite::XWing, HALF_HOUR, true).await.unwrap();
    assert_eq!(again.party, invitation.party);
    assert_eq!(world.refused(&application).await, EnrolRefusal::Unknown);
    // With the key that was asked for and no other.
    let wrong = world.apply_with(&again, &again.token, Suite::X25519);
    assert_eq!(world.refused(&wrong).await, EnrolRefusal::Invalid(Refusal::SuiteNotAllowed));
    world.answered(&world.apply_with(&again, &again.token, Suite::XWing)).await;
    let error = world.keystore.invite_agent("a", Suite::XWing, HALF_HOUR, true).await.unwrap_err();
    assert!(matches!(error, KeystoreError::StillGood { .. }), "{error}");
    let error = world.keystore.invite_agent("a", Suite::XWing, HALF_HOUR, false).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NameTaken(_)), "{error}");
    for secs in [599, 3601] {
        let lifetime = Duration::from_secs(secs);
        let error = world.keystore.invite_agent("b", Suite::X25519, lifetime, false).await;
        assert!(matches!(error, Err(KeystoreError::TokenLifetime { .. })), "{secs}");
    }
}

#[tokio::test]
async fn a_token_outlives_the_rotation_of_the_enrollers_key() {
    let world = World::of(fixture!("control")).await;
    let invitation = world.invite("a").await;
    let application = world.apply(&invitation);
    let next = world.keystore.rotate_component("control").await.unwrap();
    assert_ne!(next.kid, world.control.kid);
    world.answered(&application).await;
}

#[tokio::test]
async fn tokens_go_over_to_another_key_encryption_key() {
    let world = World::of(fixture!("control")).await;
    let (open, used) = (world.invite("open").await, world.invite("used").await);
    let first = world.apply(&used);
    let (answer, ..) = world.answered(&first).await;
    let next = Kek::create_file(world.fixture.folder.path().join("kek.next")).unwrap();
    world.keystore.rotate_kek(&next, 1, |_| {}).await.unwrap();
    // As a process that has the new key alone.
    let after = Keystore::open(&world.fixture.address, next).await.unwrap();
    let world = World { keystore: after, ..world };
    assert_eq!(world.answered(&first).await.0, answer);
    world.answered(&world.apply(&open)).await;
    let second = world.refused(&world.apply(&used)).await;
    assert!(matches!(second, EnrolRefusal::Reused(_)), "{second}");
}

#[tokio::test]
async fn a_removed_agents_token_is_worth_nothing() {
    let world = World::of(fixture!("control")).await;
    let former = world.invite("a").await;
    let application = world.apply(&former);
    world.keystore.remove_agent("a").await.unwrap();
    assert_eq!(world.refused(&application).await, EnrolRefusal::Gone(former.party.clone()));
    // Nor under the next holder of the name.
    let next = world.invite("a").await;
    assert_eq!(next.party.incarnation, former.party.incarnation + 1);
    assert_eq!(world.refused(&application).await, EnrolRefusal::Gone(former.party));
    world.answered(&world.apply(&next)).await;
}

#[tokio::test]
async fn of_many_requests_at_once_one_is_accepted() {
    let world = Arc::new(World::of(fixture!("control")).await);
    let invitation = Arc::new(world.invite("a").await);
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (world, invitation) = (world.clone(), invitation.clone());
            tokio::spawn(async move {
                let application = world.apply(&invitation);
                matches!(world.enrol(&application).await, Enrolment::Answered { .. })
            })
        })
        .collect();
    let mut answered = 0;
    for asked in asking {
        answered += u32::from(asked.await.unwrap());
    }
    assert_eq!(answered, 1);
    assert_eq!(world.revoked().await.len(), 1);
    assert_eq!(world.state("a").await, Some(JoinState::Quarantined { alarms: 7 }));
}

#[tokio::test]
async fn many_are_invited_together_or_not_at_all() {
    let world = World::of(fixture!("control")).await;
    world.invite("c").await;
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    for bad in [ids(&["a", "b", "c"]), ids(&["a", "b", "a"]), ids(&["a", "b/c"])] {
        assert!(world.keystore.invite_agents(&bad, Suite::X25519, HALF_HOUR).await.is_err());
        assert_eq!(world.keystore.count_agents().await.unwrap(), 1, "{bad:?}");
    }
    let invited =
        world.keystore.invite_agents(&ids(&["a", "b"]), Suite::X25519, HALF_HOUR).await.unwrap();
    for invitation in &invited {
        world.answered(&world.apply(invitation)).await;
    }
}

#[tokio::test]
async fn the_secret_is_wiped_at_its_first_use() {
    let world = World::of(fixture!("control")).await;
    let invitation = world.invite("a").await;
    let verifier = "SELECT encrypted_verifier FROM join_tokens";
    let mut raw = world.fixture.raw().await;
    let secret = raw.bytes("SELECT encrypted_secret FROM join_tokens").await;
    let kept = raw.bytes(verifier).await;
    let holds = |bytes: &[u8]| bytes.windows(32).any(|w| w == invitation.token.secret.expose());
    assert!(!holds(&secret) && !holds(&kept));
    world.answered(&world.apply(&invitation)).await;
    let gone = "SELECT count(*) FROM join_tokens WHERE encrypted_secret IS NULL";
    assert_eq!(raw.number(gone).await, 1);
    // What is left knows a second use.
    assert!(!holds(&raw.bytes(verifier).await));
    raw.close().await;
    let application = world.apply(&invitation);
    assert!(matches!(world.enrol(&application).await, Enrolment::Refused(_)));
}

#[tokio::test]
async fn a_moved_row_opens_nowhere_else() {
    let world = World::of(fixture!("control")).await;
    let (a, b) = (world.invite("a").await, world.invite("b").await);
    // A thief who can write to the database puts a token that is known under another's name.
    let mut raw = world.fixture.raw().await;
    for column in ["encrypted_secret", "encrypted_verifier"] {
        let known =
            raw.bytes(&format!("SELECT {column} FROM join_tokens WHERE agent = 'agent/a'")).await;
        let known = raw.literal(&known);
        let moved = format!("UPDATE join_tokens SET {column} = {known} WHERE agent = 'agent/b'");
        assert_eq!(raw.run(&moved).await, 1);
    }
    raw.close().await;
    let token = JoinToken { id: b.token.id, secret: a.token.secret.clone() };
    let application = world.apply_with(&b, &token, Suite::X25519);
    let error = world.keystore.enrol("control", application.request()).await.unwrap_err();
    assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
}

fn renewal(party: &Party, credential: Kid, counter: u64, request: u8) -> Renewal {
    let random = &mut OsRandom::default();
    Renewal {
        party: party.clone(),
        credential,
        counter,
        request: Digest([request; 32]),
        signing: SigningKey::generate(random).unwrap().verifying_key(),
        kem: KemSecretKey::generate(Suite::X25519, random).unwrap().public().clone(),
    }
}

fn issued(renewed: Renewed) -> (SignedCredential, bool) {
    match renewed {
        Renewed::Issued { credential, again } => (credential, again),
        Renewed::Refused(refusal) => panic!("{refusal}"),
    }
}

fn denied(renewed: Renewed) -> RenewRefusal {
    match renewed {
        Renewed::Refused(refusal) => refusal,
        Renewed::Issued { .. } => panic!("issued"),
    }
}

/// An agent `a` that joined, and the kid of its first credential.
async fn joined(world: &World) -> (Party, Kid) {
    let invitation = world.invite("a").await;
    let (_, _, enrolled) = world.answered(&world.apply(&invitation)).await;
    (invitation.party, enrolled)
}

#[tokio::test]
async fn a_renewal_counts_up_and_is_repeated_as_it_was() {
    let world = World::of(fixture!("control")).await;
    let (party, enrolled) = joined(&world).await;
    let keystore = &world.keystore;
    let first = renewal(&party, enrolled, 1, 1);
    let (second_credential, again) = issued(keystore.renew_agent(&first).await.unwrap());
    assert_eq!((second_credential.epoch, again), (2, false));
    assert_eq!(second_credential.signing, Some(first.signing));
    let (same, again) = issued(keystore.renew_agent(&first).await.unwrap());
    assert_eq!((&same, again), (&second_credential, true));
    let second = renewal(&party, second_credential.kid, 2, 2);
    let (credential, _) = issued(keystore.renew_agent(&second).await.unwrap());
    assert_eq!(credential.epoch, 3);
    // Out of order: refused, and nobody is punished.
    let stale = denied(keystore.renew_agent(&first).await.unwrap());
    assert_eq!(stale, RenewRefusal::Stale(party.clone()));
    let ahead = renewal(&party, credential.kid, 4, 4);
    let ahead = denied(keystore.renew_agent(&ahead).await.unwrap());
    assert_eq!(ahead, RenewRefusal::Ahead(party));
    assert!(world.revoked().await.is_empty());
    let shown = keystore.show_agent("a").await.unwrap();
    let epochs: Vec<_> = shown.credentials.iter().map(|c| c.credential.epoch).collect();
    assert_eq!((epochs, shown.counter), (vec![3, 2, 1], 2));
}

#[tokio::test]
async fn peers_hear_of_a_renewed_credential_when_its_agent_has_it() {
    let world = World::of(fixture!("control")).await;
    let (party, enrolled) = joined(&world).await;
    let keystore = &world.keystore;
    let told = async || keystore.credential(&agent("a")).await.unwrap().kid;
    let (next, _) = issued(keystore.renew_agent(&renewal(&party, enrolled, 1, 1)).await.unwrap());
    assert_eq!(told().await, enrolled);
    let other = Party::new(party.principal.clone(), 7);
    assert!(keystore.confirm_renewal(&other, next.kid).await.is_err());
    assert!(!keystore.confirm_renewal(&party, Kid([9; 8])).await.unwrap());
    assert_eq!(told().await, enrolled);
    assert!(keystore.confirm_renewal(&party, next.kid).await.unwrap());
    assert!(!keystore.confirm_renewal(&party, next.kid).await.unwrap());
    assert_eq!(told().await, next.kid);
    match keystore.peer(&agent("a"), &component("control")).await.unwrap() {
        PeerKeys::Pair(credential) => assert_eq!(credential.kid, next.kid),
        PeerKeys::Shared(pair) => panic!("{pair:?}"),
    }
    // One that is never confirmed counts when the one before is over.
    let end = next.validity.not_after;
    world.at(end - 86_400);
    let (last, _) = issued(keystore.renew_agent(&renewal(&party, next.kid, 2, 2)).await.unwrap());
    assert_eq!(told().await, next.kid);
    world.at(end - 1);
    assert_eq!(told().await, next.kid);
    world.at(end);
    assert_eq!(told().await, last.kid);
}

#[tokio::test]
async fn a_clone_is_noticed_when_both_renew_and_both_are_cut_off() {
    for behind in [false, true] {
        let world = World::of(fixture!("control")).await;
        let (party, enrolled) = joined(&world).await;
        let mut kids = vec![enrolled];
        let mut counts = vec![1];
        if behind {
            // One copy renewed twice before the other came.
            counts.push(2);
        }
        for counter in counts {
            let asked = renewal(&party, *kids.last().unwrap(), counter, 1);
            let (credential, _) = issued(world.keystore.renew_agent(&asked).await.unwrap());
            kids.push(credential.kid);
        }
        let clone = renewal(&party, enrolled, 1, 9);
        let refusal = denied(world.keystore.renew_agent(&clone).await.unwrap());
        assert!(refusal.is_alarm());
        assert_eq!(refusal, RenewRefusal::Cloned(party.clone()));
        let newest = *kids.last().unwrap();
        kids.sort_unstable();
        assert_eq!(world.revoked().await, kids);
        assert_eq!(world.state("a").await, Some(JoinState::Quarantined { alarms: 1 }));
        // Neither gets another.
        for next in [1, 2, 3] {
            let asked = renewal(&party, newest, next, 1);
            let refusal = denied(world.keystore.renew_agent(&asked).await.unwrap());
            assert_eq!(refusal, RenewRefusal::Gone(party.clone()));
        }
    }
}

#[tokio::test]
async fn a_credential_that_was_followed_gets_no_other_whatever_counter_it_says() {
    let world = World::of(fixture!("control")).await;
    let (party, enrolled) = joined(&world).await;
    issued(world.keystore.renew_agent(&renewal(&party, enrolled, 1, 1)).await.unwrap());
    let thief = renewal(&party, enrolled, 2, 2);
    let refusal = denied(world.keystore.renew_agent(&thief).await.unwrap());
    assert_eq!(refusal, RenewRefusal::Cloned(party));
    assert_eq!(world.state("a").await, Some(JoinState::Quarantined { alarms: 1 }));
    assert_eq!(world.revoked().await.len(), 2);
}

#[tokio::test]
async fn an_agent_that_was_off_for_long_comes_back_with_a_token_and_goes_on_counting() {
    let world = World::of(fixture!("control")).await;
    let (party, enrolled) = joined(&world).await;
    let (second, _) =
        issued(world.keystore.renew_agent(&renewal(&party, enrolled, 1, 1)).await.unwrap());
    let half_hour = Duration::from_secs(1800);
    let again = world.keystore.invite_agent("a", Suite::X25519, half_hour, true).await;
    assert!(matches!(again, Err(KeystoreError::StillGood { .. })), "{again:?}");
    let end = second.validity.not_after;
    world.at(end);
    // Its keys are no good any more, for nothing.
    let late = world.keystore.renew_agent(&renewal(&party, second.kid, 2, 2)).await;
    assert!(late.is_err(), "{late:?}");
    let back = world.keystore.invite_agent("a", Suite::X25519, half_hour, true).await.unwrap();
    assert_eq!(back.party, party);
    assert_eq!(world.state("a").await, Some(JoinState::Invited { until: end + 1800 }));
    let application = world.apply(&back);
    let (_, _, kid) = world.answered(&application).await;
    let credential = world.keystore.credential(&agent("a")).await.unwrap();
    assert_eq!((credential.kid, credential.epoch), (kid, 3));
    assert_eq!(world.keystore.show_agent("a").await.unwrap().counter, 2);
    let (next, _) = issued(world.keystore.renew_agent(&renewal(&party, kid, 3, 3)).await.unwrap());
    assert_eq!(next.epoch, 4);
    assert!(world.revoked().await.is_empty());
}

#[tokio::test]
async fn who_has_not_joined_or_is_gone_renews_nothing() {
    let world = World::of(fixture!("control")).await;
    let invitation = world.invite("a").await;
    let party = invitation.party.clone();
    let asked = renewal(&party, Kid([1; 8]), 1, 1);
    let error = world.keystore.renew_agent(&asked).await.unwrap_err();
    assert!(matches!(error, KeystoreError::NoCredential(_)), "{error}");
    let (_, _, enrolled) = world.answered(&world.apply(&invitation)).await;
    world.keystore.remove_agent("a").await.unwrap();
    let asked = renewal(&party, enrolled, 1, 1);
    let refusal = denied(world.keystore.renew_agent(&asked).await.unwrap());
    assert_eq!(refusal, RenewRefusal::Gone(party));
}

#[tokio::test]
async fn who_was_revoked_by_name_or_by_key_renews_nothing() {
    for by_key in [false, true] {
        let world = World::of(fixture!("control")).await;
        let (party, enrolled) = joined(&world).await;
        let (second, _) =
            issued(world.keystore.renew_agent(&renewal(&party, enrolled, 1, 1)).await.unwrap());
        if by_key {
            // An older key, which its thief could renew with.
            world.keystore.revoke_kid(enrolled).await.unwrap();
        } else {
            world.keystore.revoke_principal(&agent("a")).await.unwrap();
        }
        for counter in [1, 2] {
            let asked = renewal(&party, second.kid, counter, 1);
            let asked = world.keystore.renew_agent(&asked).await;
            assert_eq!(denied(asked.unwrap()), RenewRefusal::Gone(party.clone()));
        }
    }
}
