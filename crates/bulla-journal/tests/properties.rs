//! Whatever is written verifies; whatever is altered does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;

use bulla_journal::Options;
use common::{Place, lines, options, write, write_lines};
use proptest::prelude::*;

/// What is done to a journal.
#[derive(Debug, Clone)]
enum Harm {
    Flip { file: prop::sample::Index, byte: prop::sample::Index, bit: u8 },
    FlipNote { byte: prop::sample::Index, bit: u8 },
    Drop { file: prop::sample::Index, line: prop::sample::Index },
    Swap { file: prop::sample::Index, one: prop::sample::Index, other: prop::sample::Index },
    Double { file: prop::sample::Index, line: prop::sample::Index },
    Cut { file: prop::sample::Index, at: prop::sample::Index },
    Lose { file: prop::sample::Index },
}

fn harm() -> impl Strategy<Value = Harm> {
    use prop::sample::Index;
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), index(), 0..8_u8).prop_map(|(file, byte, bit)| Harm::Flip { file, byte, bit }),
        1 => (index(), 0..8_u8).prop_map(|(byte, bit)| Harm::FlipNote { byte, bit }),
        2 => (index(), index()).prop_map(|(file, line)| Harm::Drop { file, line }),
        2 => (index(), index(), index()).prop_map(|(file, one, other)| Harm::Swap { file, one, other }),
        1 => (index(), index()).prop_map(|(file, line)| Harm::Double { file, line }),
        1 => (index(), index()).prop_map(|(file, at)| Harm::Cut { file, at }),
        1 => index().prop_map(|file| Harm::Lose { file }),
    ]
}

impl Harm {
    /// Whether that is another journal than before. (A file that was only begun may go.)
    fn done(&self, place: &Place) -> bool {
        let files = place.files();
        match self {
            Self::Flip { file, byte, bit } => {
                let file = file.get(&files);
                let mut bytes = fs::read(file).unwrap();
                let at = byte.index(bytes.len());
                bytes[at] ^= 1 << bit;
                fs::write(file, bytes).unwrap();
            }
            Self::FlipNote { byte, bit } => {
                let mut bytes = place.note().into_bytes();
                let at = byte.index(bytes.len());
                bytes[at] ^= 1 << bit;
                fs::write(place.log().join("checkpoint"), bytes).unwrap();
            }
            Self::Drop { file, line } => {
                let file = file.get(&files);
                let mut all = lines(file);
                all.remove(line.index(all.len()));
                write_lines(file, &all);
            }
            Self::Swap { file, one, other } => {
                let file = file.get(&files);
                let mut all = lines(file);
                let (one, other) = (one.index(all.len()), other.index(all.len()));
                if one == other {
                    return false;
                }
                all.swap(one, other);
                write_lines(file, &all);
            }
            Self::Double { file, line } => {
                let file = file.get(&files);
                let mut all = lines(file);
                let at = line.index(all.len());
                all.insert(at, all[at].clone());
                write_lines(file, &all);
            }
            Self::Cut { file, at } => {
                let file = file.get(&files);
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..at.index(bytes.len())]).unwrap();
            }
            Self::Lose { file } => {
                let file = file.get(&files);
                let holds_records = lines(file).len() > 1;
                fs::remove_file(file).unwrap();
                return holds_records;
            }
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_harm_is_found(
        batches in prop::collection::vec(1..20_u64, 1..12),
        checkpoint_records in 1..40_u64,
        file_bytes in 1000..20_000_u64,
        opens in 1..4_usize,
        harm in harm(),
    ) {
        let place = Place::new();
        let options = Options { checkpoint_records, file_bytes, ..options() };
        let mut written = 0;
        for batches in batches.chunks(batches.len().div_ceil(opens)) {
            let journal = place.open(options.clone());
            for batch in batches {
                write(&journal, written..written + batch);
                written += batch;
            }
            journal.close();
        }
        let report = place.verify();
        prop_assert!(report.is_good(), "{report:?}");
        prop_assert_eq!((report.records, report.unsigned()), (written, 0));
        if harm.done(&place) {
            let report = place.verify();
            prop_assert!(!report.is_good(), "{harm:?} was not found: {report:?}");
        }
    }
}
