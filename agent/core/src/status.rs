//! The pod status that is published, from what is known of the pod.
//!
//! Invariants
//!   S1  A condition's `lastTransitionTime` moves only when its status does.
//!   S2  Conditions that others own (readiness gates, the scheduler's) are kept.
//! Source: kubelet `kubelet_pods.go` `getPhase`, `status/generate.go`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as ContainerSpec, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::resources::qos_class;
use crate::runtime::{Container, ContainerState, Sandbox};

/// The newest version of a pod's object that its agent knows: the one at hand, or the one that it `wrote` last, which the
/// watch may not have shown yet. Versions are numbers, later ones larger. Source: KEP-5504.
pub fn newest_version(pod: &Pod, wrote: Option<&str>) -> Option<String> {
    let versions = [pod.metadata.resource_version.as_deref(), wrote];
    versions.into_iter().flatten().max_by_key(|version| version.parse::<u64>().unwrap_or(0)).map(str::to_owned)
}

/// A waiting state: its one word and its explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// One word, such as `CrashLoopBackOff`.
    pub reason: String,
    /// For a person; may be empty.
    pub message: String,
}

/// Why a pod was ended as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// One word, such as `DeadlineExceeded`.
    pub reason: String,
    /// For a person.
    pub message: String,
}

/// All that a status is made of.
#[derive(Debug)]
pub struct StatusInputs<'a> {
    /// The object.
    pub pod: &'a Pod,
    /// The time.
    pub now: Timestamp,
    /// Address of the node.
    pub host_ip: &'a str,
    /// When this node took the pod on.
    pub start_time: Timestamp,
    /// The sandbox in use.
    pub sandbox: Option<&'a Sandbox>,
    /// Containers by name, newest first.
    pub history: &'a BTreeMap<String, Vec<Container>>,
    /// Why containers that don't run don't.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// Running containers whose readiness probe (if any) succeeds.
    pub ready: &'a BTreeSet<String>,
    /// Running containers whose startup probe (if any) has succeeded.
    pub started: &'a BTreeSet<String>,
    /// Whether the init containers are through.
    pub initialized: bool,
    /// Whether an init container failed for good.
    pub init_failed: bool,
    /// Why the pod was ended as a whole, if it was.
    pub ended: Option<&'a Ended>,
}

/// The status to publish.
pub fn pod_status(inputs: &StatusInputs<'_>) -> PodStatus {
    let spec = inputs.pod.spec.as_ref();
    let statuses = |containers: &[ContainerSpec]| -> Vec<ContainerStatus> {
        containers.iter().map(|c| container_status(inputs, c)).collect()
    };
    let main = spec.map(|s| statuses(&s.containers)).unwrap_or_default();
    let init = spec.and_then(|s| s.init_containers.as_deref()).map(statuses);
    let phase = phase(inputs, spec, &main);
    let unready = main.iter().filter(|s| !s.ready).map(|s| s.name.clone()).collect();
    let conditions = conditions(
        inputs.pod,
        inputs.now,
        &ConditionInputs {
            sandbox_ready: inputs.sandbox.is_some_and(|s| s.ready),
            initialized: inputs.initialized,
            unready,
            succeeded: phase == "Succeeded",
            failed: phase == "Failed",
        },
    );
    let ips = pod_ips(inputs, spec);
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: inputs.ended.map(|e| e.reason.clone()),
        message: inputs.ended.map(|e| e.message.clone()),
        conditions: Some(conditions),
        host_ip: Some(inputs.host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: inputs.host_ip.to_owned() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(Time(inputs.start_time)),
        init_container_statuses: init.filter(|s| !s.is_empty()),
        container_statuses: Some(main),
        qos_class: spec.map(|s| qos_class(s).to_owned()),
        ..PodStatus::default()
    }
}

fn pod_ips(inputs: &StatusInputs<'_>, spec: Option<&PodSpec>) -> Vec<String> {
    let Some(sandbox) = inputs.sandbox else {
        return Vec::new();
    };
    if spec.and_then(|s| s.host_network).unwrap_or(false) {
        return vec![inputs.host_ip.to_owned()];
    }
    sandbox.ips.clone()
}

fn phase(inputs: &StatusInputs<'_>, spec: Option<&PodSpec>, main: &[ContainerStatus]) -> &'static str {
    if inputs.ended.is_some() || inputs.init_failed {
        return "Failed";
    }
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in main {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        match (state.running, state.terminated.as_ref(), last) {
            (Some(_), _, _) => running += 1,
            (_, Some(end), _) => {
                stopped += 1;
                succeeded += usize::from(end.exit_code == 0);
            }
            (_, _, Some(_)) => stopped += 1,
            _ => waiting += 1,
        }
    }
    let policy = spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    if waiting > 0 || (!inputs.initialized && running + stopped == 0) {
        return "Pending";
    }
    if running > 0 || stopped == 0 || policy == "Always" {
        return "Running";
    }
    match policy {
        _ if succeeded == stopped => "Succeeded",
        "Never" => "Failed",
        _ => "Running",
    }
}

fn container_status(inputs: &StatusInputs<'_>, spec: &ContainerSpec) -> ContainerStatus {
    let none = Vec::new();
    let history = inputs.history.get(&spec.name).unwrap_or(&none);
    let newest = history.first();
    let waiting = inputs.waiting.get(&spec.name);
    let mut last_state = history.get(1).filter(|c| ended(c)).map(terminated);
    let state = match (newest, waiting) {
        (Some(c), _) if c.state == ContainerState::Running => ApiState {
            running: Some(ContainerStateRunning { started_at: c.started_at.map(Time) }),
            ..ApiState::default()
        },
        (Some(c), Some(why)) if ended(c) => {
            last_state = Some(terminated(c));
            waiting_state(&why.reason, &why.message)
        }
        (Some(c), None) if ended(c) => terminated(c),
        (_, Some(why)) => waiting_state(&why.reason, &why.message),
        _ => waiting_state(default_reason(inputs, spec), ""),
    };
    let is_init =
        inputs.pod.spec.as_ref().is_some_and(|s| {
            s.init_containers.iter().flatten().any(|c| c.name == spec.name && c.restart_policy.is_none())
        });
    let init_done = is_init && state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        image_id: newest.map(|c| c.image_ref.clone()).unwrap_or_default(),
        container_id: newest.filter(|c| !c.id.is_empty()).map(|c| format!("containerd://{}", c.id)),
        restart_count: newest.map_or(0, |c| i32::try_from(c.attempt).unwrap_or(i32::MAX)),
        ready: inputs.ready.contains(&spec.name) || init_done,
        started: Some(inputs.started.contains(&spec.name)),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn default_reason(inputs: &StatusInputs<'_>, spec: &ContainerSpec) -> &'static str {
    let is_main = inputs.pod.spec.as_ref().is_some_and(|s| s.containers.iter().any(|c| c.name == spec.name));
    let has_init = inputs.pod.spec.as_ref().is_some_and(|s| s.init_containers.as_ref().is_some_and(|i| !i.is_empty()));
    if has_init && (!is_main || !inputs.initialized) { "PodInitializing" } else { "ContainerCreating" }
}

/// Whether the container's process is over.
pub(crate) fn ended(container: &Container) -> bool {
    matches!(container.state, ContainerState::Exited | ContainerState::Unknown)
}

fn waiting_state(reason: &str, message: &str) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ApiState::default()
    }
}

fn terminated(container: &Container) -> ApiState {
    let default_reason = if container.exit_code == 0 { "Completed" } else { "Error" };
    let reason = if container.reason.is_empty() { default_reason } else { &container.reason };
    ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: (!container.id.is_empty()).then(|| format!("containerd://{}", container.id)),
            exit_code: container.exit_code,
            reason: Some(reason.to_owned()),
            message: (!container.message.is_empty()).then(|| container.message.clone()),
            started_at: container.started_at.map(Time),
            finished_at: container.finished_at.map(Time),
            signal: None,
        }),
        ..ApiState::default()
    }
}

/// What the conditions are made of.
#[derive(Debug)]
pub struct ConditionInputs {
    /// Whether the sandbox stands.
    pub sandbox_ready: bool,
    /// Whether the init containers are through.
    pub initialized: bool,
    /// Names of containers that are not ready.
    pub unready: Vec<String>,
    /// Whether the pod ended well.
    pub succeeded: bool,
    /// Whether the pod ended badly.
    pub failed: bool,
}

/// The pod's conditions; S1, S2.
pub fn conditions(pod: &Pod, now: Timestamp, inputs: &ConditionInputs) -> Vec<PodCondition> {
    let old: &[PodCondition] = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or(&[]);
    let mut out = Vec::new();
    let mut put = |kind: &str, ok: bool, reason: Option<&str>, message: Option<String>| {
        out.push(condition(pod, old, now, kind, ok, reason, message));
    };
    put("PodReadyToStartContainers", inputs.sandbox_ready, None, None);
    let initialized = inputs.initialized || inputs.succeeded;
    let completed = inputs.succeeded.then_some("PodCompleted");
    put(
        "Initialized",
        initialized,
        completed.or((!initialized).then_some("ContainersNotInitialized")),
        (!initialized).then(|| "containers with incomplete status".to_owned()),
    );
    let over = completed.or(inputs.failed.then_some("PodFailed"));
    let containers_ready = inputs.unready.is_empty() && over.is_none();
    let message = (!containers_ready && over.is_none())
        .then(|| format!("containers with unready status: [{}]", inputs.unready.join(" ")));
    let reason = over.or((!containers_ready).then_some("ContainersNotReady"));
    let gate = missing_gate(pod, old);
    let ready = containers_ready && gate.is_none();
    if containers_ready && !ready {
        put("Ready", false, Some("ReadinessGatesNotReady"), gate);
    } else {
        put("Ready", ready, reason, message.clone());
    }
    put("ContainersReady", containers_ready, reason, message);
    put("PodScheduled", true, None, None);
    let ours: BTreeSet<String> = out.iter().map(|c| c.type_.clone()).collect();
    out.extend(old.iter().filter(|c| !ours.contains(&c.type_)).cloned());
    out
}

/// The first readiness gate that isn't true, as a message.
fn missing_gate(pod: &Pod, old: &[PodCondition]) -> Option<String> {
    let gates = pod.spec.as_ref()?.readiness_gates.as_ref()?;
    let is_true = |kind: &str| old.iter().any(|c| c.type_ == kind && c.status == "True");
    let gate = gates.iter().find(|g| !is_true(&g.condition_type))?;
    Some(format!("the status of pod readiness gate {:?} is not \"True\"", gate.condition_type))
}

fn condition(
    pod: &Pod,
    old: &[PodCondition],
    now: Timestamp,
    kind: &str,
    ok: bool,
    reason: Option<&str>,
    message: Option<String>,
) -> PodCondition {
    let status = if ok { "True" } else { "False" };
    let since = old.iter().find(|c| c.type_ == kind && c.status == status).and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: Some(since.unwrap_or(Time(now))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_the_largest_number() {
        let of = |version: &str, wrote: Option<&str>| {
            let mut pod = Pod::default();
            pod.metadata.resource_version = Some(version.to_owned());
            newest_version(&pod, wrote)
        };
        assert_eq!(of("9", Some("10")).as_deref(), Some("10"), "the watch is behind");
        assert_eq!(of("11", Some("10")).as_deref(), Some("11"), "others wrote since");
        assert_eq!(of("11", None).as_deref(), Some("11"));
        assert_eq!(newest_version(&Pod::default(), None), None);
    }
}
