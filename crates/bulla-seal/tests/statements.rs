//! Statements and exemptions: what is signed comes back, and nothing else is taken.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use bulla_seal::exemption::{MAX_EXEMPTION_LIFE, MAX_METHOD};
use bulla_seal::sign::{SignatureUse, sign1};
use bulla_seal::statement::{MAX_GROUPS, MAX_LOWEST, MAX_REVOKED, MAX_STATEMENT, claimed_epoch};
use bulla_seal::*;
use common::*;

fn many(revoked: usize, lowest: usize) -> Statement {
    let principal = |n: usize| Principal::agent(&format!("{n:064}")).unwrap();
    let kid = |n: usize| Kid((n as u64).to_be_bytes());
    Statement {
        revoked: (0..revoked).map(|n| Revoked { kid: kid(n), until: u64::MAX }).collect(),
        lowest: (0..lowest)
            .map(|n| Lowest {
                principal: principal(n),
                incarnation: u32::MAX,
                credential_epoch: u32::MAX,
                pair_epoch: u32::MAX,
            })
            .collect(),
        groups: (0..MAX_GROUPS)
            .map(|n| (GroupName::new(&format!("{n:064}")).unwrap(), u32::MAX))
            .collect(),
        ..empty_statement()
    }
}

#[test]
fn what_is_signed_comes_back() {
    let world = World::new();
    // The largest that there may be fits where it has to.
    for statement in [empty_statement(), full_statement(), many(MAX_REVOKED, MAX_LOWEST)] {
        let signed = world.revocation.state(&statement).unwrap();
        assert!(signed.as_bytes().len() <= MAX_STATEMENT);
        assert_eq!(claimed_epoch(signed.as_bytes()), Ok(statement.epoch));
        let read = world.trust.verify_statement(signed.as_bytes()).unwrap();
        assert_eq!(read, signed);
        assert_eq!(*read, statement);
    }
    let signed = world.operator.exempt(&exemption()).unwrap();
    assert_eq!(world.trust.verify_exemption(signed.as_bytes()).unwrap(), signed);
    assert_eq!(*signed, exemption());
    for (active, shadow) in [(None, None), (Some(vec![1; 2000]), None), (None, Some(vec![]))] {
        let document = PolicyDocument { active, shadow, ..policy() };
        let signed = world.operator.hand_out(&document).unwrap();
        assert_eq!(world.trust.verify_policy(signed.as_bytes()).unwrap(), signed);
        assert_eq!(*signed, document);
    }
}

fn policy() -> PolicyDocument {
    let (active, shadow) = (Some(vec![7; 40]), Some(vec![8; 30]));
    PolicyDocument { sequence: 9, version: 2, issued_at: NOW.secs(), active, shadow }
}

#[test]
fn a_policy_that_is_not_well_formed_is_not_made() {
    let world = World::new();
    let refused = |document| world.operator.hand_out(&document).unwrap_err();
    assert_eq!(refused(PolicyDocument { sequence: 0, ..policy() }), Refusal::PolicyInvalid);
    for issued_at in [LIFE.not_before - 1, LIFE.not_after + 1] {
        assert_eq!(refused(PolicyDocument { issued_at, ..policy() }), Refusal::PolicyInvalid);
    }
    let large = Some(vec![0; policy::MAX_POLICY]);
    assert_eq!(refused(PolicyDocument { active: large, ..policy() }), Refusal::TooLarge);
    // What another of the operator's signatures says is no policy.
    let exemption = world.operator.exempt(&exemption()).unwrap();
    assert_eq!(world.trust.verify_policy(exemption.as_bytes()), Err(Refusal::PolicyInvalid));
}

#[test]
fn any_flipped_bit_and_any_cut_is_refused() {
    let world = World::new();
    let statement = world.revocation.state(&full_statement()).unwrap();
    let exemption = world.operator.exempt(&exemption()).unwrap();
    let document = world.operator.hand_out(&policy()).unwrap();
    let refused = |bytes: &[u8]| {
        assert!(world.trust.verify_policy(bytes).is_err());
        assert!(world.trust.verify_statement(bytes).is_err());
        assert!(world.trust.verify_exemption(bytes).is_err());
    };
    for good in [statement.as_bytes(), exemption.as_bytes(), document.as_bytes()] {
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            refused(&bad);
        }
        (0..good.len()).for_each(|len| refused(&good[..len]));
        refused(&[good, &[0][..]].concat());
    }
}

#[test]
fn only_the_issuer_with_the_right_is_heard() {
    let world = World::new();
    let issuers = [&world.agents, &world.components, &world.revocation, &world.operator];
    for issuer in issuers {
        let right = issuer.credential().right;
        let states = issuer.state(&full_statement());
        assert_eq!(states.is_ok(), right == IssuerRight::Revocation, "{right:?}");
        let exempts = issuer.exempt(&exemption());
        assert_eq!(exempts.is_ok(), right == IssuerRight::Exemptions, "{right:?}");
        let hands_out = issuer.hand_out(&policy());
        assert_eq!(hands_out.is_ok(), right == IssuerRight::Exemptions, "{right:?}");
    }
    // One that was signed all the same, with the right form and the wrong right.
    let statement = world.revocation.state(&full_statement()).unwrap();
    let payload = payload(statement.as_bytes());
    let key = SigningKey::from_seed(Secret::new([0xf2; 32])).unwrap();
    let kid = Some(world.operator.credential().kid);
    let forged = sign1(SignatureUse::Statement, &key, kid, &payload);
    assert_eq!(world.trust.verify_statement(&forged), Err(Refusal::StatementInvalid));
    // And the right issuer's signature for another use.
    let key = SigningKey::from_seed(Secret::new([0xe2; 32])).unwrap();
    let kid = Some(world.revocation.credential().kid);
    let other_use = sign1(SignatureUse::Credential, &key, kid, &payload);
    assert_eq!(world.trust.verify_statement(&other_use), Err(Refusal::StatementInvalid));
    let same = sign1(SignatureUse::Statement, &key, kid, &payload);
    assert_eq!(&same, statement.as_bytes(), "the test signs as the issuer does");
    // Another root's issuers are nobody's.
    let stranger = TrustStore::new(world.domain.clone(), *world.trust.root());
    assert!(stranger.verify_statement(&same).is_err());
}

fn payload(signed: &[u8]) -> Vec<u8> {
    sign::Unverified::parse(signed).unwrap().dangerous_payload().to_vec()
}

#[test]
fn a_statement_that_is_not_well_formed_is_not_made_and_not_taken() {
    let world = World::new();
    let mut wrong: Vec<(&str, Statement)> = vec![];
    let mut change = |what, change: &dyn Fn(&mut Statement)| {
        let mut statement = full_statement();
        change(&mut statement);
        wrong.push((what, statement));
    };
    change("epoch 0", &|s| s.epoch = 0);
    change("longer than an hour", &|s| s.not_after = s.issued_at + 3601);
    change("no life", &|s| s.not_after = s.issued_at);
    change("ends before it began", &|s| s.not_after = s.issued_at - 1);
    change("kids out of order", &|s| s.revoked.reverse());
    change("a kid twice", &|s| s.revoked[1].kid = s.revoked[0].kid);
    change("principals out of order", &|s| s.lowest.reverse());
    change("a principal twice", &|s| s.lowest[1].principal = s.lowest[0].principal.clone());
    change("incarnation 0", &|s| s.lowest[0].incarnation = 0);
    change("groups out of order", &|s| s.groups.reverse());
    change("a group twice", &|s| s.groups[1].0 = s.groups[0].0.clone());
    change("too many kids", &|s| s.revoked = many(MAX_REVOKED + 1, 0).revoked);
    change("too many principals", &|s| s.lowest = many(0, MAX_LOWEST + 1).lowest);
    change("before its issuer", &|s| {
        s.issued_at = LIFE.not_before - 1;
        s.not_after = s.issued_at + 60;
    });
    change("longer than its issuer", &|s| {
        s.issued_at = LIFE.not_after - 60;
        s.not_after = LIFE.not_after + 1;
    });
    for (what, statement) in wrong {
        assert_eq!(world.revocation.state(&statement), Err(Refusal::StatementInvalid), "{what}");
        let signed = forge_statement(&world, &statement);
        let taken = world.trust.verify_statement(&signed);
        assert_eq!(taken, Err(Refusal::StatementInvalid), "{what}");
    }
    let good = forge_statement(&world, &full_statement());
    assert!(world.trust.verify_statement(&good).is_ok(), "the test encodes as the issuer does");
}

/// Signed by the right key although it would not sign it.
fn forge_statement(world: &World, s: &Statement) -> bytes::Bytes {
    let mut payload = Vec::new();
    let mut w = cbor::Writer::new(&mut payload);
    w.array(7);
    [1, s.epoch, s.issued_at, s.not_after].into_iter().for_each(|n| w.uint(n));
    w.array(s.revoked.len());
    for revoked in &s.revoked {
        w.array(2);
        w.bytes(revoked.kid.as_bytes());
        w.uint(revoked.until);
    }
    w.array(s.lowest.len());
    for lowest in &s.lowest {
        w.array(4);
        w.text(lowest.principal.as_str());
        let epochs = [lowest.incarnation, lowest.credential_epoch, lowest.pair_epoch];
        epochs.into_iter().for_each(|n| w.uint(n.into()));
    }
    w.array(s.groups.len());
    for (group, epoch) in &s.groups {
        w.array(2);
        w.text(group.as_str());
        w.uint((*epoch).into());
    }
    let key = SigningKey::from_seed(Secret::new([0xe2; 32])).unwrap();
    sign1(SignatureUse::Statement, &key, Some(world.revocation.credential().kid), &payload)
}

#[test]
fn an_exemption_that_is_not_well_formed_is_not_made() {
    let world = World::new();
    let change = |change: &dyn Fn(&mut Exemption)| {
        let mut exemption = exemption();
        change(&mut exemption);
        world.operator.exempt(&exemption)
    };
    let wrong: [&dyn Fn(&mut Exemption); 7] = [
        &|e| e.method = String::new(),
        &|e| e.method = "x".repeat(MAX_METHOD + 1),
        &|e| e.peer.incarnation = 0,
        &|e| e.until = e.not_before,
        &|e| e.until = e.not_before + MAX_EXEMPTION_LIFE + 1,
        &|e| e.not_before = LIFE.not_before - 1,
        &|e| e.until = LIFE.not_after + 1,
    ];
    for change_one in wrong {
        assert_eq!(change(change_one), Err(Refusal::ExemptionInvalid));
    }
    assert!(change(&|e| e.method = "x".repeat(MAX_METHOD)).is_ok());
}

#[test]
fn a_frame_carries_one_statement_and_nothing_else_in_its_place() {
    let world = World::new();
    let control = Party::new(Principal::component("control").unwrap(), 1);
    let agent = Party::new(Principal::agent("db-1").unwrap(), 1);
    let session = shared::session(Kid([1; 8]), &Secret::new([7; 32]), control, agent.clone());
    let route = Route::new("bulla", "agent.db-1", None, Audience::Party(agent)).unwrap();
    let spec = RequestSpec {
        kind: MessageKind::Cast,
        route: &route,
        expires: NOW.secs() + 60,
        protection: Protection::Sealed,
    };
    let hedge = Hedge { random: [3; 16], now: NOW, counter: 1, boot: [4; 16] };
    let mut buf = MessageBuf::with_capacity(64);
    let body = RequestBody {
        namespace: None,
        method: "ping",
        version: "1.0",
        args: &[0xa0],
        context: None,
        trace_parent: None,
        reply_to: None,
    };
    body.write(buf.sink());
    let frame = session.seal_request(&spec, &hedge, buf).unwrap().into_frame(None);
    let statement = world.revocation.state(&full_statement()).unwrap();
    let parse = |bytes: bytes::Bytes| Parsed::parse(bytes, DEFAULT_MAX_FRAME);

    let with = parse(frame.with(None, Some(statement.as_bytes()))).unwrap();
    assert_eq!(with.statement(), Some(&statement.as_bytes()[..]));
    assert_eq!((with.offer(), with.digest()), (None, frame.digest()));
    assert_eq!(frame.with(None, None), *frame.bytes());
    let same = frame.clone().with_statement(statement.as_bytes());
    assert_eq!(*same.bytes(), frame.with(None, Some(statement.as_bytes())));
    assert_eq!(same.with_statement(&[0xf6]).bytes(), frame.bytes());
    for wrong in [&[0x00][..], &[0x40], &[0x80], &[0xd2, 0x80], &[0xf7], &[0xf6, 0xf6]] {
        assert_eq!(parse(frame.with(None, Some(wrong))).unwrap_err(), Refusal::Malformed);
    }
    let key = SigningKey::from_seed(Secret::new([1; 32])).unwrap();
    let long = sign1(SignatureUse::Statement, &key, None, &vec![0; MAX_STATEMENT]);
    assert_eq!(parse(frame.with(None, Some(&long))).unwrap_err(), Refusal::TooLarge);
}
