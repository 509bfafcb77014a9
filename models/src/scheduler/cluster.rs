//! The cluster: schedulers, what is on its way between them and the store, and what happens next.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

use super::member::{Input, Member, Memo, Scheduler};
use super::store::{Answer, Change, Request, Stage, Store};
use super::{Bounds, Mutant, properties};
use crate::exploration::Found;

/// What the bounds have been used up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Used {
    pub(super) losses: u8,
    pub(super) deletions: u8,
    pub(super) departures: u8,
    pub(super) plain: u8,
    pub(super) early: u8,
}

/// A state of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) members: Vec<Member>,
    /// Bindings of somebody who tells nothing and waits for nothing.
    pub(super) plain: Vec<Request>,
    pub(super) used: Used,
}

impl Hash for State {
    /// Schedulers have no names: nothing but what they know tells them apart.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { store, members, plain, used } = self;
        let digest = |member: &Member| {
            let mut hasher = DefaultHasher::new();
            member.hash(&mut hasher);
            hasher.finish()
        };
        let mut members: Vec<u64> = members.iter().map(digest).collect();
        members.sort_unstable();
        (store, members, plain, used).hash(hasher);
    }
}

impl State {
    /// Whether a scheduler was shown everything.
    pub(super) fn is_shown(&self, member: &Member) -> bool {
        member.pods == self.store.log.len() && member.nodes == self.store.log.len()
    }

    /// The next change that a watch of a scheduler shows, and its place in the log.
    fn next_change(&self, from: usize, of_pods: bool) -> Option<(usize, Change)> {
        let log = self.store.log.iter().copied().enumerate().skip(from);
        log.into_iter().find(|(_, change)| change.is_of_pods() == of_pods)
    }

    /// What a scheduler's cursor is once nothing of its kind is behind it: the end.
    fn pass(&mut self, at: usize) {
        let end = self.store.log.len();
        let (pods, nodes) = (self.members[at].pods, self.members[at].nodes);
        self.members[at].pods = self.next_change(pods, true).map_or(end, |(at, _)| at);
        self.members[at].nodes = self.next_change(nodes, false).map_or(end, |(at, _)| at);
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A watch of a scheduler shows its next change.
    Show { at: usize, of_pods: bool },
    /// A scheduler decides, or sends.
    Decide(usize),
    /// A scheduler's pause is over.
    Wake(usize),
    /// A request is taken a step further: an apiserver reads the pod, or commits.
    Step { at: usize, request: usize },
    /// A scheduler is answered.
    Answer { at: usize, request: usize },
    /// A scheduler has waited long enough for an answer, which doesn't come any more; the request may.
    Lose { at: usize, request: usize },
    /// A request that nobody waits for goes.
    Drop { at: usize, request: usize },
    /// Something is deleted.
    Delete(Change),
    /// Somebody who doesn't tell what he knew binds a pod.
    Plain { pod: u8, node: u8 },
    /// That request is taken a step further.
    PlainStep(usize),
}

/// The model.
pub(super) struct Cluster {
    pub(super) bounds: Bounds,
    pub(super) found: Found,
    pub(super) memo: Memo,
    /// Whether a binding was made that nobody waited for any more.
    pub(super) late: AtomicBool,
}

impl Cluster {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { memo: Memo::new(bounds.clone()), bounds, found: Found::default(), late: AtomicBool::new(false) }
    }

    fn member_actions(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let member = &state.members[at];
        for (of_pods, from) in [(true, member.pods), (false, member.nodes)] {
            if state.next_change(from, of_pods).is_some() {
                actions.push(Action::Show { at, of_pods });
            }
        }
        if member.scheduler.is_ready() {
            actions.push(Action::Decide(at));
        }
        if member.scheduler.pauses() && (state.is_shown(member) || state.used.early < self.bounds.early) {
            actions.push(Action::Wake(at));
        }
        for (request, sent) in member.requests.iter().enumerate() {
            match sent.stage {
                Stage::Sent | Stage::Read(_) => actions.push(Action::Step { at, request }),
                Stage::Answered(answer) => {
                    let is_lost =
                        self.bounds.mutant == Some(Mutant::LoseRefusal) && !matches!(answer, Answer::Bound(_));
                    if sent.awaited && !is_lost {
                        actions.push(Action::Answer { at, request });
                    }
                }
            }
            if !sent.awaited {
                actions.push(Action::Drop { at, request });
            } else if state.used.losses < self.bounds.losses {
                actions.push(Action::Lose { at, request });
            }
        }
    }

    /// What others do.
    fn other_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (used, bounds, store) = (&state.used, &self.bounds, &state.store);
        let pods = || (0..bounds.pods).filter(|pod| !store.pods[usize::from(*pod)].gone);
        let nodes = || (0..bounds.nodes).filter(|node| store.nodes[usize::from(*node)]);
        if used.deletions < bounds.deletions {
            actions.extend(pods().map(|pod| Action::Delete(Change::PodGone(pod))));
            let markable = |pod: &u8| {
                let pod = store.pods[usize::from(*pod)];
                pod.node.is_none() && !pod.marked
            };
            actions.extend(pods().filter(markable).map(|pod| Action::Delete(Change::Marked(pod))));
        }
        if used.departures < bounds.departures {
            actions.extend(nodes().map(|node| Action::Delete(Change::NodeGone(node))));
        }
        if used.plain < bounds.plain {
            actions.extend(pods().flat_map(|pod| nodes().map(move |node| Action::Plain { pod, node })));
        }
        actions.extend((0..state.plain.len()).map(Action::PlainStep));
    }

    /// Tells a scheduler something, and sends what it wants to be sent.
    fn tell(&self, state: &mut State, at: usize, input: Input) {
        let outcome = self.memo.outcome(&state.members[at].scheduler, input);
        let member = &mut state.members[at];
        member.scheduler = outcome.scheduler.clone();
        if let Some((pod, node, known)) = outcome.bind {
            // What its watch has shown by now.
            let shown = Store::revision_of(member.pods) - 1;
            let known = if self.bounds.mutant == Some(Mutant::KnownWhenSent) { known.max(shown) } else { known };
            member.requests.push(Request { pod, node, known: Some(known), stage: Stage::Sent, awaited: true });
            member.requests.sort_unstable();
        }
    }

    fn show(&self, state: &mut State, at: usize, of_pods: bool) {
        let member = &state.members[at];
        let from = if of_pods { member.pods } else { member.nodes };
        let Some((place, change)) = state.next_change(from, of_pods) else { return };
        let is_early = self.bounds.mutant == Some(Mutant::ReachEarly);
        let reached = if is_early { state.store.revision() } else { Store::revision_of(place) };
        let input = match change {
            Change::Bound { pod, node } => Input::Bound { pod, node, reached },
            Change::Marked(pod) => Input::Marked { pod, reached },
            Change::PodGone(pod) => Input::PodGone { pod, reached },
            Change::NodeGone(node) => Input::NodeGone(node),
        };
        let member = &mut state.members[at];
        *(if of_pods { &mut member.pods } else { &mut member.nodes }) = place + 1;
        let is_left_out = matches!(change, Change::Bound { .. }) && self.bounds.mutant == Some(Mutant::SkipBound);
        if !is_left_out {
            self.tell(state, at, input);
        }
    }

    /// A request is taken a step further.
    fn step(&self, state: &mut State, request: Request) -> Request {
        let before = state.store.log.len();
        let mut stage = state.store.step(&request, &self.bounds);
        if state.store.log.len() > before && !request.awaited && request.known.is_some() {
            self.late.store(true, Ordering::Relaxed);
        }
        if let Stage::Answered(Answer::Bound(Some(_))) = stage
            && self.bounds.mutant == Some(Mutant::AnswerLater)
        {
            // When it is answered is when the store is asked.
            stage = Stage::Answered(Answer::Bound(Some(i64::MAX)));
        }
        Request { stage, ..request }
    }

    /// Takes a request out of what is on its way.
    fn take(state: &mut State, at: usize, request: usize) -> Request {
        state.members[at].requests.remove(request)
    }

    fn answer(&self, state: &mut State, at: usize, request: usize) {
        let Request { pod, node, stage, .. } = Self::take(state, at, request);
        let Stage::Answered(answer) = stage else { return };
        let answer = match answer {
            Answer::Bound(Some(i64::MAX)) => Answer::Bound(Some(state.store.revision())),
            answer => answer,
        };
        self.tell(state, at, Input::Answer { pod, node, answer: Some(answer) });
    }

    fn lose(&self, state: &mut State, at: usize, request: usize) {
        state.used.losses += 1;
        let lost = Self::take(state, at, request);
        if !matches!(lost.stage, Stage::Answered(_)) {
            state.members[at].requests.push(Request { awaited: false, ..lost });
            state.members[at].requests.sort_unstable();
        }
        self.tell(state, at, Input::Answer { pod: lost.pod, node: lost.node, answer: None });
    }
}

/// Puts a request back, unless it is over and nobody waits for it.
fn put_back(requests: &mut Vec<Request>, request: Request) {
    if request.awaited || !matches!(request.stage, Stage::Answered(_)) {
        requests.push(request);
        requests.sort_unstable();
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    /// Everything was listed, and nothing decided.
    fn init_states(&self) -> Vec<State> {
        let member = |at: u8| {
            let scheduler = Scheduler::listed(&self.bounds, at);
            Member { scheduler, pods: 0, nodes: 0, requests: Vec::new() }
        };
        vec![State {
            store: Store::new(&self.bounds),
            members: (0..self.bounds.schedulers).map(member).collect(),
            plain: Vec::new(),
            used: Used::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..state.members.len() {
            self.member_actions(state, at, actions);
        }
        self.other_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Show { at, of_pods } => self.show(&mut state, at, of_pods),
            Action::Decide(at) => self.tell(&mut state, at, Input::Decide),
            Action::Wake(at) => {
                state.used.early += u8::from(!state.is_shown(&state.members[at]));
                self.tell(&mut state, at, Input::Wake);
            }
            Action::Step { at, request } => {
                let request = Self::take(&mut state, at, request);
                let request = self.step(&mut state, request);
                put_back(&mut state.members[at].requests, request);
            }
            Action::Answer { at, request } => self.answer(&mut state, at, request),
            Action::Lose { at, request } => self.lose(&mut state, at, request),
            Action::Drop { at, request } => {
                Self::take(&mut state, at, request);
            }
            Action::Delete(change) => {
                state.used.deletions += u8::from(change.is_of_pods());
                state.used.departures += u8::from(!change.is_of_pods());
                state.store.delete(change);
            }
            Action::Plain { pod, node } => {
                state.used.plain += 1;
                state.plain.push(Request { pod, node, known: None, stage: Stage::Sent, awaited: false });
                state.plain.sort_unstable();
            }
            Action::PlainStep(request) => {
                let request = state.plain.remove(request);
                let request = self.step(&mut state, request);
                put_back(&mut state.plain, request);
            }
        }
        for at in 0..state.members.len() {
            state.pass(at);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }
}
