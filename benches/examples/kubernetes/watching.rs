//! Clients that watch through the apiserver all along: at the end they must have what is there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kube::api::{Api as Objects, ApiResource, DynamicObject};
use kube::runtime::watcher::{Config, Event, watcher};

use super::api::Api;

/// A watch that is behind for longer is stuck.
const CURRENT_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// One watcher and what it has seen.
pub(crate) struct Watcher {
    resource: ApiResource,
    seen: Arc<Mutex<BTreeMap<String, String>>>,
    /// Events and beginnings anew.
    pub(crate) events: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Watches all objects of a resource of the core group.
    pub(crate) fn start(api: &Api, kind: &str) -> Self {
        let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("", "v1", kind));
        let objects: Objects<DynamicObject> = Objects::all_with(api.client(), &resource);
        let (seen, events) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicU64::new(0)));
        let (to, counted) = (seen.clone(), events.clone());
        let task = tokio::spawn(async move {
            let mut stream =
                Box::pin(kube::runtime::WatchStreamExt::default_backoff(watcher(objects, Config::default())));
            while let Some(event) = stream.next().await {
                counted.fetch_add(1, Ordering::Relaxed);
                // Errors are what the watcher begins anew after.
                if let Ok(event) = event {
                    note(&mut to.lock().unwrap_or_else(PoisonError::into_inner), event);
                }
            }
        });
        Self { resource, seen, events, task }
    }

    /// Waits until the watcher has just what a list has; how many objects.
    pub(crate) async fn is_current(&self, api: &Api) -> Result<usize> {
        let objects: Objects<DynamicObject> = Objects::all_with(api.client(), &self.resource);
        let begun = Instant::now();
        loop {
            let listed = objects.list(&kube::api::ListParams::default()).await.context("listing")?;
            let listed: BTreeMap<String, String> = listed.items.iter().map(entry).collect();
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if seen == listed {
                return Ok(seen.len());
            }
            ensure!(
                begun.elapsed() < CURRENT_MAX,
                "a watcher of {} has {} objects, there are {}",
                self.resource.plural,
                seen.len(),
                listed.len()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(crate) fn resource(&self) -> &str {
        &self.resource.plural
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn entry(object: &DynamicObject) -> (String, String) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let metadata = &object.metadata;
    (format!("{}/{}", text(&metadata.namespace), text(&metadata.name)), text(&metadata.resource_version))
}

fn note(seen: &mut BTreeMap<String, String>, event: Event<DynamicObject>) {
    match event {
        Event::Init => seen.clear(),
        Event::InitApply(object) | Event::Apply(object) => {
            let (name, version) = entry(&object);
            seen.insert(name, version);
        }
        Event::Delete(object) => {
            seen.remove(&entry(&object).0);
        }
        Event::InitDone => {}
    }
}
