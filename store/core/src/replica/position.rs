//! What a member knows of itself: who leads, which term it is, how far it is.

use raft::eraftpb::ConfState;
use raft::{StateRole, Storage as _};

use super::{Log, Replica};

impl Replica {
    /// This member's number.
    pub fn id(&self) -> u64 {
        self.node.raft.id
    }

    /// The leader's number; 0 if there is none.
    pub fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// What it knows the state to have applied, or to hold once a snapshot that has arrived is installed. Changes of
    /// members count up to here.
    pub fn known_applied(&self) -> u64 {
        let log = &self.node.raft.raft_log;
        let received = log.unstable.snapshot.as_ref().map_or(0, |snapshot| snapshot.get_metadata().index);
        let installing = self.installing.map_or(0, |(_, index)| index);
        log.applied.max(received).max(installing)
    }

    /// The term of the entry that was applied last; 0 before the first.
    pub fn applied_term(&self) -> u64 {
        let log = &self.node.raft.raft_log;
        // What is applied is in the log, or where it begins.
        log.term(log.applied).unwrap_or(0)
    }

    /// Whether this member leads and has applied an entry of its own term, thus all that was committed before it.
    pub fn leads_applied(&self) -> bool {
        self.is_leader() && self.applied_term() == self.term()
    }

    /// Whether this member knows that its leader has committed an entry of its own term: until then a leader drops the
    /// requests of [`Replica::read_index`], and tells nobody. Source: raft-rs `raft.rs`, `step_leader`, MsgReadIndex.
    pub fn indexes_reads(&self) -> bool {
        let log = &self.node.raft.raft_log;
        self.leader() != 0 && log.term(log.committed).is_ok_and(|term| term == self.term())
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The commit index.
    pub fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The first and last index in memory.
    pub fn log_range(&self) -> (u64, u64) {
        let store = self.node.store();
        (store.first_index().unwrap_or(0), store.last_index().unwrap_or(0))
    }

    /// The log, for models and tests.
    pub fn log(&self) -> &Log {
        self.node.store()
    }

    /// Who votes.
    pub fn conf_state(&self) -> ConfState {
        self.node.raft.prs().conf().to_conf_state()
    }
}
