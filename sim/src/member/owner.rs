//! The owner, as `store/server/src/engine/owner.rs`.

use std::time::Duration;

use prost::Message as _;
use raft::eraftpb::Message;
use store_core::replica::{Step, is_snapshot};
use store_core::wire::command::Request;
use store_core::wire::{Command, HashVote, LeaseCheckpoint, LeaseCheckpointMany, LeaseRevokeMany};

use super::threads::{ToLog, ToState};
use super::{ELECTION_TICKS, Input, Running, TICK};
use crate::disk::Fault;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::network::Frame;
use crate::queue::MS;
use crate::world::Shared;

/// Ticks after which a copy of the state that nobody is sent goes.
const COPY_IDLE_TICKS: u64 = 100;
/// Ticks that a removed member stays, so that its last messages leave and another leads.
const LEAVE_TICKS: u64 = 10;
/// Election timeouts for which a leader's disk may hang before another is asked to lead.
const STALL_ELECTIONS: u64 = 2;
/// Ticks between two looks at leases.
const LEASE_TICKS: u64 = 5;

impl Running {
    /// Takes what has gathered.
    pub(crate) fn own(&mut self, shared: &mut Shared) {
        self.owner_due = false;
        while let Some(input) = self.inbox.pop_front() {
            self.take(input, shared);
        }
        self.carry_out(shared);
    }

    fn take(&mut self, input: Input, shared: &mut Shared) {
        match input {
            Input::Message(message) => {
                if let Some(message) = self.proposals.take(&self.replica, *message) {
                    self.replica.receive(message);
                }
                self.propose_if_full(shared);
            }
            Input::Call(token) => self.go_on(token, shared),
            Input::Persisted(number) => {
                self.disk.persisted(self.ticks, number);
                self.replica.persisted(number);
            }
            Input::Applied(index) => {
                self.replica.applied(index);
                self.decide_older(shared);
                self.take_over_leases(shared);
                self.answer_reads(shared);
            }
            Input::Flushed(index) => {
                let index = self.replica.compactable(index, &shared.limits.retention);
                self.replica.compact_log(index);
                self.give_log(ToLog::Release(index), shared);
            }
            Input::Leases { granted, ended, checkpoints } => {
                let now = self.now_ms(shared);
                granted.iter().for_each(|(id, ttl)| self.lessor.granted(now, *id, *ttl));
                ended.iter().for_each(|id| self.lessor.ended(*id));
                checkpoints.iter().for_each(|(id, remaining)| self.lessor.noted(*id, *remaining));
            }
            Input::Copied(content) => {
                self.building = false;
                self.copy_idle_since = self.ticks;
                self.replica.offer_snapshot(content.to_raft());
                self.copied = Some(content);
            }
            Input::Received(message, content) => {
                let sender = message.from;
                self.received = Some(content);
                self.replica.receive(*message);
                self.carry_out(shared);
                self.received = None;
                shared.queue.after(MS, Event::SnapshotSent { from: sender, to: self.id, delivered: true });
            }
            Input::SnapshotSent { peer, delivered } => self.replica.snapshot_sent(peer, delivered),
            Input::Unreachable(peer) => self.replica.unreachable(peer),
            Input::Gone(peer) => self.replica.gone(peer),
            Input::Vote { index, hash } => {
                let vote = HashVote { index, member: self.id, hash: hash.into(), at_rest: false };
                // One that is dropped is made up for by the next.
                let _ = self.propose(Request::Vote(vote));
            }
            Input::Failed(fault) => self.failed = Some(fault),
            Input::Members(change, removed) => {
                if let Some((index, change)) = change {
                    self.replica.members_changed(index, &change);
                }
                if removed {
                    self.leave();
                }
            }
            Input::Look => {}
        }
    }

    /// This member isn't one any more.
    pub(crate) fn leave(&mut self) {
        self.leaving.get_or_insert(self.ticks + LEAVE_TICKS);
    }

    /// A tick passes.
    pub(crate) fn tick(&mut self, shared: &mut Shared) {
        self.ticks += 1;
        if self.leaving.is_some_and(|at| at <= self.ticks) {
            self.left = true;
            return;
        }
        if shared.canon.members.was_removed(self.id) && shared.chance.once_in(10) {
            // As a peer says that it dials.
            self.leave();
        }
        shared.queue.after(TICK * 1_000_000 / self.rate, Event::Tick(self.id, self.boot));
        self.propose_gathered(shared);
        self.replica.tick();
        self.replica.stand_early(self.ticks);
        self.hand_over_if_stalled();
        self.reads.retry(self.ticks);
        self.give_up_late(shared);
        if self.ticks.is_multiple_of(LEASE_TICKS) && self.lessor.leads() {
            self.end_leases(shared);
            self.note_remaining(shared);
        }
        if self.replica.wanted_snapshot().is_some() && !self.building {
            self.building = true;
            self.give_state(ToState::Build, shared);
        }
        if self.replica.sends_snapshot() {
            self.copy_idle_since = self.ticks;
        } else if self.ticks - self.copy_idle_since == COPY_IDLE_TICKS {
            self.replica.withdraw_snapshot();
            self.copied = None;
        }
        self.carry_out(shared);
    }

    fn hand_over_if_stalled(&mut self) {
        let stalled = self.disk.stalled_for(self.ticks);
        if stalled == 0 || !stalled.is_multiple_of(STALL_ELECTIONS * ELECTION_TICKS) || !self.replica.is_leader() {
            return;
        }
        if let Some(successor) = self.replica.best_successor() {
            self.replica.transfer_to(successor);
        }
    }

    pub(super) fn propose_if_full(&mut self, shared: &mut Shared) {
        if self.proposals.is_full() {
            self.propose_gathered(shared);
        }
    }

    fn may_propose(&self, shared: &Shared) -> bool {
        !self.proposals.is_empty() && !self.disk.is_busy() && self.held_until(shared).is_none()
    }

    fn held_until(&self, shared: &Shared) -> Option<Duration> {
        self.proposals.held_until(&self.replica, Duration::from_micros(shared.queue.now()))
    }

    fn propose_gathered(&mut self, shared: &mut Shared) {
        for token in self.proposals.propose(&mut self.replica, Duration::from_micros(shared.queue.now())) {
            self.proposal_dropped(token, shared);
        }
    }

    /// Carries out effects until there are none.
    fn carry_out(&mut self, shared: &mut Shared) {
        loop {
            if self.may_propose(shared) {
                self.propose_gathered(shared);
            }
            let calls = &self.calls;
            self.reads.ask(self.ticks, &mut self.replica, |token| calls.contains_key(token));
            while let Some(step) = self.replica.poll() {
                self.trace(shared);
                self.step(step, shared);
            }
            if !self.may_propose(shared) {
                break;
            }
        }
        if let Some(until) = self.held_until(shared) {
            shared.queue.at(until.as_micros() as u64, Event::Owner(self.id, self.boot));
        }
        self.trace(shared);
        if self.replica.leader() != 0 {
            self.wake_waiting(shared);
        }
    }

    /// Before what it tells of is done.
    fn trace(&mut self, shared: &mut Shared) {
        shared.trace(self.id, self.replica.recorded());
    }

    fn step(&mut self, step: Step, shared: &mut Shared) {
        for message in step.now {
            self.send(message, shared);
        }
        if let Some(hard_state) = &step.persist.hard_state {
            self.hard_state = hard_state.clone();
        }
        self.disk.handed_out(self.ticks, step.number);
        let order = match &step.persist.snapshot {
            None => ToLog::Step { number: step.number, persist: step.persist, after: step.after },
            Some(snapshot) => {
                let metadata = snapshot.get_metadata();
                let (index, term) = (metadata.index, metadata.term);
                let Some(content) = self.received.take() else { panic!("a snapshot was taken whose files never came") };
                self.install(content, shared);
                let hard_state = self.hard_state.clone();
                ToLog::Reset { number: step.number, index, term, hard_state, after: step.after }
            }
        };
        self.give_log(order, shared);
        if !step.apply.is_empty() {
            self.give_state(ToState::Apply(step.apply), shared);
        }
        self.reads.confirm(&step.reads);
        self.answer_reads(shared);
        if let Some((leader, is_self)) = step.leader {
            if is_self {
                shared.canon.elected(self.replica.term(), self.id, shared.queue.now());
            }
            self.leader_changed(leader, shared);
        }
    }

    fn leader_changed(&mut self, leader: u64, shared: &mut Shared) {
        self.leaders += 1;
        self.undecided = (leader != 0).then(|| self.replica.term());
        self.decide_older(shared);
        self.lessor.resign();
        self.take_over_leases(shared);
        self.reads.ask_again();
    }

    /// With a new leader's first entry all is decided that was in the logs of leaders before it.
    fn decide_older(&mut self, shared: &mut Shared) {
        if self.undecided.take_if(|term| *term <= self.replica.applied_term()).is_some() {
            self.fail_older(shared);
        }
    }

    fn take_over_leases(&mut self, shared: &Shared) {
        let early = shared.mutant == Some(Mutant::LeadLeasesEarly) && self.replica.is_leader();
        if self.lessor.leads() || !(self.replica.leads_applied() || early) {
            return;
        }
        let leases: Vec<_> = self.state.machine.mvcc.lease_times().collect();
        let grace = ELECTION_TICKS * TICK / MS;
        self.lessor.lead(self.now_ms(shared), grace, leases.into_iter());
    }

    fn end_leases(&mut self, shared: &Shared) {
        let early = if shared.mutant == Some(Mutant::ExpireEarly) { 1500 } else { 0 };
        let ids = self.lessor.expired(self.now_ms(shared) + early);
        if !ids.is_empty() && self.propose(Request::LeaseRevoke(LeaseRevokeMany { ids: ids.clone() })) {
            self.lessor.ending(&ids);
        }
    }

    fn note_remaining(&mut self, shared: &Shared) {
        let now = self.now_ms(shared);
        let due = self.lessor.checkpoints(now);
        let checkpoints =
            due.iter().map(|(id, remaining)| LeaseCheckpoint { id: *id, remaining: *remaining }).collect();
        if !due.is_empty() && self.propose(Request::LeaseCheckpoint(LeaseCheckpointMany { checkpoints })) {
            self.lessor.proposed(now, &due);
        }
    }

    /// Proposes what a member decides by itself; `false` if it can't be made now.
    pub(super) fn propose(&mut self, request: Request) -> bool {
        let command = Command { request: Some(request), by_member: true, ..Command::default() };
        self.replica.propose(command.encode_to_vec()).is_ok()
    }

    /// Sends a message; a snapshot goes a way of its own.
    pub(super) fn send(&mut self, message: Message, shared: &mut Shared) {
        let to = message.to;
        if !is_snapshot(&message) {
            shared.send(self.id, to, Frame::Raft(message));
            return;
        }
        let metadata = message.get_snapshot().get_metadata();
        let copied = self.copied.clone().filter(|copied| copied.applied == (metadata.index, metadata.term));
        match copied {
            // All of it is read first: what a block's checksum refuses isn't handed on.
            Some(content) if content.rotten.is_some() && shared.mutant != Some(Mutant::SendUnread) => {
                self.failed = Some(Fault::Unreadable);
            }
            Some(content) => {
                let wait = shared.chance.between(MS, 300 * MS);
                shared.queue.after(wait, Event::Transfer { message: Box::new(message), content });
            }
            None => shared.queue.after(MS, Event::SnapshotSent { from: self.id, to, delivered: false }),
        }
    }
}
