//! Taints and tolerations: NodeUnschedulable and TaintToleration.
//!
//! Source: component-helpers `scheduling/corev1/helpers.go`, scheduler plugins `nodeunschedulable`, `tainttoleration`.

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1 as wire;

/// What the unschedulable flag of a node counts as.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What a node repels pods with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    key: String,
    value: String,
    effect: String,
}

/// What a pod puts up with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    key: String,
    operator: String,
    value: String,
    effect: String,
}

impl From<&wire::Taint> for Taint {
    fn from(taint: &wire::Taint) -> Self {
        Self { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect: taint.effect.clone() }
    }
}

impl From<&wire::Toleration> for Toleration {
    fn from(toleration: &wire::Toleration) -> Self {
        Self {
            key: toleration.key.clone().unwrap_or_default(),
            operator: toleration.operator.clone().unwrap_or_default(),
            value: toleration.value.clone().unwrap_or_default(),
            effect: toleration.effect.clone().unwrap_or_default(),
        }
    }
}

impl Toleration {
    /// An empty effect or key stands for any; an empty operator for `Equal`.
    fn tolerates(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator.as_str() {
                "" | "Equal" => self.value == taint.value,
                "Exists" => true,
                _ => false,
            }
    }
}

/// NodeUnschedulable: whether a pod may go to a node that is closed to new pods.
#[must_use]
pub fn tolerates_unschedulable(tolerations: &[Toleration]) -> bool {
    let flag = Taint { key: UNSCHEDULABLE.to_owned(), value: String::new(), effect: "NoSchedule".to_owned() };
    tolerations.iter().any(|toleration| toleration.tolerates(&flag))
}

/// TaintToleration's filter: whether no taint keeps the pod away.
#[must_use]
pub fn tolerated(taints: &[Taint], tolerations: &[Toleration]) -> bool {
    let repels = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints.iter().filter(repels).all(|taint| tolerations.iter().any(|toleration| toleration.tolerates(taint)))
}

/// TaintToleration's raw score: how many taints would rather not have the pod. Fewer is better.
#[must_use]
pub fn unwelcome(taints: &[Taint], tolerations: &[Toleration]) -> i64 {
    let applies = |toleration: &&Toleration| matches!(toleration.effect.as_str(), "" | "PreferNoSchedule");
    let count = taints
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule")
        .filter(|taint| !tolerations.iter().filter(applies).any(|toleration| toleration.tolerates(taint)))
        .count();
    i64::try_from(count).unwrap_or(i64::MAX)
}
