//! The owner: the one task that touches the replica.

mod leases;
mod proposing;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use raft::eraftpb::{ConfChange, HardState, Message};
use store_core::errors::RequestError;
use store_core::lease::Lessor;
use store_core::membership::Members;
use store_core::replica::{Persist, Proposals, Reads, Replica, Retention, Step, Watchdog};
use store_core::trace::Event;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::apply::ToState;
use super::persist::ToLog;
use super::{End, Engine, Input, Position};
use crate::peers::Peers;
use crate::state::Received;

/// Inputs taken before effects are carried out: what comes together is proposed together.
const INPUTS_AT_ONCE: usize = 512;
/// What is kept of the log in memory.
const RETENTION: Retention = Retention { entries: 5_000, bytes: 32 << 20, bytes_max: 512 << 20 };
/// Ticks after which a copy of the state that nobody is sent goes.
const COPY_IDLE_TICKS: u64 = 100;
/// Ticks that a removed member stays, so that its last messages leave and another leads.
const LEAVE_TICKS: u64 = 10;
/// Election timeouts for which a leader's disk may hang before another is asked to lead.
const STALL_ELECTIONS: u64 = 2;
/// Ticks between two looks at leases.
const LEASE_TICKS: u64 = 5;

/// Who waits until he may read.
type Reader = oneshot::Sender<Result<(), RequestError>>;

/// What the owner must know of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnerTiming {
    pub(super) tick: Duration,
    pub(super) election_timeout: Duration,
    pub(super) lease_checkpoints: Duration,
}

pub(super) struct Owner {
    engine: Arc<Engine>,
    peers: Arc<Peers>,
    replica: Replica,
    to_log: SyncSender<ToLog>,
    to_state: SyncSender<ToState>,
    tick: Duration,
    ticks: u64,
    begun: Instant,
    reads: Reads<Reader>,
    /// What has come since effects were carried out last; each is told if it is dropped.
    proposals: Proposals<oneshot::Sender<()>>,
    lessor: Lessor,
    disk: Watchdog,
    /// What leases are given when another leads: nobody could renew meanwhile.
    grace: Duration,
    building: bool,
    /// The tick from which on nobody needed the copy of the state that is offered.
    copy_idle_since: u64,
    /// The term of a leader from which on older requests are decided, while some may not be.
    undecided: Option<u64>,
    /// The state that belongs to the snapshot given to raft just now.
    received: Option<Box<Received>>,
    hard_state: HardState,
    /// The last one isn't in the log yet: it needs no sync, and goes with what does.
    is_behind: bool,
    /// The entry of a change of members that the replica doesn't know as applied yet.
    changed: Option<u64>,
    /// Removed: the tick at which the member ends. Until then others take over.
    leaving: Option<u64>,
}

impl Owner {
    pub(super) fn new(
        engine: Arc<Engine>,
        peers: Arc<Peers>,
        replica: Replica,
        to_log: SyncSender<ToLog>,
        to_state: SyncSender<ToState>,
        timing: OwnerTiming,
    ) -> Self {
        let OwnerTiming { tick, election_timeout, lease_checkpoints } = timing;
        let hard_state = replica.log().hard_state().clone();
        Self {
            engine,
            peers,
            replica,
            to_log,
            to_state,
            tick,
            ticks: 0,
            begun: Instant::now(),
            reads: Reads::default(),
            proposals: Proposals::default(),
            lessor: Lessor::new(milliseconds(lease_checkpoints)),
            disk: Watchdog::default(),
            grace: election_timeout,
            building: false,
            copy_idle_since: 0,
            undecided: None,
            received: None,
            hard_state,
            is_behind: false,
            changed: None,
            leaving: None,
        }
    }

    /// Works until it is told to stop, or a disk fails.
    pub(super) async fn run(mut self, inbox: &mut UnboundedReceiver<Input>, shutdown: &CancellationToken) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + self.tick, self.tick);
        // A stall of the machine isn't made up for: elections are about now.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inputs = Vec::with_capacity(INPUTS_AT_ONCE);
        loop {
            self.carry_out();
            if !inbox.is_empty() {
                // What was sent leaves before more is taken.
                tokio::task::yield_now().await;
            }
            let held_until = self.held_until();
            let released = tokio::time::Instant::from_std(self.begun + held_until.unwrap_or_default());
            let goes_on = tokio::select! {
                biased;
                _ = ticks.tick() => self.tick(),
                () = tokio::time::sleep_until(released), if held_until.is_some() => true,
                count = inbox.recv_many(&mut inputs, INPUTS_AT_ONCE) => count > 0 && self.take_all(&mut inputs),
            };
            if !goes_on {
                return self.end(shutdown);
            }
        }
    }

    /// Takes inputs; `false` ends the member.
    fn take_all(&mut self, inputs: &mut Vec<Input>) -> bool {
        inputs.drain(..).all(|input| self.take(input))
    }

    fn end(&mut self, shutdown: &CancellationToken) {
        self.engine.fail_waiting(RequestError::Stopped);
        self.engine.position.send_replace(Position::default());
        shutdown.cancel();
    }

    /// Takes an input; `false` ends the member.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Queued(inner) => {
                self.engine.queued.leave();
                return self.take(*inner);
            }
            Input::Message(message) => {
                if let Some(message) = self.proposals.take(&self.replica, *message) {
                    self.replica.receive(message);
                }
                self.propose_if_full();
            }
            Input::Propose { command, dropped } => {
                self.proposals.add(command, dropped);
                self.propose_if_full();
            }
            Input::ProposeMembers { change, dropped } => {
                if self.replica.propose_members(&change).is_err() {
                    let _ = dropped.send(());
                }
            }
            Input::Members { change, members } => self.members_changed(change, *members),
            Input::Removed => self.leave(),
            Input::Wiped => {
                self.engine.ended.send_replace(Some(End::Wiped));
                return false;
            }
            Input::Progress { peer, reply } => {
                let own = self.replica.matched(self.replica.id());
                let _ = reply.send(self.replica.matched(peer).zip(own));
            }
            Input::Transfer { to } => {
                if let Some(to) = to.or_else(|| self.replica.best_successor()) {
                    self.replica.transfer_to(to);
                }
            }
            Input::Read(reader) => self.reads.wait(reader),
            Input::Persisted { step, after } => {
                after.into_iter().for_each(|message| self.peers.send(message));
                self.disk.persisted(self.ticks, step);
                self.replica.persisted(step);
            }
            Input::Applied { index } => {
                self.replica.applied(index);
                self.changed.take_if(|change| *change <= index);
                self.decide_older();
                self.take_over_leases();
                self.answer_reads();
            }
            Input::Flushed { index } => {
                let index = self.replica.compactable(index, &RETENTION);
                self.replica.compact_log(index);
                let _ = self.to_log.send(ToLog::Release(index));
            }
            Input::Leases { granted, ended, checkpoints } => self.note_leases(&granted, &ended, &checkpoints),
            Input::KeepAlive { lease, renew, reply } => {
                let _ = reply.send(self.keep_alive(lease, renew));
            }
            Input::Reigns { reign, reply } => {
                let _ = reply.send(self.lessor.reigns(reign));
            }
            Input::Copy(reply) => {
                // A thread that has ended told so by `Failed`, which is on its way.
                let _ = self.to_state.send(ToState::Copy(reply));
            }
            Input::Copied(copied) => {
                self.building = false;
                self.copy_idle_since = self.ticks;
                self.replica.offer_snapshot(copied.to_raft());
                *self.engine.copied.lock() = Some(copied);
            }
            Input::Received { message, received, done } => {
                self.received = Some(received);
                self.replica.receive(*message);
                self.carry_out();
                // raft took it or had no need of it; either way it is decided.
                self.received = None;
                let _ = done.send(());
            }
            Input::SnapshotSent { peer, delivered } => self.replica.snapshot_sent(peer, delivered),
            Input::Unreachable(peer) => self.replica.unreachable(peer),
            Input::Gone(peer) => self.replica.gone(peer),
            Input::Failed(why) => {
                tracing::error!(why, "the member's storage failed; the member stops");
                self.engine.ended.send_replace(Some(End::Storage(why)));
                return false;
            }
            Input::Diverged => {
                tracing::error!("this member's state isn't the majority's; the member stops");
                self.engine.ended.send_replace(Some(End::Diverged));
                return false;
            }
            Input::Stop => return false,
        }
        true
    }

    /// Takes over what raft must know of a change of members, before it learns that the change is applied.
    fn members_changed(&mut self, change: Option<(u64, Box<ConfChange>)>, members: Members) {
        if let Some((index, change)) = change {
            self.replica.members_changed(index, &change);
            self.changed = Some(index);
        }
        let removed = members.was_removed(self.replica.id());
        self.engine.members.send_replace(members);
        if removed {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if self.leaving.is_none() {
            tracing::warn!("this member was removed from the cluster; it ends");
            self.leaving = Some(self.ticks + LEAVE_TICKS);
        }
    }

    /// Time passes; `false` ends the member.
    fn tick(&mut self) -> bool {
        self.ticks += 1;
        if self.leaving.is_some_and(|at| at <= self.ticks) {
            self.engine.ended.send_replace(Some(End::Removed));
            return false;
        }
        if let Some(why) = self.engine.state.damage() {
            return self.take(Input::Failed(why.to_owned()));
        }
        // Nobody waits for a disk that hangs: the others may commit without it.
        self.propose_gathered();
        self.replica.tick();
        self.replica.stand_early(self.ticks);
        self.hand_over_if_stalled();
        self.retry_reads();
        self.ask_applied(true);
        if self.ticks.is_multiple_of(LEASE_TICKS) && self.lessor.leads() {
            self.end_leases();
            self.note_remaining();
        }
        if let Some(_index) = self.replica.wanted_snapshot().filter(|_| !self.building) {
            self.building = self.to_state.send(ToState::Build).is_ok();
        }
        self.withdraw_idle_copy();
        true
    }

    fn hand_over_if_stalled(&mut self) {
        let stalled = self.disk.stalled_for(self.ticks);
        let patience = STALL_ELECTIONS * ticks_of(self.grace, self.tick);
        if stalled == 0 || !stalled.is_multiple_of(patience) || !self.replica.is_leader() {
            return;
        }
        self.engine.metrics.disk_stalls.inc();
        let Some(successor) = self.replica.best_successor() else { return };
        let seconds = self.tick.as_secs_f64() * stalled as f64;
        tracing::warn!(seconds, successor = format!("{successor:x}"), "the log's disk hangs; handing over");
        self.replica.transfer_to(successor);
    }

    /// A copy that nobody is sent any more only keeps old files on disk.
    fn withdraw_idle_copy(&mut self) {
        if self.replica.sends_snapshot() {
            self.copy_idle_since = self.ticks;
        } else if self.ticks - self.copy_idle_since == COPY_IDLE_TICKS {
            self.replica.withdraw_snapshot();
            *self.engine.copied.lock() = None;
        }
    }

    /// What was asked for may be lost on its way.
    fn retry_reads(&mut self) {
        if self.reads.retry(self.ticks) {
            self.engine.metrics.slow_read_indexes.inc();
        }
    }

    fn answer_reads(&mut self) {
        for reader in self.reads.ready(self.engine.applied()) {
            // The client may have gone.
            let _ = reader.send(Ok(()));
        }
    }

    fn now_ms(&self) -> u64 {
        milliseconds(self.begun.elapsed())
    }

    /// Carries out effects until there are none.
    fn carry_out(&mut self) {
        loop {
            if self.may_propose() {
                self.propose_gathered();
            }
            self.reads.ask(self.ticks, &mut self.replica, |reader| !reader.is_closed());
            while let Some(step) = self.replica.poll() {
                if !self.trace() {
                    return;
                }
                self.step(step);
            }
            if !self.may_propose() {
                break;
            }
        }
        self.trace();
        let leases_wait = self.replica.is_leader() && !self.lessor.leads();
        self.ask_applied(leases_wait || self.reads.wait_for_state() || self.undecided.or(self.changed).is_some());
        let position =
            Position { leader: self.replica.leader(), term: self.replica.term(), committed: self.replica.committed() };
        self.engine.position.send_if_modified(|old| {
            let changed = *old != position;
            *old = position;
            changed
        });
    }

    /// Says whether the state's thread should tell at once how far it is, or the next tick is early enough.
    fn ask_applied(&self, at_once: bool) {
        self.engine.applied_wanted.store(at_once, Ordering::SeqCst);
        let index = self.engine.applied();
        if at_once && index > self.replica.known_applied() {
            // It didn't know that anybody waits. What it told before stands in the queue before this.
            self.engine.tell(Input::Applied { index });
        }
    }

    /// Writes down what happened, before anything of it is done; `false` if that failed, and the member ends.
    fn trace(&mut self) -> bool {
        let events = self.replica.recorded();
        self.write_trace(events)
    }

    fn write_trace(&self, events: impl IntoIterator<Item = Event>) -> bool {
        let written = self.engine.trace.as_ref().map_or(Ok(()), |trace| trace.write(events));
        if let Err(error) = &written {
            self.engine.tell(Input::Failed(format!("{error}: {}", error.source)));
        }
        written.is_ok()
    }

    fn step(&mut self, step: Step) {
        for message in step.now {
            self.peers.send(message);
        }
        if let Some(hard_state) = &step.persist.hard_state {
            self.hard_state = hard_state.clone();
        }
        if !self.log(step.number, step.persist, step.after) {
            return;
        }
        if !step.apply.is_empty() {
            let _ = self.to_state.send(ToState::Apply(step.apply));
        }
        self.reads.confirm(&step.reads);
        self.answer_reads();
        if let Some((leader, is_self)) = step.leader {
            self.leader_changed(leader, is_self);
        }
    }

    /// Has a step written, and `after` sent then; `false` if the member ends.
    fn log(&mut self, number: u64, mut persist: Persist, after: Vec<Message>) -> bool {
        if !persist.sync && persist.snapshot.is_none() && !self.disk.is_busy() {
            // All before it is on disk, and it may wait: the log's thread needn't wake for it.
            if !self.write_trace([Event::Durable { step: number }]) {
                return false;
            }
            self.is_behind |= persist.hard_state.is_some();
            after.into_iter().for_each(|message| self.peers.send(message));
            self.replica.persisted(number);
            return true;
        }
        if std::mem::take(&mut self.is_behind) {
            persist.hard_state.get_or_insert_with(|| self.hard_state.clone());
        }
        self.disk.handed_out(self.ticks, number);
        let order = match &persist.snapshot {
            None => ToLog::Step { number, persist, after },
            Some(snapshot) => {
                let metadata = snapshot.get_metadata();
                let (index, term) = (metadata.index, metadata.term);
                // It is loaded already: the owner waits for little more than a rename.
                let (done, finished) = sync_channel(1);
                let Some(received) = self.received.take() else {
                    self.engine.tell(Input::Failed("a snapshot was taken whose files never came".to_owned()));
                    return false;
                };
                if self.to_state.send(ToState::Install { received, index, done }).is_err() || finished.recv().is_err() {
                    return false;
                }
                ToLog::Reset { number, index, term, hard_state: self.hard_state.clone(), after }
            }
        };
        // A thread that has ended told so by `Failed`, which is on its way.
        let _ = self.to_log.send(order);
        true
    }

    fn leader_changed(&mut self, leader: u64, is_self: bool) {
        tracing::info!(leader = format!("{leader:x}"), is_self, term = self.replica.term(), "leader changed");
        if leader != 0 {
            self.engine.metrics.leader_changes.inc();
        }
        self.engine.leader_changed();
        self.undecided = (leader != 0).then(|| self.replica.term());
        self.decide_older();
        self.lessor.resign();
        self.take_over_leases();
        self.reads.ask_again();
    }

    /// With a new leader's first entry all is decided that was in the logs of leaders before it: the rest isn't waited for.
    fn decide_older(&mut self) {
        if self.undecided.take_if(|term| *term <= self.replica.applied_term()).is_some() {
            self.engine.fail_older();
        }
    }
}

fn ticks_of(time: Duration, tick: Duration) -> u64 {
    u64::try_from(time.as_millis() / tick.as_millis().max(1)).unwrap_or(u64::MAX).max(1)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
