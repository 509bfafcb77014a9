//! The cluster: candidates, the lease between them, and what happens next.

use std::sync::atomic::{AtomicBool, Ordering};

use controllers_core::election::Input;
use stateright::{Model, Property};

use super::candidate::Candidate;
use super::store::{Answer, Ask, Store};
use super::{Bounds, properties};
use crate::exploration::Found;

/// What the bounds have been used up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Used {
    pub(super) losses: u8,
    pub(super) crashes: u8,
    pub(super) releases: u8,
    pub(super) stale: u8,
    pub(super) writes: u8,
}

/// A state of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// Seconds of the true clock.
    pub(super) now: u8,
    pub(super) store: Store,
    pub(super) candidates: Vec<Candidate>,
    pub(super) used: Used,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A second passes.
    Pass,
    /// A candidate whose time has come is woken.
    Wake(usize),
    /// A request is carried out.
    Carry { at: usize, request: usize },
    /// The lease is read as it was before.
    Stale { at: usize, request: usize },
    /// A candidate is answered.
    Answer(usize),
    /// It has waited for long enough.
    Lose(usize),
    /// It is killed, and starts anew.
    Crash(usize),
    /// It is told to end.
    Release(usize),
    /// A write of its controllers is let go.
    Write(usize),
    /// It arrives.
    Arrive(usize),
}

/// What came about on some way, for properties of steps.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Somebody stopped whose name is still in the lease.
    pub(super) stopped: AtomicBool,
    /// What nobody waits for was refused.
    pub(super) late_refused: AtomicBool,
    /// What nobody waits for was written.
    pub(super) late_written: AtomicBool,
}

/// The model.
pub(super) struct Cluster {
    pub(super) bounds: Bounds,
    pub(super) found: Found,
    pub(super) seen: Seen,
}

impl Cluster {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, found: Found::default(), seen: Seen::default() }
    }

    /// Who may act, by their own clocks.
    pub(super) fn acting<'a>(&self, state: &'a State) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let bounds = self.bounds.clone();
        let now = state.now;
        state.candidates.iter().enumerate().filter(move |(_, candidate)| candidate.may_act(&bounds, now))
    }

    fn own_actions(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let (bounds, used, candidate) = (&self.bounds, &state.used, &state.candidates[at]);
        for (request, sent) in candidate.requests.iter().enumerate() {
            if sent.answer.is_none() {
                actions.push(Action::Carry { at, request });
                let is_read = sent.ask == Ask::Read;
                if is_read && sent.awaited && used.stale < bounds.stale && state.store.lease != state.store.before {
                    actions.push(Action::Stale { at, request });
                }
            } else {
                actions.push(Action::Answer(at));
            }
            if sent.awaited && used.losses < bounds.losses {
                actions.push(Action::Lose(at));
            }
        }
        if candidate.write.is_some() {
            actions.push(Action::Arrive(at));
        }
        if candidate.ended {
            return;
        }
        let clock = candidate.clock(bounds, state.now);
        if candidate.core.wake_at().is_some_and(|wake| wake <= clock) {
            actions.push(Action::Wake(at));
        }
        if used.crashes < bounds.crashes {
            actions.push(Action::Crash(at));
        }
        if used.releases < bounds.releases && candidate.core.wake_at().is_some() {
            actions.push(Action::Release(at));
        }
        if used.writes < bounds.writes && candidate.write.is_none() && candidate.may_act(bounds, state.now) {
            actions.push(Action::Write(at));
        }
    }

    fn tell(&self, state: &mut State, at: usize, input: Input) {
        let stopped = state.candidates[at].tell(&self.bounds, state.now, input);
        if stopped && state.store.holder() == state.candidates[at].name {
            self.seen.stopped.store(true, Ordering::Relaxed);
        }
    }

    fn carry(&self, state: &mut State, at: usize, request: usize) {
        let sent = state.candidates[at].requests.remove(request);
        let answer = state.store.answer(&sent, self.bounds.mutant);
        if sent.awaited {
            let sent = super::store::Request { answer: Some(answer), ..sent };
            state.candidates[at].requests.insert(request, sent);
            return;
        }
        match answer {
            Answer::Written(_) => self.seen.late_written.store(true, Ordering::Relaxed),
            Answer::Refused(_) => self.seen.late_refused.store(true, Ordering::Relaxed),
            Answer::Read(_) => {}
        }
    }

    fn answer(&self, state: &mut State, at: usize) {
        let Some(request) = state.candidates[at].awaited() else { return };
        let Some(answer) = state.candidates[at].requests.remove(request).answer else { return };
        let input = Candidate::answered(answer, state.store.lease.as_ref(), self.bounds.mutant);
        self.tell(state, at, input);
    }

    /// Nobody waits for it any more. What only read has no effect.
    fn abandon(state: &mut State, at: usize) {
        let candidate = &mut state.candidates[at];
        let Some(request) = candidate.awaited() else { return };
        let sent = &mut candidate.requests[request];
        sent.awaited = false;
        if sent.answer.is_some() || sent.ask == Ask::Read {
            candidate.requests.remove(request);
        }
    }

    fn crash(&self, state: &mut State, at: usize) {
        Self::abandon(state, at);
        let old = &mut state.candidates[at];
        let mut new = Candidate::new(at, old.is_fast, old.life + 1, self.bounds.mutant);
        new.requests = std::mem::take(&mut old.requests);
        new.write = old.write;
        *old = new;
    }

    fn arrive(&self, state: &mut State, at: usize) {
        let Some(since) = state.candidates[at].write.take() else { return };
        let another = self.acting(state).any(|(other, _)| other != at);
        state.store.broken.arrived |= another && state.now - since <= self.bounds.write_max;
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    /// Nobody has asked for anything. Clocks are fast or slow.
    fn init_states(&self) -> Vec<State> {
        let count = usize::from(self.bounds.candidates);
        // Which ones are fast doesn't matter, but how many: they have all seen the same, nothing.
        let most = if self.bounds.skew == 0 { 0 } else { count };
        let begin = |fast: usize| {
            let candidate = |at: usize| Candidate::new(at, at < fast, 1, self.bounds.mutant);
            State {
                now: 0,
                store: Store::default(),
                candidates: (0..count).map(candidate).collect(),
                used: Used::default(),
            }
        };
        (0..=most).map(begin).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.bounds.seconds {
            actions.push(Action::Pass);
        }
        for at in 0..state.candidates.len() {
            self.own_actions(state, at, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Pass => state.now += 1,
            Action::Wake(at) => self.tell(&mut state, at, Input::Wake),
            Action::Carry { at, request } => {
                let is_read = last.candidates[at].requests[request].ask == Ask::Read;
                self.carry(&mut state, at, request);
                // What is read is answered at once: an answer that is on its way shows an older lease, as `Stale` does,
                // and what it leads to can be on its way for just as long.
                if is_read {
                    self.answer(&mut state, at);
                }
            }
            Action::Stale { at, request } => {
                state.used.stale += 1;
                state.candidates[at].requests[request].answer = Some(Answer::Read(state.store.before.clone()));
                self.answer(&mut state, at);
            }
            Action::Answer(at) => self.answer(&mut state, at),
            Action::Lose(at) => {
                state.used.losses += 1;
                Self::abandon(&mut state, at);
                self.tell(&mut state, at, Input::Failed);
            }
            Action::Crash(at) => {
                state.used.crashes += 1;
                self.crash(&mut state, at);
            }
            Action::Release(at) => {
                state.used.releases += 1;
                self.tell(&mut state, at, Input::Release);
            }
            Action::Write(at) => {
                state.used.writes += 1;
                state.candidates[at].write = Some(state.now);
            }
            Action::Arrive(at) => self.arrive(&mut state, at),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }
}
