//! What happened, so that somebody can tell afterwards: events that are declared once, and a journal
//! of them that can't be altered unnoticed.
//!
//! An event ([`schema`]) is emitted through [`Events`], which counts it, tells it in the log, and
//! gives it to a [`Sink`]: the [`Journal`], or a [`Recorder`] in a test.
//!
//! # The journal
//!
//! A folder with one writer. Records are lines of JSON, in files that follow one another:
//!
//! ```text
//! {"seq":7,"time":"2026-11-22T22:13:45.123456789Z","event":"agent-revoked","class":"key","agent":"agent/db-1","chain":"…"}
//! {"checkpoint":"example.org/journal/control\n8\n<root>\n\n— example.org/journal <signature>\n","frontier":["…"],"chain":"…"}
//! ```
//!
//! - Each record's `chain` is made of the one before and of the record itself, so that an accident
//!   shows at its place.
//! - Each record, as the line without its end, is a leaf of a Merkle tree (RFC 6962, section 2.1).
//!   A *checkpoint* (C2SP tlog-checkpoint, a signed note) has the tree's size and root, signed with
//!   Ed25519: what it covers can't be altered, cut out, put in or re-ordered by who has not the
//!   signing key.
//! - Each file begins with a checkpoint, so old files can go and the rest is verified all the same.
//! - The newest checkpoint is also alone in the file `checkpoint`. A copy of it that is kept
//!   elsewhere shows when the end of the journal was cut off, or all of it was replaced.
//!
//! [`verify`](verify::verify) needs the public key and nothing else.
//!
//! # What it is not
//!
//! Who controls the machine can alter what was recorded since the last checkpoint, and with the
//! signing key, which is on that machine, make another journal. It is caught by a checkpoint that
//! was copied elsewhere, up to that one.

mod checkpoint;
mod emit;
mod error;
mod instant;
mod key;
mod page;
mod read;
mod record;
pub mod schema;
mod segment;
mod tree;
pub mod verify;
mod writer;

pub use checkpoint::Checkpoint;
pub use emit::{Events, NoRoom, Recorder, Sink};
pub use error::{JournalError, KeyError};
pub use instant::{now_nanos, rfc3339};
pub use key::{PublicKey, SigningKey};
pub use page::page;
pub use read::{Entry, Part, Reader, next_seq, read_entries, read_part};
pub use schema::{Class, Event, Field, SCHEMA, Severity, Text, events};
pub use segment::{CHECKPOINT_FILE, is_journal, journals};
pub use writer::{Health, Journal, OnFull, Options, Status, Sync};
