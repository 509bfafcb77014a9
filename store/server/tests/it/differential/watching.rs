//! One stream of watchers on both servers.
//!
//! When an event arrives, and how many come in one response, is each server's own
//! affair; which events a watcher is given, in which order, and what it is told of
//! its beginning and end is not. So the two are brought to rest at known places and
//! compared watcher by watcher:
//!
//! - A barrier puts a key that a watcher of its own waits for. What was published
//!   before has arrived on that stream once its event has.
//! - A watcher that begins in the past waits with etcd for a round that comes every
//!   100 ms. A second watcher that begins in the past, created after it, is served in
//!   the same round: once it has its event, the first is caught up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{Event, PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::generate_watch::NEGATIVE_IDS;
use super::operation::Call;
use super::run::{Difference, Pair};
use super::server::{PATIENCE, Server, strip};

/// What barriers write.
pub(crate) const SENTINEL: &str = "~sentinel";
/// Watchers of the barriers have numbers from here on.
const SENTINEL_ID: i64 = 2_000_000;

/// One server's end of the stream, and all it has said.
struct End {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    said: Vec<WatchResponse>,
}

impl End {
    async fn open(server: &Server) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        // etcd answers the call only after its first message.
        requests.send(sentinel(SENTINEL_ID, 0)).await.expect("room");
        let answers = server.watch(receiver).await;
        Self { requests, answers, said: Vec::new() }
    }

    async fn send(&self, request: &WatchRequest) -> Result<(), Difference> {
        self.requests.send(request.clone()).await.map_err(|_| "a stream ended".to_owned())
    }

    /// Reads until a response fits; those before it are kept as well.
    async fn until(&mut self, what: &str, fits: impl Fn(&WatchResponse) -> bool) -> Result<(), Difference> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.answers.message()).await;
            let response = match next {
                Err(_) => return Err(format!("no {what} within {PATIENCE:?}")),
                Ok(Ok(Some(response))) => response,
                Ok(other) => return Err(format!("the stream ended before {what}: {other:?}")),
            };
            let found = fits(&response);
            self.said.push(response);
            if found {
                return Ok(());
            }
        }
    }

    /// Whether a cancellation of this watcher is answered: one that compaction ended is still known.
    fn knows(&self, id: i64) -> bool {
        let change = |response: &&WatchResponse| {
            response.watch_id == id && response.compact_revision == 0 && (response.created || response.canceled)
        };
        self.said.iter().rfind(change).is_some_and(|last| !last.canceled)
    }
}

fn sentinel(watch_id: i64, start_revision: i64) -> WatchRequest {
    let create = WatchCreateRequest { key: SENTINEL.into(), start_revision, watch_id, ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// The stream on both servers, etcd's first.
pub(crate) struct Stream {
    ends: [End; 2],
    /// Watchers that began in the past since the last barrier.
    catching_up: bool,
    /// Where each watcher that was not cancelled begins, by its number.
    begins: BTreeMap<i64, i64>,
    sentinels: i64,
}

impl Stream {
    pub(crate) async fn open(pair: &Pair) -> Result<Self, Difference> {
        let (theirs, ours) = tokio::join!(End::open(&pair.etcd), End::open(&pair.ours));
        let mut stream =
            Self { ends: [theirs, ours], catching_up: false, begins: BTreeMap::new(), sentinels: SENTINEL_ID };
        stream.both("a watcher's creation", |r| r.created).await?;
        Ok(stream)
    }

    async fn both(&mut self, what: &str, fits: impl Fn(&WatchResponse) -> bool) -> Result<(), Difference> {
        let [theirs, ours] = &mut self.ends;
        let (theirs, ours) = tokio::join!(theirs.until(what, &fits), ours.until(what, &fits));
        theirs.map_err(|why| format!("etcd: {why}"))?;
        ours.map_err(|why| format!("ours: {why}"))
    }

    async fn send(&mut self, request: &WatchRequest) -> Result<(), Difference> {
        for end in &self.ends {
            end.send(request).await?;
        }
        Ok(())
    }

    async fn event(&mut self, id: i64, revision: i64) -> Result<(), Difference> {
        let is_it = |e: &Event| e.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision);
        self.both("a barrier's event", |r| r.watch_id == id && r.events.iter().any(is_it)).await
    }

    async fn settle(&mut self, pair: &mut Pair) -> Result<(), Difference> {
        settle(pair, vec![self]).await
    }

    /// Makes a request and waits for its answer, if there is one.
    pub(crate) async fn request(&mut self, pair: &mut Pair, request: &WatchRequest) -> Result<(), Difference> {
        match &request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                self.send(request).await?;
                self.both("a watcher's creation", |r| r.created).await?;
                self.catching_up |= create.start_revision != 0 && create.start_revision <= pair.position.revision;
                if let Some(created) = self.ends[1].said.last().filter(|response| !response.canceled) {
                    self.begins.insert(created.watch_id, create.start_revision);
                }
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                let known = self.ends[0].knows(cancel.watch_id);
                if known {
                    // etcd may lose events that were on their way when a watcher ends.
                    self.settle(pair).await?;
                }
                self.send(request).await?;
                if known {
                    self.both("a cancellation", |r| r.canceled && r.watch_id == cancel.watch_id).await?;
                    self.begins.remove(&cancel.watch_id);
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                // etcd 3.4 answers at once, later ones when all is delivered: here it is.
                self.settle(pair).await?;
                // Since 3.5.8 no watcher is told of less than where it begins (etcd pull request 15516): ours must not
                // say a word, which would make the two stories differ.
                if self.begins.values().any(|begin| *begin > pair.position.revision + 1) {
                    return self.unanswered(request, pair.position.revision).await;
                }
                self.send(request).await?;
                self.both("a word on progress", |r| r.watch_id == -1 && !r.created).await?;
            }
            None => self.send(request).await?,
        }
        Ok(())
    }

    /// Asks ours for what it doesn't answer now, and waits until it has read that: what follows may change it.
    async fn unanswered(&mut self, request: &WatchRequest, revision: i64) -> Result<(), Difference> {
        self.sentinels += 1;
        let id = self.sentinels;
        let ours = &mut self.ends[1];
        ours.send(request).await?;
        ours.send(&sentinel(id, revision + 1)).await?;
        let created = |r: &WatchResponse| r.created && r.watch_id == id;
        ours.until("a watcher behind a question", &created).await.map_err(|why| format!("ours: {why}"))
    }

    /// Compares what the two said up to a revision.
    pub(crate) fn compare(&mut self, revision: i64, compactions: &BTreeSet<i64>) -> Result<(), Difference> {
        self.ends[1].said.iter().try_for_each(well_formed)?;
        whole_revisions(&self.ends[1].said)?;
        let [theirs, ours] = [0, 1].map(|end| stories(&self.ends[end].said, revision, compactions));
        for id in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
            let [theirs, ours] = [theirs.get(id), ours.get(id)];
            if NEGATIVE_IDS.contains(id) && ours.is_none() {
                // See `known`: refused at once, and counted under -1.
                continue;
            }
            if theirs != ours {
                return Err(format!("watcher {id}\n  etcd:{}\n  ours:{}", shown(theirs), shown(ours)));
            }
        }
        Ok(())
    }
}

/// Waits until both servers have said all there is to say about what was written before.
pub(crate) async fn settle(pair: &mut Pair, mut streams: Vec<&mut Stream>) -> Result<(), Difference> {
    if streams.iter().any(|stream| stream.catching_up) {
        let revision = put_sentinel(pair).await?;
        for stream in streams.iter_mut().filter(|stream| stream.catching_up) {
            stream.sentinels += 1;
            stream.send(&sentinel(stream.sentinels, revision)).await?;
        }
        for stream in streams.iter_mut().filter(|stream| stream.catching_up) {
            stream.event(stream.sentinels, revision).await?;
            stream.catching_up = false;
        }
    }
    if !streams.is_empty() {
        let revision = put_sentinel(pair).await?;
        for stream in &mut streams {
            stream.event(SENTINEL_ID, revision).await?;
        }
    }
    Ok(())
}

async fn put_sentinel(pair: &mut Pair) -> Result<i64, Difference> {
    let put = PutRequest { key: Bytes::from_static(SENTINEL.as_bytes()), ..PutRequest::default() };
    pair.call(&Call::Put(put)).await.map(drop)?;
    Ok(pair.position.revision)
}

/// What a watcher is told, without the grouping into responses, which is each server's own.
#[derive(Debug, PartialEq)]
enum Told {
    Event(Event),
    Control(WatchResponse),
}

fn shown(story: Option<&Vec<Told>>) -> String {
    story.into_iter().flatten().map(|told| format!("\n    {told:?}")).collect()
}

/// Each watcher's story up to a revision.
fn stories(said: &[WatchResponse], revision: i64, compactions: &BTreeSet<i64>) -> BTreeMap<i64, Vec<Told>> {
    let mut stories: BTreeMap<i64, Vec<Told>> = BTreeMap::new();
    for response in said.iter().filter(|r| r.watch_id < SENTINEL_ID) {
        let negative = response.created && response.cancel_reason == super::known::NEGATIVE_START;
        if negative {
            continue;
        }
        let story = stories.entry(response.watch_id).or_default();
        if response.events.is_empty() {
            let mut control = response.clone();
            strip(&mut control.header);
            story.push(Told::Control(control));
        }
        // A watcher of everything sees a barrier too, before or after the barrier's own watcher.
        let within = |e: &&Event| e.kv.as_ref().is_some_and(|kv| kv.mod_revision <= revision && kv.key != SENTINEL);
        let certain = |e: &&Event| !super::known::may_be_lost(e, compactions);
        story.extend(response.events.iter().filter(within).filter(certain).cloned().map(Told::Event));
    }
    stories
}

/// What must hold of each of our responses, whatever etcd's are.
fn well_formed(response: &WatchResponse) -> Result<(), Difference> {
    let header = response.header.as_ref().map_or(0, |h| h.revision);
    let revisions: Vec<i64> = response.events.iter().filter_map(|e| Some(e.kv.as_ref()?.mod_revision)).collect();
    if !revisions.is_sorted() || revisions.last().is_some_and(|last| *last > header) {
        return Err(format!("ours: a response out of order: {response:?}"));
    }
    Ok(())
}

/// A revision isn't split over two responses, unless fragments were asked for and made.
fn whole_revisions(said: &[WatchResponse]) -> Result<(), Difference> {
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for response in said.iter().filter(|r| !r.fragment) {
        if response.created {
            // The number may have been another watcher's before.
            last.remove(&response.watch_id);
        }
        if response.events.is_empty() {
            continue;
        }
        let revision = |e: Option<&Event>| e.and_then(|e| e.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
        let first = revision(response.events.first());
        if last.insert(response.watch_id, revision(response.events.last())) == Some(first) {
            return Err(format!("ours: revision {first} is split: {response:?}"));
        }
    }
    Ok(())
}
