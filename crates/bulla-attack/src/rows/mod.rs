//! The rows.

mod altering;
mod moving;
mod reading;
mod replaying;

use crate::cell::{KeyType, Kind};
use crate::row::Row;

/// Kinds that are requests.
const REQUESTS: &[Kind] = &[Kind::Call, Kind::Cast, Kind::Fanout];
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
    altering::PLAINTEXT,
    altering::FALLBACK,
    altering::BIT_FLIPS,
    altering::HEADER_SWAP,
    altering::METHOD,
    moving::EXCHANGE,
    moving::KIND,
    replaying::AT_ONCE,
    replaying::FLAG,
];

/// The row with this id, or whose id begins with it up to a dash.
pub fn find(id: &str) -> Option<&'static Row> {
    let is = |row: &&Row| {
        row.id.eq_ignore_ascii_case(id)
            || row.id.split('-').next().is_some_and(|short| short.eq_ignore_ascii_case(id))
    };
    ROWS.iter().find(is)
}
