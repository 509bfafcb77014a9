//! What is true: the one history that all members must have, as the first of them applies it.

use std::collections::BTreeMap;

use raft::eraftpb::Entry;
use store_core::divergence::Hash;
use store_core::membership::Members;
use store_core::mvcc::{Change, in_range};

use crate::queue::{SECOND, Time};
use crate::state::{Applied, FIRST, State};

/// An event as a client is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) revision: i64,
    pub(crate) key: String,
    /// None: it was deleted.
    pub(crate) value: Option<String>,
}

/// A revision.
pub(crate) struct Written {
    pub(crate) events: Vec<Told>,
}

/// What is known of a lease.
#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    /// Until when it lives at least, by what its holder was told.
    promised: Time,
    /// When it ended by itself.
    expired: Option<Time>,
}

/// The history.
#[derive(Default)]
pub(crate) struct Canon {
    /// Term and hash of each entry behind the first.
    entries: Vec<(u64, Hash)>,
    /// Behind revision 1.
    pub(crate) written: Vec<Written>,
    pub(crate) compacted: Vec<i64>,
    leaders: BTreeMap<u64, u64>,
    leases: BTreeMap<i64, Lease>,
    /// Who belongs to the cluster, and how often that changed.
    pub(crate) members: Members,
    pub(crate) changes: u64,
    /// Snapshots that were taken.
    pub(crate) snapshots: u64,
    /// What must not be.
    pub(crate) violations: Vec<String>,
}

impl Canon {
    /// Of a cluster with these founders.
    pub(crate) fn new(founders: &Members) -> Self {
        Self { members: founders.clone(), ..Self::default() }
    }

    pub(crate) fn violate(&mut self, now: Time, what: String) {
        self.violations.push(format!("at {:.6} s: {what}", now as f64 / SECOND as f64));
    }

    pub(crate) fn elected(&mut self, term: u64, member: u64, now: Time) {
        let first = *self.leaders.entry(term).or_insert(member);
        if first != member {
            self.violate(now, format!("members {first} and {member} both lead in term {term}"));
        }
    }

    /// A member has applied an entry.
    pub(crate) fn applied(&mut self, member: u64, entry: &Entry, state: &State, did: Option<&Applied>, now: Time) {
        let (place, is) = ((entry.index - FIRST.0 - 1) as usize, (entry.term, state.content.hash));
        match self.entries.get(place) {
            Some(known) if *known == is => return,
            Some(known) => {
                let (index, was) = (entry.index, known.0);
                let what = format!("member {member} applied another entry {index} (term {}) than before ({was})", is.0);
                return self.violate(now, what);
            }
            None if place == self.entries.len() => self.entries.push(is),
            None => return self.violate(now, format!("member {member} left entries before {} out", entry.index)),
        }
        let Some(did) = did else { return };
        if let Some(members) = &did.members {
            self.members = members.clone();
            self.changes += 1;
        }
        self.compacted.extend(did.compacted);
        if !did.changes.is_empty() {
            if did.revision != self.written.len() as i64 + 2 {
                self.violate(now, format!("revision {} follows on {}", did.revision, self.written.len() + 1));
            }
            let events = did.changes.iter().map(Told::of).collect();
            self.written.push(Written { events });
        }
        if did.expiry {
            did.ended.iter().for_each(|id| self.expired(*id, now));
        }
    }

    /// A member took a snapshot.
    pub(crate) fn installed(&mut self, member: u64, state: &State, now: Time) {
        self.snapshots += 1;
        let (index, term) = state.content.applied;
        let known = index.checked_sub(FIRST.0 + 1).and_then(|place| self.entries.get(place as usize));
        if known != Some(&(term, state.content.hash)) {
            self.violate(now, format!("member {member} took a snapshot of {index} that isn't what was applied"));
        }
    }

    /// Terms with a leader.
    pub(crate) fn reigns(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> i64 {
        self.written.len() as i64 + 1
    }

    /// The index of the last entry that anybody applied, and its hash.
    pub(crate) fn end(&self) -> (u64, Option<Hash>) {
        (FIRST.0 + self.entries.len() as u64, self.entries.last().map(|(_, hash)| *hash))
    }

    /// All that a watcher is to be given of the revisions `from..=to`.
    pub(crate) fn slice(&self, from: i64, to: i64, (key, end): (&str, &str)) -> impl Iterator<Item = &Told> {
        let places = (from.max(2) - 2) as usize..((to.max(1) - 1) as usize).min(self.written.len());
        let written = self.written.get(places).unwrap_or_default();
        let events = written.iter().flat_map(|written| &written.events);
        events.filter(move |told| in_range(told.key.as_bytes(), key.as_bytes(), end.as_bytes()))
    }

    /// A holder was told that his lease lives until then at least.
    pub(crate) fn promised(&mut self, id: i64, until: Time, now: Time) {
        let lease = self.leases.entry(id).or_default();
        lease.promised = lease.promised.max(until);
        self.judge(id, now);
    }

    fn expired(&mut self, id: i64, now: Time) {
        self.leases.entry(id).or_default().expired = Some(now);
        self.judge(id, now);
    }

    fn judge(&mut self, id: i64, now: Time) {
        let Some(Lease { promised, expired: Some(expired) }) = self.leases.get(&id).copied() else { return };
        if expired < promised {
            let (expired, promised) = (expired as f64 / SECOND as f64, promised as f64 / SECOND as f64);
            self.violate(now, format!("lease {id} ended at {expired:.3} s and was promised until {promised:.3} s"));
        }
    }
}

impl Told {
    fn of(change: &Change) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = (change.kv.version != 0).then(|| text(&change.kv.value));
        Self { revision: change.at.main, key: text(&change.kv.key), value }
    }
}
