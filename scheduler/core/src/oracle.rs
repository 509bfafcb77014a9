//! The oracle: kube-scheduler's decision for one pod, computed the plain way.
//!
//! Problem. What the scheduler decides must be what kube-scheduler 1.36 would decide with `parallelism: 1`.
//! Idea.    Visit nodes one by one in its order, filter, score, choose; nothing is kept between pods
//!          but where the next scan begins. Faster ways are compared with this one.
//!
//! Invariants
//!   O1  The next scan begins at the first feasible node that this one didn't take in.
//!   O2  The same state and pod give the same decision: no clock, no randomness.
//! Not covered: InterPodAffinity (a pod that requires it is refused, preferences and other pods' terms
//! are not looked at), volumes, dynamic resources, preemption, gangs, nominations of other pods, extenders.
//! Checked by: oracle/tests.rs, oracle/properties.rs.
//! Source: scheduler `schedule_one.go` `schedulePod`, `findNodesThatFitPod`, `prioritizeNodes`.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::choose::winner;
use crate::cluster::{Cluster, NodeInfo};
use crate::failure::{Diagnosis, Failure};
use crate::filter::filter;
use crate::pod::Incoming;
use crate::spread::{self, Spread, SpreadDefaults};
use crate::{balanced, fit, preemption, taints};

/// Below this many nodes all are looked at, and no search ends with fewer.
const FEASIBLE_MIN: usize = 100;
/// No search looks for a smaller share of the nodes, in hundredths.
const SHARE_MIN: usize = 5;

/// Where a pod is to go, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The node.
    pub node: String,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// Feasible nodes in the order found, with their scores; none if only one was feasible.
    pub scored: Vec<Scored>,
}

/// A feasible node's scores, each 0..=100 and before weights. A plugin that had nothing to say gave 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scored {
    /// The node.
    pub node: String,
    /// The weighted sum.
    pub total: i64,
    /// TaintToleration, of weight 3.
    pub taint_toleration: i64,
    /// NodeAffinity, of weight 2.
    pub node_affinity: i64,
    /// NodeResourcesFit, of weight 1.
    pub least_allocated: i64,
    /// PodTopologySpread, of weight 2.
    pub topology_spread: i64,
    /// NodeResourcesBalancedAllocation, of weight 1.
    pub balanced_allocation: i64,
    /// ImageLocality, of weight 1.
    pub image_locality: i64,
}

/// How many feasible nodes end the search among `nodes`.
///
/// Source: `numFeasibleNodesToFind`.
#[must_use]
pub fn feasible_to_find(nodes: usize) -> usize {
    if nodes < FEASIBLE_MIN {
        return nodes;
    }
    let share = 50_usize.saturating_sub(nodes / 125).max(SHARE_MIN);
    (nodes * share / 100).max(FEASIBLE_MIN)
}

/// Decides where a pod goes. The decision isn't carried out; the next scan's beginning moves on.
///
/// # Errors
/// [`Failure`] says why there is no node for it.
pub fn schedule(cluster: &mut Cluster, pod: &Pod, defaults: &SpreadDefaults) -> Result<Decision, Failure> {
    let pod = Incoming::read(pod).map_err(Failure::Refused)?;
    if cluster.node_count() == 0 {
        return Err(Failure::NoNodes);
    }
    let spread = Spread::count(cluster, &pod);
    let mut diagnosis = Diagnosis { nodes: cluster.node_count(), ..Diagnosis::default() };
    let found = find(cluster, &pod, &spread, &mut diagnosis);
    let feasible: Vec<&NodeInfo> = found.iter().filter_map(|name| cluster.node(name)).collect();
    let evaluated = feasible.len() + diagnosis.rejections.len();
    match feasible[..] {
        [] => {
            diagnosis.preemption = preemption::explain(cluster, &pod, &spread, &diagnosis);
            Err(Failure::Unfit(Box::new(diagnosis)))
        }
        [only] => Ok(Decision { node: only.node().name.clone(), evaluated, scored: Vec::new() }),
        _ => {
            let scored = scores(cluster, &pod, defaults, &feasible);
            let totals: Vec<i64> = scored.iter().map(|node| node.total).collect();
            let best = winner(&totals).and_then(|at| scored.get(at)).map(|node| node.node.clone());
            // There are at least two nodes, so there is a best one.
            Ok(Decision { node: best.unwrap_or_default(), evaluated, scored })
        }
    }
}

/// The feasible nodes' names, in the order found; rejections are noted.
fn find(cluster: &mut Cluster, pod: &Incoming, spread: &Spread, diagnosis: &mut Diagnosis) -> Vec<String> {
    if pod.required.only().is_some_and(std::collections::BTreeSet::is_empty) {
        diagnosis.before = Some("pod affinity terms conflict");
        return Vec::new();
    }
    if let Some(nominated) = pod.nominated.as_ref().and_then(|name| cluster.node(name)) {
        let name = nominated.node().name.clone();
        match filter(pod, nominated, spread) {
            // The scan's beginning doesn't move.
            Ok(()) => return vec![name],
            Err(rejection) => diagnosis.rejections.insert(name, rejection),
        };
    }
    let start = cluster.next_start();
    let order = match pod.required.only() {
        None => cluster.order(),
        // Upstream visits these in no particular order.
        Some(names) => {
            diagnosis.unvisited = Some(Cow::Borrowed("node(s) didn't satisfy plugin(s) [NodeAffinity]"));
            Arc::new(names.iter().filter(|name| cluster.node(name).is_some()).cloned().collect())
        }
    };
    let most = feasible_to_find(order.len());
    let mut found = Vec::new();
    for step in 0..order.len() {
        let name = &order[(start + step) % order.len()];
        let Some(node) = cluster.node(name) else { continue };
        match filter(pod, node, spread) {
            // O1: one more than wanted ends the scan and is left for the next.
            Ok(()) if found.len() == most => break,
            Ok(()) => found.push(name.clone()),
            Err(rejection) => {
                diagnosis.rejections.insert(name.clone(), rejection);
            }
        }
    }
    cluster.advance(found.len() + diagnosis.rejections.len());
    found
}

/// Scaled so that the highest is 100.
fn normalized(raw: &[i64]) -> Vec<i64> {
    let most = raw.iter().copied().max().unwrap_or(0);
    raw.iter().map(|score| (100 * score).checked_div(most).unwrap_or(0)).collect()
}

fn scores(cluster: &Cluster, pod: &Incoming, defaults: &SpreadDefaults, feasible: &[&NodeInfo]) -> Vec<Scored> {
    let raw = |score: &dyn Fn(&NodeInfo) -> i64| feasible.iter().map(|node| score(node)).collect::<Vec<i64>>();
    // The fewer unwelcome, the better; if all are welcome everywhere, this is 100 for each.
    let taint = normalized(&raw(&|node| taints::unwelcome(&node.node().taints, &pod.tolerations)));
    let affinity = normalized(&raw(&|node| pod.preferred.score(&node.node().name, &node.node().labels)));
    let spread = spread::scores(cluster, pod, defaults, feasible);
    feasible
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let name = &node.node().name;
            let of = |all: &[i64]| all.get(at).copied().unwrap_or(0);
            let mut scored = Scored {
                node: name.clone(),
                total: 0,
                taint_toleration: 100 - of(&taint),
                node_affinity: of(&affinity),
                least_allocated: fit::least_allocated(&pod.pod.requests, node),
                topology_spread: spread.as_deref().map_or(0, of),
                balanced_allocation: balanced::score(&pod.pod.requests, node).unwrap_or(0),
                image_locality: cluster.images().score(name, &pod.images, cluster.node_count()),
            };
            scored.total = 3 * scored.taint_toleration
                + 2 * (scored.node_affinity + scored.topology_spread)
                + scored.least_allocated
                + scored.balanced_allocation
                + scored.image_locality;
            scored
        })
        .collect()
}
