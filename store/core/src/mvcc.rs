//! Revisions: the state machine behind the log.
//!
//! Every command that changes anything makes one new revision; every change in it
//! has a sub-revision. Keys and their versions are indexed in memory; values lie
//! with the shell under their revision and are read through [`Values`].
//!
//! Invariants
//!   V1  The same commands in the same order give the same state, answers and writes.
//!   V2  A command that is refused changes nothing.
//!   V3  A key's versions ascend, and a tombstone is its first only as all that
//!       compaction left of it.
//!   V4  Reads at or above the compacted revision see all that was there.
//! Checked by: mvcc/tests.rs against a naive model.
//! Source: etcd `server/storage/mvcc`, `server/etcdserver/txn`.

mod apply;
pub mod check;
mod compaction;
mod encoding;
mod index;
mod live;
mod range;
mod reading;
#[cfg(test)]
mod tests;

pub use encoding::Encoding;
pub(crate) use encoding::encode_event;
pub use index::Version;
pub use live::{LEASE_BYTES, version_bytes};
pub use range::{Search, in_range, key_value};
pub use reading::Reading;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::errors::RequestError;
use crate::wire::{Command, KeyValue};
use index::Index;
use live::Live;

/// Where a change stands in history: revision, and place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The command's revision.
    pub main: i64,
    /// The change's place among the command's changes.
    pub sub: i64,
}

/// Values by revision, kept by the shell.
pub trait Values {
    /// The value written at a revision.
    ///
    /// # Errors
    /// [`RequestError::Disk`] if it can't be read: the member must stop.
    fn value(&self, at: Revision) -> Result<Bytes, RequestError>;

    /// Gives `take` the value of each of these revisions, which ascend, with its place among them.
    ///
    /// # Errors
    /// As [`Values::value`].
    fn each(&self, ats: &[Revision], take: &mut dyn FnMut(usize, &[u8])) -> Result<(), RequestError> {
        ats.iter().enumerate().try_for_each(|(place, at)| {
            take(place, &self.value(*at)?);
            Ok(())
        })
    }
}

/// One change of one key, as it is stored and told to watchers. Version 0 is a deletion.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Where it stands.
    pub at: Revision,
    /// The key's new state; of a deletion only key and mod_revision.
    pub kv: KeyValue,
}

/// What the shell has to write, together with the applied index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Writes {
    /// New values.
    pub changes: Vec<Change>,
    /// Leases granted: number and seconds.
    pub granted: Vec<(i64, i64)>,
    /// Leases ended.
    pub ended: Vec<i64>,
    /// Seconds left of leases; 0 for one that was renewed.
    pub checkpoints: Vec<(i64, i64)>,
    /// The new compacted revision, if it moved.
    pub compacted: Option<i64>,
    /// The members, if they changed.
    pub members: Option<crate::wire::Membership>,
    /// Users and roles that changed.
    pub auth: Vec<crate::auth::Entry>,
    /// The alarms, if they changed.
    pub alarms: Option<crate::wire::AlarmList>,
    /// Votes on hashes, if there is another.
    pub votes: Option<crate::wire::HashVotes>,
    /// What becomes of tokens; nothing to be written.
    pub tokens: Option<crate::auth::TokenChange>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To Put.
    Put(crate::wire::PutResponse),
    /// To DeleteRange.
    DeleteRange(crate::wire::DeleteRangeResponse),
    /// To Txn.
    Txn(crate::wire::TxnResponse),
    /// To Compact.
    Compact,
    /// To LeaseGrant: number and seconds.
    LeaseGrant(i64, i64),
    /// To LeaseRevoke.
    LeaseRevoke,
    /// To a checkpoint of leases.
    LeaseCheckpoint,
    /// To a change of members: those there are now.
    Members(Vec<crate::wire::Member>),
    /// To a change of users and roles.
    Auth,
    /// To a question about alarms, or a change of them: those it is about.
    Alarms(Vec<crate::wire::AlarmMember>),
    /// To a vote on hashes: who is found to be wrong.
    Voted(Vec<u64>),
    /// To a token's assignment: the index that makes it unique.
    Token(u64),
}

/// A lease: its time to live and the keys that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    ttl: i64,
    /// Seconds that were left at the last checkpoint; 0 if it was renewed since.
    remaining: i64,
    keys: BTreeSet<Bytes>,
}

/// The state.
#[derive(Debug, Clone, PartialEq)]
pub struct Mvcc {
    index: Index,
    live: Live,
    revision: i64,
    compacted: i64,
    leases: BTreeMap<i64, Lease>,
    /// Where collection of compacted versions goes on; `None` if it is done.
    collecting: Option<Bytes>,
}

impl Default for Mvcc {
    fn default() -> Self {
        Self::new()
    }
}

impl Mvcc {
    /// An empty store: its revision is 1, as etcd's.
    #[must_use]
    pub fn new() -> Self {
        Self {
            index: Index::default(),
            live: Live::default(),
            revision: 1,
            compacted: 0,
            leases: BTreeMap::new(),
            collecting: None,
        }
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compacted revision; 0 if there was no compaction.
    #[must_use]
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Rebuilding from disk: a lease, and what its last checkpoint says is left.
    pub fn restore_lease(&mut self, id: i64, ttl: i64, remaining: i64) {
        self.leases.insert(id, Lease { ttl, remaining, keys: BTreeSet::new() });
    }

    /// Rebuilding from disk: the compacted revision.
    pub fn restore_compacted(&mut self, revision: i64) {
        self.compacted = revision;
        self.revision = self.revision.max(revision);
        self.collecting = (revision > 0).then(Bytes::new);
    }

    /// Rebuilding from disk: changes, in order of revision, with the bytes of the value, which
    /// needn't be there itself. Leases and the compacted revision come before.
    pub fn restore_change(&mut self, at: Revision, kv: &KeyValue, value_bytes: u32) {
        self.revision = self.revision.max(at.main);
        self.write_index(at, kv, value_bytes);
    }

    /// The newest revision on record may be of a command whose changes were compacted away.
    pub fn restore_revision(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    fn write_index(&mut self, at: Revision, kv: &KeyValue, value_bytes: u32) {
        self.write_index_at(self.index.spot(&kv.key), at, kv, value_bytes);
    }

    /// Where the key was looked up.
    fn write_index_at(&mut self, spot: index::Spot, at: Revision, kv: &KeyValue, value_bytes: u32) {
        let version = Version { at, create: kv.create_revision, version: kv.version, lease: kv.lease, value_bytes };
        if let Some(old) = self.index.push(spot, &kv.key, version) {
            if let Some(lease) = self.leases.get_mut(&old.lease) {
                lease.keys.remove(&kv.key);
            }
            // A deletion's end was known as it was made.
            if !old.is_deletion() {
                let from = at.main.max(old.at.main + 1);
                self.live.hide(version_bytes(kv.key.len(), old.value_bytes as usize), from, self.compacted);
            }
        }
        let bytes = version_bytes(kv.key.len(), value_bytes as usize);
        self.live.add(bytes);
        if let Some(lease) = self.leases.get_mut(&kv.lease) {
            // Memory of its own, as in the index.
            lease.keys.insert(Bytes::copy_from_slice(&kv.key));
        }
        if version.is_deletion() {
            self.live.hide(bytes, at.main + 1, self.compacted);
        }
    }

    /// Applies a command: what to write, and the answer.
    ///
    /// # Errors
    /// [`RequestError`] if it is refused; then nothing changed (V2).
    pub fn apply(&mut self, command: &Command, values: &impl Values) -> (Writes, Result<Answer, RequestError>) {
        apply::apply(self, command, values)
    }

    /// The numbers of the leases.
    pub fn leases(&self) -> impl Iterator<Item = i64> + '_ {
        self.leases.keys().copied()
    }

    /// The leases, their times to live, and what their last checkpoint left of it (0: all).
    pub fn lease_times(&self) -> impl Iterator<Item = (i64, i64, i64)> + '_ {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl, lease.remaining))
    }

    /// A lease's time to live; `None` if there is no such lease.
    #[must_use]
    pub fn lease_ttl(&self, id: i64) -> Option<i64> {
        self.leases.get(&id).map(|lease| lease.ttl)
    }

    /// The keys attached to a lease, in order.
    #[must_use]
    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        self.leases.get(&id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    /// The version of a key that a read at a revision sees.
    #[must_use]
    pub fn newest_at(&self, key: &[u8], revision: i64) -> Option<Revision> {
        self.index.at(key, revision).map(|version| version.at)
    }

    /// The revision at which a key that is there now was made.
    #[must_use]
    pub fn created(&self, key: &[u8]) -> Option<i64> {
        self.index.latest(key).filter(|version| !version.is_deletion()).map(|version| version.create)
    }

    /// Bytes of all versions that a read may still see, and of the leases: what a quota is about.
    /// The same on all members at the same index, however far collection has come.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live.bytes() + LEASE_BYTES * self.leases.len() as u64
    }

    /// Keys that are there now.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.index.alive()
    }
}
