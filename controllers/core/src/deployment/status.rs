//! A Deployment's status: counts, and the conditions Available and Progressing.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use serde_json::{Value, json};

use super::{Observed, available, bounds, replicas};
use crate::write::{Write, json};

fn count(sets: &[Arc<ReplicaSet>], field: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().map(|set| field(set)).sum()
}

fn made(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |s| s.replicas)
}

fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
}

/// The status write, if the status changed.
pub(super) fn write(observed: &Observed, sets: &[Arc<ReplicaSet>], new: Option<&Arc<ReplicaSet>>) -> Option<Write> {
    let deployment = &observed.deployment;
    let old = json(&deployment.status.clone().unwrap_or_default());
    let (total, up, avail) = (count(sets, made), count(sets, ready), count(sets, available));
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let mut status = json!({"observedGeneration": deployment.metadata.generation});
    let updated = new.map_or(0, |set| made(set));
    let unavailable = (count(sets, replicas) - avail).max(0).max(wanted - avail);
    for (field, value) in [
        ("replicas", total),
        ("updatedReplicas", updated),
        ("readyReplicas", up),
        ("availableReplicas", avail),
        ("unavailableReplicas", unavailable),
    ] {
        if value > 0 {
            status[field] = value.into();
        }
    }
    if let Some(collisions) = old.get("collisionCount") {
        status["collisionCount"] = collisions.clone();
    }
    let complete = updated == wanted && total == wanted && avail == wanted;
    let moved = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
        .iter()
        .any(|f| old.get(f) != status.get(f));
    let conditions = [available_condition(observed, avail, wanted), progressing(observed, new, complete, moved)];
    let list: Vec<Value> = conditions.into_iter().flatten().map(|c| json(&c)).collect();
    if !list.is_empty() {
        status["conditions"] = list.into();
    }
    if status == old {
        return None;
    }
    let mut changed = json(&**deployment);
    changed["status"] = status;
    Some(Write::UpdateStatus(changed))
}

fn existing<'a>(deployment: &'a Deployment, ty: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == ty)
}

/// A condition; its times move only when its content does.
fn condition(
    observed: &Observed,
    ty: &str,
    status: &str,
    reason: &str,
    message: String,
    touched: bool,
) -> DeploymentCondition {
    let now = observed.now.parse().ok().map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
    let before = existing(&observed.deployment, ty);
    let same = before.is_some_and(|c| c.status == status && c.reason.as_deref() == Some(reason));
    let same_status = before.is_some_and(|c| c.status == status);
    DeploymentCondition {
        type_: ty.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: if same && !touched { before.and_then(|c| c.last_update_time.clone()) } else { now.clone() },
        last_transition_time: if same_status { before.and_then(|c| c.last_transition_time.clone()) } else { now },
    }
}

fn available_condition(observed: &Observed, avail: i32, wanted: i32) -> Option<DeploymentCondition> {
    let (_, unavailable) = bounds(&observed.deployment);
    Some(if avail >= wanted - unavailable {
        condition(
            observed,
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".to_owned(),
            false,
        )
    } else {
        condition(
            observed,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".to_owned(),
            false,
        )
    })
}

fn deadline(deployment: &Deployment) -> i64 {
    i64::from(deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).unwrap_or(600))
}

fn progressing(
    observed: &Observed,
    new: Option<&Arc<ReplicaSet>>,
    complete: bool,
    moved: bool,
) -> Option<DeploymentCondition> {
    let deployment = &observed.deployment;
    let name = deployment.metadata.name.as_deref().unwrap_or("");
    let paused = deployment.spec.as_ref().is_some_and(|s| s.paused == Some(true));
    let before = existing(deployment, "Progressing");
    if paused {
        return Some(condition(
            observed,
            "Progressing",
            "Unknown",
            "DeploymentPaused",
            "Deployment is paused".to_owned(),
            false,
        ));
    }
    let Some(set) = new else {
        let message = format!("Created new replica set for deployment {name:?}");
        return Some(condition(observed, "Progressing", "True", "NewReplicaSetCreated", message, false));
    };
    let set_name = set.metadata.name.as_deref().unwrap_or("");
    if complete {
        let message = format!("ReplicaSet {set_name:?} has successfully progressed.");
        return Some(condition(observed, "Progressing", "True", "NewReplicaSetAvailable", message, false));
    }
    // A rollout that was complete and lost a pod isn't a new rollout.
    if before.is_some_and(|c| {
        c.reason.as_deref() == Some("NewReplicaSetAvailable")
            && c.message.as_deref().is_some_and(|m| m.contains(set_name))
    }) {
        return before.cloned();
    }
    if !moved && deadline_left(observed).is_some_and(|left| left <= 0) {
        let message = format!("ReplicaSet {set_name:?} has timed out progressing.");
        return Some(condition(observed, "Progressing", "False", "ProgressDeadlineExceeded", message, false));
    }
    if !moved && before.is_some_and(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded")) {
        return before.cloned();
    }
    let message = format!("ReplicaSet {set_name:?} is progressing.");
    Some(condition(observed, "Progressing", "True", "ReplicaSetUpdated", message, moved))
}

/// Seconds until the rollout counts as stuck; `None` if nothing is being rolled out.
pub(super) fn deadline_left(observed: &Observed) -> Option<i64> {
    let condition = existing(&observed.deployment, "Progressing")?;
    if condition.status != "True" || condition.reason.as_deref() == Some("NewReplicaSetAvailable") {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0.as_second();
    Some(since + deadline(&observed.deployment) - observed.unix)
}
