//! The cluster: its members, the messages between them, and what was promised so far.

use std::hash::{Hash, Hasher};

use raft::StateRole;
use raft::eraftpb::MessageType;
use stateright::{Model, Property};
use store_core::replica::Image;

use crate::exploration::Found;

use super::Bounds;
use super::entry::{Change, FORWARDED, FOUNDING_TERM, Value};
use super::kept::Kept;
use super::member::{Member, Status};
use super::memo::{Cut, Memo, Outcome};
use super::packet::{Packet, is_spent, snapshot_status};
use super::promises::Promises;
use super::properties;
use super::shell::{ELECTION_TICKS, Input};
use super::symmetry::{MEMBERS_MAX, Permutation, exchanges, mix, renumber, sorts};
use super::trace;

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
    pub(super) duplicates: u8,
    pub(super) overtakings: u8,
    pub(super) reads: u8,
    pub(super) transfers: u8,
    pub(super) changes: u8,
    pub(super) compactions: u8,
    pub(super) forwards: u8,
}

impl Used {
    pub(super) fn count(&mut self, input: Input) {
        match input {
            Input::Timeout => self.timeouts += 1,
            Input::Wait => self.waits += 1,
            Input::Beat => self.beats += 1,
            Input::Propose(_) => self.proposals += 1,
            Input::Read => self.reads += 1,
            Input::Transfer(_) => self.transfers += 1,
            Input::Change(..) => self.changes += 1,
            Input::Compact => self.compactions += 1,
            Input::Forward(_) => self.forwards += 1,
            Input::Receive(_) | Input::Flush | Input::Apply => {}
        }
    }
}

/// A state of the cluster.
#[derive(Clone, PartialEq)]
pub(super) struct State {
    pub(super) members: Vec<Kept<Member>>,
    /// Messages on their way, sorted by link, and on each in the order in which they were sent.
    pub(super) wire: Vec<Kept<Packet>>,
    pub(super) promises: Promises,
    pub(super) used: Used,
}

/// As a path tells where it ends.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines = Vec::new();
        trace::end(self, &mut lines);
        f.write_str(&lines.join("\n"))
    }
}

impl Hash for State {
    /// The least over the exchanges that bring the members into their order.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut least = u64::MAX;
        let ranks = || self.members.iter().map(|member| member.rank);
        for (at, exchange) in exchanges(self.members.len()).iter().enumerate() {
            if sorts(exchange, ranks()) {
                least = least.min(self.digest(at, exchange));
            }
        }
        hasher.write_u64(least);
    }
}

impl State {
    fn digest(&self, exchange: usize, permutation: &Permutation) -> u64 {
        let mut places = [0; MEMBERS_MAX];
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
            digest = mix(digest, u64::from(u16::from_le_bytes(slot.code(permutation))) << 16 | term);
        }
        for (context, floor) in &self.promises.reads {
            digest = mix(digest, context.digest(permutation));
            digest = mix(digest, *floor);
        }
        let Used { proposals, crashes, timeouts, waits, beats, stalls, drops, duplicates, .. } = self.used;
        let Used { overtakings, reads, transfers, changes, compactions, forwards, .. } = self.used;
        let Promises { two_leaders, diverged, stale_read, early, .. } = self.promises;
        let broken = u8::from(early) << 3 | u8::from(two_leaders) << 2 | u8::from(diverged) << 1 | u8::from(stale_read);
        digest =
            mix(digest, u64::from_le_bytes([proposals, crashes, timeouts, waits, beats, stalls, drops, duplicates]));
        mix(digest, u64::from_le_bytes([overtakings, reads, transfers, changes, compactions, broken, forwards, 0]))
    }

    /// Puts a message behind those that are on its link.
    fn send(&mut self, packet: Kept<Packet>) {
        let at = self.wire.partition_point(|other| other.link() <= packet.link());
        self.wire.insert(at, packet);
    }

    /// A message arrives from that place on the wire.
    pub(super) fn arrive(&mut self, place: usize, arrival: Arrival) -> Kept<Packet> {
        if arrival == Arrival::Twice {
            self.used.duplicates += 1;
            return self.wire[place].clone();
        }
        self.used.overtakings += u8::from(arrival == Arrival::Overtaking);
        self.wire.remove(place)
    }
}

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// A member takes an input; a message comes from that place on the wire.
    Take { at: usize, input: Input, from_wire: Option<(usize, Arrival)>, outcome: &'static Outcome },
    /// A member is started.
    Start { at: usize, outcome: &'static Outcome },
    /// The power of a resting member is cut.
    Cut { at: usize, member: Kept<Member> },
    /// A message arrives where nobody listens, or the network loses it.
    Lose { from_wire: usize },
}

/// How a message arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arrival {
    InOrder,
    /// Before others that were sent before it.
    Overtaking,
    /// And will once more.
    Twice,
}

/// The model.
pub(super) struct Cluster {
    pub(super) bounds: Bounds,
    pub(super) memo: Memo,
    pub(super) found: Found,
}

impl Cluster {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { memo: Memo::new(&bounds), found: Found::default(), bounds }
    }

    /// To walk through.
    pub(super) fn to_walk(bounds: Bounds) -> Self {
        Self { memo: Memo::of_a_walk(&bounds), found: Found::default(), bounds }
    }

    fn allows(&self, used: &Used, cut: Cut) -> bool {
        match cut {
            Cut::Done | Cut::Panicked => true,
            Cut::Stalled => used.stalls < self.bounds.stalls,
            Cut::Crashed { .. } => used.crashes < self.bounds.crashes,
        }
    }

    /// What time, clients and the disk may do to a running member.
    pub(super) fn own_inputs(&self, state: &State, member: &Member, inputs: &mut Vec<Input>) {
        let Some(image) = member.image() else { return };
        let (used, bounds) = (&state.used, &self.bounds);
        if image.role == StateRole::Leader {
            if used.beats < bounds.beats {
                inputs.push(Input::Beat);
            }
            if used.proposals < bounds.proposals {
                inputs.push(Input::Propose(used.proposals + 1));
            }
            if used.transfers < bounds.transfers && image.transferee == 0 {
                let others = image.voters.iter().filter(|id| **id != member.id());
                inputs.extend(others.copied().map(Input::Transfer));
            }
            if used.changes < bounds.changes && image.pending_conf_index <= image.applied {
                changes(member, image, bounds.nodes, inputs);
            }
        } else {
            let stands = image.voters.contains(&member.id());
            if stands && used.timeouts < bounds.timeouts && image.term < FOUNDING_TERM + bounds.terms {
                inputs.push(Input::Timeout);
            }
            if used.waits < bounds.waits && image.leader != 0 && image.election_elapsed < ELECTION_TICKS {
                inputs.push(Input::Wait);
            }
            if used.forwards < bounds.forwards && image.leader != 0 {
                inputs.push(Input::Forward(FORWARDED + used.forwards + 1));
            }
        }
        // Without a leader it would be dropped.
        if used.reads < bounds.reads && image.leader != 0 {
            inputs.push(Input::Read);
        }
        let in_log = image.applied > member.log.base;
        if used.compactions < bounds.compactions && in_log && member.log.slots.len() > 1 {
            inputs.push(Input::Compact);
        }
        if member.pending > 0 {
            inputs.push(Input::Flush);
        }
        if member.due > 0 {
            inputs.push(Input::Apply);
        }
    }

    fn take(
        &self,
        state: &State,
        at: usize,
        input: Input,
        from_wire: Option<(usize, Arrival)>,
        actions: &mut Vec<Action>,
    ) {
        for outcome in self.memo.outcomes(&state.members[at], input) {
            if self.allows(&state.used, outcome.cut) {
                actions.push(Action::Take { at, input, from_wire, outcome });
            }
        }
    }
}

/// The changes of members that make sense to a leader. Who was removed doesn't come back under the same number.
fn changes(leader: &Member, image: &Image, nodes: u8, inputs: &mut Vec<Input>) {
    for id in 1..=u64::from(nodes) {
        if image.learners.contains(&id) {
            inputs.push(Input::Change(Change::Promote, id));
        }
        let known = image.learners.contains(&id) || image.voters.contains(&id);
        if known && image.voters.iter().any(|voter| *voter != id) {
            inputs.push(Input::Change(Change::Remove, id));
        }
        let was_removed = leader.state.iter().any(|slot| slot.value == Value::Change(Change::Remove, id));
        if !known && !was_removed {
            inputs.push(Input::Change(Change::AddLearner, id));
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = self.bounds.start();
        let members = (1..=u64::from(self.bounds.nodes)).map(|id| self.memo.newborn(id, &start)).collect();
        let committed = start.iter().map(|slot| (*slot, slot.term)).collect();
        let promises = Promises { committed, ..Promises::default() };
        vec![State { members, wire: Vec::new(), promises, used: Used::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let mut inputs = Vec::new();
        for (at, member) in state.members.iter().enumerate() {
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
                        for member in self.memo.survivors(member, &contents, &member.state, member.floor) {
                            actions.push(Action::Cut { at, member });
                        }
                    }
                }
            }
        }
        let mut last = (0, 0, false);
        // An exploration keeps all that was sent.
        let sent = state.wire.iter().filter_map(Kept::forever);
        for (from_wire, packet) in sent.enumerate() {
            let is_first = std::mem::replace(&mut last, packet.link()) != packet.link();
            self.arrivals(state, from_wire, packet, is_first, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Lose { from_wire } => self.lose(&mut state, from_wire),
            Action::Cut { at, member } => self.cut(&mut state, at, member),
            Action::Start { at, outcome } => self.follow(&mut state, at, outcome),
            Action::Take { at, input, from_wire, outcome } => {
                if let Some((place, arrival)) = from_wire {
                    state.arrive(place, arrival);
                }
                state.used.count(input);
                if let Input::Receive(packet) = input {
                    let taken = matches!(outcome.cut, Cut::Done | Cut::Stalled);
                    self.tell_sender(&mut state, packet, taken);
                }
                self.follow(&mut state, at, outcome);
            }
        }
        Some(state)
    }

    fn format_action(&self, action: &Action) -> String {
        trace::title(action)
    }

    fn format_step(&self, last: &State, action: Action) -> Option<String> {
        let mut lines = Vec::new();
        trace::step(self, 1, last, &action, &mut lines);
        Some(lines.join("\n"))
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.wire.len() <= self.bounds.in_flight
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }
}

impl Cluster {
    /// A message arrives where nobody listens, or the network loses it.
    pub(super) fn lose(&self, state: &mut State, place: usize) {
        let packet = state.wire.remove(place);
        let heard = state.members[packet.link().1 as usize - 1].image().is_some();
        state.used.drops += u8::from(heard);
        self.tell_sender(state, &packet, false);
    }

    /// The power of a resting member is cut, which leaves that of it.
    pub(super) fn cut(&self, state: &mut State, at: usize, left: Kept<Member>) {
        state.promises.forget_reads(left.id());
        state.members[at] = left;
        state.used.crashes += 1;
        self.forget_spent(state);
    }

    /// Whoever sent a snapshot learns whether it was taken.
    pub(super) fn tell_sender(&self, state: &mut State, packet: &Packet, taken: bool) {
        if packet.message.msg_type == MessageType::MsgSnapshot {
            state.send(self.memo.packet(&snapshot_status(&packet.message, taken)));
        }
    }

    /// The ways in which a message may arrive, or not.
    fn arrivals(
        &self,
        state: &State,
        from_wire: usize,
        packet: &'static Packet,
        is_first: bool,
        actions: &mut Vec<Action>,
    ) {
        let at = packet.link().1 as usize - 1;
        let (used, bounds) = (&state.used, &self.bounds);
        if !is_first && used.overtakings >= bounds.overtakings {
            return;
        }
        match state.members[at].status {
            Status::Up(_) => {
                let arrival = if is_first { Arrival::InOrder } else { Arrival::Overtaking };
                self.take(state, at, Input::Receive(packet), Some((from_wire, arrival)), actions);
                if is_first && used.duplicates < bounds.duplicates && packet.may_come_twice() {
                    self.take(state, at, Input::Receive(packet), Some((from_wire, Arrival::Twice)), actions);
                }
                if is_first && packet.may_be_lost() && used.drops < bounds.drops {
                    actions.push(Action::Lose { from_wire });
                }
            }
            Status::Down if is_first => actions.push(Action::Lose { from_wire }),
            Status::Down | Status::Broken(_) => {}
        }
    }

    pub(super) fn follow(&self, state: &mut State, at: usize, outcome: &Outcome) {
        match outcome.cut {
            Cut::Done | Cut::Panicked => {}
            Cut::Stalled => state.used.stalls += 1,
            Cut::Crashed { .. } => state.used.crashes += 1,
        }
        state.members[at] = outcome.member.clone();
        // Before what the step commits: a read may be answered from what was known when it was asked for.
        state.promises.note_reads(outcome);
        for packet in &outcome.sends {
            state.send(packet.clone());
        }
        state.promises.note(outcome);
        self.forget_spent(state);
    }

    /// Takes messages off the wire that will never have an effect.
    fn forget_spent(&self, state: &mut State) {
        let members = &state.members;
        state.wire.retain(|packet| {
            let receiver = &members[packet.link().1 as usize - 1];
            let spent = is_spent(&packet.message, receiver);
            if spent
                && self.bounds.audit
                && receiver.image().is_some()
                && let Some(packet) = packet.forever()
            {
                self.memo.expect_ignored(receiver, packet);
            }
            !spent
        });
    }
}
