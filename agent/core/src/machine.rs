//! One pod's life on this node: (pod, observed, now) → actions, status.
//!
//! ```text
//!            volumes      sandbox       init containers      containers
//!  desired ──────────▶ ──────────▶ ──────────────────▶ ─────────────────▶ running
//!     │ deletionTimestamp, or removed from the API           │ all ended, none to restart
//!     ▼                                                      ▼
//!  Remove: stop, remove sandbox, clean up, delete        Finish: stop the sandbox, keep records
//! ```
//! It is driven by levels, not by edges: each step looks at all that the runtime
//! has now. What is remembered here only paces (back-off, probes, what is in
//! flight), so a restarted agent that remembers nothing does no harm.
//!
//! Methods, in calling order: [`PodMachine::step`] says what to do; the shell
//! carries the actions out, each one reported with [`PodMachine::handle_outcome`],
//! and calls `step` again on any change and at `wake_at`.
//!
//! Invariants
//!   M1  No container is created while one of that name is created or running.
//!   M2  No sandbox is made while another of the pod is ready.
//!   M3  Of one [`Subject`] at most one action is in flight; a stop may be
//!       repeated with an earlier deadline.
//!   M4  The object is deleted only when the runtime has nothing of the pod.
//! What an agent asked for before it was killed may take effect under the next one. Both count attempts from what the
//! runtime has, which gives each name with its attempt once: M1 holds until that record is tidied away. What is made
//! later still is older than the newest of its name: never started, and removed.
//! Checked by: `models/src/agent.rs` (M1, M4 of what runs; calls that take effect late), `machine/model.rs` (M1–M4
//! under crashes of the agent), `machine/tests.rs`.

mod containers;
mod history;
mod probes;
mod removal;
pub use removal::skeleton;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

use crate::backoff::Retry;
use crate::probe::ProbeState;
use crate::runtime::{Action, Container, ContainerState, ObservedPod, Outcome, ProbeKind, Sandbox, Subject};
use crate::status::{Ended, StatusInputs, Waiting, pod_status};

/// How often volumes that follow API objects are brought up to date.
const VOLUME_REFRESH: SignedDuration = SignedDuration::from_secs(60);

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Calls to make; all may run at once.
    pub actions: Vec<Action>,
    /// Status to publish; `None` if there is nothing to say.
    pub status: Option<PodStatus>,
    /// When to step again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Events to record.
    pub notes: Vec<Note>,
    /// Whether this pod is over: the machine may be dropped.
    pub gone: bool,
}

/// Something worth an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether it is a warning.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
    /// The container it is about, if one.
    pub container: Option<String>,
}

/// What is wanted of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Run,
    Finish,
    Remove,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ImageState {
    ready_for: Option<u32>,
    asked_for: u32,
    failed_at: Option<Timestamp>,
    retry: Retry,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Crash {
    /// The exit that was counted last.
    counted: String,
    /// Exits in a row.
    exits: u32,
}

/// Paces one pod; see the module's text for the calling order.
#[derive(Debug, Clone, Default)]
pub struct PodMachine {
    host_ip: String,
    start_time: Option<Timestamp>,
    in_flight: BTreeMap<Subject, Action>,
    /// Deadline of the stop in flight, by container id.
    stop_deadlines: BTreeMap<String, Timestamp>,
    volumes_ready_at: Option<Timestamp>,
    volumes: Retry,
    sandbox: Retry,
    stopped_sandboxes: BTreeSet<String>,
    images: BTreeMap<String, ImageState>,
    starts: BTreeMap<String, Retry>,
    crashes: BTreeMap<String, Crash>,
    probes: BTreeMap<(String, ProbeKind), (String, ProbeState)>,
    /// Why a running container is to be stopped, by id.
    doomed: BTreeMap<String, String>,
    ended: Option<Ended>,
    cleaned: bool,
    deleted: bool,
    waiting: BTreeMap<String, Waiting>,
}

/// All that one step looks at.
struct View<'a> {
    now: Timestamp,
    pod: &'a Pod,
    spec: &'a PodSpec,
    observed: &'a ObservedPod,
    sandbox: Option<&'a Sandbox>,
    /// By name, newest first; what the runtime lost is filled in from the API.
    history: BTreeMap<String, Vec<Container>>,
}

/// What a step collects.
#[derive(Default)]
struct Plan {
    actions: Vec<Action>,
    notes: Vec<Note>,
    waiting: BTreeMap<String, Waiting>,
    wake: Option<Timestamp>,
    initialized: bool,
    init_failed: bool,
    gone: bool,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }

    fn wait(&mut self, container: &str, reason: &str, message: &str) {
        let why = Waiting { reason: reason.to_owned(), message: message.to_owned() };
        self.waiting.insert(container.to_owned(), why);
    }
}

impl PodMachine {
    /// A machine that knows nothing yet, on the node with this address.
    pub fn new(host_ip: &str) -> Self {
        Self { host_ip: host_ip.to_owned(), ..Self::default() }
    }

    /// Whether anything is in flight.
    pub fn busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// What to do now. `removed`: the API no longer has the pod.
    ///
    /// The actions returned count as in flight until their outcome is handled.
    pub fn step(&mut self, now: Timestamp, pod: &Pod, removed: bool, observed: &ObservedPod) -> Step {
        let default_spec = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default_spec);
        let known = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        let start_time = *self.start_time.get_or_insert(known.unwrap_or(now));
        let view =
            View { now, pod, spec, observed, sandbox: observed.newest_sandbox(), history: history::of(pod, observed) };
        self.forget(&view);
        let mut plan = Plan::default();
        let goal = self.goal(&view, removed, start_time, &mut plan);
        match goal {
            Goal::Run => self.plan_run(&view, &mut plan),
            Goal::Finish => self.plan_finish(&view, &mut plan),
            Goal::Remove => self.plan_remove(&view, removed, &mut plan),
        }
        self.note_waiting(&view, &mut plan);
        let status =
            (!(removed || goal == Goal::Remove && observed.is_empty())).then(|| self.status(&view, &plan, start_time));
        Step { actions: self.admit(now, plan.actions), status, wake_at: plan.wake, notes: plan.notes, gone: plan.gone }
    }

    fn goal(&mut self, view: &View<'_>, removed: bool, start_time: Timestamp, plan: &mut Plan) -> Goal {
        if removed || view.pod.metadata.deletion_timestamp.is_some() {
            return Goal::Remove;
        }
        let phase = view.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) && self.ended.is_none() {
            let old = view.pod.status.as_ref();
            if let Some(reason) = old.and_then(|s| s.reason.clone()) {
                let message = old.and_then(|s| s.message.clone()).unwrap_or_default();
                self.ended = Some(Ended { reason, message });
            }
            return Goal::Finish;
        }
        if let Some(seconds) = view.spec.active_deadline_seconds {
            let due = start_time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
            if due <= view.now {
                self.ended = Some(Ended {
                    reason: "DeadlineExceeded".to_owned(),
                    message: "Pod was active on the node longer than the specified deadline".to_owned(),
                });
            } else {
                plan.wake_at(due);
            }
        }
        if self.ended.is_some() || containers::all_over(view) {
            return Goal::Finish;
        }
        Goal::Run
    }

    fn plan_run(&mut self, view: &View<'_>, plan: &mut Plan) {
        if !self.plan_volumes(view, plan) {
            return;
        }
        let Some(sandbox) = self.plan_sandbox(view, plan) else {
            return;
        };
        self.plan_containers(view, sandbox, plan);
        self.plan_probes(view, plan);
        removal::plan_tidy(view, plan);
    }

    /// Returns whether the volumes are there.
    fn plan_volumes(&mut self, view: &View<'_>, plan: &mut Plan) -> bool {
        if let Some(at) = self.volumes.waits_until(view.now) {
            plan.wake_at(at);
            return self.volumes_ready_at.is_some();
        }
        let Some(at) = self.volumes_ready_at else {
            plan.actions.push(Action::PrepareVolumes);
            return false;
        };
        if follows_api(view.spec) {
            let due = at.checked_add(VOLUME_REFRESH).unwrap_or(Timestamp::MAX);
            plan.wake_at(due.max(view.now));
            if due <= view.now {
                plan.actions.push(Action::PrepareVolumes);
            }
        }
        true
    }

    /// The sandbox to work in, if it stands; otherwise plans towards one.
    fn plan_sandbox<'a>(&self, view: &View<'a>, plan: &mut Plan) -> Option<&'a Sandbox> {
        let Some(newest) = view.sandbox else {
            self.plan_new_sandbox(view, 0, plan);
            return None;
        };
        for old in view.observed.sandboxes.iter().filter(|s| s.id != newest.id) {
            plan.actions.push(if old.ready || !self.stopped_sandboxes.contains(&old.id) {
                Action::StopSandbox { id: old.id.clone() }
            } else {
                Action::RemoveSandbox { id: old.id.clone() }
            });
        }
        if newest.ready && !self.stopped_sandboxes.contains(&newest.id) {
            return Some(newest);
        }
        // Its network is gone: what still runs in it must end first.
        let running = |c: &&Container| c.state == ContainerState::Running;
        let mut any = false;
        for container in view.observed.containers.iter().filter(running) {
            any = true;
            plan.actions.push(removal::stop(
                view,
                container,
                2,
                "Pod sandbox changed, it will be killed and re-created.",
            ));
        }
        if any {
            return None;
        }
        if newest.ready || !self.stopped_sandboxes.contains(&newest.id) {
            plan.actions.push(Action::StopSandbox { id: newest.id.clone() });
        } else if view.observed.sandboxes.iter().all(|s| !s.ready) {
            self.plan_new_sandbox(view, newest.attempt + 1, plan);
        }
        None
    }

    fn plan_new_sandbox(&self, view: &View<'_>, attempt: u32, plan: &mut Plan) {
        if let Some(at) = self.sandbox.waits_until(view.now) {
            plan.wake_at(at);
            return;
        }
        plan.actions.push(Action::RunSandbox { attempt });
    }

    fn plan_finish(&mut self, view: &View<'_>, plan: &mut Plan) {
        plan.initialized = containers::initialized(view);
        plan.init_failed = containers::init_failed(view);
        if removal::plan_stop_all(view, self.grace(view), "Stopping container", plan) {
            return;
        }
        for sandbox in view.observed.sandboxes.iter().filter(|s| s.ready) {
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }

    /// Takes in what came of an action.
    pub fn handle_outcome(&mut self, now: Timestamp, pod: &Pod, action: &Action, outcome: &Outcome) -> Vec<Note> {
        self.in_flight.remove(&action.subject());
        match (action, outcome) {
            (Action::Probe { container, id, kind }, _) => {
                return self.handle_probe(now, pod, container, id, *kind, outcome);
            }
            (Action::StopContainer { id, .. }, _) => {
                self.stop_deadlines.remove(id);
            }
            (_, Outcome::Done) => self.handle_done(now, action),
            (_, Outcome::Failed { reason, message }) => self.handle_failure(now, action, reason, message),
        }
        Vec::new()
    }

    fn handle_done(&mut self, now: Timestamp, action: &Action) {
        match action {
            Action::PrepareVolumes => {
                self.volumes_ready_at = Some(now);
                self.volumes = Retry::default();
            }
            Action::RunSandbox { .. } => self.sandbox = Retry::default(),
            Action::StopSandbox { id } => {
                self.stopped_sandboxes.insert(id.clone());
            }
            Action::EnsureImage { container, .. } => {
                let image = self.images.entry(container.clone()).or_default();
                *image = ImageState {
                    ready_for: Some(image.asked_for),
                    asked_for: image.asked_for,
                    ..ImageState::default()
                };
            }
            Action::StartContainer { container, .. } => {
                self.starts.remove(container);
            }
            Action::CleanUp => self.cleaned = true,
            Action::DeleteObject => self.deleted = true,
            _ => {}
        }
    }

    fn handle_failure(&mut self, now: Timestamp, action: &Action, reason: &str, message: &str) {
        match action {
            Action::PrepareVolumes => self.volumes.failed(now, reason, message),
            Action::EnsureImage { container, .. } => {
                let image = self.images.entry(container.clone()).or_default();
                image.failed_at = Some(now);
                image.retry.failed(now, reason, message);
            }
            Action::CreateContainer { container, .. } | Action::StartContainer { container, .. } => {
                self.starts.entry(container.clone()).or_default().failed(now, reason, message);
            }
            // The rest is tried again on the pod's own pace.
            _ => self.sandbox.failed(now, reason, message),
        }
    }

    /// M3: keeps what may start now and marks it as in flight.
    fn admit(&mut self, now: Timestamp, actions: Vec<Action>) -> Vec<Action> {
        let mut admitted = Vec::new();
        for action in actions {
            if !self.may_start(now, &action) {
                continue;
            }
            if let Action::StopContainer { id, grace_seconds, .. } = &action {
                let deadline = now.checked_add(SignedDuration::from_secs(*grace_seconds)).unwrap_or(now);
                self.stop_deadlines.insert(id.clone(), deadline);
            }
            self.in_flight.insert(action.subject(), action.clone());
            admitted.push(action);
        }
        admitted
    }

    fn may_start(&self, now: Timestamp, action: &Action) -> bool {
        let subject = action.subject();
        if let Action::StopContainer { id, grace_seconds, .. } = action {
            let deadline = now.checked_add(SignedDuration::from_secs(*grace_seconds)).unwrap_or(now);
            let pending = self.stop_deadlines.get(id);
            return pending.is_none_or(|d| d.duration_since(deadline) > SignedDuration::from_secs(1));
        }
        let touches_runtime = |s: &Subject| !matches!(s, Subject::Probe(..));
        match subject {
            Subject::Pod => !self.in_flight.keys().any(touches_runtime),
            Subject::Container(_) => {
                !self.in_flight.contains_key(&Subject::Pod) && !self.in_flight.contains_key(&subject)
            }
            _ => !self.in_flight.contains_key(&subject),
        }
    }

    /// Drops what is remembered of things that are no more.
    fn forget(&mut self, view: &View<'_>) {
        let has = |id: &String| view.observed.containers.iter().any(|c| c.id == *id);
        self.doomed.retain(|id, _| has(id));
        self.probes.retain(|_, (id, _)| has(id));
        self.stopped_sandboxes.retain(|id| view.observed.sandboxes.iter().any(|s| s.id == *id));
    }

    fn note_waiting(&mut self, view: &View<'_>, plan: &mut Plan) {
        for (name, why) in &plan.waiting {
            let before = self.waiting.get(name).map(|w| w.reason.as_str());
            if before == Some(why.reason.as_str()) {
                continue;
            }
            let pod = view.pod.metadata.name.as_deref().unwrap_or_default();
            let (warning, message) = match why.reason.as_str() {
                "CrashLoopBackOff" => (true, format!("Back-off restarting failed container {name} in pod {pod}")),
                "ImagePullBackOff" => (false, why.message.clone()),
                _ => continue,
            };
            plan.notes.push(Note { warning, reason: "BackOff", message, container: Some(name.clone()) });
        }
        self.waiting.clone_from(&plan.waiting);
    }

    fn status(&self, view: &View<'_>, plan: &Plan, start_time: Timestamp) -> PodStatus {
        let mut ready = BTreeSet::new();
        let mut started = BTreeSet::new();
        for spec in containers::all(view.spec) {
            let Some(container) = view.history.get(&spec.name).and_then(|h| h.first()) else {
                continue;
            };
            if container.state != ContainerState::Running {
                continue;
            }
            if self.is_started(spec, &container.id) {
                started.insert(spec.name.clone());
            }
            if self.is_ready(spec, &container.id) {
                ready.insert(spec.name.clone());
            }
        }
        pod_status(&StatusInputs {
            pod: view.pod,
            now: view.now,
            host_ip: &self.host_ip,
            start_time,
            sandbox: view.sandbox,
            history: &view.history,
            waiting: &plan.waiting,
            ready: &ready,
            started: &started,
            initialized: plan.initialized || containers::initialized(view),
            init_failed: plan.init_failed,
            ended: self.ended.as_ref(),
        })
    }
}

/// Whether a volume of the pod shows API objects, which may change.
fn follows_api(spec: &PodSpec) -> bool {
    spec.volumes
        .iter()
        .flatten()
        .any(|v| v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some())
}
