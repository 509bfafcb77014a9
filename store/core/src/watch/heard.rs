//! Recent changes for all watchers of one place.
//!
//! Problem. To read for each watcher what there is for it costs as much for those for whom there is nothing, and for many
//!          who want the same it is done as often.
//! Idea.    Most watchers of a stream stand at the same place: what came since is read once, and each change finds those
//!          who want it.
//!
//! Invariant
//!   W1  Of `watch`: what is heard is whole revisions.

use std::sync::Arc;

use super::{Audience, LOOKED_AT_MAX, Told};

/// Events that are found for all watchers together, each counted for each who wants it.
const FOUND_MAX: usize = 1 << 16;

/// Recent changes, and who watches them: whole revisions, as many as one answer to each watcher may hold of them
/// together.
#[derive(Debug)]
pub struct Heard {
    events: Vec<Arc<Told>>,
    /// Numbers of watchers, each with the places of his events in their order.
    by_watcher: Vec<(i64, usize)>,
    bytes_max: usize,
    /// Of all wanted events, for each who wants it.
    bytes: usize,
    looked_at: usize,
    /// The revision of the change that was looked at last.
    at: i64,
    /// How much of `events` and `by_watcher` there was before that revision.
    before: (usize, usize),
    is_full: bool,
}

impl Heard {
    /// Nothing yet, of what begins with a revision; about so many bytes of events.
    #[must_use]
    pub fn new(from: i64, bytes_max: usize) -> Self {
        let (events, by_watcher) = (Vec::new(), Vec::new());
        Self { events, by_watcher, bytes_max, bytes: 0, looked_at: 0, at: from - 1, before: (0, 0), is_full: false }
    }

    /// Takes the next change in; `false` if it is of a revision for which there is no more room.
    pub fn take(&mut self, audience: &Audience, told: &Arc<Told>) -> bool {
        if told.at.main > self.at {
            self.before = (self.events.len(), self.by_watcher.len());
            self.is_full = self.bytes >= self.bytes_max || self.looked_at >= LOOKED_AT_MAX;
            self.at = told.at.main;
        }
        let (place, before) = (self.events.len(), self.by_watcher.len());
        if !self.is_full {
            audience.of(&told.key, |id| self.by_watcher.push((id, place)));
        }
        // One revision may be of a hundred thousand keys, for ten thousand watchers.
        self.is_full |= self.by_watcher.len() > FOUND_MAX;
        if self.is_full {
            self.events.truncate(self.before.0);
            self.by_watcher.truncate(self.before.1);
            return false;
        }
        let many = self.by_watcher.len() - before;
        if many > 0 {
            self.bytes += many * told.encoded.len();
            self.events.push(told.clone());
        }
        self.looked_at += 1;
        true
    }

    /// Up to where all is in it, of what ends with `to`.
    #[must_use]
    pub fn reached(&self, to: i64) -> i64 {
        if self.is_full { self.at - 1 } else { to }
    }

    /// Who is to be told, by number, and of what, in order.
    pub fn by_watcher(&mut self) -> impl Iterator<Item = (i64, impl Iterator<Item = &Arc<Told>>)> {
        self.by_watcher.sort_unstable();
        let events = &self.events;
        let each = self.by_watcher.chunk_by(|(one, _), (other, _)| one == other);
        each.map(move |his| (his[0].0, his.iter().map(move |(_, place)| &events[*place])))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::mvcc::{Change, Revision, in_range};
    use crate::watch::Ring;
    use crate::wire::KeyValue;

    fn told(key: &'static str, main: i64, sub: i64, value: usize) -> Arc<Told> {
        let kv = KeyValue { key: key.into(), value: vec![0; value].into(), version: 1, ..KeyValue::default() };
        Arc::new(Told::new(Change { at: Revision { main, sub }, kv }, &Arc::default()))
    }

    /// Takes so many changes of each revision, until one isn't taken.
    fn heard(audience: &Audience, revisions: &[(i64, usize)], value: usize, bytes_max: usize) -> Heard {
        let mut heard = Heard::new(revisions[0].0, bytes_max);
        let all = revisions.iter().flat_map(|(main, changes)| (0..*changes).map(|sub| (*main, sub as i64)));
        let _ = all.map(|(main, sub)| told("k", main, sub, value)).all(|told| heard.take(audience, &told));
        heard
    }

    fn three() -> Audience {
        let mut audience = Audience::default();
        (0..3).for_each(|id| audience.add(&"a".into(), &"z".into(), id));
        audience
    }

    fn found(heard: &mut Heard) -> usize {
        heard.by_watcher().map(|(_, events)| events.count()).sum()
    }

    /// W1.
    #[test]
    fn what_is_heard_is_whole_revisions() {
        let mut all = heard(&three(), &[(5, 2), (6, 1)], 10, 1 << 16);
        assert_eq!((all.reached(9), found(&mut all)), (9, 9));
        // The second fills what one answer may hold; the third is left.
        let mut some = heard(&three(), &[(5, 1), (6, 2), (7, 1)], 1 << 13, 1 << 16);
        assert_eq!((some.reached(9), found(&mut some)), (6, 9));
        let mut none = heard(&Audience::default(), &[(5, LOOKED_AT_MAX + 1), (6, 1)], 1, 1 << 16);
        assert_eq!((none.reached(9), found(&mut none)), (5, 0));
    }

    #[test]
    fn a_revision_that_is_too_much_for_all_is_for_none_of_them() {
        let most = FOUND_MAX / 3;
        let mut alone = heard(&three(), &[(5, most + 1)], 0, usize::MAX);
        assert_eq!((alone.reached(9), found(&mut alone)), (4, 0));
        let mut behind = heard(&three(), &[(5, 1), (6, most)], 0, usize::MAX);
        assert_eq!((behind.reached(9), found(&mut behind)), (5, 3));
    }

    const KEYS: [&str; 4] = ["a", "b", "c", "d"];

    proptest! {
        /// Turn by turn, each watcher is told what the ring has for it alone.
        #[test]
        fn together_they_hear_what_each_would_alone(
            revisions in proptest::collection::vec(proptest::collection::vec((0..KEYS.len(), 0usize..40), 1..4), 1..12),
            ranges in proptest::collection::vec((0..KEYS.len(), 0..KEYS.len()), 0..6),
            bytes_max in 1usize..300,
        ) {
            let (mut ring, mut audience) = (Ring::new(0), Audience::default());
            for (main, changes) in (1..).zip(&revisions) {
                let changes = (0..).zip(changes).map(|(sub, (key, value))| told(KEYS[*key], main, sub, *value));
                ring.push(changes.collect());
            }
            let ranges: Vec<(Bytes, Bytes)> = ranges
                .iter()
                .map(|(from, many)| (KEYS[*from].into(), KEYS.get(from + many).map_or("\0", |key| key).into()))
                .map(|(from, end): (Bytes, Bytes)| if from == end { (from, Bytes::new()) } else { (from, end) })
                .collect();
            (0..).zip(&ranges).for_each(|(id, (from, end))| audience.add(from, end, id));
            let (mut from, to) = (1, revisions.len() as i64);
            while from <= to {
                let mut heard = Heard::new(from, bytes_max);
                ring.each(from, to, |told| heard.take(&audience, told)).expect("the ring holds all");
                let reached = heard.reached(to);
                prop_assert!(reached >= from, "it goes forward");
                let mut given = BTreeMap::new();
                for (id, events) in heard.by_watcher() {
                    prop_assert!(given.insert(id, events.map(|told| told.at).collect::<Vec<_>>()).is_none());
                }
                for (id, (key, end)) in (0..).zip(&ranges) {
                    let wanted = |of: &[u8], _| in_range(of, key, end);
                    let alone = ring.slice(from, reached, usize::MAX, wanted).expect("the ring holds all");
                    let alone: Vec<_> = alone.events.iter().map(|told| told.at).collect();
                    prop_assert_eq!(given.remove(&id).unwrap_or_default(), alone);
                }
                prop_assert!(given.is_empty(), "nobody else is told");
                from = reached + 1;
            }
        }
    }
}
