//! What is known of a pod's containers: the runtime's records, and the API's where the runtime has lost them.
//!
//! A pod whose containers were removed behind the agent's back must not run again if its policy says so:
//! what was last published stands in for them, as ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::runtime::{Container, ContainerState, ObservedPod};

/// Containers by name, newest first; those the runtime lost are filled in from
/// what was last published, so that a pod that must not restart doesn't.
pub(super) fn of(pod: &Pod, observed: &ObservedPod) -> BTreeMap<String, Vec<Container>> {
    let mut map: BTreeMap<String, Vec<Container>> = observed
        .by_name()
        .into_iter()
        .map(|(name, list)| (name.to_owned(), list.into_iter().cloned().collect()))
        .collect();
    let status = pod.status.as_ref();
    let main = status.and_then(|s| s.container_statuses.as_ref());
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    for status in main.into_iter().chain(init).flatten() {
        if !map.contains_key(&status.name)
            && let Some(container) = published(status)
        {
            map.insert(status.name.clone(), vec![container]);
        }
    }
    map
}

fn published(status: &ContainerStatus) -> Option<Container> {
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.clone().unwrap_or_default();
    let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map_or("", |(_, id)| id);
    let mut container = Container {
        id: id.to_owned(),
        sandbox_id: String::new(),
        name: status.name.clone(),
        attempt: u32::try_from(status.restart_count).unwrap_or(0),
        state: ContainerState::Exited,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
        exit_code: 137,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container could not be located".to_owned(),
        image: status.image.clone(),
        image_ref: status.image_id.clone(),
    };
    match (state.terminated.or(last.terminated), state.running) {
        (Some(end), None) => {
            container.exit_code = end.exit_code;
            container.reason = end.reason.unwrap_or_default();
            container.message = end.message.unwrap_or_default();
            container.started_at = end.started_at.map(|t| t.0);
            container.finished_at = end.finished_at.map(|t| t.0);
        }
        (_, Some(running)) => container.started_at = running.started_at.map(|t| t.0),
        (None, None) => return None,
    }
    Some(container)
}
