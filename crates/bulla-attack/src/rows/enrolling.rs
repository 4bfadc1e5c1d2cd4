//! Joining: copied join files, and requests that somebody made up or altered.

use bulla_keystore::JoinState;
use bulla_seal::mutants::Check;
use bulla_seal::{OsRandom, Principal, Secret};

use super::{CALLS, PAIR, play};
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::world::{Desk, Stage};

const ID: &str = "newcomer";
const OTHER_KINDS: &str = "a request to join is a message of its own kind; it is tried once";
const OTHER_KEY: &str = "a shared key comes with its file: nothing is asked";

/// Longer than a join file is good for, in seconds.
const LATER: i64 = 2 * 3600;

pub(super) const USED_TWICE: Row = Row {
    id: "N01-token-used-twice",
    tries: "join with a copy of a join file whose agent has joined already",
    incident: "class: bootstrap secrets that stay good (a config drive or an image is readable for as long as the machine lives)",
    expected: "enrol-token-reused; the agent is quarantined, because nobody knows which of the two is the agent",
    kinds: CALLS,
    other_kinds: OTHER_KINDS,
    keys: PAIR,
    other_key: OTHER_KEY,
    red: &[&[Check::TokenOnce]],
    run: play!(used_twice),
};

async fn used_twice(world: Stage) -> Result<Seen, Trouble> {
    let desk = Desk::open(&world).await?;
    let invited = desk.invite(&world, ID).await?;
    let honest = desk.apply(&world, &invited, &invited.token)?;
    desk.join(&world.bus.honest(), &honest).await?;
    let copy = desk.apply(&world, &invited, &invited.token)?;
    let seen = desk.knock(&world, &copy, "enrol-token-reused").await?;
    if !matches!(seen, Seen::Held(_)) {
        return Ok(seen);
    }
    match desk.keystore.join_state(ID).await? {
        Some(JoinState::Quarantined { .. }) => Ok(seen),
        other => Ok(Seen::Unexpected(format!("{seen:?}, but its state is {other:?}"))),
    }
}

pub(super) const GUESSED: Row = Row {
    id: "N02-token-guessed",
    tries: "join with the id of a token that was seen on the bus, and a secret of one's own",
    incident: "class: enrolment by name alone (Salt and Puppet with auto-signing: whoever asks first gets the name)",
    expected: "enrol-invalid",
    kinds: CALLS,
    other_kinds: OTHER_KINDS,
    keys: PAIR,
    other_key: OTHER_KEY,
    red: &[&[Check::TokenProof, Check::TokenBound]],
    run: play!(guessed),
};

async fn guessed(world: Stage) -> Result<Seen, Trouble> {
    let desk = Desk::open(&world).await?;
    let invited = desk.invite(&world, ID).await?;
    let mut guess = invited.token.clone();
    guess.secret = Secret::generate(&mut OsRandom::default())?;
    let request = desk.apply(&world, &invited, &guess)?;
    desk.knock(&world, &request, "enrol-invalid").await
}

pub(super) const ALTERED: Row = Row {
    id: "N03-request-altered",
    tries: "alter a request to join on its way, so that the token is bound to something that its agent never sent",
    incident: "class: malleable requests (Trove's AES-CBC: flipped bits stay unnoticed)",
    expected: "enrol-invalid, each time; the agent joins all the same",
    kinds: CALLS,
    other_kinds: OTHER_KINDS,
    keys: PAIR,
    other_key: OTHER_KEY,
    red: &[&[Check::TokenProof]],
    run: play!(altered),
};

async fn altered(world: Stage) -> Result<Seen, Trouble> {
    let desk = Desk::open(&world).await?;
    let invited = desk.invite(&world, ID).await?;
    let request = desk.apply(&world, &invited, &invited.token)?;
    let mark = world.mark(&desk.peer);
    let whole = request.request();
    // In the proof, in what is sealed, in the encapsulated key: a token is looked up only so often.
    let places = [whole.len() - 1, whole.len() - 60, 40];
    for place in places {
        let mut bytes = whole.to_vec();
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1;
        }
        world.inject(&desk.address(), bytes).await?;
    }
    let refused = || {
        let count = desk.peer.refusals().get("enrol-invalid").copied().unwrap_or_default();
        count - mark.refused("enrol-invalid") == places.len() as u64
    };
    let all = world.until(refused).await;
    if let Err(error) = desk.join(&world.bus.honest(), &request).await {
        return Ok(Seen::GotThrough(format!("the agent could not join any more: {error}")));
    }
    Ok(if all {
        Seen::Held(format!("enrol-invalid × {}", places.len()))
    } else {
        Seen::Unexpected(format!("{:?}", desk.peer.refusals()))
    })
}

pub(super) const EXPIRED: Row = Row {
    id: "N04-token-expired",
    tries: "join with a join file that was never used, found after its time",
    incident: "class: bootstrap secrets that stay good (join tokens without an end)",
    expected: "enrol-token-expired",
    kinds: CALLS,
    other_kinds: OTHER_KINDS,
    keys: PAIR,
    other_key: OTHER_KEY,
    red: &[&[Check::TokenExpiry]],
    run: play!(expired),
};

async fn expired(world: Stage) -> Result<Seen, Trouble> {
    let desk = Desk::open(&world).await?;
    world.clock.set(-LATER);
    let invited = desk.invite(&world, ID).await?;
    world.clock.set(0);
    let request = desk.apply(&world, &invited, &invited.token)?;
    let seen = desk.knock(&world, &request, "enrol-token-expired").await?;
    // Nobody joined.
    let joined = desk.keystore.credential(&Principal::agent(ID)?).await.is_ok();
    Ok(match seen {
        Seen::Held(_) if joined => Seen::GotThrough("a credential was issued".to_owned()),
        seen => seen,
    })
}
