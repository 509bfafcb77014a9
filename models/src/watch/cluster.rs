//! The cluster: the log, members that apply it, one client and its stream.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use stateright::{Model, Property};

use super::Bounds;
use super::client::{Broken, Watcher, receive};
use super::history::{Command, EMPTY, SCRIPT, Wanted, revision};
use super::properties;
use super::replica::{Next, Replica};
use super::stream::{Answer, Move, Request, Stream};
use crate::exploration::Found;

/// What the bounds have been used up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Used {
    pub(super) snapshots: u8,
    pub(super) connections: u8,
    pub(super) progress: u8,
}

/// A state of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    /// What is committed: all from the first, since members apply it when they will.
    pub(super) log: Arc<Vec<Command>>,
    pub(super) members: Vec<Replica>,
    pub(super) stream: Option<Stream>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) broken: Broken,
    pub(super) used: Used,
}

impl Hash for State {
    /// Members have no names: one serves the client's stream, nothing else tells them apart.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { log, members, stream, watchers, broken, used } = self;
        let digest = |(at, member): (usize, &Replica)| {
            let mut hasher = DefaultHasher::new();
            (member, self.serves(at)).hash(&mut hasher);
            hasher.finish()
        };
        let mut members: Vec<u64> = members.iter().enumerate().map(digest).collect();
        members.sort_unstable();
        (log, members, stream, watchers, broken, used).hash(hasher);
    }
}

impl State {
    /// Whether the client's stream is at a member.
    fn serves(&self, at: usize) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.at == at)
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// A member applies its next entry.
    Apply(usize),
    /// It tells watchers of it.
    Publish(usize),
    /// It deletes what compaction left behind.
    Collect(usize),
    /// It takes a snapshot of another.
    Install { at: usize, from: usize },
    /// The client connects to a member, and asks for its watchers.
    Connect(usize),
    /// The client loses its stream, and what is on its way.
    Disconnect,
    /// The client asks for progress.
    Ask,
    /// The stream's task does something.
    Stream(Move),
    /// The client takes an answer.
    Receive,
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

    fn member_actions(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let member = &state.members[at];
        // Entries are applied together, however many: one by one, and told of whenever that may be.
        if member.applied < state.log.len() && !matches!(member.next, Next::Restart(_)) {
            actions.push(Action::Apply(at));
        }
        if member.next != Next::Entry {
            actions.push(Action::Publish(at));
            return;
        }
        if member.may_collect() {
            actions.push(Action::Collect(at));
        }
        if state.used.snapshots < self.bounds.snapshots {
            let ahead = |from: &usize| {
                let other = &state.members[*from];
                other.next == Next::Entry && other.applied > member.applied
            };
            actions.extend((0..state.members.len()).filter(ahead).map(|from| Action::Install { at, from }));
        }
    }

    fn client_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (used, bounds) = (&state.used, &self.bounds);
        let Some(stream) = &state.stream else {
            if used.connections < bounds.connections {
                actions.extend((0..state.members.len()).map(Action::Connect));
            }
            return;
        };
        if used.connections < bounds.connections {
            actions.push(Action::Disconnect);
        }
        if used.progress < bounds.progress && state.watchers.iter().any(|watcher| watcher.open) {
            actions.push(Action::Ask);
        }
        let mut moves = Vec::new();
        stream.moves(&state.members[stream.at], bounds.room, &mut moves);
        moves.retain(|step| *step != Move::Tick || used.progress < bounds.progress);
        actions.extend(moves.into_iter().map(Action::Stream));
        if !stream.out.is_empty() {
            actions.push(Action::Receive);
        }
    }
}

/// The logs of so many writes, with every compaction that there may be in them, at every place.
fn logs(writes: usize, compacted: bool) -> Vec<Vec<Command>> {
    let plain = &SCRIPT[..writes];
    let places = 1..if compacted { writes + 1 } else { 1 };
    let with = |place: usize| {
        let (before, after) = plain.split_at(place);
        (EMPTY + 1..=revision(before)).map(move |to| [before, &[Command::Compact(to)], after].concat())
    };
    std::iter::once(plain.to_vec()).chain(places.flat_map(with)).collect()
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    /// Every log with one compaction, or none; the first watcher begins in the past, with the present, or in the future.
    fn init_states(&self) -> Vec<State> {
        let bounds = &self.bounds;
        let begin = |(log, start): (Vec<Command>, i64)| {
            // One wants both keys, the other the second.
            let all = [Watcher::new(Wanted(b'a', b'c'), start), Watcher::new(Wanted(b'b', b'c'), EMPTY + 1)];
            State {
                log: Arc::new(log),
                members: (0..bounds.members).map(|_| Replica::new(bounds.ring)).collect(),
                stream: None,
                watchers: all[..usize::from(bounds.watchers)].to_vec(),
                broken: Broken::default(),
                used: Used::default(),
            }
        };
        let starts = [0, EMPTY + 1, EMPTY + i64::from(bounds.writes)];
        let logs = logs(usize::from(bounds.writes), bounds.compactions > 0);
        logs.into_iter().flat_map(|log| starts.map(|start| (log.clone(), start))).map(begin).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for at in 0..state.members.len() {
            self.member_actions(state, at, actions);
        }
        self.client_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let mutant = self.bounds.mutant;
        match action {
            Action::Apply(at) => {
                let command = state.log[state.members[at].applied];
                state.members[at].apply(command, mutant);
            }
            Action::Publish(at) => state.members[at].publish(mutant),
            Action::Collect(at) => state.members[at].collect(),
            Action::Install { at, from } => {
                state.used.snapshots += 1;
                let other = state.members[from].clone();
                state.members[at].install(&other);
            }
            Action::Connect(at) => {
                state.used.connections += 1;
                let mut stream = Stream::new(at, &state.members[at]);
                let requests = state.watchers.iter().enumerate().map(|(id, watcher)| watcher.request(id));
                stream.requests.extend(requests);
                state.stream = Some(stream);
            }
            Action::Disconnect => {
                state.stream = None;
                state.watchers.iter_mut().for_each(|watcher| watcher.open = false);
            }
            Action::Ask => {
                state.used.progress += 1;
                state.stream.as_mut()?.requests.push_back(Request::Progress);
            }
            Action::Stream(step) => {
                state.used.progress += u8::from(step == Move::Tick);
                let stream = state.stream.as_mut()?;
                let at = stream.at;
                stream.step(step, &state.members[at], self.bounds.room, mutant);
            }
            Action::Receive => {
                let answer: Answer = state.stream.as_mut()?.out.pop_front()?;
                receive(&mut state.watchers, &answer, &state.log, &mut state.broken);
            }
        }
        // What nobody watches may be told at once: a stream that comes looks at nothing else of it.
        for at in 0..state.members.len() {
            if !state.serves(at) {
                state.members[at].publish(mutant);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }
}
