//! A node's agent: `agent_core::machine` for each pod, and around it what `agent/node/src/pods.rs` does.

mod calls;
mod keeper;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use agent_core::machine::{PodMachine, skeleton};
use agent_core::runtime::{Action, ObservedPod, Outcome};
use agent_core::status::newest_version;
use apiserver_core::lifecycle::Part;
use apiserver_core::meta;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;

use super::apiserver::Place;
use super::client::Client;
use super::hub::Wanted;
use super::informer::{Informer, Seen};
use super::machine::{Found, Machine};
use super::objects::Kind;
use super::tasks::{Mailbox, Process, Sim};
use crate::mutant::Mutant;
use crate::queue::{MS, SECOND, Time};

const OBSERVE_EVERY: Time = SECOND;
const PUBLISH_AGAIN: Time = SECOND;

enum Told {
    Wanted(Arc<Pod>),
    Removed(String),
    Listed(BTreeSet<String>),
    Observed(Time, BTreeMap<String, Found>),
    Done { uid: String, action: Action, outcome: Outcome, seen: Option<(Time, ObservedPod)> },
    Published { uid: String, written: bool, version: Option<String> },
}

struct Entry {
    pod: Arc<Pod>,
    removed: bool,
    machine: PodMachine,
    observed: ObservedPod,
    /// `None`: nobody has looked yet.
    observed_at: Option<Time>,
    status: Option<PodStatus>,
    published: Option<PodStatus>,
    publishing: bool,
    version: Option<String>,
    wake_at: Option<Timestamp>,
}

struct Owner {
    client: Client,
    process: Process,
    machine: Rc<RefCell<Machine>>,
    inbox: Mailbox<Told>,
    pods: BTreeMap<String, Entry>,
    observed: Option<(Time, BTreeMap<String, Found>)>,
    listed: bool,
}

/// Starts the agent of a machine with so many cores.
pub(crate) fn start(client: &Client, machine: &Rc<RefCell<Machine>>, cpus: u64) -> Process {
    let process = client.sim.process();
    let owner = Owner {
        client: client.clone(),
        process,
        machine: machine.clone(),
        inbox: Mailbox::default(),
        pods: BTreeMap::new(),
        observed: None,
        listed: false,
    };
    let (node, name) = (client.clone(), machine.borrow().name.clone());
    client.sim.spawn(process, async move {
        keeper::register_until(&node, &name, cpus).await;
        owner.begin(&name);
        node.sim.spawn(process, owner.run());
        keeper::keep(node, &name, cpus).await;
    });
    process
}

impl Owner {
    fn sim(&self) -> &Sim {
        &self.client.sim
    }

    /// Starts what tells the owner of the API and of the runtime.
    fn begin(&self, name: &str) {
        let field = Some(("spec.nodeName", name.to_owned()));
        let informer = Informer::new(&self.client, "an agent", Wanted { kind: Kind::Pod, field });
        let (inbox, listed) = (self.inbox.clone(), RefCell::new(BTreeSet::new()));
        let tell = move |seen: Seen| match seen {
            Seen::Begin => listed.borrow_mut().clear(),
            Seen::Listed(object) => {
                listed.borrow_mut().insert(object.uid().to_owned());
                inbox.send(Told::Wanted(object.pod()));
            }
            Seen::Done(_) => inbox.send(Told::Listed(listed.take())),
            Seen::Applied(object) => inbox.send(Told::Wanted(object.pod())),
            Seen::Deleted(object) => inbox.send(Told::Removed(object.uid().to_owned())),
            Seen::Reached(_) => {}
        };
        self.sim().spawn(self.process, informer.run(tell));
        let (sim, machine, inbox) = (self.sim().clone(), self.machine.clone(), self.inbox.clone());
        self.sim().spawn(self.process, async move {
            loop {
                let (at, found) = (sim.now(), machine.borrow().observe_all());
                let slow = if sim.breaks_once_in(10) { sim.below(SECOND) } else { 0 };
                sim.sleep(sim.below(10 * MS) + slow).await;
                inbox.send(Told::Observed(at, found));
                sim.sleep(OBSERVE_EVERY).await;
            }
        });
    }

    async fn run(mut self) {
        let sim = self.sim().clone();
        loop {
            let soonest = self.pods.values().filter_map(|entry| entry.wake_at).min();
            let wait = soonest.map_or(60 * SECOND, |at| {
                let micros = at.duration_since(sim.wall()).as_micros();
                u64::try_from(micros).unwrap_or(0) + MS
            });
            match sim.within(wait, self.inbox.receive()).await {
                Some(told) => self.handle(told),
                None => self.step_due(),
            }
        }
    }

    fn handle(&mut self, told: Told) {
        match told {
            Told::Wanted(pod) => self.handle_wanted(pod),
            Told::Removed(uid) => self.handle_removed(&uid),
            Told::Listed(uids) => {
                self.listed = true;
                let missing: Vec<String> = self.pods.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
                missing.iter().for_each(|uid| self.handle_removed(uid));
                self.adopt_orphans();
            }
            Told::Observed(at, found) => self.handle_observed(at, found),
            Told::Done { uid, action, outcome, seen } => self.handle_done(&uid, &action, &outcome, seen),
            Told::Published { uid, written, version } => {
                if let Some(entry) = self.pods.get_mut(&uid) {
                    entry.publishing = false;
                    entry.version = version.or(entry.version.take());
                    if !written {
                        entry.published = None;
                    }
                    self.publish(&uid);
                }
            }
        }
    }

    fn handle_wanted(&mut self, pod: Arc<Pod>) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        match self.pods.get_mut(&uid) {
            Some(entry) => entry.pod = pod,
            None => self.insert(&uid, pod, false),
        }
        self.step(&uid);
    }

    fn insert(&mut self, uid: &str, pod: Arc<Pod>, removed: bool) {
        let (observed_at, observed) = match &self.observed {
            Some((at, all)) => (Some(*at), all.get(uid).map(|found| found.pod.clone()).unwrap_or_default()),
            // The mutant takes what nobody looked at for what is so now.
            None => (self.sim().has(Mutant::LookedAlready).then(|| self.sim().now()), ObservedPod::default()),
        };
        let entry = Entry {
            published: pod.status.clone(),
            pod,
            removed,
            machine: PodMachine::new("10.0.0.1"),
            observed,
            observed_at,
            status: None,
            publishing: false,
            version: None,
            wake_at: None,
        };
        self.pods.insert(uid.to_owned(), entry);
    }

    fn handle_removed(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.removed = true;
            self.step(uid);
        }
    }

    /// An observation that began before a pod's last finished action isn't used for it.
    fn handle_observed(&mut self, at: Time, found: BTreeMap<String, Found>) {
        let (first, stale) = (self.observed.is_none(), self.sim().has(Mutant::StaleLook));
        let mut changed = Vec::new();
        for (uid, entry) in &mut self.pods {
            if entry.observed_at.is_some_and(|seen| seen > at) && !stale {
                continue;
            }
            entry.observed_at = Some(at);
            let now = found.get(uid).map(|found| &found.pod);
            if now.map_or(!entry.observed.is_empty(), |pod| *pod != entry.observed) {
                entry.observed = now.cloned().unwrap_or_default();
                changed.push(uid.clone());
            }
        }
        self.observed = Some((at, found));
        self.adopt_orphans();
        if first {
            changed = self.pods.keys().cloned().collect();
        }
        changed.iter().for_each(|uid| self.step(uid));
    }

    fn adopt_orphans(&mut self) {
        let knows = self.listed || self.sim().has(Mutant::AdoptEarly);
        let Some((_, found)) = self.observed.as_ref().filter(|_| knows) else { return };
        let orphans = found.iter().filter(|(uid, _)| !self.pods.contains_key(*uid));
        let orphans: Vec<(String, Pod)> =
            orphans.map(|(uid, found)| (uid.clone(), skeleton(&found.namespace, &found.name, uid))).collect();
        for (uid, pod) in orphans {
            self.insert(&uid, Arc::new(pod), true);
            self.step(&uid);
        }
    }

    fn handle_done(&mut self, uid: &str, action: &Action, outcome: &Outcome, seen: Option<(Time, ObservedPod)>) {
        let now = self.sim().wall();
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if let Some((at, observed)) = seen.filter(|(at, _)| entry.observed_at.is_none_or(|before| *at >= before)) {
            entry.observed_at = Some(at);
            entry.observed = observed;
        }
        entry.machine.handle_outcome(now, &entry.pod, action, outcome);
        self.step(uid);
    }

    fn step(&mut self, uid: &str) {
        // Nothing is done before it is known what runs already.
        if self.observed.is_none() {
            return;
        }
        let now = self.sim().wall();
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let step = entry.machine.step(now, &entry.pod, entry.removed, &entry.observed);
        entry.wake_at = step.wake_at;
        if step.gone {
            self.pods.remove(uid);
            if let Some((_, found)) = &mut self.observed {
                found.remove(uid);
            }
            return;
        }
        entry.status = step.status.or(entry.status.take());
        let pod = entry.pod.clone();
        for action in step.actions {
            let (client, machine, inbox) = (self.client.clone(), self.machine.clone(), self.inbox.clone());
            let (pod, uid) = (pod.clone(), uid.to_owned());
            self.client.sim.spawn(self.process, async move {
                let outcome = calls::perform(&client, &machine, &pod, &action).await;
                let changes = !matches!(action, Action::PrepareVolumes | Action::EnsureImage { .. });
                let seen = changes.then(|| (client.sim.now(), machine.borrow().observe(&uid)));
                client.sim.sleep(client.sim.below(2 * MS)).await;
                inbox.send(Told::Done { uid, action, outcome, seen });
            });
        }
        self.publish(uid);
    }

    /// Of one pod's status at most one write is on its way.
    fn publish(&mut self, uid: &str) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.publishing || entry.removed || entry.status == entry.published {
            return;
        }
        let Some(status) = entry.status.clone() else { return };
        entry.publishing = true;
        entry.published.clone_from(&entry.status);
        let (client, inbox, pod, uid) = (self.client.clone(), self.inbox.clone(), entry.pod.clone(), uid.to_owned());
        let known = newest_version(&pod, entry.version.as_deref());
        self.client.sim.spawn(self.process, async move {
            let written = write_status(&client, &pod, known.as_deref(), &status).await;
            if written.is_none() {
                client.sim.sleep(PUBLISH_AGAIN).await;
            }
            inbox.send(Told::Published { uid, written: written.is_some(), version: written.flatten() });
        });
    }

    fn step_due(&mut self) {
        let now = self.sim().wall();
        let due = |entry: &Entry| entry.wake_at.is_some_and(|at| at <= now);
        let uids: Vec<String> = self.pods.iter().filter(|(_, entry)| due(entry)).map(|(uid, _)| uid.clone()).collect();
        uids.iter().for_each(|uid| self.step(uid));
    }
}

/// Writes a pod's status over the version that is known; `None` if it should be tried again.
async fn write_status(client: &Client, pod: &Pod, known: Option<&str>, status: &PodStatus) -> Option<Option<String>> {
    let meta = &pod.metadata;
    // The UID keeps it from going to a later pod of the same name.
    let uid = meta.uid.as_ref().filter(|_| !client.sim.has(Mutant::StatusWithoutUid));
    let known = known.filter(|_| !client.sim.has(Mutant::StatusWithoutVersion) && uid.is_some());
    let mut patch = json!({"metadata": {}, "status": status});
    for (name, value) in [("uid", uid.map(String::as_str)), ("resourceVersion", known)] {
        if let Some(value) = value {
            patch["metadata"][name] = value.into();
        }
    }
    let place = Place::new(Kind::Pod, meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    match client.patch(place, Part::Status, patch).await {
        Ok(written) => Some(Some(meta::field(&written, "resourceVersion").to_owned())),
        Err(failure) => failure.is(404).then_some(None),
    }
}
