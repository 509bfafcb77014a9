//! What the scheduler knows, and what it does next. Pure: objects and the time come in, acts come out.
//!
//! Invariants
//!   S1  A pod is assumed on its node before its binding is sent, so that the next decision sees it there.
//!   S2  An assumed pod is forgotten when its binding is known to have failed, unless the API has shown where it is by
//!       then. Without an answer the same binding is sent again: it may have been made, or may be yet.
//!   S3  What the API shows of a pod wins over what was assumed.
//!   S4  A pod's condition is written only if it says something new.
//!   S5  A decision that its node's fence refused is made again once the pods that it didn't know were shown.
//! Checked by: state/tests.rs, `check scheduler` of models.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bindings::{Bindings, Sending};
use crate::cluster::{Cluster, NodeInfo};
use crate::failure::Failure;
use crate::groups::{Group, GroupSelector, Groups};
use crate::node::Node as NodeFacts;
use crate::oracle::schedule;
use crate::pod::{Placed, Refusal};
use crate::queue::{Happening, Queue, WaitsFor};
use k8s_openapi::api::core::v1::{Node, Pod};

/// What the API shows.
#[derive(Debug)]
pub enum Seen {
    /// A pod as it is now.
    Pod(Box<Pod>),
    /// A pod of this uid is gone.
    PodGone(String),
    /// A node as it is now.
    Node(Box<Node>),
    /// A node of this name is gone.
    NodeGone(String),
    /// All changes of pods up to this revision were shown.
    PodsUpTo(u64),
    /// A service or controller, and its selector unless it is gone.
    Group(Group, Option<GroupSelector>),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Act {
    /// Bind a pod, and tell how it went with [`State::bound`].
    Bind {
        /// The pod.
        pod: Arc<Pod>,
        /// The node.
        node: String,
        /// The revision up to which all pods that the node was given are counted. 0: of none that has a revision.
        known: u64,
    },
    /// Tell the pod's owner why it has no node.
    Tell(Tell),
    /// Tell whoever runs the scheduler that something can't be read.
    Warn(String),
}

/// Why a pod has no node.
#[derive(Debug, Clone)]
pub struct Tell {
    /// The pod.
    pub pod: Arc<Pod>,
    /// In one word.
    pub reason: &'static str,
    /// In words for people.
    pub message: String,
    /// Whether the pod's condition doesn't say so yet.
    pub condition: bool,
    /// Whether an event says so as well.
    pub event: bool,
}

/// How a binding went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindFailure {
    /// The node was given a pod at this revision, unknown to the decision: nothing was bound, nor will be.
    Outdated(u64),
    /// The pod is gone or has a node: the API will show.
    Refused,
    /// Nobody knows whether it was bound, or will be.
    Unanswered(String),
    /// It wasn't bound; try again.
    Failed(String),
}

/// What one scheduler knows, and what it waits for.
///
/// Getters: [`State::ready`], [`State::next_due`], [`State::waits`], [`State::counts`]. What happens: [`State::see`],
/// [`State::bound`], [`State::unsaid`], [`State::flush`]. Once everything was listed and as long as it is ready:
/// [`State::decide`].
#[derive(Debug, Clone)]
pub struct State {
    scheduler_name: String,
    cluster: Cluster,
    groups: Groups,
    queue: Queue,
    /// Pods without a node that are this scheduler's, in the queue or assumed.
    pending: BTreeMap<String, Arc<Pod>>,
    /// S1: pods on nodes that the API doesn't show there yet.
    bindings: Bindings,
    /// The revision up to which all changes of pods were shown.
    reached: u64,
    /// S5: pods in flight, and the revision that is to be shown first.
    behind: BTreeMap<String, u64>,
    /// S4: the reason and message last written.
    said: BTreeMap<String, (&'static str, String)>,
}

/// A pod's uid, empty if it has none.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `namespace/name`.
#[must_use]
pub fn place(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether the pod's condition says this already.
fn says(pod: &Pod, reason: &str, message: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|c| c.type_ == "PodScheduled")
        .any(|c| c.status == "False" && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message))
}

impl State {
    /// Knows nothing yet; its pods are those whose `schedulerName` is this.
    #[must_use]
    pub fn new(scheduler_name: String) -> Self {
        Self {
            scheduler_name,
            cluster: Cluster::new(),
            groups: Groups::default(),
            queue: Queue::default(),
            pending: BTreeMap::new(),
            bindings: Bindings::default(),
            reached: 0,
            behind: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    /// Whether [`State::decide`] has something to decide.
    #[must_use]
    pub fn ready(&self, now: u64) -> bool {
        self.bindings.ready(now) || self.queue.ready(now)
    }

    /// When there will be something to decide, if nothing else happens.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.bindings.next_due().into_iter().chain(self.queue.next_due()).min()
    }

    /// To be called now and then: pods that waited for too long are tried again.
    pub fn flush(&mut self, now: u64) {
        self.queue.flush(now);
    }

    /// How many pods wait, and how many are assumed.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.queue.len(), self.bindings.len())
    }

    /// Takes in what the API shows.
    pub fn see(&mut self, seen: Seen, now: u64) -> Option<Act> {
        match seen {
            Seen::Pod(pod) => return self.see_pod(*pod, now),
            Seen::PodGone(uid) => self.forget(&uid, now),
            Seen::Node(node) => return self.see_node(&node, now),
            Seen::PodsUpTo(revision) => self.reach(revision, now),
            Seen::NodeGone(name) => {
                self.cluster.remove_node(&name);
                for uid in self.bindings.node_gone(&name) {
                    self.take_back(&uid, now);
                    self.queue.again(&uid, now);
                }
                self.queue.happened(Happening::NodeRemoved, now);
            }
            Seen::Group(group, selector) => self.groups.set(group, selector),
        }
        None
    }

    /// S5.
    fn reach(&mut self, revision: u64, now: u64) {
        self.reached = self.reached.max(revision);
        let later = |(uid, needed): (String, u64)| if needed > self.reached { Ok((uid, needed)) } else { Err(uid) };
        for pod in std::mem::take(&mut self.behind).into_iter().map(later).collect::<Vec<_>>() {
            match pod {
                Ok((uid, needed)) => {
                    self.behind.insert(uid, needed);
                }
                Err(uid) => self.queue.again(&uid, now),
            }
        }
    }

    fn see_node(&mut self, node: &Node, now: u64) -> Option<Act> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let before = self.cluster.node(name).map(|info| info.node().clone());
        if let Err(error) = self.cluster.upsert_node(node) {
            return Some(Act::Warn(format!("node {name} can't be read; what was known of it stays: {error}")));
        }
        let after = self.cluster.node(name).map(NodeInfo::node)?;
        let happening = match &before {
            None => Some(Happening::NodeAdded),
            Some(before) => changed(before, after),
        };
        if let Some(happening) = happening {
            self.queue.happened(happening, now);
        }
        None
    }

    fn see_pod(&mut self, pod: Pod, now: u64) -> Option<Act> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
        match node {
            _ if is_over(&pod) => self.forget(uid(&pod), now),
            Some(node) => return self.see_placed(&pod, &node, now),
            None => return self.see_waiting(pod, now),
        }
        None
    }

    /// S3.
    fn see_placed(&mut self, pod: &Pod, node: &str, now: u64) -> Option<Act> {
        let uid = uid(pod);
        self.stop_waiting(uid);
        self.bindings.remove(uid);
        let before = self.cluster.pod(uid).cloned().zip(self.cluster.place_of(uid).map(str::to_owned));
        if let Err(error) = self.cluster.add_pod(pod, node) {
            let pod = place(pod);
            return Some(Act::Warn(format!("pod {pod} can't be read; its load on {node} isn't counted: {error}")));
        }
        let after = self.cluster.pod(uid)?;
        let (placed, removed) = match &before {
            None => (true, false),
            Some((_, place)) if place != node => (true, true),
            Some((before, _)) => (spreads_otherwise(before, after), before.requests != after.requests),
        };
        if removed {
            self.queue.happened(Happening::PodRemoved, now);
        }
        if placed {
            self.queue.happened(Happening::PodPlaced, now);
        }
        None
    }

    fn see_waiting(&mut self, pod: Pod, now: u64) -> Option<Act> {
        let id = uid(&pod).to_owned();
        let ours = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler");
        if ours != self.scheduler_name || pod.metadata.deletion_timestamp.is_some() {
            // What is being deleted and has no node by then never gets one.
            self.forget(&id, now);
            return None;
        }
        let pod = Arc::new(pod);
        let before = self.pending.insert(id.clone(), pod.clone());
        let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.clone()).unwrap_or_default();
        if !gates.is_empty() {
            self.queue.remove(&id);
            let gates = gates.into_iter().map(|gate| gate.name).collect();
            return self.tell(&pod, &Failure::Refused(Refusal::Gated(gates)), false);
        }
        let same = |before: Arc<Pod>| before.spec == pod.spec && before.metadata.labels == pod.metadata.labels;
        // An assumed pod has left the queue, or is still in flight and comes back if its binding fails.
        if !before.is_some_and(same) && !self.bindings.contains(&id) {
            self.queue.add(&id, priority(&pod), now);
        }
        None
    }

    /// A pod has a node or needs none any more.
    fn stop_waiting(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.pending.remove(uid);
        self.said.remove(uid);
        self.behind.remove(uid);
    }

    fn forget(&mut self, uid: &str, now: u64) {
        self.stop_waiting(uid);
        self.take_back(uid, now);
    }

    /// A pod isn't on the node any more where it was or was assumed.
    fn take_back(&mut self, uid: &str, now: u64) {
        self.bindings.remove(uid);
        if self.cluster.remove_pod(uid) {
            self.queue.happened(Happening::PodRemoved, now);
        }
    }

    /// The next binding that may be sent.
    fn send(&mut self, now: u64) -> Option<Act> {
        let Sending { uid, node, known } = self.bindings.next(now)?;
        match self.pending.get(&uid).cloned() {
            Some(pod) => Some(Act::Bind { pod, node, known }),
            None => {
                // Whoever stops waiting is taken back, so this doesn't happen; the node would never be free again.
                self.bindings.answered(&uid, &node, None);
                self.take_back(&uid, now);
                None
            }
        }
    }

    /// Sends a binding that is due, or decides for the next pod.
    pub fn decide(&mut self, now: u64) -> Option<Act> {
        if self.bindings.ready(now) {
            return self.send(now);
        }
        let id = self.queue.take(now)?;
        let Some(pod) = self.pending.get(&id).cloned() else {
            self.queue.remove(&id);
            return None;
        };
        let defaults = self.groups.defaults(&pod);
        let failure = match schedule(&mut self.cluster, &pod, &defaults) {
            Err(failure) => failure,
            Ok(decision) => match self.cluster.add_pod(&pod, &decision.node) {
                Ok(()) => {
                    // S1. Only the API's showing the pod ends this, or the binding's failing.
                    self.bindings.assume(&id, &decision.node, self.reached);
                    self.queue.happened(Happening::PodPlaced, now);
                    return self.send(now);
                }
                Err(error) => Failure::Refused(Refusal::Unreadable(error)),
            },
        };
        self.queue.rejected(&id, WaitsFor::after(&failure), now);
        self.tell(&pod, &failure, true)
    }

    /// A binding to a node was answered, with the revision at which it was made if that was told; or it wasn't answered.
    pub fn bound(
        &mut self,
        pod: &Arc<Pod>,
        node: &str,
        result: Result<Option<u64>, BindFailure>,
        now: u64,
    ) -> Option<Act> {
        let uid = uid(pod);
        if !self.bindings.answered(uid, node, result.as_ref().ok().copied().flatten()) {
            // The API has shown what became of it.
            return None;
        }
        // S2.
        let message = match result {
            Ok(_) => {
                // It stays assumed until the API shows it there.
                self.queue.remove(uid);
                self.said.remove(uid);
                return None;
            }
            Err(BindFailure::Outdated(revision)) => {
                self.take_back(uid, now);
                self.behind.insert(uid.to_owned(), revision);
                self.reach(self.reached, now);
                return None;
            }
            Err(BindFailure::Refused) => {
                self.repeat(uid, node, now);
                return None;
            }
            Err(BindFailure::Unanswered(message)) => {
                self.repeat(uid, node, now);
                message
            }
            Err(BindFailure::Failed(message)) => {
                self.take_back(uid, now);
                self.queue.failed(uid, now);
                message
            }
        };
        // It may have been carried out all the same, and then the condition must not say otherwise.
        let (pod, reason) = (pod.clone(), "SchedulerError");
        Some(Act::Tell(Tell { pod, reason, message, condition: false, event: true }))
    }

    /// S2: the same again after a pause, while there is the node.
    fn repeat(&mut self, uid: &str, node: &str, now: u64) {
        if self.cluster.node(node).is_some() {
            self.bindings.repeat(uid, now);
        } else {
            self.take_back(uid, now);
            self.queue.again(uid, now);
        }
    }

    /// S4.
    fn tell(&mut self, pod: &Arc<Pod>, failure: &Failure, event: bool) -> Option<Act> {
        let (reason, message) = (failure.reason(), failure.to_string());
        let new = (reason, message.clone());
        let before = self.said.insert(uid(pod).to_owned(), new.clone());
        let condition = match before {
            Some(before) => before != new,
            None => !says(pod, reason, &message),
        };
        (condition || event).then(|| Act::Tell(Tell { pod: pod.clone(), reason, message, condition, event }))
    }

    /// Whether a pod still waits, so that a condition that says so is true.
    #[must_use]
    pub fn waits(&self, pod: &Pod) -> bool {
        self.pending.contains_key(uid(pod)) && !self.bindings.contains(uid(pod))
    }

    /// A condition wasn't written: it is new again.
    pub fn unsaid(&mut self, pod: &Pod) {
        self.said.remove(uid(pod));
    }
}

fn changed(before: &NodeFacts, after: &NodeFacts) -> Option<Happening> {
    let labels = before.labels != after.labels;
    let taints = before.taints != after.taints || before.unschedulable != after.unschedulable;
    let allocatable = before.allocatable != after.allocatable;
    (labels || taints || allocatable).then_some(Happening::NodeChanged { labels, taints, allocatable })
}

fn spreads_otherwise(before: &Placed, after: &Placed) -> bool {
    before.labels != after.labels || before.terminating != after.terminating
}
