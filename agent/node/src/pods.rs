//! The owner of all pods of a node: the API says what is wanted, the runtime what is,
//! [`PodMachine`] what to do.
//!
//! One task owns everything; watches, observations and finished actions reach it
//! through one bounded inbox. It never waits for any of them.
//!
//! Invariants
//!   O1  An observation that began before a pod's last finished action is not used for that pod:
//!       it may not show what the action did.
//!   O2  Of one pod's status at most one write is waited for, and the last status is written last: each is decided upon
//!       a version of the object and written over no other, so that one that was given up and arrives late changes
//!       nothing.
//!   O3  Pods that the runtime has and the API doesn't are stopped, and what is left in folders of pods that neither has is
//!       removed, but only once the API's list is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_core::machine::{PodMachine, skeleton};
use agent_core::runtime::{Action, ObservedPod, Outcome};
use agent_core::status::newest_version;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::actions::Hands;
use crate::cri::Found;
use crate::volumes;

/// Messages that wait for the owner; senders wait when it is full.
const INBOX_MAX: usize = 1024;
/// Actions that run at once, over all pods.
const ACTIONS_MAX: usize = 256;
/// How often the runtime is asked for everything; what actions change is seen at once.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// Pause before a status that could not be written is tried again.
const PUBLISH_AGAIN: Duration = Duration::from_secs(1);

/// What the owner is told.
enum Told {
    /// The API has this pod.
    Wanted(Box<Pod>),
    /// The API no longer has it.
    Removed(String),
    /// These are all the pods that the API has.
    Listed(BTreeSet<String>),
    /// Everything the runtime had at a moment.
    Observed(Instant, BTreeMap<String, Found>),
    /// An action came to an end; what the runtime had of the pod after it.
    Done { uid: String, action: Action, outcome: Outcome, seen: Option<(Instant, ObservedPod)> },
    /// A status was written, which made this version of the object, or not.
    Published { uid: String, written: bool, version: Option<String> },
}

struct Entry {
    pod: Arc<Pod>,
    removed: bool,
    machine: PodMachine,
    observed: Arc<ObservedPod>,
    /// When what is observed was; `None`: nobody has looked yet.
    observed_at: Option<Instant>,
    /// What is to be published, and what was.
    status: Option<PodStatus>,
    published: Option<PodStatus>,
    publishing: bool,
    /// The version of the object that this agent wrote last.
    version: Option<String>,
    wake_at: Option<Timestamp>,
}

struct Owner {
    hands: Arc<Hands>,
    inbox: mpsc::Sender<Told>,
    permits: Arc<Semaphore>,
    pods: BTreeMap<String, Entry>,
    /// What was observed last, of pods that have no entry yet as well.
    observed: Option<(Instant, BTreeMap<String, Found>)>,
    listed: bool,
    /// What is left of pods that neither the API nor the runtime has was removed, once: later there is none (O3).
    swept: bool,
}

/// Looks after the node's pods until `shutdown`; what runs goes on running.
pub(crate) async fn run(hands: Arc<Hands>, shutdown: CancellationToken) {
    let (sender, mut inbox) = mpsc::channel(INBOX_MAX);
    tokio::spawn(watch(hands.client.clone(), hands.node.name.clone(), sender.clone(), shutdown.clone()));
    tokio::spawn(observe(hands.clone(), sender.clone(), shutdown.clone()));
    let mut owner = Owner {
        hands,
        inbox: sender,
        permits: Arc::new(Semaphore::new(ACTIONS_MAX)),
        pods: BTreeMap::new(),
        observed: None,
        listed: false,
        swept: false,
    };
    loop {
        let wake = owner.next_wake();
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(told) = inbox.recv() => owner.handle(told),
            () = tokio::time::sleep(wake) => owner.step_due(),
        }
    }
}

impl Owner {
    fn handle(&mut self, told: Told) {
        match told {
            Told::Wanted(pod) => self.handle_wanted(*pod),
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

    fn handle_wanted(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pod = Arc::new(pod);
        match self.pods.get_mut(&uid) {
            Some(entry) => entry.pod = pod,
            None => self.insert(&uid, pod, false),
        }
        self.step(&uid);
    }

    fn insert(&mut self, uid: &str, pod: Arc<Pod>, removed: bool) {
        let (at, found) = match &self.observed {
            Some((at, all)) => (Some(*at), all.get(uid).map(|f| f.pod.clone()).unwrap_or_default()),
            // The first observation may have begun already, and is about this pod too.
            None => (None, ObservedPod::default()),
        };
        let published = pod.status.clone();
        let entry = Entry {
            pod,
            removed,
            machine: PodMachine::new(&self.hands.node.address.to_string()),
            observed: Arc::new(found),
            observed_at: at,
            status: None,
            published,
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

    /// O1.
    fn handle_observed(&mut self, at: Instant, found: BTreeMap<String, Found>) {
        let first = self.observed.is_none();
        let mut changed = Vec::new();
        for (uid, entry) in &mut self.pods {
            if entry.observed_at.is_some_and(|seen| seen > at) {
                continue;
            }
            entry.observed_at = Some(at);
            let now = found.get(uid).map(|f| &f.pod);
            if now.map_or(!entry.observed.is_empty(), |pod| *pod != *entry.observed) {
                entry.observed = Arc::new(now.cloned().unwrap_or_default());
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

    /// O3.
    fn adopt_orphans(&mut self) {
        let Some((_, found)) = self.observed.as_ref().filter(|_| self.listed) else { return };
        let orphans: Vec<(String, Pod)> = found
            .iter()
            .filter(|(uid, _)| !self.pods.contains_key(*uid))
            .map(|(uid, found)| (uid.clone(), skeleton(&found.namespace, &found.name, uid)))
            .collect();
        for (uid, pod) in orphans {
            tracing::info!(pod = pod.metadata.name, %uid, "stopping a pod that the API doesn't have");
            self.insert(&uid, Arc::new(pod), true);
            self.step(&uid);
        }
        if !std::mem::replace(&mut self.swept, true) {
            match volumes::sweep(&self.hands.node.data_dir, |uid| self.pods.contains_key(uid)) {
                Ok(gone) if gone.is_empty() => {}
                Ok(gone) => tracing::info!(uids = gone.join(" "), "removed what was left of pods that are gone"),
                Err(error) => tracing::warn!(%error, "removing what was left of pods that are gone"),
            }
        }
    }

    fn handle_done(&mut self, uid: &str, action: &Action, outcome: &Outcome, seen: Option<(Instant, ObservedPod)>) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if let Some((at, observed)) = seen.filter(|(at, _)| entry.observed_at.is_none_or(|before| *at >= before)) {
            entry.observed_at = Some(at);
            entry.observed = Arc::new(observed);
        }
        let notes = entry.machine.handle_outcome(Timestamp::now(), &entry.pod, action, outcome);
        let pod = entry.pod.clone();
        notes.iter().for_each(|note| self.hands.note(&pod, note));
        self.step(uid);
    }

    fn step(&mut self, uid: &str) {
        // Nothing is done before it is known what runs already.
        if self.observed.is_none() {
            return;
        }
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let step = entry.machine.step(Timestamp::now(), &entry.pod, entry.removed, &entry.observed);
        entry.wake_at = step.wake_at;
        for note in &step.notes {
            self.hands.note(&entry.pod, note);
        }
        if step.gone {
            self.pods.remove(uid);
            if let Some((_, found)) = &mut self.observed {
                found.remove(uid);
            }
            return;
        }
        entry.status = step.status.or(entry.status.take());
        for action in step.actions {
            let (hands, inbox, permits) = (self.hands.clone(), self.inbox.clone(), self.permits.clone());
            let (pod, observed) = (entry.pod.clone(), entry.observed.clone());
            tokio::spawn(perform(hands, inbox, permits, pod, observed, action));
        }
        self.publish(uid);
    }

    /// O2.
    fn publish(&mut self, uid: &str) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.publishing || entry.removed || entry.status.is_none() || entry.status == entry.published {
            return;
        }
        entry.publishing = true;
        entry.published.clone_from(&entry.status);
        let Some(status) = entry.status.clone() else { return };
        let (client, inbox, pod) = (self.hands.client.clone(), self.inbox.clone(), entry.pod.clone());
        let (uid, known) = (uid.to_owned(), newest_version(&pod, entry.version.as_deref()));
        tokio::spawn(async move {
            let written = write_status(&client, &pod, known.as_deref(), &status).await;
            if written.is_none() {
                tokio::time::sleep(PUBLISH_AGAIN).await;
            }
            let (written, version) = (written.is_some(), written.flatten());
            // The owner only goes at shutdown.
            let _ = inbox.send(Told::Published { uid, written, version }).await;
        });
    }

    fn next_wake(&self) -> Duration {
        let soonest = self.pods.values().filter_map(|e| e.wake_at).min();
        let wait = soonest.map(|at| at.duration_since(Timestamp::now()));
        let wait = wait.map_or(Duration::from_secs(60), |w| Duration::try_from(w).unwrap_or(Duration::ZERO));
        // Timestamps may be rounded: a moment more keeps this from spinning.
        wait + Duration::from_millis(1)
    }

    fn step_due(&mut self) {
        let now = Timestamp::now();
        let due = |entry: &Entry| entry.wake_at.is_some_and(|at| at <= now);
        let uids: Vec<String> = self.pods.iter().filter(|(_, e)| due(e)).map(|(uid, _)| uid.clone()).collect();
        uids.iter().for_each(|uid| self.step(uid));
    }
}

async fn perform(
    hands: Arc<Hands>,
    inbox: mpsc::Sender<Told>,
    permits: Arc<Semaphore>,
    pod: Arc<Pod>,
    observed: Arc<ObservedPod>,
    action: Action,
) {
    // The semaphore is never closed.
    let Ok(_permit) = permits.acquire().await else { return };
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let outcome = hands.perform(&pod, &observed, &action).await;
    let at = Instant::now();
    let changes = !matches!(action, Action::Probe { .. } | Action::PrepareVolumes | Action::EnsureImage { .. });
    let seen = if changes { hands.cri.observe_pod(&uid).await.ok().map(|pod| (at, pod)) } else { None };
    let _ = inbox.send(Told::Done { uid, action, outcome, seen }).await;
}

/// Writes a pod's status over the version that is known; returns the one that it makes, if any. `None`: it should be tried
/// again, once more is known.
async fn write_status(client: &Client, pod: &Pod, known: Option<&str>, status: &PodStatus) -> Option<Option<String>> {
    let meta = &pod.metadata;
    let api = Api::<Pod>::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    // The UID keeps it from going to a later pod of the same name.
    let patch = serde_json::json!({"metadata": {"uid": meta.uid, "resourceVersion": known}, "status": status});
    let name = meta.name.as_deref().unwrap_or_default();
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(written) => Some(written.metadata.resource_version),
        Err(kube::Error::Api(status)) if status.code == 404 => Some(None),
        Err(error) => {
            tracing::debug!(%error, pod = name, "a status was not written");
            None
        }
    }
}

async fn observe(hands: Arc<Hands>, inbox: mpsc::Sender<Told>, shutdown: CancellationToken) {
    loop {
        let at = Instant::now();
        match hands.cri.observe_all().await {
            Ok(found) => {
                if inbox.send(Told::Observed(at, found)).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "can't see what runs"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(OBSERVE_EVERY) => {}
        }
    }
}

async fn watch(client: Client, node: String, inbox: mpsc::Sender<Told>, shutdown: CancellationToken) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut stream = watcher(Api::<Pod>::all(client), config).boxed();
    let mut listed = BTreeSet::new();
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => event,
        };
        let told = match event {
            None => return,
            Some(Ok(Event::Init)) => {
                listed.clear();
                continue;
            }
            Some(Ok(Event::InitApply(pod))) => {
                listed.insert(uid(&pod));
                Told::Wanted(Box::new(pod))
            }
            Some(Ok(Event::InitDone)) => Told::Listed(std::mem::take(&mut listed)),
            Some(Ok(Event::Apply(pod))) => Told::Wanted(Box::new(pod)),
            Some(Ok(Event::Delete(pod))) => Told::Removed(uid(&pod)),
            Some(Err(error)) => {
                // The stream itself goes on, with a pause of its own.
                tracing::debug!(%error, "the watch of pods was interrupted");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        if inbox.send(told).await.is_err() {
            return;
        }
    }
}
