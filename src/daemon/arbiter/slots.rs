//! What the loop waits on, by the tokens that `epoll` gives back.

/// A table whose tokens are never used twice: an event for something just closed finds nothing.
pub struct Slots<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    /// An empty table.
    pub fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }

    /// The token that [`Slots::insert`] will give.
    pub fn next(&self) -> u64 {
        match self.free.last() {
            Some(index) => token(*index, self.slots[*index as usize].0),
            None => token(self.slots.len() as u32, 0),
        }
    }

    /// Puts something in.
    pub fn insert(&mut self, what: T) -> u64 {
        let next = self.next();
        match self.free.pop() {
            Some(index) => self.slots[index as usize].1 = Some(what),
            None => self.slots.push((0, Some(what))),
        }
        next
    }

    /// What is there under a token.
    pub fn get(&mut self, token: u64) -> Option<&mut T> {
        let (generation, slot) = self.slots.get_mut(token as u32 as usize)?;
        slot.as_mut().filter(|_| *generation == (token >> 32) as u32)
    }

    /// Takes it out.
    pub fn remove(&mut self, token: u64) -> Option<T> {
        let index = token as u32;
        let (generation, slot) = self.slots.get_mut(index as usize)?;
        if *generation != (token >> 32) as u32 {
            return None;
        }
        let taken = slot.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(index);
        Some(taken)
    }
}

fn token(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_something_removed_finds_nothing() {
        let mut slots = Slots::new();
        assert_eq!(slots.next(), 0);
        let one = slots.insert("one");
        let two = slots.insert("two");
        assert_eq!(slots.remove(one), Some("one"));
        assert_eq!((slots.remove(one), slots.get(one)), (None, None));
        let next = slots.next();
        let three = slots.insert("three");
        assert_eq!(next, three);
        assert_ne!(three, one);
        for (token, expected) in [(one, None), (two, Some("two")), (three, Some("three"))] {
            assert_eq!(slots.get(token).copied(), expected);
        }
    }
}
