//! One signature for a burst of fanouts: a Merkle tree over them (RFC 9162's shape, with this
//! protocol's inputs), and the proof that each message carries.

use std::ops::Range;

use crate::cbor::{Reader, Writer};
use crate::fanout::MAX_BATCH;
use crate::id::{Digest, Kid};
use crate::refusal::Refusal;
use crate::sign::{SIGNATURE, SignatureUse};

/// Longest path: that of a tree of [`MAX_BATCH`].
pub(crate) const MAX_PATH: usize = 10;

/// What proves the signer of a fanout: a signature of its own, or one over a tree with the path
/// to it.
pub(crate) enum Proof<'a> {
    Alone([u8; SIGNATURE]),
    Batch { signature: [u8; SIGNATURE], size: usize, index: usize, path: Path<'a> },
}

/// The nodes of a path, as they stand in the message: at most [`MAX_PATH`].
#[derive(Clone)]
pub(crate) struct Path<'a> {
    nodes: Reader<'a>,
    count: usize,
}

impl Iterator for Path<'_> {
    type Item = [u8; 32];

    fn next(&mut self) -> Option<[u8; 32]> {
        self.count = self.count.checked_sub(1)?;
        self.nodes.fixed().ok()
    }
}

impl<'a> Proof<'a> {
    /// Reads a proof and nothing that is not exactly one.
    pub(crate) fn read(r: &mut Reader<'a>) -> Result<Self, Refusal> {
        let mut peek = r.clone();
        if peek.array(4).is_err() {
            return Ok(Self::Alone(r.fixed()?));
        }
        r.array(4)?;
        let signature = r.fixed()?;
        let small = |value: u64| usize::try_from(value).map_err(|_| Refusal::Malformed);
        let (size, index) = (small(r.uint()?)?, small(r.uint()?)?);
        let count = r.array_up_to(MAX_PATH)?;
        let path = Path { nodes: r.clone(), count };
        for _ in 0..count {
            r.fixed::<32>()?;
        }
        if size > MAX_BATCH || index >= size || count != depth_of(index, size) {
            return Err(Refusal::Malformed);
        }
        Ok(Self::Batch { signature, size, index, path })
    }
}

pub(crate) fn tree_to_sign(signer: Kid, size: usize, root: &[u8; 32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(72);
    let mut w = Writer::new(&mut out);
    w.array(4);
    w.text(SignatureUse::Tree.label());
    w.bytes(signer.as_bytes());
    w.uint(size as u64);
    w.bytes(root);
    out
}

pub(crate) fn leaf(to_sign: &[u8]) -> [u8; 32] {
    Digest::of_parts(&[&[0], to_sign]).0
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Digest::of_parts(&[&[1], left, right]).0
}

/// The largest power of two below `size` (which is at least 2).
fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

pub(crate) fn tree_root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => [0; 32],
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&tree_root(left), &tree_root(right))
        }
    }
}

/// The path of leaf `index`, from the leaf up.
pub(crate) fn tree_path(leaves: &[[u8; 32]], index: usize, path: &mut Vec<[u8; 32]>) {
    if leaves.len() < 2 {
        return;
    }
    let at = split(leaves.len());
    let (left, right) = leaves.split_at(at);
    if index < at {
        tree_path(left, index, path);
        path.push(tree_root(right));
    } else {
        tree_path(right, index - at, path);
        path.push(tree_root(left));
    }
}

/// How long the path of leaf `index` is in a tree of `size` leaves.
fn depth_of(index: usize, size: usize) -> usize {
    sides(index, size).count()
}

/// From the top down: whether leaf `index` of a tree of `size` leaves is on the left.
fn sides(index: usize, size: usize) -> impl Iterator<Item = bool> {
    let mut range: Range<usize> = 0..size;
    std::iter::from_fn(move || {
        if range.len() < 2 {
            return None;
        }
        let at = range.start + split(range.len());
        let on_left = index < at;
        range = if on_left { range.start..at } else { at..range.end };
        Some(on_left)
    })
}

/// The root that leaf `index` of a tree of `size` leaves has along `path`.
pub(crate) fn root_of(
    leaf: [u8; 32],
    index: usize,
    size: usize,
    path: impl Iterator<Item = [u8; 32]>,
) -> Result<[u8; 32], Refusal> {
    if size > MAX_BATCH || index >= size {
        return Err(Refusal::Malformed);
    }
    let mut down = [false; MAX_PATH];
    let depth = depth_of(index, size);
    down.iter_mut().zip(sides(index, size)).for_each(|(to, side)| *to = side);
    let up = down.get(..depth).ok_or(Refusal::Malformed)?.iter().rev();
    Ok(up.zip(path).fold(leaf, |below, (on_left, beside)| {
        if *on_left { node(&below, &beside) } else { node(&beside, &below) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_of_every_tree_has_its_path() {
        for size in 1..=33 {
            let leaves: Vec<_> = (0..size as u8).map(|i| leaf(&[i])).collect();
            let root = tree_root(&leaves);
            for index in 0..size {
                let mut path = Vec::new();
                tree_path(&leaves, index, &mut path);
                assert_eq!(path.len(), depth_of(index, size));
                let root_of = |leaf, index| root_of(leaf, index, size, path.iter().copied());
                assert_eq!(root_of(leaves[index], index), Ok(root));
                if size > 1 {
                    let other = (index + 1) % size;
                    assert_ne!(root_of(leaves[index], other), Ok(root));
                    assert_ne!(root_of(leaves[other], index), Ok(root));
                }
            }
        }
        assert!(root_of([0; 32], 0, 0, [].into_iter()).is_err());
        assert!(root_of([0; 32], 0, MAX_BATCH + 1, [].into_iter()).is_err());
    }
}
