//! Bringing containers up: init containers in order, then the rest, with
//! restarts as the policy says.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as ContainerSpec, PodSpec};

use super::{Plan, PodMachine, View, removal};
use crate::backoff::{FORGIVEN_AFTER, crash_delay};
use crate::runtime::{Action, Container, ContainerState, Sandbox};
use crate::status::ended;

/// How long a fresh pull failure is shown as such before it is a back-off.
const FRESH_FAILURE: SignedDuration = SignedDuration::from_secs(2);

/// Init containers, then containers.
pub(super) fn all(spec: &PodSpec) -> impl Iterator<Item = &ContainerSpec> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn is_sidecar(spec: &ContainerSpec) -> bool {
    spec.restart_policy.as_deref() == Some("Always")
}

fn newest<'a>(view: &'a View<'_>, name: &str) -> Option<&'a Container> {
    view.history.get(name).and_then(|h| h.first())
}

fn in_sandbox(view: &View<'_>, container: &Container) -> bool {
    view.sandbox.is_some_and(|s| s.id == container.sandbox_id)
}

/// Whether an ended container is to be started again.
fn restarts(view: &View<'_>, spec: &ContainerSpec, container: &Container) -> bool {
    let init = view.spec.init_containers.iter().flatten().any(|c| c.name == spec.name);
    if init && is_sidecar(spec) {
        return true;
    }
    let policy = view.spec.restart_policy.as_deref().unwrap_or("Always");
    match policy {
        "Never" => false,
        _ if init => container.exit_code != 0,
        "OnFailure" => container.exit_code != 0,
        _ => true,
    }
}

/// Whether an init container failed and must not be tried again.
pub(super) fn init_failed(view: &View<'_>) -> bool {
    view.spec.restart_policy.as_deref() == Some("Never")
        && view
            .spec
            .init_containers
            .iter()
            .flatten()
            .any(|spec| !is_sidecar(spec) && newest(view, &spec.name).is_some_and(|c| ended(c) && c.exit_code != 0))
}

/// Whether the init containers are through, as far as the runtime shows.
pub(super) fn initialized(view: &View<'_>) -> bool {
    let has_begun = |c: &ContainerSpec| newest(view, &c.name).is_some_and(|c| !c.sandbox_id.is_empty());
    if view.spec.containers.iter().any(has_begun) {
        return true;
    }
    view.spec.init_containers.iter().flatten().all(|spec| {
        newest(view, &spec.name).is_some_and(|c| {
            let done = ended(c) && c.exit_code == 0;
            if is_sidecar(spec) { c.state == ContainerState::Running } else { done }
        })
    })
}

/// Whether every container has ended and none is to be started again.
pub(super) fn all_over(view: &View<'_>) -> bool {
    if init_failed(view) {
        return true;
    }
    !view.spec.containers.is_empty()
        && view
            .spec
            .containers
            .iter()
            .all(|spec| newest(view, &spec.name).is_some_and(|c| ended(c) && !restarts(view, spec, c)))
}

impl PodMachine {
    pub(super) fn plan_containers(&mut self, view: &View<'_>, sandbox: &Sandbox, plan: &mut Plan) {
        let mains = &view.spec.containers;
        let begun = mains.iter().filter_map(|c| newest(view, &c.name)).any(|c| in_sandbox(view, c));
        for spec in view.spec.init_containers.iter().flatten() {
            if is_sidecar(spec) {
                if !self.plan_container(view, sandbox, spec, plan) && !begun {
                    return;
                }
            } else if !begun && !self.plan_init(view, sandbox, spec, plan) {
                return;
            }
        }
        plan.initialized = true;
        for spec in mains {
            self.plan_container(view, sandbox, spec, plan);
        }
    }

    /// Returns whether the init container is through.
    fn plan_init(&mut self, view: &View<'_>, sandbox: &Sandbox, spec: &ContainerSpec, plan: &mut Plan) -> bool {
        let here = newest(view, &spec.name).filter(|c| in_sandbox(view, c));
        if here.is_some_and(|c| ended(c) && c.exit_code == 0) {
            return true;
        }
        self.plan_container(view, sandbox, spec, plan);
        false
    }

    /// Plans towards a running container. Returns whether it runs and has started.
    fn plan_container(&mut self, view: &View<'_>, sandbox: &Sandbox, spec: &ContainerSpec, plan: &mut Plan) -> bool {
        let Some(container) = newest(view, &spec.name) else {
            self.plan_launch(view, sandbox, spec, 0, plan);
            return false;
        };
        let next = container.attempt.saturating_add(1);
        if !in_sandbox(view, container) {
            // From an earlier sandbox: M1 asks that it has ended, which plan_sandbox saw to.
            let is_init = view.spec.init_containers.iter().flatten().any(|c| c.name == spec.name);
            if is_init || restarts(view, spec, container) {
                self.plan_launch(view, sandbox, spec, next, plan);
            }
            return false;
        }
        match container.state {
            ContainerState::Running => self.plan_running(view, spec, container, plan),
            ContainerState::Created => self.plan_start(view, spec, container, plan),
            ContainerState::Exited | ContainerState::Unknown => {
                if restarts(view, spec, container) && self.crash_wait_over(view, spec, container, plan) {
                    self.plan_launch(view, sandbox, spec, next, plan);
                }
            }
        }
        container.state == ContainerState::Running && self.is_started(spec, &container.id)
    }

    fn plan_running(&mut self, view: &View<'_>, spec: &ContainerSpec, container: &Container, plan: &mut Plan) {
        self.starts.remove(&spec.name);
        let wanted = spec.image.as_deref().unwrap_or_default();
        if container.image != wanted && !container.image.is_empty() {
            let why = format!("Container {} definition changed, will be restarted", spec.name);
            self.doomed.insert(container.id.clone(), why);
        }
        if let Some(why) = self.doomed.get(&container.id) {
            plan.actions.push(removal::stop(view, container, self.grace(view), why));
        }
    }

    fn plan_start(&mut self, view: &View<'_>, spec: &ContainerSpec, container: &Container, plan: &mut Plan) {
        if self.retry_waits(view.now, spec, plan) {
            return;
        }
        plan.actions.push(Action::StartContainer { container: spec.name.clone(), id: container.id.clone() });
    }

    /// Whether a failed creation or start is still waited out.
    fn retry_waits(&self, now: Timestamp, spec: &ContainerSpec, plan: &mut Plan) -> bool {
        let Some(retry) = self.starts.get(&spec.name) else {
            return false;
        };
        plan.wait(&spec.name, &retry.reason, &retry.message);
        match retry.waits_until(now) {
            Some(at) => {
                plan.wake_at(at);
                true
            }
            None => false,
        }
    }

    /// Image, then creation.
    fn plan_launch(&mut self, view: &View<'_>, sandbox: &Sandbox, spec: &ContainerSpec, attempt: u32, plan: &mut Plan) {
        if self.retry_waits(view.now, spec, plan) {
            return;
        }
        let wanted = spec.image.clone().unwrap_or_default();
        let image = self.images.entry(spec.name.clone()).or_default();
        if image.ready_for == Some(attempt) {
            plan.actions.push(Action::CreateContainer {
                container: spec.name.clone(),
                sandbox_id: sandbox.id.clone(),
                attempt,
            });
            return;
        }
        if let Some(at) = image.retry.waits_until(view.now) {
            let fresh_until = image.failed_at.and_then(|t| t.checked_add(FRESH_FAILURE).ok()).unwrap_or(at);
            let fresh = view.now < fresh_until;
            plan.wake_at(if fresh { fresh_until.min(at) } else { at });
            let pull_failed = image.retry.reason == "ErrImagePull";
            if pull_failed && !fresh {
                let message = format!("Back-off pulling image {wanted:?}: {}", image.retry.message);
                plan.wait(&spec.name, "ImagePullBackOff", &message);
            } else {
                plan.wait(&spec.name, &image.retry.reason, &image.retry.message);
            }
            return;
        }
        image.asked_for = attempt;
        plan.actions.push(Action::EnsureImage { container: spec.name.clone(), image: wanted });
    }

    /// Counts an exit once; says whether its waiting time is over.
    fn crash_wait_over(
        &mut self,
        view: &View<'_>,
        spec: &ContainerSpec,
        container: &Container,
        plan: &mut Plan,
    ) -> bool {
        let finished = container.finished_at.unwrap_or(container.created_at);
        let ran = container.started_at.map_or(SignedDuration::ZERO, |s| finished.duration_since(s));
        let known = self.crashes.contains_key(&spec.name);
        let crash = self.crashes.entry(spec.name.clone()).or_default();
        if crash.counted != container.id {
            crash.counted.clone_from(&container.id);
            // A restarted agent takes the restarts so far for failures in a row.
            let before = if known { crash.exits } else { container.attempt };
            crash.exits = if ran >= FORGIVEN_AFTER { 1 } else { before.saturating_add(1) };
        }
        let delay = crash_delay(crash.exits - 1);
        let due = finished.checked_add(delay).unwrap_or(Timestamp::MAX);
        if due <= view.now {
            return true;
        }
        let pod = view.pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = view.pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
        let message = format!(
            "back-off {} restarting failed container={} pod={pod}_{namespace}({uid})",
            go_duration(delay),
            spec.name
        );
        plan.wait(&spec.name, "CrashLoopBackOff", &message);
        plan.wake_at(due);
        false
    }
}

/// As Go prints it: `10s`, `2m40s`.
fn go_duration(delay: SignedDuration) -> String {
    let seconds = delay.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}
