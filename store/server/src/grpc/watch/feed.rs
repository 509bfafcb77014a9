//! How watchers are given what was published.
//!
//! Problem. To read for each watcher what there is for it costs as much for those for whom there is nothing, and for many
//!          who want the same it is done as often.
//! Idea.    Most watchers of a stream stand at the same place and want nothing but the change: what came since is read
//!          once, and each change finds those who want it. Whoever stands elsewhere, or wants more, is read for alone.

use bytes::Bytes;
use prost::Message as _;
use store_core::errors::RequestError;
use store_core::watch::{Heard, Slice};

use super::answer::{Answer, Bundles, Counted, Gone, Room, SLICE_BYTES_MAX, Turn};
use super::{Serving, Watcher, decided, reason};
use crate::engine::Engine;
use crate::grpc::fragment::fragments;
use crate::grpc::status;

/// Events, encoded, and up to which revision they are all; `None` if compaction took what was before one (W8).
type Encoded = Option<(Vec<Bytes>, i64)>;

/// A slice's events, of those above a revision with what was before them; fewer if they become too large by it, but
/// whole revisions.
fn encoded(engine: &Engine, slice: Slice, prev_kv_above: Option<i64>) -> Encoded {
    let (mut events, mut bytes, mut reached) = (Vec::with_capacity(slice.events.len()), 0, 0);
    for told in &slice.events {
        if bytes >= SLICE_BYTES_MAX && told.at.main > reached {
            return Some((events, reached));
        }
        let event = if !told.creates && prev_kv_above.is_some_and(|above| told.at.main > above) {
            match told.with_before(|| engine.state.before(&told.key, told.at.main)) {
                Some(event) => event,
                None if told.at.main <= engine.state.read().compacted() => return None,
                None => told.encoded.clone(),
            }
        } else {
            told.encoded.clone()
        };
        bytes += event.len();
        reached = told.at.main;
        events.push(event);
    }
    Some((events, slice.reached))
}

impl Serving {
    /// Gives every watcher what is published now, and no more (W6); returns up to where that is.
    pub(super) async fn feed(&mut self) -> Result<i64, Gone> {
        let to = self.published();
        let from = std::mem::replace(&mut self.together, to + 1);
        let decided = decided(&self.service.engine.state.auth());
        // Who waits for something to come behind everything else is seldom one of these, so that they come first.
        self.feed_each(to, |watcher| !watcher.goes_along(from, decided)).await?;
        self.feed_together(from, to).await?;
        self.feed_each(to, |_| true).await?;
        Ok(to)
    }

    /// Gives those who lack something, and of whom `whom` says so, what is published, one after the other.
    async fn feed_each(&mut self, to: i64, whom: impl Fn(&Watcher) -> bool) -> Result<(), Gone> {
        let behind = self.watchers.iter().filter(|(_, watcher)| watcher.cursor.is_behind(to) && whom(watcher));
        for id in behind.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.feed_one(id, to).await?;
        }
        Ok(())
    }

    /// Gives those who had all before `from` what came since, read once for all of them. Who needs more than that is
    /// left to [`Self::feed_one`].
    async fn feed_together(&mut self, mut from: i64, to: i64) -> Result<(), Gone> {
        while from <= to {
            tokio::task::coop::consume_budget().await;
            // First room, then events (W7).
            let room = self.room().await?;
            let Some((turn, reached)) = self.tell_together(from, to, room) else { return Ok(()) };
            for parcel in turn.parcels {
                self.out.send_parcel(parcel).await?;
            }
            if turn.is_all {
                from = reached + 1;
            }
        }
        Ok(())
    }

    /// What there is for those of one place in history, as far as there is room, and up to which revision; `None` if the
    /// ring doesn't hold it, or it is too much for all of them together.
    fn tell_together(&mut self, from: i64, to: i64, room: Room) -> Option<(Turn, i64)> {
        let decided = decided(&self.service.engine.state.auth());
        let mut heard = Heard::new(from, SLICE_BYTES_MAX);
        self.service.engine.each_recent(from, to, |told| heard.take(&self.audience, told))?;
        let reached = heard.reached(to);
        // Compacted while it was read: what was read may have holes (W2).
        if reached < from || from < self.compacted() {
            return None;
        }
        let header = Answer { header: self.service.header(to), ..Answer::default() }.encode_to_vec();
        let (mut bundles, mut others) = (Bundles::new(&self.out, room), Vec::new());
        for (id, events) in heard.by_watcher() {
            let watcher = self.watchers.get(&id).filter(|watcher| watcher.goes_along(from, decided));
            let Some(watcher) = watcher else { continue };
            let events = events.filter(|told| watcher.wanted.takes(told.is_deletion)).map(|told| &told.encoded);
            if !bundles.tell(&header, id, events) {
                others.push(id);
            }
        }
        let is_told = |id: &i64| others.binary_search(id).is_err();
        for (id, watcher) in &mut self.watchers {
            if watcher.goes_along(from, decided) && is_told(id) {
                watcher.cursor.given(reached);
            }
        }
        Some((bundles.end(), reached))
    }

    /// Gives a watcher everything up to a published revision, slice by slice.
    pub(super) async fn feed_one(&mut self, id: i64, to: i64) -> Result<(), Gone> {
        loop {
            // Who watches much that nothing happens to never waits below.
            tokio::task::coop::consume_budget().await;
            if self.watchers.get(&id).is_none_or(|w| !w.cursor.is_behind(to)) {
                return Ok(());
            }
            // First room, then events (W7).
            let room = self.room().await?;
            if let Err(error) = self.check_again(id) {
                return self.cancel(id, reason(error)).await;
            }
            let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
            let (cursor, fragment) = (watcher.cursor, watcher.fragment);
            let compacted = self.compacted();
            if cursor.is_overtaken(compacted) {
                return self.cancel_compacted(id, compacted).await;
            }
            let read = self.slice(watcher, to).await;
            // Compacted while it was read: what was read may have holes (W2).
            let compacted = self.compacted();
            if cursor.is_overtaken(compacted) {
                continue;
            }
            let (events, reached) = match read {
                Ok(Some(read)) => read,
                Ok(None) => return self.cancel_compacted(id, compacted).await,
                Err(_) => {
                    let _ = self.out.send(Err(status(RequestError::Disk))).await;
                    return Err(Gone);
                }
            };
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.cursor.given(reached);
            }
            if !events.is_empty() {
                let header = self.service.header(to);
                let answer = Answer { header, watch_id: id, events, ..Answer::default() };
                self.send_events(answer, fragment, room).await?;
            }
        }
    }

    /// Waits until the client has taken enough; watchers that could be told something count as slow meanwhile.
    async fn room(&self) -> Result<Room, Gone> {
        if let Some(room) = self.out.room_now() {
            return Ok(room);
        }
        let published = self.published();
        let behind = self.watchers.values().filter(|w| w.cursor.is_behind(published)).count();
        let _slow = Counted::new(&self.service.engine.metrics.watching.slow, behind);
        let mut ended = self.service.engine.ended.subscribe();
        tokio::select! {
            room = self.out.room() => room,
            // Nobody reads why.
            _ = ended.wait_for(Option::is_some) => Err(Gone),
        }
    }

    /// A watcher's next events.
    async fn slice(&self, watcher: &Watcher, to: i64) -> Result<Encoded, RequestError> {
        let (engine, from, wanted) = (&self.service.engine, watcher.cursor.next(), watcher.wanted.clone());
        let recent = engine.recent(from, to, SLICE_BYTES_MAX, |key, is_deletion| wanted.matches(key, is_deletion));
        let prev_kv_above = watcher.prev_kv_above;
        match recent {
            Some(slice) if prev_kv_above.is_none() || slice.events.is_empty() => Ok(encoded(engine, slice, None)),
            recent => {
                let engine = engine.clone();
                // Old changes and older values come from disk.
                let read = tokio::task::spawn_blocking(move || {
                    let slice = match recent {
                        Some(slice) => slice,
                        None => {
                            engine.past(from, to, SLICE_BYTES_MAX, |key, deletion| wanted.matches(key, deletion))?
                        }
                    };
                    Ok(encoded(&engine, slice, prev_kv_above))
                });
                read.await.map_err(|_| RequestError::Stopped)?
            }
        }
    }

    /// Sends events, in fragments if the watcher takes them.
    async fn send_events(&self, answer: Answer, fragment: bool, room: Room) -> Result<(), Gone> {
        if !fragment {
            return self.out.send_events(&answer, room).await;
        }
        let mut room = Some(room);
        for part in fragments(answer, self.service.config.max_message_bytes()) {
            let room = match room.take() {
                Some(room) => room,
                None => self.room().await?,
            };
            self.out.send_events(&part, room).await?;
        }
        Ok(())
    }
}
