//! Filters in upstream's order: the first that rejects a node says why.
//!
//! Source: scheduler framework `RunFilterPlugins`, default profile of `getDefaultPlugins`.

use std::borrow::Cow;
use std::fmt;

use crate::cluster::NodeInfo;
use crate::pod::Incoming;
use crate::spread::{Spread, Unfit};
use crate::{fit, taints};

/// A plugin that can reject a node, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plugin {
    /// The node is closed to new pods.
    NodeUnschedulable,
    /// The pod asks for another node.
    NodeName,
    /// The node has a taint.
    TaintToleration,
    /// The node isn't what the pod asks for.
    NodeAffinity,
    /// Host ports are taken.
    NodePorts,
    /// Resources are taken.
    NodeResourcesFit,
    /// Pods would be spread too unevenly.
    PodTopologySpread,
}

impl fmt::Display for Plugin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, out)
    }
}

/// Why a node is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Who says so.
    pub plugin: Plugin,
    /// In upstream's words.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether evicting pods might help: upstream's `Unschedulable` rather than `UnschedulableAndUnresolvable`.
    pub resolvable: bool,
}

impl Rejection {
    fn by(plugin: Plugin, reason: &'static str, resolvable: bool) -> Self {
        Self { plugin, reasons: vec![Cow::Borrowed(reason)], resolvable }
    }
}

/// Runs the filters on one node.
///
/// # Errors
/// The first [`Rejection`].
pub fn filter(pod: &Incoming, info: &NodeInfo, spread: &Spread) -> Result<(), Rejection> {
    let node = info.node();
    if node.unschedulable && !taints::tolerates_unschedulable(&pod.tolerations) {
        return Err(Rejection::by(Plugin::NodeUnschedulable, "node(s) were unschedulable", false));
    }
    if pod.node_name.as_ref().is_some_and(|name| *name != node.name) {
        return Err(Rejection::by(Plugin::NodeName, "node(s) didn't match the requested node name", false));
    }
    if !taints::tolerated(&node.taints, &pod.tolerations) {
        // Since 1.35 the text no longer names the taint.
        return Err(Rejection::by(Plugin::TaintToleration, "node(s) had untolerated taint(s)", false));
    }
    if !pod.required.matches(&node.name, &node.labels) {
        let reason = "node(s) didn't match Pod's node affinity/selector";
        return Err(Rejection::by(Plugin::NodeAffinity, reason, false));
    }
    let wanted = &pod.pod.ports;
    if !wanted.is_empty() && info.pods().flat_map(|p| &p.ports).any(|taken| wanted.iter().any(|w| w.conflicts(taken))) {
        let reason = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::by(Plugin::NodePorts, reason, true));
    }
    if let Err(lack) = fit::fits(&pod.pod.requests, info) {
        return Err(Rejection { plugin: Plugin::NodeResourcesFit, reasons: lack.reasons, resolvable: !lack.hopeless });
    }
    let (reason, resolvable) = match spread.fits(pod, info) {
        Ok(()) => return Ok(()),
        Err(Unfit::NoLabel) => ("node(s) didn't match pod topology spread constraints (missing required label)", false),
        Err(Unfit::Skew) => ("node(s) didn't match pod topology spread constraints", true),
    };
    Err(Rejection::by(Plugin::PodTopologySpread, reason, resolvable))
}
