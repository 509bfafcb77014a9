//! List and watch: what a process knows of the objects of a kind, and how it stays true.
//!
//! As kube's `watcher` and the scheduler's own watches do it: list; watch from there; resume where a connection broke; list anew
//! when the API says that it can't go on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::client::Client;
use super::hub::{Told, Wanted};
use super::objects::Object;
use crate::mutant::Mutant;
use crate::queue::{MS, Time};

const PAUSE: Time = 200 * MS;

/// What a process knows, by key in the store.
pub(crate) type Cache = Rc<RefCell<BTreeMap<String, Rc<Object>>>>;

/// A cache that somebody keeps.
pub(crate) struct Kept {
    pub(crate) who: String,
    pub(crate) wanted: Wanted,
    pub(crate) cache: Weak<RefCell<BTreeMap<String, Rc<Object>>>>,
}

/// What an informer tells.
pub(crate) enum Seen {
    /// A listing begins.
    Begin,
    Listed(Rc<Object>),
    /// All is listed, as of a revision.
    Done(i64),
    Applied(Rc<Object>),
    Deleted(Rc<Object>),
    /// All up to a revision was told.
    Reached(i64),
}

/// Watches a kind for as long as its process lives.
pub(crate) struct Informer {
    client: Client,
    who: String,
    wanted: Wanted,
    cache: Cache,
    listed: bool,
}

impl Informer {
    pub(crate) fn new(client: &Client, who: &str, wanted: Wanted) -> Self {
        let cache = Cache::default();
        let kept = Kept { who: who.to_owned(), wanted: wanted.clone(), cache: Rc::downgrade(&cache) };
        client.sim.caches.borrow_mut().push(kept);
        Self { client: client.clone(), who: who.to_owned(), wanted, cache, listed: false }
    }

    /// What it knows, as a reflector shows it: a new listing all at once.
    pub(crate) fn cache(&self) -> Cache {
        self.cache.clone()
    }

    pub(crate) async fn run(mut self, tell: impl Fn(Seen)) {
        let sim = self.client.sim.clone();
        loop {
            if let Ok((objects, version)) = self.client.list(self.wanted.clone()).await {
                if !(sim.has(Mutant::SkipRelist) && self.listed) {
                    self.take_list(objects, version, &tell).await;
                }
                self.follow(version, &tell).await;
            }
            sim.sleep(PAUSE).await;
        }
    }

    async fn take_list(&mut self, objects: Vec<Rc<Object>>, version: i64, tell: &impl Fn(Seen)) {
        let sim = &self.client.sim;
        tell(Seen::Begin);
        objects.iter().cloned().for_each(|object| tell(Seen::Listed(object)));
        if sim.breaks_once_in(4) {
            // Those who are told of single objects may look before the listing is complete.
            sim.sleep(sim.below(20 * MS)).await;
        }
        *self.cache.borrow_mut() = objects.into_iter().map(|object| (object.key.clone(), object)).collect();
        self.listed = true;
        tell(Seen::Done(version));
    }

    /// Watches from a version on, until a new listing is needed.
    async fn follow(&self, mut version: i64, tell: &impl Fn(Seen)) {
        loop {
            let reading = self.client.watch(self.wanted.clone(), version);
            while let Some(told) = reading.next().await {
                match told {
                    Told::Added(object) | Told::Modified(object) => {
                        self.advance(&mut version, object.revision, 1);
                        self.cache.borrow_mut().insert(object.key.clone(), object.clone());
                        tell(Seen::Applied(object));
                    }
                    Told::Deleted(object) => {
                        self.advance(&mut version, object.revision, 1);
                        self.cache.borrow_mut().remove(&object.key);
                        tell(Seen::Deleted(object));
                    }
                    Told::Bookmark(revision) => self.advance(&mut version, revision, 0),
                    Told::Expired => return,
                }
                tell(Seen::Reached(version));
            }
            drop(reading);
            self.client.sim.sleep(PAUSE).await;
        }
    }

    /// The version never goes back, and each change has a later one.
    fn advance(&self, version: &mut i64, to: i64, least: i64) {
        if to < *version + least {
            let (who, wanted) = (&self.who, &self.wanted);
            self.client.sim.violate(format_args!("{who} watches {wanted:?} and is told of {to} after {version}"));
        }
        *version = to;
    }
}
