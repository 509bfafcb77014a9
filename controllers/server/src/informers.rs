//! Informers: what is observed of each kind, and which keys a change concerns.

use std::fmt::Debug;
use std::sync::Arc;

use controllers_core::queue::Key;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{Store, reflector, store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::collect::Change;

/// What the owner is told.
pub(crate) enum Told {
    /// These may need something.
    Keys(Vec<Key>),
    /// The owner graph changed.
    Graph(Change),
}

/// Everything observed, by kind.
#[derive(Clone)]
pub(crate) struct Caches {
    pub(crate) deployments: Store<Deployment>,
    pub(crate) replica_sets: Store<ReplicaSet>,
    pub(crate) pods: Store<Pod>,
    pub(crate) services: Store<Service>,
    pub(crate) slices: Store<EndpointSlice>,
    pub(crate) namespaces: Store<Namespace>,
    pub(crate) accounts: Store<ServiceAccount>,
    pub(crate) root_cas: Store<ConfigMap>,
    pub(crate) nodes: Store<Node>,
    pub(crate) leases: Store<Lease>,
}

fn place(metadata: &ObjectMeta) -> (String, String) {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn owners(metadata: &ObjectMeta) -> Vec<Key> {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let owner = controllers_core::owner::controller(metadata);
    let key = owner.and_then(|owner| match owner.kind.as_str() {
        "ReplicaSet" => Some(Key::ReplicaSet(namespace, owner.name.clone())),
        "Deployment" => Some(Key::Deployment(namespace, owner.name.clone())),
        _ => None,
    });
    key.into_iter().collect()
}

/// Watches one kind; each change is translated to keys.
fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    told: &mpsc::Sender<Told>,
    shutdown: &CancellationToken,
    keys: impl Fn(&K) -> Vec<Key> + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = store();
    let (told, shutdown, shown) = (told.clone(), shutdown.clone(), reader.clone());
    tokio::spawn(async move {
        let mut stream = reflector(writer, watcher(api, config)).boxed();
        let mut before = Vec::new();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            let keys = match event {
                Some(Ok(Event::Apply(object) | Event::Delete(object))) => keys(&object),
                Some(Ok(Event::Init)) => {
                    before = shown.state();
                    Vec::new()
                }
                // The store shows a listing once it is complete; what isn't in it any more went unseen.
                Some(Ok(Event::InitApply(_))) => Vec::new(),
                Some(Ok(Event::InitDone)) => {
                    before.drain(..).chain(shown.state()).flat_map(|object| keys(&object)).collect()
                }
                Some(Err(error)) => {
                    // The stream itself goes on, with a pause of its own.
                    tracing::debug!(%error, "a watch was interrupted");
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    Vec::new()
                }
                None => return,
            };
            if !keys.is_empty() && told.send(Told::Keys(keys)).await.is_err() {
                return;
            }
        }
    });
    reader
}

/// Starts the informers.
pub(crate) fn start(client: &Client, told: &mpsc::Sender<Told>, shutdown: &CancellationToken) -> Caches {
    let all = watcher::Config::default;
    let services = watch(Api::<Service>::all(client.clone()), all(), told, shutdown, |s| {
        let (namespace, name) = place(&s.metadata);
        vec![Key::Service(namespace, name)]
    });
    let replica_sets = watch(Api::<ReplicaSet>::all(client.clone()), all(), told, shutdown, |set| {
        let (namespace, name) = place(&set.metadata);
        let mut keys = owners(&set.metadata);
        keys.push(Key::ReplicaSet(namespace, name));
        keys
    });
    let (selected_by, adopters) = (services.clone(), replica_sets.clone());
    let pods = watch(Api::<Pod>::all(client.clone()), all(), told, shutdown, move |pod| {
        let mut keys = owners(&pod.metadata);
        // Nobody's pod concerns who would adopt it.
        let sets = adopters.state().into_iter().filter(|set| controllers_core::replica_set::would_adopt(set, pod));
        keys.extend(sets.map(|set| {
            let (namespace, name) = place(&set.metadata);
            Key::ReplicaSet(namespace, name)
        }));
        keys.extend(services_of(&selected_by, pod));
        keys
    });
    Caches {
        services,
        pods,
        deployments: watch(Api::<Deployment>::all(client.clone()), all(), told, shutdown, |d| {
            let (namespace, name) = place(&d.metadata);
            vec![Key::Deployment(namespace, name)]
        }),
        replica_sets,
        slices: watch(Api::<EndpointSlice>::all(client.clone()), all(), told, shutdown, |slice| {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            service.map(|name| Key::Service(namespace, name.clone())).into_iter().collect()
        }),
        namespaces: watch(Api::<Namespace>::all(client.clone()), all(), told, shutdown, |n| {
            vec![Key::Namespace(place(&n.metadata).1)]
        }),
        accounts: watch(
            Api::<ServiceAccount>::all(client.clone()),
            all().fields("metadata.name=default"),
            told,
            shutdown,
            |a| vec![Key::Namespace(place(&a.metadata).0)],
        ),
        root_cas: watch(
            Api::<ConfigMap>::all(client.clone()),
            all().fields(&format!("metadata.name={}", controllers_core::namespace::ROOT_CA)),
            told,
            shutdown,
            |map| vec![Key::Namespace(place(&map.metadata).0)],
        ),
        nodes: watch(Api::<Node>::all(client.clone()), all(), told, shutdown, |n| {
            vec![Key::Node(place(&n.metadata).1)]
        }),
        leases: watch(Api::<Lease>::namespaced(client.clone(), "kube-node-lease"), all(), told, shutdown, |_| {
            Vec::new()
        }),
    }
}

/// The services whose selector a pod matches.
fn services_of(services: &Store<Service>, pod: &Pod) -> Vec<Key> {
    let labels = pod.metadata.labels.as_ref();
    let selects = |service: &Arc<Service>| {
        let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
        service.metadata.namespace == pod.metadata.namespace
            && selector.is_some_and(|s| s.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)))
    };
    let key = |service: &Arc<Service>| {
        let (namespace, name) = place(&service.metadata);
        Key::Service(namespace, name)
    };
    services.state().iter().filter(|s| selects(s)).map(key).collect()
}
