//! Clients that watch, resume elsewhere, and compare what they are given with what is true.

use bytes::Bytes;
use prost::Message as _;
use store_core::wire::Event as Wire;
use store_core::wire::event::EventType;

use crate::canon::{Canon, Told};
use crate::event::Event;
use crate::mutant::Mutant;
use crate::queue::{MS, SECOND};
use crate::stream::Answer;
use crate::world::Shared;

/// A client with one watcher.
pub(crate) struct Watcher {
    /// Keys from one up to before another.
    wanted: (String, String),
    /// The member that serves it.
    pub(crate) at: u64,
    pub(crate) generation: u64,
    /// The revision up to which it has everything; `None`: it begins with the present.
    pub(crate) seen: Option<i64>,
    /// The stream is there.
    pub(crate) open: bool,
    pub(crate) events: u64,
}

impl Watcher {
    pub(crate) fn new(wanted: (&str, &str)) -> Self {
        let wanted = (wanted.0.to_owned(), wanted.1.to_owned());
        Self { wanted, at: 1, generation: 0, seen: None, open: false, events: 0 }
    }

    /// Connects to a member, and goes on where it was.
    pub(crate) fn connect(&mut self, watcher: usize, shared: &mut Shared) {
        let left = (self.at, self.generation);
        self.generation += 1;
        self.open = false;
        self.at = shared.any_member();
        let start = match self.seen {
            Some(_) if shared.mutant == Some(Mutant::ResumeNow) => 0,
            seen => seen.map_or(0, |seen| seen + 1),
        };
        let wanted = (Bytes::from(self.wanted.0.clone()), Bytes::from(self.wanted.1.clone()));
        let (at, generation, wait) = (self.at, self.generation, shared.hop());
        shared.queue.after(wait, Event::Unwatch { id: (watcher, left.1), at: left.0 });
        shared.queue.after(wait, Event::Watch { id: (watcher, generation), at, wanted, start, before: false });
        // Who hears nothing of it tries another.
        shared.queue.after(2 * SECOND, Event::Doubt { watcher, generation });
    }

    /// Takes an answer.
    pub(crate) fn take(&mut self, watcher: usize, generation: u64, answer: Answer, shared: &mut Shared) {
        if generation != self.generation {
            return;
        }
        let now = shared.queue.now();
        match answer {
            Answer::Created(published) => {
                self.open = true;
                self.seen.get_or_insert(published);
            }
            Answer::Events(events) => {
                self.receive(watcher, &events, &mut shared.canon, now);
                let wait = shared.hop() + if shared.chance.once_in(50) { shared.chance.below(SECOND) } else { 0 };
                shared.queue.after(wait, Event::WentOn { id: (watcher, generation), at: self.at, asks: false });
            }
            Answer::Progress(to) => {
                let seen = self.seen.unwrap_or(0);
                let missed = shared.canon.slice(seen + 1, to, self.range()).next().cloned();
                if let Some(told) = missed {
                    shared.canon.violate(now, format!("watcher {watcher}: progress to {to} is told before {told:?}"));
                }
                if to < seen {
                    shared.canon.violate(now, format!("watcher {watcher}: progress goes back from {seen} to {to}"));
                }
                self.seen = Some(to.max(seen));
            }
            Answer::Compacted(to) => {
                let seen = self.seen.unwrap_or(0);
                if !shared.canon.compacted.contains(&to) || to <= seen + 1 {
                    let what = format!("watcher {watcher} at {seen} is ended by a compaction to {to} without need");
                    shared.canon.violate(now, what);
                }
                // What came before it is looked up otherwise.
                self.seen = Some(seen.max(to - 1));
                self.connect(watcher, shared);
            }
            Answer::Broken => {
                let wait = shared.chance.between(10 * MS, 500 * MS);
                shared.queue.after(wait, Event::Reconnect { watcher, generation });
            }
        }
    }

    fn range(&self) -> (&str, &str) {
        (&self.wanted.0, &self.wanted.1)
    }

    fn receive(&mut self, watcher: usize, events: &[Bytes], canon: &mut Canon, now: u64) {
        let given: Vec<Told> = events.iter().filter_map(told).collect();
        let (seen, last) = (self.seen.unwrap_or(0), given.last().map_or(0, |told| told.revision));
        let differs = {
            let mut right = canon.slice(seen + 1, last, self.range());
            let wrong = given.iter().find(|told| right.next() != Some(told)).cloned();
            wrong.or_else(|| right.next().cloned())
        };
        if differs.is_some() || given.len() != events.len() || given.is_empty() {
            let (first, count) = (given.first(), given.len());
            canon.violate(
                now,
                format!(
                    "watcher {watcher} has all up to {seen} and is given {count} events, {first:?} to {last}, which \
                     isn't what comes next: see {differs:?}"
                ),
            );
        }
        self.events += given.len() as u64;
        self.seen = Some(last.max(seen));
    }

    /// What it still has to be given.
    pub(crate) fn lacks(&self, canon: &Canon) -> Option<Told> {
        canon.slice(self.seen.unwrap_or(0) + 1, canon.revision(), self.range()).next().cloned()
    }
}

fn told(encoded: &Bytes) -> Option<Told> {
    let event = Wire::decode(encoded.clone()).ok()?;
    let gone = event.r#type == EventType::Delete as i32;
    let kv = event.kv?;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(Told { revision: kv.mod_revision, key: text(&kv.key), value: (!gone).then(|| text(&kv.value)) })
}
