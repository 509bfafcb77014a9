//! One way through the bounds, from the start on, as chance has it.
//!
//! What may happen is what an exploration tries; only one of it is carried out, on members that
//! keep running, so that a step costs the same however many came before it. The links that are slow
//! change from time to time: members then are as good as cut off for a while.

use stateright::{Expectation, Model, Property};

use super::cluster::{Arrival, Cluster, State};
use super::kept::Kept;
use super::member::{History, Member, Status};
use super::memo::{Cut, quietly};
use super::packet::Packet;
use super::random::Random;
use super::shell::{Input, Shell};
use super::symmetry::mix;
use super::trace;

/// Steps for which the same links are slow.
const WEATHER_STEPS: u32 = 64;
/// Steps for which the same state threads stand still, if states lag.
const LAG_STEPS: u32 = 512;

/// What may happen next.
#[derive(Debug, Clone)]
enum Choice {
    /// A member takes an input that is no message.
    Take(usize, Input),
    /// A message arrives from that place on the wire.
    Arrive(usize, Arrival),
    /// A message from that place is lost.
    Lose(usize),
    Start(usize),
    /// The power of a resting member is cut.
    Cut(usize),
}

/// A walk's episode.
pub(super) struct Episode<'a> {
    cluster: &'a Cluster,
    properties: Vec<Property<Cluster>>,
    random: Random,
    state: State,
    /// Those that run.
    shells: Vec<Option<Shell>>,
    /// A bit for each link: slow or not.
    slow: u64,
    /// A bit for each member: its state thread stands still or not.
    still: u64,
    pub(super) steps: u32,
    /// Differs if anything else was chosen.
    pub(super) trail: u64,
    /// The "sometimes" that came about.
    pub(super) seen: Vec<&'static str>,
    /// What happened, if it is to be told.
    pub(super) told: Option<Vec<String>>,
}

impl<'a> Episode<'a> {
    pub(super) fn new(cluster: &'a Cluster, seed: u64, tells: bool) -> Self {
        let mut episode = Self {
            cluster,
            properties: cluster.properties(),
            random: Random::new(seed),
            // The model has one.
            state: cluster.init_states().swap_remove(0),
            shells: Vec::new(),
            slow: 0,
            still: 0,
            steps: 0,
            trail: 0,
            seen: Vec::new(),
            told: tells.then(Vec::new),
        };
        for at in 0..episode.state.members.len() {
            let (shell, _) = episode.state.members[at].history.replay(cluster.bounds.manner());
            let mut history = episode.state.members[at].history.clone();
            set_apart(&mut history);
            episode.state.members[at] = cluster.memo.keep(Member::running(&shell, history, &[]));
            episode.shells.push(Some(shell));
        }
        episode
    }

    /// Walks so many steps, or until nothing can happen any more; returns what is violated.
    pub(super) fn walk(&mut self, steps: u32) -> Option<&'static str> {
        while self.steps < steps {
            if self.steps.is_multiple_of(WEATHER_STEPS) {
                // A quarter of the links, in half of the time.
                let (a, b) = (self.random.next(), self.random.next());
                self.slow = if self.random.once_in(2) { a & b } else { 0 };
            }
            if self.cluster.bounds.lag && self.steps.is_multiple_of(LAG_STEPS) {
                self.still = self.random.next() & self.random.next();
            }
            let choice = self.choose()?;
            self.steps += 1;
            self.carry_out(choice);
            if let Some(property) = self.look() {
                return Some(property);
            }
        }
        None
    }

    /// The steps that were told, and the state they end in.
    pub(super) fn into_lines(self) -> Vec<String> {
        let mut lines = self.told.unwrap_or_default();
        trace::end(&self.state, &mut lines);
        lines
    }

    fn look(&mut self) -> Option<&'static str> {
        for property in &self.properties {
            let holds = (property.condition)(self.cluster, &self.state);
            match property.expectation {
                Expectation::Always if !holds => return Some(property.name),
                Expectation::Sometimes if holds => self.seen.push(property.name),
                _ => {}
            }
        }
        None
    }

    /// One of all that may happen; `None` if nothing may.
    fn choose(&mut self) -> Option<Choice> {
        let mut choices = Vec::new();
        let is_full = self.state.wire.len() > self.cluster.bounds.in_flight;
        if !is_full {
            self.of_members(&mut choices);
        }
        self.of_messages(is_full, &mut choices);
        let sum = choices.iter().map(|(weight, _)| weight).sum();
        let mut place = self.random.below(sum);
        self.trail = mix(self.trail, (place << 32 | sum) as u64);
        for (weight, choice) in choices {
            if place < weight {
                return Some(choice);
            }
            place -= weight;
        }
        None
    }

    fn of_members(&self, choices: &mut Vec<(usize, Choice)>) {
        let mut inputs = Vec::new();
        for (at, member) in self.state.members.iter().enumerate() {
            match member.status {
                Status::Broken(_) => {}
                Status::Down => choices.push((4, Choice::Start(at))),
                Status::Up(_) => {
                    inputs.clear();
                    self.cluster.own_inputs(&self.state, member, &mut inputs);
                    let is_still = self.still & 1 << at != 0;
                    let inputs = inputs.iter().filter(|input| !(is_still && **input == Input::Apply));
                    choices.extend(inputs.map(|input| (weight(*input), Choice::Take(at, *input))));
                    if self.state.used.crashes < self.cluster.bounds.crashes {
                        choices.push((1, Choice::Cut(at)));
                    }
                }
            }
        }
    }

    fn of_messages(&self, is_full: bool, choices: &mut Vec<(usize, Choice)>) {
        let (used, bounds) = (&self.state.used, &self.cluster.bounds);
        let mut last = (0, 0, false);
        for (place, packet) in self.state.wire.iter().enumerate() {
            let is_first = std::mem::replace(&mut last, packet.link()) != packet.link();
            let (from, to, _) = packet.link();
            if self.state.members[to as usize - 1].image().is_none() {
                if is_first {
                    choices.push((8, Choice::Lose(place)));
                }
            } else if is_first {
                let is_slow = self.slow & 1 << (from * 8 + to) != 0;
                if is_full || !is_slow {
                    choices.push((16, Choice::Arrive(place, Arrival::InOrder)));
                }
                if used.duplicates < bounds.duplicates && packet.may_come_twice() {
                    choices.push((1, Choice::Arrive(place, Arrival::Twice)));
                }
                if used.drops < bounds.drops && packet.may_be_lost() {
                    choices.push((if is_slow { 4 } else { 1 }, Choice::Lose(place)));
                }
            } else if used.overtakings < bounds.overtakings {
                choices.push((1, Choice::Arrive(place, Arrival::Overtaking)));
            }
        }
    }

    fn carry_out(&mut self, choice: Choice) {
        match choice {
            Choice::Take(at, input) => {
                self.tell(|| format!("member {} {}", at + 1, trace::happens(input)));
                self.state.used.count(input);
                self.take(at, Some(input), None);
            }
            Choice::Arrive(place, arrival) => {
                let packet = self.state.arrive(place, arrival);
                let at = packet.link().1 as usize - 1;
                self.tell(|| format!("member {} {}", at + 1, trace::arrives(&packet)));
                self.take(at, None, Some(&packet));
            }
            Choice::Lose(place) => {
                let packet = self.state.wire[place].clone();
                self.tell(|| trace::is_lost(&packet));
                self.cluster.lose(&mut self.state, place);
            }
            Choice::Start(at) => {
                self.tell(|| format!("member {} starts", at + 1));
                self.take(at, None, None);
            }
            Choice::Cut(at) => {
                let member = Kept::clone(&self.state.members[at]);
                let contents = member.disk.survivors();
                let mut left = self.cluster.memo.survivors(&member, &contents, &member.state, member.floor);
                let left = left.swap_remove(self.random.below(left.len()));
                self.tell(|| format!("member {}: the power is cut; {}", at + 1, trace::left(&left)));
                self.shells[at] = None;
                self.cluster.cut(&mut self.state, at, left);
            }
        }
    }

    /// A member takes an input or a message, or starts; its disk may stall, or its power be cut in between.
    fn take(&mut self, at: usize, input: Option<Input>, packet: Option<&Packet>) {
        let (memo, bounds) = (&self.cluster.memo, &self.cluster.bounds);
        let before = self.state.members[at].clone();
        let is_start = input.is_none() && packet.is_none();
        let can_stall = !is_start && input != Some(Input::Flush) && self.state.used.stalls < bounds.stalls;
        let stall = can_stall && self.random.once_in(8);
        let crash = !stall && self.state.used.crashes < bounds.crashes && self.random.once_in(64);
        let (mut shell, mut effects) = (self.shells[at].take(), Vec::new());
        let ran = quietly(|| match (&mut shell, input, packet) {
            (Some(shell), Some(input), _) => shell.take(input, stall, &mut effects),
            (Some(shell), None, Some(packet)) => shell.take_message(&packet.message, stall, &mut effects),
            (none, ..) => *none = Some(Shell::start(&before.history, bounds.manner(), &mut effects)),
        });
        let outcome = match (ran, shell) {
            (Ok(()), Some(running)) => {
                let term = running.image().term;
                let mut crashed = Vec::new();
                if crash {
                    memo.crashes(&before, &effects, term, &mut crashed);
                }
                if crashed.is_empty() {
                    let cut = if stall && !running.pending.is_empty() { Cut::Stalled } else { Cut::Done };
                    let mut history = before.history.clone();
                    set_apart(&mut history);
                    let member = memo.keep(Member::running(&running, history, &[]));
                    self.shells[at] = Some(running);
                    memo.outcome(cut, member, (&before, &effects, effects.len()), &[], term)
                } else {
                    crashed.swap_remove(self.random.below(crashed.len()))
                }
            }
            (ran, _) => {
                let why = ran.err().unwrap_or_default();
                let broken = memo.keep(Member::broken(&before, why, &[]));
                memo.outcome(Cut::Panicked, broken, (&before, &[], 0), &[], 0)
            }
        };
        if let Some(told) = &mut self.told {
            trace::carried_out(&effects, outcome.cut, &outcome.member, told);
        }
        if let Some(packet) = packet {
            let taken = matches!(outcome.cut, Cut::Done | Cut::Stalled);
            self.cluster.tell_sender(&mut self.state, packet, taken);
        }
        self.cluster.follow(&mut self.state, at, &outcome);
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(format!("{:4}.  {}", self.steps, what()));
        }
    }
}

/// A walk doesn't look whether a run of a member asked for reads: each has its own number, as in production.
fn set_apart(history: &mut History) {
    history.inputs = vec![(Input::Read, false)];
}

/// How likely a member's input is: messages arrive more often than members are asked for something, and that is more
/// often than anything goes wrong.
fn weight(input: Input) -> usize {
    match input {
        Input::Timeout | Input::Wait | Input::Transfer(_) | Input::Change(..) => 1,
        Input::Compact => 2,
        Input::Read | Input::Forward(_) => 3,
        Input::Propose(_) | Input::Beat => 8,
        Input::Flush | Input::Apply | Input::Receive(_) => 16,
    }
}
