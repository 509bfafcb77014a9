//! One watch on the store feeds every client's watch, as `apiserver/server/src/hub.rs` and `watch.rs`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use apiserver_core::fieldset;
use bytes::Bytes;
use prost::Message as _;
use store_core::wire::Event as Wire;
use store_core::wire::event::EventType;

use super::network::Stream;
use super::objects::{Kind, Object};
use super::store::{Storage, StorageError, Watching};
use super::tasks::Sim;
use crate::mutant::Mutant;
use crate::queue::{MS, Time};
use crate::stream::Answer;

const RECONNECT_PAUSE: Time = 200 * MS;
/// Prefix of everything that apiservers store.
const ROOT: &str = "/registry/";

/// One change of one object.
pub(crate) struct Change {
    key: String,
    revision: i64,
    now: Option<Bytes>,
    /// With the revision that it was stored at.
    before: Option<(Bytes, i64)>,
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Added(Rc<Object>),
    Modified(Rc<Object>),
    Deleted(Rc<Object>),
    /// All up to a revision was told.
    Bookmark(i64),
    /// The watch can't go on: 410.
    Expired,
}

fn changes(encoded: &[Bytes]) -> Result<Vec<Change>, StorageError> {
    encoded.iter().filter_map(|event| change(event).transpose()).collect()
}

fn change(encoded: &Bytes) -> Result<Option<Change>, StorageError> {
    let event = Wire::decode(encoded.clone()).map_err(|error| StorageError::Unavailable(error.to_string()))?;
    let Some(kv) = event.kv else { return Ok(None) };
    let is_deleted = event.r#type == EventType::Delete as i32;
    if (is_deleted || kv.create_revision != kv.mod_revision) && event.prev_kv.is_none() {
        return Err(StorageError::Compacted);
    }
    let now = (!is_deleted).then_some(kv.value);
    let before = event.prev_kv.map(|before| (before.value, before.mod_revision));
    Ok(Some(Change { key: String::from_utf8_lossy(&kv.key).into_owned(), revision: kv.mod_revision, now, before }))
}

/// What a client watches.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) kind: Kind,
    /// A field and the value that it must have.
    pub(crate) field: Option<(&'static str, String)>,
}

impl Wanted {
    pub(crate) fn matches(&self, object: &Object) -> bool {
        let is_so =
            |(field, value): &(&str, String)| fieldset::value(self.kind.resource(), &object.value, field) == *value;
        self.field.as_ref().is_none_or(is_so)
    }
}

/// A watch being served.
pub(crate) struct Watch {
    sim: Sim,
    wanted: Wanted,
    /// Changes up to this revision are no news.
    after: i64,
    sent: Cell<i64>,
    stream: Rc<Stream<Told>>,
    ended: Cell<bool>,
    /// Frames that may wait before the client is told that it lags.
    backlog: usize,
}

impl Watch {
    fn is_over(&self) -> bool {
        self.ended.get() || self.stream.is_over()
    }

    fn expire(&self) {
        self.ended.set(true);
        self.stream.send(Told::Expired);
    }

    fn change(&self, change: &Change) {
        if self.is_over() || change.revision <= self.after {
            return;
        }
        if self.stream.waiting.get() >= self.backlog {
            // H2, but for the mutant.
            if !self.sim.has(Mutant::SkipLagging) {
                self.expire();
            }
            return;
        }
        self.sent.set(self.sent.get().max(change.revision));
        let object = |bytes: &Bytes, revision| self.sim.memo.decode(&change.key, revision, bytes).ok();
        let now = change.now.as_ref().and_then(|now| object(now, change.revision));
        let before = change.before.as_ref().and_then(|(before, stored)| {
            // What is deleted is told at its deletion; else what was before is known since then.
            object(before, if change.now.is_some() { *stored } else { change.revision })
        });
        let (is_now, was) = (
            now.as_ref().is_some_and(|now| self.wanted.matches(now)),
            before.as_ref().is_some_and(|before| self.wanted.matches(before)),
        );
        let told = match (was, is_now, now, before) {
            (false, true, Some(now), _) => Told::Added(now),
            (true, true, Some(now), _) => Told::Modified(now),
            (true, false, Some(now), _) => Told::Deleted(now),
            (true, _, None, Some(before)) => Told::Deleted(before),
            _ => return,
        };
        self.stream.send(told);
    }

    fn bookmark(&self, progress: i64) {
        if !self.is_over() && self.stream.waiting.get() < self.backlog {
            self.sent.set(self.sent.get().max(progress));
            self.stream.send(Told::Bookmark(self.sent.get()));
        }
    }
}

struct Topic {
    tail: VecDeque<Rc<Change>>,
    /// Events up to and including this revision may be missing from the tail.
    floor: i64,
    watches: Vec<Rc<Watch>>,
}

/// The hub of one apiserver.
pub(crate) struct Hub {
    sim: Sim,
    topics: RefCell<BTreeMap<Kind, Topic>>,
    /// Watches that read the store by themselves.
    past: RefCell<Vec<Rc<Watch>>>,
    progress: Cell<i64>,
    tail_max: usize,
    backlog: usize,
}

/// Where a watch begins.
pub(crate) enum Start {
    Live,
    /// Older than the tail: the store itself is to be watched.
    History(Rc<Watch>),
}

impl Hub {
    pub(crate) fn new(sim: &Sim, revision: i64) -> Self {
        Self {
            sim: sim.clone(),
            topics: RefCell::default(),
            past: RefCell::default(),
            progress: Cell::new(revision),
            tail_max: sim.between(2, 60) as usize,
            backlog: sim.between(5, 60) as usize,
        }
    }

    /// Subscribes to changes after a revision.
    pub(crate) fn subscribe(&self, wanted: Wanted, after: i64, stream: Rc<Stream<Told>>) -> Start {
        let (kind, floor) = (wanted.kind, self.progress.get());
        let (sim, ended) = (self.sim.clone(), Cell::new(false));
        let watch = Rc::new(Watch { sim, wanted, after, sent: Cell::new(after), stream, ended, backlog: self.backlog });
        let mut topics = self.topics.borrow_mut();
        let fresh = || Topic { tail: VecDeque::new(), floor, watches: Vec::new() };
        let topic = topics.entry(kind).or_insert_with(fresh);
        if after < topic.floor {
            self.past.borrow_mut().push(watch.clone());
            return Start::History(watch);
        }
        topic.tail.iter().for_each(|change| watch.change(change));
        topic.watches.push(watch);
        Start::Live
    }

    fn publish(&self, changes: Vec<Change>, reached: i64) {
        let mut topics = self.topics.borrow_mut();
        for change in changes {
            let Some(topic) = Kind::of_key(&change.key).and_then(|kind| topics.get_mut(&kind)) else { continue };
            let change = Rc::new(change);
            topic.watches.retain(|watch| !watch.is_over());
            topic.watches.iter().for_each(|watch| watch.change(&change));
            topic.tail.push_back(change);
            while topic.tail.len() > self.tail_max {
                let Some(oldest) = topic.tail.pop_front() else { break };
                topic.floor = oldest.revision;
            }
        }
        self.progress.set(self.progress.get().max(reached));
    }

    /// Tells all watches how far they are.
    pub(crate) fn bookmark(&self) {
        let progress = self.progress.get();
        for topic in self.topics.borrow().values() {
            topic.watches.iter().for_each(|watch| watch.bookmark(progress));
        }
    }

    /// Feeds the hub from the store; goes on where it stopped.
    pub(crate) async fn feed(&self, storage: &Storage) {
        loop {
            if let Err(StorageError::Compacted) = self.feed_once(storage).await {
                self.restart(storage).await;
            }
            self.sim.sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn feed_once(&self, storage: &Storage) -> Result<(), StorageError> {
        let watching = storage.watch(ROOT, self.progress.get() + 1);
        loop {
            let (changes, reached) = next(&watching).await?;
            let reached = changes.last().map_or(reached, |change| change.revision);
            self.publish(changes, reached);
        }
    }

    /// The hub's place was compacted away: every subscriber must start anew (H2).
    async fn restart(&self, storage: &Storage) {
        if let Ok(revision) = storage.revision().await {
            for topic in std::mem::take(&mut *self.topics.borrow_mut()).into_values() {
                topic.watches.iter().filter(|watch| !watch.is_over()).for_each(|watch| watch.expire());
            }
            self.progress.set(revision);
        }
    }

    /// The process ends, and with it its connections.
    pub(crate) fn drop_all(&self) {
        let live = self.topics.take().into_values().flat_map(|topic| topic.watches);
        live.chain(self.past.take()).for_each(|watch| watch.stream.break_off());
    }
}

/// The next changes of a watch on the store, and up to where it is known to be.
async fn next(watching: &Watching) -> Result<(Vec<Change>, i64), StorageError> {
    match watching.next().await {
        Answer::Created(_) => Ok((Vec::new(), 0)),
        Answer::Events(events) => Ok((changes(&events)?, 0)),
        Answer::Progress(revision) => Ok((Vec::new(), revision)),
        Answer::Compacted(_) => Err(StorageError::Compacted),
        Answer::Broken => Err(StorageError::Unavailable("the watch ended".to_owned())),
    }
}

/// Serves a watch from the store itself.
pub(crate) async fn from_history(watch: Rc<Watch>, storage: Storage) {
    let watching = storage.watch(watch.wanted.kind.prefix(), watch.after + 1);
    while !watch.is_over() {
        match next(&watching).await {
            Ok((changes, reached)) => {
                changes.iter().for_each(|change| watch.change(change));
                watch.sent.set(watch.sent.get().max(reached));
            }
            Err(StorageError::Compacted) => return watch.expire(),
            // The client resumes where it is.
            Err(_) => return watch.stream.break_off(),
        }
    }
}
