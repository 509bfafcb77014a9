//! A member: the production state machine and ring, and what the state thread does around them.
//!
//! After `store/server/src/engine/apply.rs`: entries are applied together to memory and disk, then their changes go into the
//! ring, then the revision is published; between such it collects what compaction left, and a snapshot replaces the state,
//! then the ring. Here what is applied together is seen entry by entry, which readers of the program don't see.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use store_core::errors::RequestError;
use store_core::mvcc::{Change, Mvcc, Revision, Values};
use store_core::watch::{Audience, Heard, Ring, Slice, Told};
use store_core::wire::KeyValue;

use super::history::{Command, EMPTY, Wanted};
use super::stream::{Mutant, Source, ToTell, event};

/// Beyond so many bytes nobody is given another revision.
const BYTES_MAX: usize = 1;

/// What the state thread does next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// More entries, or nothing.
    Entry,
    /// Publishes changes up to a revision, unless more entries belong to them.
    Publish(Vec<Change>, i64),
    /// Forgets everything recent: the state is another's, at a revision.
    Restart(i64),
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    /// Entries applied.
    pub(super) applied: usize,
    pub(super) mvcc: Arc<Mvcc>,
    /// Changes on disk that aren't collected.
    disk: Arc<BTreeMap<Revision, KeyValue>>,
    pub(super) next: Next,
    ring: Arc<Ring>,
    /// The revision with which the ring began, and the changes that it takes.
    ring_began: i64,
    ring_max: usize,
    pub(super) published: i64,
    /// Compaction to here is collected.
    collected: i64,
}

impl PartialEq for Replica {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key() && self.disk == other.disk
    }
}

impl Hash for Replica {
    /// The rest follows from the log: the state from what is applied and collected, the ring from where it began and what was
    /// published since.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key().hash(hasher);
        self.disk.keys().for_each(|at| at.hash(hasher));
    }
}

/// Values don't matter to who applies these commands.
struct Empty;

impl Values for Empty {
    fn value(&self, _: Revision) -> Result<Bytes, RequestError> {
        Ok(Bytes::new())
    }
}

impl Replica {
    pub(super) fn new(ring_max: usize) -> Self {
        Self {
            applied: 0,
            mvcc: Arc::new(Mvcc::new()),
            disk: Arc::default(),
            next: Next::Entry,
            ring: Arc::new(Ring::bounded(EMPTY, ring_max)),
            ring_began: EMPTY,
            ring_max,
            published: EMPTY,
            collected: 0,
        }
    }

    fn key(&self) -> (usize, i64, i64, i64, u8) {
        let next = match self.next {
            Next::Entry => 0,
            Next::Publish(..) => 1,
            Next::Restart(_) => 2,
        };
        (self.applied, self.published, self.ring_began, self.collected, next)
    }

    /// Applies the next entry.
    pub(super) fn apply(&mut self, command: Command, mutant: Option<Mutant>) {
        let mut mvcc = Mvcc::clone(&self.mvcc);
        let (writes, _) = mvcc.apply(&command.wire(), &Empty);
        self.applied += 1;
        if !writes.changes.is_empty() {
            let disk = Arc::make_mut(&mut self.disk);
            disk.extend(writes.changes.iter().map(|change| (change.at, change.kv.clone())));
            if mutant == Some(Mutant::PublishFirst) {
                self.published = mvcc.revision();
            }
            let mut changes = match std::mem::replace(&mut self.next, Next::Entry) {
                Next::Publish(before, _) => before,
                Next::Entry | Next::Restart(_) => Vec::new(),
            };
            changes.extend(writes.changes);
            self.next = Next::Publish(changes, mvcc.revision());
        }
        self.mvcc = Arc::new(mvcc);
    }

    /// Tells watchers of what was applied or installed.
    pub(super) fn publish(&mut self, mutant: Option<Mutant>) {
        match std::mem::replace(&mut self.next, Next::Entry) {
            Next::Entry => {}
            Next::Publish(changes, revision) => {
                let ring = Arc::make_mut(&mut self.ring);
                let kept = ring.kept().clone();
                ring.push(changes.into_iter().map(|change| Arc::new(Told::new(change, &kept))).collect());
                self.published = revision;
            }
            Next::Restart(revision) => {
                if mutant != Some(Mutant::KeepRing) {
                    self.ring = Arc::new(Ring::bounded(revision, self.ring_max));
                    self.ring_began = revision;
                }
                self.published = revision;
            }
        }
    }

    /// Whether there is something to collect.
    pub(super) fn may_collect(&self) -> bool {
        self.next == Next::Entry && self.collected < self.mvcc.compacted()
    }

    /// Deletes what compaction left behind.
    pub(super) fn collect(&mut self) {
        let mut mvcc = Mvcc::clone(&self.mvcc);
        let disk = Arc::make_mut(&mut self.disk);
        loop {
            let (gone, more) = mvcc.collect();
            gone.iter().for_each(|at| drop(disk.remove(at)));
            if !more {
                break;
            }
        }
        self.collected = mvcc.compacted();
        self.mvcc = Arc::new(mvcc);
    }

    /// Takes the state of one that is ahead.
    pub(super) fn install(&mut self, other: &Self) {
        (self.applied, self.mvcc, self.disk) = (other.applied, other.mvcc.clone(), other.disk.clone());
        self.collected = other.collected;
        self.next = Next::Restart(self.mvcc.revision());
    }

    /// What is given next to watchers who want this, each under its place, and up to which revision; `None` if the ring
    /// doesn't hold it.
    pub(super) fn heard(&self, from: i64, to: i64, wanted: impl Iterator<Item = Wanted>) -> Option<(ToTell, i64)> {
        let (mut audience, mut heard) = (Audience::default(), Heard::new(from, BYTES_MAX));
        let key = |key| Bytes::from(vec![key]);
        (0..).zip(wanted).for_each(|(place, Wanted(from, end))| audience.add(&key(from), &key(end), place));
        self.ring.each(from, to, |told| heard.take(&audience, told))?;
        let reached = heard.reached(to);
        // Places are small.
        let told = heard.by_watcher().map(|(place, events)| (place as usize, events.map(event).collect()));
        Some((told.collect(), reached))
    }

    /// What a watcher is given next, and where it was read: one revision with a wanted change at most.
    pub(super) fn slice(&self, from: i64, to: i64, wanted: Wanted, mutant: Option<Mutant>) -> (Slice, Source) {
        if let Some(recent) = self.ring.slice(from, to, BYTES_MAX, |key, _| wanted.matches(key)) {
            return (recent, Source::Ring);
        }
        let mut slice = Slice::new(from);
        for (at, kv) in self.disk.range(Revision { main: from, sub: 0 }..) {
            if at.main > to {
                break;
            }
            let is_full = mutant == Some(Mutant::SplitRevision) && !slice.events.is_empty();
            if is_full || slice.ends_before(at.main, BYTES_MAX) {
                return (slice, Source::Disk);
            }
            let change = Change { at: *at, kv: kv.clone() };
            let told = wanted.matches(&kv.key).then(|| Arc::new(Told::new(change, self.ring.kept())));
            slice.take(at.main, told);
        }
        slice.reached = to;
        (slice, Source::Disk)
    }
}
