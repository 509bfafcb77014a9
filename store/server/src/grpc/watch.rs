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
//!   W5  A number belongs to its watcher until the client cancels it, even if
//!       compaction ended it before.
//!   W6  The watchers of a stream go forward together: none is given a revision before
//!       the others have all that was published before its turn came.
//! Source: etcd `server/etcdserver/api/v3rpc/watch.go`, `server/storage/mvcc/watcher.go`.

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

use super::fragment::fragments;
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
    /// Compaction overtook it (W5).
    ended: bool,
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
        let leaderless = self.leaderless(request.metadata())?;
        let credentials = guard::caller(&request).credentials;
        let serving = Serving { service: self.clone(), credentials, watchers: BTreeMap::new(), next_id: 0, out };
        tokio::spawn(serving.run(request.into_inner(), leaderless));
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(answers))))
    }
}

impl Serving {
    async fn run(mut self, mut requests: Streaming<WatchRequest>, leaderless: impl Future<Output = RequestError>) {
        let mut leaderless = std::pin::pin!(leaderless);
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
                    self.feed().await.map(drop)
                }
                _ = progress.tick() => self.tell_progress().await,
                error = &mut leaderless => {
                    let _ = self.out.send(Err(status(error))).await;
                    return;
                }
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
                let reached = self.feed().await?;
                let (mut live, mut behind) = (false, false);
                for watcher in self.watchers.values().filter(|w| !w.ended) {
                    (live, behind) = (true, behind || watcher.next <= reached);
                }
                // W3: told only when all watchers are there; else the client asks again. Without any it isn't told.
                // A watcher that starts in the future doesn't hold the others' present back.
                if !live || behind {
                    return Ok(());
                }
                let header = self.service.header(reached);
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
        if request.start_revision < 0 {
            return self.send(refuse(&RequestError::Compacted.to_string())).await;
        }
        let (asker, decided) = match self.recognise(&request).await {
            Ok(recognised) => recognised,
            Err(error) => return self.send(refuse(&reason(error))).await,
        };
        if let Some(reason) = self.refusal(&request) {
            return self.send(refuse(reason)).await;
        }
        let watch_id = if request.watch_id != 0 { request.watch_id } else { self.free_id() };
        let next = if request.start_revision > 0 { request.start_revision } else { self.published() + 1 };
        self.watchers.insert(watch_id, Watcher { request, next, asker, decided, ended: false });
        self.send(WatchResponse { header, watch_id, created: true, ..WatchResponse::default() }).await?;
        self.feed_one(watch_id, self.published()).await
    }

    /// Why a watcher can't be, in etcd's words.
    fn refusal(&self, request: &WatchCreateRequest) -> Option<&'static str> {
        let end = request.range_end.as_ref();
        let empty = !end.is_empty() && end != b"\0" && request.key.as_ref() >= end;
        let is_taken = request.watch_id != 0 && self.watchers.contains_key(&request.watch_id);
        match () {
            () if empty => Some("mvcc: watcher range is empty"),
            () if is_taken => Some("mvcc: duplicate watch ID provided on the WatchStream"),
            () if self.watchers.len() >= WATCHERS_MAX => Some("etcdserver: too many watchers on the stream"),
            () => None,
        }
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

    /// Gives every watcher what is published now, and no more (W6); returns up to where that is.
    async fn feed(&mut self) -> Result<i64, Gone> {
        let to = self.published();
        for id in self.watchers.keys().copied().collect::<Vec<_>>() {
            self.feed_one(id, to).await?;
        }
        Ok(to)
    }

    /// Gives a watcher everything up to a published revision.
    async fn feed_one(&mut self, id: i64, to: i64) -> Result<(), Gone> {
        loop {
            let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
            if watcher.ended || watcher.next > to {
                return Ok(());
            }
            let next = watcher.next;
            if let Err(error) = self.check_again(id) {
                return self.cancel(id, reason(error)).await;
            }
            let compacted = self.service.engine.state.read().0.compacted();
            if next < compacted {
                return self.cancel_compacted(id, compacted).await;
            }
            let (service, from) = (self.service.clone(), next);
            // Old changes come from disk.
            let read = tokio::task::spawn_blocking(move || service.engine.changes_from(from)).await;
            let Ok(Ok(mut changes)) = read else {
                let _ = self.out.send(Err(status(RequestError::Disk))).await;
                return Err(Gone);
            };
            let reached = changes.last().map_or(to, |c| c.at.main).min(to);
            changes.truncate(changes.partition_point(|c| c.at.main <= to));
            let events = self.events(id, &changes);
            // Compacted while it was read: what was read may have holes (W2).
            if from < self.service.engine.state.read().0.compacted() {
                continue;
            }
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.next = reached + 1;
            }
            if !events.is_empty() {
                let header = self.service.header(to);
                self.send_events(WatchResponse { header, watch_id: id, events, ..WatchResponse::default() }).await?;
            }
        }
    }

    /// Sends events, in fragments if the watcher takes them.
    async fn send_events(&self, response: WatchResponse) -> Result<(), Gone> {
        if !self.watchers.get(&response.watch_id).is_some_and(|w| w.request.fragment) {
            return self.send(response).await;
        }
        for part in fragments(response, self.service.config.max_message_bytes()) {
            self.send(part).await?;
        }
        Ok(())
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
            // A key's first version has none before it, not even one that the same transaction deleted.
            let creates = change.kv.create_revision == change.kv.mod_revision;
            let prev_kv = if request.prev_kv && !creates { self.before(change) } else { None };
            Event { r#type: kind as i32, kv: Some(change.kv.clone()), prev_kv }
        };
        changes.iter().filter(wanted).map(event).collect()
    }

    fn before(&self, change: &Change) -> Option<store_core::wire::KeyValue> {
        let (mvcc, values) = self.service.engine.state.read();
        mvcc.before(&change.kv.key, change.at.main, &values).ok().flatten()
    }

    /// Ends a watcher whose user may no longer read.
    async fn cancel(&mut self, id: i64, cancel_reason: String) -> Result<(), Gone> {
        self.watchers.remove(&id);
        let header = self.service.header(self.published());
        self.send(WatchResponse { header, watch_id: id, canceled: true, cancel_reason, ..WatchResponse::default() })
            .await
    }

    async fn cancel_compacted(&mut self, id: i64, compacted: i64) -> Result<(), Gone> {
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.ended = true;
        }
        // As in etcd: the revision is that of the compaction, and the header has none.
        let header = self.service.header(0);
        let compact_revision = compacted;
        self.send(WatchResponse { header, watch_id: id, canceled: true, compact_revision, ..WatchResponse::default() })
            .await
    }

    async fn tell_progress(&mut self) -> Result<(), Gone> {
        let reached = self.feed().await?;
        let idle: Vec<i64> = self
            .watchers
            .iter()
            .filter(|(_, w)| w.request.progress_notify && !w.ended && w.next > reached)
            .map(|(id, _)| *id)
            .collect();
        for watch_id in idle {
            self.send(WatchResponse { header: self.service.header(reached), watch_id, ..WatchResponse::default() })
                .await?;
        }
        Ok(())
    }
}
