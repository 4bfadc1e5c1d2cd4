//! Records.

use super::{NOW, SECOND, Verdict, bodies, check, client, fresh, page, same, text};
use crate::id::Id;
use crate::name::Place;
use crate::once::{Once, Posted};
use crate::record::{Before, NEVER, Record, RecordKind};
use crate::store::Store;

fn record(kind: RecordKind, name: &str, value: &str) -> Record {
    let (name, value) = (name.to_owned(), value.to_owned());
    Record { kind, owner: "p/records".to_owned(), name, value, until: NEVER }
}

/// One is kept if what has to be there is; of many who keep the same, one is first.
///
/// # Errors
/// It does not hold.
pub async fn records_are_kept_where_they_may_be(store: &dyn Store) -> Verdict {
    let kind = RecordKind::Pool;
    let (one, two) = (record(kind, "a", "1"), record(kind, "a", "2"));
    let value = |value: &str| Before::Value(value.to_owned());
    same(store.keep(one.clone(), value("0"), NOW).await?, None)?;
    same(store.record(kind, &one.owner, "a", NOW).await?, None)?;
    same(store.keep(one.clone(), Before::Nothing, NOW).await?, None)?;
    same(store.keep(two.clone(), Before::Nothing, NOW).await?, Some(one.clone()))?;
    same(store.keep(two.clone(), value("0"), NOW).await?, Some(one.clone()))?;
    same(store.record(kind, &one.owner, "a", NOW).await?, Some(one.clone()))?;
    same(store.keep(two.clone(), value("1"), NOW).await?, Some(one.clone()))?;
    same(store.record(kind, &one.owner, "a", NOW).await?, Some(two.clone()))?;
    same(store.keep(one.clone(), Before::Any, NOW).await?, Some(two))?;
    store.forget(kind, &one.owner, Some("a")).await?;
    same(store.record(kind, &one.owner, "a", NOW).await?, None)?;
    let keep = |n: u64| store.keep(record(kind, "race", &n.to_string()), Before::Nothing, NOW);
    let kept = super::futures((0..16).map(keep)).await;
    let first = kept.into_iter().filter(|kept| matches!(kept, Ok(None))).count();
    check(first == 1, || format!("{first} were first"))
}

/// They are listed by name, and owners and kinds are apart.
///
/// # Errors
/// It does not hold.
pub async fn records_are_listed(store: &dyn Store) -> Verdict {
    let kind = RecordKind::Flavor;
    for name in ["c", "a", "b", "B"] {
        store.keep(record(kind, name, name), Before::Nothing, NOW).await?;
    }
    let owner = record(kind, "", "").owner;
    let list = async |after: &str, limit| {
        let found = store.records(kind, &owner, (after, limit), NOW).await?;
        Ok::<_, super::Fault>(found.into_iter().map(|record| record.name).collect::<Vec<_>>())
    };
    same(list("", 3).await?, ["B", "a", "b"].map(str::to_owned).to_vec())?;
    same(list("b", 3).await?, ["c".to_owned()].to_vec())?;
    same(store.records(RecordKind::Once, &owner, ("", 9), NOW).await?, Vec::new())?;
    same(store.records(kind, "p/other", ("", 9), NOW).await?, Vec::new())?;
    same(store.record(kind, "p/other", "a", NOW).await?, None)?;
    store.forget(kind, "p/other", None).await?;
    same(list("", 9).await?.len(), 4)?;
    store.forget(kind, &owner, None).await?;
    same(list("", 9).await?.len(), 0)
}

/// One that ended is not there.
///
/// # Errors
/// It does not hold.
pub async fn records_end(store: &dyn Store) -> Verdict {
    let kind = RecordKind::Once;
    let brief = Record { until: NOW + SECOND, ..record(kind, "a", "1") };
    store.keep(brief.clone(), Before::Nothing, NOW).await?;
    let (owner, then) = (brief.owner.as_str(), NOW + SECOND);
    same(store.record(kind, owner, "a", then - 1).await?, Some(brief.clone()))?;
    same(store.record(kind, owner, "a", then).await?, None)?;
    same(store.records(kind, owner, ("", 9), then).await?, Vec::new())?;
    same(store.keep(brief.clone(), Before::Value("1".to_owned()), then).await?, None)?;
    let next = record(kind, "a", "2");
    same(store.keep(next.clone(), Before::Nothing, then).await?, None)?;
    same(store.record(kind, owner, "a", then).await?, Some(next))
}

fn once(digest: &str) -> Once {
    Once { name: "key".to_owned(), digest: digest.to_owned(), until: NOW + SECOND }
}

/// Posts the same as before, or what this says.
async fn again(
    store: &dyn Store,
    at: &Place,
    once: Once,
    now: u64,
) -> Result<Posted, super::Fault> {
    let messages = vec![text("a"), text("b")];
    Ok(store.post_once(at, client(1)?, messages, once, now).await?)
}

/// What was posted with a key is not posted again, whoever comes at the same time, until that is
/// forgotten; queues are apart.
///
/// # Errors
/// It does not hold.
pub async fn posts_are_done_once(store: &dyn Store) -> Verdict {
    let (at, elsewhere) = (fresh()?, fresh()?);
    let posted = super::futures((0..16).map(|_| again(store, &at, once("1"), NOW))).await;
    let posted = posted.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut first: Vec<&Vec<Id>> = Vec::new();
    first.extend(posted.iter().filter_map(|it| match it {
        Posted::Now(ids) => Some(ids),
        _ => None,
    }));
    let &[ids] = first.as_slice() else {
        return check(false, || format!("{} were first", first.len()));
    };
    let later = |it: &&Posted| **it == Posted::Before(ids.clone());
    same(posted.iter().filter(later).count(), posted.len() - 1)?;
    let listed = store.list(&at, &page(9), NOW).await?;
    same(bodies(&listed), vec!["a", "b"])?;
    same(listed.iter().map(|message| message.id).collect::<Vec<_>>(), ids.clone())?;
    same(again(store, &at, once("2"), NOW).await?, Posted::Other)?;
    let other = again(store, &elsewhere, once("1"), NOW).await?;
    check(matches!(other, Posted::Now(_)), || format!("got {other:?} in another queue"))?;
    // Also when they are taken.
    same(store.pop(&at, 9, NOW).await?.len(), 2)?;
    let known = again(store, &at, once("1"), NOW + SECOND - 1).await?;
    same(known, Posted::Before(ids.clone()))?;
    let forgotten = again(store, &at, once("1"), NOW + SECOND).await?;
    check(matches!(forgotten, Posted::Now(_)), || format!("got {forgotten:?} when it had ended"))
}
