//! The cluster: members, the log between them, and what was promised so far.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use stateright::{Model, Property};

use super::Bounds;
use super::history::{Applied, Command, Entry};
use super::member::{Member, Mutant, Stage, Waiting, fastest};
use super::properties;
use crate::exploration::Found;

/// What the holder of a lease was told, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Holder {
    /// Since when, by the true clock, and for how many seconds he may rely on it.
    pub(super) promised: Option<(u8, i64)>,
    /// When its end was committed.
    pub(super) ended: Option<u8>,
}

/// What must never be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Broken {
    /// A lease ended before its time.
    pub(super) early: bool,
    /// A lease was ended that had ended.
    pub(super) twice: bool,
    /// A lease was ended by a leader of an earlier term.
    pub(super) deposed: bool,
    /// A new leader gave a lease other than what the log says is left.
    pub(super) otherwise: bool,
}

/// What the bounds have been used up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Used {
    pub(super) elections: u8,
    pub(super) renewals: u8,
    /// Leases that were asked for.
    pub(super) grants: u8,
}

/// A state of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    /// Steps of the true clock.
    pub(super) now: u8,
    pub(super) members: Vec<Member>,
    pub(super) committed: Vec<Arc<Applied>>,
    /// What the leader has proposed, in order.
    pub(super) proposed: Vec<Entry>,
    /// The latest in which somebody leads.
    pub(super) term: u8,
    pub(super) holders: Vec<Holder>,
    pub(super) broken: Broken,
    pub(super) used: Used,
}

impl Hash for State {
    /// Members have no names: nothing but themselves says who is who.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let digest = |member: &Member| {
            let mut hasher = DefaultHasher::new();
            member.hash(&mut hasher);
            hasher.finish()
        };
        let mut members: Vec<u64> = self.members.iter().map(digest).collect();
        members.sort_unstable();
        members.hash(hasher);
        let Self { now, members: _, committed, proposed, term, holders, broken, used } = self;
        (now, committed, proposed, term, holders, broken, used).hash(hasher);
    }
}

impl State {
    /// The place in the log of a term's first entry, if it is committed.
    pub(super) fn beginning(&self, term: u8) -> Option<usize> {
        let begins = |applied: &Arc<Applied>| applied.entry.term == term;
        self.committed.iter().position(begins)
    }

    /// Whether a member leads, and nobody after it.
    pub(super) fn leads(&self, member: &Member) -> bool {
        member.leads == Some(self.term)
    }

    /// Whether no lease is in the log, nor will be.
    fn is_without_leases(&self) -> bool {
        let mut commands = self.committed.iter().map(|applied| &applied.entry).chain(&self.proposed);
        !commands.any(|entry| matches!(entry.command, Command::Grant(..)))
    }

    /// A client's command reaches who leads.
    fn ask(&mut self, command: Command) {
        self.proposed.push(Entry { term: self.term, decided: self.term, command });
    }

    /// Proposes what a member decides. What it decides when it doesn't lead any more isn't found in the log that counts.
    fn propose(&mut self, at: usize, commands: Vec<Command>, mutant: Option<Mutant>) {
        let member = &mut self.members[at];
        let (term, decided) = (self.term, member.leads.unwrap_or(0));
        if decided != term {
            member.ended_in_vain |= commands.iter().any(|command| matches!(command, Command::Revoke(_)));
            if mutant != Some(Mutant::ForwardExpiry) {
                return;
            }
        }
        self.proposed.extend(commands.into_iter().map(|command| Entry { term, decided, command }));
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A second passes.
    Pass,
    /// A client asks for the next lease, and right behind it puts the key that goes with it.
    Grant,
    /// A majority has the next of what the leader proposed.
    Commit,
    /// A member is elected whose log has so much of what the leader before it proposed.
    Elect { at: usize, kept: usize },
    /// A member that led learns that another does.
    Learn(usize),
    /// A member's lessor takes over; the state is this far by then.
    TakeOver { at: usize, state: usize },
    /// A member's lessor is told what the next entry did.
    Hear(usize),
    /// A member looks at its leases.
    Look(usize),
    /// A member is asked to renew a lease.
    Renew { at: usize, lease: i64 },
    /// A member proposes to take a checkpoint back.
    TakeBack(usize),
    /// What a renewal waits for has come.
    Answer(usize),
}

/// The model.
pub(super) struct Cluster {
    pub(super) bounds: Bounds,
    pub(super) found: Found,
}

impl Cluster {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, found: Found::default() }
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = i64> {
        1..=i64::from(self.bounds.leases)
    }

    fn clock(&self, state: &State, at: usize) -> u64 {
        state.members[at].clock(&self.bounds, state.now)
    }

    /// Whether a holder could rely on his lease for as long as he was told, by the fastest clock.
    pub(super) fn is_kept(&self, (since, seconds): (u8, i64), until: u8) -> bool {
        let passed = u64::from(until.saturating_sub(since)) * fastest(&self.bounds);
        i64::try_from(passed).is_ok_and(|passed| passed >= seconds * 1000)
    }

    fn promise(&self, state: &mut State, lease: i64, since: u8, seconds: i64) {
        let Some(holder) = holder(state, lease) else { return };
        if holder.promised.is_none_or(|(earlier, _)| earlier < since) {
            holder.promised = Some((since, seconds));
        }
        let ended_early = holder.ended.is_some_and(|ended| !self.is_kept((since, seconds), ended));
        state.broken.early |= ended_early;
    }

    fn commit(&self, state: &mut State) {
        let entry = state.proposed.remove(0);
        let applied = entry.apply(&state.committed);
        for (id, ttl) in &applied.writes.granted {
            self.promise(state, *id, state.now, *ttl);
        }
        if let Command::Revoke(ids) = &applied.entry.command {
            state.broken.deposed |= applied.entry.decided != applied.entry.term;
            state.broken.twice |= ids.iter().any(|id| !applied.writes.ended.contains(id));
            let now = state.now;
            for id in &applied.writes.ended {
                let Some(holder) = holder(state, *id) else { continue };
                holder.ended = Some(now);
                let early = holder.promised.is_none_or(|promised| !self.is_kept(promised, now));
                state.broken.early |= early;
            }
        }
        state.committed.push(applied);
    }

    fn elect(&self, state: &mut State, at: usize, kept: usize) {
        state.proposed.truncate(kept);
        state.term += 1;
        let (term, committed) = (state.term, state.committed.len());
        for member in &mut state.members {
            member.unaware |= member.leads.is_some();
            // What is cut is never heard of; nor is the rest of what it proposed by who doesn't know the next leader.
            let lost = if member.unaware { committed } else { committed + kept };
            if matches!(&member.waiting, Some(Waiting { stage: Stage::TakingBack(at), .. }) if *at >= lost) {
                member.waiting = None;
            }
        }
        state.ask(Command::Nothing);
        let clock = self.clock(state, at);
        let member = &mut state.members[at];
        member.leader_changed(Some(term));
        if self.bounds.mutant == Some(Mutant::LeadEarly) {
            let applied = (committed - 1).max(1);
            member.take_over(clock, applied, &state.committed[applied - 1]);
        }
    }

    /// Lets whoever leads keep up with what is committed.
    fn keep_up(&self, state: &mut State) {
        let clocks: Vec<u64> = (0..state.members.len()).map(|at| self.clock(state, at)).collect();
        for (at, clock) in clocks.into_iter().enumerate() {
            if !state.leads(&state.members[at]) {
                continue;
            }
            if !state.members[at].lessor.leads() && state.beginning(state.term).is_some() {
                self.take_over(state, at, state.committed.len() - 1);
            }
            let State { members, committed, .. } = &mut *state;
            while members[at].lessor.leads() && members[at].heard < committed.len() {
                members[at].hear(clock, committed);
            }
        }
    }

    /// A leader's lessor takes over once its term's first entry is applied.
    fn take_over(&self, state: &mut State, at: usize, applied: usize) {
        let (clock, Some(begins)) = (self.clock(state, at), state.beginning(state.term)) else { return };
        state.members[at].take_over(clock, begins + 1, &state.committed[applied]);
        state.broken.otherwise |= !properties::gives_what_is_left(self, state, at, applied);
    }

    /// What a renewal waits for has come; it is answered, or not.
    fn answer(&self, state: &mut State, at: usize) {
        let member = &mut state.members[at];
        let Some(Waiting { lease, since, promise, .. }) = member.waiting.take() else { return };
        if member.stands_by(promise, self.bounds.mutant) {
            self.promise(state, lease, since, promise.seconds);
        }
    }

    /// What a member can do by itself.
    fn own_actions(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let member = &state.members[at];
        let leads = state.leads(member);
        if member.lessor.leads() {
            // What an unaware leader is told and proposes changes nothing but itself, and goes when it learns.
            if leads && member.heard < state.committed.len() {
                actions.push(Action::Hear(at));
            }
            let clock = member.clock(&self.bounds, state.now);
            let expires = !member.lessor.expired(clock).is_empty();
            if expires || (leads && !member.lessor.checkpoints(clock).is_empty()) {
                actions.push(Action::Look(at));
            }
            if member.waiting.is_none() && state.used.renewals < self.bounds.renewals {
                actions.extend(self.leases().map(|lease| Action::Renew { at, lease }));
            }
        } else if let Some(begins) = member.leads.filter(|_| leads).and_then(|term| state.beginning(term)) {
            // The state thread may be ahead of what it has told.
            actions.extend((begins..state.committed.len()).map(|last| Action::TakeOver { at, state: last }));
        }
        if member.unaware {
            actions.push(Action::Learn(at));
        }
        let at_once = self.bounds.mutant == Some(Mutant::AnswerAtOnce);
        // A read waits until what was committed before it is applied, and thus told.
        let is_told = !member.lessor.leads() || member.heard == state.committed.len();
        match member.waiting.as_ref().map(|waiting| &waiting.stage) {
            // Who doesn't know that another leads asks in vain, and proposes in vain.
            Some(Stage::Confirming) if at_once || (!member.unaware && is_told) => actions.push(Action::Answer(at)),
            Some(Stage::Proposing) if !member.unaware => actions.push(Action::TakeBack(at)),
            Some(Stage::TakingBack(index)) if *index < state.committed.len() && (member.unaware || is_told) => {
                actions.push(Action::Answer(at));
            }
            _ => {}
        }
    }
}

/// Whose lease it is.
fn holder(state: &mut State, lease: i64) -> Option<&mut Holder> {
    state.holders.get_mut(usize::try_from(lease - 1).ok()?)
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    /// One leads. Its clock is fast or slow, and those of the others.
    fn init_states(&self) -> Vec<State> {
        let bounds = &self.bounds;
        let rates: &[(bool, bool)] = match bounds.skew {
            0 => &[(true, true)],
            _ => &[(true, true), (true, false), (false, true), (false, false)],
        };
        let first = Entry { term: 1, decided: 1, command: Command::Nothing }.apply(&[]);
        let begin = |&(one, others): &(bool, bool)| {
            let is_fast = |at: u8| if at == 0 { one } else { others };
            let mut members: Vec<Member> = (0..bounds.members).map(|at| Member::new(bounds, is_fast(at))).collect();
            members[0].leads = Some(1);
            members[0].take_over(0, 1, &first);
            State {
                now: 0,
                members,
                committed: vec![first.clone()],
                proposed: Vec::new(),
                term: 1,
                holders: vec![Holder::default(); usize::from(bounds.leases)],
                broken: Broken::default(),
                used: Used::default(),
            }
        };
        rates.iter().map(begin).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // Without a lease nothing is at stake: before the first one is asked for, and if that is lost.
        if state.used.grants == 0 {
            actions.push(Action::Grant);
            return;
        }
        if state.used.grants == self.bounds.leases && state.is_without_leases() {
            return;
        }
        if state.now < self.bounds.seconds {
            actions.push(Action::Pass);
        }
        if state.used.grants < self.bounds.leases {
            actions.push(Action::Grant);
        }
        if !state.proposed.is_empty() {
            actions.push(Action::Commit);
        }
        for at in 0..state.members.len() {
            self.own_actions(state, at, actions);
            if state.used.elections < self.bounds.elections {
                actions.extend((0..=state.proposed.len()).map(|kept| Action::Elect { at, kept }));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let mutant = self.bounds.mutant;
        match action {
            Action::Pass => state.now += 1,
            Action::Grant => {
                state.used.grants += 1;
                let lease = i64::from(state.used.grants);
                state.ask(Command::Grant(lease, self.bounds.ttl));
                state.ask(Command::Put(lease));
            }
            Action::Commit => self.commit(&mut state),
            Action::Elect { at, kept } => {
                state.used.elections += 1;
                self.elect(&mut state, at, kept);
            }
            Action::Learn(at) => state.members[at].leader_changed(None),
            Action::TakeOver { at, state: applied } => {
                self.take_over(&mut state, at, applied);
            }
            Action::Hear(at) => {
                let clock = self.clock(&state, at);
                let State { members, committed, .. } = &mut state;
                members[at].hear(clock, committed);
            }
            Action::Look(at) => {
                let clock = self.clock(&state, at);
                let proposals = state.members[at].look(clock, mutant);
                state.propose(at, proposals, mutant);
            }
            Action::Renew { at, lease } => {
                state.used.renewals += 1;
                let (clock, now) = (self.clock(&state, at), state.now);
                if !state.members[at].renew(clock, now, lease) {
                    return None;
                }
            }
            Action::TakeBack(at) => {
                let index = state.committed.len() + state.proposed.len();
                let waiting = state.members[at].waiting.as_mut()?;
                waiting.stage = Stage::TakingBack(index);
                let command = Command::TakeBack(waiting.lease);
                state.ask(command);
            }
            Action::Answer(at) => self.answer(&mut state, at),
        }
        if !self.bounds.lag {
            self.keep_up(&mut state);
        }
        state.members.iter_mut().for_each(|member| member.forget(&self.bounds));
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.proposed.len() <= self.bounds.in_flight
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
