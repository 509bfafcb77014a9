//! One pod as the agent has it: the production machine, and around it what `agent/node/src/pods.rs` keeps in an entry. Executed
//! once for each pair of state and input, and remembered.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, RwLock};

use agent_core::machine::{PodMachine, skeleton};
use agent_core::runtime::{Action, ObservedPod, Outcome};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;

use super::moments::{at, second, uid_name};
use super::{Bounds, Mutant};

/// The name of all pods.
const NAME: &str = "p";
const NAMESPACE: &str = "d";
/// Seconds that a deleted pod has.
const GRACE: u32 = 30;

/// A status, told by all that it prints of itself.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) status: PodStatus,
    digest: u64,
}

impl Status {
    fn new(status: PodStatus) -> Arc<Self> {
        let digest = digest(&status);
        Arc::new(Self { status, digest })
    }
}

impl PartialEq for Status {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Status {}

impl Hash for Status {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// What is printed has no order but its own: it holds no hash tables.
fn digest(value: &impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{value:?}").hash(&mut hasher);
    hasher.finish()
}

/// What the API says of a pod, as far as the agent was shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Shown {
    Wanted,
    Marked,
    /// The API no longer has it.
    Removed,
    /// The agent never saw it: the runtime has it.
    Orphan,
}

/// An entry.
#[derive(Debug)]
pub(super) struct Mind {
    pub(super) core: PodMachine,
    uid: u8,
    pub(super) shown: Shown,
    /// Whether deletion was shown before it went.
    marked: bool,
    pub(super) observed: Arc<ObservedPod>,
    /// The object's status.
    status: Option<Arc<Status>>,
    /// A status that is to be written.
    pub(super) pending: Option<Arc<Status>>,
    /// When it is to look again.
    pub(super) wake: Option<u32>,
    /// Whether it is over.
    pub(super) gone: bool,
    digest: u64,
}

impl PartialEq for Mind {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Hash for Mind {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// What the agent learns of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Input {
    /// Time has passed, or all is known now.
    Look,
    /// What the API says.
    Shown(Shown),
    /// What the runtime has.
    Observed(Arc<ObservedPod>),
    /// A call came to an end.
    Done { action: Arc<Action>, is_done: bool, seen: Arc<ObservedPod> },
    /// The status was written.
    Written,
}

/// What comes of it.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) mind: Arc<Mind>,
    pub(super) calls: Vec<Arc<Action>>,
}

impl Mind {
    /// An entry that nothing was done for.
    pub(super) fn new(uid: u8, shown: Shown, status: Option<Arc<Status>>, observed: Arc<ObservedPod>) -> Arc<Self> {
        let core = PodMachine::new("10.0.0.1");
        let marked = shown == Shown::Marked;
        Self { core, uid, shown, marked, observed, status, pending: None, wake: None, gone: false, digest: 0 }.sealed()
    }

    fn sealed(mut self) -> Arc<Self> {
        let Self { core, uid, shown, marked, observed, status, pending, wake, gone, digest: _ } = &self;
        let mut hasher = DefaultHasher::new();
        digest(core).hash(&mut hasher);
        (uid, shown, marked, observed, status, pending, wake, gone).hash(&mut hasher);
        self.digest = hasher.finish();
        Arc::new(self)
    }

    fn pod(&self, bounds: &Bounds) -> Pod {
        if self.shown == Shown::Orphan {
            return skeleton(NAMESPACE, NAME, &uid_name(self.uid));
        }
        let containers: Vec<_> = names(bounds).map(|name| json!({"name": name, "image": "i"})).collect();
        let pod = json!({
            "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": uid_name(self.uid)},
            "spec": {"nodeName": "n", "restartPolicy": bounds.policy.as_str(), "terminationGracePeriodSeconds": GRACE,
                "containers": containers},
        });
        let mut pod: Pod = serde_json::from_value(pod).expect("a pod");
        if self.marked {
            pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(GRACE)));
            pod.metadata.deletion_grace_period_seconds = Some(i64::from(GRACE));
        }
        pod.status = self.status.as_ref().map(|status| status.status.clone());
        pod
    }

    fn run(&self, input: &Input, now: u32, bounds: &Bounds) -> Next {
        let Self { uid, .. } = *self;
        let mut new = Self {
            core: self.core.clone(),
            uid,
            shown: self.shown.clone(),
            marked: self.marked,
            observed: self.observed.clone(),
            status: self.status.clone(),
            pending: self.pending.clone(),
            wake: self.wake,
            gone: self.gone,
            digest: 0,
        };
        match input {
            Input::Look => {}
            Input::Shown(shown) => {
                new.shown = shown.clone();
                new.marked |= *shown == Shown::Marked;
            }
            Input::Observed(observed) => new.observed = observed.clone(),
            Input::Done { action, is_done, seen } => {
                new.observed = seen.clone();
                let outcome = if *is_done { Outcome::Done } else { Outcome::failed("Failed", "it failed") };
                new.core.handle_outcome(at(now), &self.pod(bounds), action, &outcome);
            }
            Input::Written => new.status = new.pending.take(),
        }
        let calls = new.step(now, bounds);
        Next { mind: new.sealed(), calls }
    }

    /// Steps until only calls are left that take their time.
    fn step(&mut self, now: u32, bounds: &Bounds) -> Vec<Arc<Action>> {
        let pod = self.pod(bounds);
        let is_removed = matches!(self.shown, Shown::Removed | Shown::Orphan);
        let mut calls = Vec::new();
        loop {
            let step = self.core.step(at(now), &pod, is_removed, &self.observed);
            self.wake = step.wake_at.filter(|_| bounds.mutant != Some(Mutant::NeverWake)).map(second);
            if step.gone {
                self.gone = true;
                return calls;
            }
            if let Some(status) = step.status.filter(|_| !is_removed) {
                let status = Status::new(status);
                self.pending = Some(status).filter(|status| self.status.as_ref() != Some(status));
            }
            let at_once = |action: &Action| matches!(action, Action::PrepareVolumes | Action::EnsureImage { .. });
            let (quick, slow): (Vec<Action>, Vec<Action>) = step.actions.into_iter().partition(at_once);
            calls.extend(slow.into_iter().map(Arc::new));
            if quick.is_empty() {
                return calls;
            }
            for action in quick {
                self.core.handle_outcome(at(now), &pod, &action, &Outcome::Done);
            }
        }
    }
}

/// The containers of a pod.
pub(super) fn names(bounds: &Bounds) -> impl Iterator<Item = &'static str> {
    ["c", "d"].into_iter().take(usize::from(bounds.containers))
}

/// All runs so far.
pub(super) struct Memo {
    bounds: Bounds,
    known: RwLock<HashMap<(u64, u32, Input), Arc<Next>>>,
}

impl Memo {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, known: RwLock::default() }
    }

    /// What an input leads to.
    pub(super) fn next(&self, mind: &Mind, input: Input, now: u32) -> Arc<Next> {
        let key = (mind.digest, now, input);
        // A thread that panicked has left no half of an entry.
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let next = Arc::new(mind.run(&key.2, now, &self.bounds));
            let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.entry(key).or_insert(next).clone()
        })
    }

    /// How many there are.
    pub(super) fn runs(&self) -> usize {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }
}
