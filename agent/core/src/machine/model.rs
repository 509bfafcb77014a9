//! A modelled node: a runtime that does what it is told, and an agent that may forget everything between any two calls.

use super::*;
use serde_json::json;

/// What a runtime may get wrong, or an agent that asks it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bug {
    /// Containers that aren't started yet aren't listed.
    HidesCreated,
    /// Sandboxes aren't listed.
    HidesSandboxes,
    /// A sandbox that is removed stays.
    KeepsSandboxes,
}

/// The node, with one pod on it.
pub(super) struct Node {
    pub(super) bug: Option<Bug>,
    pub(super) pod: Pod,
    pub(super) observed: ObservedPod,
    pub(super) machine: PodMachine,
    pub(super) now: Timestamp,
    pub(super) object_deleted: bool,
    made: u32,
}

impl Node {
    pub(super) fn new(restart_policy: &str) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"}, "spec": {"nodeName": "n",
            "restartPolicy": restart_policy, "terminationGracePeriodSeconds": 5,
            "initContainers": [{"name": "init", "image": "i:1", "imagePullPolicy": "IfNotPresent"}],
            "containers": [{"name": "a", "image": "i:1", "imagePullPolicy": "IfNotPresent"},
                {"name": "b", "image": "i:1", "imagePullPolicy": "IfNotPresent"}]}});
        Self {
            bug: None,
            pod: serde_json::from_value(pod).expect("a Pod"),
            observed: ObservedPod::default(),
            machine: PodMachine::new("10.0.0.1"),
            now: "2026-01-01T00:00:00Z".parse().expect("a time"),
            object_deleted: false,
            made: 0,
        }
    }

    /// The agent is killed and started again: it remembers nothing.
    pub(super) fn crash(&mut self) {
        self.machine = PodMachine::new("10.0.0.1");
    }

    /// What the runtime says when it is asked.
    fn listed(&self) -> ObservedPod {
        let mut listed = self.observed.clone();
        match self.bug {
            Some(Bug::HidesCreated) => listed.containers.retain(|c| c.state != ContainerState::Created),
            Some(Bug::HidesSandboxes) => listed.sandboxes.clear(),
            Some(Bug::KeepsSandboxes) | None => {}
        }
        listed
    }

    /// One step of the agent; `crash_after` calls it is killed, before it learns their outcome.
    pub(super) fn step(&mut self, crash_after: Option<usize>) -> Step {
        self.now = self.now.checked_add(SignedDuration::from_secs(1)).expect("a time");
        let step = self.machine.step(self.now, &self.pod, false, &self.listed());
        for (count, action) in step.actions.iter().enumerate() {
            if crash_after == Some(count) {
                self.crash();
                return step;
            }
            let outcome = self.carry_out(action);
            let (now, pod) = (self.now, self.pod.clone());
            self.machine.handle_outcome(now, &pod, action, &outcome);
        }
        if let Some(status) = &step.status {
            self.pod.status = Some(status.clone());
        }
        step
    }

    fn next(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}{}", self.made)
    }

    fn container(&mut self, id: &str) -> &mut Container {
        self.observed.containers.iter_mut().find(|c| c.id == id).expect("a call names a container that is there")
    }

    fn carry_out(&mut self, action: &Action) -> Outcome {
        let now = self.now;
        match action {
            Action::RunSandbox { attempt } => {
                assert!(!self.observed.sandboxes.iter().any(|s| s.ready), "M2: a second sandbox");
                let id = self.next("s");
                let ips = vec!["10.244.0.2".to_owned()];
                self.observed.sandboxes.push(Sandbox { id, attempt: *attempt, ready: true, created_at: now, ips });
            }
            Action::CreateContainer { container, sandbox_id, attempt } => {
                let alive = |c: &Container| matches!(c.state, ContainerState::Created | ContainerState::Running);
                assert!(
                    !self.observed.containers.iter().any(|c| c.name == *container && alive(c)),
                    "M1: a second {container}"
                );
                let id = self.next("c");
                self.observed.containers.push(Container {
                    id,
                    sandbox_id: sandbox_id.clone(),
                    name: container.clone(),
                    attempt: *attempt,
                    state: ContainerState::Created,
                    created_at: now,
                    started_at: None,
                    finished_at: None,
                    exit_code: 0,
                    reason: String::new(),
                    message: String::new(),
                    image: "i:1".into(),
                    image_ref: "i@sha256:0".into(),
                });
            }
            Action::StartContainer { container, id } => {
                let init = container == "init";
                let started = self.container(id);
                started.state = ContainerState::Running;
                started.started_at = Some(now);
                if init {
                    self.exit(id, 0);
                }
            }
            Action::StopContainer { id, .. } => {
                let id = id.clone();
                self.exit(&id, 137);
            }
            Action::RemoveContainer { id, .. } => self.observed.containers.retain(|c| c.id != *id),
            Action::StopSandbox { id } => {
                for sandbox in self.observed.sandboxes.iter_mut().filter(|s| s.id == *id) {
                    sandbox.ready = false;
                }
            }
            Action::RemoveSandbox { .. } if self.bug == Some(Bug::KeepsSandboxes) => {}
            Action::RemoveSandbox { id } => self.observed.sandboxes.retain(|s| s.id != *id),
            Action::DeleteObject => {
                assert!(self.observed.is_empty(), "M4: the object goes before its containers");
                self.object_deleted = true;
            }
            Action::PrepareVolumes | Action::EnsureImage { .. } | Action::Probe { .. } | Action::CleanUp => {}
        }
        Outcome::Done
    }

    /// A container's process ends.
    pub(super) fn exit(&mut self, id: &str, code: i32) {
        let now = self.now;
        let container = self.container(id);
        if container.state == ContainerState::Running {
            container.state = ContainerState::Exited;
            container.finished_at = Some(now);
            container.exit_code = code;
            container.reason = if code == 0 { "Completed" } else { "Error" }.into();
        }
    }

    pub(super) fn running(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .observed
            .containers
            .iter()
            .filter(|c| c.state == ContainerState::Running)
            .map(|c| c.name.as_str())
            .collect();
        names.sort_unstable();
        names
    }

    pub(super) fn phase(&self) -> &str {
        self.pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
    }
}
