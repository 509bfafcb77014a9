//! One member's part in consensus: raft-rs, driven by inputs, answering with effects.
//!
//! Methods sort into inputs (`tick`, `receive`, `propose`, `read_index`,
//! `persisted`, `applied`, …) and [`Replica::poll`]. After any input, poll until it
//! yields nothing; carry each [`Step`] out in the order of its fields. Persisting
//! may take its time: the leader's entries are on their way meanwhile, and
//! `persisted(step.number)` is called, in order, once they are durable.
//!
//! Invariants
//!   A1  A message that depends on unsynced state leaves only after its sync: what
//!       followers say, and everything from a step that changed term or vote on, until that is durable.
//!   A2  Only entries that are committed and durable here are handed out to apply.
//!   A3  Commit is persisted no later than what was applied under it.
//!   A4  A read context is never used twice.
//!   A5  A member whose snapshot isn't durable yet doesn't stand for election: raft-rs would
//!       look for changes of members in entries that the snapshot replaced.
//!   A6  A leader that isn't a voter any more doesn't lead: raft-rs would count on a record of
//!       its own progress, which went with it.
//!   A7  The only voter doesn't stand while entries of its log aren't durable: it wins at once, and raft-rs counts on
//!       them. Among others an answer is waited for, which is asked for once they are (A1).
//!   A8  Who votes is never taken from an entry that a snapshot overtook: it may have been taken back since.
//! Source: Raft thesis §10.2.1 (A1), raft-rs `RawNode` docs.

mod image;
mod log;
mod position;
mod proposals;
mod reads;
mod recorder;
mod standing;
#[cfg(test)]
mod tests;
mod watchdog;

pub use image::{Image, Peer, Read};
pub use log::Log;
pub use proposals::{Proposals, ProposeError};
pub use reads::Reads;
pub use watchdog::Watchdog;

use raft::eraftpb::{ConfChange, Entry, HardState, Message, MessageType, Snapshot};
use raft::{Config, ProgressState, RawNode, ReadState, SnapshotStatus, StateRole};

use crate::trace::{Cause, Change, Letter, Members, hexadecimal};

/// What a member needs to know of its timing, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Ticks for which a member keeps to a leader it doesn't hear from, and a leader to
    /// peers it doesn't hear from.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader after which a member campaigns, at least; not below `election_ticks`.
    pub campaign_ticks_min: usize,
    /// The same, at most. raft-rs draws anew each time; where both are equal nothing
    /// is left to chance, as models and tests need it.
    pub campaign_ticks_max: usize,
}

impl Timing {
    /// A timing in which members that lose their leader together rarely campaign together.
    #[must_use]
    pub fn spread(election_ticks: usize, heartbeat_ticks: usize) -> Self {
        Self {
            election_ticks,
            heartbeat_ticks,
            campaign_ticks_min: election_ticks,
            campaign_ticks_max: 2 * election_ticks - 1,
        }
    }

    /// A timing without chance: members campaign after so many ticks without a leader.
    #[must_use]
    pub fn fixed(election_ticks: usize, heartbeat_ticks: usize, campaign_ticks: usize) -> Self {
        Self { election_ticks, heartbeat_ticks, campaign_ticks_min: campaign_ticks, campaign_ticks_max: campaign_ticks }
    }
}

/// How much of the log is kept that the state has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Entries and bytes, for followers that are a little behind.
    pub entries: usize,
    /// See `entries`.
    pub bytes: u64,
    /// Bytes for one that is being sent a snapshot; beyond, it needs another.
    pub bytes_max: u64,
}

/// Bytes of entries in one message.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages on their way to one peer.
const INFLIGHT_MESSAGES_MAX: usize = 256;
/// Bytes of entries proposed and not committed; more are refused.
const UNCOMMITTED_BYTES_MAX: u64 = 256 << 20;
/// Bytes of entries handed out to apply in one step.
const APPLY_BYTES_MAX: u64 = 16 << 20;

/// A member.
pub struct Replica {
    node: RawNode<Log>,
    term_and_vote: (u64, u64),
    /// The step that changed them last, until it is durable (A1).
    electing: Option<u64>,
    /// Who leads, since which term, and this member's part, as [`Step::leader`] told last.
    leader: (u64, u64),
    role: StateRole,
    contexts: u64,
    boot: u64,
    /// Steps handed out whose persistence wasn't reported yet.
    last_number: u64,
    /// The step that installs a snapshot, and the snapshot's index, until it is durable (A5).
    installing: Option<(u64, u64)>,
    /// A leader that isn't there any more, until it is heard of again.
    gone: Option<standing::Gone>,
    /// What happens, if anybody wants to know.
    recorder: Option<recorder::Recorder>,
}

/// What must be made durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Persist {
    /// A snapshot to install before anything else; it replaces log and state.
    pub snapshot: Option<Snapshot>,
    /// Entries to append; from the first on they replace what the log holds.
    pub entries: Vec<Entry>,
    /// New term, vote or commit.
    pub hard_state: Option<HardState>,
    /// Whether it must be on disk before `after` may leave; else it may wait for the next.
    pub sync: bool,
}

/// Effects of inputs, in the order in which they are to be carried out.
#[derive(Debug, Default)]
pub struct Step {
    /// To be given to [`Replica::persisted`].
    pub number: u64,
    /// Messages that may leave at once.
    pub now: Vec<Message>,
    /// What to write.
    pub persist: Persist,
    /// Messages that may leave once `persist` is durable.
    pub after: Vec<Message>,
    /// Committed entries, in order.
    pub apply: Vec<Entry>,
    /// Read requests that may be answered once their index is applied.
    pub reads: Vec<ReadState>,
    /// The new leader (0: none), if it or its term changed, and whether it is this member. What was sent to the one
    /// before may be lost: a leader that was elected again needn't know of it.
    pub leader: Option<(u64, bool)>,
}

impl Replica {
    /// A member that goes on from what its log holds.
    ///
    /// `boot` is unique to this run of the member (A4). `applied` is what the state
    /// machine has durably applied.
    ///
    /// # Panics
    /// If the timing makes no sense or the log is behind `applied`: the caller has checked both.
    #[must_use]
    pub fn new(id: u64, boot: u64, timing: Timing, applied: u64, log: Log) -> Self {
        let config = Config {
            id,
            election_tick: timing.election_ticks,
            heartbeat_tick: timing.heartbeat_ticks,
            min_election_tick: timing.campaign_ticks_min,
            // raft-rs excludes its upper end.
            max_election_tick: timing.campaign_ticks_max + 1,
            applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: APPLY_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            ..Config::default() // So `batch_append` is off: see tests/raft_rs.rs.
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = match RawNode::new(&config, log, &logger) {
            Ok(node) => node,
            Err(error) => panic!("raft refuses its own log or timing: {error}"),
        };
        let hard_state = node.raft.hard_state();
        Self {
            term_and_vote: (hard_state.term, hard_state.vote),
            electing: None,
            node,
            leader: (0, 0),
            role: StateRole::Follower,
            contexts: 0,
            boot,
            last_number: 0,
            installing: None,
            gone: None,
            recorder: None,
        }
    }

    /// Takes a peer's message. One that makes no sense is dropped.
    ///
    /// So is what only a leader can serve, where this member doesn't lead any more: raft would send it on in the peer's
    /// name. Who sent it learns of the new leader too.
    pub fn receive(&mut self, message: Message) {
        let letter = self.is_recorded().then(|| Letter::from(&message));
        self.step_message(message);
        if let Some(letter) = letter {
            self.note(|| Cause::Message(letter));
        }
    }

    fn step_message(&mut self, message: Message) {
        let is_late =
            matches!(message.msg_type, MessageType::MsgPropose | MessageType::MsgReadIndex) && !self.is_leader();
        // Whoever hands over waits in vain and goes on leading; who was asked because it is alone now stands by itself.
        let is_early = message.msg_type == MessageType::MsgTimeoutNow && self.must_not_stand();
        if is_late || is_early {
            return;
        }
        self.gone.take_if(|gone| gone.peer == message.from);
        // Local messages are never sent; a peer that forges one is ignored by raft-rs with an error.
        let _ = self.node.step(message);
    }

    /// The change of members at the index was applied to the state. Comes before [`Replica::applied`] of its index.
    /// A leader that it removes asks the voter with the longest log to stand at once (A6).
    ///
    /// # Panics
    /// If raft can't follow what the state accepted: they would disagree on who votes.
    pub fn members_changed(&mut self, index: u64, change: &ConfChange) {
        if index <= self.known_applied() {
            return; // A8
        }
        match self.node.apply_conf_change(change) {
            Ok(conf_state) => self.node.mut_store().set_conf_state(conf_state),
            Err(error) => panic!("raft refuses a change of members that the state accepted: {error}"),
        }
        if self.is_leader() && !self.node.raft.prs().conf().voters().contains(self.id()) {
            if let Some(successor) = self.best_successor() {
                self.node.raft.send_timeout_now(successor);
            }
            self.node.raft.become_follower(self.term(), raft::INVALID_ID);
        }
        let members = Members::from(&self.conf_state());
        self.note(|| Cause::Changed(Change::from(change), members));
    }

    /// Asks for an index at which a read is linearizable; returns its context. The
    /// request may be lost: ask again, with a new context. It is lost while
    /// [`Replica::indexes_reads`] says no.
    pub fn read_index(&mut self) -> Vec<u8> {
        self.contexts += 1;
        let id = self.node.raft.id;
        let context: Vec<u8> = [id, self.boot, self.contexts].iter().flat_map(|n| n.to_be_bytes()).collect();
        self.note(|| Cause::Read(hexadecimal(&context)));
        self.node.read_index(context.clone());
        context
    }

    /// Everything up to the step is durable.
    pub fn persisted(&mut self, number: u64) {
        assert!(number <= self.last_number, "a step that was never handed out can't be durable");
        self.electing.take_if(|step| *step <= number);
        self.node.on_persist_ready(number);
        if let Some((_, index)) = self.installing.take_if(|(step, _)| *step <= number) {
            // raft-rs doesn't count what a snapshot holds as applied by itself.
            self.applied(index);
        }
        self.note(|| Cause::Persisted(number));
    }

    /// The state machine has applied up to the index.
    pub fn applied(&mut self, index: u64) {
        if index > self.node.raft.raft_log.applied {
            self.node.advance_apply_to(index);
            self.note_change(|| Cause::Applied(index));
        }
    }

    /// A peer couldn't be reached.
    pub fn unreachable(&mut self, peer: u64) {
        self.node.report_unreachable(peer);
    }

    /// A snapshot reached its peer, or didn't.
    pub fn snapshot_sent(&mut self, peer: u64, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(peer, status);
    }

    /// As the leader, asks another member to lead. Nothing is proposed meanwhile.
    pub fn transfer_to(&mut self, peer: u64) {
        if self.is_leader() {
            self.node.transfer_leader(peer);
        }
    }

    /// As the leader: the index up to which a member's log is known to be its own; `None` if it isn't a member.
    pub fn matched(&self, peer: u64) -> Option<u64> {
        if !self.is_leader() {
            return None;
        }
        self.node.raft.prs().get(peer).map(|progress| progress.matched)
    }

    /// As the leader: the voter besides it whose log is the longest.
    pub fn best_successor(&self) -> Option<u64> {
        let tracker = self.node.raft.prs();
        let voters = tracker.iter().filter(|(id, _)| tracker.conf().voters().contains(**id) && **id != self.id());
        // Of equals the first, so that the same state gives the same answer.
        voters
            .max_by_key(|(id, progress)| (progress.recent_active, progress.matched, std::cmp::Reverse(**id)))
            .map(|(id, _)| *id)
    }

    /// Drops entries up to the index from memory; they are in the state.
    pub fn compact_log(&mut self, index: u64) {
        self.node.mut_store().compact(index);
    }

    /// The index of the snapshot a peer waits for, if one does: build it and call [`Replica::offer_snapshot`].
    pub fn wanted_snapshot(&self) -> Option<u64> {
        self.node.store().wanted_snapshot()
    }

    /// As the leader: the index from which on a member needs entries that it hasn't got, of those that answer or are
    /// sent a snapshot. `None`: nobody is behind.
    pub fn needed_from(&self) -> Option<u64> {
        if !self.is_leader() {
            return None;
        }
        let needed = self.node.raft.prs().iter().filter_map(|(_, progress)| match progress.state {
            ProgressState::Snapshot => Some(progress.pending_snapshot),
            _ => progress.recent_active.then_some(progress.matched),
        });
        needed.min()
    }

    /// Up to where the log may be cut, of what is durably applied: followers that are behind still need the rest,
    /// as long as it fits into memory.
    #[must_use]
    pub fn compactable(&self, flushed: u64, retention: &Retention) -> u64 {
        let log = self.log();
        let kept = log.index_before(retention.entries, retention.bytes);
        let needed = self.needed_from().unwrap_or(kept).min(kept);
        flushed.min(needed.max(log.index_before(usize::MAX, retention.bytes_max)))
    }

    /// Whether a member is being sent a snapshot.
    pub fn sends_snapshot(&self) -> bool {
        self.is_leader() && self.node.raft.prs().iter().any(|(_, progress)| progress.state == ProgressState::Snapshot)
    }

    /// Takes an offered snapshot back.
    pub fn withdraw_snapshot(&mut self) {
        self.node.mut_store().withdraw_snapshot();
    }

    /// Offers a snapshot of the state to peers that are too far behind.
    pub fn offer_snapshot(&mut self, snapshot: Snapshot) {
        self.node.mut_store().offer_snapshot(snapshot);
    }

    /// The next effects; `None` when there are none.
    pub fn poll(&mut self) -> Option<Step> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let mut step = Step { number: ready.number(), ..Step::default() };
        self.last_number = step.number;
        step.persist = Persist {
            snapshot: (!ready.snapshot().is_empty()).then(|| ready.snapshot().clone()),
            entries: ready.take_entries(),
            hard_state: ready.hs().cloned(),
            sync: ready.must_sync(),
        };
        step.now = ready.take_messages();
        step.after = ready.take_persisted_messages();
        step.apply = ready.take_committed_entries();
        step.reads = ready.take_read_states();
        self.hold_messages(&mut step);
        self.note_leader(&mut step);
        self.note_step(&step);
        let store = self.node.mut_store();
        if let Some(snapshot) = &step.persist.snapshot {
            store.install(snapshot);
            self.installing = Some((step.number, snapshot.get_metadata().index));
        }
        store.append(&step.persist.entries);
        if let Some(hard_state) = &step.persist.hard_state {
            store.set_hard_state(hard_state);
        }
        self.node.advance_append_async(ready);
        Some(step)
    }

    /// A1: a leader may send before its own sync, unless the very term it leads in
    /// isn't durable: a single voter elects itself and would reuse the term after a crash. What later steps send waits
    /// as well: they are synced behind it.
    fn hold_messages(&mut self, step: &mut Step) {
        if let Some(hard_state) = &step.persist.hard_state {
            let now = (hard_state.term, hard_state.vote);
            if now != self.term_and_vote {
                self.term_and_vote = now;
                self.electing = Some(step.number);
                step.persist.sync = true;
            }
        }
        if self.electing.is_some() {
            let held = std::mem::take(&mut step.now);
            step.after.splice(0..0, held);
        }
    }

    fn note_leader(&mut self, step: &mut Step) {
        let (id, role) = (self.leader(), self.node.raft.state);
        let leader = (id, if id == 0 { 0 } else { self.term() });
        if (leader, role) != (self.leader, self.role) {
            (self.leader, self.role) = (leader, role);
            step.leader = Some((id, role == StateRole::Leader));
        }
    }
}

/// Whether losing the message on its way must be reported, for the sender to go on.
pub fn is_snapshot(message: &Message) -> bool {
    message.msg_type == MessageType::MsgSnapshot
}
