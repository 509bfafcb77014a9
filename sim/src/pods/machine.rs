//! A node's machine: a container runtime that goes on whatever becomes of the agent, judged as it goes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use agent_core::runtime::{Action, ContainerState, ObservedPod};
use models::runtime::{Refused, Runtime};

use super::tasks::Sim;
use super::truth::Truth;

/// What the runtime says whose something is.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) pod: ObservedPod,
}

/// The machine.
pub(crate) struct Machine {
    sim: Sim,
    pub(crate) name: String,
    truth: Rc<RefCell<Truth>>,
    runtime: Runtime,
    /// Namespace, name and UID of each pod, in the runtime's order.
    pods: Vec<(String, String, String)>,
    places: BTreeMap<String, usize>,
    /// Containers that were started.
    pub(crate) started: u64,
    /// It is no more.
    pub(crate) gone: bool,
}

impl Machine {
    pub(crate) fn new(sim: &Sim, name: &str, truth: &Rc<RefCell<Truth>>) -> Self {
        Self {
            sim: sim.clone(),
            name: name.to_owned(),
            truth: truth.clone(),
            runtime: Runtime::default(),
            pods: Vec::new(),
            places: BTreeMap::new(),
            started: 0,
            gone: false,
        }
    }

    fn place(&mut self, (namespace, name, uid): (&str, &str, &str)) -> usize {
        if let Some(place) = self.places.get(uid) {
            return *place;
        }
        let place = self.runtime.add(&format!("{uid} "));
        self.pods.push((namespace.to_owned(), name.to_owned(), uid.to_owned()));
        self.places.insert(uid.to_owned(), place);
        place
    }

    /// What the runtime has of a pod.
    pub(crate) fn observe(&self, uid: &str) -> ObservedPod {
        self.places.get(uid).map_or_else(ObservedPod::default, |place| self.runtime.pods[*place].as_ref().clone())
    }

    /// All that the runtime has, by UID.
    pub(crate) fn observe_all(&self) -> BTreeMap<String, Found> {
        let found = |((namespace, name, uid), pod): (&(String, String, String), &std::sync::Arc<ObservedPod>)| {
            let (namespace, name, pod) = (namespace.clone(), name.clone(), pod.as_ref().clone());
            (!pod.is_empty()).then(|| (uid.clone(), Found { namespace, name, pod }))
        };
        self.pods.iter().zip(&self.runtime.pods).filter_map(found).collect()
    }

    /// Containers of a pod that run.
    pub(crate) fn running(&self, uid: &str) -> usize {
        self.places.get(uid).map_or(0, |place| self.runtime.running(*place).count())
    }

    /// A call takes effect.
    pub(crate) fn carry_out(&mut self, whose: (&str, &str, &str), action: &Action) -> Result<(), Refused> {
        if self.gone {
            return Err(Refused);
        }
        let (place, now) = (self.place(whose), self.sim.wall());
        if let Action::RemoveContainer { id, .. } = action
            && self.runtime.running(place).any(|container| container.id == *id)
        {
            self.sim.violate(format_args!("node {}: the record of {id} is removed while it runs", self.name));
        }
        let done = self.runtime.carry_out(place, action, now, false);
        if let (Action::StartContainer { container, .. }, Ok(())) = (action, &done) {
            self.started += 1;
            self.judge(place, container);
        }
        done
    }

    /// A container was started.
    fn judge(&self, place: usize, container: &str) {
        let (namespace, name, uid) = &self.pods[place];
        let node = &self.name;
        if self.runtime.running(place).filter(|other| other.name == *container).count() > 1 {
            self.sim.violate(format_args!("node {node}: {container} of {name} ({uid}) runs twice"));
        }
        let truth = self.truth.borrow();
        for (other, whose) in self.pods.iter().enumerate().filter(|(other, _)| *other != place) {
            let is_same = whose.0 == *namespace && whose.1 == *name;
            // Of one that was to be gone at once something may run on, and begin what was on its way.
            let was_forced = [uid, &whose.2].iter().any(|uid| truth.lives.get(*uid).is_some_and(|life| life.forced));
            if is_same && !was_forced && self.runtime.running(other).next().is_some() {
                let (first, next) = (&whose.2, uid);
                self.sim.violate(format_args!("node {node}: {name} ({first}) still runs while {name} ({next}) begins"));
            }
        }
    }

    /// Some container's process ends.
    pub(crate) fn exit_any(&mut self) {
        let running = |place: usize| self.runtime.running(place).map(move |container| (place, container.id.clone()));
        let all: Vec<(usize, String)> = (0..self.pods.len()).flat_map(running).collect();
        if !all.is_empty() {
            let (place, id) = self.sim.one_of(&all).clone();
            let code = if self.sim.once_in(2) { 0 } else { 1 };
            self.runtime.exit(place, &id, code, self.sim.wall());
        }
    }

    /// The machine starts anew: sandboxes and processes are lost.
    pub(crate) fn reboot(&mut self) {
        self.runtime.reboot(self.sim.wall());
    }

    /// What the runtime has though the API has no such pod here, or none that runs.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let truth = self.truth.borrow();
        let is_wanted = |uid: &str| {
            let mut pods = truth.of(super::objects::Kind::Pod);
            pods.any(|pod| pod.uid() == uid)
        };
        let all = self.observe_all();
        let left = all.iter().filter(|(uid, _)| !is_wanted(uid));
        left.map(|(uid, found)| {
            let running = found.pod.containers.iter().filter(|c| c.state == ContainerState::Running).count();
            format!("node {}: {} ({uid}) is left over, {running} containers of it run", self.name, found.name)
        })
        .collect()
    }
}
