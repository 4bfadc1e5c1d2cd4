//! Revoked keys, old statements, and names that are used again.

use bulla_rpc::{Clock, Identity};
use bulla_seal::mutants::Check;
use bulla_seal::{
    Issuer, IssuerCredential, IssuerRight, OsRandom, Party, Revoked, SignedStatement, SigningKey,
    Statement, SuiteSet,
};

use super::posing::make_method;
use super::{BOTH, DIRECT, FANOUT, NONE, REQUESTS, play};
use crate::cell::KeyType;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::wire::Parts;
use crate::world::{Expected, PeerOptions, Stage, World, a_day};

/// A statement that revokes these kids.
fn statement(
    world: &World,
    by: &Issuer,
    epoch: u64,
    revoked: Vec<Revoked>,
) -> Result<SignedStatement, Trouble> {
    let now = world.clock.now().secs();
    let statement = Statement {
        epoch,
        issued_at: now,
        not_after: now + 3000,
        revoked,
        lowest: vec![],
        groups: vec![],
    };
    Ok(by.state(&statement)?)
}

/// The intruder's own key ids, revoked.
fn mallory_revoked(world: &World) -> Vec<Revoked> {
    let until = world.clock.now().secs() + 10 * 86_400;
    let mut kids: Vec<_> = world.mallory.pairs.lock().iter().map(|pair| pair.kid).collect();
    kids.extend(world.mallory.keys.signing.as_ref().map(|(_, credential)| credential.kid));
    kids.sort_by_key(|kid| kid.0);
    kids.into_iter().map(|kid| Revoked { kid, until }).collect()
}

async fn speak(world: &World, name: &'static str) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, world, now)?;
    let payload = make_method(world, &own, now, "work")?;
    let mark = world.mark(&world.control);
    world.inject(&world.address_of(&world.control.keys), payload).await?;
    world.judge(&mark, &world.control, Expected::refused(name, 1)).await
}

pub(super) const REVOKED: Row = Row {
    id: "V01-revoked-key",
    tries: "speak with an agent's key after it was revoked",
    incident: "class: stolen keys that stay good (Salt and Ansible: a minion's or a controller's key works until somebody deletes it everywhere)",
    expected: "revoked",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies are judged alike",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Revoked]],
    run: play!(revoked),
};

async fn revoked(world: Stage) -> Result<Seen, Trouble> {
    let statement = statement(&world, &world.authority.revocation, 7, mallory_revoked(&world))?;
    world.control.endpoint.take_statement(statement.as_bytes())?;
    speak(&world, "revoked").await
}

pub(super) const STALE_STATEMENT: Row = Row {
    id: "V02-stale-statement",
    tries: "hand an older statement of revocation to a receiver, to bring a revoked key back",
    incident: "class: replayed revocation lists (a stale CRL or OCSP answer)",
    expected: "the newer one stands: revoked",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; statements are judged alike wherever they stand",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::StatementEpoch]],
    run: play!(stale_statement),
};

async fn stale_statement(world: Stage) -> Result<Seen, Trouble> {
    let issuer = &world.authority.revocation;
    let newer = statement(&world, issuer, 7, mallory_revoked(&world))?;
    let older = statement(&world, issuer, 6, vec![])?;
    world.control.endpoint.take_statement(newer.as_bytes())?;
    carry(&world, older.as_bytes(), "revoked").await
}

/// A message of the intruder's that carries a statement.
async fn carry(world: &World, statement: &[u8], name: &'static str) -> Result<Seen, Trouble> {
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, world, now)?;
    let parts = Parts::of(&make_method(world, &own, now, "work")?)?;
    let forged = Parts { statement: Some(statement.to_vec()), ..parts };
    let mark = world.mark(&world.control);
    world.inject(&world.address_of(&world.control.keys), forged.frame()).await?;
    world.judge(&mark, &world.control, Expected::refused(name, 1)).await
}

pub(super) const FORGED_STATEMENT: Row = Row {
    id: "V03-forged-statement",
    tries: "revoke an honest agent's key with a statement that the intruder signed itself",
    incident: "class: revocation as a weapon (whoever can revoke can shut down)",
    expected: "statement-invalid; the agent goes on",
    kinds: DIRECT,
    other_kinds: "statements are judged alike wherever they stand",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::StatementSignature]],
    run: play!(forged_statement),
};

async fn forged_statement(world: Stage) -> Result<Seen, Trouble> {
    let key = SigningKey::generate(&mut OsRandom::default())?;
    let pretended = IssuerCredential {
        right: IssuerRight::Revocation,
        key: key.verifying_key(),
        ..world.authority.revocation.credential().clone()
    };
    let forger = Issuer::new(key, pretended)?;
    let until = world.clock.now().secs() + 10 * 86_400;
    let mut kids: Vec<_> = world.agent.directory.kids();
    kids.extend(world.agent.keys.signing.as_ref().map(|(_, credential)| credential.kid));
    kids.sort_by_key(|kid| kid.0);
    let revoked = kids.into_iter().map(|kid| Revoked { kid, until }).collect();
    let forged = statement(&world, &forger, 9, revoked)?;
    // The message itself is the intruder's own, and may run.
    let now = world.clock.now();
    let own = world.mallory.session(&world.control, &world, now)?;
    let parts = Parts::of(&make_method(&world, &own, now, "work")?)?;
    let message = Parts { statement: Some(forged.as_bytes().to_vec()), ..parts };
    let mark = world.mark(&world.control);
    world.inject(&world.address_of(&world.control.keys), message.frame()).await?;
    let expected = Expected::refused("statement-invalid", 1).runs(1).answers(1);
    world.judge(&mark, &world.control, expected).await
}

pub(super) const WITHHELD_STATEMENT: Row = Row {
    id: "V04-withheld-statements",
    tries: "keep every statement from an agent, and order it about with a component's key that it should know to be revoked",
    incident: "class: soft-fail revocation (browsers take a certificate when OCSP is unreachable)",
    expected: "statement-missing, until it hears one",
    kinds: REQUESTS,
    other_kinds: "agents believe answers alike",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::StatementCurrent]],
    run: play!(withheld_statement),
};

async fn withheld_statement(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take_from(&world.control.again(None)?, "work").await?;
    taken.call.inspect(|call| call.abort());
    world.stop_agent().await;
    let victim = world.agent.with_identity(Identity::requiring_statement)?;
    world.serve(&victim, &PeerOptions::default()).await?;
    let mark = world.mark(&victim);
    world.inject(&taken.sent.to, taken.sent.payload).await?;
    let expected = Expected::refused("statement-missing", 1);
    world.judge_without_health(&mark, &victim, expected).await
}

pub(super) const REUSED_NAME: Row = Row {
    id: "V05-re-used-name",
    tries: "with the keys of an agent that was removed, speak under its name after that was given to another",
    incident: "Trove: the key of a deleted instance is still accepted",
    expected: "epoch-stale (shared key: session-unknown)",
    kinds: DIRECT,
    other_kinds: "agents send no fanouts; replies are judged alike",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Epoch], &[Check::Revoked]],
    run: play!(reused_name),
};

async fn reused_name(world: Stage) -> Result<Seen, Trouble> {
    if world.cell.key == KeyType::Shared {
        // The statement says which incarnation is the lowest; the key id is looked up no more.
        let statement = lowest(&world, 2)?;
        world.control.endpoint.take_statement(statement.as_bytes())?;
        return speak(&world, "epoch-stale").await;
    }
    let now = world.clock.now();
    let party = Party::new(world.mallory.keys.party.principal.clone(), 2);
    let again = world.authority.agent_again(party, a_day(now), world.suite(), SuiteSet::all())?;
    let own = world.open_as(&again, &world.control, now)?;
    let payload = make_method(&world, &own, now, "health")?;
    let counters = world.control.endpoint.counters();
    let before = counters.offers.get();
    world.inject(&world.address_of(&world.control.keys), payload).await?;
    world.until(|| counters.offers.get() > before).await;
    tokio::time::sleep(world.moment()).await;
    speak(&world, "epoch-stale").await
}

fn lowest(world: &World, incarnation: u32) -> Result<SignedStatement, Trouble> {
    let now = world.clock.now().secs();
    let statement = Statement {
        epoch: 7,
        issued_at: now,
        not_after: now + 3000,
        revoked: vec![],
        lowest: vec![bulla_seal::statement::Lowest {
            principal: world.mallory.keys.party.principal.clone(),
            incarnation,
            credential_epoch: 1,
            pair_epoch: 1,
        }],
        groups: vec![],
    };
    Ok(world.authority.revocation.state(&statement)?)
}

pub(super) const OLD_GROUP_EPOCH: Row = Row {
    id: "V06-old-group-epoch",
    tries: "deliver a fanout of a group's old epoch, whose key a removed member still has, after the new epoch was stated",
    incident: "class: old group keys that stay good (Kite's key generations; a member that left)",
    expected: "epoch-stale",
    kinds: FANOUT,
    other_kinds: "it is about groups",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::GroupEpoch]],
    run: play!(old_group_epoch),
};

async fn old_group_epoch(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    let now = world.clock.now().secs();
    let statement = Statement {
        epoch: 7,
        issued_at: now,
        not_after: now + 3000,
        revoked: vec![],
        lowest: vec![],
        groups: vec![(world.group.group.clone(), 2)],
    };
    let statement = world.authority.revocation.state(&statement)?;
    world.agent.endpoint.take_statement(statement.as_bytes())?;
    let mark = world.mark(&world.agent);
    world.inject(&taken.sent.to, taken.sent.payload).await?;
    world.judge(&mark, &world.agent, Expected::refused("epoch-stale", 1)).await
}
