//! A scheduler: the production state, and around it what `scheduler/server` does. Executed once for each pair of state and
//! input, and remembered: few states of schedulers make up many of the cluster.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, RwLock};

use k8s_openapi::api::core::v1::Pod;
use scheduler_core::State as Core;
use scheduler_core::state::{Act, BindFailure, Seen};

use super::store::{Answer, LISTED, Request, node_called, node_name, node_value, pod_name, pod_value};
use super::{Bounds, Mutant};

/// A scheduler's state at a time of its own.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) core: Core,
    /// Milliseconds. They pass when it has nothing else to wait for.
    pub(super) now: u64,
    /// Of everything that the two above show of themselves, so of everything.
    digest: u64,
}

impl PartialEq for Scheduler {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Hash for Scheduler {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

/// What a scheduler is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Input {
    /// A pod has a node, at a revision; the watch says that it is this far.
    Bound {
        pod: u8,
        node: u8,
        reached: i64,
    },
    /// A pod is being deleted.
    Marked {
        pod: u8,
        reached: i64,
    },
    PodGone {
        pod: u8,
        reached: i64,
    },
    NodeGone(u8),
    /// It may decide.
    Decide,
    /// The next pause is over.
    Wake,
    /// A binding was answered. `None`: it wasn't.
    Answer {
        pod: u8,
        node: u8,
        answer: Option<Answer>,
    },
}

/// What comes of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) scheduler: Arc<Scheduler>,
    /// A binding to be sent: the pod, its node, and what the decision knew.
    pub(super) bind: Option<(u8, u8, i64)>,
}

/// All outcomes so far.
pub(super) struct Memo {
    bounds: Bounds,
    known: RwLock<HashMap<(u64, Input), Arc<Outcome>>>,
}

impl Scheduler {
    fn new(core: Core, now: u64) -> Arc<Self> {
        let mut hasher = DefaultHasher::new();
        // What is printed has no order but its own: the state holds no hash tables.
        (format!("{core:?}"), now).hash(&mut hasher);
        Arc::new(Self { core, now, digest: hasher.finish() })
    }

    /// One that was shown everything, and has decided nothing yet. Every other one was shown pods the other way round, as
    /// one that listed them by name after another was shown them as they came: else all would decide alike.
    pub(super) fn listed(bounds: &Bounds, at: u8) -> Arc<Self> {
        let mut core = Core::new("default-scheduler".to_owned());
        for node in 0..bounds.nodes {
            let node = serde_json::from_value(node_value(node, bounds.room)).expect("a node");
            core.see(Seen::Node(Box::new(node)), 0);
        }
        for pod in 0..bounds.pods {
            let pod = if at.is_multiple_of(2) { pod } else { bounds.pods - 1 - pod };
            core.see(Seen::Pod(Box::new(wire(pod, None, false))), 0);
        }
        if bounds.mutant != Some(Mutant::NeverReach) {
            core.see(Seen::PodsUpTo(LISTED.unsigned_abs()), 0);
        }
        Self::new(core, 0)
    }

    /// Whether it has something to decide or to send.
    pub(super) fn is_ready(&self) -> bool {
        self.core.ready(self.now)
    }

    /// Whether it waits for time to pass.
    pub(super) fn pauses(&self) -> bool {
        !self.is_ready() && self.core.next_due().is_some()
    }

    fn run(&self, input: Input, mutant: Option<Mutant>) -> Outcome {
        let (mut core, mut now) = (self.core.clone(), self.now);
        let reach = |core: &mut Core, reached: i64| {
            if mutant != Some(Mutant::NeverReach) {
                core.see(Seen::PodsUpTo(reached.unsigned_abs()), now);
            }
        };
        let mut act = None;
        match input {
            Input::Bound { pod, node, reached } => {
                core.see(Seen::Pod(Box::new(wire(pod, Some(node), false))), now);
                reach(&mut core, reached);
            }
            Input::Marked { pod, reached } => {
                core.see(Seen::Pod(Box::new(wire(pod, None, true))), now);
                reach(&mut core, reached);
            }
            Input::PodGone { pod, reached } => {
                core.see(Seen::PodGone(pod_name(pod)), now);
                reach(&mut core, reached);
            }
            Input::NodeGone(node) => {
                core.see(Seen::NodeGone(node_name(node)), now);
            }
            Input::Decide => act = core.decide(now),
            Input::Wake => now = core.next_due().unwrap_or(now).max(now),
            Input::Answer { pod, node, answer } => {
                core.bound(&Arc::new(wire(pod, None, false)), &node_name(node), told(answer, mutant), now);
            }
        }
        let bind = act.and_then(|act| match act {
            Act::Bind { pod, node, known } => {
                let known = i64::try_from(known).unwrap_or(i64::MAX);
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                Some((name[1..].parse::<u8>().expect("a pod's number") - 1, node_called(&node), known))
            }
            Act::Tell(_) | Act::Warn(_) => None,
        });
        Outcome { scheduler: Self::new(core, now), bind }
    }
}

fn wire(pod: u8, node: Option<u8>, marked: bool) -> Pod {
    serde_json::from_value(pod_value(pod, node, marked)).expect("a pod")
}

/// What the shell makes of an answer.
fn told(answer: Option<Answer>, mutant: Option<Mutant>) -> Result<Option<u64>, BindFailure> {
    match answer {
        Some(Answer::Bound(revision)) => Ok(revision.map(i64::unsigned_abs)),
        Some(Answer::Refused) => Err(BindFailure::Refused),
        Some(Answer::Outdated(revision)) => Err(BindFailure::Outdated(revision.unsigned_abs())),
        None if mutant == Some(Mutant::ForgetUnanswered) => Err(BindFailure::Failed(String::new())),
        None => Err(BindFailure::Unanswered(String::new())),
    }
}

impl Memo {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, known: RwLock::default() }
    }

    /// What an input leads to.
    pub(super) fn outcome(&self, scheduler: &Scheduler, input: Input) -> Arc<Outcome> {
        let key = (scheduler.digest, input);
        // A thread that panicked has left no half of an entry.
        let known = self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let outcome = Arc::new(scheduler.run(input, self.bounds.mutant));
            let mut known = self.known.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.entry(key).or_insert(outcome).clone()
        })
    }

    /// How many outcomes there are.
    pub(super) fn runs(&self) -> usize {
        self.known.read().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }
}

/// A scheduler, how far it was shown what happened, and its requests.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Member {
    pub(super) scheduler: Arc<Scheduler>,
    /// Changes of the log that its watch of pods has passed, and that of nodes.
    pub(super) pods: usize,
    pub(super) nodes: usize,
    /// In order: which was first doesn't matter.
    pub(super) requests: Vec<Request>,
}
