//! Pods of simulated nodes: no runtime, only the API's view of a pod's life.
//!
//! `Pending` becomes `Running` at once; a pod annotated
//! [`COMPLETE_AFTER`] becomes `Succeeded` that long after it started; a pod that
//! is being deleted goes. Everything is derived from the object, so a restarted
//! agent goes on where the last one stopped.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, HostIP, Pod, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::status::{ConditionInputs, conditions};

/// Annotation: seconds after which a hollow pod's containers succeed.
pub const COMPLETE_AFTER: &str = "hollow.keelson.io/complete-after-seconds";

/// What to do about a pod now.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Publish this status.
    Publish(Box<PodStatus>),
    /// Delete the object with no grace.
    Delete,
    /// Look again at this moment.
    WaitUntil(Timestamp),
    /// Nothing more to do.
    Rest,
}

/// What to do about `pod` at `now`; its address, if it needs one, is `ip`.
pub fn step(pod: &Pod, now: Timestamp, host_ip: &str, ip: &str) -> Step {
    if pod.metadata.deletion_timestamp.is_some() {
        return Step::Delete;
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    match phase {
        Some("Succeeded" | "Failed") => Step::Rest,
        Some("Running") => running(pod, now),
        _ => Step::Publish(Box::new(status(pod, now, now, host_ip, ip, false))),
    }
}

fn running(pod: &Pod, now: Timestamp) -> Step {
    let after = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(COMPLETE_AFTER))
        .and_then(|s| s.parse::<f64>().ok())
        .filter(|s| s.is_finite() && *s >= 0.0);
    let (Some(after), Some(old)) = (after, pod.status.as_ref()) else {
        return Step::Rest;
    };
    let started = old.start_time.as_ref().map_or(now, |t| t.0);
    let wait = SignedDuration::try_from_secs_f64(after).unwrap_or(SignedDuration::MAX);
    match started.checked_add(wait) {
        Ok(due) if due <= now => {
            let host_ip = old.host_ip.clone().unwrap_or_default();
            let ip = old.pod_ip.clone().unwrap_or_default();
            Step::Publish(Box::new(status(pod, started, now, &host_ip, &ip, true)))
        }
        Ok(due) => Step::WaitUntil(due),
        Err(_) => Step::Rest,
    }
}

fn status(pod: &Pod, started: Timestamp, now: Timestamp, host_ip: &str, ip: &str, done: bool) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let statuses = |containers: &[k8s_openapi::api::core::v1::Container], done: bool| {
        let one = |c: &k8s_openapi::api::core::v1::Container| container_status(c, pod, started, now, done);
        containers.iter().map(one).collect::<Vec<_>>()
    };
    PodStatus {
        phase: Some(if done { "Succeeded" } else { "Running" }.to_owned()),
        conditions: Some(conditions(
            pod,
            now,
            &ConditionInputs {
                sandbox_ready: !done,
                initialized: true,
                unready: Vec::new(),
                succeeded: done,
                failed: false,
            },
        )),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_owned() }]),
        pod_ip: Some(ip.to_owned()),
        pod_ips: Some(vec![PodIP { ip: ip.to_owned() }]),
        start_time: Some(Time(started)),
        init_container_statuses: spec.init_containers.map(|c| statuses(&c, true)),
        container_statuses: Some(statuses(&spec.containers, done)),
        qos_class: pod.spec.as_ref().map(|s| crate::resources::qos_class(s).to_owned()),
        ..PodStatus::default()
    }
}

fn container_status(
    container: &k8s_openapi::api::core::v1::Container,
    pod: &Pod,
    started: Timestamp,
    now: Timestamp,
    done: bool,
) -> ContainerStatus {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let id = format!("hollow://{uid}/{}", container.name);
    let state = if done {
        ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(id.clone()),
                exit_code: 0,
                reason: Some("Completed".to_owned()),
                started_at: Some(Time(started)),
                finished_at: Some(Time(now)),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        }
    } else {
        ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(started)) }),
            ..ContainerState::default()
        }
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        container_id: Some(id),
        ready: !done,
        started: Some(!done),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_pod_runs_completes_and_goes() {
        let mut pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "uid": "u", "annotations": {COMPLETE_AFTER: "2.5"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }))
        .expect("a pod");
        let Step::Publish(status) = step(&pod, at(10), "1.2.3.4", "10.0.0.1") else {
            panic!("not published");
        };
        assert_eq!(status.phase.as_deref(), Some("Running"));
        pod.status = Some(*status);
        assert_eq!(
            step(&pod, at(11), "", ""),
            Step::WaitUntil(at(12).checked_add(SignedDuration::from_millis(500)).expect("ok"))
        );
        let Step::Publish(status) = step(&pod, at(13), "", "") else {
            panic!("not published");
        };
        assert_eq!(status.phase.as_deref(), Some("Succeeded"));
        assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
        pod.status = Some(*status);
        assert_eq!(step(&pod, at(14), "", ""), Step::Rest);
        pod.metadata.deletion_timestamp = Some(Time(at(15)));
        assert_eq!(step(&pod, at(15), "", ""), Step::Delete);
    }
}
