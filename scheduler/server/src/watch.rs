//! Watches: one task for each kind, all into one channel.
//!
//! What was known before a new listing and isn't in it went unseen: the task says so.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, ReplicationController, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, Resource};
use scheduler_core::groups::{Group, GroupKind, GroupSelector};
use scheduler_core::state::Seen;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Pause after an interrupted watch.
const PAUSE: Duration = Duration::from_millis(200);
/// Objects listed at once.
const PAGE: u32 = 500;

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
    /// How it is said that all up to a revision was told, if that matters.
    reached: Option<fn(u64) -> Seen>,
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
        reached: Some(Seen::PodsUpTo),
    };
    let nodes = Kind::<Node> {
        key: |node| node.metadata.name.clone().unwrap_or_default(),
        seen: |node| Seen::Node(Box::new(node)),
        gone: Seen::NodeGone,
        reached: None,
    };
    let services = Kind::<Service> {
        key: |service| place(&service.metadata),
        seen: |service| {
            let selector = service.spec.and_then(|spec| spec.selector).map(GroupSelector::Labels);
            Seen::Group(group(GroupKind::Service, &place(&service.metadata)), selector)
        },
        gone: |place| Seen::Group(group(GroupKind::Service, &place), None),
        reached: None,
    };
    let controllers = Kind::<ReplicationController> {
        key: |rc| place(&rc.metadata),
        seen: |rc| {
            let selector = rc.spec.and_then(|spec| spec.selector).map(GroupSelector::Labels);
            Seen::Group(group(GroupKind::ReplicationController, &place(&rc.metadata)), selector)
        },
        gone: |place| Seen::Group(group(GroupKind::ReplicationController, &place), None),
        reached: None,
    };
    let sets = Kind::<ReplicaSet> {
        key: |set| place(&set.metadata),
        seen: |set| {
            let selector = set.spec.map(|spec| GroupSelector::Selector(spec.selector));
            Seen::Group(group(GroupKind::ReplicaSet, &place(&set.metadata)), selector)
        },
        gone: |place| Seen::Group(group(GroupKind::ReplicaSet, &place), None),
        reached: None,
    };
    let stateful = Kind::<StatefulSet> {
        key: |set| place(&set.metadata),
        seen: |set| {
            let selector = set.spec.map(|spec| GroupSelector::Selector(spec.selector));
            Seen::Group(group(GroupKind::StatefulSet, &place(&set.metadata)), selector)
        },
        gone: |place| Seen::Group(group(GroupKind::StatefulSet, &place), None),
        reached: None,
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
    let mut watch = Watch { api, kind, told, known: HashSet::new(), first: true };
    tokio::select! {
        () = shutdown.cancelled() => {}
        Err(Deaf) = watch.run() => {}
    }
}

/// Nobody listens any more.
struct Deaf;

/// The watch of one kind.
struct Watch<K> {
    api: Api<K>,
    kind: Kind<K>,
    told: mpsc::Sender<Told>,
    /// What was told and isn't gone.
    known: HashSet<String>,
    /// Whether nothing was listed yet.
    first: bool,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    async fn run(&mut self) -> Result<Infallible, Deaf> {
        loop {
            match self.list().await {
                Ok((objects, version)) => {
                    self.listed(objects, &version).await?;
                    self.follow(version).await?;
                }
                Err(error) if self.first => {
                    tracing::warn!(%error, kind = %K::kind(&()), "can't list; nothing is scheduled before");
                }
                Err(error) => tracing::debug!(%error, kind = %K::kind(&()), "can't list"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All objects, and the version as of which they are.
    async fn list(&self) -> kube::Result<(Vec<K>, String)> {
        let mut params = ListParams::default().limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let page = self.api.list(&params).await?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
                None => return Ok((objects, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    async fn listed(&mut self, objects: Vec<K>, version: &str) -> Result<(), Deaf> {
        let mut gone = std::mem::take(&mut self.known);
        for object in objects {
            let key = (self.kind.key)(&object);
            gone.remove(&key);
            self.known.insert(key);
            self.tell(Told::Seen((self.kind.seen)(object))).await?;
        }
        for key in gone {
            self.tell(Told::Seen((self.kind.gone)(key))).await?;
        }
        self.reached(version).await?;
        if std::mem::take(&mut self.first) { self.tell(Told::Listed).await } else { Ok(()) }
    }

    /// Watches from a version on, until a new listing is needed.
    async fn follow(&mut self, mut version: String) -> Result<(), Deaf> {
        loop {
            match self.api.watch(&WatchParams::default(), &version).await {
                Ok(stream) => {
                    let mut stream = stream.boxed();
                    while let Some(event) = stream.next().await {
                        match event {
                            Ok(WatchEvent::Error(status)) if status.code == 410 => return Ok(()),
                            Ok(WatchEvent::Error(status)) => {
                                tracing::debug!(%status, kind = %K::kind(&()), "a watch ended");
                                break;
                            }
                            Ok(event) => self.event(event, &mut version).await?,
                            Err(error) => {
                                tracing::debug!(%error, kind = %K::kind(&()), "a watch was interrupted");
                                break;
                            }
                        }
                    }
                }
                Err(kube::Error::Api(status)) if status.code == 410 => return Ok(()),
                Err(error) => tracing::debug!(%error, kind = %K::kind(&()), "can't watch"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn event(&mut self, event: WatchEvent<K>, version: &mut String) -> Result<(), Deaf> {
        let is_gone = matches!(event, WatchEvent::Deleted(_));
        let reached = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                let (key, reached) = ((self.kind.key)(&object), object.meta().resource_version.clone());
                if is_gone {
                    self.known.remove(&key);
                    self.tell(Told::Seen((self.kind.gone)(key))).await?;
                } else {
                    self.known.insert(key);
                    self.tell(Told::Seen((self.kind.seen)(object))).await?;
                }
                reached
            }
            WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
            WatchEvent::Error(_) => None,
        };
        if let Some(reached) = reached {
            self.reached(&reached).await?;
            *version = reached;
        }
        Ok(())
    }

    /// Everything up to a version was told: what it comes after, never before.
    async fn reached(&self, version: &str) -> Result<(), Deaf> {
        match (self.kind.reached, version.parse()) {
            (Some(seen), Ok(revision)) => self.tell(Told::Seen(seen(revision))).await,
            _ => Ok(()),
        }
    }

    async fn tell(&self, told: Told) -> Result<(), Deaf> {
        self.told.send(told).await.map_err(|_| Deaf)
    }
}
