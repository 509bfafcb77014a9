//! Bindings: pods that are assumed on nodes, and when the binding of each is sent.
//!
//! Problem. A decision holds for what was known of its node. Another scheduler may put a pod there before the binding
//!          arrives, and a binding that wasn't answered may have been carried out, or may be at any time.
//! Idea.    A binding tells up to which revision its decision knew the node's pods; Keelson's apiserver refuses it, in
//!          the transaction that would bind, if the node was given a pod after that. What wasn't answered is
//!          asked again in the same words: the pod and its room stay taken until an answer or the watch says more.
//!
//! ```text
//!   assume ──► waiting ──next──► on its way ──► bound ──► shown by the watch
//!                 ▲                   │
//!                 └───── paused ◄─────┴ not answered, or refused without a reason that settles it
//! ```
//! Invariants
//!   B1  At most one binding to each node is on its way: what the next may tell depends on its answer.
//!   B2  A binding tells what its decision knew and not what was known when it was sent, and this scheduler's own
//!       bindings since: those were counted already.
//!   B3  A pod is taken back only if no binding of it can be carried out any more, its node went, or the API shows.
//! Checked by: bindings/tests.rs, `check scheduler` of models.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::queue::pause_ms;

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// The pod's uid.
    pub uid: String,
    /// Where it goes.
    pub node: String,
    /// B2: the revision up to which all pods that the node was given are counted.
    pub known: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    OnItsWay,
    Paused(u64),
    Bound,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Assumed {
    node: String,
    /// Up to which revision the decision knew the pods.
    base: u64,
    /// Bindings that were sent in vain.
    failures: u32,
    phase: Phase,
}

/// This scheduler's latest binding to a node, and what the decision for it knew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Own {
    revision: u64,
    base: u64,
}

/// The bindings to one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Lane {
    waiting: VecDeque<String>,
    /// B1: with what its decision knew.
    on_its_way: Option<(String, u64)>,
    own: Own,
}

/// Assumed pods by uid. Nodes that had a binding are remembered until they go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    assumed: BTreeMap<String, Assumed>,
    lanes: BTreeMap<String, Lane>,
    /// Nodes whose next binding may be sent.
    free: BTreeSet<String>,
    paused: BTreeSet<(u64, String)>,
}

impl Bindings {
    /// How many pods are assumed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.assumed.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.assumed.is_empty()
    }

    /// Whether a pod is assumed.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.assumed.contains_key(uid)
    }

    /// Whether [`Bindings::next`] has something.
    #[must_use]
    pub fn ready(&self, now: u64) -> bool {
        !self.free.is_empty() || self.paused.first().is_some_and(|(until, _)| *until <= now)
    }

    /// When the next pause is over.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.paused.first().map(|(until, _)| *until)
    }

    /// A pod is to go to a node, decided with all pods known up to a revision.
    pub fn assume(&mut self, uid: &str, node: &str, base: u64) {
        let assumed = Assumed { node: node.to_owned(), base, failures: 0, phase: Phase::Waiting };
        self.assumed.insert(uid.to_owned(), assumed);
        self.line_up(uid, node);
    }

    fn line_up(&mut self, uid: &str, node: &str) {
        self.lanes.entry(node.to_owned()).or_default().waiting.push_back(uid.to_owned());
        self.look(node);
    }

    /// Whether a node's next binding may be sent now.
    fn look(&mut self, node: &str) {
        let is_free = self.lanes.get(node).is_some_and(|lane| lane.on_its_way.is_none() && !lane.waiting.is_empty());
        if is_free {
            self.free.insert(node.to_owned());
        } else {
            self.free.remove(node);
        }
    }

    /// The next binding to be sent; [`Bindings::answered`] is to follow.
    pub fn next(&mut self, now: u64) -> Option<Sending> {
        while let Some((until, uid)) = self.paused.first().filter(|(until, _)| *until <= now).cloned() {
            self.paused.remove(&(until, uid.clone()));
            let Some(assumed) = self.assumed.get_mut(&uid) else { continue };
            assumed.phase = Phase::Waiting;
            let node = assumed.node.clone();
            self.line_up(&uid, &node);
        }
        let node = self.free.first()?.clone();
        let lane = self.lanes.get_mut(&node)?;
        let uid = lane.waiting.pop_front()?;
        let assumed = self.assumed.get_mut(&uid)?;
        assumed.phase = Phase::OnItsWay;
        // B2: its own bindings count only for decisions that knew at least what theirs did.
        let known = if assumed.base >= lane.own.base { assumed.base.max(lane.own.revision) } else { assumed.base };
        lane.on_its_way = Some((uid.clone(), assumed.base));
        self.look(&node);
        Some(Sending { uid, node, known })
    }

    /// The binding on its way was answered, or won't be: at which revision it was made, if it was. Whether the pod is still
    /// assumed there: its binding is made, unless [`Bindings::repeat`] or [`Bindings::remove`] follows.
    pub fn answered(&mut self, uid: &str, node: &str, revision: Option<u64>) -> bool {
        let Some(lane) = self.lanes.get_mut(node) else { return false };
        if let Some((_, base)) = lane.on_its_way.take_if(|(sent, _)| sent == uid)
            && let Some(revision) = revision
        {
            lane.own = Own { revision, base };
        }
        self.look(node);
        let assumed = self.assumed.get_mut(uid).filter(|a| a.node == node && a.phase == Phase::OnItsWay);
        assumed.map(|assumed| assumed.phase = Phase::Bound).is_some()
    }

    /// Nobody knows what became of a binding: B3, the same again after a pause.
    pub fn repeat(&mut self, uid: &str, now: u64) {
        let Some(assumed) = self.assumed.get_mut(uid) else { return };
        assumed.failures = assumed.failures.saturating_add(1);
        let until = now.saturating_add(pause_ms(assumed.failures));
        assumed.phase = Phase::Paused(until);
        self.paused.insert((until, uid.to_owned()));
    }

    /// A pod isn't assumed any more. Whether it was.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(assumed) = self.assumed.remove(uid) else { return false };
        match assumed.phase {
            Phase::Waiting => {
                if let Some(lane) = self.lanes.get_mut(&assumed.node) {
                    lane.waiting.retain(|other| other != uid);
                }
                self.look(&assumed.node);
            }
            Phase::Paused(until) => {
                self.paused.remove(&(until, uid.to_owned()));
            }
            // The node stays busy until the answer.
            Phase::OnItsWay | Phase::Bound => {}
        }
        true
    }

    /// A node went: what isn't on its way there isn't sent. Returns whose pods need another.
    pub fn node_gone(&mut self, node: &str) -> Vec<String> {
        let unsent =
            |assumed: &&Assumed| assumed.node == node && !matches!(assumed.phase, Phase::OnItsWay | Phase::Bound);
        let stranded: Vec<String> =
            self.assumed.iter().filter(|(_, assumed)| unsent(assumed)).map(|(uid, _)| uid.clone()).collect();
        for uid in &stranded {
            self.remove(uid);
        }
        if self.lanes.get(node).is_some_and(|lane| lane.on_its_way.is_none()) {
            self.lanes.remove(node);
        }
        stranded
    }
}
