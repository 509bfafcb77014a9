//! PodTopologySpread: pods spread evenly over the values of a node label.
//!
//! Source: scheduler plugin `podtopologyspread`: `common.go`, `filtering.go`, `scoring.go`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint as Wire;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::cluster::{Cluster, NodeInfo};
use crate::labels::{Labels, Requirement, Selector, SelectorError};
use crate::pod::{Incoming, Placed};
use crate::taints;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// One constraint on the spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// The label whose values are the domains.
    key: String,
    max_skew: i64,
    /// Whether a node that would break it is out, rather than just less liked.
    hard: bool,
    /// Which pods are counted.
    selector: Selector,
    min_domains: usize,
    /// Nodes where the pod's node affinity doesn't let it go don't count.
    honors_affinity: bool,
    /// Nodes with a taint that the pod doesn't tolerate don't count.
    honors_taints: bool,
}

impl Constraint {
    /// Reads a constraint of a pod with these labels.
    ///
    /// # Errors
    /// [`SelectorError`] if the selector can't be read.
    pub fn read(wire: &Wire, labels: &Labels) -> Result<Self, SelectorError> {
        let keys = wire.match_label_keys.iter().flatten();
        let same = keys.filter_map(|key| labels.get(key).map(|value| Requirement::equals(key, value)));
        Ok(Self {
            key: wire.topology_key.clone(),
            max_skew: i64::from(wire.max_skew),
            hard: wire.when_unsatisfiable == "DoNotSchedule",
            selector: Selector::read(wire.label_selector.as_ref())?.and(same),
            min_domains: wire.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            honors_affinity: wire.node_affinity_policy.as_deref().unwrap_or("Honor") == "Honor",
            honors_taints: wire.node_taints_policy.as_deref().unwrap_or("Ignore") == "Honor",
        })
    }

    fn system_default(key: &str, max_skew: i64, selector: &Selector) -> Self {
        Self {
            key: key.to_owned(),
            max_skew,
            hard: false,
            selector: selector.clone(),
            min_domains: 1,
            honors_affinity: true,
            honors_taints: false,
        }
    }

    /// Whether a node counts for an incoming pod.
    fn counts_node(&self, pod: &Incoming, node: &NodeInfo) -> bool {
        let node = node.node();
        (!self.honors_affinity || pod.required.matches(&node.name, &node.labels))
            && (!self.honors_taints || taints::tolerated(&node.taints, &pod.tolerations))
    }

    /// Pods that are being deleted and other namespaces' don't count; an empty selector counts none.
    fn counts_pod(&self, namespace: &str, pod: &Placed) -> bool {
        !self.selector.is_empty()
            && !pod.terminating
            && pod.namespace == namespace
            && self.selector.matches(&pod.labels)
    }

    fn count(&self, namespace: &str, node: &NodeInfo) -> i64 {
        let count = node.pods().filter(|pod| self.counts_pod(namespace, pod)).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

/// What spreads pods that say nothing about it: the selectors of what they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadDefaults(Selector);

impl Default for SpreadDefaults {
    /// No default spread.
    fn default() -> Self {
        Self(Selector::All(Vec::new()))
    }
}

/// What a pod's controller selects.
#[derive(Debug, Clone, Copy)]
pub enum OwnerSelector<'a> {
    /// A ReplicationController's labels.
    Labels(&'a Labels),
    /// A ReplicaSet's or StatefulSet's selector.
    Selector(&'a LabelSelector),
}

impl SpreadDefaults {
    /// Joins the selectors of the services that select a pod with that of its controller.
    ///
    /// Source: scheduler `plugins/helper/spread.go` DefaultSelector.
    #[must_use]
    pub fn of<'a>(services: impl IntoIterator<Item = &'a Labels>, owner: Option<OwnerSelector<'_>>) -> Self {
        let mut labels = Labels::new();
        for service in services {
            labels.extend(service.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        match owner {
            None => Self(Selector::from_labels(&labels)),
            Some(OwnerSelector::Labels(own)) => {
                labels.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
                Self(Selector::from_labels(&labels))
            }
            // A selector that can't be read is left out, as upstream does.
            Some(OwnerSelector::Selector(own)) => match Selector::read(Some(own)) {
                Ok(Selector::All(own)) => Self(Selector::from_labels(&labels).and(own)),
                Ok(Selector::Nothing) | Err(_) => Self(Selector::from_labels(&labels)),
            },
        }
    }

    fn constraints(&self) -> Vec<Constraint> {
        if self.0.is_empty() {
            return Vec::new();
        }
        vec![Constraint::system_default(HOSTNAME, 3, &self.0), Constraint::system_default(ZONE, 5, &self.0)]
    }
}

/// Why a node is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It has no such label: evicting pods doesn't help.
    NoLabel,
    /// Its domain has too many pods already.
    Skew,
}

/// How matching pods are spread now, for each hard constraint of one incoming pod.
#[derive(Debug, Clone)]
pub struct Spread {
    hard: Vec<(Constraint, BTreeMap<String, i64>)>,
}

impl Spread {
    /// Counts over all nodes that have all the keys.
    #[must_use]
    pub fn count(cluster: &Cluster, pod: &Incoming) -> Self {
        let mut hard: Vec<_> =
            pod.spread.iter().filter(|c| c.hard).map(|c| (c.clone(), BTreeMap::<String, i64>::new())).collect();
        let keys: Vec<String> = hard.iter().map(|(c, _)| c.key.clone()).collect();
        let nodes = if hard.is_empty() { Vec::new() } else { cluster.nodes().collect() };
        for node in nodes {
            let labels = &node.node().labels;
            if !keys.iter().all(|key| labels.contains_key(key)) {
                continue;
            }
            for (constraint, domains) in hard.iter_mut().filter(|(c, _)| c.counts_node(pod, node)) {
                let value = labels.get(&constraint.key).cloned().unwrap_or_default();
                *domains.entry(value).or_default() += constraint.count(&pod.pod.namespace, node);
            }
        }
        Self { hard }
    }

    /// The same as if these pods weren't on this node.
    #[must_use]
    pub fn without<'a>(&self, gone: impl Iterator<Item = &'a Placed> + Clone, node: &NodeInfo, pod: &Incoming) -> Self {
        let mut less = self.clone();
        let labels = &node.node().labels;
        if !less.hard.iter().all(|(c, _)| labels.contains_key(&c.key)) {
            return less;
        }
        for (constraint, domains) in less.hard.iter_mut().filter(|(c, _)| c.counts_node(pod, node)) {
            let counted = gone.clone().filter(|p| constraint.counts_pod(&pod.pod.namespace, p)).count();
            if let Some(count) = labels.get(&constraint.key).and_then(|value| domains.get_mut(value)) {
                *count -= i64::try_from(counted).unwrap_or(0);
            }
        }
        less
    }

    /// PodTopologySpread's filter: with the pod on this node, no domain may have more than
    /// `maxSkew` pods above the one that has the fewest.
    ///
    /// # Errors
    /// [`Unfit`] says which way the node is out.
    pub fn fits(&self, pod: &Incoming, node: &NodeInfo) -> Result<(), Unfit> {
        for (constraint, domains) in &self.hard {
            let value = node.node().labels.get(&constraint.key).ok_or(Unfit::NoLabel)?;
            let fewest = match domains.values().min() {
                Some(fewest) if domains.len() >= constraint.min_domains => *fewest,
                Some(_) => 0,
                None if constraint.min_domains > 0 => 0,
                None => i64::from(i32::MAX),
            };
            let own = i64::from(constraint.selector.matches(&pod.pod.labels));
            if domains.get(value).copied().unwrap_or(0) + own - fewest > constraint.max_skew {
                return Err(Unfit::Skew);
            }
        }
        Ok(())
    }
}

/// PodTopologySpread's score of each feasible node, 0..=100; `None` if nothing asks for it.
#[must_use]
pub fn scores(
    cluster: &Cluster,
    pod: &Incoming,
    defaults: &SpreadDefaults,
    feasible: &[&NodeInfo],
) -> Option<Vec<i64>> {
    let own = !pod.spread.is_empty();
    let soft: Vec<Constraint> =
        if own { pod.spread.iter().filter(|c| !c.hard).cloned().collect() } else { defaults.constraints() };
    if soft.is_empty() {
        return None;
    }
    // Only a pod's own constraints need all labels: default ones spread by hostname where there are no zones.
    let has_keys = |node: &NodeInfo| !own || soft.iter().all(|c| node.node().labels.contains_key(&c.key));
    let domains = count_domains(cluster, pod, &soft, feasible, &has_keys);
    let scored = feasible.iter().filter(|node| has_keys(node)).count();
    let raw: Vec<Option<i64>> =
        feasible.iter().map(|node| has_keys(node).then(|| raw_score(pod, node, &soft, &domains, scored))).collect();
    let most = raw.iter().flatten().copied().max().unwrap_or(0);
    let least = raw.iter().flatten().copied().min().unwrap_or(0);
    let normal = |raw: Option<i64>| match raw {
        None => 0,
        Some(_) if most == 0 => 100,
        Some(raw) => 100 * (most + least - raw) / most,
    };
    Some(raw.into_iter().map(normal).collect())
}

/// Pods in each domain that a feasible node is in, over all nodes; for each constraint but by hostname.
fn count_domains(
    cluster: &Cluster,
    pod: &Incoming,
    soft: &[Constraint],
    feasible: &[&NodeInfo],
    has_keys: &dyn Fn(&NodeInfo) -> bool,
) -> Vec<BTreeMap<String, i64>> {
    let value = |node: &NodeInfo, key: &str| node.node().labels.get(key).cloned().unwrap_or_default();
    soft.iter()
        .map(|constraint| {
            if constraint.key == HOSTNAME {
                return BTreeMap::new();
            }
            let key = constraint.key.as_str();
            let reached = feasible.iter().filter(|node| has_keys(node));
            let mut counts: BTreeMap<String, i64> = reached.map(|node| (value(node, key), 0)).collect();
            for node in cluster.nodes().filter(|node| has_keys(node) && constraint.counts_node(pod, node)) {
                if let Some(count) = counts.get_mut(&value(node, key)) {
                    *count += constraint.count(&pod.pod.namespace, node);
                }
            }
            counts
        })
        .collect()
}

/// More pods in the node's domains make it higher, and so worse. The sum goes in the order of the
/// constraints: it is one of floating point numbers.
fn raw_score(
    pod: &Incoming,
    node: &NodeInfo,
    soft: &[Constraint],
    domains: &[BTreeMap<String, i64>],
    scored: usize,
) -> i64 {
    let mut score = 0.0_f64;
    for (constraint, counts) in soft.iter().zip(domains) {
        let Some(value) = node.node().labels.get(&constraint.key) else { continue };
        let by_node = constraint.key == HOSTNAME;
        let count =
            if by_node { constraint.count(&pod.pod.namespace, node) } else { counts.get(value).copied().unwrap_or(0) };
        let size = if by_node { scored } else { counts.len() };
        score += count as f64 * ln((size + 2) as f64) + (constraint.max_skew - 1) as f64;
    }
    score.round() as i64
}

/// Go's natural logarithm, bit for bit, of a number of at least 2.
///
/// Source: Go `math/log.go`, which is FreeBSD's `e_log.c`.
fn ln(x: f64) -> f64 {
    const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LO: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const L: [f64; 7] = [
        f64::from_bits(0x3fe5_5555_5555_5593),
        f64::from_bits(0x3fd9_9999_9997_fa04),
        f64::from_bits(0x3fd2_4924_9422_9359),
        f64::from_bits(0x3fcc_71c5_1d8e_78af),
        f64::from_bits(0x3fc7_4664_96cb_03de),
        f64::from_bits(0x3fc3_9a09_d078_c69f),
        f64::from_bits(0x3fc2_f112_df3e_5244),
    ];
    // x = fraction * 2^exponent, the fraction from √2/2 up to √2.
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1022;
    let mut fraction = f64::from_bits((bits & !(0x7ff << 52)) | (1022 << 52));
    if fraction < std::f64::consts::FRAC_1_SQRT_2 {
        fraction *= 2.0;
        exponent -= 1;
    }
    let f = fraction - 1.0;
    let k = exponent as f64;
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let t1 = s2 * (L[0] + s4 * (L[2] + s4 * (L[4] + s4 * L[6])));
    let t2 = s4 * (L[1] + s4 * (L[3] + s4 * L[5]));
    let r = t1 + t2;
    let half = 0.5 * f * f;
    k * LN2_HI - ((half - (s * (half + r) + k * LN2_LO)) - f)
}
