//! A member: what the threads of `store/server/src/engine` do, on virtual time.
//!
//! The owner takes inputs and carries out the replica's steps; the log thread writes what has gathered, one sync for it
//! all; the state thread applies. Each takes its time, and a crash may fall in between.

mod calls;
mod owner;
mod threads;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use raft::eraftpb::{ConfChange, ConfState, HardState, Message};
use store_core::lease::Lessor;
use store_core::membership::Members;
use store_core::replica::{Log, Proposals, Reads, Replica, Timing, Watchdog};
use store_core::wal::Wal;
use store_core::watch::Ring;

use crate::disk::{Fault, Files};
use crate::event::Event;
use crate::mutant::Mutant;
use crate::queue::{MS, Time};
use crate::state::{self, Content, State};
use crate::stream::{self, Stream};
use crate::world::Shared;
pub(crate) use calls::{Call, Origin, Reply, Want};
use threads::{ToLog, ToState};

/// Time between ticks, by the member's own clock.
const TICK: Time = 100 * MS;
/// Ticks for which a member keeps to its leader.
const ELECTION_TICKS: u64 = 10;

/// What the owner is told.
pub(crate) enum Input {
    Message(Box<Message>),
    /// A call that may go on.
    Call(u64),
    Persisted(u64),
    Applied(u64),
    Flushed(u64),
    Leases {
        granted: Vec<(i64, i64)>,
        ended: Vec<i64>,
        checkpoints: Vec<(i64, i64)>,
    },
    Copied(Rc<Content>),
    /// A snapshot and who sends it.
    Received(Box<Message>, Rc<Content>),
    SnapshotSent {
        peer: u64,
        delivered: bool,
    },
    Unreachable(u64),
    Gone(u64),
    Vote {
        index: u64,
        hash: Vec<u8>,
    },
    Failed(Fault),
    /// A change of members was applied; whether this one is removed.
    Members(Option<(u64, Box<ConfChange>)>, bool),
    /// Nothing but to see what there is to do.
    Look,
}

/// A member, running or not.
pub(crate) struct Member {
    pub(crate) id: u64,
    boots: u64,
    /// How fast its clock goes, in millionths.
    pub(crate) rate: u64,
    /// It stands still until then.
    pub(crate) paused_until: Time,
    /// Its disk hangs until then.
    pub(crate) stalled_until: Time,
    /// What a member that doesn't run has on its disks.
    files: Files,
    content: Rc<Content>,
    /// A bit of its state has flipped, once.
    has_rotted: bool,
    /// It found its disk damaged, and is never started again.
    pub(crate) ruined: bool,
    pub(crate) run: Option<Running>,
}

/// A running member.
pub(crate) struct Running {
    pub(crate) id: u64,
    pub(crate) boot: u64,
    rate: u64,
    begun: Time,
    stalled_until: Time,
    pub(crate) replica: Replica,
    pub(crate) wal: Wal<Files>,
    pub(crate) state: State,
    hard_state: HardState,
    inbox: VecDeque<Input>,
    owner_due: bool,
    log_queue: VecDeque<ToLog>,
    log_busy: bool,
    /// Of the batch that is being written: the last step, what leaves behind it, what is released then.
    writing: (Option<u64>, Vec<Message>, Option<u64>),
    state_queue: VecDeque<ToState>,
    state_busy: bool,
    entries_since_flush: u64,
    /// Of the flush that is on: the index that was applied as it began, and what it makes durable.
    flushing: Option<(u64, Rc<Content>)>,
    collecting: bool,
    ticks: u64,
    reads: Reads<u64>,
    proposals: Proposals<u64>,
    lessor: Lessor,
    disk: Watchdog,
    building: bool,
    copy_idle_since: u64,
    copied: Option<Rc<Content>>,
    undecided: Option<u64>,
    received: Option<Rc<Content>>,
    /// Changes of leaders that this member knows of.
    leaders: u64,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    pub(crate) ring: Ring,
    pub(crate) published: i64,
    pub(crate) streams: BTreeMap<stream::Id, Stream>,
    /// The disk failed: the member ends.
    pub(crate) failed: Option<Fault>,
    /// Removed: the tick at which the member ends. Until then others take over.
    leaving: Option<u64>,
    /// It has ended for good.
    pub(crate) left: bool,
    /// Last entry that the log was given, of a mutant.
    log_end: u64,
}

impl Member {
    /// A founder, or one that may join.
    pub(crate) fn new(id: u64, rate: u64, founders: &Members) -> Self {
        let is_founder = founders.get(id).is_some();
        let content = if is_founder { Content::founded(founders) } else { Content::empty() };
        Self {
            id,
            boots: 0,
            rate,
            paused_until: 0,
            stalled_until: 0,
            files: Files::default(),
            content: Rc::new(content),
            has_rotted: false,
            ruined: false,
            run: None,
        }
    }

    /// Starts from what is on the disks.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub(crate) fn start(&mut self, shared: &mut Shared) -> Result<(), Fault> {
        self.boots += 1;
        self.files.full = false;
        let state = State::open(self.content.clone());
        let conf_state = match shared.mutant {
            Some(Mutant::OldMembers) if self.content.applied != (0, 0) => shared.founders.conf_state(),
            // Before its first snapshot, one that joins knows nobody who votes: the leader will tell.
            _ if self.content.applied == (0, 0) => ConfState::default(),
            _ => state.machine.members.conf_state(),
        };
        let (wal, log) = self.open_log(&conf_state, shared)?;
        // Members that lose their leader stand at different times; raft-rs is left no choice of its own.
        let campaign = shared.chance.between(ELECTION_TICKS, 2 * ELECTION_TICKS - 1);
        let timing = Timing::fixed(ELECTION_TICKS as usize, 1, campaign as usize);
        let boot = if shared.mutant == Some(Mutant::SameBoot) { 1 } else { self.boots };
        let hard_state = log.hard_state().clone();
        let mut replica = Replica::new(self.id, boot, timing, self.content.applied.0, log);
        if shared.traces.is_some() {
            replica.record();
        }
        let published = state.machine.mvcc.revision();
        self.run = Some(Running {
            id: self.id,
            boot: self.boots,
            rate: self.rate,
            begun: shared.queue.now(),
            stalled_until: self.stalled_until,
            replica,
            wal,
            state,
            hard_state,
            inbox: VecDeque::new(),
            owner_due: false,
            log_queue: VecDeque::new(),
            log_busy: false,
            writing: (None, Vec::new(), None),
            state_queue: VecDeque::new(),
            state_busy: false,
            entries_since_flush: 0,
            flushing: None,
            collecting: true,
            ticks: 0,
            reads: Reads::default(),
            proposals: Proposals::default(),
            lessor: Lessor::new(shared.limits.checkpoint_ms),
            disk: Watchdog::default(),
            building: false,
            copy_idle_since: 0,
            copied: None,
            undecided: None,
            received: None,
            leaders: 0,
            calls: BTreeMap::new(),
            next_call: self.id.rotate_left(48) ^ (self.boots << 32),
            ring: Ring::bounded(published, shared.limits.ring_changes),
            published,
            streams: BTreeMap::new(),
            failed: None,
            leaving: None,
            left: false,
            log_end: 0,
        });
        shared.queue.after(shared.chance.below(TICK), Event::Tick(self.id, self.boots));
        Ok(())
    }

    /// Opens the log. It may be stopped again before it is there.
    fn open_log(&mut self, conf_state: &ConfState, shared: &mut Shared) -> Result<(Wal<Files>, Log), Fault> {
        let mut passed_over = 0;
        loop {
            let files = std::mem::take(&mut self.files);
            let before = files.clone();
            match Wal::open(files, shared.limits.segment_bytes, self.content.applied, conf_state.clone()) {
                Ok((wal, _)) if shared.chance.once_in(8) => {
                    self.files = wal.into_segments();
                    self.files.crash(shared.chance.once_in(2), &mut shared.chance);
                }
                Ok((mut wal, log)) => {
                    wal.segments().settle();
                    return Ok((wal, log));
                }
                Err(fault) => {
                    self.files = before;
                    passed_over += 1;
                    match (fault, shared.mutant) {
                        (Fault::Damaged(damage), Some(Mutant::DropDamaged)) => self.files.drop_from(&damage),
                        // What isn't even a frame with any checksum is refused.
                        (Fault::Damaged(damage), Some(Mutant::BelieveDamaged)) if passed_over < 4 => {
                            self.files.believe(&damage);
                        }
                        _ => return Err(fault),
                    }
                }
            }
        }
    }

    /// A bit flips on its disks, of the log or of the state; `false` if there is none.
    pub(crate) fn flip(&mut self, shared: &mut Shared) -> bool {
        if shared.chance.once_in(2) {
            let flipped = match &mut self.run {
                Some(run) => run.state.rot(&mut shared.chance),
                None => state::rot(&mut self.content, &mut shared.chance),
            };
            self.has_rotted |= flipped;
            flipped
        } else {
            self.files().flip(&mut shared.chance)
        }
    }

    /// Its log, running or not.
    pub(crate) fn files(&mut self) -> &mut Files {
        match &mut self.run {
            Some(run) => run.wal.segments(),
            None => &mut self.files,
        }
    }

    /// Who belongs to the cluster, as far as it has applied, and as it will know it after a crash.
    pub(crate) fn known_members(&self) -> Vec<Members> {
        let Some(run) = &self.run else { return vec![self.content.load().members] };
        vec![run.state.machine.members.clone(), run.state.flushed.load().members]
    }

    /// Whether something on its disks isn't what was written.
    pub(crate) fn is_damaged(&mut self) -> bool {
        let content = self.run.as_ref().map_or(&self.content, |run| &run.state.flushed);
        self.ruined || content.rotten.is_some() || self.files().is_damaged()
    }

    /// Whether what it says of its disks is so.
    pub(crate) fn is_right(&mut self, fault: &Fault) -> bool {
        match fault {
            Fault::Full => true,
            Fault::Damaged(damage) => self.files().is_where(damage),
            Fault::Unreadable => self.has_rotted,
        }
    }

    /// Ends at once: by a signal, or with `power` the whole machine.
    pub(crate) fn crash(&mut self, power: bool, shared: &mut Shared) {
        let Some(mut run) = self.run.take() else { return };
        run.drop_calls(shared);
        run.drop_streams(shared);
        self.content = run.state.flushed.clone();
        self.files = run.wal.into_segments();
        self.files.crash(power, &mut shared.chance);
    }

    /// Has the disk hang, or go on.
    pub(crate) fn stall(&mut self, until: Time) {
        self.stalled_until = until;
        if let Some(run) = &mut self.run {
            run.stalled_until = until;
        }
    }
}

impl Running {
    /// What its own clock says, in milliseconds since it started.
    fn now_ms(&self, shared: &Shared) -> u64 {
        (shared.queue.now() - self.begun) * self.rate / 1_000_000 / MS
    }

    /// How things are.
    pub(crate) fn words(&self) -> String {
        let Self { id, replica, state, log_queue, state_queue, inbox, building, .. } = self;
        format!(
            "member {id}: leader {}, term {}, log {:?}, committed {}, applied {}, needed {:?}, sends snapshot {}, wants \
             {:?}, builds {building}, copy {:?}, queues {} {} {}",
            replica.leader(),
            replica.term(),
            replica.log_range(),
            replica.committed(),
            state.content.applied.0,
            replica.needed_from(),
            replica.sends_snapshot(),
            replica.wanted_snapshot(),
            self.copied.as_ref().map(|copied| copied.applied),
            inbox.len(),
            log_queue.len(),
            state_queue.len(),
        )
    }

    /// Gives the owner something to do.
    pub(crate) fn tell(&mut self, input: Input, shared: &mut Shared) {
        self.inbox.push_back(input);
        if !self.owner_due {
            self.owner_due = true;
            // What comes meanwhile is taken with it.
            let wait = if shared.chance.once_in(500) { shared.chance.below(20 * MS) } else { shared.chance.below(40) };
            shared.queue.after(wait, Event::Owner(self.id, self.boot));
        }
    }
}
