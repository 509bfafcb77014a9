//! Recent changes, each encoded once for all watchers.
//!
//! Invariants
//!   G1  All changes of revisions above `floor` are here, in order.
//!   G2  What an event costs is counted while the ring holds it, and what was before it while
//!       anybody does: both are bounded, whatever watchers ask for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;

use crate::mvcc::{Change, Revision, encode_event};
use crate::wire::{Event, KeyValue};

/// Recent changes that watchers read without touching the disk.
const CHANGES_MAX: usize = 16_384;
const BYTES_MAX: usize = 8 << 20;
/// Encoded events with what was before them that are kept for the next watcher that asks.
const BEFORE_BYTES_MAX: usize = 8 << 20;

/// A change as watchers share it: encoded as it stands in a `WatchResponse`.
#[derive(Debug)]
pub struct Told {
    /// Where it stands.
    pub at: Revision,
    /// Whose it is.
    pub key: Bytes,
    /// The key is gone.
    pub is_deletion: bool,
    /// It is a key's first version: there is none before it, not even one that the same transaction deleted.
    pub creates: bool,
    /// Without what was before.
    pub encoded: Bytes,
    /// Encoded with what was before, once somebody asked for it.
    with_before: OnceLock<Bytes>,
    kept: Arc<AtomicUsize>,
}

impl Told {
    /// Encodes a change. `kept` is [`Ring::kept`].
    #[must_use]
    pub fn new(change: Change, kept: &Arc<AtomicUsize>) -> Self {
        let Change { at, kv } = change;
        let (key, is_deletion) = (kv.key.clone(), kv.version == 0);
        let creates = kv.create_revision == kv.mod_revision;
        let encoded = encode_event(&kv).into();
        Self { at, key, is_deletion, creates, encoded, with_before: OnceLock::new(), kept: kept.clone() }
    }

    /// The event with the version before it, which is looked up if nobody has yet; `None` if it isn't there.
    pub fn with_before(&self, before: impl FnOnce() -> Option<KeyValue>) -> Option<Bytes> {
        if let Some(known) = self.with_before.get() {
            return Some(known.clone());
        }
        let before = before()?;
        // Encoded messages one behind the other are one message with the fields of both.
        let rest = Event { prev_kv: Some(before), ..Event::default() };
        let mut whole = Vec::with_capacity(self.encoded.len() + rest.encoded_len());
        whole.extend_from_slice(&self.encoded);
        whole.extend_from_slice(&rest.encode_to_vec());
        let whole = Bytes::from(whole);
        if self.kept.fetch_add(whole.len(), Ordering::Relaxed) + whole.len() > BEFORE_BYTES_MAX
            || self.with_before.set(whole.clone()).is_err()
        {
            self.kept.fetch_sub(whole.len(), Ordering::Relaxed);
        }
        Some(whole)
    }

    fn cost(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.encoded.len()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(whole) = self.with_before.get() {
            self.kept.fetch_sub(whole.len(), Ordering::Relaxed);
        }
    }
}

/// Recent changes in order, each shared by all watchers.
#[derive(Debug, Clone)]
pub struct Ring {
    changes: VecDeque<Arc<Told>>,
    bytes: usize,
    changes_max: usize,
    /// Changes of revisions at or below this aren't all in the ring.
    floor: i64,
    kept: Arc<AtomicUsize>,
}

impl Ring {
    /// An empty one: changes of later revisions than `floor` come.
    #[must_use]
    pub fn new(floor: i64) -> Self {
        Self::bounded(floor, CHANGES_MAX)
    }

    /// The same for so many changes at most.
    #[must_use]
    pub fn bounded(floor: i64, changes_max: usize) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, changes_max, floor, kept: Arc::default() }
    }

    /// Takes the changes of the next revisions, whole ones; the oldest go.
    pub fn push(&mut self, changes: Vec<Arc<Told>>) {
        for told in changes {
            self.bytes += told.cost();
            self.changes.push_back(told);
        }
        while self.changes.len() > self.changes_max || self.bytes > BYTES_MAX {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= oldest.cost();
            // A revision that lost a change isn't whole any more.
            self.floor = oldest.at.main;
        }
    }

    /// The changes from a revision on; `None` if they aren't all here.
    fn from(&self, revision: i64) -> Option<impl Iterator<Item = &Arc<Told>>> {
        (revision > self.floor).then(|| {
            let start = self.changes.partition_point(|told| told.at.main < revision);
            self.changes.range(start..)
        })
    }

    /// Wanted changes of the revisions `from..=to`; `None` if they aren't all here. `wanted` is asked about a key, and
    /// whether it is a deletion.
    pub fn slice(&self, from: i64, to: i64, bytes_max: usize, wanted: impl Fn(&[u8], bool) -> bool) -> Option<Slice> {
        let mut slice = Slice::new(from);
        for told in self.from(from)?.take_while(|told| told.at.main <= to) {
            if slice.ends_before(told.at.main, bytes_max) {
                return Some(slice);
            }
            slice.take(told.at.main, wanted(&told.key, told.is_deletion).then(|| told.clone()));
        }
        slice.reached = to;
        Some(slice)
    }

    /// Hands over changes of the revisions `from..=to` in order, until `take` wants no more; `None` if they aren't all
    /// here.
    pub fn each(&self, from: i64, to: i64, take: impl FnMut(&Arc<Told>) -> bool) -> Option<()> {
        self.from(from)?.take_while(|told| told.at.main <= to).all(take);
        Some(())
    }

    /// Where the bytes are counted that events keep of what was before them.
    #[must_use]
    pub fn kept(&self) -> &Arc<AtomicUsize> {
        &self.kept
    }
}

/// What a watcher is given at once, gathered in order: whole revisions up to about a number of bytes.
#[derive(Debug, Clone)]
pub struct Slice {
    /// What is wanted.
    pub events: Vec<Arc<Told>>,
    /// All that is wanted up to here is in the slice.
    pub reached: i64,
    bytes: usize,
    looked_at: usize,
}

/// Changes that are looked at for one slice, wanted or not.
pub const LOOKED_AT_MAX: usize = 4096;

impl Slice {
    /// An empty one that begins with a revision.
    #[must_use]
    pub fn new(from: i64) -> Self {
        Self { events: Vec::new(), reached: from - 1, bytes: 0, looked_at: 0 }
    }

    /// Whether the slice ends before a change of this revision.
    #[must_use]
    pub fn ends_before(&self, main: i64, bytes_max: usize) -> bool {
        (self.bytes >= bytes_max || self.looked_at >= LOOKED_AT_MAX) && main > self.reached
    }

    /// Takes the next change into account, and in if it is wanted.
    pub fn take(&mut self, main: i64, wanted: Option<Arc<Told>>) {
        self.looked_at += 1;
        self.reached = main;
        if let Some(told) = wanted {
            self.bytes += told.encoded.len();
            self.events.push(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(main: i64, bytes: usize, kept: &Arc<AtomicUsize>) -> Arc<Told> {
        let kv = KeyValue { key: "k".into(), value: vec![b'v'; bytes].into(), version: 2, ..KeyValue::default() };
        Arc::new(Told::new(Change { at: Revision { main, sub: 0 }, kv }, kept))
    }

    fn revisions(ring: &Ring, from: i64) -> Option<Vec<i64>> {
        ring.from(from).map(|all| all.map(|told| told.at.main).collect())
    }

    #[test]
    fn what_falls_out_is_not_there_in_part() {
        let mut ring = Ring::new(4);
        let kept = ring.kept().clone();
        ring.push(vec![told(5, 10, &kept), told(5, 10, &kept), told(6, 10, &kept)]);
        assert_eq!(revisions(&ring, 4), None);
        assert_eq!(revisions(&ring, 5), Some(vec![5, 5, 6]));
        assert_eq!(revisions(&ring, 7), Some(vec![]));
        // Room for this and one of those.
        ring.push(vec![told(7, BYTES_MAX - 500, &kept)]);
        assert_eq!((revisions(&ring, 5), revisions(&ring, 7)), (None, Some(vec![7])));
        ring.push((0..=CHANGES_MAX as i64).map(|n| told(8 + n, 1, &kept)).collect());
        assert_eq!((revisions(&ring, 8), revisions(&ring, 9).map(|all| all.len())), (None, Some(CHANGES_MAX)));
    }

    #[test]
    fn what_was_before_is_kept_for_the_next_within_bounds() {
        let kept = Arc::new(AtomicUsize::new(0));
        let before = |bytes: usize| move || Some(KeyValue { value: vec![b'o'; bytes].into(), ..KeyValue::default() });
        let small = told(5, 10, &kept);
        let first = small.with_before(before(100)).expect("it is there");
        let decoded = Event::decode(first.clone()).expect("an event");
        assert_eq!(decoded.prev_kv.map(|kv| kv.value.len()), Some(100));
        assert_eq!(decoded.kv.map(|kv| kv.value.len()), Some(10));
        assert_eq!(small.with_before(|| panic!("it is known")).as_ref(), Some(&first));
        assert_eq!(kept.load(Ordering::Relaxed), first.len());
        let large = told(6, 10, &kept);
        assert!(large.with_before(before(BEFORE_BYTES_MAX)).is_some_and(|whole| whole.len() > BEFORE_BYTES_MAX));
        assert_eq!(kept.load(Ordering::Relaxed), first.len());
        assert_eq!(large.with_before(|| None), None);
        drop(small);
        assert_eq!(kept.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_slice_holds_whole_revisions() {
        let kept = Arc::default();
        let mut slice = Slice::new(5);
        let mut given = Vec::new();
        for main in [5, 6, 6, 6, 7] {
            if slice.ends_before(main, 50) {
                break;
            }
            slice.take(main, Some(told(main, 30, &kept)));
            given.push(main);
        }
        assert_eq!((given, slice.reached), (vec![5, 6, 6, 6], 6));
    }
}
