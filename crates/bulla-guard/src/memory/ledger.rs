//! How many ids each sender has.

use std::collections::HashMap;

use bulla_seal::Party;

use super::slab::Slab;
use crate::claim::{Limits, Usage};
use crate::store::Refused;

pub(super) struct Ledger {
    places: HashMap<Party, u32>,
    tallies: Slab<Tally>,
    shared: u64,
}

struct Tally {
    party: Party,
    ids: u64,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { places: HashMap::new(), tallies: Slab::new(), shared: 0 }
    }

    pub(super) fn senders(&self) -> u64 {
        self.places.len() as u64
    }

    pub(super) fn held_by(&self, sender: &Party) -> u64 {
        let place = self.places.get(sender);
        place.and_then(|place| self.tallies.get(*place)).map_or(0, |tally| tally.ids)
    }

    /// Takes a place for one more id of `sender`; returns the sender's number.
    pub(super) fn take(&mut self, limits: &Limits, sender: &Party) -> Result<u32, Refused> {
        let known = self.places.get(sender).copied();
        let own = known.and_then(|place| self.tallies.get(place)).map_or(0, |tally| tally.ids);
        let usage = Usage { senders: self.senders(), shared: self.shared };
        let admitted = limits.admit(own, usage)?;
        self.shared += u64::from(admitted.shared);
        let place = known.unwrap_or_else(|| {
            let place = self.tallies.insert(Tally { party: sender.clone(), ids: 0 });
            self.places.insert(sender.clone(), place);
            place
        });
        if let Some(tally) = self.tallies.get_mut(place) {
            tally.ids += 1;
        }
        Ok(place)
    }

    /// Gives back the place of one id of the sender with this number.
    pub(super) fn give_back(&mut self, limits: &Limits, place: u32) {
        let Some(tally) = self.tallies.get_mut(place) else { return };
        self.shared -= u64::from(limits.frees_shared(tally.ids));
        tally.ids -= 1;
        if tally.ids == 0
            && let Some(tally) = self.tallies.remove(place)
        {
            self.places.remove(&tally.party);
        }
    }
}
