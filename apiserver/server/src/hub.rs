//! Watch hub: one watch on the store feeds every client's watch.
//!
//! Problem. A thousand clients watch; the store should send each event once.
//! Idea.    One stream over `/registry/` is split by resource into topics. A
//!          topic keeps a bounded tail of recent events; a subscriber starts
//!          from the tail, or, if it asks for older ones, from the store itself.
//!
//! Invariants
//!   H1  A subscriber sees each event of its topic after its start exactly once, in revision order.
//!   H2  A subscriber that falls behind the channel is told ([`Next::Lagged`]), never skipped ahead.
//!   H3  `progress` is never ahead of what topics were given.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, WatchResponse};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::storage::{Storage, StorageError};

/// Events a topic's tail keeps at most.
const TAIL_EVENTS_MAX: usize = 1024;
/// Bytes a topic's tail keeps at most; beyond, the oldest go.
const TAIL_BYTES_MAX: usize = 1 << 20;
/// Events a subscriber may be behind before it is told to start anew.
const BACKLOG_EVENTS_MAX: usize = 1024;
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Prefix of everything the apiserver stores.
pub(crate) const ROOT: &str = "/registry/";

/// An object's state in an event, decoded at most once for all watchers.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) bytes: Bytes,
    decoded: OnceLock<Option<Arc<Value>>>,
}

impl State {
    fn new(bytes: Bytes) -> Self {
        Self { bytes, decoded: OnceLock::new() }
    }

    /// The decoded object without a resourceVersion; `None` if it isn't JSON.
    pub(crate) fn decoded(&self) -> Option<&Arc<Value>> {
        self.decoded.get_or_init(|| serde_json::from_slice(&self.bytes).ok().map(Arc::new)).as_ref()
    }
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) revision: i64,
    /// State after the change; `None` if the object was deleted.
    pub(crate) now: Option<State>,
    /// State before the change; `None` if it was created.
    pub(crate) before: Option<State>,
    /// The JSON watch frame, encoded once for all plain watchers.
    pub(crate) frame: OnceLock<Bytes>,
}

impl Change {
    fn size(&self) -> usize {
        let bytes = |state: &Option<State>| state.as_ref().map_or(0, |s| s.bytes.len());
        self.key.len() + bytes(&self.now) + bytes(&self.before)
    }
}

/// Turns etcd's events into changes.
///
/// # Errors
/// [`StorageError::Compacted`] if one doesn't say what was before it: compaction took that, and who watches couldn't be
/// told right, of a deletion not at all. Source: kube-apiserver `etcd3/watcher.go`, which ends such a watch as well.
pub(crate) fn changes(events: &[etcd_client::Event]) -> Result<Vec<Change>, StorageError> {
    events.iter().filter_map(|event| change(event).transpose()).collect()
}

fn change(event: &etcd_client::Event) -> Result<Option<Change>, StorageError> {
    let Some(kv) = event.kv() else { return Ok(None) };
    let creates = event.event_type() == EventType::Put && kv.create_revision() == kv.mod_revision();
    if !creates && event.prev_kv().is_none() {
        return Err(StorageError::Compacted);
    }
    let now = match event.event_type() {
        EventType::Put => Some(State::new(Bytes::copy_from_slice(kv.value()))),
        EventType::Delete => None,
    };
    let before = event.prev_kv().map(|prev| State::new(Bytes::copy_from_slice(prev.value())));
    let key = String::from_utf8_lossy(kv.key()).into_owned();
    Ok(Some(Change { key, revision: kv.mod_revision(), now, before, frame: OnceLock::new() }))
}

struct Topic {
    tail: VecDeque<Arc<Change>>,
    tail_bytes: usize,
    /// Events up to and including this revision may be missing from the tail.
    floor: i64,
    sender: broadcast::Sender<Arc<Change>>,
}

impl Topic {
    fn new(floor: i64) -> Self {
        // The channel's buffer is allocated on first use of a topic: most resources are never watched.
        Self { tail: VecDeque::new(), tail_bytes: 0, floor, sender: broadcast::Sender::new(BACKLOG_EVENTS_MAX) }
    }

    fn publish(&mut self, change: Arc<Change>) {
        self.tail_bytes += change.size();
        self.tail.push_back(change.clone());
        while self.tail.len() > TAIL_EVENTS_MAX || self.tail_bytes > TAIL_BYTES_MAX {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_bytes -= oldest.size();
            self.floor = oldest.revision;
        }
        // No receiver is no fault: the tail has it.
        let _ = self.sender.send(change);
    }
}

/// The hub. Shared by all requests.
pub(crate) struct Hub {
    topics: Mutex<HashMap<String, Topic>>,
    /// Revision up to which everything was published.
    progress: watch::Sender<i64>,
}

/// What a subscription yields.
pub(crate) enum Next {
    Change(Arc<Change>),
    /// The subscriber was too slow; it must list and watch anew.
    Lagged,
    /// The hub was stopped.
    Closed,
}

/// Where a subscriber begins.
pub(crate) enum Start {
    /// From the hub: the tail's events and what follows.
    Live(Subscription),
    /// Older than the tail: watch the store itself.
    History,
}

/// A subscriber's place in a topic.
pub(crate) struct Subscription {
    pending: VecDeque<Arc<Change>>,
    receiver: broadcast::Receiver<Arc<Change>>,
    after: i64,
}

impl Subscription {
    /// Whether nothing waits to be taken.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.receiver.is_empty()
    }

    /// Waits for the next change. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            let change = match self.pending.pop_front() {
                Some(change) => change,
                None => match self.receiver.recv().await {
                    Ok(change) => change,
                    Err(broadcast::error::RecvError::Lagged(_)) => return Next::Lagged,
                    Err(broadcast::error::RecvError::Closed) => return Next::Closed,
                },
            };
            if change.revision > self.after {
                return Next::Change(change);
            }
        }
    }
}

impl Hub {
    /// A hub that knows of nothing up to `revision`.
    pub(crate) fn new(revision: i64) -> Arc<Self> {
        Arc::new(Self { topics: Mutex::new(HashMap::new()), progress: watch::Sender::new(revision) })
    }

    /// Revision up to which every topic has been given its events.
    pub(crate) fn progress(&self) -> i64 {
        *self.progress.borrow()
    }

    /// Subscribes to the keys under `topic` (a resource's prefix), to changes after revision `after`.
    pub(crate) fn subscribe(&self, topic: &str, after: i64) -> Start {
        let mut topics = self.topics.lock();
        // A topic begins where the hub stands: what came before was not kept.
        let floor = self.progress();
        let topic = topics.entry(topic.to_owned()).or_insert_with(|| Topic::new(floor));
        if after < topic.floor {
            return Start::History;
        }
        let pending = topic.tail.iter().filter(|c| c.revision > after).cloned().collect();
        Start::Live(Subscription { pending, receiver: topic.sender.subscribe(), after })
    }

    fn publish(&self, changes: Vec<Change>, revision: i64) {
        let mut topics = self.topics.lock();
        for change in changes {
            if let Some(topic) = topic_of(&change.key).and_then(|t| topics.get_mut(t)) {
                topic.publish(Arc::new(change));
            }
        }
        self.progress.send_if_modified(|progress| {
            let newer = revision > *progress;
            *progress = revision.max(*progress);
            newer
        });
    }

    /// Feeds the hub from the store until shutdown; reconnects where it stopped.
    pub(crate) async fn feed(self: Arc<Self>, storage: Storage, shutdown: CancellationToken) {
        loop {
            let result = tokio::select! {
                () = shutdown.cancelled() => return,
                result = self.feed_once(&storage) => result,
            };
            if let Err(StorageError::Compacted) = result {
                self.restart(&storage).await;
            } else if let Err(error) = result {
                tracing::debug!(%error, "the watch on the store ended; reconnecting");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RECONNECT_PAUSE) => {}
            }
        }
    }

    async fn feed_once(&self, storage: &Storage) -> Result<(), StorageError> {
        let mut stream = storage.watch(ROOT, self.progress() + 1).await?;
        while let Some(response) = stream.message().await? {
            check(&response)?;
            let revision = response.header().map_or(0, |h| h.revision());
            let changes = changes(response.events())?;
            // The header of a batch may be ahead of its events while the stream
            // catches up: only events, or a response without any, move progress.
            let reached = changes.last().map_or(if response.created() { 0 } else { revision }, |c| c.revision);
            self.publish(changes, reached);
        }
        Ok(())
    }

    /// The hub's place was compacted away: every subscriber must start anew (H2).
    async fn restart(&self, storage: &Storage) {
        if let Ok(revision) = storage.revision().await {
            self.topics.lock().clear();
            self.progress.send_replace(revision);
        }
    }
}

/// Turns a cancelled watch into the error that explains it.
pub(crate) fn check(response: &WatchResponse) -> Result<(), StorageError> {
    if !response.canceled() {
        return Ok(());
    }
    if response.compact_revision() > 0 {
        return Err(StorageError::Compacted);
    }
    Err(StorageError::Unavailable(response.cancel_reason().to_owned()))
}

/// The topic of a key: everything up to and including the slash behind the resource.
fn topic_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(ROOT)?;
    let (group, tail) = rest.split_once('/')?;
    let (resource, _) = tail.split_once('/')?;
    Some(&key[..ROOT.len() + group.len() + 1 + resource.len() + 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, revision: i64) -> Change {
        Change {
            key: key.into(),
            revision,
            now: Some(State::new(Bytes::from_static(b"{}"))),
            before: None,
            frame: OnceLock::new(),
        }
    }

    fn live(start: Start) -> Subscription {
        match start {
            Start::Live(subscription) => subscription,
            Start::History => panic!("expected a live subscription"),
        }
    }

    async fn revisions(subscription: &mut Subscription, n: usize) -> Vec<i64> {
        let mut out = Vec::new();
        for _ in 0..n {
            if let Next::Change(change) = subscription.next().await {
                out.push(change.revision);
            }
        }
        out
    }

    /// H1: the tail and the channel together give each event once.
    #[tokio::test]
    async fn a_late_subscriber_sees_tail_and_stream_once() {
        let hub = Hub::new(10);
        let mut early = live(hub.subscribe("/registry/core/pods/", 10));
        hub.publish(vec![put("/registry/core/pods/a/x", 11), put("/registry/core/nodes/n", 12)], 12);
        let mut late = live(hub.subscribe("/registry/core/pods/", 10));
        hub.publish(vec![put("/registry/core/pods/a/y", 13)], 13);
        assert_eq!(revisions(&mut early, 2).await, [11, 13]);
        assert_eq!(revisions(&mut late, 2).await, [11, 13]);
        assert_eq!(hub.progress(), 13);
    }

    #[tokio::test]
    async fn what_the_tail_lost_is_history() {
        let hub = Hub::new(0);
        let _keep = live(hub.subscribe("/registry/core/pods/", 0));
        for revision in 1..=(TAIL_EVENTS_MAX as i64 + 5) {
            hub.publish(vec![put("/registry/core/pods/a/x", revision)], revision);
        }
        assert!(matches!(hub.subscribe("/registry/core/pods/", 4), Start::History));
        assert!(matches!(hub.subscribe("/registry/core/pods/", 5), Start::Live(_)));
    }

    /// H2: overflow is told.
    #[tokio::test]
    async fn a_slow_subscriber_is_told_that_it_lags() {
        let hub = Hub::new(0);
        let mut slow = live(hub.subscribe("/registry/core/pods/", 0));
        for revision in 1..=(BACKLOG_EVENTS_MAX as i64 + 1) {
            hub.publish(vec![put("/registry/core/pods/a/x", revision)], revision);
        }
        assert!(matches!(slow.next().await, Next::Lagged));
    }
}
