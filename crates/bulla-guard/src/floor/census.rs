//! What was seen of one peer since the census was last written down. Bounded: a peer that invents
//! methods has them counted together.

use bulla_seal::{Level, Party};

use super::CensusRow;

/// Methods that one peer has rows of its own for.
pub const MAX_METHODS: usize = 32;
/// The row of all others.
pub const OTHER_METHODS: &str = "*";

/// The counts of one peer.
#[derive(Debug, Default)]
pub(super) struct Seen {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    method: String,
    level: Level,
    count: u64,
    last: u64,
    below: u64,
    last_below: u64,
}

impl Seen {
    pub(super) fn note(&mut self, method: &str, level: Level, now: u64, below: bool) {
        let at = |rows: &[Row], method: &str| {
            rows.iter().position(|row| row.level == level && row.method == method)
        };
        let found = at(&self.rows, method).or_else(|| {
            let full = self.rows.len() >= MAX_METHODS;
            let method = if full { OTHER_METHODS } else { method };
            at(&self.rows, method).or_else(|| {
                let method = method.to_owned();
                self.rows.push(Row { method, level, count: 0, last: 0, below: 0, last_below: 0 });
                self.rows.len().checked_sub(1)
            })
        });
        let Some(row) = found.and_then(|at| self.rows.get_mut(at)) else { return };
        row.count += 1;
        row.last = row.last.max(now);
        if below {
            row.below += 1;
            row.last_below = row.last_below.max(now);
        }
    }

    /// Takes out what was counted; the rows stay for the next messages.
    pub(super) fn take(&mut self, peer: &Party, into: &mut Vec<CensusRow>) {
        for row in self.rows.iter_mut().filter(|row| row.count > 0) {
            into.push(CensusRow {
                peer: peer.clone(),
                method: row.method.clone(),
                level: row.level,
                count: std::mem::take(&mut row.count),
                last: row.last,
                below: std::mem::take(&mut row.below),
                last_below: row.last_below,
            });
        }
    }

    /// Puts back what could not be written down.
    pub(super) fn put_back(&mut self, taken: &CensusRow) {
        let same = |row: &&mut Row| row.level == taken.level && row.method == taken.method;
        if let Some(row) = self.rows.iter_mut().find(same) {
            row.count += taken.count;
            row.below += taken.below;
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.count == 0)
    }
}

#[cfg(test)]
mod tests {
    use bulla_seal::Principal;

    use super::*;

    #[test]
    fn a_peer_that_invents_methods_takes_no_more_room() {
        let peer = Party::new(Principal::agent("a").unwrap(), 1);
        let mut seen = Seen::default();
        for n in 0..1000 {
            seen.note(&format!("m{n}"), Level::Sealed, 5, false);
        }
        seen.note("m1", Level::Signed, 6, true);
        let mut rows = vec![];
        seen.take(&peer, &mut rows);
        assert_eq!(rows.len(), MAX_METHODS + 2);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 1001);
        let below: Vec<_> = rows.iter().filter(|row| row.below > 0).collect();
        let [row] = below[..] else { panic!("{below:?}") };
        assert_eq!((row.method.as_str(), row.level, row.last_below), ("*", Level::Signed, 6));
        assert!(seen.is_clean());
        seen.put_back(row);
        let mut again = vec![];
        seen.take(&peer, &mut again);
        assert_eq!(again, vec![row.clone()]);
    }
}
