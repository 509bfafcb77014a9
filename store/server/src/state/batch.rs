//! Entries that are applied together: one batch for RocksDB.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{ConfChange, Entry};
use rocksdb::WriteBatch;
use store_core::auth::TokenChange;
use store_core::divergence::Hash;
use store_core::errors::RequestError;
use store_core::machine::{Machine, command};
use store_core::membership::Members;
use store_core::mvcc::{Answer, Change, Revision, Values, Writes};

use super::StateError;
use super::disk::{
    ALARMS, APPLIED, AUTH, COMPACTED, Disk, LEASES, MEMBERS, META, REVISION, VOTES, lease_times, position,
};

/// What applying an entry did.
pub(crate) struct Applied {
    pub(crate) index: u64,
    /// The hash of all that was applied up to it.
    pub(crate) hash: Hash,
    /// What its command did; `None` if it holds none.
    pub(crate) done: Option<Done>,
}

/// What a command did.
pub(crate) struct Done {
    pub(crate) request_id: u64,
    pub(crate) answer: Result<Answer, RequestError>,
    pub(crate) revision: i64,
    pub(crate) changes: Vec<Change>,
    pub(crate) granted: Vec<(i64, i64)>,
    pub(crate) ended: Vec<i64>,
    pub(crate) checkpoints: Vec<(i64, i64)>,
    /// The members, if they changed.
    pub(crate) members: Option<Members>,
    /// The compacted revision before and after, if it moved.
    pub(crate) compacted: Option<(i64, i64)>,
    /// What raft must be told of it.
    pub(crate) conf_change: Option<ConfChange>,
    pub(crate) tokens: Option<TokenChange>,
}

/// What is to be written, and the values in it, which commands behind may ask for.
pub(super) struct Batch<'a> {
    disk: &'a Disk,
    writes: WriteBatch,
    /// Revisions ascend.
    values: Vec<(Revision, Bytes)>,
    has_changes: bool,
}

impl Values for Batch<'_> {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        let place = self.values.binary_search_by_key(&at, |(written, _)| *written);
        place.map_or_else(|_| self.disk.value(at), |place| Ok(self.values[place].1.clone()))
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(disk: &'a Disk) -> Self {
        Self { disk, writes: WriteBatch::default(), values: Vec::new(), has_changes: false }
    }

    /// Applies an entry to what is in memory.
    pub(super) fn apply(&mut self, machine: &mut Machine, entry: &Entry) -> Result<Applied, StateError> {
        let read = command(entry).map_err(|_| StateError::Damaged("a command can't be read"))?;
        let Some((command, conf_change)) = read else {
            return Ok(Applied { index: entry.index, hash: machine.chain.hash(), done: None });
        };
        let compacted = machine.mvcc.compacted();
        let (writes, answer) = machine.apply(entry.index, &command, self);
        if answer == Err(RequestError::Disk) {
            return Err(StateError::Damaged("a value that the index knows is missing"));
        }
        self.add(machine, &writes);
        let done = Done {
            request_id: command.request_id,
            // A change that was refused is none to raft either.
            conf_change: conf_change.filter(|_| answer.is_ok()),
            answer,
            revision: machine.mvcc.revision(),
            members: writes.members.is_some().then(|| machine.members.clone()),
            changes: writes.changes,
            granted: writes.granted,
            ended: writes.ended,
            checkpoints: writes.checkpoints,
            compacted: writes.compacted.map(|to| (compacted, to)),
            tokens: writes.tokens,
        };
        Ok(Applied { index: entry.index, hash: machine.chain.hash(), done: Some(done) })
    }

    fn add(&mut self, machine: &Machine, writes: &Writes) {
        let (disk, batch) = (self.disk, &mut self.writes);
        let (meta, leases) = (disk.family(META), disk.family(LEASES));
        for change in &writes.changes {
            disk.put_change(batch, change);
            self.values.push((change.at, change.kv.value.clone()));
        }
        self.has_changes |= !writes.changes.is_empty();
        for (id, ttl) in &writes.granted {
            batch.put_cf(leases, id.to_be_bytes(), lease_times(*ttl, 0));
        }
        for (id, remaining) in &writes.checkpoints {
            let ttl = machine.mvcc.lease_ttl(*id).unwrap_or(0);
            batch.put_cf(leases, id.to_be_bytes(), lease_times(ttl, *remaining));
        }
        for id in &writes.ended {
            batch.delete_cf(leases, id.to_be_bytes());
        }
        if let Some(compacted) = writes.compacted {
            batch.put_cf(meta, COMPACTED, compacted.to_be_bytes());
        }
        if let Some(members) = &writes.members {
            batch.put_cf(meta, MEMBERS, members.encode_to_vec());
        }
        if let Some(alarms) = &writes.alarms {
            batch.put_cf(meta, ALARMS, alarms.encode_to_vec());
        }
        if let Some(votes) = &writes.votes {
            batch.put_cf(meta, VOTES, votes.encode_to_vec());
        }
        for (key, value) in &writes.auth {
            match value {
                Some(value) => batch.put_cf(disk.family(AUTH), key, value),
                None => batch.delete_cf(disk.family(AUTH), key),
            }
        }
    }

    /// Writes all of it; `last` is the last entry in it (S1).
    pub(super) fn write(mut self, machine: &Machine, last: &Entry) -> Result<(), StateError> {
        let meta = self.disk.family(META);
        if self.has_changes {
            self.writes.put_cf(meta, REVISION, machine.mvcc.revision().to_be_bytes());
        }
        self.writes.put_cf(meta, APPLIED, position(last.index, last.term, machine.chain.hash()));
        self.disk.write(self.writes)
    }
}
