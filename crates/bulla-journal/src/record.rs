//! The lines of a journal: records, and the checkpoints between them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::checkpoint::{Checkpoint, NoCheckpoint};
use crate::instant::Clock;
use crate::key::{PublicKey, SigningKey};
use crate::schema::{Event, decimal, quoted};
use crate::tree::{Hash, Tree, sha256};

/// What a record's line ends with: its chain value, 16 bytes in hexadecimal.
const CHAIN: &[u8] = b",\"chain\":\"";
const END: &[u8] = b"\"}";
const TAIL: usize = CHAIN.len() + 32 + END.len();
/// What a checkpoint's line begins with.
pub(crate) const CHECKPOINT: &[u8] = b"{\"checkpoint\":";

/// Where a journal stands: the tree of its records, and the chain since the last checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct State {
    tree: Tree,
    chain: [u8; 16],
}

impl Default for State {
    fn default() -> Self {
        Self::at(Tree::default())
    }
}

impl State {
    /// After a checkpoint: the chain goes on from the tree's root.
    fn at(tree: Tree) -> Self {
        let chain = first_half(&tree.root());
        Self { tree, chain }
    }

    pub(crate) fn size(&self) -> u64 {
        self.tree.size()
    }

    fn link(&self, body: &[u8]) -> [u8; 16] {
        first_half(&sha256(&[&[2], &self.chain, body]))
    }

    /// Writes a record's line.
    pub(crate) fn record(
        &mut self,
        out: &mut Vec<u8>,
        clock: &mut Clock,
        time: u64,
        event: &Event,
    ) {
        let begin = out.len();
        out.extend_from_slice(b"{\"seq\":");
        decimal(out, self.tree.size());
        out.extend_from_slice(b",\"time\":\"");
        clock.write(out, time);
        out.extend_from_slice(b"\",\"event\":\"");
        out.extend_from_slice(event.name().as_bytes());
        out.extend_from_slice(b"\",\"class\":\"");
        out.extend_from_slice(event.class().as_str().as_bytes());
        out.push(b'"');
        event.fields(out);
        self.chain = self.link(out.get(begin..).unwrap_or_default());
        out.extend_from_slice(CHAIN);
        out.extend_from_slice(&hex(&self.chain));
        out.extend_from_slice(END);
        self.tree.push(out.get(begin..).unwrap_or_default());
        out.push(b'\n');
    }

    /// Takes over a record's line (without its end) that is in its place here.
    pub(crate) fn take_record(&mut self, line: &[u8]) -> Result<(), Fault> {
        let at = line.len().checked_sub(TAIL).ok_or(Fault::Malformed)?;
        let (body, tail) = line.split_at_checked(at).ok_or(Fault::Malformed)?;
        let chain = tail.strip_prefix(CHAIN).and_then(|tail| tail.strip_suffix(END));
        let chain = chain.ok_or(Fault::Malformed)?;
        let seq = seq(body).ok_or(Fault::Malformed)?;
        if seq != self.tree.size() {
            return Err(Fault::Sequence { found: seq, expected: self.tree.size() });
        }
        let link = self.link(body);
        if chain != hex(&link) {
            return Err(Fault::Chain { seq });
        }
        self.chain = link;
        self.tree.push(line);
        Ok(())
    }

    /// Signs where the journal stands, and writes that as a line; the note alone is returned.
    pub(crate) fn checkpoint(
        &mut self,
        out: &mut Vec<u8>,
        origin: &str,
        key: &SigningKey,
    ) -> String {
        let note = Checkpoint::of(origin, &self.tree).sign(key);
        checkpoint_line(out, &note, &self.tree);
        out.push(b'\n');
        *self = Self::at(self.tree.clone());
        note
    }

    /// Goes on after a checkpoint that is where it should be.
    pub(crate) fn take_checkpoint(&mut self, read: &Signed) -> Result<(), Fault> {
        let Checkpoint { size, root, .. } = read.checkpoint;
        if size != self.tree.size() {
            return Err(Fault::CheckpointSize { signed: size, found: self.tree.size() });
        }
        if root != self.tree.root() || read.tree != self.tree {
            return Err(Fault::Root { size });
        }
        *self = Self::at(self.tree.clone());
        Ok(())
    }
}

/// A checkpoint's line that is signed, and whose tree is the one that is signed.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: String,
    tree: Tree,
}

impl Signed {
    /// Reads a line, without its end.
    pub(crate) fn read(line: &[u8], key: &PublicKey) -> Result<Self, Fault> {
        let value: serde_json::Value =
            serde_json::from_slice(line).map_err(|_| Fault::Malformed)?;
        let note =
            value.get("checkpoint").and_then(|note| note.as_str()).ok_or(Fault::Malformed)?;
        let checkpoint = Checkpoint::open(note, key).map_err(Fault::Checkpoint)?;
        let hash = |value: &serde_json::Value| BASE64.decode(value.as_str()?).ok()?.try_into().ok();
        let frontier = value.get("frontier").and_then(|frontier| frontier.as_array());
        let frontier: Option<Vec<Hash>> = frontier.and_then(|list| list.iter().map(hash).collect());
        let tree = frontier.and_then(|list| Tree::from_frontier(checkpoint.size, list));
        let tree = tree.ok_or(Fault::Malformed)?;
        if tree.root() != checkpoint.root {
            return Err(Fault::Frontier { size: checkpoint.size });
        }
        let mut again = Vec::with_capacity(line.len());
        checkpoint_line(&mut again, note, &tree);
        if again != line {
            return Err(Fault::Malformed);
        }
        Ok(Self { note: note.to_owned(), checkpoint, tree })
    }

    /// The journal as it stood then.
    pub(crate) fn state(&self) -> State {
        State::at(self.tree.clone())
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it is neither a record nor a checkpoint as this program writes them: it was altered")]
    Malformed,
    #[error(
        "record {expected} should stand here, and it is record {found}: records were cut out, put in or re-ordered"
    )]
    Sequence { found: u64, expected: u64 },
    #[error(
        "record {seq} does not follow from what is before it: it was altered, or what was before it was cut out or re-ordered"
    )]
    Chain { seq: u64 },
    #[error("this checkpoint is not good: {0}")]
    Checkpoint(NoCheckpoint),
    #[error("this checkpoint signs {signed} records, and there are {found} before it")]
    CheckpointSize { signed: u64, found: u64 },
    #[error("the {size} records up to this checkpoint are not the ones that it signs")]
    Root { size: u64 },
    #[error("what this checkpoint at {size} records keeps of the tree is not what it signs")]
    Frontier { size: u64 },
}

fn checkpoint_line(out: &mut Vec<u8>, note: &str, tree: &Tree) {
    out.extend_from_slice(CHECKPOINT);
    quoted(out, note);
    out.extend_from_slice(b",\"frontier\":[");
    for (at, hash) in tree.frontier().iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        quoted(out, &BASE64.encode(hash));
    }
    out.extend_from_slice(b"]}");
}

/// The number that a record says it has.
fn seq(body: &[u8]) -> Option<u64> {
    let rest = body.strip_prefix(b"{\"seq\":")?;
    let digits = rest.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn first_half(hash: &Hash) -> [u8; 16] {
    let mut out = [0; 16];
    out.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    out
}

fn hex(bytes: &[u8; 16]) -> [u8; 32] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut out = [0; 32];
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    out.iter_mut().zip(nibbles).for_each(|(to, nibble)| *to = digit(nibble));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::events::{AgentRevoked, EventsLost};
    use bulla_seal::Principal;

    #[test]
    fn every_event_is_json_with_its_fields_and_its_chain() {
        let (mut state, mut clock, mut out) = (State::default(), Clock::default(), Vec::new());
        let agent = Principal::agent("db-1").unwrap();
        state.record(&mut out, &mut clock, 1_000_000_007, &AgentRevoked { agent }.into());
        let lost = EventsLost { lost: 3, why: "\"disk\"\nfull".into() };
        state.record(&mut out, &mut clock, 1_000_000_008, &lost.into());
        let lines: Vec<serde_json::Value> = out
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines[0]["agent"], "agent/db-1");
        assert_eq!(lines[0]["time"], "1970-01-01T00:00:01.000000007Z");
        assert_eq!(lines[1]["seq"], 1);
        assert_eq!(lines[1]["why"], "\"disk\" full");
        assert_eq!(lines[1]["chain"].as_str().unwrap().len(), 32);
    }
}
