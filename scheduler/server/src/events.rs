//! Events: what the scheduler tells people, as `core/v1` Event objects.
//!
//! Pure but for the sending: what to write is decided by [`Recorder`], a bounded memory of what was said.
//! The same words about the same pod count up one event.
//!
//! Source: client-go `tools/record/events_cache.go`.

use std::collections::{HashMap, VecDeque};

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::write::{JSON, STRATEGIC, WriteError, now, send};

/// Events that wait to be written; further ones are dropped: they are for people, and nobody reads a thousand.
pub(crate) const WAITING_MAX: usize = 1000;
/// Words that are remembered, to count up their event.
const REMEMBERED_MAX: usize = 4096;
/// Bytes of an event's message, as the API allows.
const MESSAGE_MAX: usize = 1024;

/// Something to tell people.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) pod: std::sync::Arc<Pod>,
    /// `Normal` or `Warning`.
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

type Key = (String, &'static str, String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    name: String,
    count: u64,
}

/// What to write of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Writing {
    Create { body: Value },
    CountUp { name: String, body: Value },
}

/// What was said, the oldest first.
#[derive(Debug, Default)]
struct Recorder {
    said: HashMap<Key, Said>,
    order: VecDeque<Key>,
    names: u64,
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn key(event: &Event) -> Key {
    (event.pod.metadata.uid.clone().unwrap_or_default(), event.reason, event.message.clone())
}

impl Recorder {
    /// What to write; `stamp` makes names differ from those of other runs.
    fn record(&mut self, event: &Event, component: &str, now: &str, stamp: i128) -> Writing {
        let key = key(event);
        if let Some(said) = self.said.get_mut(&key) {
            said.count += 1;
            let body = json!({"count": said.count, "lastTimestamp": now, "message": cut(&event.message)});
            return Writing::CountUp { name: said.name.clone(), body };
        }
        self.names += 1;
        let pod = &event.pod.metadata;
        let name = format!("{}.{stamp:x}{:x}", pod.name.as_deref().unwrap_or_default(), self.names % 0x1000);
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.said.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.said.insert(key, Said { name: name.clone(), count: 1 });
        Writing::Create {
            body: json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"name": name, "namespace": pod.namespace},
                "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name,
                    "uid": pod.uid, "resourceVersion": pod.resource_version},
                "type": event.kind, "reason": event.reason, "message": cut(&event.message),
                "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
                "firstTimestamp": now, "lastTimestamp": now, "count": 1,
            }),
        }
    }

    /// An event that was said isn't there any more.
    fn forget(&mut self, event: &Event) {
        let key = key(event);
        self.said.remove(&key);
        self.order.retain(|other| *other != key);
    }
}

/// Writes events, one after the other, until nobody sends any more or shutdown.
pub(crate) async fn run(
    client: Client,
    component: String,
    mut waiting: mpsc::Receiver<Event>,
    shutdown: CancellationToken,
) {
    let mut recorder = Recorder::default();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = waiting.recv() => event,
        };
        let Some(event) = event else { return };
        let mut result = write(&client, &mut recorder, &event, &component).await;
        if matches!(&result, Err(error) if error.is(StatusCode::NOT_FOUND)) {
            // The event has expired, so it begins anew; or the namespace is gone, and this fails too.
            recorder.forget(&event);
            result = write(&client, &mut recorder, &event, &component).await;
        }
        if let Err(error) = result {
            recorder.forget(&event);
            tracing::debug!(%error, reason = event.reason, "an event wasn't written");
        }
    }
}

async fn write(client: &Client, recorder: &mut Recorder, event: &Event, component: &str) -> Result<(), WriteError> {
    let stamp = jiff::Timestamp::now().as_nanosecond();
    let namespace = event.pod.metadata.namespace.as_deref().unwrap_or_default();
    let collection = format!("/api/v1/namespaces/{namespace}/events");
    match recorder.record(event, component, &now(), stamp) {
        Writing::Create { body } => send(client, Method::POST, &collection, JSON, &body).await?,
        Writing::CountUp { name, body } => {
            send(client, Method::PATCH, &format!("{collection}/{name}"), STRATEGIC, &body).await?
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn event(uid: &str, message: &str) -> Event {
        let pod = json!({"metadata": {"uid": uid, "name": "p", "namespace": "ns"}});
        let pod = Arc::new(serde_json::from_value(pod).unwrap());
        Event { pod, kind: "Warning", reason: "FailedScheduling", message: message.to_owned() }
    }

    #[test]
    fn the_same_words_count_up() {
        let mut recorder = Recorder::default();
        let mut record = |event: &Event| match recorder.record(event, "default-scheduler", "now", 0xab) {
            Writing::Create { body } => format!("create {} {}", body["metadata"]["name"], body["count"]),
            Writing::CountUp { name, body } => format!("{name} {}", body["count"]),
        };
        let out =
            [record(&event("u", "a")), record(&event("u", "a")), record(&event("u", "b")), record(&event("v", "a"))];
        assert_eq!(out, ["create \"p.ab1\" 1", "p.ab1 2", "create \"p.ab2\" 1", "create \"p.ab3\" 1"]);
    }

    #[test]
    fn the_memory_is_bounded_and_forgets() {
        let mut recorder = Recorder::default();
        for n in 0..2 * REMEMBERED_MAX {
            recorder.record(&event(&n.to_string(), "a"), "c", "now", 1);
        }
        assert_eq!((recorder.said.len(), recorder.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        let last = event(&(2 * REMEMBERED_MAX - 1).to_string(), "a");
        recorder.forget(&last);
        assert!(matches!(recorder.record(&last, "c", "now", 1), Writing::Create { .. }));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(cut(&"é".repeat(600)).len(), 1024);
        assert_eq!(cut(&format!("a{}", "é".repeat(600))).len(), 1023);
    }
}
