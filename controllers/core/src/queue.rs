//! The queue of keys: each once, due at a time, later after failures.
//!
//! Pure: time comes in as milliseconds.
//!
//! Invariants
//!   Q1  A key is in the queue at most once, and never taken while it is worked on.
//!   Q2  A key that is added while it is worked on is due again afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A Deployment, by namespace and name.
    Deployment(String, String),
    /// A ReplicaSet, by namespace and name.
    ReplicaSet(String, String),
    /// A Service, by namespace and name.
    Service(String, String),
    /// A namespace.
    Namespace(String),
    /// A node.
    Node(String),
    /// An object of the owner graph, by uid.
    Object(String),
}

const FIRST_PAUSE_MS: u64 = 5;
const LONGEST_PAUSE_MS: u64 = 60_000;

/// The keys.
#[derive(Debug, Default)]
pub struct Queue {
    due: BTreeMap<Key, u64>,
    by_time: BTreeSet<(u64, Key)>,
    working: HashMap<Key, Option<u64>>,
    failures: HashMap<Key, u32>,
}

impl Queue {
    /// Makes a key due at a time, unless it is due earlier already.
    pub fn add(&mut self, key: Key, at: u64) {
        if let Some(again) = self.working.get_mut(&key) {
            *again = Some(again.map_or(at, |earlier| earlier.min(at)));
            return;
        }
        let earlier = self.due.get(&key).copied();
        if earlier.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(due) = earlier {
            self.by_time.remove(&(due, key.clone()));
        }
        self.by_time.insert((at, key.clone()));
        self.due.insert(key, at);
    }

    /// Takes a key that is due; it counts as worked on until [`Queue::done`].
    pub fn take(&mut self, now: u64) -> Option<Key> {
        if self.by_time.first().is_none_or(|(due, _)| *due > now) {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.due.remove(&key);
        self.working.insert(key.clone(), None);
        Some(key)
    }

    /// When the next key is due.
    pub fn next_due(&self) -> Option<u64> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Work on a key ended; after a failure it is due again, later each time.
    pub fn done(&mut self, key: Key, now: u64, failed: bool) {
        let again = self.working.remove(&key).flatten();
        let retry = if failed {
            let failures = self.failures.entry(key.clone()).or_default();
            *failures += 1;
            Some(now + (FIRST_PAUSE_MS << (*failures - 1).min(20)).min(LONGEST_PAUSE_MS))
        } else {
            self.failures.remove(&key);
            None
        };
        match (again, retry) {
            (_, Some(retry)) => self.add(key, retry),
            (Some(again), None) => self.add(key, again),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::Node(name.to_owned())
    }

    /// Q1, Q2.
    #[test]
    fn a_key_is_worked_on_once_at_a_time() {
        let mut queue = Queue::default();
        queue.add(key("a"), 0);
        queue.add(key("a"), 5);
        assert_eq!(queue.take(0), Some(key("a")));
        assert_eq!(queue.take(10), None);
        queue.add(key("a"), 3);
        assert_eq!(queue.take(10), None);
        queue.done(key("a"), 10, false);
        assert_eq!(queue.take(10), Some(key("a")));
        queue.done(key("a"), 10, false);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn failures_are_repeated_later_and_later() {
        let mut queue = Queue::default();
        queue.add(key("a"), 0);
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let now = queue.next_due().expect("due");
            assert_eq!(queue.take(now), Some(key("a")));
            queue.done(key("a"), now, true);
            pauses.push(queue.next_due().expect("due again") - now);
        }
        assert_eq!((pauses[0], pauses[1], pauses[19]), (5, 10, 60_000));
    }
}
