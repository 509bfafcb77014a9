//! A running member: the production replica with a modelled disk and state machine.
//!
//! Does what the threads of `store/server/src/engine` do with a step, and writes down the
//! effects in the order in which they happen: messages of `now` leave, committed entries are
//! applied, all that waits for the disk is written at once, synced if any of it asks for
//! that, and only then `after` leaves and the replica is told. A power cut may fall
//! between any two effects.

use raft::eraftpb::Message;
use store_core::replica::{Image, Replica, Step, Timing};

use super::disk::{Disk, Record, Slot, records};
use super::member::History;
use super::packet::{Packet, ReadContext};

/// A seeded bug of the shell: what the check must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mutant {
    /// Answers leave before what they promise is written.
    ReplyBeforeDurable,
    /// The vote is left out of what is written.
    LoseVote,
    /// The replica is told that its entries are durable before they are.
    CountBeforeDurable,
    /// Entries that replace others leave those behind them in place.
    KeepReplaced,
    /// A restart trusts the log's last record of the commit although the state is further.
    CommitBehind,
    /// A leader answers reads without asking whether it still leads.
    ReadAlone,
    /// A member that starts again tells its reads from new ones by nothing.
    SameBoot,
    /// Records are checksummed one by one: a power cut keeps entries without the term they came in.
    TearFrames,
}

/// A member keeps to its leader for so many ticks.
pub(super) const ELECTION_TICKS: usize = 2;
/// A member campaigns after so many ticks: later than it stops to keep to the leader.
const CAMPAIGN_TICKS: usize = 3;

/// What happens to a running member.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Input {
    /// So many ticks pass that it campaigns.
    Timeout,
    /// So many ticks pass that it no longer keeps to its leader.
    Wait,
    /// A tick passes for a leader.
    Beat,
    /// A client asks for the proposal of this number.
    Propose(u8),
    /// A client asks for a linearizable read.
    Read,
    /// An administrator asks the leader to hand over to a member.
    Transfer(u64),
    /// A message arrives.
    Receive(&'static Packet),
    /// The disk catches up.
    Flush,
}

/// What the member does to the world.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Elected(u64),
    Send(Vec<Message>),
    Write(Vec<Record>),
    Sync,
    Apply(Vec<(u64, Slot)>),
    /// A read was asked for.
    Ask(ReadContext),
    /// A read may be answered from the state at the index or later.
    Answer(ReadContext, u64),
}

/// A step whose persistence is on its way.
pub(super) struct Pending {
    number: u64,
    pub(super) records: Vec<Record>,
    pub(super) sync: bool,
    pub(super) after: Vec<Message>,
}

/// A running member.
pub(super) struct Shell {
    replica: Replica,
    mutant: Option<Mutant>,
    pub(super) disk: Disk,
    /// In the order in which the disk is asked for it.
    pub(super) pending: Vec<Pending>,
    /// What the state machine has applied.
    pub(super) applied: u64,
    /// What it has durably applied: a power cut leaves it somewhere from here to `applied`.
    pub(super) floor: u64,
}

impl Shell {
    /// Starts a member from what its disk holds.
    pub(super) fn start(history: &History, mutant: Option<Mutant>, effects: &mut Vec<Effect>) -> Self {
        let History { id, ref content, applied, boot, .. } = *history;
        let log = content.open(applied, mutant == Some(Mutant::CommitBehind));
        let timing = Timing::fixed(ELECTION_TICKS, 1, CAMPAIGN_TICKS);
        let boot = if mutant == Some(Mutant::SameBoot) { 1 } else { boot };
        let mut shell = Self {
            replica: Replica::new(id, boot, timing, applied, log),
            mutant,
            disk: Disk { synced: content.clone(), unsynced: Vec::new() },
            pending: Vec::new(),
            applied,
            floor: applied,
        };
        shell.carry_out(false, effects);
        shell
    }

    /// Takes an input and carries out what follows; with `stall` the disk doesn't keep up.
    pub(super) fn take(&mut self, input: Input, stall: bool, effects: &mut Vec<Effect>) {
        match input {
            Input::Timeout => self.tick_until(0),
            Input::Wait => self.tick_until(ELECTION_TICKS),
            Input::Beat => self.replica.tick(),
            // Refused only without a leader; a leader alone is asked.
            Input::Propose(number) => drop(self.replica.propose(vec![number])),
            Input::Read => self.read(effects),
            Input::Transfer(to) => self.replica.transfer_to(to),
            Input::Receive(packet) => self.replica.receive(packet.message.clone()),
            Input::Flush => {}
        }
        self.carry_out(stall, effects);
    }

    fn read(&mut self, effects: &mut Vec<Effect>) {
        // Production makes the context, so it has a context's form.
        let Some(context) = ReadContext::parse(&self.replica.read_index()) else { return };
        effects.push(Effect::Ask(context));
        if self.mutant == Some(Mutant::ReadAlone) && self.replica.is_leader() {
            effects.push(Effect::Answer(context, self.replica.committed()));
        }
    }

    fn tick_until(&mut self, elapsed: usize) {
        for _ in 0..CAMPAIGN_TICKS {
            self.replica.tick();
            if self.replica.image().election_elapsed == elapsed {
                return;
            }
        }
    }

    fn carry_out(&mut self, stall: bool, effects: &mut Vec<Effect>) {
        loop {
            while let Some(step) = self.replica.poll() {
                self.hand_out(step, effects);
            }
            if stall || self.pending.is_empty() {
                return;
            }
            self.flush(effects);
        }
    }

    fn hand_out(&mut self, step: Step, effects: &mut Vec<Effect>) {
        if step.leader.is_some_and(|(_, is_self)| is_self) {
            effects.push(Effect::Elected(self.replica.term()));
        }
        if !step.now.is_empty() {
            effects.push(Effect::Send(step.now));
        }
        if let Some(last) = step.apply.last().map(|entry| entry.index) {
            effects.push(Effect::Apply(step.apply.iter().map(|entry| (entry.index, Slot::of(entry))).collect()));
            self.replica.applied(last);
            self.applied = last;
        }
        for read in &step.reads {
            if let Some(context) = ReadContext::parse(&read.request_ctx) {
                effects.push(Effect::Answer(context, read.index));
            }
        }
        let mut records = records(&step.persist);
        for record in &mut records {
            match (self.mutant, &record) {
                (Some(Mutant::LoseVote), Record::State { term, commit, .. }) => {
                    *record = Record::State { term: *term, vote: 0, commit: *commit };
                }
                (Some(Mutant::KeepReplaced), Record::Entry(index, slot)) => *record = Record::InPlace(*index, *slot),
                _ => {}
            }
        }
        if self.mutant == Some(Mutant::CountBeforeDurable) {
            self.replica.persisted(step.number);
        }
        // With nothing to write and nothing to send the disk's turn would change nothing.
        if !records.is_empty() || !step.after.is_empty() || !self.pending.is_empty() {
            self.pending.push(Pending { number: step.number, records, sync: step.persist.sync, after: step.after });
        }
    }

    /// One turn of the log thread: all that waits, in one write and at most one sync.
    fn flush(&mut self, effects: &mut Vec<Effect>) {
        let (mut records, mut after, mut sync, mut number) = (Vec::new(), Vec::new(), false, 0);
        for step in std::mem::take(&mut self.pending) {
            records.extend(step.records);
            after.extend(step.after);
            sync |= step.sync;
            number = step.number;
        }
        let send = (!after.is_empty()).then_some(Effect::Send(after));
        let early = self.mutant == Some(Mutant::ReplyBeforeDurable);
        if early {
            effects.extend(send.clone());
        }
        if !records.is_empty() {
            self.disk.write(&records);
            effects.push(Effect::Write(records));
        }
        if sync {
            self.disk.sync();
            effects.push(Effect::Sync);
        }
        if !early {
            effects.extend(send);
        }
        self.replica.persisted(number);
    }

    pub(super) fn image(&self) -> Image {
        self.replica.image()
    }

    /// The log in memory, as production reads it.
    pub(super) fn slots(&self) -> Vec<Slot> {
        self.replica.log().entries().map(Slot::of).collect()
    }
}
