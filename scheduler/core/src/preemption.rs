//! Whether evicting pods of lower priority would make room. Only the answer: nothing is evicted yet.
//!
//! Source: scheduler framework `preemption/preemption.go`, plugin `defaultpreemption`.

use crate::cluster::Cluster;
use crate::failure::{Diagnosis, histogram};
use crate::filter::{Plugin, filter};
use crate::pod::{Incoming, Placed};
use crate::spread::Spread;

/// What upstream says when it finds nobody to evict.
///
/// The first words are of the DynamicResources plugin, which is asked first and always says so here.
#[must_use]
pub fn explain(cluster: &Cluster, pod: &Incoming, spread: &Spread, diagnosis: &Diagnosis) -> String {
    if !pod.preempts {
        return "no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never.".to_owned();
    }
    let lower = |other: &Placed| other.priority < pod.pod.priority;
    let mut reasons: Vec<String> = Vec::new();
    let (mut explicit, mut could_help) = (0, 0);
    for (name, _) in diagnosis.rejections.iter().filter(|(_, rejection)| rejection.resolvable) {
        let Some(node) = cluster.node(name) else { continue };
        explicit += 1;
        if !node.pods().any(lower) {
            reasons.push("No preemption victims found for incoming pod".to_owned());
            continue;
        }
        let freed = node.keeping(|other| !lower(other));
        let spread = spread.without(node.pods().filter(|other| lower(other)), node, pod);
        match filter(pod, &freed, &spread) {
            Ok(()) => could_help += 1,
            Err(rejection) => reasons.extend(rejection.reasons.iter().map(ToString::to_string)),
        }
    }
    if could_help > 0 {
        return format!(
            "preemption: not supported yet; evicting pods of lower priority would help on {could_help} node(s)."
        );
    }
    let rest = diagnosis.nodes - explicit;
    let rest = (rest > 0).then_some(("Preemption is not helpful for scheduling", rest));
    let all = histogram(reasons.iter().map(|reason| (reason.as_str(), 1)).chain(rest));
    format!("no new claims to deallocate, preemption: 0/{} nodes are available: {all}.", diagnosis.nodes)
}

/// Whether a rejection by this plugin may end when a pod goes away.
#[must_use]
pub fn pods_matter(plugin: Plugin) -> bool {
    matches!(plugin, Plugin::NodePorts | Plugin::NodeResourcesFit | Plugin::PodTopologySpread)
}
