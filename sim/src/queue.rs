//! Virtual time: what will happen, in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Microseconds since a run began.
pub(crate) type Time = u64;

/// A millisecond.
pub(crate) const MS: Time = 1_000;
/// A second.
pub(crate) const SECOND: Time = 1_000_000;

struct Due<E> {
    at: Time,
    number: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    /// The heap's greatest is the earliest; of one time, what was said first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The clock and what it will come by.
pub(crate) struct Queue<E> {
    now: Time,
    number: u64,
    due: BinaryHeap<Due<E>>,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { now: 0, number: 0, due: BinaryHeap::new() }
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// How much has been planned so far.
    pub(crate) fn planned(&self) -> u64 {
        self.number
    }

    /// Lets something happen at a time, now at the earliest.
    pub(crate) fn at(&mut self, at: Time, event: E) {
        self.number += 1;
        self.due.push(Due { at: at.max(self.now), number: self.number, event });
    }

    /// Lets something happen after a while.
    pub(crate) fn after(&mut self, wait: Time, event: E) {
        self.at(self.now + wait, event);
    }

    /// Goes on to the next event.
    pub(crate) fn next(&mut self) -> Option<E> {
        let due = self.due.pop()?;
        self.now = due.at;
        Some(due.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_earlier_comes_first_and_of_one_time_what_was_said_first() {
        let mut queue = Queue::new();
        [(5, 'b'), (2, 'a'), (5, 'c')].into_iter().for_each(|(at, event)| queue.at(at, event));
        let order: String = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!((order.as_str(), queue.now()), ("abc", 5));
    }
}
