//! Watch: each watcher is a cursor into what was published.
//!
//! A stream serves its watchers in turn: whenever there is a new revision, each
//! reads on from its cursor, from the ring of recent changes or from disk. Nothing
//! is queued for a slow client: its cursor just stays behind.
//!
//! Invariants
//!   W1  A watcher gets each matching change once, in order of revision, and a
//!       revision is never split over two answers.
//!   W2  A cursor behind the compacted revision cancels its watcher, and says so.
//!   W3  Progress is told only when the watcher has been given all up to it.
//!   W4  A watcher gets no change of a key that its user may not read as things stand.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use store_core::auth::{Access, Asker, Auth};
use store_core::errors::RequestError;
use store_core::mvcc::{Change, in_range};
use store_core::wire::event::EventType;
use store_core::wire::watch_create_request::FilterType;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{Event, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::services::watch_server::Watch;
use super::{Service, status};
use crate::auth::{Credentials, guard};

/// Answers that wait for a client.
const ANSWERS_MAX: usize = 16;
/// Watchers of one stream.
const WATCHERS_MAX: usize = 10_000;
/// An idle watcher that asked for it is told its progress this often, as in etcd.
const PROGRESS_EVERY: Duration = Duration::from_secs(600);

struct Watcher {
    request: WatchCreateRequest,
    /// First revision not given yet.
    next: i64,
    /// Who wants to know, and by which users and roles it was decided that he may.
    asker: Asker,
    decided: (bool, u64),
}

/// One client's stream.
struct Serving {
    service: Service,
    credentials: Credentials,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    out: mpsc::Sender<Result<WatchResponse, Status>>,
}

/// The client has gone.
struct Gone;

/// What the decision about a watcher depends on.
fn decided(auth: &Auth) -> (bool, u64) {
    (auth.is_enabled(), auth.revision())
}

/// A refusal in a stream's answer: what Go makes of an error with a code.
fn reason(error: RequestError) -> String {
    let status = status(error);
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (out, answers) = mpsc::channel(ANSWERS_MAX);
        let credentials = guard::caller(&request).credentials;
        let serving = Serving { service: self.clone(), credentials, watchers: BTreeMap::new(), next_id: 0, out };
        tokio::spawn(serving.run(request.into_inner()));
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(answers))))
    }
}

impl Serving {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let mut revisions = self.service.engine.revisions();
        let mut failed = self.service.engine.ended.subscribe();
        let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
        loop {
            let result = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.take(request).await,
                    Ok(None) | Err(_) => return,
                },
                Ok(()) = revisions.changed() => {
                    revisions.mark_unchanged();
                    self.feed().await
                }
                _ = progress.tick() => self.tell_progress().await,
                _ = failed.changed() => {
                    let _ = self.out.send(Err(status(RequestError::Stopped))).await;
                    return;
                }
            };
            if result.is_err() {
                return;
            }
        }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Gone> {
        self.out.send(Ok(response)).await.map_err(|_| Gone)
    }

    fn published(&self) -> i64 {
        *self.service.engine.revisions().borrow()
    }

    async fn take(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                if self.watchers.remove(&cancel.watch_id).is_none() {
                    return Ok(());
                }
                let header = self.service.header(self.published());
                self.send(WatchResponse {
                    header,
                    watch_id: cancel.watch_id,
                    canceled: true,
                    ..WatchResponse::default()
                })
                .await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.feed().await?;
                let reached = self.watchers.values().map(|w| w.next - 1).min().unwrap_or_else(|| self.published());
                // W3: told only when all watchers are there; else the client asks again.
                if self.watchers.values().any(|w| w.next <= self.published()) {
                    return Ok(());
                }
                // A watcher that starts in the future doesn't hold the others' present back.
                let header = self.service.header(reached.min(self.published()));
                self.send(WatchResponse { header, watch_id: -1, ..WatchResponse::default() }).await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, mut request: WatchCreateRequest) -> Result<(), Gone> {
        let header = self.service.header(self.published());
        let refuse = |reason: &str| WatchResponse {
            header,
            watch_id: -1,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..WatchResponse::default()
        };
        // As in etcd: an empty key means from the first possible one.
        if request.key.is_empty() {
            request.key = bytes::Bytes::from_static(b"\0");
        }
        let (asker, decided) = match self.recognise(&request).await {
            Ok(recognised) => recognised,
            Err(error) => return self.send(refuse(&reason(error))).await,
        };
        if self.watchers.len() >= WATCHERS_MAX {
            return self.send(refuse("etcdserver: too many watchers on the stream")).await;
        }
        if request.watch_id != 0 && self.watchers.contains_key(&request.watch_id) {
            return self.send(refuse("mvcc: duplicate watch ID provided on the WatchStream")).await;
        }
        let watch_id = if request.watch_id != 0 { request.watch_id } else { self.free_id() };
        let next = if request.start_revision > 0 { request.start_revision } else { self.published() + 1 };
        self.watchers.insert(watch_id, Watcher { request, next, asker, decided });
        self.send(WatchResponse { header, watch_id, created: true, ..WatchResponse::default() }).await?;
        self.feed_one(watch_id).await
    }

    /// Whose stream this is, if he may read what he wants to watch, and by which state.
    async fn recognise(&self, request: &WatchCreateRequest) -> Result<(Asker, (bool, u64)), RequestError> {
        let caller = self.service.caller(self.credentials.clone()).await?;
        let auth = self.service.engine.state.auth();
        let asker = caller.at(&auth);
        auth.keys(&asker, Access::Read, &request.key, &request.range_end)?;
        Ok((asker, decided(&auth)))
    }

    /// W4. Whether a watcher's user may still read, once users and roles have changed.
    fn check_again(&mut self, id: i64) -> Result<(), RequestError> {
        let auth = self.service.engine.state.auth();
        let Some(watcher) = self.watchers.get_mut(&id).filter(|w| w.decided != decided(&auth)) else { return Ok(()) };
        if let Asker::User { revision, .. } = &mut watcher.asker {
            // He was recognised when he came; his token may have expired since without harm.
            *revision = auth.revision();
        }
        watcher.decided = decided(&auth);
        auth.keys(&watcher.asker, Access::Read, &watcher.request.key, &watcher.request.range_end)
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn feed(&mut self) -> Result<(), Gone> {
        for id in self.watchers.keys().copied().collect::<Vec<_>>() {
            self.feed_one(id).await?;
        }
        Ok(())
    }

    /// Gives a watcher everything up to what is published.
    async fn feed_one(&mut self, id: i64) -> Result<(), Gone> {
        loop {
            let published = self.published();
            let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
            if watcher.next > published {
                return Ok(());
            }
            let next = watcher.next;
            if let Err(error) = self.check_again(id) {
                return self.cancel(id, 0, reason(error)).await;
            }
            let compacted = self.service.engine.state.read().0.compacted();
            if next < compacted {
                return self.cancel(id, compacted, RequestError::Compacted.to_string()).await;
            }
            let (service, from) = (self.service.clone(), next);
            // Old changes come from disk.
            let read = tokio::task::spawn_blocking(move || service.engine.changes_from(from)).await;
            let Ok(Ok(changes)) = read else {
                let _ = self.out.send(Err(status(RequestError::Disk))).await;
                return Err(Gone);
            };
            let reached = changes.last().map_or(published, |c| c.at.main);
            let events = self.events(id, &changes);
            // Compacted while it was read: what was read may have holes (W2).
            if from < self.service.engine.state.read().0.compacted() {
                continue;
            }
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.next = reached + 1;
            }
            if !events.is_empty() {
                let header = self.service.header(published.max(reached));
                self.send(WatchResponse { header, watch_id: id, events, ..WatchResponse::default() }).await?;
            }
        }
    }

    fn events(&self, id: i64, changes: &[Arc<Change>]) -> Vec<Event> {
        let Some(watcher) = self.watchers.get(&id) else { return Vec::new() };
        let request = &watcher.request;
        let without = |filter: FilterType| request.filters.contains(&(filter as i32));
        let (no_puts, no_deletes) = (without(FilterType::Noput), without(FilterType::Nodelete));
        let wanted = |change: &&Arc<Change>| {
            let deletion = change.kv.version == 0;
            in_range(&change.kv.key, &request.key, &request.range_end) && !(if deletion { no_deletes } else { no_puts })
        };
        let event = |change: &Arc<Change>| {
            let kind = if change.kv.version == 0 { EventType::Delete } else { EventType::Put };
            let prev_kv = if request.prev_kv { self.before(change) } else { None };
            Event { r#type: kind as i32, kv: Some(change.kv.clone()), prev_kv }
        };
        changes.iter().filter(wanted).map(event).collect()
    }

    fn before(&self, change: &Change) -> Option<store_core::wire::KeyValue> {
        let (mvcc, values) = self.service.engine.state.read();
        mvcc.before(&change.kv.key, change.at.main, &values).ok().flatten()
    }

    async fn cancel(&mut self, id: i64, compact_revision: i64, cancel_reason: String) -> Result<(), Gone> {
        self.watchers.remove(&id);
        let header = self.service.header(self.published());
        self.send(WatchResponse {
            header,
            watch_id: id,
            canceled: true,
            compact_revision,
            cancel_reason,
            ..WatchResponse::default()
        })
        .await
    }

    async fn tell_progress(&mut self) -> Result<(), Gone> {
        self.feed().await?;
        let published = self.published();
        let idle: Vec<i64> = self
            .watchers
            .iter()
            .filter(|(_, w)| w.request.progress_notify && w.next > published)
            .map(|(id, _)| *id)
            .collect();
        for watch_id in idle {
            self.send(WatchResponse { header: self.service.header(published), watch_id, ..WatchResponse::default() })
                .await?;
        }
        Ok(())
    }
}
