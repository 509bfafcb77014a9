//! A running member: the production replica with a modelled disk and state machine.
//!
//! Does what the threads of `store/server/src/engine` do with a step, and writes down the
//! effects in the order in which they happen: messages of `now` leave, a snapshot's state is
//! installed, committed entries are applied, all that waits for the disk is written at once,
//! synced if any of it asks for that, and only then `after` leaves and the replica is told. A
//! power cut may fall between any two effects. With `--lag` the state thread takes its own time
//! (`lag`).

use std::collections::VecDeque;

use raft::eraftpb::{Entry, EntryType, HardState, Message, MessageType, Snapshot};
use store_core::replica::{Image, Persist, Replica, Step, Timing};

use super::disk::{Disk, Entries, Record, records, state_record};
use super::entry::{self, Change, Slot, index_of};
use super::lag::{Due, dues};
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
    /// A single voter that stands lets its messages leave before its term is durable.
    LeadBeforeDurable,
    /// A member that starts again knows the founders alone, not who came and went since.
    OldMembers,
    /// The log begins anew behind a snapshot whose state isn't durable yet.
    InstallUnsynced,
    /// A follower whose leader changes sends on once more what it sent to the one before.
    ProposeAgain,
    /// A change of members that comes back after a snapshot overtook it is told as if nothing had.
    ChangeOvertaken,
    /// A read is answered before the state has applied what it waits for.
    ReadBehind,
}

/// How a member is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) mutant: Option<Mutant>,
    /// Whether the state applies at its own pace, or all at once when it is handed out.
    pub(super) lag: bool,
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
    /// A client asks a follower for the proposal of this number.
    Forward(u8),
    /// A client asks for a linearizable read.
    Read,
    /// An administrator asks the leader to hand over to a member.
    Transfer(u64),
    /// An administrator asks the leader for a change of members.
    Change(Change, u64),
    /// The state is made durable, and the log forgets what it holds.
    Compact,
    /// A message arrives.
    Receive(&'static Packet),
    /// The disk catches up.
    Flush,
    /// The state thread goes on.
    Apply,
}

/// What the member does to the world.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Elected(u64),
    Send(Vec<Message>),
    Write(Vec<Record>),
    Sync,
    /// These entries, which follow on what was applied before.
    Apply(Vec<Slot>),
    /// A snapshot's state replaces the own one: durably, but for a mutant.
    Install(Vec<Slot>, bool),
    /// What was applied is durable.
    Keep,
    /// The log's files forget the entries up to an index.
    Release(u64),
    /// A read was asked for.
    Ask(ReadContext),
    /// A read may be answered from the state at the index or later.
    Answer(ReadContext, u64),
}

/// A step whose persistence is on its way.
pub(super) struct Pending {
    number: u64,
    /// It leads this term once it is durable: nobody else was asked.
    pub(super) elected: Option<u64>,
    pub(super) records: Vec<Record>,
    pub(super) sync: bool,
    pub(super) after: Vec<Message>,
}

/// A running member.
pub(super) struct Shell {
    replica: Replica,
    mutant: Option<Mutant>,
    lag: bool,
    pub(super) disk: Disk,
    /// In the order in which the disk is asked for it.
    pub(super) pending: Vec<Pending>,
    /// What the state machine has applied.
    pub(super) state: Vec<Slot>,
    /// How much of it is durable: a power cut leaves it there, or where it is.
    pub(super) floor: u64,
    /// What the state thread was handed and hasn't told of, in order; none without a lag.
    pub(super) due: VecDeque<Due>,
    /// Reads that wait until the state has applied their index; none without a lag.
    pub(super) readers: Vec<(ReadContext, u64)>,
    /// Handed out last.
    hard_state: HardState,
    /// A mutant's: what it sent on.
    pub(super) forwarded: Vec<u8>,
}

impl Shell {
    /// Starts a member from what its disk holds.
    pub(super) fn start(history: &History, manner: Manner, effects: &mut Vec<Effect>) -> Self {
        let Manner { mutant, lag } = manner;
        let History { id, boot, ref content, ref state, .. } = *history;
        let content = content.clone().opened(state, mutant == Some(Mutant::CommitBehind));
        let log = content.to_log(if mutant == Some(Mutant::OldMembers) { &state[..state.len().min(1)] } else { state });
        let timing = Timing::fixed(ELECTION_TICKS, 1, CAMPAIGN_TICKS);
        let boot = if mutant == Some(Mutant::SameBoot) { 1 } else { boot };
        let mut shell = Self {
            hard_state: log.hard_state().clone(),
            replica: Replica::new(id, boot, timing, index_of(state), log),
            mutant,
            lag,
            disk: Disk { synced: content, unsynced: Vec::new() },
            pending: Vec::new(),
            floor: index_of(state),
            state: state.clone(),
            due: VecDeque::new(),
            readers: Vec::new(),
            forwarded: Vec::new(),
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
            Input::Propose(number) => {
                let _ = self.replica.propose(vec![number]);
            }
            // Dropped without a leader; who has one is asked.
            Input::Forward(number) => {
                let sent = self.replica.propose(vec![number]).is_ok();
                if sent && self.mutant == Some(Mutant::ProposeAgain) {
                    self.forwarded.push(number);
                }
            }
            Input::Read => self.read(effects),
            Input::Transfer(to) => self.replica.transfer_to(to),
            // Refused while an earlier change isn't applied.
            Input::Change(change, member) => {
                let _ = self.replica.propose_members(&entry::to_conf_change(change, member));
            }
            Input::Compact => self.compact(effects),
            Input::Receive(packet) => self.receive(&packet.message),
            Input::Flush => {}
            Input::Apply => self.go_on(effects),
        }
        self.settle(stall, effects);
    }

    /// Takes a message, as an input is taken.
    pub(super) fn take_message(&mut self, message: &Message, stall: bool, effects: &mut Vec<Effect>) {
        self.receive(message);
        self.settle(stall, effects);
    }

    fn settle(&mut self, stall: bool, effects: &mut Vec<Effect>) {
        self.carry_out(stall, effects);
        self.offer_snapshot(effects);
    }

    fn receive(&mut self, message: &Message) {
        match message.msg_type {
            // What the transport of snapshots tells their sender.
            MessageType::MsgSnapStatus => self.replica.snapshot_sent(message.from, !message.reject),
            _ => self.replica.receive(message.clone()),
        }
    }

    fn keep(&mut self, effects: &mut Vec<Effect>) {
        if self.floor < index_of(&self.state) {
            self.floor = index_of(&self.state);
            effects.push(Effect::Keep);
        }
    }

    fn compact(&mut self, effects: &mut Vec<Effect>) {
        self.keep(effects);
        // That the state is durable is told behind what it has applied.
        self.replica.compact_log(self.floor.min(self.replica.image().applied));
        // The log in memory keeps an entry at least; the files are cut in larger pieces.
        let base = self.entries().base;
        self.disk.synced.log.release(base);
        effects.push(Effect::Release(base));
    }

    /// As the owner does at a tick: a peer needs a copy of the state. It comes behind what the state thread tells of it.
    fn offer_snapshot(&mut self, effects: &mut Vec<Effect>) {
        if self.replica.wanted_snapshot().is_none() || self.replica.image().applied != index_of(&self.state) {
            return;
        }
        self.keep(effects);
        let mut snapshot = Snapshot { data: entry::pack(&self.state).into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index_of(&self.state), entry::term_of(&self.state));
        metadata.set_conf_state(entry::conf_state(&self.state));
        self.replica.offer_snapshot(snapshot);
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

    fn hand_out(&mut self, mut step: Step, effects: &mut Vec<Effect>) {
        let mut elected = step.leader.filter(|(_, is_self)| *is_self).map(|_| self.replica.term());
        // A single voter stands and wins in one step: until that is durable nothing of it leaves, and a power cut undoes it.
        let (durable, early) = (self.disk.synced.term, self.mutant == Some(Mutant::LeadBeforeDurable));
        if let Some(term) = elected.take_if(|term| *term <= durable || early) {
            effects.push(Effect::Elected(term));
            if early {
                step.now.append(&mut step.after);
            }
        }
        if step.leader.is_some_and(|(leader, _)| leader != 0) {
            for number in std::mem::take(&mut self.forwarded) {
                let _ = self.replica.propose(vec![number]);
            }
        }
        if !step.now.is_empty() {
            effects.push(Effect::Send(step.now));
        }
        if let Some(hard_state) = &step.persist.hard_state {
            self.hard_state = hard_state.clone();
        }
        if let Some(snapshot) = &step.persist.snapshot {
            self.state = entry::unpack(&snapshot.data);
            let is_durable = self.mutant != Some(Mutant::InstallUnsynced);
            self.floor = if is_durable { index_of(&self.state) } else { 0 };
            effects.push(Effect::Install(self.state.clone(), is_durable));
        }
        if self.lag {
            self.due.extend(dues(step.apply));
        } else if let Some(last) = step.apply.last() {
            self.apply(&step.apply, effects);
            self.replica.applied(last.index);
        }
        for read in &step.reads {
            if let Some(context) = ReadContext::parse(&read.request_ctx) {
                if self.lag {
                    self.readers.push((context, read.index));
                } else {
                    effects.push(Effect::Answer(context, read.index));
                }
            }
        }
        self.answer_readers(effects);
        let mut records = self.records_of(&step.persist);
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
            self.pending.push(Pending {
                number: step.number,
                elected,
                records,
                sync: step.persist.sync,
                after: step.after,
            });
        }
    }

    fn apply(&mut self, entries: &[Entry], effects: &mut Vec<Effect>) {
        // What a snapshot overtook was applied to the state that it replaced; only what is told of it is left.
        let known_to = index_of(&self.state);
        let slots: Vec<Slot> = entries.iter().filter(|entry| entry.index > known_to).map(Slot::of).collect();
        if !slots.is_empty() {
            self.state.extend(&slots);
            effects.push(Effect::Apply(slots));
        }
        for entry in entries.iter().filter(|entry| entry.get_entry_type() == EntryType::EntryConfChange) {
            let index = if self.mutant == Some(Mutant::ChangeOvertaken) { u64::MAX } else { entry.index };
            self.replica.members_changed(index, &entry::conf_change(entry));
        }
    }

    /// The state thread's turn: it applies up to the next change of members, or the end of what it was handed at once.
    fn go_on(&mut self, effects: &mut Vec<Effect>) {
        let Some(due) = self.due.pop_front() else { return };
        self.apply(&due.entries, effects);
        if let Some(index) = due.told {
            self.replica.applied(index);
        }
        self.answer_readers(effects);
    }

    /// Who waits is answered from the state as it is by now.
    fn answer_readers(&mut self, effects: &mut Vec<Effect>) {
        let applied = index_of(&self.state);
        let waits = |(_, index): &mut (ReadContext, u64)| self.mutant == Some(Mutant::ReadBehind) || *index <= applied;
        let ready = self.readers.extract_if(.., waits);
        effects.extend(ready.map(|(context, _)| Effect::Answer(context, applied)));
    }

    fn records_of(&self, persist: &Persist) -> Vec<Record> {
        let Some(snapshot) = &persist.snapshot else { return records(persist) };
        assert!(persist.entries.is_empty(), "the log thread begins anew behind a snapshot and writes nothing else");
        let metadata = snapshot.get_metadata();
        vec![Record::Reset(metadata.index, metadata.term), state_record(&self.hard_state)]
    }

    /// One turn of the log thread: all that waits, in one write and at most one sync.
    fn flush(&mut self, effects: &mut Vec<Effect>) {
        let (mut records, mut after, mut sync, mut number) = (Vec::new(), Vec::new(), false, 0);
        let mut elected = Vec::new();
        for step in std::mem::take(&mut self.pending) {
            elected.extend(step.elected);
            records.extend(step.records);
            after.extend(step.after);
            sync |= step.sync;
            number = step.number;
        }
        let elected = elected.into_iter().map(Effect::Elected);
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
        effects.extend(elected);
        if !early {
            effects.extend(send);
        }
        self.replica.persisted(number);
    }

    pub(super) fn image(&self) -> Image {
        self.replica.image()
    }

    /// The log in memory, as production reads it.
    pub(super) fn entries(&self) -> Entries {
        let (log, (first, _)) = (self.replica.log(), self.replica.log_range());
        let base = first - 1;
        let base_term = raft::Storage::term(log, base).unwrap_or(0);
        Entries { base, base_term, slots: log.entries().map(Slot::of).collect() }
    }
}
