//! What is known against chance: statements in any order, twice, forged to another content, and
//! an issuer that forgets.

use std::collections::BTreeMap;

use bulla_seal::{Digest, GroupName, Kid, Lowest, Party, Principal, Refusal, Revoked, Statement};
use proptest::prelude::*;

use super::*;

const KIDS: u8 = 6;
const AGENTS: u8 = 3;

fn agent(n: u8) -> Principal {
    Principal::agent(&format!("a{n}")).unwrap()
}

fn empty(epoch: u64) -> Statement {
    Statement {
        epoch,
        issued_at: 1000 * epoch,
        not_after: 1000 * epoch + 3600,
        revoked: vec![],
        lowest: vec![],
        groups: vec![(GroupName::new("all").unwrap(), epoch as u32)],
    }
}

/// Stands for the digest of the signed form: another content, another digest.
fn digest(statement: &Statement) -> Digest {
    Digest::of(format!("{statement:?}").as_bytes())
}

fn take(known: Known, statement: &Statement) -> (Known, Applied) {
    apply(known, statement, digest(statement))
}

/// One thing that an operator revokes before the next statement.
#[derive(Debug, Clone)]
enum Deed {
    Kid { kid: u8, life: u64 },
    Raise { agent: u8, incarnation: u32, credential: u32, pair: u32 },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (0..KIDS, 1..4000u64).prop_map(|(kid, life)| Deed::Kid { kid, life }),
        (0..AGENTS, 1..3u32, 0..4u32, 0..4u32).prop_map(
            |(agent, incarnation, credential, pair)| {
                Deed::Raise { agent, incarnation, credential, pair }
            }
        ),
    ]
}

/// The statements of an issuer that forgets nothing before its time.
fn statements(deeds: Vec<Vec<Deed>>) -> Vec<Statement> {
    let mut revoked: BTreeMap<Kid, u64> = BTreeMap::new();
    let mut lowest: BTreeMap<Principal, Lowest> = BTreeMap::new();
    let mut made = vec![];
    for (n, deeds) in deeds.into_iter().enumerate() {
        let mut statement = empty(n as u64 + 1);
        revoked.retain(|_, until| *until > statement.issued_at);
        for deed in deeds {
            match deed {
                Deed::Kid { kid, life } => {
                    let until = revoked.entry(Kid([kid; 8])).or_default();
                    *until = (*until).max(statement.issued_at + life);
                }
                Deed::Raise { agent: n, incarnation, credential, pair } => {
                    let new = Lowest {
                        principal: agent(n),
                        incarnation,
                        credential_epoch: credential,
                        pair_epoch: pair,
                    };
                    let old = lowest.entry(agent(n)).or_insert(new.clone());
                    if incarnation > old.incarnation {
                        *old = new;
                    } else if incarnation == old.incarnation {
                        old.credential_epoch = old.credential_epoch.max(credential);
                        old.pair_epoch = old.pair_epoch.max(pair);
                    }
                }
            }
        }
        statement.revoked = revoked.iter().map(|(k, u)| Revoked { kid: *k, until: *u }).collect();
        statement.lowest = lowest.values().cloned().collect();
        made.push(statement);
    }
    made
}

fn history() -> impl Strategy<Value = Vec<Statement>> {
    prop::collection::vec(prop::collection::vec(deed(), 0..3), 1..8).prop_map(statements)
}

fn subjects() -> impl Iterator<Item = Subject> {
    (0..KIDS).flat_map(|kid| {
        (0..AGENTS).flat_map(move |n| {
            (1..3).flat_map(move |incarnation| {
                (0..4).flat_map(move |epoch| {
                    [SubjectKey::Credential(epoch), SubjectKey::Pair(epoch)].map(|key| Subject {
                        kid: Kid([kid; 8]),
                        party: Party::new(agent(n), incarnation),
                        key,
                    })
                })
            })
        })
    })
}

/// What one statement alone says of a key.
fn says(statement: &Statement, subject: &Subject) -> Result<(), Refusal> {
    if statement.revoked.iter().any(|revoked| revoked.kid == subject.kid) {
        return Err(Refusal::Revoked);
    }
    let of = |lowest: &&Lowest| lowest.principal == subject.party.principal;
    let Some(lowest) = statement.lowest.iter().find(of) else { return Ok(()) };
    let (epoch, least) = match subject.key {
        SubjectKey::Credential(epoch) => (epoch, lowest.credential_epoch),
        SubjectKey::Pair(epoch) => (epoch, lowest.pair_epoch),
    };
    match subject.party.incarnation.cmp(&lowest.incarnation) {
        std::cmp::Ordering::Less => Err(Refusal::EpochStale),
        std::cmp::Ordering::Equal if epoch < least => Err(Refusal::EpochStale),
        _ => Ok(()),
    }
}

proptest! {
    #[test]
    fn the_newest_statement_decides_in_whatever_order_they_arrive(
        (made, arrivals) in history().prop_flat_map(|made| {
            let all = made.clone();
            let doubled: Vec<Statement> = all.iter().chain(&all).cloned().collect();
            (Just(made), Just(doubled).prop_shuffle())
        }),
    ) {
        let mut known = Known::default();
        for statement in &arrivals {
            let (epoch, time) = (known.epoch(), known.time(0));
            let applied;
            (known, applied) = take(known, statement);
            prop_assert!(known.epoch() >= epoch, "an epoch fell");
            prop_assert!(known.time(0) >= time, "time ran backwards");
            prop_assert_eq!(applied.moved(), statement.epoch > epoch);
            prop_assert!(!matches!(applied, Applied::MovedWithLoss | Applied::Conflict));
        }
        let newest = made.last().unwrap();
        for subject in subjects() {
            prop_assert_eq!(known.judge(&subject), says(newest, &subject), "{:?}", subject);
        }
        prop_assert_eq!(known.group_epoch(&GroupName::new("all").unwrap()), Some(newest.epoch as u32));
    }

    #[test]
    fn what_was_refused_stays_refused_whatever_an_issuer_forgets(
        made in history(),
        forgets in prop::collection::vec(any::<bool>(), 8),
    ) {
        let mut known = Known::default();
        let mut refused: Vec<(Subject, u64)> = vec![];
        for (statement, forgets) in made.iter().zip(forgets) {
            let mut statement = statement.clone();
            if forgets {
                statement.revoked.clear();
                statement.lowest.clear();
                statement.groups.clear();
            }
            (known, _) = take(known, &statement);
            refused.retain(|(_, until)| *until > statement.issued_at);
            for (subject, _) in &refused {
                prop_assert!(known.judge(subject).is_err(), "{:?} is back", subject);
            }
            for subject in subjects().filter(|subject| known.judge(subject).is_err()) {
                let until = statement.revoked.iter().find(|r| r.kid == subject.kid);
                // Lowest epochs hold for ever, a kid until its credential can do no harm.
                let by_epoch = says(&Statement { revoked: vec![], ..statement.clone() }, &subject);
                let until = if by_epoch.is_err() { u64::MAX } else { until.map_or(0, |r| r.until) };
                refused.push((subject, until));
            }
        }
    }
}

#[test]
fn a_second_statement_of_one_epoch_is_a_conflict_and_moves_nothing() {
    let (known, _) = take(Known::default(), &empty(3));
    let mut other = empty(3);
    other.revoked.push(Revoked { kid: Kid([1; 8]), until: 9_000_000 });
    let (after, applied) = take(known.clone(), &other);
    assert_eq!((after, applied), (known.clone(), Applied::Conflict));
    assert_eq!(take(known.clone(), &empty(3)).1, Applied::Same);
    assert_eq!(take(known, &empty(2)).1, Applied::Older);
}

#[test]
fn what_an_issuer_leaves_out_too_early_holds_and_is_told() {
    let mut first = empty(1);
    first.revoked.push(Revoked { kid: Kid([1; 8]), until: 2500 });
    let (known, _) = take(Known::default(), &first);
    let (known, applied) = take(known, &empty(2));
    assert_eq!(applied, Applied::MovedWithLoss);
    assert!(known.is_revoked(&Kid([1; 8])));
    let (known, applied) = take(known, &empty(3));
    assert_eq!(applied, Applied::Moved);
    assert!(!known.is_revoked(&Kid([1; 8])));
}

#[test]
fn a_statement_is_current_until_its_end_and_the_skew() {
    assert!(!Known::default().is_current(0, 120));
    let (known, _) = take(Known::default(), &empty(1));
    assert!(known.is_current(4600 + 119, 120));
    assert!(!known.is_current(4600 + 120, 120));
    assert_eq!((known.time(5), known.time(5000)), (1000, 5000));
}

#[test]
fn an_issuer_that_lowers_epochs_is_not_followed_and_told() {
    let lowest = |incarnation, credential_epoch, pair_epoch| {
        vec![Lowest { principal: agent(0), incarnation, credential_epoch, pair_epoch }]
    };
    let subject = |incarnation, key| {
        let (kid, party) = (Kid([1; 8]), Party::new(agent(0), incarnation));
        Subject { kid, party, key }
    };
    let (known, _) = take(Known::default(), &Statement { lowest: lowest(2, 5, 5), ..empty(1) });
    for lower in [lowest(2, 4, 5), lowest(2, 5, 4), lowest(1, 9, 9)] {
        let (after, applied) = take(known.clone(), &Statement { lowest: lower, ..empty(2) });
        assert_eq!(applied, Applied::MovedWithLoss);
        for stale in [
            subject(2, SubjectKey::Credential(4)),
            subject(2, SubjectKey::Pair(4)),
            subject(1, SubjectKey::Pair(9)),
        ] {
            assert_eq!(after.judge(&stale), Err(Refusal::EpochStale), "{stale:?}");
        }
        assert_eq!(after.judge(&subject(2, SubjectKey::Credential(5))), Ok(()));
    }
    // A new life of the name begins anew.
    let (after, applied) = take(known, &Statement { lowest: lowest(3, 1, 1), ..empty(2) });
    assert_eq!(applied, Applied::Moved);
    assert_eq!(after.judge(&subject(3, SubjectKey::Pair(1))), Ok(()));
}
