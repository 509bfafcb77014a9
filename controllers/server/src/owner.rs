//! The owner: one queue, one task, writes beside it.
//!
//! Invariants
//!   O1  A ReplicaSet isn't reconciled as if its own creations and deletions had not
//!       been made, whether or not the informer shows them yet.
//!   O2  At most [`WORKING_MAX`] keys are worked on at once.
//!   O4  Nothing is collected or let go before all kinds were listed: who depends on an object may not have been shown yet.
//!   O3  When it has ended, it asks for nothing more.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use controllers_core::graph::{Graph, Verdict};
use controllers_core::namespace::Remaining;
use controllers_core::queue::{Key, Queue};
use controllers_core::unseen::Unseen;
use controllers_core::{Write, deployment, endpoint_slice, namespace, node, replica_set};
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::execute::{ExecuteError, Made, Writer, collection, execute};
use crate::informers::{Caches, Told};

/// Keys worked on at once.
const WORKING_MAX: usize = 16;
/// Nodes are looked at this often: silence is no event.
const NODES_EVERY: Duration = Duration::from_secs(5);
/// A namespace that isn't empty yet is looked at again after this.
const EMPTYING_PAUSE_MS: u64 = 500;
/// An object whose owner is there and wasn't shown yet is looked at again after this.
const UNSHOWN_PAUSE_MS: u64 = 5_000;

/// What working on a key came to.
struct Worked {
    key: Key,
    made: Made,
    result: Result<(), ExecuteError>,
    /// Look again after this many milliseconds.
    again: Option<u64>,
}

pub(crate) struct Owner {
    writer: Writer,
    config: Config,
    caches: Caches,
    graph: Graph,
    /// O4: kinds whose objects the graph hasn't been shown yet, and what is to be looked at then.
    unlisted: usize,
    held_back: BTreeSet<String>,
    queue: Queue,
    unseen: HashMap<Key, Unseen>,
    first_seen: HashMap<String, i64>,
    begun: Instant,
}

fn get<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<std::sync::Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let reference = ObjectRef::new(name);
    store.get(&if namespace.is_empty() { reference } else { reference.within(namespace) })
}

fn of_namespace<K>(store: &Store<K>, namespace: &str) -> Vec<std::sync::Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().into_iter().filter(|object| object.meta().namespace.as_deref() == Some(namespace)).collect()
}

impl Owner {
    pub(crate) fn new(writer: Writer, config: Config, caches: Caches, kinds: usize) -> Self {
        Self {
            writer,
            config,
            caches,
            graph: Graph::default(),
            unlisted: kinds,
            held_back: BTreeSet::new(),
            queue: Queue::default(),
            unseen: HashMap::new(),
            first_seen: HashMap::new(),
            begun: Instant::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Works until shutdown.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Told>, shutdown: CancellationToken) {
        self.wait_for_caches(&shutdown).await;
        let mut working: JoinSet<Worked> = JoinSet::new();
        let mut nodes = tokio::time::interval(NODES_EVERY);
        nodes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            while working.len() < WORKING_MAX {
                let now = self.now_ms();
                let Some(key) = self.queue.take(now) else { break };
                self.work(key, &mut working);
            }
            let due = if working.len() < WORKING_MAX { self.queue.next_due() } else { None };
            let wait =
                due.map_or(Duration::from_secs(3600), |due| Duration::from_millis(due.saturating_sub(self.now_ms())));
            tokio::select! {
                () = shutdown.cancelled() => break,
                told = inbox.recv() => match told {
                    Some(told) => self.hear(told),
                    None => break,
                },
                Some(worked) = working.join_next() => if let Ok(worked) = worked {
                    self.finish(worked);
                },
                _ = nodes.tick() => self.look_at_nodes(),
                () = tokio::time::sleep(wait) => {}
            }
        }
        // O3.
        working.shutdown().await;
    }

    /// Deciding before everything was listed would make what is there already.
    async fn wait_for_caches(&self, shutdown: &CancellationToken) {
        let caches = &self.caches;
        let all = async {
            let _ = tokio::join!(
                caches.deployments.wait_until_ready(),
                caches.replica_sets.wait_until_ready(),
                caches.pods.wait_until_ready(),
                caches.services.wait_until_ready(),
                caches.slices.wait_until_ready(),
                caches.namespaces.wait_until_ready(),
                caches.accounts.wait_until_ready(),
                caches.root_cas.wait_until_ready(),
                caches.nodes.wait_until_ready(),
                caches.leases.wait_until_ready(),
            );
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = all => {}
        }
    }

    fn hear(&mut self, told: Told) {
        let now = self.now_ms();
        match told {
            Told::Keys(keys) => keys.into_iter().for_each(|key| self.queue.add(key, now)),
            Told::Graph(change) => {
                let look = match change {
                    crate::collect::Change::Seen(object) => self.graph.observe(*object),
                    crate::collect::Change::Gone(uid) => self.graph.forget(&uid),
                    crate::collect::Change::Listed => {
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
        }
    }

    fn look_at_nodes(&mut self) {
        let now = self.now_ms();
        // Levels, not edges: nobody may have seen the node go, or its last pod was bound later.
        let pods = self.caches.pods.state();
        let nodes = self.caches.nodes.clone();
        for name in node::lost(pods.iter(), |name| get(&nodes, "", name).is_some()) {
            self.queue.add(Key::Node(name), now);
        }
        for node in self.caches.nodes.state() {
            if let Some(name) = &node.metadata.name {
                self.queue.add(Key::Node(name.clone()), now);
            }
        }
    }

    fn finish(&mut self, worked: Worked) {
        let now = self.now_ms();
        if matches!(worked.key, Key::ReplicaSet(..)) {
            self.note(&worked.key, worked.made, now);
        }
        if let Err(error) = &worked.result {
            tracing::debug!(key = ?worked.key, %error, "a write failed; looking again");
        }
        if let Some(pause) = worked.again {
            self.queue.add(worked.key.clone(), now + pause);
        }
        self.queue.done(worked.key, now, worked.result.is_err());
    }

    /// O1. Looks again at the set though nothing may be shown of it.
    fn note(&mut self, set: &Key, made: Made, now: u64) {
        let unseen = self.unseen.entry(set.clone()).or_default();
        unseen.gone(&made.gone);
        unseen.made(made.created, made.deleted, now);
        match unseen.next_look() {
            Some(at) => self.queue.add(set.clone(), at.max(now)),
            None => drop(self.unseen.remove(set)),
        }
    }

    fn work(&mut self, key: Key, working: &mut JoinSet<Worked>) {
        let writer = self.writer.clone();
        match &key {
            Key::Object(uid) => {
                let verdict = self.graph.look(uid);
                match verdict {
                    Verdict::Keep => self.spawn(key, Vec::new(), None, working),
                    Verdict::Act(writes) => self.spawn(key, writes, None, working),
                    Verdict::Check(owners) => {
                        // G2: the API says who is gone; the graph may have changed by then, so it decides again here.
                        let object_namespace = self.graph.namespace_of(uid).unwrap_or_default();
                        let decide = self.graph.around(uid);
                        let uid = uid.clone();
                        working.spawn(async move {
                            let checked = check_owners(&writer.client, &owners, &object_namespace).await;
                            let (made, result, again) = match checked {
                                Err(error) => (Made::default(), Err(error), None),
                                Ok(Owners { gone, is_one_there }) => match decide.after_check(&uid, &gone) {
                                    Verdict::Act(writes) => {
                                        let (made, result) = execute(&writer, &writes).await;
                                        (made, result, None)
                                    }
                                    // G5: an owner that goes before it was ever shown leaves no trace in the graph.
                                    _ => (Made::default(), Ok(()), is_one_there.then_some(UNSHOWN_PAUSE_MS)),
                                },
                            };
                            Worked { key, made, result, again }
                        });
                    }
                }
            }
            Key::Namespace(name) => {
                let Some(namespace) = get(&self.caches.namespaces, "", name) else {
                    return self.spawn(key, Vec::new(), None, working);
                };
                if namespace.metadata.deletion_timestamp.is_some() {
                    working.spawn(async move { empty_namespace(writer, key, &namespace).await });
                    return;
                }
                let writes = self.furnish(&namespace, name);
                self.spawn(key, writes, None, working);
            }
            Key::ReplicaSet(namespace, _) => {
                let doubted = self.doubted(&key, namespace);
                if doubted.is_empty() {
                    let (writes, again) = self.decide(&key);
                    return self.spawn(key, writes, again, working);
                }
                let namespace = namespace.clone();
                working.spawn(async move {
                    let (made, result) = ask_for(&writer.client, &namespace, doubted).await;
                    Worked { key, made, result, again: Some(0) }
                });
            }
            Key::Node(name) if get(&self.caches.nodes, "", name).is_none() => {
                self.first_seen.remove(name);
                let (name, pods) = (name.clone(), self.caches.pods.state());
                working.spawn(async move {
                    let (made, result) = end_orphans(&writer, &name, &pods).await;
                    Worked { key, made, result, again: None }
                });
            }
            _ => {
                let (writes, again) = self.decide(&key);
                self.spawn(key, writes, again, working);
            }
        }
    }

    fn spawn(&self, key: Key, writes: Vec<Write>, again: Option<u64>, working: &mut JoinSet<Worked>) {
        let writer = self.writer.clone();
        working.spawn(async move {
            let (made, result) = execute(&writer, &writes).await;
            Worked { key, made, result, again }
        });
    }

    /// Pods that a ReplicaSet made and that aren't shown though they should be.
    fn doubted(&self, key: &Key, namespace: &str) -> Vec<String> {
        let now = self.now_ms();
        self.unseen.get(key).map_or_else(Vec::new, |u| u.doubted(&of_namespace(&self.caches.pods, namespace), now))
    }

    fn furnish(&self, object: &std::sync::Arc<Namespace>, name: &str) -> Vec<Write> {
        namespace::reconcile(&namespace::Observed {
            namespace: object.clone(),
            service_account: get(&self.caches.accounts, name, "default"),
            root_ca: get(&self.caches.root_cas, name, namespace::ROOT_CA),
            root_ca_pem: self.config.root_ca.clone(),
        })
    }

    /// The writes that a key's controller asks for, and after how long to look again.
    fn decide(&mut self, key: &Key) -> (Vec<Write>, Option<u64>) {
        let unix = Timestamp::now().as_second();
        let now = Timestamp::from_second(unix).map_or_else(|_| String::new(), |t| t.to_string());
        let seconds = |left: Option<i64>| left.and_then(|s| u64::try_from(s.max(1)).ok()).map(|s| s * 1000);
        match key {
            Key::Deployment(ns, name) => {
                let Some(deployment) = get(&self.caches.deployments, ns, name) else { return (Vec::new(), None) };
                let sets = of_namespace(&self.caches.replica_sets, ns);
                let pods = of_namespace(&self.caches.pods, ns);
                let remains = |set: &&std::sync::Arc<k8s_openapi::api::apps::v1::ReplicaSet>| {
                    let uid = set.metadata.uid.as_deref().unwrap_or("");
                    pods.iter().any(|pod| controllers_core::owner::is_controlled_by(&pod.metadata, uid))
                };
                let pods_remain = sets.iter().filter(remains).filter_map(|set| set.metadata.name.clone()).collect();
                let observed = deployment::Observed { deployment, sets, pods_remain, now, unix };
                (deployment::reconcile(&observed), seconds(deployment::next_look(&observed)))
            }
            Key::ReplicaSet(ns, name) => {
                let Some(set) = get(&self.caches.replica_sets, ns, name) else {
                    self.unseen.remove(key);
                    return (Vec::new(), None);
                };
                let pods = of_namespace(&self.caches.pods, ns);
                // O1.
                let now = self.now_ms();
                let unseen = self.unseen.get_mut(key);
                let (creating, deleting) = unseen.map_or_else(Default::default, |u| u.not_seen_yet(&pods, now));
                let observed = replica_set::Observed { set, pods, creating, deleting, now: unix };
                (replica_set::reconcile(&observed), seconds(replica_set::next_look(&observed)))
            }
            Key::Service(ns, name) => {
                let Some(service) = get(&self.caches.services, ns, name) else { return (Vec::new(), None) };
                let (pods, slices) = (of_namespace(&self.caches.pods, ns), of_namespace(&self.caches.slices, ns));
                (endpoint_slice::reconcile(&endpoint_slice::Observed { service, pods, slices }), None)
            }
            Key::Node(name) => {
                let Some(object) = get(&self.caches.nodes, "", name) else { return (Vec::new(), None) };
                let first_seen = *self.first_seen.entry(name.clone()).or_insert(unix);
                let bound = |pod: &std::sync::Arc<k8s_openapi::api::core::v1::Pod>| {
                    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(name.as_str())
                };
                let pods = self.caches.pods.state().into_iter().filter(bound).collect();
                let lease = get(&self.caches.leases, "kube-node-lease", name);
                (node::reconcile(&node::Observed { node: object, lease, pods, first_seen, now, unix }), None)
            }
            Key::Namespace(_) | Key::Object(_) => (Vec::new(), None),
        }
    }
}

/// Asks the API which of these pods are there, and which are gone.
async fn ask_for(client: &Client, namespace: &str, names: Vec<String>) -> (Made, Result<(), ExecuteError>) {
    let mut made = Made::default();
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    for name in names {
        match api.get_opt(&name).await {
            Ok(None) => made.gone.push(name),
            // The informer is late.
            Ok(Some(_)) => made.created.push(name),
            Err(error) => return (made, Err(error.into())),
        }
    }
    (made, Ok(()))
}

/// Ends the pods of a node that the informer doesn't show, once the API says that it is gone: it may be new.
async fn end_orphans(writer: &Writer, node: &str, pods: &[std::sync::Arc<Pod>]) -> (Made, Result<(), ExecuteError>) {
    let writes = node::orphans(node, pods.iter());
    if writes.is_empty() {
        return (Made::default(), Ok(()));
    }
    match Api::<Node>::all(writer.client.clone()).get_opt(node).await {
        Ok(None) => execute(writer, &writes).await,
        Ok(Some(_)) => (Made::default(), Ok(())),
        Err(error) => (Made::default(), Err(error.into())),
    }
}

/// What the API says of owners that the graph doesn't know.
#[derive(Default)]
struct Owners {
    /// Not there, or another object is under the name.
    gone: BTreeSet<String>,
    /// Whether one is there.
    is_one_there: bool,
}

/// Asks the API which owners are gone.
async fn check_owners(
    client: &Client,
    owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
    namespace: &str,
) -> Result<Owners, ExecuteError> {
    let mut said = Owners::default();
    for owner in owners {
        let (group, version) = api::gvk::split_api_version(&owner.api_version);
        // An owner of an unknown kind can't be looked at: it counts as there.
        let Some(resource) = api::resources::by_kind(group, version, &owner.kind) else { continue };
        let scope = if resource.namespaced { namespace } else { "" };
        let path = format!("{}/{}", collection(&owner.api_version, &owner.kind, scope)?, owner.name);
        match client.request::<Value>(Request::get(path).body(Vec::new())?).await {
            Ok(found) if found.pointer("/metadata/uid").and_then(Value::as_str) == Some(&owner.uid) => {
                said.is_one_there = true;
            }
            Ok(_) => {
                said.gone.insert(owner.uid.clone());
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                said.gone.insert(owner.uid.clone());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(said)
}

/// Counts what is left in a namespace and has it deleted.
async fn empty_namespace(writer: Writer, key: Key, namespace: &Namespace) -> Worked {
    let name = namespace.metadata.name.as_deref().unwrap_or("");
    let (made, result, more) = match remaining(&writer.client, name).await {
        Err(error) => (Made::default(), Err(error), true),
        Ok(left) => {
            let (made, result) = execute(&writer, &namespace::empty(namespace, &left)).await;
            (made, result, !left.is_empty())
        }
    };
    Worked { key, made, result, again: more.then_some(EMPTYING_PAUSE_MS) }
}

async fn remaining(client: &Client, namespace: &str) -> Result<Vec<Remaining>, ExecuteError> {
    const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let verbs = ["list", "delete", "deletecollection"];
    let resources = api::resources::all()
        .iter()
        .filter(|r| r.namespaced && r.subresource.is_none() && verbs.iter().all(|v| r.has_verb(v)));
    let mut all = Vec::new();
    for resource in resources {
        let path = collection(&resource.api_version(), resource.kind, namespace)?;
        let request = Request::get(path).header(http::header::ACCEPT, METADATA).body(Vec::new())?;
        let list: Value = client.request(request).await?;
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        if !items.is_empty() {
            let deleting = items.iter().filter(|i| i.pointer("/metadata/deletionTimestamp").is_some()).count();
            all.push(Remaining {
                api_version: resource.api_version(),
                kind: resource.kind.to_owned(),
                count: items.len(),
                deleting,
            });
        }
    }
    Ok(all)
}
