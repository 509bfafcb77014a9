//! Watching the metadata of everything, for the owner graph.

use std::collections::HashSet;

use controllers_core::graph::Object;
use controllers_core::write::Target;
use futures::StreamExt as _;
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::informers::Told;

/// A change of the graph.
pub(crate) enum Change {
    /// An object is as it is now.
    Seen(Box<Object>),
    /// An object of this uid is gone.
    Gone(String),
    /// Everything of one more kind was listed for the first time.
    Listed,
}

/// Resources whose objects own and are owned: all that can be watched and deleted, but events.
fn watched() -> impl Iterator<Item = &'static api::resources::Resource> {
    let verbs = ["list", "watch", "delete"];
    let preferred = |r: &api::resources::Resource| {
        // One version of each suffices.
        let mut versions = api::resources::group_versions().iter().filter(|gv| gv.group == r.group);
        versions
            .find(|gv| api::resources::find(gv.group, gv.version, r.name).is_some())
            .is_some_and(|gv| gv.version == r.version)
    };
    api::resources::all().iter().filter(move |r| {
        r.subresource.is_none() && r.name != "events" && verbs.iter().all(|v| r.has_verb(v)) && preferred(r)
    })
}

/// Starts a watch of each resource's metadata; returns how many kinds there are to be listed.
pub(crate) fn start(client: &Client, told: &mpsc::Sender<Told>, shutdown: &CancellationToken) -> usize {
    let mut kinds = 0;
    for resource in watched() {
        kinds += 1;
        let description = ApiResource {
            group: resource.group.to_owned(),
            version: resource.version.to_owned(),
            api_version: resource.api_version(),
            kind: resource.kind.to_owned(),
            plural: resource.name.to_owned(),
        };
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &description);
        tokio::spawn(watch(api, description, told.clone(), shutdown.clone()));
    }
    kinds
}

fn object(description: &ApiResource, seen: PartialObjectMeta<DynamicObject>) -> Option<Object> {
    let metadata = seen.metadata;
    Some(Object {
        target: Target {
            api_version: description.api_version.clone(),
            kind: description.kind.clone(),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name?,
        },
        uid: metadata.uid?,
        version: metadata.resource_version.unwrap_or_default(),
        owners: metadata.owner_references.unwrap_or_default(),
        finalizers: metadata.finalizers.unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
    })
}

async fn watch(
    api: Api<PartialObjectMeta<DynamicObject>>,
    description: ApiResource,
    told: mpsc::Sender<Told>,
    shutdown: CancellationToken,
) {
    let mut stream = watcher::watcher(api, watcher::Config::default()).boxed();
    // What was known before a new listing and isn't in it has gone unseen.
    let (mut known, mut listed) = (HashSet::new(), HashSet::new());
    let mut is_first = true;
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => event,
        };
        let mut changes = Vec::new();
        match event {
            None => return,
            Some(Err(error)) => {
                tracing::debug!(%error, kind = description.kind, "a watch was interrupted");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitDone)) => {
                changes.extend(known.difference(&listed).cloned().map(Change::Gone));
                known.retain(|uid: &String| listed.contains(uid));
                if std::mem::take(&mut is_first) {
                    changes.push(Change::Listed);
                }
            }
            Some(Ok(Event::Apply(seen) | Event::InitApply(seen))) => {
                if let Some(object) = object(&description, seen) {
                    known.insert(object.uid.clone());
                    listed.insert(object.uid.clone());
                    changes.push(Change::Seen(Box::new(object)));
                }
            }
            Some(Ok(Event::Delete(seen))) => {
                if let Some(uid) = seen.metadata.uid {
                    known.remove(&uid);
                    changes.push(Change::Gone(uid));
                }
            }
        }
        for change in changes {
            if told.send(Told::Graph(change)).await.is_err() {
                return;
            }
        }
    }
}
