//! Who watches what.
//!
//! Problem. Of many watchers most don't care for a change, and to ask each of them costs as much as to tell one.
//! Idea.    Ranges are kept in an interval tree, as by etcd: a change finds those that hold its key.
//!
//! Source: etcd `server/storage/mvcc/watcher_group.go`.

use bytes::Bytes;
use interavl::IntervalTree;

/// A place between keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    /// Behind all keys.
    is_end: bool,
    key: Bytes,
    /// Right behind the key, and not before it.
    is_behind: bool,
}

impl Edge {
    fn before(key: &Bytes) -> Self {
        Self { is_end: false, key: key.clone(), is_behind: false }
    }

    fn behind(key: &Bytes) -> Self {
        Self { is_behind: true, ..Self::before(key) }
    }

    /// The end of etcd's range of a key and an end.
    fn of(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            b"" => Self::behind(key),
            b"\0" => Self { is_end: true, key: Bytes::new(), is_behind: false },
            _ => Self::before(range_end),
        }
    }
}

/// Watchers by their ranges.
#[derive(Debug, Default)]
pub struct Audience {
    ranges: IntervalTree<Edge, Vec<i64>>,
}

impl Audience {
    /// A watcher comes, which watches etcd's range of `key` and `range_end`; not an empty one.
    pub fn add(&mut self, key: &Bytes, range_end: &Bytes, watcher: i64) {
        let range = Edge::before(key)..Edge::of(key, range_end);
        match self.ranges.get_mut(&range) {
            Some(same) => same.push(watcher),
            None => drop(self.ranges.insert(range, vec![watcher])),
        }
    }

    /// The same watcher goes.
    pub fn remove(&mut self, key: &Bytes, range_end: &Bytes, watcher: i64) {
        let range = Edge::before(key)..Edge::of(key, range_end);
        let Some(same) = self.ranges.get_mut(&range) else { return };
        same.retain(|other| *other != watcher);
        if same.is_empty() {
            self.ranges.remove(&range);
        }
    }

    /// Who watches a key, in no order.
    pub fn of(&self, key: &Bytes, each: impl FnMut(i64)) {
        let range = Edge::before(key)..Edge::behind(key);
        self.ranges.iter_overlaps(&range).flat_map(|(_, watchers)| watchers).copied().for_each(each);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::mvcc::in_range;

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(0u8..3, 1..4).prop_map(Bytes::from)
    }

    fn range() -> impl Strategy<Value = (Bytes, Bytes)> {
        let end = prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(b"\0")), key()];
        (key(), end).prop_filter("not empty", |(key, end)| end.is_empty() || end == "\0" || key < end)
    }

    proptest! {
        /// Against a list of all watchers, each of which is asked.
        #[test]
        fn whoever_watches_a_key_is_found_and_nobody_else(
            steps in proptest::collection::vec((range(), any::<bool>(), 0i64..12), 0..60),
            keys in proptest::collection::vec(key(), 1..20),
        ) {
            let (mut audience, mut all) = (Audience::default(), BTreeMap::new());
            for ((key, end), comes, watcher) in steps {
                if let Some((key, end)) = all.remove(&watcher) {
                    audience.remove(&key, &end, watcher);
                }
                if comes {
                    audience.add(&key, &end, watcher);
                    all.insert(watcher, (key, end));
                }
            }
            for key in keys {
                let mut found = Vec::new();
                audience.of(&key, |watcher| found.push(watcher));
                found.sort_unstable();
                let watches = |(_, (from, end)): &(&i64, &(Bytes, Bytes))| in_range(&key, from, end);
                let wanted: Vec<i64> = all.iter().filter(watches).map(|(watcher, _)| *watcher).collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }
}
