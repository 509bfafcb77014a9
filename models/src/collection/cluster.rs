//! The cluster: the collector, the controllers of the sets, what they were shown and what they are about to do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use apiserver_core::options::Propagation;
use controllers_core::graph::{Graph, Verdict};
use controllers_core::{Write, replica_set};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stateright::{Model, Property};

use super::execute::{Broken, Pending};
use super::store::{Kind, Object, Owner, Refusal, Store};
use super::{Bounds, Mutant, properties};
use crate::exploration::Found;

/// What the bounds have been used up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Used {
    pub(super) deletions: u8,
    pub(super) recreations: u8,
    pub(super) unlinks: u8,
    pub(super) relabels: u8,
}

/// How much of the log two watches have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shown {
    pub(super) sets: usize,
    pub(super) pods: usize,
}

impl Shown {
    fn of(self, kind: Kind) -> usize {
        if kind == Kind::Set { self.sets } else { self.pods }
    }
}

/// Who works, and on what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Who {
    /// The collector, on the object of a uid.
    Collector(String),
    /// The controller, on the set of a name; its uid by then.
    Controller(String, String),
}

/// What is left to be done about a key.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) enum Left {
    /// To ask the API for these owners.
    Check(Vec<Owner>),
    /// To write this, the last first.
    Write(Vec<Pending>),
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Work {
    pub(super) who: Who,
    /// What was shown when it was decided upon.
    pub(super) shown: Shown,
    pub(super) left: Left,
    /// The API said that the set is there, and isn't about to go.
    pub(super) confirmed: bool,
}

/// A state of the cluster.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct State {
    pub(super) store: Store,
    /// What the collector was shown, and the controllers.
    pub(super) collector: Shown,
    pub(super) controllers: Shown,
    /// What they are to look at.
    pub(super) uids: BTreeSet<String>,
    pub(super) names: BTreeSet<String>,
    /// In the order of their keys.
    pub(super) work: Vec<Work>,
    pub(super) used: Used,
    /// The pod was let go by an owner that was deleted so, and nobody has adopted it since. Who was there when the API was
    /// asked for it adopts, whatever becomes of it before the adoption arrives: its own deletion decides then.
    pub(super) spared: bool,
    pub(super) broken: Broken,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// A watch shows its next change.
    Show { collector: bool, kind: Kind },
    /// The collector looks at an object.
    Look(String),
    /// The controllers look at a set.
    Reconcile(String),
    /// A piece of work is taken a step further.
    Step(usize),
    /// Somebody deletes a set.
    Delete(String, Propagation),
    /// Somebody makes the first set anew.
    Recreate,
    /// Somebody takes the pod's owners off.
    Unlink,
    /// Somebody changes the pod's label.
    Relabel,
}

/// What came about on some way.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) collected: AtomicBool,
    pub(super) refused: AtomicBool,
    pub(super) unconfirmed: AtomicBool,
    pub(super) adopted: AtomicBool,
    pub(super) readopted: AtomicBool,
    pub(super) taken_off: AtomicBool,
    pub(super) foreground: AtomicBool,
}

/// The model.
pub(super) struct Cluster {
    pub(super) bounds: Bounds,
    pub(super) found: Found,
    pub(super) seen: Seen,
}

const FIRST: &str = "r";
const POD: &str = "p";

impl State {
    /// An object as a watch that is so far has shown it.
    fn seen(&self, shown: Shown) -> impl Iterator<Item = &Object> {
        let log = &self.store.log;
        let is_shown = move |at: usize| at < shown.of(log[at].kind);
        let last = move |at: &usize| {
            let uid = &log[*at].uid;
            is_shown(*at) && !(at + 1..log.len()).any(|later| is_shown(later) && log[later].uid == *uid)
        };
        (0..log.len()).filter(last).filter_map(|at| log[at].object.as_ref())
    }

    /// The graph of what was shown. Its state is that, in whatever order it came.
    fn graph(&self, shown: Shown) -> Graph {
        let mut graph = Graph::default();
        for object in self.seen(shown) {
            graph.observe(object.node());
        }
        graph
    }

    /// Where a watch of a kind finds its next change.
    pub(super) fn next_change(&self, collector: bool, kind: Kind) -> Option<usize> {
        let shown = if collector { self.collector } else { self.controllers };
        (shown.of(kind)..self.store.log.len()).find(|at| self.store.log[*at].kind == kind)
    }

    /// Whether nothing happens any more unless somebody does something.
    pub(super) fn is_quiet(&self) -> bool {
        let is_shown = |collector: bool| {
            self.next_change(collector, Kind::Set).is_none() && self.next_change(collector, Kind::Pod).is_none()
        };
        self.work.is_empty() && self.uids.is_empty() && self.names.is_empty() && is_shown(true) && is_shown(false)
    }

    fn begin(&mut self, who: Who, shown: Shown, left: Left) {
        self.go_on(Work { who, shown, left, confirmed: false });
    }

    fn go_on(&mut self, work: Work) {
        self.work.push(work);
        self.work.sort_by(|a, b| a.who.cmp(&b.who));
    }

    /// Behind a watch's end is nothing: where it is in between doesn't matter.
    fn settle(&mut self) {
        let end = self.store.log.len();
        let place = |state: &Self, collector: bool, kind: Kind| state.next_change(collector, kind).unwrap_or(end);
        let sets = [true, false].map(|collector| place(self, collector, Kind::Set));
        let pods = [true, false].map(|collector| place(self, collector, Kind::Pod));
        self.collector = Shown { sets: sets[0], pods: pods[0] };
        self.controllers = Shown { sets: sets[1], pods: pods[1] };
    }
}

fn typed<K: serde::de::DeserializeOwned>(object: &Object) -> Arc<K> {
    Arc::new(serde_json::from_value(object.value()).expect("what the API shows can be read"))
}

impl Cluster {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, found: Found::default(), seen: Seen::default() }
    }

    fn show(&self, state: &mut State, collector: bool, kind: Kind) {
        let Some(at) = state.next_change(collector, kind) else { return };
        let change = state.store.log[at].clone();
        if collector {
            let mut graph = state.graph(state.collector);
            let look = match &change.object {
                Some(object) => graph.observe(object.node()),
                None => graph.forget(&change.uid),
            };
            state.uids.extend(look);
        }
        let shown = if collector { &mut state.collector } else { &mut state.controllers };
        *(if kind == Kind::Set { &mut shown.sets } else { &mut shown.pods }) = at + 1;
        if !collector {
            let names = self.concerned(state, &change, at);
            state.names.extend(names);
        }
    }

    /// Whose set a change concerns, as `controllers/server/src/informers.rs` has it. What is gone is shown as it was last.
    fn concerned(&self, state: &State, change: &super::store::Change, at: usize) -> Vec<String> {
        let earlier = || state.store.log[..at].iter().rev().find(|earlier| earlier.uid == change.uid);
        let Some(object) = change.object.as_ref().or_else(|| earlier()?.object.as_ref()) else { return Vec::new() };
        if object.kind == Kind::Set {
            return vec![object.name.clone()];
        }
        let mut names: Vec<String> =
            object.owners.iter().filter(|owner| owner.controls).map(|owner| owner.name.clone()).collect();
        if self.bounds.mutant != Some(Mutant::DeafController) {
            let pod = typed::<Pod>(object);
            let sets = state.seen(state.controllers).filter(|seen| seen.kind == Kind::Set);
            let adopters = sets.filter(|set| replica_set::would_adopt(&typed::<ReplicaSet>(set), &pod));
            names.extend(adopters.map(|set| set.name.clone()));
        }
        names
    }

    fn look(&self, state: &mut State, uid: String) {
        state.uids.remove(&uid);
        let shown = state.collector;
        match state.graph(shown).look(&uid) {
            Verdict::Keep => {}
            Verdict::Act(writes) => {
                let left = self.in_order(writes);
                state.begin(Who::Collector(uid), shown, left);
            }
            Verdict::Check(owners) => {
                let known = state.seen(shown).find(|object| object.uid == uid).map(|object| object.owners.clone());
                let asked = known.unwrap_or_default();
                let asked =
                    asked.into_iter().filter(|owner| owners.iter().any(|asked| asked.uid == owner.uid)).collect();
                state.begin(Who::Collector(uid), shown, Left::Check(asked));
            }
        }
    }

    fn in_order(&self, mut writes: Vec<Write>) -> Left {
        if self.bounds.mutant != Some(Mutant::FinalizerFirst) {
            writes.reverse();
        }
        Left::Write(writes.into_iter().map(Pending::new).collect())
    }

    /// The API says which owners are gone, and the object as it was shown is decided upon again.
    fn check(&self, state: &mut State, work: Work, owners: &[Owner]) {
        let Who::Collector(uid) = &work.who else { return };
        let is_there = |owner: &&Owner| {
            let found = state.store.by_name(Kind::Set, &owner.name);
            match self.bounds.mutant {
                Some(Mutant::ByName) => found.is_some(),
                Some(Mutant::NoCheck) => false,
                _ => found.is_some_and(|found| found.uid == owner.uid),
            }
        };
        let gone = owners.iter().filter(|owner| !is_there(owner)).map(|owner| owner.uid.clone()).collect();
        let verdict = state.graph(work.shown).around(uid).after_check(uid, &gone);
        if let Verdict::Act(writes) = verdict {
            let left = self.in_order(writes);
            state.begin(work.who, work.shown, left);
        }
    }

    fn reconcile(&self, state: &mut State, name: String) {
        state.names.remove(&name);
        let shown = state.controllers;
        let seen = |kind: Kind| state.seen(shown).filter(move |object| object.kind == kind);
        let Some(set) = seen(Kind::Set).find(|set| set.name == name) else { return };
        let uid = set.uid.clone();
        let observed = replica_set::Observed {
            set: typed(set),
            pods: seen(Kind::Pod).map(typed).collect(),
            creating: 0,
            deleting: Vec::new(),
            now: 0,
        };
        // Who is made, and what sets say of themselves, is no matter of this.
        let writes = replica_set::reconcile(&observed).into_iter();
        let mut writes: Vec<Pending> =
            writes.filter(|write| matches!(write, Write::Confirm(..) | Write::Patch(..))).map(Pending::new).collect();
        writes.reverse();
        if !writes.is_empty() {
            state.begin(Who::Controller(name, uid), shown, Left::Write(writes));
        }
    }

    fn step(&self, state: &mut State, at: usize) {
        let mut work = state.work.remove(at);
        match &mut work.left {
            Left::Check(owners) => {
                let owners = std::mem::take(owners);
                self.check(state, work, &owners);
            }
            Left::Write(writes) => {
                let Some(next) = writes.pop() else { return };
                let is_last = writes.is_empty();
                match self.write(state, &work, &next) {
                    Ok(()) if is_last => {}
                    Ok(()) => {
                        work.confirmed |= self.asks(&next.write);
                        state.go_on(work);
                    }
                    // What is gone needs no more writes.
                    Err(Refusal::Missing) => {}
                    Err(Refusal::Conflict) => match work.who {
                        Who::Collector(uid) => state.uids.extend([uid]),
                        Who::Controller(name, _) => state.names.extend([name]),
                    },
                }
            }
        }
    }

    /// What people do.
    fn others(&self, state: &State, actions: &mut Vec<Action>) {
        let (bounds, used, store) = (&self.bounds, &state.used, &state.store);
        if used.deletions < bounds.deletions {
            for set in store.sets().filter(|set| !set.deleting) {
                for propagation in [Propagation::Background, Propagation::Foreground, Propagation::Orphan] {
                    actions.push(Action::Delete(set.name.clone(), propagation));
                }
            }
        }
        if used.recreations < bounds.recreations && store.by_name(Kind::Set, FIRST).is_none() {
            actions.push(Action::Recreate);
        }
        let pod = store.by_name(Kind::Pod, POD);
        if used.unlinks < bounds.unlinks && pod.is_some_and(|pod| !pod.owners.is_empty()) {
            actions.push(Action::Unlink);
        }
        if used.relabels < bounds.relabels && pod.is_some() {
            actions.push(Action::Relabel);
        }
    }

    /// Somebody writes what he likes, over whatever is there.
    fn by_hand(&self, state: &mut State, change: serde_json::Value) {
        // It is there, or this wouldn't be tried.
        let _ = state.store.patch(Kind::Pod, POD, &json!({"metadata": change}));
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    /// All was listed by all, and is to be looked at.
    fn init_states(&self) -> Vec<State> {
        let mut store = Store::default();
        let owner = |name: &str, controls: bool| Owner {
            name: name.to_owned(),
            uid: format!("{name}1"),
            controls,
            blocks: true,
        };
        let mut pod = Object::new(Kind::Pod, POD, "p1");
        pod.owners.push(owner(FIRST, true));
        store.put(Object::new(Kind::Set, FIRST, "r1"));
        if self.bounds.sets > 1 {
            store.put(Object::new(Kind::Set, "s", "s1"));
            pod.owners.extend(self.bounds.shared.then(|| owner("s", false)));
        }
        store.put(pod);
        let end = store.log.len();
        let all = Shown { sets: end, pods: end };
        // Who begins early was shown the sets, and nothing else.
        let is_early = self.bounds.mutant == Some(Mutant::LookEarly);
        let collector = if is_early { Shown { sets: end, pods: 0 } } else { all };
        let mut state = State {
            store,
            collector,
            controllers: all,
            uids: BTreeSet::new(),
            names: BTreeSet::new(),
            work: Vec::new(),
            used: Used::default(),
            spared: false,
            broken: Broken::default(),
        };
        state.settle();
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (collector, kind) in [(true, Kind::Set), (true, Kind::Pod), (false, Kind::Set), (false, Kind::Pod)] {
            if state.next_change(collector, kind).is_some() {
                actions.push(Action::Show { collector, kind });
            }
        }
        let is_busy = |is: &dyn Fn(&Who) -> bool| state.work.iter().any(|work| is(&work.who));
        for uid in &state.uids {
            if !is_busy(&|who| matches!(who, Who::Collector(other) if other == uid)) {
                actions.push(Action::Look(uid.clone()));
            }
        }
        for name in &state.names {
            if !is_busy(&|who| matches!(who, Who::Controller(other, _) if other == name)) {
                actions.push(Action::Reconcile(name.clone()));
            }
        }
        actions.extend((0..state.work.len()).map(Action::Step));
        self.others(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Show { collector, kind } => self.show(&mut state, collector, kind),
            Action::Look(uid) => self.look(&mut state, uid),
            Action::Reconcile(name) => self.reconcile(&mut state, name),
            Action::Step(at) => self.step(&mut state, at),
            Action::Delete(name, propagation) => {
                state.used.deletions += 1;
                // It is there, or this wouldn't be tried.
                let _ = state.store.delete(Kind::Set, &name, (None, None), propagation);
            }
            Action::Recreate => {
                state.used.recreations += 1;
                state.store.put(Object::new(Kind::Set, FIRST, &format!("r{}", state.used.recreations + 1)));
            }
            Action::Unlink => {
                state.used.unlinks += 1;
                self.by_hand(&mut state, json!({"ownerReferences": null}));
            }
            Action::Relabel => {
                state.used.relabels += 1;
                let is_labelled = state.store.by_name(Kind::Pod, POD).is_some_and(|pod| pod.labelled);
                let label = if is_labelled { "b" } else { "a" };
                self.by_hand(&mut state, json!({"labels": {"app": label}}));
            }
        }
        state.settle();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.bounds)
    }
}
