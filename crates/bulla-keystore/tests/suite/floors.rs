//! Floors, exemptions and the census, kept with the keys.

use bulla_guard::floor::{Action, CensusRow, Event, FloorStore};
use bulla_keystore::KeyType;
use bulla_seal::{Level, Party, Suite};

use crate::common::{agent, component, fixture};

#[tokio::test]
async fn what_one_process_raises_counts_for_the_other() {
    let fixture = fixture!();
    let (here, there) = (fixture.keystore.floors(), fixture.open().await.unwrap().floors());
    let (a, b) = (Party::new(agent("a"), 1), Party::new(component("api"), 1));
    assert_eq!(here.record(&a).await.unwrap(), None);
    let start = there.generation().await.unwrap();
    let (record, action) = here.apply(&a, Event::Passed { level: Level::Sealed }).await.unwrap();
    assert_eq!(action, Action::Raised { from: Level::Plaintext });
    assert_eq!(there.record(&a).await.unwrap(), Some(record));
    let risen = there.generation().await.unwrap();
    assert_ne!(risen, start);
    let (_, action) = there.apply(&a, Event::Passed { level: Level::Signed }).await.unwrap();
    assert_eq!(action, Action::Keep);
    assert_eq!(here.generation().await.unwrap(), risen, "nothing changed");
    let again = Party { incarnation: 2, ..a.clone() };
    assert_eq!(there.record(&again).await.unwrap(), None, "another incarnation");
    here.apply(&b, Event::Rehearse { to: Level::Sealed }).await.unwrap();
    let rehearsed = there.record(&b).await.unwrap().unwrap();
    assert_eq!((rehearsed.accepts, rehearsed.target), (Level::Plaintext, Some(Level::Sealed)));
    let peers: Vec<_> = there.records().await.unwrap().into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(peers, [a, b]);
}

#[tokio::test]
async fn exemptions_are_taken_back_once() {
    let fixture = fixture!();
    let floors = fixture.keystore.floors();
    let peer = Party::new(agent("a"), 1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = now.as_secs() + 3600;
    let one = fixture.keystore.exempt(&peer, "ping", Level::Signed, until).await.unwrap();
    let two = fixture.keystore.exempt(&peer, "pong", Level::Signed, until).await.unwrap();
    for exemption in [&one, &two, &one] {
        floors.add_exemption(exemption).await.unwrap();
    }
    assert_eq!(floors.exemptions().await.unwrap().len(), 2);
    let before = floors.generation().await.unwrap();
    assert!(floors.remove_exemption(one.id).await.unwrap());
    assert!(!floors.remove_exemption(one.id).await.unwrap());
    assert_ne!(floors.generation().await.unwrap(), before);
    assert_eq!(floors.exemptions().await.unwrap(), [two.as_bytes().clone()]);
}

/// A message that is not sealed shows no key that could be listed.
#[tokio::test]
async fn a_removed_agents_exemptions_below_any_seal_end_with_it() {
    let fixture = fixture!();
    let (keystore, floors) = (&fixture.keystore, fixture.keystore.floors());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = now.as_secs() + 3600;
    for (id, level) in [("clear", Level::Plaintext), ("trove", Level::AesCbc), ("s", Level::Signed)]
    {
        keystore.add_agent(id, KeyType::Pair, Suite::X25519).await.unwrap();
        let given = keystore.exempt(&Party::new(agent(id), 1), "ping", level, until).await;
        floors.add_exemption(&given.unwrap()).await.unwrap();
        keystore.remove_agent(id).await.unwrap();
    }
    let statement = keystore.statement().await.unwrap();
    let lowest: Vec<_> =
        statement.lowest.iter().map(|l| (l.principal.to_string(), l.incarnation)).collect();
    assert_eq!(lowest, [("agent/clear".into(), 2), ("agent/trove".into(), 2)]);
}

#[tokio::test]
async fn what_was_seen_adds_up() {
    let fixture = fixture!();
    let floors = fixture.keystore.floors();
    let row = |level, count, last, last_below| CensusRow {
        peer: Party::new(agent("a"), 1),
        method: "guest.resize".into(),
        level,
        count,
        last,
        below: u64::from(last_below > 0),
        last_below,
    };
    let before = floors.generation().await.unwrap();
    let first = [row(Level::Sealed, 5, 50, 0), row(Level::Signed, 1, 40, 40)];
    floors.add_census(&first).await.unwrap();
    floors.add_census(&[row(Level::Sealed, 7, 45, 44)]).await.unwrap();
    // The very same once more changes no column but the counts.
    floors.add_census(&[row(Level::Signed, 0, 40, 0)]).await.unwrap();
    let expected = [row(Level::Signed, 1, 40, 40), row(Level::Sealed, 12, 50, 44)];
    assert_eq!(floors.census().await.unwrap(), expected);
    assert_eq!(floors.generation().await.unwrap(), before, "counting makes nobody read again");
}
