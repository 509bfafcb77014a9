//! Watches: one task for each kind, all into one channel.
//!
//! What was known before a new listing and isn't in it went unseen: the task says so.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, ReplicationController, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use scheduler_core::groups::{Group, GroupKind, GroupSelector};
use scheduler_core::state::Seen;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pause after an interrupted watch.
const PAUSE: Duration = Duration::from_millis(200);

/// What the owner is told.
#[derive(Debug)]
pub(crate) enum Told {
    Seen(Seen),
    /// One kind was listed for the first time.
    Listed,
}

/// How many kinds are watched, each of which is once [`Told::Listed`].
pub(crate) const KINDS: usize = 6;

/// How a kind is told of: by a key that stays with the object.
struct Kind<K> {
    key: fn(&K) -> String,
    seen: fn(K) -> Seen,
    gone: fn(String) -> Seen,
}

fn place(metadata: &ObjectMeta) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

fn group(kind: GroupKind, place: &str) -> Group {
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    Group { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Starts the watches.
pub(crate) fn start(client: &Client, told: &mpsc::Sender<Told>, shutdown: &CancellationToken) {
    let pods = Kind::<Pod> {
        key: |pod| pod.metadata.uid.clone().unwrap_or_default(),
        seen: |pod| Seen::Pod(Box::new(pod)),
        gone: Seen::PodGone,
    };
    let nodes = Kind::<Node> {
        key: |node| node.metadata.name.clone().unwrap_or_default(),
        seen: |node| Seen::Node(Box::new(node)),
        gone: Seen::NodeGone,
    };
    let services = Kind::<Service> {
        key: |service| place(&service.metadata),
        seen: |service| {
            let selector = service.spec.and_then(|spec| spec.selector).map(GroupSelector::Labels);
            Seen::Group(group(GroupKind::Service, &place(&service.metadata)), selector)
        },
        gone: |place| Seen::Group(group(GroupKind::Service, &place), None),
    };
    let controllers = Kind::<ReplicationController> {
        key: |rc| place(&rc.metadata),
        seen: |rc| {
            let selector = rc.spec.and_then(|spec| spec.selector).map(GroupSelector::Labels);
            Seen::Group(group(GroupKind::ReplicationController, &place(&rc.metadata)), selector)
        },
        gone: |place| Seen::Group(group(GroupKind::ReplicationController, &place), None),
    };
    let sets = Kind::<ReplicaSet> {
        key: |set| place(&set.metadata),
        seen: |set| {
            let selector = set.spec.map(|spec| GroupSelector::Selector(spec.selector));
            Seen::Group(group(GroupKind::ReplicaSet, &place(&set.metadata)), selector)
        },
        gone: |place| Seen::Group(group(GroupKind::ReplicaSet, &place), None),
    };
    let stateful = Kind::<StatefulSet> {
        key: |set| place(&set.metadata),
        seen: |set| {
            let selector = set.spec.map(|spec| GroupSelector::Selector(spec.selector));
            Seen::Group(group(GroupKind::StatefulSet, &place(&set.metadata)), selector)
        },
        gone: |place| Seen::Group(group(GroupKind::StatefulSet, &place), None),
    };
    tokio::spawn(watch(Api::all(client.clone()), pods, told.clone(), shutdown.clone()));
    tokio::spawn(watch(Api::all(client.clone()), nodes, told.clone(), shutdown.clone()));
    tokio::spawn(watch(Api::all(client.clone()), services, told.clone(), shutdown.clone()));
    tokio::spawn(watch(Api::all(client.clone()), controllers, told.clone(), shutdown.clone()));
    tokio::spawn(watch(Api::all(client.clone()), sets, told.clone(), shutdown.clone()));
    tokio::spawn(watch(Api::all(client.clone()), stateful, told.clone(), shutdown.clone()));
}

/// Watches one kind until shutdown, or until nobody listens.
async fn watch<K>(api: Api<K>, kind: Kind<K>, told: mpsc::Sender<Told>, shutdown: CancellationToken)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut stream = watcher(api, watcher::Config::default()).boxed();
    let (mut known, mut listed, mut first) = (HashSet::new(), HashSet::new(), true);
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => event,
        };
        let mut changes = Vec::new();
        match event {
            None => return,
            Some(Err(error)) => {
                if first {
                    tracing::warn!(%error, kind = %K::kind(&()), "can't list; nothing is scheduled before");
                } else {
                    tracing::debug!(%error, kind = %K::kind(&()), "a watch was interrupted");
                }
                tokio::time::sleep(PAUSE).await;
            }
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(object))) => {
                let key = (kind.key)(&object);
                known.insert(key.clone());
                listed.insert(key);
                changes.push(Told::Seen((kind.seen)(object)));
            }
            Some(Ok(Event::InitDone)) => {
                let gone: Vec<String> = known.difference(&listed).cloned().collect();
                for key in gone {
                    known.remove(&key);
                    changes.push(Told::Seen((kind.gone)(key)));
                }
                listed = HashSet::new();
                if std::mem::take(&mut first) {
                    changes.push(Told::Listed);
                }
            }
            Some(Ok(Event::Apply(object))) => {
                known.insert((kind.key)(&object));
                changes.push(Told::Seen((kind.seen)(object)));
            }
            Some(Ok(Event::Delete(object))) => {
                let key = (kind.key)(&object);
                known.remove(&key);
                changes.push(Told::Seen((kind.gone)(key)));
            }
        }
        for change in changes {
            if told.send(change).await.is_err() {
                return;
            }
        }
    }
}
