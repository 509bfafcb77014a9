//! What is certain about each key, before anything is guessed: its writes, and until when each was seen.

use std::collections::HashMap;

use super::super::numbered::{Act, Effects, Is, Key, Numbered, Op, Seen, Value};
use super::super::words::{self, shown};
use super::{Found, Order, answered};

/// What a write left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Put(Value),
    /// A compare that held told of the write, and nobody of its value.
    SomePut,
    Deletion,
}

/// A write that certainly was.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) revision: u64,
    pub(super) left: Left,
    /// Until which revision somebody saw what it left, and who.
    pub(super) seen: (u64, Option<usize>),
}

/// What is certain about a key.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// Ascending.
    pub(super) points: Vec<Point>,
    /// At which revisions somebody saw that it isn't there, ascending.
    pub(super) absent: Vec<(u64, usize)>,
}

/// What is certain.
pub(super) struct Timeline {
    pub(super) tracks: Vec<Track>,
    /// Of gaps: what was certainly written then.
    pub(super) pins: HashMap<u64, Vec<(Key, Left)>>,
    /// Of gaps: everything that was written then, as the store told.
    pub(super) told: HashMap<u64, Effects>,
}

/// What somebody saw of a key at a revision.
#[derive(Debug, Clone, Copy)]
struct Sight {
    at: u64,
    key: Key,
    what: What,
    by: usize,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Found(Option<Value>, u64),
    Absent,
}

fn sights(op: &Op, by: usize) -> Vec<Sight> {
    let answered = answered(op);
    let at = answered.revision - u64::from(answered.wrote);
    let sight = |key, what| Sight { at, key, what, by };
    let mut found = Vec::new();
    for (key, is) in op.compares.iter().filter(|_| answered.succeeded) {
        match is {
            Is::Absent => found.push(sight(*key, What::Absent)),
            Is::At(revision) => found.push(sight(*key, What::Found(None, *revision))),
            // It doesn't say of which revision: the replay looks.
            Is::Value(_) => {}
        }
    }
    let mut own: Vec<Key> = Vec::new();
    for (act, seen) in op.done() {
        match (act, seen) {
            // What it wrote itself before: the replay looks.
            (Act::Get(key), _) if own.contains(&key) => {}
            (Act::Get(key), Seen::Found(value, revision)) => found.push(sight(key, What::Found(Some(value), revision))),
            (Act::Get(key) | Act::Delete(key), Seen::Absent | Seen::Deleted(false)) => {
                found.push(sight(key, What::Absent))
            }
            (Act::Put(key, _) | Act::Delete(key), _) => own.push(key),
            _ => {}
        }
    }
    found
}

impl Timeline {
    /// Gathers it; finds what contradicts it whatever unknown writes did.
    pub(super) fn new(order: &Order) -> Result<Self, Found> {
        let tracks = std::iter::repeat_with(Track::default).take(order.all.keys_count()).collect();
        let mut timeline = Self { tracks, pins: HashMap::new(), told: HashMap::new() };
        timeline.add_told(order)?;
        let all = order.all;
        for (revision, at) in &order.writers {
            for (key, value) in all.ops[*at].wrote() {
                let left = value.map_or(Left::Deletion, Left::Put);
                timeline.tracks[key.0 as usize].points.push(Point {
                    revision: *revision,
                    left,
                    seen: (*revision, None),
                });
            }
        }
        let sights: Vec<Sight> = order.sorted.iter().flat_map(|at| sights(&all.ops[*at], *at)).collect();
        for sight in &sights {
            timeline.add_writer_of(order, sight)?;
        }
        for (gap, pins) in &timeline.pins {
            for (key, left) in pins {
                let points = &mut timeline.tracks[key.0 as usize].points;
                points.push(Point { revision: *gap, left: *left, seen: (*gap, None) });
            }
        }
        timeline.tracks.iter_mut().for_each(|track| track.points.sort_by_key(|point| point.revision));
        for sight in &sights {
            timeline.see(order, sight)?;
        }
        timeline.missing(order)?;
        Ok(timeline)
    }

    /// The store's own list agrees with who took the revisions; it tells what the gaps hold.
    fn add_told(&mut self, order: &Order) -> Result<(), Found> {
        let all = order.all;
        for (revision, events) in &all.changes {
            let mut events = events.clone();
            events.sort_unstable();
            let Some(writer) = order.writers.get(revision) else {
                let pin = |(key, value): &(Key, Option<Value>)| (*key, value.map_or(Left::Deletion, Left::Put));
                self.pins.insert(*revision, events.iter().map(pin).collect());
                self.told.insert(*revision, events);
                continue;
            };
            let mut wrote: Vec<_> = all.ops[*writer].wrote().collect();
            wrote.sort_unstable();
            if wrote != events {
                let told: Vec<String> = events.iter().map(|event| shown_event(all, event)).collect();
                let what = format!(
                    "the store tells that revision {revision} was [{}], and it was {}",
                    told.join(", "),
                    shown(all, *writer)
                );
                return Err(order.found(*revision, what, &[*writer]));
            }
        }
        Ok(())
    }

    /// Finds the write that somebody saw, or pins it to its gap.
    fn add_writer_of(&mut self, order: &Order, sight: &Sight) -> Result<(), Found> {
        let What::Found(value, revision) = sight.what else { return Ok(()) };
        let all = order.all;
        let reader = shown(all, sight.by);
        let err = |what: String, about: &[usize]| Err(order.found(sight.at, what, about));
        if revision > sight.at {
            return err(
                format!("{reader}, at revision {}, found a write of the later revision {revision}", sight.at),
                &[sight.by],
            );
        }
        if let Some(writer) = order.writers.get(&revision) {
            let mut wrote = all.ops[*writer].wrote();
            let is_it =
                wrote.any(|(key, wrote)| key == sight.key && wrote.is_some() && (value.is_none() || value == wrote));
            if is_it {
                return Ok(());
            }
            let what =
                format!("{reader} found {}, and revision {revision} is {}", found_in(all, sight), shown(all, *writer));
            return err(what, &[*writer, sight.by]);
        }
        let left = value.map_or(Left::SomePut, Left::Put);
        let pins = self.pins.entry(revision).or_default();
        match pins.iter_mut().find(|(key, _)| *key == sight.key) {
            Some((_, known)) if *known == Left::SomePut => *known = left,
            Some((_, known)) if *known != left && left != Left::SomePut => {
                let what = format!("{reader} found {}, and others found something else there", found_in(all, sight));
                return err(what, &[sight.by]);
            }
            Some(_) => {}
            None => pins.push((sight.key, left)),
        }
        let wrote = |at: &usize| {
            all.ops[*at]
                .writes()
                .any(|(key, wrote)| key == sight.key && wrote.is_some() && (value.is_none() || value == wrote))
        };
        if revision > all.history.begins_at && order.open.iter().any(wrote) {
            return Ok(());
        }
        let others: Vec<usize> = (0..all.ops.len()).filter(wrote).take(2).collect();
        let whose = match others.as_slice() {
            [] => "nobody asked for that write".to_owned(),
            [one, ..] => {
                let operation = &all.history.operations[*one];
                format!("only {} asked for that write, of which {}", shown(all, *one), words::outcome(operation))
            }
        };
        err(format!("{reader} found {}, and {whose}", found_in(all, sight)), &[&others[..], &[sight.by]].concat())
    }

    /// Nothing certain stands between a write and those who saw it.
    fn see(&mut self, order: &Order, sight: &Sight) -> Result<(), Found> {
        let track = &mut self.tracks[sight.key.0 as usize];
        let What::Found(_, revision) = sight.what else {
            track.absent.push((sight.at, sight.by));
            return Ok(());
        };
        let next = track.points.partition_point(|point| point.revision <= revision);
        if let Some(lost) = track.points.get(next).filter(|point| point.revision <= sight.at) {
            let all = order.all;
            let writer = order.writers.get(&lost.revision).copied();
            let by = writer.map_or_else(|| "somebody".to_owned(), |at| shown(all, at));
            let what = format!(
                "{} found {} at revision {}, without what {by} did at revision {}",
                shown(all, sight.by),
                found_in(all, sight),
                sight.at,
                lost.revision
            );
            return Err(order.found(sight.at, what, &[writer.as_slice(), &[sight.by]].concat()));
        }
        let point = &mut track.points[next - 1];
        if point.seen.0 < sight.at {
            point.seen = (sight.at, Some(sight.by));
        }
        Ok(())
    }

    /// Who saw nothing came before the first write, behind a deletion, or where an unknown one can have been.
    fn missing(&mut self, order: &Order) -> Result<(), Found> {
        let all = order.all;
        for (key, track) in self.tracks.iter_mut().enumerate() {
            track.absent.sort_unstable();
            let key = Key(u32::try_from(key).expect("a key's number"));
            let deletes = |at: &usize| all.ops[*at].writes().any(|write| write == (key, None));
            let can_delete = order.open.iter().any(deletes);
            for (at, by) in &track.absent {
                let Some(last) = track.points[..track.points.partition_point(|p| p.revision <= *at)].last() else {
                    continue;
                };
                if last.left == Left::Deletion || can_delete && order.has_gap(last.seen.0, *at) {
                    continue;
                }
                let writer = order.writers.get(&last.revision).copied();
                let put = writer.map_or_else(|| "what was put".to_owned(), |at| format!("what {} put", shown(all, at)));
                let name = all.key_name(key);
                let what = format!(
                    "{} found no {name} at revision {at}: {put} at revision {} is gone, and nobody deleted it",
                    shown(all, *by),
                    last.revision
                );
                return Err(order.found(*at, what, &[writer.as_slice(), &[*by]].concat()));
            }
        }
        Ok(())
    }
}

impl Track {
    /// Whether a write at a gap would contradict somebody who saw an earlier one later.
    pub(super) fn is_frozen(&self, gap: u64) -> bool {
        let before = self.points.partition_point(|point| point.revision < gap);
        before.checked_sub(1).is_some_and(|last| self.points[last].seen.0 >= gap)
    }

    /// What the key must be at the next revision after a gap that says so: absent, at which revision.
    pub(super) fn absent_by(&self, gap: u64) -> Option<u64> {
        let next = self.absent.partition_point(|(at, _)| *at < gap);
        let (at, _) = self.absent.get(next)?;
        let point = self.points.partition_point(|point| point.revision <= gap);
        let overwritten = self.points.get(point).is_some_and(|point| point.revision <= *at);
        (!overwritten).then_some(*at)
    }

    /// That a certain deletion comes next, so that something must be there: at which revision.
    pub(super) fn present_by(&self, gap: u64) -> Option<u64> {
        let next = self.points.partition_point(|point| point.revision <= gap);
        self.points.get(next).filter(|point| point.left == Left::Deletion).map(|point| point.revision)
    }
}

fn found_in(all: &Numbered, sight: &Sight) -> String {
    let What::Found(value, revision) = sight.what else { return "nothing".to_owned() };
    let key = all.key_name(sight.key);
    match value {
        Some(value) => format!("{key} = {}", words::state(all, Some((value, Some(revision))))),
        None => format!("{key} of revision {revision}"),
    }
}

fn shown_event(all: &Numbered, (key, value): &(Key, Option<Value>)) -> String {
    match value {
        Some(value) => format!("put {} = {:?}", all.key_name(*key), all.value_name(*value)),
        None => format!("delete {}", all.key_name(*key)),
    }
}
