//! Events about pods and the node: counted when they repeat, dropped rather than waited for.
//!
//! Source: client-go `tools/record` (correlation by object, reason and message).

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; more are dropped, with a line in the log.
const WAITING_MAX: usize = 1000;
/// Events whose repetitions are counted.
const REMEMBERED_MAX: usize = 1000;

/// One thing that happened.
#[derive(Debug, Clone)]
struct Happened {
    about: ObjectReference,
    warning: bool,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Takes events; clones write to the same place.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    sender: mpsc::Sender<Happened>,
}

impl Recorder {
    /// Starts writing events in the name of the node's agent.
    pub(crate) fn start(client: Client, node: &str, shutdown: CancellationToken) -> Self {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(client, node.to_owned(), inbox, shutdown));
        Self { sender }
    }

    /// Records something about a pod, or one container of it.
    pub(crate) fn pod(&self, pod: &Pod, container: Option<&str>, warning: bool, reason: &str, message: &str) {
        let meta = &pod.metadata;
        let init = pod
            .spec
            .iter()
            .flat_map(|s| s.init_containers.iter().flatten())
            .any(|c| Some(c.name.as_str()) == container);
        let list = if init { "initContainers" } else { "containers" };
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: container.map(|name| format!("spec.{list}{{{name}}}")),
        };
        self.record(about, warning, reason, message);
    }

    /// Records something about the node.
    pub(crate) fn node(&self, name: &str, warning: bool, reason: &str, message: &str) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.record(about, warning, reason, message);
    }

    fn record(&self, about: ObjectReference, warning: bool, reason: &str, message: &str) {
        let (reason, message) = (reason.to_owned(), message.to_owned());
        let happened = Happened { about, warning, reason, message, at: Timestamp::now() };
        if let Err(error) = self.sender.try_send(happened) {
            tracing::warn!(%error, "an event was dropped");
        }
    }
}

type Identity = (String, String, String, String);

fn identity(happened: &Happened) -> Identity {
    let about = &happened.about;
    (
        about.uid.clone().unwrap_or_default(),
        about.field_path.clone().unwrap_or_default(),
        happened.reason.clone(),
        happened.message.clone(),
    )
}

async fn write_all(client: Client, node: String, mut inbox: mpsc::Receiver<Happened>, shutdown: CancellationToken) {
    let mut known: BTreeMap<Identity, (String, i32)> = BTreeMap::new();
    let mut order: VecDeque<Identity> = VecDeque::new();
    loop {
        let happened = tokio::select! {
            () = shutdown.cancelled() => return,
            next = inbox.recv() => match next {
                Some(happened) => happened,
                None => return,
            },
        };
        let id = identity(&happened);
        let namespace = happened.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api = Api::<Event>::namespaced(client.clone(), &namespace);
        let repeated = known.get(&id).cloned();
        let written = match repeated {
            Some((name, count)) => again(&api, &name, count + 1, happened.at).await.map(|()| (name, count + 1)),
            None => first(&api, &node, &happened).await.map(|name| (name, 1)),
        };
        match written {
            Ok(entry) => {
                if known.insert(id.clone(), entry).is_none() {
                    order.push_back(id);
                }
            }
            Err(error) => {
                // It may have expired: the next repetition makes a new one.
                known.remove(&id);
                order.retain(|other| *other != id);
                tracing::debug!(%error, reason = happened.reason, "an event was not written");
            }
        }
        while order.len() > REMEMBERED_MAX {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
    }
}

async fn again(api: &Api<Event>, name: &str, count: i32, at: Timestamp) -> Result<(), kube::Error> {
    let patch = serde_json::json!({"count": count, "lastTimestamp": Time(at)});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
}

async fn first(api: &Api<Event>, node: &str, happened: &Happened) -> Result<String, kube::Error> {
    let about = happened.about.clone();
    let base = about.name.clone().unwrap_or_default();
    let name = format!("{base}.{:x}", happened.at.as_nanosecond());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(about.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: about,
        type_: Some(if happened.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(happened.reason.clone()),
        message: Some(happened.message.clone()),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        first_timestamp: Some(Time(happened.at)),
        last_timestamp: Some(Time(happened.at)),
        count: Some(1),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await?;
    Ok(name)
}
