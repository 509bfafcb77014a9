//! When a member stands for election.
//!
//! A member keeps to its leader for an election timeout and refuses its vote so long, so that one who was cut off alone
//! disturbs nobody. Two things needn't be waited for: a leader where none is known, and one whose process has ended, as
//! the system of its machine tells whoever dials it. To raft the second is nothing but time that passes: clocks may go
//! as they like, so it can't be wrong, only early.

use super::Replica;

/// Ticks from when one member stands early to when the next does.
const STAND_EARLY_TICKS: u64 = 3;

/// A leader whose process has ended, and isn't heard of since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone {
    pub(super) peer: u64,
    /// The tick at which this member first could stand for it.
    since: Option<u64>,
}

impl Replica {
    /// Time passes; not while this member mustn't stand (A5, A7).
    pub fn tick(&mut self) {
        if !self.must_not_stand() {
            self.node.tick();
            let stands_again = !self.is_leader() && self.node.raft.election_elapsed == 0;
            self.note_time(stands_again);
        }
    }

    /// Stands for election at once, as after waiting in vain; not while it mustn't (A5, A7).
    pub fn campaign(&mut self) {
        if !self.must_not_stand() {
            // Fails only for a stopped node, which this crate never makes.
            let _ = self.node.campaign();
            self.note_time(true);
        }
    }

    /// A peer's process has ended. If it led, an election timeout passes: others get this member's vote from now on, and
    /// it stands early itself.
    pub fn gone(&mut self, peer: u64) {
        if self.is_leader() || self.leader() != peer || self.gone.is_some_and(|gone| gone.peer == peer) {
            return;
        }
        for _ in 0..self.node.raft.election_timeout() {
            self.tick();
        }
        self.gone = Some(Gone { peer, since: None });
    }

    /// Without any leader, members stand one after the other: the first start, or a leader's end,
    /// needs no whole election timeout, and pre-vote makes it harmless.
    pub fn stand_early(&mut self, tick: u64) {
        let leader = self.leader();
        if leader != 0 && self.gone.is_none_or(|gone| gone.peer != leader) {
            return;
        }
        let gone = self.gone.as_ref().map(|gone| gone.peer);
        // All hear of an end at about the same time.
        let since = self.gone.as_mut().map_or(1, |gone| *gone.since.get_or_insert(tick));
        let mut voters = self.conf_state().voters;
        voters.retain(|id| Some(*id) != gone);
        voters.sort_unstable();
        let Some(rank) = voters.iter().position(|id| *id == self.id()) else { return };
        let (rank, round) = (rank as u64, STAND_EARLY_TICKS * voters.len() as u64);
        if tick % round == (since + STAND_EARLY_TICKS * rank) % round {
            self.campaign();
        }
    }

    /// A5, A7.
    pub(super) fn must_not_stand(&self) -> bool {
        let log = &self.node.raft.raft_log;
        let is_behind = || !self.is_leader() && log.persisted < log.last_index();
        self.installing.is_some() || is_behind() && self.conf_state().voters == [self.id()]
    }
}
