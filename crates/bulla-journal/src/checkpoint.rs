//! Signed checkpoints: C2SP tlog-checkpoint, a signed note of three lines.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use crate::key::{PublicKey, SigningKey};
use crate::tree::{Hash, Tree};

/// What begins a signature's line: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// A checkpoint that is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NoCheckpoint {
    #[error("it is not in the form of a checkpoint")]
    Malformed,
    #[error("it is signed by others than `{0}`")]
    NotSigned(String),
    #[error("its signature is forged, or it was altered")]
    Forged,
}

/// How many records a journal had, and the root of the tree of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which journal.
    pub origin: String,
    /// How many records.
    pub size: u64,
    /// The Merkle tree's root (RFC 6962, section 2.1).
    pub root: [u8; 32],
}

impl Checkpoint {
    pub(crate) fn of(origin: &str, tree: &Tree) -> Self {
        Self { origin: origin.to_owned(), size: tree.size(), root: tree.root() }
    }

    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root))
    }

    /// The signed note.
    pub(crate) fn sign(&self, key: &SigningKey) -> String {
        let text = self.text();
        let mut signature = key.public().id().to_vec();
        signature.extend(key.sign(text.as_bytes()));
        format!("{text}\n{DASH}{} {}\n", key.public().name(), BASE64.encode(signature))
    }

    /// Opens a signed note that `key` signed. Other signatures in it (of witnesses) are left alone.
    pub(crate) fn open(note: &str, key: &PublicKey) -> Result<Self, NoCheckpoint> {
        let at = note.rfind("\n\n").ok_or(NoCheckpoint::Malformed)?;
        let (text, signatures) = note.split_at_checked(at + 1).ok_or(NoCheckpoint::Malformed)?;
        let signatures = signatures.strip_prefix('\n').ok_or(NoCheckpoint::Malformed)?;
        if !signatures.ends_with('\n') {
            return Err(NoCheckpoint::Malformed);
        }
        let lines: Option<Vec<_>> =
            signatures.lines().map(|line| line.strip_prefix(DASH)?.split_once(' ')).collect();
        let lines = lines.filter(|lines| !lines.is_empty()).ok_or(NoCheckpoint::Malformed)?;
        let mine = lines.iter().filter(|(name, _)| *name == key.name());
        let mut decoded = mine.filter_map(|(_, text)| BASE64.decode(text).ok());
        let signature = decoded.find_map(|bytes| Some(bytes.strip_prefix(&key.id())?.to_vec()));
        let signature = signature.ok_or_else(|| NoCheckpoint::NotSigned(key.to_string()))?;
        if !key.verifies(text.as_bytes(), &signature) {
            return Err(NoCheckpoint::Forged);
        }
        Self::read(text).ok_or(NoCheckpoint::Malformed)
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let root: Hash = BASE64.decode(root).ok()?.try_into().ok()?;
        let read = Self { origin: origin.to_owned(), size: size.parse().ok()?, root };
        // One way to write it, and no more lines: this program signs no others.
        (!origin.is_empty() && read.text() == text).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_opens_with_its_key_and_unaltered() {
        let (key, _) = SigningKey::generate("example.org/journal").unwrap();
        let (other, _) = SigningKey::generate("example.org/journal").unwrap();
        let mut tree = Tree::default();
        tree.push(b"record");
        let checkpoint = Checkpoint::of("example.org/journal/control", &tree);
        let note = checkpoint.sign(&key);
        let lines: Vec<_> = note.lines().collect();
        assert_eq!(lines[..2], ["example.org/journal/control", "1"]);
        assert!(lines[3].is_empty() && lines[4].starts_with("— example.org/journal "));
        assert_eq!(Checkpoint::open(&note, key.public()), Ok(checkpoint.clone()));
        assert!(matches!(Checkpoint::open(&note, other.public()), Err(NoCheckpoint::NotSigned(_))));
        let larger = note.replacen("\n1\n", "\n2\n", 1);
        assert_eq!(Checkpoint::open(&larger, key.public()), Err(NoCheckpoint::Forged));
        // A witness's signature beside it is none of our business.
        let line = checkpoint.sign(&other).lines().last().unwrap().to_owned();
        assert_eq!(Checkpoint::open(&format!("{note}{line}\n"), key.public()), Ok(checkpoint));
        for broken in ["", "\n\n", "a\n1\nb\n\n", &note[..note.len() - 1]] {
            assert_eq!(Checkpoint::open(broken, key.public()), Err(NoCheckpoint::Malformed));
        }
    }
}
