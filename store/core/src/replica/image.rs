//! What decides how a replica goes on, as plain data: how models tell members apart.
//!
//! raft-rs keeps more than this. What is left out has no say as long as the caller
//!   - polls until there is nothing left and reports what it applied at once,
//!   - offers a snapshot of what it has applied when one is wanted, and never withdraws it,
//!   - lets a heartbeat pass every tick, and a campaign after a fixed number of them:
//!
//! messages and states waiting for `poll` are gone then, the applied index says what was
//! handed out, the counter of heartbeats is zero, and windows of messages in flight and
//! bytes not committed are far from their limits. Steps that wait to be durable are the
//! caller's to remember.

use std::collections::{BTreeMap, BTreeSet};

use raft::{ProgressState, StateRole};

use super::Replica;

/// A replica between two inputs. Its log is [`Replica::log`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The current term.
    pub term: u64,
    /// Whom the vote of this term went to; 0 if to nobody.
    pub vote: u64,
    /// The leader; 0 if none is known.
    pub leader: u64,
    /// Part in the current term.
    pub role: StateRole,
    /// Index up to which entries are committed.
    pub committed: u64,
    /// Index up to which entries are durable here.
    pub persisted: u64,
    /// Index up to which entries were applied.
    pub applied: u64,
    /// Ticks since a leader was heard from, or since a leader last looked for its peers.
    pub election_elapsed: usize,
    /// A leader's: no change of members before this index is applied.
    pub pending_conf_index: u64,
    /// A leader's: whom it hands over to; 0 if to nobody.
    pub transferee: u64,
    /// A candidate's: who voted for and against it.
    pub votes: BTreeMap<u64, bool>,
    /// A leader's: how far the members are. Others keep what they knew as leaders, unread.
    pub peers: BTreeMap<u64, Peer>,
    /// Who votes, as far as it has applied changes of members.
    pub voters: BTreeSet<u64>,
    /// Who learns.
    pub learners: BTreeSet<u64>,
    /// From which index on a peer needs a snapshot that isn't offered.
    pub snapshot_wanted: Option<u64>,
    /// Index of the snapshot that is offered.
    pub snapshot_offered: Option<u64>,
    /// A leader's: reads for which it asks whether it still leads, oldest first.
    pub reads: Vec<Read>,
    /// How many reads were asked for here.
    pub contexts: u64,
}

/// A read on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// What tells it from all others.
    pub context: Vec<u8>,
    /// The member that asked; 0 if it is this one.
    pub from: u64,
    /// What was committed when the leader heard of it.
    pub index: u64,
    /// Who has acknowledged the leader since.
    pub acks: BTreeSet<u64>,
}

/// What a leader knows of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Index up to which its log is the leader's.
    pub matched: u64,
    /// The next index to send.
    pub next: u64,
    /// Whether it is probed, fed or sent a snapshot.
    pub state: ProgressState,
    /// Whether a probe is on its way.
    pub paused: bool,
    /// Whether it was heard from since the leader last looked.
    pub recent_active: bool,
    /// Index of the snapshot that it is being sent; 0 if none is.
    pub pending_snapshot: u64,
}

impl Replica {
    /// The replica as plain data, for models.
    #[must_use]
    pub fn image(&self) -> Image {
        let raft = &self.node.raft;
        let conf = self.conf_state();
        let peer = |progress: &raft::Progress| Peer {
            matched: progress.matched,
            next: progress.next_idx,
            state: progress.state,
            paused: progress.paused,
            recent_active: progress.recent_active,
            pending_snapshot: progress.pending_snapshot,
        };
        let mut peers = BTreeMap::new();
        if raft.state == StateRole::Leader {
            peers = raft.prs().iter().map(|(id, progress)| (*id, peer(progress))).collect();
        }
        Image {
            term: raft.term,
            vote: raft.vote,
            leader: raft.leader_id,
            role: raft.state,
            committed: raft.raft_log.committed,
            persisted: raft.raft_log.persisted,
            applied: raft.raft_log.applied,
            election_elapsed: raft.election_elapsed,
            pending_conf_index: raft.pending_conf_index,
            transferee: raft.lead_transferee.unwrap_or(0),
            votes: raft.prs().votes().iter().map(|(id, granted)| (*id, *granted)).collect(),
            peers,
            voters: conf.voters.iter().copied().collect(),
            learners: conf.learners.iter().copied().collect(),
            snapshot_wanted: self.wanted_snapshot(),
            snapshot_offered: self.log().offered_snapshot(),
            reads: self.reads_under_way(),
            contexts: self.contexts,
        }
    }

    fn reads_under_way(&self) -> Vec<Read> {
        let reads = &self.node.raft.read_only;
        let read = |context: &Vec<u8>| {
            let status = reads.pending_read_index.get(context)?;
            Some(Read {
                context: context.clone(),
                from: status.req.from,
                index: status.index,
                acks: status.acks.iter().copied().collect(),
            })
        };
        reads.read_index_queue.iter().filter_map(read).collect()
    }
}
