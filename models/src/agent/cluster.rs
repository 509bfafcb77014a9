//! The node: the API's objects, the runtime, the agent between them, and what happens next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::runtime::Action as Ask;
use models::runtime::Runtime;
use stateright::{Model, Property};

use super::mind::{Memo, Status};
use super::moments::at;
use super::node::{Agent, Call, Setting};
use super::{Bounds, Mutant, properties};
use crate::exploration::Found;

/// How far an object's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Unborn,
    Wanted,
    /// It has a deletionTimestamp.
    Marked,
    Gone,
}

/// A pod object; its UID is its place.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Object {
    pub(super) stage: Stage,
    /// Whether it went without grace: the agent was never asked.
    pub(super) forced: bool,
    pub(super) status: Option<Arc<Status>>,
}

/// What the bounds have been used up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Used {
    pub(super) crashes: u8,
    reboots: u8,
    losses: u8,
    failures: u8,
    exits: u8,
    deletions: u8,
    forced: u8,
    looks: u8,
}

/// What an effect broke.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Broken {
    /// Sandbox, volumes or record of a container went while it ran.
    pub(super) torn: bool,
    /// An object was deleted whose containers ran.
    pub(super) early: bool,
    /// An object was deleted that nobody wanted to be deleted.
    pub(super) unasked: bool,
}

/// A state of the node.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct State {
    pub(super) now: u32,
    pub(super) api: Vec<Object>,
    pub(super) runtime: Runtime,
    /// `None`: it doesn't run.
    pub(super) agent: Option<Agent>,
    /// Calls that nobody waits for. In order: which was first doesn't matter.
    pub(super) ghosts: Vec<Call>,
    pub(super) used: Used,
    pub(super) broken: Broken,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// The agent starts.
    Start,
    /// The API's list reaches it.
    List,
    /// What runs is looked at and told.
    Observe,
    /// What runs is looked at; it is told later.
    Look,
    /// It is told.
    See,
    /// The watch shows what became of a pod.
    Show(usize),
    /// A call takes effect, or is refused.
    Effect(usize),
    /// A call fails for a reason of its own.
    Fail(usize),
    /// The agent is told what came of a call.
    Answer(usize),
    /// The agent is told that a call failed, which it didn't, or won't.
    Lose(usize),
    /// A status is written.
    Publish(usize),
    /// Time passes until the agent looks by itself.
    Wake,
    /// The agent is killed.
    Crash,
    /// The machine starts anew.
    Reboot,
    /// A call that nobody waits for takes effect.
    Ghost(usize),
    /// It never does.
    Drop(usize),
    /// A container's process ends.
    Exit { uid: usize, id: String, code: i32 },
    /// Somebody makes the next pod of the name.
    Create(usize),
    /// Somebody deletes a pod.
    Mark(usize),
    /// Somebody deletes a pod without grace.
    Force(usize),
}

/// The model.
pub(super) struct Cluster {
    pub(super) bounds: Bounds,
    pub(super) found: Found,
    pub(super) memo: Memo,
    /// Whether a call took effect that nobody waited for.
    pub(super) late: AtomicBool,
}

impl Cluster {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { memo: Memo::new(bounds.clone()), bounds, found: Found::default(), late: AtomicBool::new(false) }
    }

    fn with(&self, now: u32) -> Setting<'_> {
        Setting { memo: &self.memo, bounds: &self.bounds, now }
    }

    /// What the agent and those it waits for do sooner or later.
    fn agent_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(agent) = &state.agent else {
            actions.push(Action::Start);
            return;
        };
        let before = actions.len();
        if !agent.listed {
            actions.push(Action::List);
        }
        if agent.look.is_some() {
            actions.push(Action::See);
        } else if agent.is_blind(&state.runtime.pods) {
            actions.push(Action::Observe);
        }
        for uid in 0..state.api.len() {
            if agent.is_behind(uid, &state.api, &self.bounds) {
                actions.push(Action::Show(uid));
            }
            if agent.minds[uid].as_ref().is_some_and(|mind| mind.pending.is_some()) {
                actions.push(Action::Publish(uid));
            }
        }
        for (at, call) in agent.calls.iter().enumerate() {
            actions.push(if call.done.is_none() { Action::Effect(at) } else { Action::Answer(at) });
        }
        if actions.len() == before && agent.next_wake().is_some() {
            actions.push(Action::Wake);
        }
    }

    /// What goes wrong.
    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        let (used, bounds) = (&state.used, &self.bounds);
        let ghosts = 0..state.ghosts.len();
        actions.extend(ghosts.clone().map(Action::Ghost).chain(ghosts.map(Action::Drop)));
        if used.reboots < bounds.reboots {
            actions.push(Action::Reboot);
        }
        let Some(agent) = &state.agent else { return };
        if used.crashes < bounds.crashes {
            actions.push(Action::Crash);
        }
        if used.looks < bounds.looks && agent.look.is_none() && agent.observed {
            actions.push(Action::Look);
        }
        for (at, call) in agent.calls.iter().enumerate() {
            if used.failures < bounds.failures && call.done.is_none() {
                actions.push(Action::Fail(at));
            }
            if used.losses < bounds.losses && call.done != Some(false) && *call.action != Ask::CleanUp {
                actions.push(Action::Lose(at));
            }
        }
    }

    /// What users and containers do.
    fn other_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (used, bounds) = (&state.used, &self.bounds);
        for (uid, object) in state.api.iter().enumerate() {
            if used.exits < bounds.exits {
                let exit = |id: &String, code| Action::Exit { uid, id: id.clone(), code };
                actions.extend(state.runtime.running(uid).flat_map(|c| [exit(&c.id, 0), exit(&c.id, 1)]));
            }
            if object.stage == Stage::Wanted && used.deletions < bounds.deletions {
                actions.push(Action::Mark(uid));
            }
            let is_there = matches!(object.stage, Stage::Wanted | Stage::Marked);
            if is_there && used.forced < bounds.forced {
                actions.push(Action::Force(uid));
            }
        }
        let next = state.api.iter().position(|object| object.stage != Stage::Gone);
        if let Some(next) = next.filter(|next| state.api[*next].stage == Stage::Unborn) {
            actions.push(Action::Create(next));
        }
    }

    /// Whether nothing happens any more unless somebody does something.
    pub(super) fn is_quiet(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.agent_actions(state, &mut actions);
        actions.is_empty() && state.ghosts.is_empty()
    }

    /// A call takes effect; whether it was done.
    fn carry_out(&self, state: &mut State, call: &Call) -> bool {
        let uid = usize::from(call.uid);
        let runs = |of: &dyn Fn(&agent_core::runtime::Container) -> bool| {
            state.runtime.running(uid).any(|c| !state.runtime.late.contains(&c.id) && of(c))
        };
        state.broken.torn |= match &*call.action {
            Ask::StopSandbox { id } | Ask::RemoveSandbox { id } => runs(&|c| c.sandbox_id == *id),
            Ask::RemoveContainer { id, .. } => runs(&|c| c.id == *id),
            Ask::CleanUp => runs(&|_| true),
            _ => false,
        };
        if *call.action == Ask::DeleteObject {
            self.delete(state, uid);
            return true;
        }
        let unreserved = self.bounds.mutant == Some(Mutant::Unreserved);
        state.runtime.carry_out(uid, &call.action, at(state.now), unreserved).is_ok()
    }

    /// The agent's deletion of an object, which names its UID.
    fn delete(&self, state: &mut State, uid: usize) {
        let is_there = |object: &Object| matches!(object.stage, Stage::Wanted | Stage::Marked);
        let by_name = state.api.iter().position(is_there);
        let target = if self.bounds.mutant == Some(Mutant::DeleteByName) { by_name } else { Some(uid) };
        let Some(target) = target.filter(|target| is_there(&state.api[*target])) else { return };
        state.broken.unasked |= state.api[target].stage != Stage::Marked;
        state.broken.early |= state.runtime.running(uid).next().is_some();
        state.api[target].stage = Stage::Gone;
    }

    fn ghost(&self, state: &mut State, at: usize) {
        let call = state.ghosts.remove(at);
        let is_done = self.carry_out(state, &call);
        if let Ask::StartContainer { id, .. } = &*call.action
            && is_done
        {
            state.runtime.late.push(id.clone());
            state.runtime.late.sort_unstable();
        }
        self.late.fetch_or(is_done, Ordering::Relaxed);
    }

    /// What the agent asked for goes on without it; what it did by itself doesn't.
    fn crash(state: &mut State) {
        let Some(agent) = state.agent.take() else { return };
        let open = agent.calls.into_iter().filter(|call| call.done.is_none() && *call.action != Ask::CleanUp);
        state.ghosts.extend(open);
        state.ghosts.sort_unstable();
    }

    fn publish(&self, state: &mut State, agent: &mut Agent, uid: usize) {
        let status = agent.minds[uid].as_ref().and_then(|mind| mind.pending.clone());
        let is_there = |object: &Object| matches!(object.stage, Stage::Wanted | Stage::Marked);
        let by_name = state.api.iter().position(is_there);
        let target = if self.bounds.mutant == Some(Mutant::StatusByName) { by_name } else { Some(uid) };
        if let Some(target) = target.filter(|target| is_there(&state.api[*target])) {
            state.api[target].status = status;
        }
        agent.written(uid, self.with(state.now));
    }

    /// What the agent takes part in.
    fn act(&self, state: &mut State, mut agent: Agent, action: Action) {
        let pods = state.runtime.pods.clone();
        match action {
            Action::List => agent.list(&state.api, self.with(state.now)),
            Action::Observe => agent.observe(&pods, self.with(state.now)),
            Action::Look => {
                state.used.looks += 1;
                agent.take_look(&pods);
            }
            Action::See => {
                if let Some(look) = agent.look.take() {
                    agent.see(&look, self.with(state.now));
                }
            }
            Action::Show(uid) => agent.show(uid, &state.api, self.with(state.now)),
            Action::Publish(uid) => self.publish(state, &mut agent, uid),
            Action::Wake => {
                state.now = agent.next_wake().unwrap_or(state.now).max(state.now);
                agent.wake(self.with(state.now));
            }
            Action::Effect(at) => {
                let call = agent.calls.remove(at);
                let done = Some(self.carry_out(state, &call));
                agent.calls.push(Call { done, ..call });
                agent.calls.sort_unstable();
            }
            Action::Fail(at) => {
                state.used.failures += 1;
                agent.calls[at].done = Some(false);
                agent.calls.sort_unstable();
            }
            Action::Answer(at) => {
                let call = agent.calls.remove(at);
                let (uid, is_done) = (usize::from(call.uid), call.done == Some(true));
                agent.end(call, is_done, pods[uid].clone(), self.with(state.now));
            }
            Action::Lose(at) => {
                state.used.losses += 1;
                let call = agent.calls.remove(at);
                if call.done.is_none() {
                    state.ghosts.push(call.clone());
                    state.ghosts.sort_unstable();
                }
                let uid = usize::from(call.uid);
                agent.end(call, false, pods[uid].clone(), self.with(state.now));
            }
            _ => {}
        }
        state.agent = Some(agent);
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    /// The first pod is wanted, and nothing runs.
    fn init_states(&self) -> Vec<State> {
        let mut runtime = Runtime::default();
        for _ in 0..self.bounds.pods {
            runtime.add("");
        }
        let unborn = Object { stage: Stage::Unborn, forced: false, status: None };
        let mut api = vec![unborn; usize::from(self.bounds.pods)];
        api[0].stage = Stage::Wanted;
        vec![State {
            now: 0,
            api,
            runtime,
            agent: None,
            ghosts: Vec::new(),
            used: Used::default(),
            broken: Broken::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.agent_actions(state, actions);
        self.faults(state, actions);
        self.other_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Start => state.agent = Some(Agent::started(&self.bounds)),
            Action::Crash => {
                state.used.crashes += 1;
                Self::crash(&mut state);
            }
            Action::Reboot => {
                state.used.reboots += 1;
                state.agent = None;
                state.ghosts.clear();
                let now = at(state.now);
                state.runtime.reboot(now);
            }
            Action::Ghost(at) => self.ghost(&mut state, at),
            Action::Drop(at) => {
                state.ghosts.remove(at);
            }
            Action::Exit { uid, id, code } => {
                state.used.exits += 1;
                let now = at(state.now);
                state.runtime.exit(uid, &id, code, now);
            }
            Action::Create(uid) => state.api[uid].stage = Stage::Wanted,
            Action::Mark(uid) => {
                state.used.deletions += 1;
                state.api[uid].stage = Stage::Marked;
            }
            Action::Force(uid) => {
                state.used.forced += 1;
                state.api[uid].stage = Stage::Gone;
                state.api[uid].forced = true;
            }
            action => {
                let agent = state.agent.take()?;
                self.act(&mut state, agent, action);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }
}
