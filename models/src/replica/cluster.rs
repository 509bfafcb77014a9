//! The cluster: three members, the messages between them, and what was promised so far.

use std::hash::{Hash, Hasher};

use raft::StateRole;
use stateright::{Model, Property};

use super::Bounds;
use super::disk::Slot;
use super::member::{Member, Status};
use super::memo::{Cut, Memo, Outcome};
use super::packet::{Packet, is_spent};
use super::properties::{self, Found};
use super::shell::{ELECTION_TICKS, Input};
use super::symmetry::{MEMBERS, PERMUTATIONS, mix, renumber};

/// What was promised: no member's state, and no member may contradict it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Promises {
    /// Who led each term, from the first on; 0 if nobody did.
    pub(super) leaders: Vec<u64>,
    /// Entries known as committed, each with the latest term in which it can have become so.
    pub(super) committed: Vec<(Slot, u64)>,
    /// Two leaders in a term.
    pub(super) two_leaders: bool,
    /// Two members committed, or applied, different entries at an index.
    pub(super) diverged: bool,
}

/// What the bounds have been used up by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Used {
    pub(super) proposals: u8,
    pub(super) crashes: u8,
    pub(super) timeouts: u8,
    pub(super) waits: u8,
    pub(super) beats: u8,
    pub(super) stalls: u8,
    pub(super) drops: u8,
}

/// A state of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub(super) members: [&'static Member; MEMBERS],
    /// Messages on their way, sorted by link, and on each in the order in which they were sent.
    pub(super) wire: Vec<&'static Packet>,
    pub(super) promises: Promises,
    pub(super) used: Used,
}

impl Hash for State {
    /// The least over all exchanges of the members.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut least = u64::MAX;
        for at in 0..PERMUTATIONS.len() {
            least = least.min(self.digest(at));
        }
        hasher.write_u64(least);
    }
}

impl State {
    fn digest(&self, exchange: usize) -> u64 {
        let permutation = &PERMUTATIONS[exchange];
        let mut places = [0; MEMBERS];
        for (at, member) in self.members.iter().enumerate() {
            places[permutation[at]] = member.digests[exchange];
        }
        let mut digest = places.into_iter().fold(0, mix);
        // Links have no order among each other, messages on a link do.
        let mut links = 0u64;
        for link in self.wire.chunk_by(|a, b| a.link() == b.link()) {
            links = links.wrapping_add(link.iter().fold(1, |chain, packet| mix(chain, packet.digests[exchange])));
        }
        digest = mix(digest, links);
        for leader in &self.promises.leaders {
            digest = mix(digest, renumber(permutation, *leader));
        }
        for (slot, term) in &self.promises.committed {
            digest = mix(digest, slot.term << 32 | u64::from(slot.value) << 16 | term);
        }
        let Used { proposals, crashes, timeouts, waits, beats, stalls, drops } = self.used;
        let broken = u8::from(self.promises.two_leaders) << 1 | u8::from(self.promises.diverged);
        mix(digest, u64::from_le_bytes([proposals, crashes, timeouts, waits, beats, stalls, drops, broken]))
    }

    /// Puts a message behind those that are on its link.
    fn send(&mut self, packet: &'static Packet) {
        let at = self.wire.partition_point(|other| other.link() <= packet.link());
        self.wire.insert(at, packet);
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    /// A member takes an input; a message comes from that place on the wire.
    Take { at: usize, input: Input, from_wire: Option<usize>, outcome: &'static Outcome },
    /// A member is started.
    Start { at: usize, outcome: &'static Outcome },
    /// The power of a resting member is cut.
    Cut { at: usize, member: &'static Member },
    /// A message arrives where nobody listens, or the network loses it.
    Lose { from_wire: usize },
}

/// The model.
pub(super) struct Cluster {
    pub(super) bounds: Bounds,
    pub(super) memo: Memo,
    pub(super) found: Found,
}

impl Cluster {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { memo: Memo::new(bounds.mutant, bounds.stalls > 0, bounds.audit), found: Found::default(), bounds }
    }

    fn allows(&self, used: &Used, cut: Cut) -> bool {
        match cut {
            Cut::Done | Cut::Panicked => true,
            Cut::Stalled => used.stalls < self.bounds.stalls,
            Cut::Crashed { .. } => used.crashes < self.bounds.crashes,
        }
    }

    /// What time, clients and the disk may do to a running member.
    fn own_inputs(&self, state: &State, member: &Member, inputs: &mut Vec<Input>) {
        let Some(image) = member.image() else { return };
        let (used, bounds) = (&state.used, &self.bounds);
        if image.role == StateRole::Leader {
            if used.beats < bounds.beats {
                inputs.push(Input::Beat);
            }
            if used.proposals < bounds.proposals {
                inputs.push(Input::Propose(used.proposals + 1));
            }
        } else {
            if used.timeouts < bounds.timeouts && image.term < bounds.terms {
                inputs.push(Input::Timeout);
            }
            if used.waits < bounds.waits && image.leader != 0 && image.election_elapsed < ELECTION_TICKS {
                inputs.push(Input::Wait);
            }
        }
        if member.pending > 0 {
            inputs.push(Input::Flush);
        }
    }

    fn take(&self, state: &State, at: usize, input: Input, from_wire: Option<usize>, actions: &mut Vec<Action>) {
        for outcome in self.memo.outcomes(state.members[at], input) {
            if self.allows(&state.used, outcome.cut) {
                actions.push(Action::Take { at, input, from_wire, outcome });
            }
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let members = std::array::from_fn(|at| self.memo.newborn(at as u64 + 1));
        vec![State { members, wire: Vec::new(), promises: Promises::default(), used: Used::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut inputs = Vec::new();
        for (at, member) in state.members.iter().copied().enumerate() {
            match member.status {
                Status::Broken(_) => {}
                Status::Down => {
                    for outcome in self.memo.outcomes(member, Input::Flush) {
                        if self.allows(&state.used, outcome.cut) {
                            actions.push(Action::Start { at, outcome });
                        }
                    }
                }
                Status::Up(_) => {
                    inputs.clear();
                    self.own_inputs(state, member, &mut inputs);
                    for input in &inputs {
                        self.take(state, at, *input, None, actions);
                    }
                    if state.used.crashes < self.bounds.crashes {
                        let contents = member.disk.survivors();
                        for member in self.memo.survivors(member.id(), &contents, member.floor, member.applied) {
                            actions.push(Action::Cut { at, member });
                        }
                    }
                }
            }
        }
        let mut last = (0, 0);
        for (from_wire, packet) in state.wire.iter().copied().enumerate() {
            // Only the first of each link can arrive.
            if std::mem::replace(&mut last, packet.link()) == packet.link() {
                continue;
            }
            let at = packet.link().1 as usize - 1;
            match state.members[at].status {
                Status::Up(_) => {
                    self.take(state, at, Input::Receive(packet), Some(from_wire), actions);
                    if state.used.drops < self.bounds.drops {
                        actions.push(Action::Lose { from_wire });
                    }
                }
                Status::Down => actions.push(Action::Lose { from_wire }),
                Status::Broken(_) => {}
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Lose { from_wire } => {
                let packet = state.wire.remove(from_wire);
                let heard = state.members[packet.link().1 as usize - 1].image().is_some();
                state.used.drops += u8::from(heard);
            }
            Action::Cut { at, member } => {
                state.members[at] = member;
                state.used.crashes += 1;
                self.forget_spent(&mut state);
            }
            Action::Start { at, outcome } => self.follow(&mut state, at, outcome),
            Action::Take { at, input, from_wire, outcome } => {
                if let Some(from_wire) = from_wire {
                    state.wire.remove(from_wire);
                }
                match input {
                    Input::Timeout => state.used.timeouts += 1,
                    Input::Wait => state.used.waits += 1,
                    Input::Beat => state.used.beats += 1,
                    Input::Propose(_) => state.used.proposals += 1,
                    Input::Receive(_) | Input::Flush => {}
                }
                self.follow(&mut state, at, outcome);
            }
        }
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.wire.len() <= self.bounds.in_flight
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Cluster {
    fn follow(&self, state: &mut State, at: usize, outcome: &Outcome) {
        match outcome.cut {
            Cut::Done | Cut::Panicked => {}
            Cut::Stalled => state.used.stalls += 1,
            Cut::Crashed { .. } => state.used.crashes += 1,
        }
        state.members[at] = outcome.member;
        for packet in &outcome.sends {
            state.send(packet);
        }
        state.promises.note(outcome);
        self.forget_spent(state);
    }

    /// Takes messages off the wire that will never have an effect.
    fn forget_spent(&self, state: &mut State) {
        let members = state.members;
        state.wire.retain(|packet| {
            let receiver = members[packet.link().1 as usize - 1];
            let spent = is_spent(&packet.message, receiver);
            if spent && self.bounds.audit && receiver.image().is_some() {
                self.memo.expect_ignored(receiver, packet);
            }
            !spent
        });
    }
}

impl Promises {
    fn note(&mut self, outcome: &Outcome) {
        for term in &outcome.elected {
            let place = *term as usize - 1;
            if self.leaders.len() <= place {
                self.leaders.resize(place + 1, 0);
            }
            // Not even the same member twice: it would have forgotten its vote between.
            self.two_leaders |= self.leaders[place] != 0;
            self.leaders[place] = outcome.member.id();
        }
        for (index, slot) in &outcome.applied {
            self.commit(*index, *slot, outcome.term);
        }
        if let Some(image) = outcome.member.image() {
            for (at, slot) in outcome.member.slots.iter().enumerate().take(image.committed as usize) {
                self.commit(at as u64 + 1, *slot, outcome.term);
            }
        }
    }

    fn commit(&mut self, index: u64, slot: Slot, term: u64) {
        match self.committed.get(index as usize - 1) {
            Some((known, _)) => self.diverged |= *known != slot,
            // Indexes come in order: nobody commits an entry without those before it.
            None => self.committed.push((slot, term)),
        }
    }
}
