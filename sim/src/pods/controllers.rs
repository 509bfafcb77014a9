//! The controllers: `controllers_core` decides, around it is what `controllers/server` does (`owner`, `informers`, `collect`).

mod execute;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use controllers_core::graph::{Graph, Object as Node, Verdict};
use controllers_core::queue::{Key, Queue};
use controllers_core::unseen::Unseen;
use controllers_core::write::Target;
use controllers_core::{Write, deployment, node, owner, replica_set};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::apiserver::{Ask, Failure, Place};
use super::client::Client;
use super::hub::Wanted;
use super::informer::{Cache, Informer, Seen};
use super::objects::{Kind, Object};
use super::tasks::{Mailbox, Process, Sim};
use crate::mutant::Mutant;
use crate::queue::{MS, SECOND, Time};
use execute::{Made, execute};

const WORKING_MAX: usize = 16;
const NODES_EVERY: Time = 5 * SECOND;
const UNSHOWN_PAUSE_MS: u64 = 5_000;

enum Told {
    Keys(Vec<Key>),
    Seen(Box<Node>),
    Gone(String),
    /// All of one more kind is in the graph.
    InGraph,
    Ready,
    Worked(Box<Worked>),
}

struct Worked {
    key: Key,
    made: Made,
    failed: bool,
    /// Look again after this many milliseconds.
    again: Option<u64>,
}

struct Owner {
    client: Client,
    process: Process,
    inbox: Mailbox<Told>,
    caches: BTreeMap<Kind, Cache>,
    graph: Graph,
    /// Kinds that the graph hasn't been shown yet, and what is to be looked at then.
    unlisted: usize,
    held_back: BTreeSet<String>,
    queue: Queue,
    unseen: BTreeMap<Key, Unseen>,
    first_seen: BTreeMap<String, i64>,
    working: usize,
    unready: usize,
    begun: Time,
}

/// Starts all controllers.
pub(crate) fn start(client: &Client) -> Process {
    let (sim, inbox) = (&client.sim, Mailbox::default());
    let process = sim.process();
    let sets = inform(client, Kind::ReplicaSet, &Cache::default(), &inbox, process);
    let cache = |kind| match kind {
        Kind::ReplicaSet => sets.clone(),
        _ => inform(client, kind, &sets, &inbox, process),
    };
    let caches = Kind::ALL.map(|kind| (kind, cache(kind)));
    Kind::ALL.iter().for_each(|kind| collect(client, *kind, &inbox, process));
    let owner = Owner {
        client: client.clone(),
        process,
        inbox,
        caches: caches.into_iter().collect(),
        graph: Graph::default(),
        unlisted: if sim.has(Mutant::CollectEarly) { 0 } else { Kind::ALL.len() },
        held_back: BTreeSet::new(),
        queue: Queue::default(),
        unseen: BTreeMap::new(),
        first_seen: BTreeMap::new(),
        working: 0,
        unready: Kind::ALL.len(),
        begun: sim.now(),
    };
    sim.spawn(process, owner.run());
    process
}

fn owners(metadata: &ObjectMeta) -> Option<Key> {
    let (owner, namespace) = (owner::controller(metadata)?, metadata.namespace.clone().unwrap_or_default());
    match owner.kind.as_str() {
        "ReplicaSet" => Some(Key::ReplicaSet(namespace, owner.name.clone())),
        "Deployment" => Some(Key::Deployment(namespace, owner.name.clone())),
        _ => None,
    }
}

/// The keys that a change concerns.
fn keys(kind: Kind, object: &Object) -> Vec<Key> {
    let place = (object.namespace().to_owned(), object.name().to_owned());
    match kind {
        Kind::Pod => owners(&object.pod().metadata).into_iter().collect(),
        Kind::ReplicaSet => {
            let owners = owners(&object.replica_set().metadata).into_iter();
            owners.chain([Key::ReplicaSet(place.0, place.1)]).collect()
        }
        Kind::Deployment => vec![Key::Deployment(place.0, place.1)],
        Kind::Node => vec![Key::Node(place.1)],
        Kind::Lease => Vec::new(),
    }
}

/// The ReplicaSets that may take over a pod that nobody controls, or have lost it.
fn adopters_of(sets: &Cache, object: &Object) -> Vec<Key> {
    let pod = object.pod();
    if owner::controller(&pod.metadata).is_some() {
        return Vec::new();
    }
    let labels = pod.metadata.labels.as_ref();
    let selects = |set: &&Rc<Object>| {
        let set = set.replica_set();
        set.spec.as_ref().is_some_and(|spec| owner::selects(&spec.selector, labels))
    };
    let key = |set: &Rc<Object>| Key::ReplicaSet(set.namespace().to_owned(), set.name().to_owned());
    sets.borrow().values().filter(selects).map(key).collect()
}

/// Keeps a cache of a kind.
fn inform(client: &Client, kind: Kind, sets: &Cache, inbox: &Mailbox<Told>, process: Process) -> Cache {
    let informer = Informer::new(client, "a controller", Wanted { kind, field: None });
    let (cache, inbox, shown) = (informer.cache(), inbox.clone(), informer.cache());
    let (ready, before) = (Cell::new(false), RefCell::new(Vec::new()));
    let (told, forgets) = (inbox.clone(), client.sim.has(Mutant::ForgetVanished));
    let (sets, forgets_orphans) = (sets.clone(), client.sim.has(Mutant::ForgetOrphans));
    let concern = move |kind: Kind, object: &Object| {
        let mut keys = keys(kind, object);
        if kind == Kind::Pod && !forgets_orphans {
            keys.extend(adopters_of(&sets, object));
        }
        if !keys.is_empty() {
            told.send(Told::Keys(keys));
        }
    };
    let tell = move |seen: Seen| match seen {
        Seen::Applied(object) | Seen::Deleted(object) => concern(kind, &object),
        Seen::Begin => *before.borrow_mut() = shown.borrow().values().cloned().collect(),
        Seen::Done(_) => {
            let before = before.take();
            let vanished = before.iter().filter(|_| !forgets);
            vanished.chain(shown.borrow().values()).for_each(|object| concern(kind, object));
            if !ready.replace(true) {
                inbox.send(Told::Ready);
            }
        }
        Seen::Listed(_) | Seen::Reached(_) => {}
    };
    client.sim.spawn(process, informer.run(tell));
    cache
}

fn graph_object(kind: Kind, object: &Object) -> Node {
    let value = &object.value;
    let resource = kind.resource();
    let owners = value.pointer("/metadata/ownerReferences").cloned();
    let owners: Option<Vec<OwnerReference>> = owners.and_then(|owners| serde_json::from_value(owners).ok());
    Node {
        target: Target {
            api_version: resource.api_version(),
            kind: resource.kind.to_owned(),
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
        },
        uid: object.uid().to_owned(),
        owners: owners.unwrap_or_default(),
        finalizers: apiserver_core::meta::finalizers(value).into_iter().map(str::to_owned).collect(),
        deleting: apiserver_core::meta::is_deleting(value),
        version: apiserver_core::meta::resource_version(value).to_owned(),
    }
}

/// Watches a kind for the graph of owners.
fn collect(client: &Client, kind: Kind, inbox: &Mailbox<Told>, process: Process) {
    let informer = Informer::new(client, "the collector", Wanted { kind, field: None });
    let (inbox, known) = (inbox.clone(), Rc::new(RefCell::new((BTreeSet::new(), BTreeSet::new()))));
    let in_graph = Cell::new(false);
    let tell = move |seen: Seen| {
        let (known, listed) = &mut *known.borrow_mut();
        match seen {
            Seen::Begin => listed.clear(),
            Seen::Done(_) => {
                known.difference(listed).for_each(|uid: &String| inbox.send(Told::Gone(uid.clone())));
                known.retain(|uid| listed.contains(uid));
                if !in_graph.replace(true) {
                    inbox.send(Told::InGraph);
                }
            }
            Seen::Listed(object) | Seen::Applied(object) => {
                known.insert(object.uid().to_owned());
                listed.insert(object.uid().to_owned());
                inbox.send(Told::Seen(Box::new(graph_object(kind, &object))));
            }
            Seen::Deleted(object) => {
                known.remove(object.uid());
                inbox.send(Told::Gone(object.uid().to_owned()));
            }
            Seen::Reached(_) => {}
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
        // What is told before all was listed waits, as in the channel.
        let mut early = Vec::new();
        while self.unready > 0 {
            match self.inbox.receive().await {
                Told::Ready => self.unready -= 1,
                told => early.push(told),
            }
        }
        early.into_iter().for_each(|told| self.hear(told));
        let mut looked = 0;
        loop {
            while let Some(told) = self.inbox.take() {
                self.hear(told);
            }
            if sim.now() >= looked + NODES_EVERY {
                looked = sim.now();
                self.look_at_nodes();
            }
            while self.working < WORKING_MAX {
                let now = self.now_ms();
                let Some(key) = self.queue.take(now) else { break };
                self.work(key);
            }
            let due = self.queue.next_due().filter(|_| self.working < WORKING_MAX);
            let wait = due.map_or(NODES_EVERY, |due| due.saturating_sub(self.now_ms()).max(1) * MS);
            let until_look = looked + NODES_EVERY - sim.now();
            if let Some(told) = sim.within(wait.min(until_look), self.inbox.receive()).await {
                self.hear(told);
            }
        }
    }

    fn hear(&mut self, told: Told) {
        let now = self.now_ms();
        let look = match told {
            Told::Keys(keys) => return keys.into_iter().for_each(|key| self.queue.add(key, now)),
            Told::Worked(worked) => {
                self.working -= 1;
                return self.finish(*worked);
            }
            Told::Ready => return,
            Told::Seen(object) => self.graph.observe(*object),
            Told::Gone(uid) => self.graph.forget(&uid),
            Told::InGraph => {
                self.unlisted = self.unlisted.saturating_sub(1);
                Vec::new()
            }
        };
        self.held_back.extend(look);
        if self.unlisted == 0 {
            let look = std::mem::take(&mut self.held_back);
            look.into_iter().for_each(|uid| self.queue.add(Key::Object(uid), now));
        }
    }

    fn all(&self, kind: Kind) -> Vec<Rc<Object>> {
        self.caches[&kind].borrow().values().cloned().collect()
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Rc<Object>> {
        self.caches[&kind].borrow().get(&kind.key(namespace, name)).cloned()
    }

    fn look_at_nodes(&mut self) {
        let now = self.now_ms();
        let pods: Vec<_> = self.all(Kind::Pod).iter().map(|pod| pod.pod()).collect();
        for name in node::lost(pods.iter(), |name| self.get(Kind::Node, "", name).is_some()) {
            self.queue.add(Key::Node(name), now);
        }
        for node in self.all(Kind::Node) {
            self.queue.add(Key::Node(node.name().to_owned()), now);
        }
    }

    fn finish(&mut self, worked: Worked) {
        let now = self.now_ms();
        if matches!(worked.key, Key::ReplicaSet(..)) && !self.sim().has(Mutant::ForgetExpectations) {
            self.note(&worked.key, worked.made, now);
        }
        if let Some(pause) = worked.again {
            self.queue.add(worked.key.clone(), now + pause);
        }
        self.queue.done(worked.key, now, worked.failed);
    }

    /// O1. Looks again at the set though nothing may be shown of it.
    fn note(&mut self, set: &Key, made: Made, now: u64) {
        let unseen = self.unseen.entry(set.clone()).or_default();
        unseen.gone(&made.gone);
        unseen.made(made.created, made.deleted, now);
        let next = unseen.next_look();
        match next {
            Some(_) if self.sim().has(Mutant::NeverDoubt) => {}
            Some(at) => self.queue.add(set.clone(), at.max(now)),
            None => drop(self.unseen.remove(set)),
        }
    }

    fn work(&mut self, key: Key) {
        if let Key::Node(name) = &key
            && self.get(Kind::Node, "", name).is_none()
        {
            self.first_seen.remove(name);
            let pods: Vec<_> = self.all(Kind::Pod).iter().map(|pod| pod.pod()).collect();
            let writes = node::orphans(name, pods.iter());
            return self.end_orphans(key.clone(), name.clone(), writes);
        }
        if let (Key::ReplicaSet(namespace, _), Some(unseen)) = (&key, self.unseen.get(&key)) {
            let pods: Vec<_> = self.all(Kind::Pod).iter().map(|pod| pod.pod()).collect();
            let doubted = unseen.doubted(&pods, self.now_ms());
            if !doubted.is_empty() && !self.sim().has(Mutant::NeverDoubt) {
                return self.ask_for(key.clone(), namespace.clone(), doubted);
            }
        }
        let Key::Object(uid) = &key else {
            let (writes, again) = self.decide(&key);
            return self.spawn(key, writes, again);
        };
        match self.graph.look(uid) {
            Verdict::Keep => self.spawn(key, Vec::new(), None),
            Verdict::Act(writes) => self.spawn(key, writes, None),
            Verdict::Check(owners) => {
                let (namespace, around) = (self.graph.namespace_of(uid).unwrap_or_default(), self.graph.around(uid));
                let (client, inbox, uid) = (self.client.clone(), self.inbox.clone(), uid.clone());
                self.working += 1;
                self.sim().spawn(self.process, async move {
                    let (made, result, again) = match check_owners(&client, &owners, &namespace).await {
                        Err(error) => (Made::default(), Err(error), None),
                        Ok(Owners { gone, is_one_there }) => match around.after_check(&uid, &gone) {
                            Verdict::Act(writes) => {
                                let (made, result) = execute(&client, &writes).await;
                                (made, result, None)
                            }
                            _ => (Made::default(), Ok(()), is_one_there.then_some(UNSHOWN_PAUSE_MS)),
                        },
                    };
                    inbox.send(Told::Worked(Box::new(Worked { key, made, failed: result.is_err(), again })));
                });
            }
        }
    }

    /// Ends the pods of a node that the informer doesn't show, once the API says that it is gone: it may be new.
    fn end_orphans(&mut self, key: Key, name: String, writes: Vec<Write>) {
        if writes.is_empty() {
            return self.finish(Worked { key, made: Made::default(), failed: false, again: None });
        }
        let (client, inbox) = (self.client.clone(), self.inbox.clone());
        self.working += 1;
        self.sim().spawn(self.process, async move {
            let (made, result) = match client.object(Ask::Get(Place::new(Kind::Node, "", &name))).await {
                Err(failure) if failure.is(404) => execute(&client, &writes).await,
                found => (Made::default(), found.map(drop)),
            };
            inbox.send(Told::Worked(Box::new(Worked { key, made, failed: result.is_err(), again: None })));
        });
    }

    /// Asks the API which of these pods are there, and which are gone.
    fn ask_for(&mut self, key: Key, namespace: String, names: Vec<String>) {
        let (client, inbox) = (self.client.clone(), self.inbox.clone());
        self.working += 1;
        self.sim().spawn(self.process, async move {
            let (mut made, mut failed) = (Made::default(), false);
            for name in names {
                match client.object(Ask::Get(Place::new(Kind::Pod, &namespace, &name))).await {
                    Err(failure) if failure.is(404) => made.gone.push(name),
                    Ok(_) => made.created.push(name),
                    Err(_) => failed = true,
                }
            }
            inbox.send(Told::Worked(Box::new(Worked { key, made, failed, again: Some(0) })));
        });
    }

    fn spawn(&mut self, key: Key, writes: Vec<Write>, again: Option<u64>) {
        if writes.is_empty() {
            return self.finish(Worked { key, made: Made::default(), failed: false, again });
        }
        let (client, inbox) = (self.client.clone(), self.inbox.clone());
        self.working += 1;
        self.sim().spawn(self.process, async move {
            let (made, result) = execute(&client, &writes).await;
            inbox.send(Told::Worked(Box::new(Worked { key, made, failed: result.is_err(), again })));
        });
    }

    fn decide(&mut self, key: &Key) -> (Vec<Write>, Option<u64>) {
        let (unix, now) = (self.sim().wall().as_second(), self.sim().seconds());
        let seconds = |left: Option<i64>| left.and_then(|s| u64::try_from(s.max(1)).ok()).map(|s| s * 1000);
        let pods = || -> Vec<_> { self.all(Kind::Pod).iter().map(|pod| pod.pod()).collect() };
        match key {
            Key::Deployment(namespace, name) => {
                let Some(object) = self.get(Kind::Deployment, namespace, name) else { return (Vec::new(), None) };
                let sets: Vec<_> = self.all(Kind::ReplicaSet).iter().map(|set| set.replica_set()).collect();
                let pods = pods();
                let remain = |uid: &str| pods.iter().any(|pod| owner::is_controlled_by(&pod.metadata, uid));
                let remains = sets.iter().filter(|set| remain(set.metadata.uid.as_deref().unwrap_or("")));
                let pods_remain = remains.filter_map(|set| set.metadata.name.clone()).collect();
                let observed = deployment::Observed { deployment: object.deployment(), sets, pods_remain, now, unix };
                (deployment::reconcile(&observed), seconds(deployment::next_look(&observed)))
            }
            Key::ReplicaSet(namespace, name) => {
                let Some(set) = self.get(Kind::ReplicaSet, namespace, name) else {
                    self.unseen.remove(key);
                    return (Vec::new(), None);
                };
                let (pods, at) = (pods(), self.now_ms());
                let unseen = self.unseen.get_mut(key);
                let (creating, deleting) = unseen.map_or_else(Default::default, |u| u.not_seen_yet(&pods, at));
                let observed = replica_set::Observed { set: set.replica_set(), pods, creating, deleting, now: unix };
                (replica_set::reconcile(&observed), seconds(replica_set::next_look(&observed)))
            }
            Key::Node(name) => {
                let pods = pods();
                let Some(object) = self.get(Kind::Node, "", name) else { return (Vec::new(), None) };
                let first_seen = *self.first_seen.entry(name.clone()).or_insert(unix);
                let bound = |pod: &std::sync::Arc<k8s_openapi::api::core::v1::Pod>| {
                    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(name.as_str())
                };
                let lease = self.get(Kind::Lease, "kube-node-lease", name).map(|lease| lease.lease());
                let pods = pods.into_iter().filter(bound).collect();
                (node::reconcile(&node::Observed { node: object.node(), lease, pods, first_seen, now, unix }), None)
            }
            Key::Service(..) | Key::Namespace(_) | Key::Object(_) => (Vec::new(), None),
        }
    }
}

/// What the API says of owners that the graph doesn't know.
#[derive(Default)]
struct Owners {
    /// Not there, or another object is under the name.
    gone: BTreeSet<String>,
    is_one_there: bool,
}

/// Asks the API which owners are gone.
async fn check_owners(client: &Client, owners: &[OwnerReference], namespace: &str) -> Result<Owners, Failure> {
    let mut said = Owners::default();
    for owner in owners {
        let Some(kind) = Kind::named(&owner.kind) else { continue };
        let scope = if kind.resource().namespaced { namespace } else { "" };
        match client.object(Ask::Get(Place::new(kind, scope, &owner.name))).await {
            Ok(found) if apiserver_core::meta::uid(&found) == owner.uid => said.is_one_there = true,
            Ok(_) => {
                said.gone.insert(owner.uid.clone());
            }
            Err(failure) if failure.is(404) => {
                said.gone.insert(owner.uid.clone());
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(said)
}
