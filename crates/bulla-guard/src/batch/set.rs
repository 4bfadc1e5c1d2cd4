//! Everything that one transaction reads and changes, and how its events change it.

use std::collections::HashMap;

use bulla_seal::{Digest, Party};
use bytes::Bytes;

use crate::claim::{Action, Event, Gate, Record, State, Usage, step};
use crate::store::{ClaimOutcome, Completed, Duplicate, Grant, Lost, Refused, Reply, StoreOptions};

/// A claim as stored.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) sender: i64,
    pub(crate) exp: u64,
    pub(crate) record: Record<Digest>,
    pub(crate) envelope: Option<Bytes>,
    pub(crate) changed: bool,
}

/// A sender as stored.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) id: i64,
    pub(crate) ids: u64,
    pub(crate) changed: bool,
}

/// The one row about the store as a whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ledger {
    pub(crate) gate: Gate,
    pub(crate) entries: u64,
    pub(crate) senders: u64,
    pub(crate) next_sender: i64,
    pub(crate) shared: u64,
    pub(crate) reply_bytes: u64,
    pub(crate) generation: Option<String>,
}

/// What is judged and stored when a message is seen for the first time.
#[derive(Debug, Clone)]
pub(crate) struct First {
    pub(crate) iat: u64,
    pub(crate) exp: u64,
    pub(crate) envelope: Option<Bytes>,
}

/// One event: the key's bytes, its sender, what happens, and what a first claim needs beside.
pub(super) type Work = (Vec<u8>, Party, Event<Digest>, Option<First>);

/// What to count beside the action.
#[derive(Default, Clone, Copy)]
pub(super) struct Note {
    pub(super) in_doubt: bool,
    pub(super) reply_dropped: bool,
}

/// Everything that one transaction reads and changes.
pub(super) struct WorkingSet<'a> {
    pub(super) ledger: Ledger,
    pub(super) claims: HashMap<Vec<u8>, Claim>,
    pub(super) senders: HashMap<Party, Option<Sender>>,
    pub(super) options: &'a StoreOptions,
}

impl WorkingSet<'_> {
    pub(super) fn apply(&mut self, (key, party, event, first): Work) -> (Action, Note) {
        let Some(claim) = self.claims.get_mut(&key) else {
            return (self.absent(key, party, event, first), Note::default());
        };
        let before = claim.record.clone();
        let (record, action) = step(Some(before.clone()), event);
        let mut note = Note::default();
        let Some(mut record) = record else { return (action, note) };
        if record == before {
            return (action, note);
        }
        note.in_doubt =
            matches!(record.state, State::InDoubt(_)) && !matches!(before.state, State::InDoubt(_));
        let used = self.ledger.reply_bytes.saturating_sub(size(&before.state));
        let mut grown = used.saturating_add(size(&record.state));
        if grown > self.options.limits.reply_bytes && grown > self.ledger.reply_bytes {
            note.reply_dropped = true;
            drop_bytes(&mut record.state);
            grown = used;
        }
        self.ledger.reply_bytes = grown;
        claim.record = record;
        claim.changed = true;
        (action, note)
    }

    fn absent(
        &mut self,
        key: Vec<u8>,
        party: Party,
        event: Event<Digest>,
        first: Option<First>,
    ) -> Action {
        let Some(first) = first else { return step(None, event).1 };
        let sender = match self.admit(&party, &first) {
            Ok(sender) => sender,
            Err(refused) => return Action::Claim(ClaimOutcome::Refused(refused)),
        };
        let (record, action) = step(None, event);
        if let Some(record) = record {
            let First { exp, envelope, .. } = first;
            self.claims.insert(key, Claim { sender, exp, record, envelope, changed: true });
        }
        action
    }

    /// Judges a message never seen and takes a place for it; returns its sender's number.
    fn admit(&mut self, party: &Party, first: &First) -> Result<i64, Refused> {
        let ledger = &mut self.ledger;
        ledger.gate.judge(first.iat, first.exp)?;
        let known = self.senders.entry(party.clone()).or_default();
        let own = known.as_ref().map_or(0, |sender| sender.ids);
        let usage = Usage { senders: ledger.senders, shared: ledger.shared };
        let admitted = self.options.limits.admit(own, usage)?;
        let sender = known.get_or_insert_with(|| {
            let id = ledger.next_sender;
            ledger.next_sender += 1;
            Sender { id, ids: 0, changed: true }
        });
        ledger.senders += u64::from(sender.ids == 0);
        ledger.shared += u64::from(admitted.shared);
        ledger.entries += 1;
        sender.ids += 1;
        sender.changed = true;
        Ok(sender.id)
    }
}

fn reply_of(state: &State) -> Option<&Reply> {
    match state {
        State::Done(reply) | State::InDoubt(reply) => reply.as_ref(),
        State::Claimed(_) => None,
    }
}

fn size(state: &State) -> u64 {
    reply_of(state).map_or(0, Reply::size)
}

fn drop_bytes(state: &mut State) {
    if let State::Done(Some(reply)) | State::InDoubt(Some(reply)) = state {
        reply.drop_bytes();
    }
}

/// How the times of the store's own clock are told to a host whose clock is `ahead_ms` behind.
pub(super) fn told(action: Action, ahead_ms: i64) -> Action {
    let local = |until_ms: u64| until_ms.saturating_add_signed(ahead_ms.saturating_neg());
    let grant = |grant: Grant| Grant { until_ms: local(grant.until_ms), ..grant };
    match action {
        Action::Claim(ClaimOutcome::Granted(granted)) => {
            Action::Claim(ClaimOutcome::Granted(grant(granted)))
        }
        Action::Claim(ClaimOutcome::Duplicate(Duplicate::Held { until_ms })) => {
            Action::Claim(Duplicate::Held { until_ms: local(until_ms) }.into())
        }
        Action::Extend(Ok(extended)) => Action::Extend(Ok(grant(extended))),
        other => other,
    }
}

/// The answers that an action can be; anything else would be a bug, and is refused.
pub(crate) fn outcome(action: Action) -> ClaimOutcome {
    match action {
        Action::Claim(outcome) => outcome,
        _ => ClaimOutcome::Refused(Refused::IdConflict),
    }
}

pub(crate) fn completed(action: &Action) -> Completed {
    match action {
        Action::Complete(completed) => *completed,
        _ => Completed::Lost(Lost::Unknown),
    }
}
