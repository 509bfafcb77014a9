//! Probing running containers: which probe is due, and what its answers mean.
//!
//! What a container's probes have said is of its id: a restarted container begins anew.
//! P1 (the other probes wait for the startup probe) is `crate::probe`'s.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod};

use super::{Note, Plan, PodMachine, View, containers};
use crate::probe::{self, ProbeState, Verdict};
use crate::runtime::{Action, Container, ContainerState, Outcome, ProbeKind};

impl PodMachine {
    pub(super) fn plan_probes(&mut self, view: &View<'_>, plan: &mut Plan) {
        for spec in containers::all(view.spec) {
            let Some(container) = view.history.get(&spec.name).and_then(|h| h.first()) else {
                continue;
            };
            if container.state != ContainerState::Running || self.doomed.contains_key(&container.id) {
                continue;
            }
            for kind in ProbeKind::ALL {
                self.plan_probe(view.now, spec, container, kind, plan);
            }
        }
    }

    fn plan_probe(
        &mut self,
        now: Timestamp,
        spec: &ContainerSpec,
        container: &Container,
        kind: ProbeKind,
        plan: &mut Plan,
    ) {
        let Some(probe) = probe::spec(spec, kind) else {
            return;
        };
        let key = (spec.name.clone(), kind);
        let started_at = container.started_at.unwrap_or(now);
        let fresh = || (container.id.clone(), ProbeState::new(kind, probe, started_at));
        let entry = self.probes.entry(key).or_insert_with(fresh);
        if entry.0 != container.id {
            *entry = fresh();
        }
        let Some(next) = entry.1.next() else {
            return;
        };
        // P1: the others wait for the startup probe.
        if kind != ProbeKind::Startup && !self.is_started(spec, &container.id) {
            return;
        }
        if next > now {
            plan.wake_at(next);
            return;
        }
        plan.actions.push(Action::Probe { container: spec.name.clone(), id: container.id.clone(), kind });
    }

    /// Whether the running container's startup probe, if any, has succeeded.
    pub(super) fn is_started(&self, spec: &ContainerSpec, id: &str) -> bool {
        spec.startup_probe.is_none() || self.verdict(&spec.name, ProbeKind::Startup, id)
    }

    pub(super) fn is_ready(&self, spec: &ContainerSpec, id: &str) -> bool {
        self.is_started(spec, id)
            && (spec.readiness_probe.is_none() || self.verdict(&spec.name, ProbeKind::Readiness, id))
    }

    fn verdict(&self, name: &str, kind: ProbeKind, id: &str) -> bool {
        let state = self.probes.get(&(name.to_owned(), kind));
        state.is_some_and(|(of, state)| of == id && state.succeeds())
    }

    pub(super) fn handle_probe(
        &mut self,
        now: Timestamp,
        pod: &Pod,
        name: &str,
        id: &str,
        kind: ProbeKind,
        outcome: &Outcome,
    ) -> Vec<Note> {
        let spec = pod.spec.as_ref().and_then(|s| containers::all(s).find(|c| c.name == name));
        let Some(probe) = spec.and_then(|c| probe::spec(c, kind)) else {
            return Vec::new();
        };
        let Some((of, state)) = self.probes.get_mut(&(name.to_owned(), kind)) else {
            return Vec::new();
        };
        if of != id {
            return Vec::new();
        }
        let verdict = state.handle(now, probe, *outcome == Outcome::Done);
        let mut notes = Vec::new();
        if let Outcome::Failed { message, .. } = outcome {
            notes.push(Note {
                warning: true,
                reason: "Unhealthy",
                message: format!("{} probe failed: {message}", kind.as_str()),
                container: Some(name.to_owned()),
            });
        }
        if verdict == Verdict::Fails && kind != ProbeKind::Readiness {
            let kind = kind.as_str().to_lowercase();
            let why = format!("Container {name} failed {kind} probe, will be restarted");
            self.doomed.insert(id.to_owned(), why);
        }
        notes
    }
}
