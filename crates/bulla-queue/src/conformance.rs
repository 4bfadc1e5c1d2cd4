//! What every store must do. Each property is a function of its own over an empty part of a store;
//! [`run_all`] runs them in turn. Time is made up: no property waits.

mod records;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use thiserror::Error;

use crate::id::Id;
use crate::limits::Limits;
use crate::metadata::{Patch, PatchFault};
use crate::name::{ClientId, Place};
use crate::store::{
    Claim, ClaimTerms, Deletion, Doomed, Holding, Message, Metadata, Millis, NewMessage, Page,
    QueuePage, Store, StoreError,
};

pub use records::{
    posts_are_done_once, records_are_kept_where_they_may_be, records_are_listed, records_end,
};

/// What was seen instead.
#[derive(Debug, Error)]
pub enum Fault {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It answered something else.
    #[error("{0}")]
    Other(String),
}

/// Of one property.
pub type Verdict = Result<(), Fault>;

/// A time to begin at: far enough from the real one that nothing of ours is swept away.
const NOW: Millis = 4_000_000_000_000;
const SECOND: Millis = 1000;
const TERMS: ClaimTerms = ClaimTerms { ttl: 100, grace: 60 };

/// All properties.
///
/// # Errors
/// Which does not hold, and how.
pub async fn run_all(store: &Arc<dyn Store>) -> Verdict {
    macro_rules! run {
        ($($property:ident),* $(,)?) => {
            $(
                let named = |fault| Fault::Other(format!("{}: {fault}", stringify!($property)));
                $property(store.as_ref()).await.map_err(named)?;
            )*
        };
    }
    run!(
        queues_are_made_once,
        metadata_are_patched,
        queues_are_listed,
        messages_keep_their_order,
        a_page_leaves_out_what_it_should,
        ids_are_of_one_queue,
        messages_end,
        delayed_messages_come_later,
        claims_are_shared_out,
        claims_end,
        claims_are_renewed_and_released,
        claims_keep_messages_alive,
        deletions_ask_who_holds,
        pops_take_for_good,
        purged_and_removed_is_gone,
        too_often_claimed_goes_aside,
        many_at_once_get_each_message_once,
        records_are_kept_where_they_may_be,
        records_are_listed,
        records_end,
        posts_are_done_once,
    );
    Ok(())
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Fault::Other(what())) }
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Verdict {
    check(got == wanted, || format!("got {got:?} instead of {wanted:?}"))
}

fn missing(what: &str) -> Fault {
    Fault::Other(format!("there is no {what}"))
}

/// A queue that nobody has used.
fn fresh() -> Result<Place, Fault> {
    named(&format!("p{}", next()), "q")
}

fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn named(project: &str, name: &str) -> Result<Place, Fault> {
    Place::new(project.into(), name, &Limits::default()).ok_or_else(|| missing("such name"))
}

fn client(n: u8) -> Result<ClientId, Fault> {
    ClientId::parse(&format!("{n:032x}")).ok_or_else(|| missing("such client"))
}

fn text(body: &str) -> NewMessage {
    NewMessage { body: format!("\"{body}\""), ttl: 3600, delay: 0 }
}

async fn post(store: &dyn Store, at: &Place, bodies: &[&str]) -> Result<Vec<Id>, Fault> {
    let messages = bodies.iter().map(|body| text(body)).collect();
    Ok(store.post(at, client(1)?, messages, NOW).await?)
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.body.trim_matches('"')).collect()
}

fn page(limit: usize) -> Page {
    Page { limit, ..Page::default() }
}

async fn claim(store: &dyn Store, at: &Place, limit: usize, now: Millis) -> Result<Claim, Fault> {
    store.claim(at, limit, TERMS, now).await?.ok_or_else(|| missing("claim"))
}

fn map(value: serde_json::Value) -> Metadata {
    value.as_object().cloned().unwrap_or_default()
}

/// A queue is made once, and posting makes it too.
///
/// # Errors
/// What was seen instead; so for all properties.
pub async fn queues_are_made_once(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    same(store.metadata(&at).await?.is_some(), false)?;
    let metadata = map(json!({ "a": 1 }));
    same(store.create(&at, &metadata).await?, true)?;
    same(store.create(&at, &Metadata::new()).await?, false)?;
    same(store.metadata(&at).await?.as_deref(), Some(&metadata))?;
    let lazy = fresh()?;
    post(store, &lazy, &["a"]).await?;
    same(store.create(&lazy, &metadata).await?, false)
}

/// Metadata are changed as the patch says, or not.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn metadata_are_patched(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    let patch = |op: &str, key: &str| {
        let steps = json!([{ "op": op, "path": format!("/metadata/{key}"), "value": 100 }]);
        Patch::parse(steps.to_string().as_bytes(), &Limits::default()).map_err(Fault::Other)
    };
    let ttl = patch("add", "_default_message_ttl")?;
    same(store.patch(&at, &ttl).await?.is_none(), true)?;
    store.create(&at, &map(json!({ "a": 1 }))).await?;
    same(store.settings(&at).await?.ttl, None)?;
    let wanted = map(json!({ "a": 1, "_default_message_ttl": 100 }));
    same(store.patch(&at, &ttl).await?, Some(Ok(wanted.clone())))?;
    same(store.settings(&at).await?.ttl, Some(100))?;
    let refused = store.patch(&at, &patch("replace", "none")?).await?;
    same(refused, Some(Err(PatchFault::Missing("none".to_owned()))))?;
    same(store.metadata(&at).await?.as_deref(), Some(&wanted))
}

/// A project's queues are listed by name, and nobody else's.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn queues_are_listed(store: &dyn Store) -> Verdict {
    let (mine, other) = (format!("p{}", next()), format!("p{}", next()));
    for name in ["c", "a", "b2", "b1"] {
        let metadata = map(json!({ "of": name.get(..1) }));
        store.create(&named(&mine, name)?, &metadata).await?;
    }
    store.create(&named(&other, "x")?, &Metadata::new()).await?;
    let names = async |page: QueuePage| -> Result<Vec<String>, Fault> {
        let found = store.queues(&mine, &page).await?;
        Ok(found.into_iter().map(|queue| queue.name).collect())
    };
    let page = |after: &str, limit: usize| QueuePage {
        after: after.to_owned(),
        limit,
        ..QueuePage::default()
    };
    same(names(page("", 3)).await?.join(" "), "a b1 b2".to_owned())?;
    same(names(page("b2", 3)).await?.join(" "), "c".to_owned())?;
    let of = QueuePage { name: Some("b".to_owned()), ..page("", 9) };
    same(names(of).await?.join(" "), "b1 b2".to_owned())?;
    let with = QueuePage { with: map(json!({ "of": "c" })), ..page("", 9) };
    same(names(with).await?.join(" "), "c".to_owned())?;
    same(store.count_queues(&mine).await?, 4)?;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let some = store.all_queues(after.as_ref(), 3).await?;
        let Some(last) = some.last() else { break };
        after = Some(last.clone());
        all.extend(some);
    }
    all.retain(|at| at.project() == mine);
    same(all.len(), 4)
}

/// Messages are listed in the order in which they were posted, page by page.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn messages_keep_their_order(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    post(store, &at, &["a", "b"]).await?;
    let ids = post(store, &at, &["c"]).await?;
    let first = store.list(&at, &page(2), NOW).await?;
    same(bodies(&first), vec!["a", "b"])?;
    let after = first.last().map_or(0, |message| message.id.seq());
    let rest = store.list(&at, &Page { after, ..page(2) }, NOW).await?;
    same(bodies(&rest), vec!["c"])?;
    same(rest.first().map(|message| message.id), ids.first().copied())?;
    let stats = store.stats(&at, NOW).await?;
    same((stats.free, stats.busy), (3, 0))?;
    same(stats.oldest.as_ref(), first.first())?;
    same(stats.newest.as_ref(), rest.first())
}

/// A page has no message of the client's own and none that somebody holds, unless asked.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn a_page_leaves_out_what_it_should(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    post(store, &at, &["a", "b"]).await?;
    store.post(&at, client(2)?, vec![text("c")], NOW).await?;
    let own = Page { not_by: Some(client(1)?), ..page(9) };
    same(bodies(&store.list(&at, &own, NOW).await?), vec!["c"])?;
    claim(store, &at, 1, NOW).await?;
    same(bodies(&store.list(&at, &page(9), NOW).await?), vec!["b", "c"])?;
    let claimed = Page { claimed: true, ..page(9) };
    same(bodies(&store.list(&at, &claimed, NOW).await?), vec!["a", "b", "c"])?;
    let claimed = Page { limit: 2, ..claimed };
    same(bodies(&store.list(&at, &claimed, NOW).await?), vec!["a", "b"])
}

/// An id is found in its own queue of its own project alone, whole.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn ids_are_of_one_queue(store: &dyn Store) -> Verdict {
    let project = format!("p{}", next());
    let (mine, beside, other) = (named(&project, "q")?, named(&project, "r")?, fresh()?);
    let ids = post(store, &mine, &["a"]).await?;
    let id = ids.first().copied().ok_or_else(|| missing("id"))?;
    post(store, &beside, &["b"]).await?;
    post(store, &other, &["c"]).await?;
    let forged = Id::from_parts(id.seq(), id.tag() ^ 1);
    same(bodies(&store.get(&mine, &[id, forged], NOW).await?), vec!["a"])?;
    same(store.get(&mine, &[forged], NOW).await?.len(), 0)?;
    let doomed = |id| vec![Doomed { id, holding: Holding::Any }];
    for (place, id) in [(&beside, id), (&other, id), (&mine, forged)] {
        same(store.get(place, &[id], NOW).await?.len(), 0)?;
        store.delete(place, doomed(id), NOW).await?;
    }
    same(store.get(&mine, &[id], NOW).await?.len(), 1)?;
    let held = claim(store, &mine, 1, NOW).await?;
    let forged = Id::from_parts(held.id.seq(), held.id.tag() ^ 1);
    for (place, id) in [(&beside, held.id), (&other, held.id), (&mine, forged)] {
        same(store.claimed(place, id, NOW).await?, None)?;
        same(store.renew(place, id, TERMS, NOW).await?, false)?;
        store.release(place, id, NOW).await?;
    }
    same(store.claimed(&mine, held.id, NOW).await?.is_some(), true)
}

/// A message is there until its time is over, and not after.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn messages_end(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    let brief = NewMessage { ttl: 60, ..text("brief") };
    let ids = store.post(&at, client(1)?, vec![brief, text("long")], NOW).await?;
    let (before, after) = (NOW + 60 * SECOND - 1, NOW + 60 * SECOND);
    same(bodies(&store.list(&at, &page(9), before).await?), vec!["brief", "long"])?;
    same(bodies(&store.list(&at, &page(9), after).await?), vec!["long"])?;
    same(bodies(&store.get(&at, &ids, after).await?), vec!["long"])?;
    same(store.stats(&at, after).await?.free, 1)?;
    same(bodies(&claim(store, &at, 9, after).await?.messages), vec!["long"])
}

/// A message that is held back is nobody's until its time has come.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn delayed_messages_come_later(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    let later = NewMessage { delay: 30, ..text("later") };
    store.post(&at, client(1)?, vec![later, text("now")], NOW).await?;
    let due = NOW + 30 * SECOND;
    same(store.next_free(&at, NOW).await?, Some(due))?;
    same(bodies(&store.list(&at, &page(9), NOW).await?), vec!["now"])?;
    let delayed = Page { delayed: true, ..page(9) };
    same(bodies(&store.list(&at, &delayed, NOW).await?), vec!["later", "now"])?;
    same(bodies(&claim(store, &at, 9, due - 1).await?.messages), vec!["now"])?;
    same(bodies(&store.list(&at, &page(9), due).await?), vec!["later"])?;
    same(bodies(&claim(store, &at, 9, due).await?.messages), vec!["later"])
}

/// Each message is in one claim's hands.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn claims_are_shared_out(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    same(store.claim(&at, 1, TERMS, NOW).await?, None)?;
    post(store, &at, &["a", "b", "c"]).await?;
    let first = claim(store, &at, 2, NOW).await?;
    same(bodies(&first.messages), vec!["a", "b"])?;
    same(bodies(&claim(store, &at, 2, NOW).await?.messages), vec!["c"])?;
    same(store.claim(&at, 2, TERMS, NOW).await?, None)?;
    let held = store.claimed(&at, first.id, NOW).await?.ok_or_else(|| missing("claim"))?;
    same(bodies(&held.messages), vec!["a", "b"])?;
    same(held.messages.iter().all(|message| message.claim == Some(first.id)), true)?;
    same((held.ttl, held.created), (TERMS.ttl, NOW))?;
    let stats = store.stats(&at, NOW).await?;
    same((stats.free, stats.busy), (0, 3))
}

/// What a claim holds is anybody's once it is over.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn claims_end(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    post(store, &at, &["a", "b"]).await?;
    let first = claim(store, &at, 1, NOW).await?;
    let over = NOW + u64::from(TERMS.ttl) * SECOND;
    same(store.next_free(&at, NOW).await?, Some(over))?;
    same(bodies(&claim(store, &at, 1, over - 1).await?.messages), vec!["b"])?;
    same(store.claimed(&at, first.id, over).await?, None)?;
    same(store.renew(&at, first.id, TERMS, over).await?, false)?;
    let listed = store.list(&at, &page(9), over).await?;
    same(bodies(&listed), vec!["a"])?;
    same(listed.first().and_then(|message| message.claim), None)?;
    let again = claim(store, &at, 9, over).await?;
    same(bodies(&again.messages), vec!["a"])?;
    same(again.messages.first().map(|message| message.claims), Some(2))?;
    // The one before has no say any more.
    store.release(&at, first.id, over).await?;
    same(store.claim(&at, 9, TERMS, over).await?, None)
}

/// A claim can be begun anew, and be ended early.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn claims_are_renewed_and_released(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    post(store, &at, &["a", "b"]).await?;
    let held = claim(store, &at, 9, NOW).await?;
    let over = NOW + u64::from(TERMS.ttl) * SECOND;
    let (longer, shorter) = (ClaimTerms { ttl: 200, grace: 60 }, ClaimTerms { ttl: 10, grace: 60 });
    same(store.renew(&at, held.id, longer, over - 1).await?, true)?;
    same(store.claim(&at, 9, TERMS, over + 1).await?, None)?;
    let shown = store.claimed(&at, held.id, over + 1).await?.ok_or_else(|| missing("claim"))?;
    same((shown.ttl, shown.messages.len()), (200, 2))?;
    store.release(&at, held.id, over + 1).await?;
    same(store.claimed(&at, held.id, over + 1).await?, None)?;
    let held = claim(store, &at, 9, over + 1).await?;
    same(bodies(&held.messages), vec!["a", "b"])?;
    same(store.renew(&at, held.id, shorter, over + 2).await?, true)?;
    let soon = over + 2 + 10 * SECOND;
    same(store.claim(&at, 9, TERMS, soon - 1).await?, None)?;
    same(bodies(&claim(store, &at, 9, soon).await?.messages), vec!["a", "b"])
}

/// A message does not end in somebody's hands.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn claims_keep_messages_alive(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    let brief = NewMessage { ttl: 60, ..text("brief") };
    store.post(&at, client(1)?, vec![brief], NOW).await?;
    let held = claim(store, &at, 9, NOW + 59 * SECOND).await?;
    let over = NOW + (59 + u64::from(TERMS.ttl)) * SECOND;
    let shown = store.claimed(&at, held.id, over - 1).await?.ok_or_else(|| missing("claim"))?;
    same(bodies(&shown.messages), vec!["brief"])?;
    let end = over + u64::from(TERMS.grace) * SECOND;
    same(bodies(&store.list(&at, &page(9), end - 1).await?), vec!["brief"])?;
    same(store.list(&at, &page(9), end).await?.len(), 0)
}

/// A message goes if whoever asks may take it away.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn deletions_ask_who_holds(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    post(store, &at, &["a", "b", "c", "d"]).await?;
    let one = claim(store, &at, 2, NOW).await?;
    let two = claim(store, &at, 1, NOW).await?;
    let free = store.list(&at, &page(9), NOW).await?;
    let id = |messages: &[Message], n: usize| {
        messages.get(n).map(|message| message.id).ok_or_else(|| missing("message"))
    };
    let (a, b, d) = (id(&one.messages, 0)?, id(&one.messages, 1)?, id(&free, 0)?);
    let unknown = Id::from_parts(7, 7);
    let doomed = |id, holding| Doomed { id, holding };
    let asked = vec![
        doomed(a, Holding::Nobody),
        doomed(a, Holding::By(two.id)),
        doomed(a, Holding::By(unknown)),
        doomed(d, Holding::By(one.id)),
        doomed(unknown, Holding::Nobody),
    ];
    let wanted =
        vec![Deletion::Held, Deletion::Held, Deletion::NoClaim, Deletion::NotHeld, Deletion::Gone];
    same(store.delete(&at, asked, NOW).await?, wanted)?;
    same(store.stats(&at, NOW).await?.free + store.stats(&at, NOW).await?.busy, 4)?;
    let asked =
        vec![doomed(a, Holding::By(one.id)), doomed(b, Holding::Any), doomed(d, Holding::Nobody)];
    same(store.delete(&at, asked, NOW).await?, vec![Deletion::Gone; 3])?;
    let over = NOW + u64::from(TERMS.ttl) * SECOND;
    let c = id(&two.messages, 0)?;
    let late = vec![doomed(c, Holding::By(two.id)), doomed(c, Holding::Nobody)];
    same(store.delete(&at, late, over).await?, vec![Deletion::NoClaim, Deletion::Gone])?;
    same(store.list(&at, &page(9), over).await?.len(), 0)
}

/// What is popped is gone.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn pops_take_for_good(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    same(store.pop(&at, 2, NOW).await?.len(), 0)?;
    post(store, &at, &["a", "b", "c", "d"]).await?;
    claim(store, &at, 1, NOW).await?;
    same(bodies(&store.pop(&at, 2, NOW).await?), vec!["b", "c"])?;
    same(bodies(&store.pop(&at, 2, NOW).await?), vec!["d"])?;
    let over = NOW + u64::from(TERMS.ttl) * SECOND;
    same(bodies(&store.pop(&at, 2, over).await?), vec!["a"])
}

/// A queue that was emptied or removed has nothing of what was in it, and can be used again.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn purged_and_removed_is_gone(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    store.remove(&at).await?;
    store.purge(&at).await?;
    let metadata = map(json!({ "a": 1 }));
    store.create(&at, &metadata).await?;
    let ids = post(store, &at, &["a", "b"]).await?;
    let held = claim(store, &at, 1, NOW).await?;
    store.purge(&at).await?;
    same(store.metadata(&at).await?.as_deref(), Some(&metadata))?;
    same(store.get(&at, &ids, NOW).await?.len(), 0)?;
    same(store.claimed(&at, held.id, NOW).await?, None)?;
    post(store, &at, &["c"]).await?;
    same(bodies(&store.list(&at, &page(9), NOW).await?), vec!["c"])?;
    store.remove(&at).await?;
    same(store.metadata(&at).await?, None)?;
    same(store.list(&at, &page(9), NOW).await?.len(), 0)?;
    post(store, &at, &["d"]).await?;
    same(bodies(&store.list(&at, &page(9), NOW).await?), vec!["d"])
}

/// A message that was claimed too often goes where the queue says.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn too_often_claimed_goes_aside(store: &dyn Store) -> Verdict {
    let project = format!("p{}", next());
    let (at, aside) = (named(&project, "q")?, named(&project, "dead")?);
    let metadata = json!({
        "_dead_letter_queue": "dead",
        "_max_claim_count": 2,
        "_dead_letter_queue_messages_ttl": 500,
    });
    store.create(&at, &map(metadata)).await?;
    let ids = post(store, &at, &["a"]).await?;
    for _ in 0..2 {
        let held = claim(store, &at, 9, NOW).await?;
        store.release(&at, held.id, NOW).await?;
    }
    post(store, &at, &["b"]).await?;
    same(bodies(&claim(store, &at, 9, NOW).await?.messages), vec!["b"])?;
    let dead = claim(store, &aside, 9, NOW).await?;
    same(bodies(&dead.messages), vec!["a"])?;
    same(dead.messages.first().map(|message| message.id), ids.first().copied())?;
    same(dead.messages.first().map(|message| message.ttl), Some(500))
}

/// Many who claim at once get each message once.
///
/// # Errors
/// See [`queues_are_made_once`].
pub async fn many_at_once_get_each_message_once(store: &dyn Store) -> Verdict {
    let at = fresh()?;
    let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let posts = names.chunks(10).map(|names| async {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        post(store, &at, &names).await
    });
    for posted in futures(posts).await {
        posted?;
    }
    let claims = futures((0..30).map(|_| store.claim(&at, 7, TERMS, NOW))).await;
    let mut got = Vec::new();
    for claim in claims {
        got.extend(claim?.into_iter().flat_map(|claim| claim.messages));
    }
    let mut seen: Vec<_> = bodies(&got).into_iter().map(str::to_owned).collect();
    seen.sort_by_key(|name| name.parse::<u32>().unwrap_or_default());
    same(seen, names)
}

/// All of them, at the same time.
async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut ready = true;
        for (one, done) in &mut waiting {
            if done.is_none() {
                match one.as_mut().poll(context) {
                    std::task::Poll::Ready(output) => *done = Some(output),
                    std::task::Poll::Pending => ready = false,
                }
            }
        }
        if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}
