//! Repeating what was said.

use bulla_seal::mutants::Check;

use super::{BOTH, NONE, REQUESTS, play};
use crate::cell::Kind;
use crate::row::{Row, Seen};
use crate::trouble::Trouble;
use crate::world::{Expected, Mark, Sent, Stage, Taken, World};

pub(super) const AT_ONCE: Row = Row {
    id: "P01-replay-at-once",
    tries: "publish a message again that just ran, three times",
    incident: "class: replay; Trove keeps the last 16 ids and forgets, plain AMQP keeps none",
    expected: "call: the stored answer, byte-identical; cast and fanout: nothing",
    kinds: REQUESTS,
    other_kinds: "a reply that comes again is R03",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::ClaimOnce]],
    run: play!(at_once),
};

/// Lets a message that was kept back run, and gives it out with the mark of before and its answer.
pub(super) async fn run_once(world: &World) -> Result<(Sent, Mark, Option<Sent>), Trouble> {
    let Taken { sent, call, .. } = world.take().await?;
    let (from, answers) = (world.ledger.count(), world.agent.hand.count());
    world.inject_with(&sent).await?;
    world.ledger.wait(from + 1).await?;
    if let Some(call) = call {
        call.await??;
    }
    let answer = world.agent.hand.since(answers).into_iter().find(Sent::is_reply);
    Ok((sent, world.mark(&world.agent), answer))
}

/// Waits for the answers to `copies` of a message that ran, which must be the stored one.
pub(super) async fn answered_again(
    world: &World,
    mark: &Mark,
    first: Option<&Sent>,
    copies: usize,
) -> Result<Seen, Trouble> {
    let answers = if world.cell.kind == Kind::Call { copies } else { 0 };
    let again = || world.agent.hand.since(mark.sent()).into_iter().filter(Sent::is_reply);
    world.until(|| again().count() >= answers).await;
    let same = |sent: &Sent| first.is_some_and(|first| first.payload == sent.payload);
    let seen = world.judge(mark, &world.agent, Expected::nothing().answers(answers)).await?;
    if !seen.held() {
        return Ok(seen);
    }
    let again: Vec<_> = again().take(answers).collect();
    Ok(match answers {
        0 => Seen::Held("nothing ran, nothing was said".to_owned()),
        _ if again.len() == answers && again.iter().all(same) => {
            Seen::Held("the stored answer, byte-identical".to_owned())
        }
        _ => Seen::Unexpected(format!("{} answers, not all the stored one", again.len())),
    })
}

async fn at_once(world: Stage) -> Result<Seen, Trouble> {
    let (sent, mark, answer) = run_once(&world).await?;
    for _ in 0..3 {
        world.inject(&sent.to, sent.payload.clone()).await?;
    }
    answered_again(&world, &mark, answer.as_ref(), 3).await
}

pub(super) const FLAG: Row = Row {
    id: "P08-redelivered-flag",
    tries: "mark a first delivery as redelivered, and a repeated one as new",
    incident: "class: RabbitMQ's redelivered flag taken for an idempotence check, as its own guide \
               suggests; the flag is the broker's word",
    expected: "runs exactly once; the copy gets the stored answer",
    kinds: REQUESTS,
    other_kinds: "replies are not claimed",
    keys: BOTH,
    other_key: NONE,
    red: &[&[Check::FlagIgnored], &[Check::ClaimOnce]],
    run: play!(flag),
};

async fn flag(world: Stage) -> Result<Seen, Trouble> {
    let Taken { sent, call, .. } = world.take().await?;
    let from = world.mark(&world.agent);
    world.agent.hand.flag(Some(true));
    world.inject(&sent.to, sent.payload.clone()).await?;
    let first = world.judge_quietly(&from, Expected::nothing().runs(1)).await;
    world.agent.hand.flag(Some(false));
    if let Some(seen) = first {
        call.inspect(|call| call.abort());
        return Ok(seen);
    }
    if let Some(call) = call {
        call.await??;
    }
    let answer = world.agent.hand.since(from.sent()).into_iter().find(Sent::is_reply);
    let mark = world.mark(&world.agent);
    world.inject(&sent.to, sent.payload).await?;
    answered_again(&world, &mark, answer.as_ref(), 1).await
}
