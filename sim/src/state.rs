//! A member's state: the production state machine, and what lies on its disk, as with `store/server/src/state.rs`.
//!
//! Each command's writes go with the applied index. What isn't flushed is lost with the process: the database has no
//! log of its own.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use raft::eraftpb::{ConfChange, Entry, Snapshot};
use store_core::divergence::{Chain, Hash, Votes};
use store_core::errors::RequestError;
use store_core::machine::{Machine, command};
use store_core::membership::Members;
use store_core::mvcc::{Answer, Change, Mvcc, Revision, Values};
use store_core::wire::command::Request;
use store_core::wire::{HashVotes, KeyValue, Membership};

use crate::chance::Chance;
use crate::disk::Fault;

/// Where a new cluster's log begins.
pub(crate) const FIRST: (u64, u64) = (1, 1);

/// What is written.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    /// Index and term of the last entry.
    pub(crate) applied: (u64, u64),
    pub(crate) hash: Hash,
    pub(crate) records: BTreeMap<Revision, KeyValue>,
    leases: BTreeMap<i64, (i64, i64)>,
    compacted: i64,
    revision: i64,
    members: Membership,
    votes: HashVotes,
    /// A record whose value lies in a block that can't be read any more.
    pub(crate) rotten: Option<Revision>,
}

impl Content {
    /// Of a new cluster with its founders.
    pub(crate) fn founded(members: &Members) -> Self {
        Self {
            applied: FIRST,
            hash: Chain::default().hash(),
            records: BTreeMap::new(),
            leases: BTreeMap::new(),
            compacted: 0,
            revision: 0,
            members: members.to_wire(),
            votes: HashVotes::default(),
            rotten: None,
        }
    }

    /// A bit of a value flips; `false` if there is none.
    fn rot(&mut self, chance: &mut Chance) -> bool {
        let values: Vec<Revision> = self.records.iter().filter(|(_, kv)| kv.version != 0).map(|(at, _)| *at).collect();
        if values.is_empty() {
            return false;
        }
        self.rotten = Some(values[chance.place(values.len())]);
        true
    }

    /// Of a member that joins.
    pub(crate) fn empty() -> Self {
        Self { applied: (0, 0), members: Membership::default(), ..Self::founded(&Members::default()) }
    }

    /// Rebuilds what is kept in memory.
    pub(crate) fn load(&self) -> Machine {
        let mut mvcc = Mvcc::new();
        for (id, (ttl, remaining)) in &self.leases {
            mvcc.restore_lease(*id, *ttl, *remaining);
        }
        if self.compacted > 0 {
            mvcc.restore_compacted(self.compacted);
        }
        for (at, kv) in &self.records {
            mvcc.restore_change(*at, kv, u32::try_from(kv.value.len()).unwrap_or(u32::MAX));
        }
        mvcc.restore_revision(self.revision);
        Machine {
            mvcc,
            members: Members::from_wire(self.members.clone()),
            chain: Chain::of(self.hash),
            votes: Votes::from_wire(&self.votes),
            ..Machine::default()
        }
    }

    /// As raft offers it: the content goes a way of its own.
    pub(crate) fn to_raft(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = self.applied;
        metadata.set_conf_state(Members::from_wire(self.members.clone()).conf_state());
        snapshot
    }
}

impl Values for Content {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        let readable = self.records.get(&at).filter(|_| self.rotten != Some(at));
        readable.map(|kv| kv.value.clone()).ok_or(RequestError::Disk)
    }
}

/// What applying an entry did.
pub(crate) struct Applied {
    pub(crate) request_id: u64,
    pub(crate) answer: Result<Answer, RequestError>,
    pub(crate) revision: i64,
    pub(crate) changes: Vec<Change>,
    pub(crate) granted: Vec<(i64, i64)>,
    pub(crate) ended: Vec<i64>,
    pub(crate) checkpoints: Vec<(i64, i64)>,
    /// It ended leases by a member's own decision.
    pub(crate) expiry: bool,
    pub(crate) compacted: Option<i64>,
    /// The members, if they changed, and what raft must be told of it.
    pub(crate) members: Option<Members>,
    pub(crate) conf_change: Option<ConfChange>,
}

/// A bit of a value flips; `false` if there is none.
pub(crate) fn rot(content: &mut Rc<Content>, chance: &mut Chance) -> bool {
    Rc::make_mut(content).rot(chance)
}

/// The state.
pub(crate) struct State {
    pub(crate) machine: Machine,
    pub(crate) content: Rc<Content>,
    /// What a crash leaves.
    pub(crate) flushed: Rc<Content>,
}

impl State {
    pub(crate) fn open(flushed: Rc<Content>) -> Self {
        Self { machine: flushed.load(), content: flushed.clone(), flushed }
    }

    /// A bit of a value on disk flips; `false` if there is none.
    pub(crate) fn rot(&mut self, chance: &mut Chance) -> bool {
        let flipped = rot(&mut self.flushed, chance);
        // What is kept in memory alone is read from there.
        let rotten = self.flushed.rotten.filter(|at| self.content.records.contains_key(at));
        Rc::make_mut(&mut self.content).rotten = rotten;
        flipped
    }

    /// Makes all durable.
    pub(crate) fn flush(&mut self) {
        self.flushed = self.content.clone();
    }

    /// A flush that began with this content is done. The database may have gone further by itself, or hold a
    /// snapshot that came in between; what rotted on disk meanwhile stays so.
    pub(crate) fn flushed_to(&mut self, mut content: Rc<Content>) {
        if content.applied > self.flushed.applied {
            let rotten = self.flushed.rotten.filter(|at| content.records.contains_key(at));
            if content.rotten != rotten {
                Rc::make_mut(&mut content).rotten = rotten;
            }
            self.flushed = content;
        }
    }

    /// Replaces all by a peer's snapshot, durably.
    pub(crate) fn install(&mut self, content: Rc<Content>) {
        *self = Self::open(content);
    }

    /// Applies an entry; `None` if it holds no command.
    ///
    /// # Errors
    /// If it takes a value that can't be read.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Option<Applied>, Fault> {
        // Members alone propose, and what they wrote is read.
        let read = command(entry).unwrap_or_else(|error| panic!("entry {}: {error}", entry.index));
        let content = Rc::make_mut(&mut self.content);
        content.applied = (entry.index, entry.term);
        let Some((command, conf_change)) = read else { return Ok(None) };
        let (writes, answer) = self.machine.apply(entry.index, &command, content);
        if matches!(answer, Err(RequestError::Disk)) {
            return Err(Fault::Unreadable);
        }
        content.hash = self.machine.chain.hash();
        for change in &writes.changes {
            content.records.insert(change.at, change.kv.clone());
        }
        if !writes.changes.is_empty() {
            content.revision = self.machine.mvcc.revision();
        }
        for (id, ttl) in &writes.granted {
            content.leases.insert(*id, (*ttl, 0));
        }
        for (id, remaining) in &writes.checkpoints {
            content.leases.insert(*id, (self.machine.mvcc.lease_ttl(*id).unwrap_or(0), *remaining));
        }
        for id in &writes.ended {
            content.leases.remove(id);
        }
        if let Some(compacted) = writes.compacted {
            content.compacted = compacted;
        }
        if let Some(members) = &writes.members {
            content.members = members.clone();
        }
        if let Some(votes) = writes.votes {
            content.votes = votes;
        }
        Ok(Some(Applied {
            request_id: command.request_id,
            conf_change: conf_change.filter(|_| answer.is_ok()),
            members: writes.members.is_some().then(|| self.machine.members.clone()),
            answer,
            revision: self.machine.mvcc.revision(),
            changes: writes.changes,
            granted: writes.granted,
            ended: writes.ended,
            checkpoints: writes.checkpoints,
            expiry: command.by_member && matches!(command.request, Some(Request::LeaseRevoke(_))),
            compacted: writes.compacted,
        }))
    }

    /// Deletes a slice of what compaction left behind; `false` once all is gone.
    pub(crate) fn collect(&mut self) -> bool {
        let (gone, more) = self.machine.mvcc.collect();
        if !gone.is_empty() {
            let content = Rc::make_mut(&mut self.content);
            for at in gone {
                content.records.remove(&at);
                content.rotten = content.rotten.filter(|rotten| *rotten != at);
            }
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rots_while_a_flush_is_on_stays_so_behind_it() {
        let mut content = Content::founded(&Members::default());
        content.records.insert(Revision { main: 2, sub: 0 }, KeyValue { version: 1, ..KeyValue::default() });
        let mut state = State::open(Rc::new(content));
        Rc::make_mut(&mut state.content).applied = (2, 1);
        let flushing = state.content.clone();
        assert!(state.rot(&mut Chance::new(1)));
        state.flushed_to(flushing);
        assert_eq!(state.flushed.applied, (2, 1));
        assert!(state.flushed.rotten.is_some(), "a flush mended what was on disk");
    }
}
