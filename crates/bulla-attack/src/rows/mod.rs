//! The rows.

mod altering;
mod denying;
mod enrolling;
mod methods;
mod moving;
mod posing;
mod reading;
mod replaying;
mod replies;
mod revoking;
mod rooting;

use crate::cell::{KeyType, Kind};
use crate::row::Row;

/// Kinds that are requests.
const REQUESTS: &[Kind] = &[Kind::Call, Kind::Cast, Kind::Fanout];
/// Kinds that go to one receiver.
const DIRECT: &[Kind] = &[Kind::Call, Kind::Cast];
/// Fanouts.
const FANOUT: &[Kind] = &[Kind::Fanout];
/// Calls.
const CALLS: &[Kind] = &[Kind::Call];
/// Answers.
const ANSWERS: &[Kind] = &[Kind::Reply];
/// Key pairs.
const PAIR: &[KeyType] = &[KeyType::Pair];
/// All kinds.
const ALL: &[Kind] = &Kind::ALL;
/// Both key types.
const BOTH: &[KeyType] = &KeyType::ALL;
/// Where a column applies throughout.
const NONE: &str = "";

/// Has an async function play a row.
macro_rules! play {
    ($function:path) => {
        |stage| Box::pin($function(stage))
    };
}
use play;

/// Every row, in the order in which they are shown.
pub static ROWS: &[Row] = &[
    reading::ARGUMENTS,
    reading::RESULTS,
    reading::ERRORS,
    reading::SQUAT_QUEUE,
    reading::SQUAT_REPLIES,
    altering::PLAINTEXT,
    altering::FALLBACK,
    altering::BIT_FLIPS,
    altering::OFFER_FLIPS,
    altering::HEADER_SWAP,
    altering::METHOD,
    altering::LENGTHS,
    altering::NON_CANONICAL,
    altering::DUPLICATE_KEY,
    moving::OTHER_AGENT,
    moving::OTHER_HOST,
    moving::OTHER_TOPIC,
    moving::EXCHANGE,
    moving::KIND,
    posing::AGENT_AS_AGENT,
    posing::AGENT_AS_COMPONENT,
    posing::COMPONENT_AS_COMPONENT,
    posing::WRONG_ROOT,
    posing::WRONG_ISSUER,
    posing::EXPIRED,
    posing::NOT_YET,
    posing::STOLEN_KEM,
    posing::MEMBER_SIGNS,
    posing::MEMBER_AS_CONTROL,
    replies::WRONG_PARTY,
    replies::WRONG_REQUEST,
    replies::TWICE,
    replies::AFTER_ERROR,
    replies::IN_CLEAR,
    replies::REFLECT,
    replies::REDIRECT,
    replies::FORGED_NOTICE,
    replies::PROPERTIES,
    replaying::AT_ONCE,
    replaying::OTHER_WORKER,
    replaying::RESTART,
    replaying::TAKE_OVER,
    replaying::BEFORE_EXPIRY,
    replaying::HELD_BACK,
    replaying::CLOCK_BACK,
    replaying::FLAG,
    replaying::FLOOD_STORE,
    replaying::CLONE,
    replaying::FUTURE,
    replaying::LONG_LIFE,
    replaying::OFFER_WINDOW,
    posing::SUITE,
    posing::LEVEL,
    denying::UNKNOWN_KIDS,
    denying::FORGED_OFFERS,
    denying::HOARDING,
    denying::NOTICES,
    denying::NOTICE_REDIRECT,
    denying::OVERSIZED,
    denying::NESTED,
    denying::BOMBS,
    denying::POISON,
    denying::HELD,
    denying::GAP,
    revoking::REVOKED,
    revoking::STALE_STATEMENT,
    revoking::FORGED_STATEMENT,
    revoking::WITHHELD_STATEMENT,
    revoking::REUSED_NAME,
    revoking::OLD_GROUP_EPOCH,
    rooting::FORGED,
    rooting::UNASKED,
    rooting::REPLAYED,
    enrolling::USED_TWICE,
    enrolling::GUESSED,
    enrolling::ALTERED,
    enrolling::EXPIRED,
    methods::CLOSED,
    methods::LATERAL,
    methods::NAMES,
    methods::CANCEL_OTHERS,
];

/// The row with this id, or whose id begins with it up to a dash.
pub fn find(id: &str) -> Option<&'static Row> {
    let is = |row: &&Row| {
        row.id.eq_ignore_ascii_case(id)
            || row.id.split('-').next().is_some_and(|short| short.eq_ignore_ascii_case(id))
    };
    ROWS.iter().find(is)
}
