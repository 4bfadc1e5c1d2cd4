//! Every target for a moment (ten seconds each in CI), on any compiler.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulla_fuzz::{TARGETS, corpus, engine};

/// Seconds for each target: `BULLA_FUZZ_SECONDS`, or ten in CI and one elsewhere.
fn seconds() -> u64 {
    let given = std::env::var("BULLA_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(if std::env::var_os("CI").is_some() { 10 } else { 1 })
}

#[test]
fn every_target_holds_for_a_moment() {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let inputs = corpus::load(target.name).unwrap();
                    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
                    let report = engine::run(target, &inputs, 1, Duration::from_secs(seconds()));
                    println!("{}: {} runs, {} answers", target.name, report.runs, report.seen);
                    if let Some(input) = &report.failure {
                        panic!("{} fails with {}", target.name, hex::encode(input));
                    }
                    assert!(report.seen >= 3, "{} always says the same", target.name);
                }
            });
        }
    });
}

/// No input makes a reader allocate beyond its own size by much, however long it says it is.
#[test]
fn nobody_allocates_more_than_was_sent() {
    for target in TARGETS {
        let inputs = corpus::load(target.name).unwrap();
        // Keys and tables that are made once.
        inputs.iter().for_each(|input| drop((target.run)(input)));
        let mut random = bulla_transport::hostile::Random::new(3, 3);
        for input in inputs.iter().cycle().take(300) {
            let mut altered = input.clone();
            let at = random.index(altered.len().max(1));
            if let Some(byte) = altered.get_mut(at) {
                *byte = [0x5b, 0x7b, 0x9b, 0xbb, 0x5a, 0x9a, 0xba, 0x99][random.index(8)];
            }
            let most = allocation_counter::measure(|| drop((target.run)(&altered))).bytes_max;
            let limit = 64 * 1024 + 64 * altered.len() as u64;
            assert!(most <= limit, "{}: {most} B for {} B", target.name, altered.len());
        }
    }
}

/// A corpus that is refused at the door would test the door alone.
#[test]
fn each_corpus_goes_all_the_way() {
    for target in TARGETS {
        let saw: Vec<_> =
            corpus::load(target.name).unwrap().iter().map(|input| (target.run)(input)).collect();
        let refused = |saw: &String| {
            let words = saw.rsplit(' ').next().unwrap_or_default();
            bulla_seal::Refusal::ALL.iter().any(|refusal| refusal.as_str() == words)
        };
        assert!(saw.iter().any(|saw| !refused(saw)), "{}: {saw:?}", target.name);
    }
}
