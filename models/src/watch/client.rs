//! The client: what it was given, and what that should have been.
//!
//! It keeps what it has seen of each watcher and resumes from the revision behind that, wherever it connects, as etcd's client and
//! client-go do; after a compaction it goes on from the revision that it was told.

use super::history::{self, Command, Wanted};
use super::stream::{Answer, Request};

/// A watcher, on the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Watcher {
    pub(super) wanted: Wanted,
    /// The revision up to which it has everything; `None`: it begins with the present, which it doesn't know yet.
    pub(super) seen: Option<i64>,
    /// The stream has it, and compaction hasn't ended it.
    pub(super) open: bool,
}

/// What must never be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Broken {
    /// Events other than those that the log has next.
    pub(super) slice: bool,
    /// Progress beyond events that weren't given.
    pub(super) early: bool,
    /// Progress behind what was seen.
    pub(super) back: bool,
    /// An end by compaction that no compaction justifies.
    pub(super) compacted: bool,
}

impl Watcher {
    /// Of a client that wants to know from a revision on; 0: from now on.
    pub(super) fn new(wanted: Wanted, start: i64) -> Self {
        Self { wanted, seen: (start > 0).then(|| start - 1), open: false }
    }

    /// What it asks for when it connects.
    pub(super) fn request(&self, id: usize) -> Request {
        Request::Create { id, wanted: self.wanted, start: self.seen.map_or(0, |seen| seen + 1) }
    }

    fn progress(&mut self, log: &[Command], to: i64, broken: &mut Broken) {
        let seen = self.seen.unwrap_or(0);
        broken.early |= !history::events(log, self.wanted, seen, to).is_empty();
        broken.back |= to < seen;
        self.seen = Some(to.max(seen));
    }
}

/// Takes an answer, and compares it with the log.
pub(super) fn receive(watchers: &mut [Watcher], answer: &Answer, log: &[Command], broken: &mut Broken) {
    match answer {
        Answer::Created(id, published) => {
            watchers[*id].open = true;
            watchers[*id].seen.get_or_insert(*published);
        }
        Answer::Events { id, events, .. } => {
            let watcher = &mut watchers[*id];
            let (seen, last) = (watcher.seen.unwrap_or(0), events.last().map_or(0, |event| event.0));
            broken.slice |= *events != history::events(log, watcher.wanted, seen, last);
            watcher.seen = Some(last.max(seen));
        }
        Answer::Progress(Some(id), to) => watchers[*id].progress(log, *to, broken),
        // Told to all watchers of the stream, as by etcd's client.
        Answer::Progress(None, to) => {
            watchers.iter_mut().filter(|watcher| watcher.open).for_each(|watcher| watcher.progress(log, *to, broken));
        }
        Answer::Compacted(id, to) => {
            let watcher = &mut watchers[*id];
            let (seen, happened) = (watcher.seen.unwrap_or(0), log.contains(&Command::Compact(*to)));
            broken.compacted |= !happened || *to <= seen + 1;
            // What came before it is looked up otherwise; what the compacted revision changed is still told.
            watcher.seen = Some(seen.max(to - 1));
            watcher.open = false;
        }
    }
}
