//! What a member does on an input, executed once and remembered.
//!
//! Few member states make up many cluster states, so the production code runs once for
//! each pair of member state and input. Everything is kept until the process ends:
//! states then hold plain references.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, RwLock};

use raft::eraftpb::Message;

use super::Bounds;
use super::disk::Content;
use super::entry::{Slot, conf_state, index_of};
use super::kept::Kept;
use super::member::{History, Member};
use super::packet::{self, Packet, ReadContext};
use super::shell::{Effect, Input, Manner, Shell};
use super::symmetry::{IDENTITY, Permutation, exchanges};

/// How far the effects of an input came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// All are carried out.
    Done,
    /// The disk doesn't keep up: what needs it waits.
    Stalled,
    /// The power was cut after so many effects, and perhaps in the middle of sending.
    Crashed { effects: usize, partly_sent: bool },
    /// The member panicked.
    Panicked,
}

/// What an input leads to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) cut: Cut,
    pub(super) member: Kept<Member>,
    pub(super) sends: Vec<Kept<Packet>>,
    /// The terms in which the member became leader.
    pub(super) elected: Vec<u64>,
    /// Entries applied, each with its index; all that a snapshot holds if one was installed.
    pub(super) applied: Vec<(u64, Slot)>,
    pub(super) installed: bool,
    /// Something left before what it says was durable.
    pub(super) early: bool,
    /// Reads asked for.
    pub(super) asked: Vec<ReadContext>,
    /// Reads answered, each with the index from which on the state will do.
    pub(super) answered: Vec<(ReadContext, u64)>,
    /// The member's term afterwards, or just before the cut.
    pub(super) term: u64,
}

/// Each is kept once, so that it is equal to itself alone.
impl PartialEq for Outcome {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Key of an input: a packet's address, or a small number.
type InputKey = usize;

const SHARDS: usize = 64;

/// What was executed: the way it was, and what came of it.
struct Executed {
    input: Input,
    outcomes: &'static [Outcome],
}

type Known = HashMap<(usize, InputKey), Executed>;

/// All members, packets and outcomes met so far.
pub(super) struct Memo {
    manner: Manner,
    /// Whether disks may stall.
    stalls: bool,
    /// None on a walk, which doesn't tell states apart and keeps nothing.
    exchanges: &'static [Permutation],
    members: Mutex<HashMap<Vec<u8>, &'static Member>>,
    packets: Mutex<HashMap<Vec<u8>, &'static Packet>>,
    known: Vec<RwLock<Known>>,
    /// A second way to a member, for the audit.
    detours: Option<Mutex<HashMap<usize, (&'static Member, History)>>>,
    executions: AtomicU64,
}

impl Memo {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            manner: bounds.manner(),
            stalls: bounds.stalls > 0,
            exchanges: exchanges(bounds.nodes.into()),
            members: Mutex::default(),
            packets: Mutex::default(),
            known: (0..SHARDS).map(|_| RwLock::default()).collect(),
            detours: bounds.audit.then(Mutex::default),
            executions: AtomicU64::new(0),
        }
    }

    /// One that remembers nothing.
    pub(super) fn of_a_walk(bounds: &Bounds) -> Self {
        Self { exchanges: &[], ..Self::new(bounds) }
    }

    /// A member at its first start: with the state in which the cluster starts, or yet to join it.
    pub(super) fn newborn(&self, id: u64, start: &[Slot]) -> Kept<Member> {
        let conf = conf_state(start);
        let belongs = conf.voters.contains(&id) || conf.learners.contains(&id);
        let state = if belongs { start.to_vec() } else { Vec::new() };
        let history = History::new(id, Content::behind(&state), state, 1);
        let (shell, _) = history.replay(self.manner);
        self.keep(Member::running(&shell, history, self.exchanges))
    }

    /// How many times production code ran, and how many member states there are.
    pub(super) fn sizes(&self) -> (u64, usize) {
        (self.executions.load(Ordering::Relaxed), lock(&self.members).len())
    }

    /// What an input leads to; a member that is down starts on `Flush`.
    pub(super) fn outcomes(&self, member: &Member, input: Input) -> &'static [Outcome] {
        let key = (address(member), input_key(input));
        let shard = &self.known[(key.0 >> 4 ^ key.1 >> 3) % SHARDS];
        if let Some(executed) = shard.read().unwrap_or_else(|e| e.into_inner()).get(&key) {
            return executed.outcomes;
        }
        let outcomes = self.execute(member, input);
        // Another thread may have been faster; both have the same.
        let mut known = shard.write().unwrap_or_else(|e| e.into_inner());
        known.entry(key).or_insert_with(|| Executed { input, outcomes: outcomes.leak() }).outcomes
    }

    /// For the audit: panics if the message has an effect.
    pub(super) fn expect_ignored(&self, member: &Member, packet: &'static Packet) {
        let done = &self.outcomes(member, Input::Receive(packet))[0];
        assert!(
            std::ptr::eq(&*done.member, member) && done.sends.is_empty(),
            "taken for spent, but it has an effect on {member:?}: {packet:?}"
        );
    }

    fn execute(&self, member: &Member, input: Input) -> Vec<Outcome> {
        let run = |stall| quietly(|| self.run(&member.history, member, input, stall));
        let (shell, history, effects) = match run(false) {
            Ok(done) => done,
            Err(why) => {
                let broken = self.keep(Member::broken(member, why, self.exchanges));
                return vec![self.outcome(Cut::Panicked, broken, (member, &[], 0), &[], 0)];
            }
        };
        let term = shell.image().term;
        let done = self.keep(Member::running(&shell, history, self.exchanges));
        let mut outcomes = vec![self.outcome(Cut::Done, done, (member, &effects, effects.len()), &[], term)];
        if self.stalls
            && !matches!(input, Input::Flush)
            && let Ok((shell, history, effects)) = run(true)
            && !shell.pending.is_empty()
        {
            let stalled = self.keep(Member::running(&shell, history, self.exchanges));
            outcomes.push(self.outcome(Cut::Stalled, stalled, (member, &effects, effects.len()), &[], term));
        }
        self.crashes(member, &effects, term, &mut outcomes);
        outcomes.dedup_by(|b, a| a.cut != Cut::Done && a.is_like(b) && a.elected == b.elected);
        outcomes
    }

    /// Makes the member again and gives it the input.
    fn run(&self, history: &History, member: &Member, input: Input, stall: bool) -> (Shell, History, Vec<Effect>) {
        self.executions.fetch_add(1, Ordering::Relaxed);
        let mut history = history.clone();
        if member.image().is_none() {
            let (shell, effects) = history.replay(self.manner);
            return (shell, history, effects);
        }
        history.inputs.push((input, stall));
        let (shell, effects) = history.replay(self.manner);
        (shell, history, effects)
    }

    /// Power cuts between the effects, and while messages leave.
    pub(super) fn crashes(&self, before: &Member, effects: &[Effect], term: u64, outcomes: &mut Vec<Outcome>) {
        let (mut disk, mut state, mut floor) = (before.disk.clone(), before.state.clone(), before.floor);
        for (at, effect) in effects.iter().enumerate() {
            // Being elected or asked shows only in what follows.
            if at > 0 && !matches!(effects[at - 1], Effect::Elected(_) | Effect::Ask(_)) {
                for down in self.survivors(before, &disk.survivors(), &state, floor) {
                    let cut = Cut::Crashed { effects: at, partly_sent: false };
                    outcomes.push(self.outcome(cut, down, (before, effects, at), &[], term));
                }
            }
            match effect {
                Effect::Send(messages) => {
                    for partly in parts(messages) {
                        for down in self.survivors(before, &disk.survivors(), &state, floor) {
                            let cut = Cut::Crashed { effects: at, partly_sent: true };
                            outcomes.push(self.outcome(cut, down, (before, effects, at), &partly, term));
                        }
                    }
                }
                Effect::Write(records) => disk.write(records),
                Effect::Sync => disk.sync(),
                Effect::Apply(slots) => state.extend(slots),
                Effect::Install(slots, is_durable) => {
                    // What isn't durable leaves nothing behind if it is lost.
                    floor = if *is_durable { index_of(slots) } else { 0 };
                    state = slots.clone();
                }
                Effect::Keep => floor = index_of(&state),
                Effect::Release(index) => disk.synced.log.release(*index),
                Effect::Elected(_) | Effect::Ask(_) | Effect::Answer(..) => {}
            }
        }
    }

    /// The members that a power cut may leave of one whose state had got as far as that.
    pub(super) fn survivors(
        &self,
        before: &Member,
        contents: &[Content],
        state: &[Slot],
        floor: u64,
    ) -> Vec<Kept<Member>> {
        let mut members = Vec::new();
        let (id, boot) = (before.id(), before.history.next_boot());
        for content in contents {
            let mut left = |state: &[Slot]| {
                members.push(self.keep(Member::down(id, content.clone(), state.to_vec(), boot, self.exchanges)));
            };
            left(&state[..floor as usize]);
            if index_of(state) != floor {
                left(state);
            }
        }
        members
    }

    /// What came of the first so many effects on a member.
    pub(super) fn outcome(
        &self,
        cut: Cut,
        member: Kept<Member>,
        (before, effects, count): (&Member, &[Effect], usize),
        more: &[Message],
        term: u64,
    ) -> Outcome {
        let mut outcome = Outcome {
            cut,
            member,
            sends: Vec::new(),
            elected: Vec::new(),
            applied: Vec::new(),
            installed: false,
            early: false,
            asked: Vec::new(),
            answered: Vec::new(),
            term,
        };
        let mut applied = index_of(&before.state);
        let mut disk = before.disk.clone();
        for effect in &effects[..count] {
            match effect {
                Effect::Elected(term) => outcome.elected.push(*term),
                Effect::Apply(slots) => {
                    outcome.applied.extend((applied + 1..).zip(slots.iter().copied()));
                    applied += index_of(slots);
                }
                Effect::Install(slots, _) => {
                    outcome.installed = true;
                    outcome.applied.extend((1..).zip(slots.iter().copied()));
                    applied = index_of(slots);
                }
                Effect::Send(messages) => {
                    outcome.early |= !messages.iter().all(|message| disk.backs(message));
                    outcome.sends.extend(messages.iter().map(|m| self.packet(m)));
                }
                Effect::Write(records) => disk.write(records),
                Effect::Sync => disk.sync(),
                Effect::Ask(context) => outcome.asked.push(*context),
                Effect::Answer(context, index) => outcome.answered.push((*context, *index)),
                Effect::Keep | Effect::Release(_) => {}
            }
        }
        outcome.early |= !more.iter().all(|message| disk.backs(message));
        outcome.sends.extend(more.iter().map(|m| self.packet(m)));
        outcome
    }

    /// Keeps a member, once, however many states it is part of.
    pub(super) fn keep(&self, (key, member): (Vec<u8>, Member)) -> Kept<Member> {
        if self.exchanges.is_empty() {
            return Kept::WhileHeld(Arc::new(member));
        }
        let mut members = lock(&self.members);
        if let Some(known) = members.get(&key) {
            let way = |member: &Member| -> Vec<InputKey> {
                member
                    .history
                    .inputs
                    .iter()
                    .map(|(input, stall)| input_key(*input) << 1 | usize::from(*stall))
                    .collect()
            };
            if let Some(detours) = &self.detours
                && way(&member) != way(known)
            {
                lock(detours).entry(address(*known)).or_insert((known, member.history));
            }
            return Kept::Forever(known);
        }
        let member: &'static Member = Box::leak(Box::new(member));
        members.insert(key, member);
        Kept::Forever(member)
    }

    pub(super) fn packet(&self, message: &Message) -> Kept<Packet> {
        let made = || Packet::new(message.clone(), self.exchanges);
        if self.exchanges.is_empty() {
            return Kept::WhileHeld(Arc::new(made()));
        }
        let mut key = Vec::new();
        packet::encode(message, &IDENTITY, &mut key);
        let mut packets = lock(&self.packets);
        Kept::Forever(packets.entry(key).or_insert_with(|| Box::leak(Box::new(made()))))
    }

    /// Runs the production code along a second way to each member that has one, and
    /// compares. Returns how many runs were compared and how many of them differed.
    pub(super) fn audit(&self) -> (usize, usize) {
        let (mut compared, mut different) = (0, 0);
        let Some(detours) = &self.detours else { return (0, 0) };
        let detours = std::mem::take(&mut *lock(detours));
        for shard in &self.known {
            let known = shard.read().unwrap_or_else(|e| e.into_inner());
            for ((member, _), executed) in known.iter() {
                let (Some((member, detour)), Cut::Done) = (detours.get(member), executed.outcomes[0].cut) else {
                    continue;
                };
                let (shell, history, effects) = self.run(detour, member, executed.input, false);
                let reached = self.keep(Member::running(&shell, history, self.exchanges));
                let again = self.outcome(Cut::Done, reached, (member, &effects, effects.len()), &[], 0);
                compared += 1;
                different += usize::from(!again.is_like(&executed.outcomes[0]));
            }
        }
        (compared, different)
    }
}

impl Outcome {
    fn is_like(&self, other: &Self) -> bool {
        let sends =
            |outcome: &Self| -> Vec<usize> { outcome.sends.iter().map(|packet| address::<Packet>(packet)).collect() };
        self.member == other.member
            && sends(self) == sends(other)
            && self.applied == other.applied
            && self.answered == other.answered
    }
}

/// A step's messages of which only those to some members have left.
fn parts(messages: &[Message]) -> Vec<Vec<Message>> {
    let mut receivers: Vec<u64> = messages.iter().map(|m| m.to).collect();
    receivers.sort_unstable();
    receivers.dedup();
    if receivers.len() < 2 {
        return Vec::new();
    }
    receivers.iter().map(|to| messages.iter().filter(|m| m.to == *to).cloned().collect()).collect()
}

fn address<T>(value: &T) -> usize {
    std::ptr::from_ref(value).addr()
}

fn input_key(input: Input) -> InputKey {
    match input {
        Input::Timeout => 1,
        Input::Wait => 2,
        Input::Beat => 3,
        Input::Flush => 4,
        Input::Read => 5,
        Input::Compact => 6,
        Input::Propose(number) => 8 + usize::from(number),
        Input::Forward(number) => 0x200 + usize::from(number),
        Input::Apply => 7,
        // No packet lies at the address of a number.
        Input::Transfer(to) => 0x400 + to as usize,
        Input::Change(change, member) => 0x800 + ((change as usize) << 4 | member as usize),
        Input::Receive(packet) => address(packet),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while it was held would end the check anyway.
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs production code; a panic is a finding, not an end.
pub(super) fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                default(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result.map_err(|payload| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map_or("a panic without words", |s| *s).to_owned(),
    })
}
