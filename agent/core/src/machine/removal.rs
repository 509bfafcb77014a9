//! The end of a pod: stopping, removing, and what is tidied on the way.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::{Plan, PodMachine, View, containers};
use crate::runtime::{Action, Container, ContainerState};

/// Grace of a pod that says nothing.
const DEFAULT_GRACE_SECONDS: i64 = 30;

impl PodMachine {
    /// Seconds a container of this pod has to end by itself, from now.
    pub(super) fn grace(&self, view: &View<'_>) -> i64 {
        let meta = &view.pod.metadata;
        let spec = view.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
        let Some(at) = &meta.deletion_timestamp else {
            return spec.max(1);
        };
        // deletionTimestamp is when the grace ends; never more than what was given.
        let given = meta.deletion_grace_period_seconds.unwrap_or(spec);
        let left = at.0.duration_since(view.now).as_secs();
        left.clamp(1, given.max(1))
    }

    pub(super) fn plan_remove(&mut self, view: &View<'_>, removed: bool, plan: &mut Plan) {
        plan.initialized = containers::initialized(view);
        if self.cleaned && view.observed.is_empty() {
            if removed || self.deleted {
                plan.gone = true;
            } else if !self.in_backoff(view.now, plan) {
                plan.actions.push(Action::DeleteObject);
            }
            return;
        }
        if plan_stop_all(view, self.grace(view), "Stopping container", plan) || self.in_backoff(view.now, plan) {
            return;
        }
        if view.observed.is_empty() {
            plan.actions.push(Action::CleanUp);
            return;
        }
        for sandbox in &view.observed.sandboxes {
            let id = sandbox.id.clone();
            plan.actions.push(if sandbox.ready || !self.stopped_sandboxes.contains(&id) {
                Action::StopSandbox { id }
            } else {
                Action::RemoveSandbox { id }
            });
        }
        if view.observed.sandboxes.is_empty() {
            plan.actions.extend(view.observed.containers.iter().map(remove));
        }
    }

    fn in_backoff(&self, now: Timestamp, plan: &mut Plan) -> bool {
        // A stuck teardown is tried again soon: the pod's name is waited for.
        let Some(at) = self.sandbox.waits_until(now) else {
            return false;
        };
        let soon = now.checked_add(SignedDuration::from_secs(1)).unwrap_or(at);
        plan.wake_at(at.min(soon));
        self.sandbox.failures() > 3
    }
}

/// Plans to stop what runs, containers before sidecars, sidecars from the last
/// to the first. Returns whether anything still runs.
pub(super) fn plan_stop_all(view: &View<'_>, grace: i64, why: &str, plan: &mut Plan) -> bool {
    let running = |c: &&Container| c.state == ContainerState::Running;
    let inits: Vec<&str> = view.spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let is_init = |c: &Container| inits.contains(&c.name.as_str());
    let all: Vec<&Container> = view.observed.containers.iter().filter(running).collect();
    let mut now: Vec<&Container> = all.iter().copied().filter(|c| !is_init(c)).collect();
    if now.is_empty() {
        let position = |c: &Container| inits.iter().position(|n| *n == c.name);
        now.extend(all.iter().copied().max_by_key(|c| position(c)));
    }
    for container in now {
        plan.actions.push(stop(view, container, grace, &format!("{why} {}", container.name)));
    }
    !all.is_empty()
}

/// The stop of `container`.
pub(super) fn stop(_: &View<'_>, container: &Container, grace_seconds: i64, why: &str) -> Action {
    Action::StopContainer {
        container: container.name.clone(),
        id: container.id.clone(),
        grace_seconds,
        why: why.to_owned(),
    }
}

fn remove(container: &Container) -> Action {
    Action::RemoveContainer { container: container.name.clone(), id: container.id.clone() }
}

/// Removes ended containers beyond the newest and the one before it, whose logs
/// and last state are still asked for; stops a second running one (M1 broken by
/// another agent on the same runtime).
pub(super) fn plan_tidy(view: &View<'_>, plan: &mut Plan) {
    for list in view.history.values() {
        for (index, container) in list.iter().enumerate().skip(1) {
            match container.state {
                ContainerState::Running => {
                    plan.actions.push(stop(view, container, 2, "Stopping a duplicate container"));
                }
                _ if index >= 2 => plan.actions.push(remove(container)),
                _ => {}
            }
        }
    }
}

/// A pod object for what the runtime has of a pod the API no longer has.
pub fn skeleton(namespace: &str, name: &str, uid: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = Some(namespace.to_owned());
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.uid = Some(uid.to_owned());
    pod
}
