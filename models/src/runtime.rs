//! A container runtime that is made up, after containerd: a sandbox or container has a name, with its attempt in it, that is taken as long as it is
//! there; nothing is made or started in a sandbox that isn't ready; a sandbox takes its containers along.

use std::sync::Arc;

use agent_core::runtime::{Action, Container, ContainerState, ObservedPod, Sandbox};
use jiff::Timestamp;

/// All that runs.
#[derive(Debug, Clone, Default, PartialEq, Hash)]
pub struct Runtime {
    /// What it has of each pod.
    pub pods: Vec<Arc<ObservedPod>>,
    /// How the ids of each pod begin.
    prefixes: Vec<String>,
    /// Ids of what is gone: they are never given again.
    spent: Vec<String>,
    /// Containers that a call started nobody waited for.
    pub late: Vec<String>,
}

/// Why a call was refused; the word doesn't matter.
#[derive(Debug, Clone, Copy)]
pub struct Refused;

impl Runtime {
    /// Makes place for another pod, whose ids are to begin so; returns it.
    pub fn add(&mut self, prefix: &str) -> usize {
        self.pods.push(Arc::default());
        self.prefixes.push(prefix.to_owned());
        self.pods.len() - 1
    }

    /// Running containers of a pod.
    pub fn running(&self, uid: usize) -> impl Iterator<Item = &Container> {
        self.pods[uid].containers.iter().filter(|c| c.state == ContainerState::Running)
    }

    fn fresh(&self, uid: usize, base: String) -> String {
        let pod = &self.pods[uid];
        let is_taken = |id: &String| {
            let mut ids = pod.sandboxes.iter().map(|s| &s.id).chain(pod.containers.iter().map(|c| &c.id));
            self.spent.contains(id) || ids.any(|other| other == id)
        };
        let mut id = format!("{}{base}", self.prefixes[uid]);
        while is_taken(&id) {
            id.push('\'');
        }
        id
    }

    fn spend(&mut self, id: String) {
        self.late.retain(|late| *late != id);
        self.spent.push(id);
        self.spent.sort_unstable();
    }

    /// Does what a call asks for. `unreserved`: names may be given twice.
    ///
    /// # Errors
    /// If the runtime refuses it.
    pub fn carry_out(&mut self, uid: usize, action: &Action, now: Timestamp, unreserved: bool) -> Result<(), Refused> {
        match action {
            Action::RunSandbox { attempt } => self.run_sandbox(uid, *attempt, unreserved),
            Action::CreateContainer { container, sandbox_id, attempt } => {
                self.create(uid, container, sandbox_id, *attempt, unreserved)
            }
            Action::StartContainer { id, .. } => self.start(uid, id, now),
            Action::StopContainer { id, .. } => {
                self.exit(uid, id, 137, now);
                Ok(())
            }
            Action::RemoveContainer { id, .. } => {
                let pod = Arc::make_mut(&mut self.pods[uid]);
                let before = pod.containers.len();
                pod.containers.retain(|c| c.id != *id);
                if pod.containers.len() < before {
                    self.spend(id.clone());
                }
                Ok(())
            }
            Action::StopSandbox { id } => {
                self.stop_sandbox(uid, id, 137, now);
                Ok(())
            }
            Action::RemoveSandbox { id } => {
                self.remove_sandbox(uid, id);
                Ok(())
            }
            // Not the runtime's.
            _ => Ok(()),
        }
    }

    fn run_sandbox(&mut self, uid: usize, attempt: u32, unreserved: bool) -> Result<(), Refused> {
        if !unreserved && self.pods[uid].sandboxes.iter().any(|s| s.attempt == attempt) {
            return Err(Refused);
        }
        let id = self.fresh(uid, format!("sandbox {attempt}"));
        let ips = vec!["10.0.0.2".to_owned()];
        let pod = Arc::make_mut(&mut self.pods[uid]);
        pod.sandboxes.push(Sandbox { id, attempt, ready: true, created_at: Timestamp::UNIX_EPOCH, ips });
        pod.sandboxes.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(())
    }

    fn create(
        &mut self,
        uid: usize,
        name: &str,
        sandbox_id: &str,
        attempt: u32,
        unreserved: bool,
    ) -> Result<(), Refused> {
        let pod = &self.pods[uid];
        let is_taken = pod.containers.iter().any(|c| c.name == name && c.attempt == attempt);
        if is_taken && !unreserved || !pod.sandboxes.iter().any(|s| s.id == sandbox_id && s.ready) {
            return Err(Refused);
        }
        let id = self.fresh(uid, format!("{name} {attempt}"));
        let pod = Arc::make_mut(&mut self.pods[uid]);
        pod.containers.push(Container {
            id,
            sandbox_id: sandbox_id.to_owned(),
            name: name.to_owned(),
            attempt,
            state: ContainerState::Created,
            created_at: Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: "i".to_owned(),
            image_ref: "i".to_owned(),
        });
        pod.containers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(())
    }

    fn start(&mut self, uid: usize, id: &str, now: Timestamp) -> Result<(), Refused> {
        let pod = Arc::make_mut(&mut self.pods[uid]);
        let Some(container) = pod.containers.iter_mut().find(|c| c.id == id) else { return Err(Refused) };
        let is_ready = pod.sandboxes.iter().any(|s| s.id == container.sandbox_id && s.ready);
        if container.state != ContainerState::Created || !is_ready {
            return Err(Refused);
        }
        container.state = ContainerState::Running;
        container.started_at = Some(now);
        Ok(())
    }

    /// A container's process ends, if it runs.
    pub fn exit(&mut self, uid: usize, id: &str, code: i32, now: Timestamp) {
        let pod = Arc::make_mut(&mut self.pods[uid]);
        let running = |c: &&mut Container| c.id == id && c.state == ContainerState::Running;
        if let Some(container) = pod.containers.iter_mut().find(running) {
            container.state = ContainerState::Exited;
            container.finished_at = Some(now);
            container.exit_code = code;
            container.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
        }
    }

    fn stop_sandbox(&mut self, uid: usize, id: &str, code: i32, now: Timestamp) {
        let inside: Vec<String> =
            self.pods[uid].containers.iter().filter(|c| c.sandbox_id == id).map(|c| c.id.clone()).collect();
        inside.iter().for_each(|container| self.exit(uid, container, code, now));
        for sandbox in Arc::make_mut(&mut self.pods[uid]).sandboxes.iter_mut().filter(|s| s.id == id) {
            sandbox.ready = false;
        }
    }

    fn remove_sandbox(&mut self, uid: usize, id: &str) {
        let pod = Arc::make_mut(&mut self.pods[uid]);
        let mut gone: Vec<String> =
            pod.containers.iter().filter(|c| c.sandbox_id == id).map(|c| c.id.clone()).collect();
        pod.containers.retain(|c| c.sandbox_id != id);
        gone.extend(pod.sandboxes.iter().filter(|s| s.id == id).map(|s| s.id.clone()));
        pod.sandboxes.retain(|s| s.id != id);
        gone.into_iter().for_each(|id| self.spend(id));
    }

    /// The machine starts anew: records stay, processes don't.
    pub fn reboot(&mut self, now: Timestamp) {
        for uid in 0..self.pods.len() {
            let ids: Vec<String> = self.pods[uid].sandboxes.iter().map(|s| s.id.clone()).collect();
            ids.iter().for_each(|id| self.stop_sandbox(uid, id, 255, now));
        }
    }
}
