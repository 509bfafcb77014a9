//! The owner: the one thread that touches the replica.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use prost::Message as _;
use raft::eraftpb::HardState;
use store_core::errors::RequestError;
use store_core::lease::Deadlines;
use store_core::replica::{Replica, Step};
use store_core::wire::{Command, LeaseRevokeMany, command::Request};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::apply::ToState;
use super::persist::ToLog;
use super::{Engine, Input, Position};
use crate::peers::Peers;

/// Inputs taken before effects are carried out: what comes together is proposed together.
const INPUTS_AT_ONCE: usize = 512;
/// Ticks after which a read that got no index is asked for again.
const READ_RETRY_TICKS: u64 = 5;
/// Entries kept in memory for followers that are a little behind.
const KEEP_ENTRIES: u64 = 5_000;
/// Ticks between two looks at leases.
const LEASE_TICKS: u64 = 5;

/// Timing and place among the members.
pub(super) struct Pace {
    pub(super) rank: u64,
    pub(super) size: u64,
    pub(super) tick: Duration,
}

type Reader = oneshot::Sender<Result<(), RequestError>>;

/// Linearizable reads on their way (E2): all that wait share one round.
#[derive(Default)]
struct Reads {
    waiting: Vec<Reader>,
    asked: Option<(Vec<u8>, Vec<Reader>, u64)>,
    /// Confirmed at an index that the state hasn't applied yet.
    confirmed: Vec<(u64, Vec<Reader>)>,
}

pub(super) struct Owner {
    engine: Arc<Engine>,
    peers: Arc<Peers>,
    replica: Replica,
    to_log: SyncSender<ToLog>,
    to_state: SyncSender<ToState>,
    pace: Pace,
    ticks: u64,
    begun: Instant,
    reads: Reads,
    leases: Deadlines,
    /// Leases whose end was proposed, so that it isn't proposed at every look.
    ending: Vec<i64>,
    building: bool,
    hard_state: HardState,
}

impl Owner {
    pub(super) fn new(
        engine: Arc<Engine>,
        peers: Arc<Peers>,
        replica: Replica,
        to_log: SyncSender<ToLog>,
        to_state: SyncSender<ToState>,
        pace: Pace,
    ) -> Self {
        let hard_state = replica.log().hard_state().clone();
        Self {
            engine,
            peers,
            replica,
            to_log,
            to_state,
            pace,
            ticks: 0,
            begun: Instant::now(),
            reads: Reads::default(),
            leases: Deadlines::default(),
            ending: Vec::new(),
            building: false,
            hard_state,
        }
    }

    /// Works until it is told to stop, or a disk fails.
    pub(super) fn run(mut self, inbox: &Receiver<Input>, shutdown: &CancellationToken) {
        let mut next_tick = Instant::now() + self.pace.tick;
        loop {
            self.carry_out();
            let now = Instant::now();
            if now >= next_tick {
                self.tick();
                // A stall of the machine isn't made up for: elections are about now.
                next_tick = now + self.pace.tick;
                continue;
            }
            match inbox.recv_timeout(next_tick - now) {
                Ok(input) => {
                    if !self.take(input) {
                        break;
                    }
                    for _ in 1..INPUTS_AT_ONCE {
                        let Ok(input) = inbox.try_recv() else { break };
                        if !self.take(input) {
                            return self.end(shutdown);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.end(shutdown);
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
                self.engine.queued.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                return self.take(*inner);
            }
            Input::Message(message) => self.replica.receive(*message),
            Input::Propose { command, dropped } => {
                if self.replica.propose(command).is_err() {
                    let _ = dropped.send(());
                }
            }
            Input::Read(reader) => self.reads.waiting.push(reader),
            Input::Persisted(number) => self.replica.persisted(number),
            Input::Applied { index } => {
                self.replica.applied(index);
                self.answer_reads();
            }
            Input::Flushed { index } => {
                self.replica.compact_log(index.saturating_sub(KEEP_ENTRIES));
                let _ = self.to_log.send(ToLog::Release(index.saturating_sub(KEEP_ENTRIES)));
            }
            Input::Leases { granted, ended } => self.note_leases(&granted, &ended),
            Input::KeepAlive { lease, renew, reply } => {
                let _ = reply.send(self.keep_alive(lease, renew));
            }
            Input::Snapshot(snapshot) => {
                self.building = false;
                self.replica.offer_snapshot(*snapshot);
            }
            Input::SnapshotSent { peer, delivered } => self.replica.snapshot_sent(peer, delivered),
            Input::Unreachable(peer) => self.replica.unreachable(peer),
            Input::Failed(why) => {
                tracing::error!(why, "the member's storage failed; the member stops");
                self.engine.failed.send_replace(Some(why));
                return false;
            }
            Input::Stop => return false,
        }
        true
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.replica.tick();
        // Without any leader known, members stand one after the other: the first start
        // needs no whole election timeout, and pre-vote makes it harmless.
        if self.replica.leader() == 0
            && self.ticks % (3 * self.pace.size) == (1 + 3 * self.pace.rank) % (3 * self.pace.size)
        {
            self.replica.campaign();
        }
        if let Some((_, _, since)) = &self.reads.asked
            && self.ticks - since >= READ_RETRY_TICKS
        {
            self.ask_again();
        }
        if self.ticks.is_multiple_of(LEASE_TICKS) && self.replica.is_leader() {
            self.end_leases();
        }
        if let Some(_index) = self.replica.wanted_snapshot().filter(|_| !self.building) {
            self.building = self.to_state.send(ToState::Build(self.replica.conf_state())).is_ok();
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Carries out effects until there are none.
    fn carry_out(&mut self) {
        self.ask_for_reads();
        while let Some(step) = self.replica.poll() {
            self.step(step);
        }
        let position =
            Position { leader: self.replica.leader(), term: self.replica.term(), committed: self.replica.committed() };
        self.engine.position.send_if_modified(|old| {
            let changed = *old != position;
            *old = position;
            changed
        });
    }

    fn step(&mut self, step: Step) {
        for message in step.now {
            self.peers.send(&self.engine, message);
        }
        if let Some(hard_state) = &step.persist.hard_state {
            self.hard_state = hard_state.clone();
        }
        let order = match &step.persist.snapshot {
            None => ToLog::Step { number: step.number, persist: step.persist, after: step.after },
            Some(snapshot) => {
                // Rare and large: the owner waits until the state is replaced.
                let (done, finished) = sync_channel(1);
                let metadata = snapshot.get_metadata();
                let (index, term) = (metadata.index, metadata.term);
                if self.to_state.send(ToState::Install(Box::new(snapshot.clone()), done)).is_err()
                    || finished.recv().is_err()
                {
                    return;
                }
                ToLog::Reset {
                    number: step.number,
                    index,
                    term,
                    hard_state: self.hard_state.clone(),
                    after: step.after,
                }
            }
        };
        // A thread that has ended told so by `Failed`, which is on its way.
        let _ = self.to_log.send(order);
        if !step.apply.is_empty() {
            let _ = self.to_state.send(ToState::Apply(step.apply));
        }
        for read in step.reads {
            if let Some((context, readers, _)) = self.reads.asked.take_if(|(context, ..)| *context == read.request_ctx)
            {
                drop(context);
                self.reads.confirmed.push((read.index, readers));
            }
        }
        self.answer_reads();
        if let Some((leader, is_self)) = step.leader {
            self.leader_changed(leader, is_self);
        }
    }

    fn leader_changed(&mut self, leader: u64, is_self: bool) {
        tracing::info!(leader = format!("{leader:x}"), is_self, term = self.replica.term(), "leader changed");
        // What was on its way to the old leader may be lost or made: nobody can tell.
        self.engine.fail_waiting(RequestError::LeaderFailed);
        self.ending.clear();
        if is_self {
            let now = self.now_ms();
            let leases: Vec<(i64, i64)> = self.engine.state.read().0.leases().collect();
            self.leases.restart(now, leases.into_iter());
        } else {
            self.leases.clear();
        }
        self.ask_again();
    }

    fn ask_again(&mut self) {
        if let Some((_, readers, _)) = self.reads.asked.take() {
            self.reads.waiting.extend(readers);
        }
    }

    fn ask_for_reads(&mut self) {
        self.reads.waiting.retain(|reader| !reader.is_closed());
        if self.reads.asked.is_none() && !self.reads.waiting.is_empty() {
            let context = self.replica.read_index();
            self.reads.asked = Some((context, std::mem::take(&mut self.reads.waiting), self.ticks));
        }
    }

    fn answer_reads(&mut self) {
        let applied = self.engine.applied();
        for (_, readers) in self.reads.confirmed.extract_if(.., |(index, _)| *index <= applied) {
            for reader in readers {
                let _ = reader.send(Ok(()));
            }
        }
    }

    fn note_leases(&mut self, granted: &[(i64, i64)], ended: &[i64]) {
        let now = self.now_ms();
        if self.replica.is_leader() {
            for (id, ttl) in granted {
                self.leases.renew(now, *id, *ttl);
            }
        }
        for id in ended {
            self.leases.remove(*id);
            self.ending.retain(|e| e != id);
        }
    }

    /// Seconds left of a lease, renewed if asked; -1 if it doesn't exist, `None` if this member doesn't lead.
    fn keep_alive(&mut self, lease: i64, renew: bool) -> Option<i64> {
        if !self.replica.is_leader() {
            return None;
        }
        let Some(ttl) = self.engine.state.read().0.lease_ttl(lease) else { return Some(-1) };
        let now = self.now_ms();
        if renew && !self.ending.contains(&lease) {
            self.leases.renew(now, lease, ttl);
        }
        Some(self.leases.remaining(now, lease).unwrap_or(ttl))
    }

    fn end_leases(&mut self) {
        let mut ids = self.leases.expired(self.now_ms());
        ids.retain(|id| !self.ending.contains(id));
        if ids.is_empty() {
            return;
        }
        let request = Request::LeaseRevoke(LeaseRevokeMany { ids: ids.clone() });
        let command = Command { request_id: 0, request: Some(request) }.encode_to_vec();
        if self.replica.propose(command).is_ok() {
            self.ending.extend(ids);
        }
    }
}
