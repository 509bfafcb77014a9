//! A scheduler: `scheduler_core::State`, and around it what `scheduler/server/src/owner.rs`, `watch.rs` and `write.rs` do.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use apiserver_core::fence;
use apiserver_core::lifecycle::Part;
use k8s_openapi::api::core::v1::Pod;
use scheduler_core::groups::{Group, GroupKind, GroupSelector};
use scheduler_core::state::{Act, BindFailure, Seen, State, Tell, uid};
use serde_json::{Value, json};

use super::apiserver::{Answer, Ask, Failure, Place};
use super::client::Client;
use super::hub::Wanted;
use super::informer::{self, Informer};
use super::objects::{Kind, Object};
use super::tasks::{Mailbox, Process, Sim};
use crate::mutant::Mutant;
use crate::queue::{MS, SECOND, Time};

/// Kinds that are watched, each of which is once listed.
const KINDS: [Kind; 3] = [Kind::Pod, Kind::Node, Kind::ReplicaSet];
const TELLS_MAX: usize = 16;
/// Bindings on their way at once; few, so that pods wait for them.
const BINDS_MAX: usize = 4;
const FLUSH_EVERY: Time = 30 * SECOND;
const WRITE_MAX: Time = 30 * SECOND;

enum Told {
    Seen(Seen),
    Listed,
    Bound { pod: Arc<Pod>, node: String, result: Result<Option<u64>, BindFailure> },
    Written { tell: Tell, written: bool },
}

struct Owner {
    client: Client,
    process: Process,
    inbox: Mailbox<Told>,
    state: State,
    turns: VecDeque<String>,
    tells: BTreeMap<String, Tell>,
    /// Pods whose condition is being written, and the node each is to be bound to afterwards, with what was known.
    telling: BTreeMap<String, Option<(String, u64)>>,
    binding: usize,
    unlisted: usize,
    begun: Time,
}

/// Starts a scheduler.
pub(crate) fn start(client: &Client) -> Process {
    let (sim, inbox) = (&client.sim, Mailbox::default());
    let process = sim.process();
    for kind in KINDS {
        watch(client, kind, &inbox, process);
    }
    let owner = Owner {
        client: client.clone(),
        process,
        inbox,
        state: State::new("default-scheduler".to_owned()),
        turns: VecDeque::new(),
        tells: BTreeMap::new(),
        telling: BTreeMap::new(),
        binding: 0,
        unlisted: KINDS.len(),
        begun: sim.now(),
    };
    sim.spawn(process, owner.run());
    process
}

fn key(kind: Kind, object: &Object) -> String {
    match kind {
        Kind::Pod => object.uid().to_owned(),
        Kind::Node => object.name().to_owned(),
        _ => format!("{}/{}", object.namespace(), object.name()),
    }
}

fn group(place: &str) -> Group {
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    Group { kind: GroupKind::ReplicaSet, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn seen(kind: Kind, object: &Object) -> Seen {
    match kind {
        Kind::Pod => Seen::Pod(Box::new(Pod::clone(&object.pod()))),
        Kind::Node => Seen::Node(Box::new(object.node().as_ref().clone())),
        _ => {
            let selector = object.replica_set().spec.clone().map(|spec| GroupSelector::Selector(spec.selector));
            Seen::Group(group(&key(kind, object)), selector)
        }
    }
}

fn gone(kind: Kind, key: String) -> Seen {
    match kind {
        Kind::Pod => Seen::PodGone(key),
        Kind::Node => Seen::NodeGone(key),
        _ => Seen::Group(group(&key), None),
    }
}

/// Watches a kind; what was known before a new listing and isn't in it went unseen.
fn watch(client: &Client, kind: Kind, inbox: &Mailbox<Told>, process: Process) {
    let informer = Informer::new(client, "a scheduler", Wanted { kind, field: None });
    let (inbox, known) = (inbox.clone(), Rc::new(RefCell::new((BTreeSet::new(), BTreeSet::new(), true))));
    let tell = move |told: informer::Seen| {
        let (known, listed, first) = &mut *known.borrow_mut();
        let reached = |revision: i64| {
            if kind == Kind::Pod {
                inbox.send(Told::Seen(Seen::PodsUpTo(revision.unsigned_abs())));
            }
        };
        match told {
            informer::Seen::Begin => listed.clear(),
            informer::Seen::Listed(object) => {
                listed.insert(key(kind, &object));
                inbox.send(Told::Seen(seen(kind, &object)));
            }
            informer::Seen::Done(revision) => {
                known.difference(listed).for_each(|key| inbox.send(Told::Seen(gone(kind, key.clone()))));
                known.clone_from(listed);
                reached(revision);
                if std::mem::take(first) {
                    inbox.send(Told::Listed);
                }
            }
            informer::Seen::Applied(object) => {
                known.insert(key(kind, &object));
                inbox.send(Told::Seen(seen(kind, &object)));
            }
            informer::Seen::Deleted(object) => {
                known.remove(&key(kind, &object));
                inbox.send(Told::Seen(gone(kind, key(kind, &object))));
            }
            informer::Seen::Reached(revision) => reached(revision),
        }
    };
    client.sim.spawn(process, informer.run(tell));
}

impl Owner {
    fn sim(&self) -> &Sim {
        &self.client.sim
    }

    fn now_ms(&self) -> u64 {
        (self.sim().now() - self.begun) / MS
    }

    async fn run(mut self) {
        let sim = self.sim().clone();
        let mut flushed = sim.now();
        loop {
            self.write_conditions();
            let free = self.unlisted == 0 && self.binding < BINDS_MAX;
            if free && self.state.ready(self.now_ms()) {
                self.decide();
                // A decision takes its time, and so does what comes meanwhile.
                sim.sleep(100 + sim.below(400)).await;
                while let Some(told) = self.inbox.take() {
                    self.hear(told);
                }
                continue;
            }
            let due = self.state.next_due().filter(|_| free);
            let wait = due.map_or(FLUSH_EVERY, |due| due.saturating_sub(self.now_ms()).max(1) * MS);
            if let Some(told) = sim.within(wait.min(FLUSH_EVERY), self.inbox.receive()).await {
                self.hear(told);
            }
            if sim.now() >= flushed + FLUSH_EVERY {
                flushed = sim.now();
                let now = self.now_ms();
                self.state.flush(now);
            }
        }
    }

    fn hear(&mut self, told: Told) {
        let now = self.now_ms();
        match told {
            Told::Listed => self.unlisted -= 1,
            Told::Seen(seen) => {
                let act = self.state.see(seen, now);
                self.tell(act);
            }
            Told::Bound { pod, node, result } => {
                self.binding -= 1;
                let act = self.state.bound(&pod, &node, result, now);
                self.tell(act);
            }
            Told::Written { tell, written } => {
                if !written {
                    self.state.unsaid(&tell.pod);
                }
                if let Some(Some((node, known))) = self.telling.remove(uid(&tell.pod)) {
                    self.bind(tell.pod, node, known);
                }
            }
        }
    }

    fn decide(&mut self) {
        let now = self.now_ms();
        match self.state.decide(now) {
            Some(Act::Bind { pod, node, known }) => match self.telling.get_mut(uid(&pod)) {
                Some(later) => *later = Some((node, known)),
                None => self.bind(pod, node, known),
            },
            other => self.tell(other),
        }
    }

    fn bind(&mut self, pod: Arc<Pod>, node: String, known: u64) {
        self.binding += 1;
        let (client, inbox) = (self.client.clone(), self.inbox.clone());
        self.sim().spawn(self.process, async move {
            let asked = client.ask(Ask::Bind(place(&pod), binding(&pod, &node, known)));
            let result = match client.sim.within(WRITE_MAX, asked).await {
                Some(Ok(Answer::Bound(revision))) => Ok(Some(revision.unsigned_abs())),
                Some(Ok(_)) => Ok(None),
                Some(Err(failure)) => Err(meaning(&failure)),
                None => Err(BindFailure::Unanswered(String::new())),
            };
            let result = match result {
                Err(BindFailure::Unanswered(why)) if client.sim.has(Mutant::ForgetUnanswered) => {
                    Err(BindFailure::Failed(why))
                }
                result => result,
            };
            inbox.send(Told::Bound { pod, node, result });
        });
    }

    fn tell(&mut self, act: Option<Act>) {
        if let Some(Act::Tell(tell)) = act
            && tell.condition
        {
            let uid = uid(&tell.pod).to_owned();
            if self.tells.insert(uid.clone(), tell).is_none() {
                self.turns.push_back(uid);
            }
        }
    }

    fn write_conditions(&mut self) {
        while self.telling.len() < TELLS_MAX {
            let Some(uid) = self.turns.pop_front() else { return };
            let Some(tell) = self.tells.remove(&uid) else { continue };
            if !self.state.waits(&tell.pod) {
                self.state.unsaid(&tell.pod);
                continue;
            }
            self.telling.insert(uid, None);
            let (client, inbox) = (self.client.clone(), self.inbox.clone());
            self.sim().spawn(self.process, async move {
                let patch = condition(&tell, &client.sim.seconds());
                let asked = client.ask(Ask::Strategic(place(&tell.pod), Part::Status, patch));
                let written = match client.sim.within(WRITE_MAX, asked).await {
                    Some(Ok(_)) => true,
                    Some(Err(failure)) => failure.is(404) || failure.is(409),
                    None => false,
                };
                inbox.send(Told::Written { tell, written });
            });
        }
    }
}

fn place(pod: &Pod) -> Place {
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    Place::new(Kind::Pod, namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn binding(pod: &Pod, node: &str, known: u64) -> Value {
    let mut target = json!({"apiVersion": "v1", "kind": "Node", "name": node});
    if known > 0 {
        target["resourceVersion"] = known.to_string().into();
    }
    let metadata = &pod.metadata;
    json!({"metadata": {"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid}, "target": target})
}

/// What a binding's failing means.
fn meaning(failure: &Failure) -> BindFailure {
    let Failure::Status(status) = failure else { return BindFailure::Unanswered(String::new()) };
    let told = status.to_json();
    let causes = told.pointer("/details/causes").and_then(Value::as_array);
    let fence = causes.into_iter().flatten().find(|cause| cause["reason"] == fence::REASON);
    let fence = fence.and_then(|cause| cause["message"].as_str()?.parse().ok());
    match (status.code(), fence) {
        (409, Some(revision)) => BindFailure::Outdated(revision),
        (404 | 409, None) => BindFailure::Refused,
        (408 | 500.., _) => BindFailure::Unanswered(String::new()),
        _ => BindFailure::Failed(String::new()),
    }
}

fn condition(tell: &Tell, now: &str) -> Value {
    let old = tell.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut old = old.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    let since = old.find_map(|c| c.last_transition_time.as_ref()).map_or_else(|| json!(now), |time| json!(time));
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": tell.reason, "message": tell.message,
        "lastProbeTime": null, "lastTransitionTime": since});
    json!({"metadata": {"uid": tell.pod.metadata.uid}, "status": {"conditions": [condition]}})
}
