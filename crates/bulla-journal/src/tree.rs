//! The Merkle tree of RFC 6962 (section 2.1), of which only the right edge is kept.

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};

/// What is hashed at once, in bytes; nearly every record is shorter.
const SHORT: usize = 1024;

/// A node's hash.
pub(crate) type Hash = [u8; 32];

/// The roots of the complete subtrees that a tree of this size is made of, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    size: u64,
    frontier: Vec<Hash>,
}

impl Tree {
    /// A tree from what was kept of it; `None` if that is not one of this size.
    pub(crate) fn from_frontier(size: u64, frontier: Vec<Hash>) -> Option<Self> {
        (u64::from(size.count_ones()) == frontier.len() as u64).then_some(Self { size, frontier })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn frontier(&self) -> &[Hash] {
        &self.frontier
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, entry: &[u8]) {
        let mut hash = leaf(entry);
        // Each complete subtree on the right joins with one of its own size.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.frontier.pop() {
                hash = node(&left, &hash);
            }
        }
        self.frontier.push(hash);
        self.size += 1;
    }

    pub(crate) fn root(&self) -> Hash {
        let mut from_right = self.frontier.iter().rev();
        let Some(last) = from_right.next() else { return sha256(&[]) };
        from_right.fold(*last, |right, left| node(left, &right))
    }
}

fn leaf(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// Records are short: put together, they are hashed at once, without a context on the heap.
pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let (mut buffer, mut at) = ([0; SHORT], 0);
    for part in parts {
        let Some(to) = buffer.get_mut(at..).and_then(|rest| rest.get_mut(..part.len())) else {
            return sha256_of_long(parts);
        };
        to.copy_from_slice(part);
        at += part.len();
    }
    hash(&digest(&SHA256, buffer.get(..at).unwrap_or_default()))
}

fn sha256_of_long(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    hash(&context.finish())
}

fn hash(digest: &Digest) -> Hash {
    let mut out = [0; 32];
    out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962's definition, word for word.
    fn by_definition(entries: &[Vec<u8>]) -> Hash {
        match entries {
            [] => sha256(&[]),
            [only] => leaf(only),
            _ => {
                let at = entries.len().next_power_of_two() / 2;
                let (left, right) = entries.split_at(at);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn the_edge_gives_the_root_that_the_rfc_defines() {
        let mut tree = Tree::default();
        let mut entries = Vec::new();
        for n in 0..130_u32 {
            assert_eq!(tree.root(), by_definition(&entries), "{n}");
            let again = Tree::from_frontier(tree.size(), tree.frontier().to_vec());
            assert_eq!(again.as_ref(), Some(&tree));
            let entry = format!("entry {n}").into_bytes();
            tree.push(&entry);
            entries.push(entry);
        }
        assert!(Tree::from_frontier(3, vec![[0; 32]]).is_none());
    }

    #[test]
    fn short_and_long_are_hashed_alike() {
        let bytes: Vec<u8> = (0..3000).map(|n| (n % 251) as u8).collect();
        for length in [0, 1, 64, SHORT - 1, SHORT, SHORT + 1, 3000] {
            let (one, two) = bytes[..length].split_at(length / 3);
            assert_eq!(sha256(&[one, two]), sha256_of_long(&[&bytes[..length]]), "{length}");
        }
    }

    #[test]
    fn known_answers() {
        // From the tests of certificate transparency logs: the empty tree, and the empty leaf.
        let hex = |hash: Hash| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut tree = Tree::default();
        assert_eq!(
            hex(tree.root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        tree.push(b"");
        assert_eq!(
            hex(tree.root()),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        tree.push(b"\0");
        assert_eq!(
            hex(tree.root()),
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
        );
    }
}
