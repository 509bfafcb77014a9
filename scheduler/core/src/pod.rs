//! Pods as the scheduler sees them: what counts of one that has a node, and of one that needs a node.

use k8s_openapi::api::core::v1::{Pod as Wire, PodSpec, Volume};

use crate::affinity::{Preferred, Required, TermError};
use crate::images;
use crate::labels::{Labels, SelectorError};
use crate::ports::{HostPort, host_ports};
use crate::resources::{Requests, ResourceError};
use crate::spread::Constraint;
use crate::taints::Toleration;

/// What a pod is to others, once it has a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which pod it is.
    pub uid: String,
    /// Where its labels count.
    pub namespace: String,
    /// What selectors look at.
    pub labels: Labels,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Higher goes first.
    pub priority: i32,
    /// What it takes of its node.
    pub requests: Requests,
    /// Host ports it takes.
    pub ports: Vec<HostPort>,
}

/// What a pod that needs a node wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// What it will be once placed.
    pub pod: Placed,
    /// The one node it asks for.
    pub node_name: Option<String>,
    /// Taints it puts up with.
    pub tolerations: Vec<Toleration>,
    /// Where it may go.
    pub required: Required,
    /// Where it would rather go.
    pub preferred: Preferred,
    /// How it is to be spread, in its own words.
    pub spread: Vec<Constraint>,
    /// Its images.
    pub images: Vec<String>,
    /// A node to try first.
    pub nominated: Option<String>,
    /// Whether others may be evicted for it.
    pub preempts: bool,
}

/// Why a pod can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// It has no uid: it was never stored.
    #[error("a pod without a uid")]
    Unstored,
    /// It has no spec.
    #[error("a pod without a spec")]
    NoSpec,
    /// What it asks for.
    #[error("{0}")]
    Resources(#[from] ResourceError),
    /// A preference.
    #[error("preferred node affinity: {0}")]
    Preferred(#[from] TermError),
    /// A spread constraint's selector.
    #[error("topology spread constraint: {0}")]
    Spread(#[from] SelectorError),
}

/// Why a pod isn't scheduled whatever nodes there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It waits for somebody to take these gates away.
    Gated(Vec<String>),
    /// It asks for something that this scheduler doesn't do.
    Unsupported(&'static str),
    /// It can't be read.
    Unreadable(PodError),
}

impl From<PodError> for Refusal {
    fn from(error: PodError) -> Self {
        Self::Unreadable(error)
    }
}

impl Placed {
    /// Reads what a pod is to others.
    ///
    /// # Errors
    /// [`PodError`] for what can't be read.
    pub fn read(wire: &Wire) -> Result<Self, PodError> {
        let spec = wire.spec.as_ref().ok_or(PodError::NoSpec)?;
        Ok(Self {
            uid: wire.metadata.uid.clone().filter(|uid| !uid.is_empty()).ok_or(PodError::Unstored)?,
            namespace: wire.metadata.namespace.clone().unwrap_or_default(),
            labels: wire.metadata.labels.clone().unwrap_or_default(),
            terminating: wire.metadata.deletion_timestamp.is_some(),
            priority: spec.priority.unwrap_or(0),
            requests: Requests::read(spec)?,
            ports: host_ports(spec),
        })
    }
}

impl Incoming {
    /// Reads what a pod wants.
    ///
    /// # Errors
    /// [`Refusal`] if it isn't to be scheduled at all.
    pub fn read(wire: &Wire) -> Result<Self, Refusal> {
        let spec = wire.spec.as_ref().ok_or(PodError::NoSpec)?;
        let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
        if !gates.is_empty() {
            return Err(Refusal::Gated(gates.iter().map(|gate| gate.name.clone()).collect()));
        }
        if let Some(what) = unsupported(spec) {
            return Err(Refusal::Unsupported(what));
        }
        let pod = Placed::read(wire)?;
        let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
        let spread: Result<Vec<_>, _> = constraints.iter().map(|c| Constraint::read(c, &pod.labels)).collect();
        let nominated = wire.status.as_ref().and_then(|s| s.nominated_node_name.clone());
        Ok(Self {
            spread: spread.map_err(PodError::from)?,
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            tolerations: spec.tolerations.iter().flatten().map(Toleration::from).collect(),
            required: Required::read(spec),
            preferred: Preferred::read(spec).map_err(PodError::from)?,
            images: images::names(spec),
            nominated: nominated.filter(|name| !name.is_empty()),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            pod,
        })
    }
}

fn unsupported(spec: &PodSpec) -> Option<&'static str> {
    let affinity = spec.affinity.as_ref();
    let toward = affinity.and_then(|a| a.pod_affinity.as_ref());
    let away = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let some = |terms: Option<usize>| terms.is_some_and(|n| n > 0);
    let required_toward = |a: &k8s_openapi::api::core::v1::PodAffinity| {
        a.required_during_scheduling_ignored_during_execution.as_ref().map(Vec::len)
    };
    let required_away = |a: &k8s_openapi::api::core::v1::PodAntiAffinity| {
        a.required_during_scheduling_ignored_during_execution.as_ref().map(Vec::len)
    };
    let claims = |volume: &Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
    if some(toward.and_then(required_toward)) {
        Some("required pod affinity is not supported yet")
    } else if some(away.and_then(required_away)) {
        Some("required pod anti-affinity is not supported yet")
    } else if spec.volumes.iter().flatten().any(claims) {
        Some("volumes that claim storage are not supported yet")
    } else if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        Some("resource claims are not supported yet")
    } else if spec.scheduling_group.is_some() {
        Some("scheduling groups are not supported yet")
    } else {
        None
    }
}
