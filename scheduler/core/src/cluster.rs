//! The cluster's state: nodes, and pods on them.
//!
//! Problem. Pods and nodes come and go in any order; what is known of a node's load must fit what is on it.
//! Idea.    One owner of plain maps. Pods of a node that isn't known wait aside until it comes.
//!
//! Invariants
//!   C1  `requested` and `non_zero` of a node are the sums over its pods.
//!   C2  A pod is in one place: on one node or aside.
//!   C3  The list of nodes is rebuilt only after a node was added or removed, not for a change of zone.
//! Checked by: cluster/tests.rs.
//! Source: scheduler `backend/cache`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as wire;

use crate::images::Images;
use crate::node::{Node, NodeError};
use crate::order::ZoneTree;
use crate::pod::{Placed, PodError};
use crate::resources::{NonZero, Resources};

/// A node and what is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    node: Node,
    pods: BTreeMap<String, Placed>,
    /// C1: what pods asked for.
    requested: Resources,
    /// C1: the same for scores.
    non_zero: NonZero,
}

impl NodeInfo {
    fn new(node: Node, pods: BTreeMap<String, Placed>) -> Self {
        let mut info = Self { node, pods, requested: Resources::default(), non_zero: NonZero::default() };
        info.recount();
        info
    }

    /// Sums are counted anew, never subtracted from, so that one that hit the limit comes back down.
    fn recount(&mut self) {
        self.requested = Resources::default();
        self.non_zero = NonZero::default();
        for pod in self.pods.values() {
            self.requested.add(&pod.requests.exact);
            self.non_zero.add(pod.requests.non_zero);
        }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its pods, by uid.
    pub fn pods(&self) -> impl Iterator<Item = &Placed> + Clone {
        self.pods.values()
    }

    /// How many pods it has.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// What its pods asked for.
    #[must_use]
    pub fn requested(&self) -> &Resources {
        &self.requested
    }

    /// What its pods asked for as scores see it.
    #[must_use]
    pub fn non_zero(&self) -> NonZero {
        self.non_zero
    }

    /// The node as if only these pods were on it.
    #[must_use]
    pub fn keeping(&self, keep: impl Fn(&Placed) -> bool) -> Self {
        let kept = self.pods.iter().filter(|(_, pod)| keep(pod)).map(|(uid, pod)| (uid.clone(), pod.clone()));
        Self::new(self.node.clone(), kept.collect())
    }
}

/// Nodes and the pods on them.
///
/// Commands: [`Cluster::upsert_node`], [`Cluster::remove_node`], [`Cluster::add_pod`], [`Cluster::remove_pod`].
/// A decision ([`crate::oracle::schedule`]) doesn't place the pod; whoever follows it calls [`Cluster::add_pod`].
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, NodeInfo>,
    /// C2: where each pod is, on a known node or not.
    places: BTreeMap<String, String>,
    /// Pods whose node isn't known, by that node and their uid.
    aside: BTreeMap<String, BTreeMap<String, Placed>>,
    zones: ZoneTree,
    images: Images,
    order: Arc<Vec<String>>,
    /// C3: whether a node was added or removed since `order` was made.
    stale: bool,
    /// Where in `order` the next scan begins.
    next_start: usize,
}

impl Cluster {
    /// An empty cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A node, if known.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// How many nodes there are.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The name of the node that a pod was put on.
    #[must_use]
    pub fn place_of(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(String::as_str)
    }

    /// A pod that was put on a node, if known.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&Placed> {
        let node = self.places.get(uid)?;
        let pods = self.nodes.get(node).map(|info| &info.pods).or_else(|| self.aside.get(node))?;
        pods.get(uid)
    }

    /// Which nodes have which images.
    #[must_use]
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// A node came or changed.
    ///
    /// # Errors
    /// [`NodeError`] if it can't be read; what was known of it stays.
    pub fn upsert_node(&mut self, wire: &wire::Node) -> Result<(), NodeError> {
        let node = Node::read(wire)?;
        let name = node.name.clone();
        match self.nodes.get_mut(&name) {
            Some(known) => {
                self.zones.update(&name, &known.node.labels, &node.labels);
                self.images.remove(&name, known.node.images.iter().map(|(image, _)| image.as_str()));
                known.node = node;
            }
            None => {
                self.zones.add(&name, &node.labels);
                self.stale = true;
                let pods = self.aside.remove(&name).unwrap_or_default();
                self.nodes.insert(name.clone(), NodeInfo::new(node, pods));
            }
        }
        if let Some(known) = self.nodes.get(&name) {
            self.images.add(&name, known.node.images.iter().map(|(image, bytes)| (image.as_str(), *bytes)));
        }
        Ok(())
    }

    /// A node went. Its pods are kept for when it comes back, until they go themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(gone) = self.nodes.remove(name) else { return };
        self.zones.remove(name, &gone.node.labels);
        self.images.remove(name, gone.node.images.iter().map(|(image, _)| image.as_str()));
        self.stale = true;
        if !gone.pods.is_empty() {
            self.aside.insert(name.to_owned(), gone.pods);
        }
    }

    /// A pod is on a node; one that was known before is replaced.
    ///
    /// # Errors
    /// [`PodError`] if it can't be read; what was known of it stays.
    pub fn add_pod(&mut self, wire: &wire::Pod, node: &str) -> Result<(), PodError> {
        let pod = Placed::read(wire)?;
        self.remove_pod(&pod.uid);
        self.places.insert(pod.uid.clone(), node.to_owned());
        match self.nodes.get_mut(node) {
            Some(info) => {
                info.requested.add(&pod.requests.exact);
                info.non_zero.add(pod.requests.non_zero);
                info.pods.insert(pod.uid.clone(), pod);
            }
            None => {
                self.aside.entry(node.to_owned()).or_default().insert(pod.uid.clone(), pod);
            }
        }
        Ok(())
    }

    /// A pod went. Whether it was known.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(node) = self.places.remove(uid) else { return false };
        if let Some(info) = self.nodes.get_mut(&node) {
            info.pods.remove(uid);
            info.recount();
        } else if let Some(pods) = self.aside.get_mut(&node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.aside.remove(&node);
            }
        }
        true
    }

    /// The nodes' names in the order of visits (C3).
    pub(crate) fn order(&mut self) -> Arc<Vec<String>> {
        if self.stale {
            self.order = Arc::new(self.zones.round_robin());
            self.stale = false;
        }
        self.order.clone()
    }

    /// Where the next scan begins.
    #[must_use]
    pub fn next_start(&self) -> usize {
        self.next_start
    }

    /// The next scan begins this many nodes further on.
    pub(crate) fn advance(&mut self, visited: usize) {
        if let Some(start) = self.next_start.saturating_add(visited).checked_rem(self.nodes.len()) {
            self.next_start = start;
        }
    }
}
