//! What a member does for a watcher, as `store/server/src/grpc/watch.rs`: a stream with one watcher in it.

use std::sync::Arc;

use bytes::Bytes;
use store_core::mvcc::{Change, Revision, Values as _, in_range};
use store_core::watch::{Cursor, Slice, Told};
use store_core::wire::RangeRequest;

use crate::disk::Fault;
use crate::event::Event;
use crate::member::Running;
use crate::mutant::Mutant;
use crate::queue::Time;
use crate::world::Shared;

/// Bytes of events that are given at once; small, so that slices end everywhere.
const SLICE_BYTES_MAX: usize = 200;
/// Answers that a client hasn't taken; more wait.
const ANSWERS_MAX: usize = 4;

/// What a client is told.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// The watcher is there; the revision that is published.
    Created(i64),
    Events(Vec<Bytes>),
    /// All up to a revision was given.
    Progress(i64),
    /// Compaction to a revision overtook it.
    Compacted(i64),
    /// The connection is lost.
    Broken,
}

/// A client's watcher, and its connection's number.
pub(crate) type Id = (usize, u64);

/// The watcher.
pub(crate) struct Stream {
    /// Keys from one up to before another.
    wanted: (Bytes, Bytes),
    /// Of changes above this revision it is told what was before.
    before_above: Option<i64>,
    cursor: Cursor,
    waiting: usize,
    due: bool,
    /// What it is being given everything up to.
    feeding: Option<i64>,
    asked: bool,
    last: Time,
}

impl Running {
    /// A client wants to watch from a revision on; 0: from now on.
    pub(crate) fn watch(&mut self, id: Id, wanted: (Bytes, Bytes), start: i64, before: bool, shared: &mut Shared) {
        let published = self.published;
        let cursor = Cursor::new(start, published);
        let before_above = before.then(|| self.state.machine.mvcc.compacted());
        let mut stream =
            Stream { wanted, before_above, cursor, waiting: 0, due: false, feeding: None, asked: false, last: 0 };
        stream.tell(id, Answer::Created(published), shared);
        self.streams.insert(id, stream);
        self.wake_stream(id, shared);
    }

    /// The client took an answer, or asks how far it is.
    pub(crate) fn watcher_went_on(&mut self, id: Id, asks: bool, shared: &mut Shared) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if asks {
            stream.asked = true;
        } else {
            stream.waiting = stream.waiting.saturating_sub(1);
        }
        self.wake_stream(id, shared);
    }

    pub(crate) fn wake_streams(&mut self, shared: &mut Shared) {
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.wake_stream(id, shared);
        }
    }

    fn wake_stream(&mut self, id: Id, shared: &mut Shared) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.due) {
            stream.due = true;
            let wait = shared.chance.below(100);
            shared.queue.after(wait, Event::Stream(self.id, self.boot, id));
        }
    }

    pub(crate) fn drop_streams(&mut self, shared: &mut Shared) {
        for (id, mut stream) in std::mem::take(&mut self.streams) {
            stream.tell(id, Answer::Broken, shared);
        }
    }

    /// Gives a watcher what is published, as far as its client has room.
    pub(crate) fn feed(&mut self, id: Id, shared: &mut Shared) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        stream.due = false;
        if self.feed_stream(id, &mut stream, shared).is_none() {
            self.failed = Some(Fault::Unreadable);
        }
        self.streams.insert(id, stream);
    }

    /// `None`: what it is to be given can't be read.
    fn feed_stream(&self, id: Id, stream: &mut Stream, shared: &mut Shared) -> Option<()> {
        let to = stream.feeding.unwrap_or(self.published);
        stream.feeding = Some(to);
        while stream.cursor.is_behind(to) {
            // First room, then events.
            if stream.waiting >= ANSWERS_MAX {
                return Some(());
            }
            let compacted = self.state.machine.mvcc.compacted();
            if stream.cursor.is_overtaken(compacted) {
                stream.cursor.end();
                stream.tell(id, Answer::Compacted(compacted), shared);
                break;
            }
            let slice = self.slice(stream, to)?;
            stream.cursor.given(slice.reached);
            let encoded: Option<Vec<Bytes>> = slice.events.iter().map(|told| self.encoded(stream, told)).collect();
            let Some(mut events) = encoded else {
                stream.cursor.end();
                stream.tell(id, Answer::Compacted(compacted), shared);
                break;
            };
            if shared.mutant == Some(Mutant::SkipEvent) && shared.chance.once_in(20) {
                events.pop();
            }
            if !events.is_empty() {
                stream.waiting += 1;
                stream.tell(id, Answer::Events(events), shared);
            }
        }
        stream.feeding = None;
        if std::mem::take(&mut stream.asked) {
            let reached = if shared.mutant == Some(Mutant::ProgressNow) { self.published } else { to };
            if shared.mutant == Some(Mutant::ProgressNow) || stream.cursor.has_all(reached) {
                stream.tell(id, Answer::Progress(reached), shared);
            }
        }
        if stream.cursor.is_behind(self.published) && !stream.due {
            stream.due = true;
            shared.queue.after(1, Event::Stream(self.id, self.boot, id));
        }
        Some(())
    }

    /// An event, with what was before it if that is wanted; `None` if compaction took that.
    fn encoded(&self, stream: &Stream, told: &Told) -> Option<Bytes> {
        if told.creates || stream.before_above.is_none_or(|above| told.at.main <= above) {
            return Some(told.encoded.clone());
        }
        let mvcc = &self.state.machine.mvcc;
        let request = RangeRequest { key: told.key.clone(), revision: told.at.main - 1, ..RangeRequest::default() };
        let before = || mvcc.range(&request, &*self.state.content).ok()?.kvs.into_iter().next();
        match told.with_before(before) {
            None if told.at.main > mvcc.compacted() => Some(told.encoded.clone()),
            event => event,
        }
    }

    /// A watcher's next events: from the ring, or from disk.
    fn slice(&self, stream: &Stream, to: i64) -> Option<Slice> {
        let (from, (key, end)) = (stream.cursor.next(), &stream.wanted);
        let wanted = |found: &[u8]| in_range(found, key, end);
        if let Some(slice) = self.ring.slice(from, to, SLICE_BYTES_MAX, |found, _| wanted(found)) {
            return Some(slice);
        }
        let mut slice = Slice::new(from);
        let first = Revision { main: from, sub: 0 };
        for (at, kv) in self.state.content.records.range(first..).take_while(|(at, _)| at.main <= to) {
            if slice.ends_before(at.main, SLICE_BYTES_MAX) {
                return Some(slice);
            }
            if wanted(&kv.key) && kv.version != 0 {
                self.state.content.value(*at).ok()?;
            }
            let told = || Arc::new(Told::new(Change { at: *at, kv: kv.clone() }, self.ring.kept()));
            slice.take(at.main, wanted(&kv.key).then(told));
        }
        slice.reached = to;
        Some(slice)
    }
}

impl Stream {
    /// Answers arrive in order.
    fn tell(&mut self, (watcher, generation): Id, answer: Answer, shared: &mut Shared) {
        self.last = self.last.max(shared.queue.now() + shared.hop());
        shared.queue.at(self.last, Event::Told { watcher, generation, answer });
    }
}
