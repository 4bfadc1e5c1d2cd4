//! Enrolment by token: what is applied for comes back, to the applicant alone, and nothing else is
//! taken by either side.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use bulla_seal::enrol::*;
use bulla_seal::*;
use bytes::Bytes;
use common::*;

struct Scene {
    world: World,
    control: Component,
    party: Party,
    token: JoinToken,
}

impl Scene {
    fn new(suite: Suite) -> Self {
        let mut world = World::new();
        let control = world.component("control", suite);
        let party = Party::new(Principal::agent("db-1").unwrap(), 2);
        let token = JoinToken::generate(&mut world.random).unwrap();
        Self { world, control, party, token }
    }

    fn apply_with(&mut self, token: &JoinToken, party: &Party, suite: Suite) -> Application {
        let signing = SigningKey::generate(&mut self.world.random).unwrap();
        let kem = KemSecretKey::generate(suite, &mut self.world.random).unwrap();
        let applicant = Applicant {
            domain: &self.world.domain,
            party,
            token,
            enroller: &self.control.audience,
        };
        applicant.apply(signing, kem, NOW, &mut self.world.random).unwrap()
    }

    fn apply(&mut self) -> Application {
        let (token, party) = (self.token.clone(), self.party.clone());
        self.apply_with(&token, &party, Suite::X25519)
    }

    fn open(&self, bytes: &[u8]) -> Result<Opened, Refusal> {
        let own = (&**self.control.audience, &self.control.kem);
        Request::parse(bytes)?.open(&self.world.domain, (&self.party, &self.token), own)
    }

    fn credential(&mut self, opened: &Opened) -> Credential {
        let mut credential = self.world.credential(opened.agent());
        credential.signing = Some(*opened.signing());
        credential.kem = Some(opened.kem().clone());
        credential
    }

    fn answer_with(&mut self, credential: Bytes) -> Answer {
        Answer {
            credential,
            issuers: self.world.trust.issuers().map(|(_, bytes)| bytes.clone()).collect(),
            peers: vec![self.control.audience.as_bytes().clone()],
        }
    }

    fn answer(&mut self, opened: &Opened) -> Bytes {
        let credential = self.credential(opened);
        let issued = self.world.agents.issue(&credential).unwrap();
        let answer = self.answer_with(issued.as_bytes().clone());
        opened.answer(&answer, NOW, &mut self.world.random).unwrap()
    }

    fn root(&self) -> TrustStore {
        TrustStore::new(self.world.domain.clone(), *self.world.trust.root())
    }
}

#[test]
fn an_applicant_gets_its_credential() {
    for (enroller, own) in [
        (Suite::X25519, Suite::X25519),
        (Suite::XWing, Suite::X25519),
        (Suite::X25519, Suite::XWing),
        (Suite::XWing, Suite::XWing),
    ] {
        let mut scene = Scene::new(enroller);
        let (token, party) = (scene.token.clone(), scene.party.clone());
        let application = scene.apply_with(&token, &party, own);
        assert!(application.request().len() <= MAX_REQUEST);
        let opened = scene.open(application.request()).unwrap();
        assert_eq!(opened.agent(), &party);
        assert_eq!(*opened.signing(), application.parts().signing.verifying_key());
        assert_eq!(opened.kem(), application.parts().kem.public());
        let answer = scene.answer(&opened);
        let enrolled = application.open_answer(&answer, &scene.root(), NOW).unwrap();
        assert_eq!(enrolled.credential.party, party);
        assert_eq!(enrolled.trust.issuers().count(), 4);
        assert_eq!(enrolled.peers, [scene.control.audience.as_bytes().clone()]);
    }
}

#[test]
fn an_application_that_was_kept_takes_its_answer() {
    let mut scene = Scene::new(Suite::X25519);
    let application = scene.apply();
    let opened = scene.open(application.request()).unwrap();
    let answer = scene.answer(&opened);
    let parts = application.parts();
    let again = Application::from_parts(ApplicationParts {
        party: parts.party.clone(),
        domain: parts.domain.clone(),
        signing: parts.signing.clone(),
        kem: parts.kem.clone(),
        request: parts.request.clone(),
        answer_key: parts.answer_key.clone(),
    });
    assert!(again.open_answer(&answer, &scene.root(), NOW).is_ok());
}

#[test]
fn any_flipped_bit_and_any_cut_is_refused() {
    let mut scene = Scene::new(Suite::X25519);
    let application = scene.apply();
    let request = application.request().clone();
    let opened = scene.open(&request).unwrap();
    let answer = scene.answer(&opened);
    let root = scene.root();
    let refused = |name: &str, good: &[u8], open: &dyn Fn(&[u8]) -> bool| {
        assert!(open(good));
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!open(&bad), "{name}, bit {bit}");
        }
        for len in 0..good.len() {
            assert!(!open(&good[..len]), "{name}, {len} bytes");
        }
        assert!(!open(&[good, &[0]].concat()), "{name}, one byte more");
    };
    refused("request", &request, &|bytes| scene.open(bytes).is_ok());
    refused("answer", &answer, &|bytes| application.open_answer(bytes, &root, NOW).is_ok());
}

#[test]
fn only_the_token_that_was_given_opens_anything() {
    let mut scene = Scene::new(Suite::X25519);
    // Its name is seen on the bus; its secret is not.
    let other = JoinToken::generate(&mut scene.world.random).unwrap();
    let guess = JoinToken { id: scene.token.id, secret: other.secret.clone() };
    let party = scene.party.clone();
    let forged = scene.apply_with(&guess, &party, Suite::X25519);
    assert_eq!(scene.open(forged.request()).unwrap_err(), Refusal::NotAuthentic);
    let request = Request::parse(forged.request()).unwrap();
    assert!(request.check_proof(&scene.token.verifier()).is_err());
    // Another's token.
    let theirs = scene.apply_with(&other, &party, Suite::X25519);
    assert!(scene.open(theirs.request()).is_err());
    // The proof of a good one on what somebody else sealed.
    let good = scene.apply();
    let (mut mixed, proof) = (forged.request().to_vec(), good.request().len() - 32);
    let at = mixed.len() - 32;
    mixed[at..].copy_from_slice(&good.request()[proof..]);
    assert_eq!(scene.open(&mixed).unwrap_err(), Refusal::NotAuthentic);
}

#[test]
fn a_proof_is_not_enough_without_the_secret() {
    // Who has what the keystore keeps of a used token.
    let mut scene = Scene::new(Suite::X25519);
    let party = scene.party.clone();
    let guess = JoinToken { id: scene.token.id, secret: Secret::new([1; 32]) };
    let forged = scene.apply_with(&guess, &party, Suite::X25519);
    // The same items, with a proof under the right verifier: what open() sees of such a request.
    let lying = JoinToken { id: scene.token.id, secret: guess.secret.clone() };
    let own = (&**scene.control.audience, &scene.control.kem);
    let request = Request::parse(forged.request()).unwrap();
    assert!(request.open(&scene.world.domain, (&party, &lying), own).is_ok());
    assert!(request.open(&scene.world.domain, (&party, &scene.token), own).is_err());
    assert!(!lying.verifier().expose().ct_eq(&lying.secret));
}

#[test]
fn another_agent_incarnation_domain_or_enroller_is_refused() {
    let mut scene = Scene::new(Suite::X25519);
    let token = scene.token.clone();
    for party in [
        Party::new(Principal::agent("db-2").unwrap(), 2),
        Party::new(Principal::agent("db-1").unwrap(), 1),
    ] {
        let application = scene.apply_with(&token, &party, Suite::X25519);
        assert!(scene.open(application.request()).is_err(), "{party}");
    }
    let application = scene.apply();
    let request = Request::parse(application.request()).unwrap();
    let (agent, own) = ((&scene.party, &scene.token), &scene.control);
    let elsewhere = TrustDomain::new("other.example").unwrap();
    assert!(request.open(&elsewhere, agent, (&own.audience, &own.kem)).is_err());
    // Another component, and another key of the same one.
    let other = scene.world.component("conductor", Suite::X25519);
    let wrong = request.open(&scene.world.domain, agent, (&other.audience, &other.kem));
    assert_eq!(wrong.unwrap_err(), Refusal::AudienceMismatch);
    let mut posing = Credential::clone(&scene.control.audience);
    posing.party = other.party.clone();
    assert!(request.open(&scene.world.domain, agent, (&posing, &own.kem)).is_err());
    assert!(request.open(&scene.world.domain, agent, (&own.audience, &other.kem)).is_err());
    // Of another suite than the key.
    let xwing = scene.world.component("x", Suite::XWing);
    let refused = request.open(&scene.world.domain, agent, (&own.audience, &xwing.kem));
    assert_eq!(refused.unwrap_err(), Refusal::SuiteNotAllowed);
    assert!(request.open(&scene.world.domain, agent, (&own.audience, &own.kem)).is_ok());
}

#[test]
fn an_answer_is_for_one_request() {
    let mut scene = Scene::new(Suite::X25519);
    let (first, second) = (scene.apply(), scene.apply());
    let (one, two) = (scene.open(first.request()).unwrap(), scene.open(second.request()).unwrap());
    let (answer, other) = (scene.answer(&one), scene.answer(&two));
    let root = scene.root();
    let refused = first.open_answer(&other, &root, NOW).unwrap_err();
    assert_eq!(refused, Refusal::ReplyMismatch);
    // Named as if it were for this request.
    let mut moved = other.to_vec();
    moved[4..36].copy_from_slice(&answer[4..36]);
    assert_eq!(first.open_answer(&moved, &root, NOW).unwrap_err(), Refusal::NotAuthentic);
    // A request is no answer, and an answer no request.
    assert!(first.open_answer(first.request(), &root, NOW).is_err());
    assert!(scene.open(&answer).is_err());
    assert!(first.open_answer(&answer, &root, NOW).is_ok());
}

#[test]
fn an_agent_believes_no_credential_but_its_own_under_its_own_root() {
    let mut scene = Scene::new(Suite::X25519);
    let application = scene.apply();
    let opened = scene.open(application.request()).unwrap();
    let good = scene.credential(&opened);
    let root = scene.root();
    let stranger = scene.world.agent("db-1", Suite::X25519);
    type Change<'a> = &'a dyn Fn(&mut Credential);
    let cases: [(&str, Change<'_>); 4] = [
        ("incarnation", &|c| c.party.incarnation = 1),
        ("name", &|c| c.party.principal = Principal::agent("db-2").unwrap()),
        ("signing key", &|c| c.signing = stranger.credential.signing),
        ("KEM key", &|c| c.kem = stranger.credential.kem.clone()),
    ];
    for (name, change) in cases {
        let mut credential = good.clone();
        change(&mut credential);
        let issued = scene.world.agents.issue(&credential).unwrap().as_bytes().clone();
        let answer = scene.answer_with(issued);
        let sealed = opened.answer(&answer, NOW, &mut scene.world.random).unwrap();
        assert!(application.open_answer(&sealed, &root, NOW).is_err(), "{name}");
    }
    // Another root, a peer that nobody vouches for, and no issuer.
    let issued = scene.world.agents.issue(&good).unwrap().as_bytes().clone();
    let right = scene.answer_with(issued.clone());
    let other_root = SigningKey::generate(&mut Counting(9_000)).unwrap().verifying_key();
    let wrong_root = TrustStore::new(scene.world.domain.clone(), other_root);
    let sealed = opened.answer(&right, NOW, &mut scene.world.random).unwrap();
    assert!(application.open_answer(&sealed, &root, NOW).is_ok());
    assert!(application.open_answer(&sealed, &wrong_root, NOW).is_err());
    let mut altered = scene.control.audience.as_bytes().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    let wrong = Answer { peers: vec![altered.into()], ..right.clone() };
    let sealed = opened.answer(&wrong, NOW, &mut scene.world.random).unwrap();
    assert!(application.open_answer(&sealed, &root, NOW).is_err());
    let mut issuers = right.issuers.clone();
    let mut unsigned = issuers[3].to_vec();
    *unsigned.last_mut().unwrap() ^= 1;
    issuers[3] = unsigned.into();
    // Nobody is believed whom the file's root did not sign; a later root may have.
    let wrong = Answer { issuers, ..right.clone() };
    let sealed = opened.answer(&wrong, NOW, &mut scene.world.random).unwrap();
    let enrolled = application.open_answer(&sealed, &root, NOW).unwrap();
    assert_eq!(enrolled.trust.issuers().count(), 3);
    let none = Answer { issuers: vec![], ..right };
    let sealed = opened.answer(&none, NOW, &mut scene.world.random).unwrap();
    assert!(application.open_answer(&sealed, &root, NOW).is_err());
}

#[test]
fn two_answers_never_share_a_nonce() {
    let mut scene = Scene::new(Suite::X25519);
    let application = scene.apply();
    let opened = scene.open(application.request()).unwrap();
    let credential = scene.credential(&opened);
    let nonce = |scene: &mut Scene, at: UnixTime, epoch: u32| {
        let credential = Credential { epoch, ..credential.clone() };
        let issued = scene.world.agents.issue(&credential).unwrap().as_bytes().clone();
        let answer = scene.answer_with(issued);
        // The random source repeats itself.
        opened.answer(&answer, at, &mut Counting(5)).unwrap()[37..53].to_vec()
    };
    let first = nonce(&mut scene, NOW, 1);
    assert_eq!(first, nonce(&mut scene, NOW, 1));
    assert_ne!(first, nonce(&mut scene, NOW, 2));
    assert_ne!(first, nonce(&mut scene, UnixTime::from_ns(NOW.ns + 1), 1));
}

#[test]
fn nothing_secret_is_printed() {
    let mut scene = Scene::new(Suite::X25519);
    scene.token.secret = Secret::new([0x42; 32]);
    let application = scene.apply();
    let opened = scene.open(application.request()).unwrap();
    let shown = format!("{:?} {:?} {opened:?}", scene.token, scene.token.verifier());
    assert!(!shown.contains("42, 42") && !shown.contains("66, 66"), "{shown}");
}
