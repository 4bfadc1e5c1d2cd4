//! A vector with holes that are filled again; places are named by small integers.

pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: usize,
}

enum Slot<T> {
    Full(T),
    Free(u32),
}

const END: u32 = u32::MAX;

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: END, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let place = self.free;
            if let Slot::Free(next) = std::mem::replace(slot, Slot::Full(value)) {
                self.free = next;
            }
            return place;
        }
        if self.slots.len() == self.slots.capacity() {
            // A quarter more, not twice as much: these are most of the store's memory.
            self.slots.reserve_exact((self.slots.len() / 4).max(16));
        }
        self.slots.push(Slot::Full(value));
        (self.slots.len() - 1) as u32
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<T> {
        let slot = self.slots.get_mut(place as usize)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let Slot::Full(value) = std::mem::replace(slot, Slot::Free(self.free)) else {
            return None;
        };
        self.free = place;
        self.len -= 1;
        Some(value)
    }

    pub(super) fn get(&self, place: u32) -> Option<&T> {
        match self.slots.get(place as usize)? {
            Slot::Full(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        match self.slots.get_mut(place as usize)? {
            Slot::Full(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Full(value) => Some(value),
            Slot::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_again() {
        let mut slab = Slab::new();
        let places: Vec<u32> = (0..5).map(|v| slab.insert(v)).collect();
        assert_eq!(slab.remove(places[1]), Some(1));
        assert_eq!(slab.remove(places[1]), None);
        assert_eq!(slab.remove(places[3]), Some(3));
        assert_eq!(slab.len(), 3);
        assert_eq!((slab.insert(8), slab.insert(9), slab.insert(10)), (3, 1, 5));
        assert_eq!(slab.values().copied().collect::<Vec<_>>(), [0, 9, 2, 8, 4, 10]);
        assert_eq!(slab.get(7), None);
    }
}
