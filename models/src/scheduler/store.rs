//! The store: pods, nodes and fences, the log of what changed, and the transactions of `apiserver_core`.

use apiserver_core::{fence, kinds};
use serde_json::{Value, json};

use super::{Bounds, Mutant};

/// The revision at which everything was listed.
pub(super) const LISTED: i64 = 1;

/// One change, in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Change {
    /// A pod was given a node.
    Bound {
        pod: u8,
        node: u8,
    },
    /// A pod without a node is being deleted, and something holds it.
    Marked(u8),
    PodGone(u8),
    NodeGone(u8),
}

impl Change {
    pub(super) fn is_of_pods(self) -> bool {
        !matches!(self, Self::NodeGone(_))
    }
}

/// A pod as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pod {
    pub(super) node: Option<u8>,
    pub(super) marked: bool,
    pub(super) gone: bool,
    pub(super) revision: i64,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Answer {
    /// Bound at a revision, unless the apiserver doesn't tell.
    Bound(Option<i64>),
    /// The pod is gone, or can't be bound.
    Refused,
    /// By the fence, which is at this revision.
    Outdated(i64),
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Stage {
    /// On its way.
    Sent,
    /// An apiserver has read the pod at this revision, and decided.
    Read(i64),
    /// The answer is on its way.
    Answered(Answer),
}

/// A binding that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Request {
    pub(super) pod: u8,
    pub(super) node: u8,
    /// Up to which revision its author knew pods, if he tells.
    pub(super) known: Option<i64>,
    pub(super) stage: Stage,
    /// Whether somebody still waits for its answer.
    pub(super) awaited: bool,
}

/// What must never be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Broken {
    /// A scheduler's binding gave a node more than it has room for.
    pub(super) overcommitted: bool,
    /// A pod that had a node was given one.
    pub(super) twice: bool,
}

/// What is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) pods: Vec<Pod>,
    /// Whether each node is there.
    pub(super) nodes: Vec<bool>,
    /// The revision of each node's fence; 0: it has none.
    pub(super) fences: Vec<i64>,
    pub(super) log: Vec<Change>,
    pub(super) broken: Broken,
}

/// What a pod is called, and its uid.
pub(super) fn pod_name(pod: u8) -> String {
    format!("p{}", pod + 1)
}

/// What a node is called.
pub(super) fn node_name(node: u8) -> String {
    char::from(b'a' + node).to_string()
}

/// Which node is called so.
pub(super) fn node_called(name: &str) -> u8 {
    name.bytes().next().map_or(0, |letter| letter.saturating_sub(b'a'))
}

/// A pod as the API shows it.
pub(super) fn pod_value(pod: u8, node: Option<u8>, marked: bool) -> Value {
    let name = pod_name(pod);
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
    });
    if let Some(node) = node {
        value["spec"]["nodeName"] = node_name(node).into();
    }
    if marked {
        value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    value
}

/// A node with room for so many pods, as the API shows it.
pub(super) fn node_value(node: u8, room: u8) -> Value {
    json!({"metadata": {"name": node_name(node)},
        "status": {"allocatable": {"cpu": room.to_string(), "memory": "8Gi", "pods": "10"}}})
}

fn binding_value(request: &Request) -> Value {
    let mut target = json!({"kind": "Node", "name": node_name(request.node)});
    if let Some(known) = request.known {
        target["resourceVersion"] = known.to_string().into();
    }
    json!({"metadata": {"name": pod_name(request.pod), "uid": pod_name(request.pod)}, "target": target})
}

impl Store {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            pods: vec![Pod { node: None, marked: false, gone: false, revision: LISTED }; usize::from(bounds.pods)],
            nodes: vec![true; usize::from(bounds.nodes)],
            fences: vec![0; usize::from(bounds.nodes)],
            log: Vec::new(),
            broken: Broken::default(),
        }
    }

    /// The revision of a change in the log.
    pub(super) fn revision_of(at: usize) -> i64 {
        LISTED + 1 + i64::try_from(at).unwrap_or(i64::MAX)
    }

    /// The latest revision.
    pub(super) fn revision(&self) -> i64 {
        Self::revision_of(self.log.len()) - 1
    }

    /// How many pods a node has.
    pub(super) fn load(&self, node: u8) -> usize {
        self.pods.iter().filter(|pod| !pod.gone && pod.node == Some(node)).count()
    }

    pub(super) fn has_room(&self, node: u8, bounds: &Bounds) -> bool {
        self.nodes[usize::from(node)] && self.load(node) < usize::from(bounds.room)
    }

    /// Writes a change; returns its revision.
    fn write(&mut self, change: Change) -> i64 {
        self.log.push(change);
        let revision = self.revision();
        match change {
            Change::Bound { pod, node } => {
                let pod = &mut self.pods[usize::from(pod)];
                (pod.node, pod.revision) = (Some(node), revision);
            }
            Change::Marked(pod) => {
                let pod = &mut self.pods[usize::from(pod)];
                (pod.marked, pod.revision) = (true, revision);
            }
            Change::PodGone(pod) => self.pods[usize::from(pod)].gone = true,
            Change::NodeGone(node) => self.nodes[usize::from(node)] = false,
        }
        revision
    }

    pub(super) fn delete(&mut self, change: Change) {
        self.write(change);
    }

    /// What an apiserver does with a pod that it has read: the pod as it is to be, or the answer.
    fn decide(&self, request: &Request) -> Result<(Value, Value), Answer> {
        let pod = self.pods[usize::from(request.pod)];
        if pod.gone {
            return Err(Answer::Refused);
        }
        let old = pod_value(request.pod, pod.node, pod.marked);
        match kinds::bind(&old, &binding_value(request), "2026-01-01T00:00:00Z") {
            Ok(new) => Ok((old, new)),
            Err(_) => Err(Answer::Refused),
        }
    }

    /// The next step of a request, as `apiserver/server/src/write.rs` `modify_with` takes them.
    pub(super) fn step(&mut self, request: &Request, bounds: &Bounds) -> Stage {
        let now = self.pods[usize::from(request.pod)];
        let decided = match request.stage {
            Stage::Answered(_) => return request.stage,
            Stage::Sent => return self.decide(request).map_or_else(Stage::Answered, |_| Stage::Read(now.revision)),
            // What was read and decided upon was a pod without a node.
            Stage::Read(_) if bounds.mutant == Some(Mutant::NoCompare) && !now.gone => {
                let old = pod_value(request.pod, None, false);
                kinds::bind(&old, &binding_value(request), "").map(|new| (old, new)).map_err(|_| Answer::Refused)
            }
            Stage::Read(read) if now.gone || read != now.revision => {
                return self.decide(request).map_or_else(Stage::Answered, |_| Stage::Read(now.revision));
            }
            Stage::Read(_) => self.decide(request),
        };
        Stage::Answered(decided.map_or_else(|answer| answer, |(old, new)| self.commit(request, &old, &new, bounds)))
    }

    /// One transaction: pod and fence, if the fence lets it through.
    fn commit(&mut self, request: &Request, old: &Value, new: &Value, bounds: &Bounds) -> Answer {
        let node = node_called(new["spec"]["nodeName"].as_str().unwrap_or_default());
        let asked = if bounds.mutant == Some(Mutant::NoFence) { None } else { request.known };
        let pods = api::resources::find("", "v1", "pods").expect("pods are in the schema");
        let fence = fence::of_write(pods, Some(old), new, asked).filter(|_| !bounds.foreign);
        let at = usize::from(node);
        if fence.as_ref().is_some_and(|fence| !fence.admits(self.fences[at])) {
            return Answer::Outdated(self.fences[at]);
        }
        self.broken.twice |= self.pods[usize::from(request.pod)].node.is_some();
        let revision = self.write(Change::Bound { pod: request.pod, node });
        let is_unseen = bounds.mutant == Some(Mutant::PlainUnseen) && request.known.is_none();
        if fence.is_some() && !is_unseen {
            self.fences[at] = revision;
        }
        // Who doesn't tell what he knew may do as he likes.
        self.broken.overcommitted |= request.known.is_some() && self.load(node) > usize::from(bounds.room);
        Answer::Bound((!bounds.foreign).then_some(revision))
    }
}
