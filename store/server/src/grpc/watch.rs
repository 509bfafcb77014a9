//! Watch: each watcher is a cursor into what was published.
//!
//! A stream serves its watchers in turn: whenever there is a new revision, each
//! reads on from its cursor, from the ring of recent changes or from disk. Nothing
//! is queued for a slow client beyond a bounded number of bytes: its cursor just stays
//! behind, and only once there is room is a slice read for it.
//!
//! Invariants
//!   W1  A watcher gets each matching change once, in order of revision, and a
//!       revision is never split over two answers.
//!   W2  A cursor behind the compacted revision cancels its watcher, and says so.
//!   W3  Progress is told only when the watcher has been given all up to it, and no more.
//!   W4  A watcher gets no change of a key that its user may not read as things stand.
//!   W5  A number belongs to its watcher until the client cancels it, even if
//!       compaction ended it before.
//!   W6  The watchers of a stream go forward together: none is given a revision before
//!       the others have all that was published before its turn came.
//!   W7  A stream that waits for its client holds no events but those counted in its outbox.
//!   W8  Who wants to know what was before a change is told, or cancelled if compaction took it. Only of changes that
//!       were at or below the compacted revision when the watcher began, it isn't told, as by etcd.
//! Source: etcd `server/etcdserver/api/v3rpc/watch.go`, `server/storage/mvcc/watcher.go`.

mod answer;
mod feed;

use std::collections::BTreeMap;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, stream};
use store_core::auth::{Access, Asker, Auth};
use store_core::errors::RequestError;
use store_core::mvcc::in_range;
use store_core::watch::{Audience, Cursor};
use store_core::wire::watch_create_request::FilterType;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{WatchCreateRequest, WatchRequest};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status, Streaming};

use super::services::watch_server::Watch;
use super::{Service, status};
use crate::auth::{Credentials, guard};
pub(crate) use answer::Answer;
use answer::{Counted, Gone, Outbox};

/// Watchers of one stream.
const WATCHERS_MAX: usize = 10_000;

/// What a watcher wants to be told of.
#[derive(Clone)]
struct Wanted {
    key: Bytes,
    range_end: Bytes,
    no_puts: bool,
    no_deletes: bool,
}

impl Wanted {
    fn of(request: &WatchCreateRequest) -> Self {
        let without = |filter: FilterType| request.filters.contains(&(filter as i32));
        let (no_puts, no_deletes) = (without(FilterType::Noput), without(FilterType::Nodelete));
        Self { key: request.key.clone(), range_end: request.range_end.clone(), no_puts, no_deletes }
    }

    fn matches(&self, key: &[u8], is_deletion: bool) -> bool {
        in_range(key, &self.key, &self.range_end) && self.takes(is_deletion)
    }

    /// Whether it takes changes of a kind, whichever key.
    fn takes(&self, is_deletion: bool) -> bool {
        !(if is_deletion { self.no_deletes } else { self.no_puts })
    }
}

struct Watcher {
    wanted: Wanted,
    /// Of changes above this revision it is told what was before (W8).
    prev_kv_above: Option<i64>,
    fragment: bool,
    progress_notify: bool,
    cursor: Cursor,
    /// Who wants to know, and by which users and roles it was decided that he may.
    asker: Asker,
    decided: (bool, u64),
    /// Its place among the member's watchers, and in its metrics.
    _place: (OwnedSemaphorePermit, Counted),
}

impl Watcher {
    /// Whether it is given the same as others that have all before a revision: nothing that must be read for it alone, and
    /// nothing that it may not read (W4) as things are `decided`.
    fn goes_along(&self, from: i64, decided: (bool, u64)) -> bool {
        let is_alike = self.prev_kv_above.is_none() && !self.fragment;
        is_alike && !self.cursor.has_ended() && self.cursor.next() == from && self.decided == decided
    }
}

/// One client's stream.
struct Serving {
    service: Service,
    credentials: Credentials,
    watchers: BTreeMap<i64, Watcher>,
    audience: Audience,
    /// Those who have all that was published at the last turn read on from here.
    together: i64,
    next_id: i64,
    out: Outbox,
    _counted: Counted,
}

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
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let watching = &self.engine.metrics.watching;
        let (out, body) = Outbox::new(watching);
        let leaderless = self.leaderless(request.metadata());
        let credentials = guard::caller(&request).credentials;
        let counted = Counted::new(&watching.streams, 1);
        let service = self.clone();
        let serving = Serving {
            service,
            credentials,
            watchers: BTreeMap::new(),
            audience: Audience::default(),
            together: 0,
            next_id: 0,
            out,
            _counted: counted,
        };
        tokio::spawn(serving.run(request.into_inner(), leaderless));
        let mut response: Response<Self::WatchStream> = Response::new(Box::pin(stream::empty()));
        response.extensions_mut().insert(body);
        Ok(response)
    }
}

impl Serving {
    async fn run(mut self, mut requests: Streaming<WatchRequest>, leaderless: impl Future<Output = RequestError>) {
        let mut leaderless = std::pin::pin!(leaderless);
        let mut revisions = self.service.engine.revisions();
        let mut failed = self.service.engine.ended.subscribe();
        let every = self.service.config.watch_progress_notify_interval;
        let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        let mut asks = true;
        loop {
            let result = tokio::select! {
                request = requests.message(), if asks => match request {
                    Ok(Some(request)) => self.take(request).await,
                    // As in etcd: who asks for nothing more is told on.
                    Ok(None) => {
                        asks = false;
                        Ok(())
                    }
                    Err(_) => return,
                },
                () = self.out.closed(), if !asks => return,
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

    async fn send(&self, answer: Answer) -> Result<(), Gone> {
        self.out.send(Ok(answer)).await
    }

    fn published(&self) -> i64 {
        *self.service.engine.revisions().borrow()
    }

    fn compacted(&self) -> i64 {
        self.service.engine.state.read().compacted()
    }

    async fn take(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                if !self.forget(cancel.watch_id) {
                    return Ok(());
                }
                let header = self.service.header(self.published());
                self.send(Answer { header, watch_id: cancel.watch_id, canceled: true, ..Answer::default() }).await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                let reached = self.feed().await?;
                // W3: told only when all watchers are there; else the client asks again. Without any it isn't told.
                if !Cursor::have_all(self.watchers.values().map(|w| &w.cursor), reached) {
                    return Ok(());
                }
                let header = self.service.header(reached);
                self.send(Answer { header, watch_id: -1, ..Answer::default() }).await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, mut request: WatchCreateRequest) -> Result<(), Gone> {
        // A watcher of the present begins behind the revision that its answer says.
        let published = self.published();
        let header = self.service.header(published);
        let refuse = |reason: &str| Answer {
            header,
            watch_id: -1,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Answer::default()
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
        let Ok(place) = self.service.engine.watchers.clone().try_acquire_owned() else {
            return self.send(refuse("etcdserver: too many watchers on the member")).await;
        };
        let counted = Counted::new(&self.service.engine.metrics.watching.watchers, 1);
        let watch_id = if request.watch_id != 0 { request.watch_id } else { self.free_id() };
        let watcher = Watcher {
            wanted: Wanted::of(&request),
            prev_kv_above: request.prev_kv.then(|| self.compacted()),
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            cursor: Cursor::new(request.start_revision, published),
            asker,
            decided,
            _place: (place, counted),
        };
        self.audience.add(&request.key, &request.range_end, watch_id);
        self.watchers.insert(watch_id, watcher);
        self.send(Answer { header, watch_id, created: true, ..Answer::default() }).await?;
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
        auth.keys(&watcher.asker, Access::Read, &watcher.wanted.key, &watcher.wanted.range_end)
    }

    /// A watcher goes; `false` if there is none of that number.
    fn forget(&mut self, id: i64) -> bool {
        let Some(watcher) = self.watchers.remove(&id) else { return false };
        self.audience.remove(&watcher.wanted.key, &watcher.wanted.range_end, id);
        true
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Ends a watcher whose user may no longer read.
    async fn cancel(&mut self, id: i64, cancel_reason: String) -> Result<(), Gone> {
        self.forget(id);
        let header = self.service.header(self.published());
        self.send(Answer { header, watch_id: id, canceled: true, cancel_reason, ..Answer::default() }).await
    }

    async fn cancel_compacted(&mut self, id: i64, compacted: i64) -> Result<(), Gone> {
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.cursor.end();
        }
        // As in etcd: the revision is that of the compaction, and the header has none.
        let header = self.service.header(0);
        let compact_revision = compacted;
        self.send(Answer { header, watch_id: id, canceled: true, compact_revision, ..Answer::default() }).await
    }

    async fn tell_progress(&mut self) -> Result<(), Gone> {
        let reached = self.feed().await?;
        let idle: Vec<i64> = self
            .watchers
            .iter()
            .filter(|(_, w)| w.progress_notify && w.cursor.has_all(reached))
            .map(|(id, _)| *id)
            .collect();
        for watch_id in idle {
            self.send(Answer { header: self.service.header(reached), watch_id, ..Answer::default() }).await?;
        }
        Ok(())
    }
}
