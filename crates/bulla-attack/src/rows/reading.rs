//! Reading what passes.

use bulla_seal::mutants::Check;

use super::{BOTH, NONE, REQUESTS, play};
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::world::{SECRET_ARGUMENT, Stage};

pub(super) const ARGUMENTS: Row = Row {
    id: "E01-read-arguments",
    tries: "read the arguments of a request (a user's new password) from a copy of the queue",
    incident: "plain oslo.messaging: user passwords and tokens of every request readable by any \
               broker login (OpenStack Security Guide, messaging case study)",
    expected: "no secret on the bus",
    kinds: REQUESTS,
    other_kinds: "a reply has results: E02",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::Encryption]],
    run: play!(arguments),
};

async fn arguments(world: Stage) -> Result<Seen, Trouble> {
    let taken = world.take().await?;
    Ok(look(&[&taken.sent.payload], &[SECRET_ARGUMENT]))
}

/// Whether one of the words stands in one of the messages.
pub(super) fn look(messages: &[&[u8]], words: &[&str]) -> Seen {
    for word in words {
        let needle = word.as_bytes();
        let stands = |message: &&&[u8]| message.windows(needle.len()).any(|part| part == needle);
        if messages.iter().any(|message| stands(&message)) {
            return Seen::GotThrough(format!("read `{word}` on the bus"));
        }
    }
    Seen::Held("no secret on the bus".to_owned())
}
