//! The main check: a history in the order of its revisions.
//!
//! Problem. To find an order that explains every answer is NP-hard in general, and per key it can't judge transactions.
//! Idea.    The store tells its order: each write takes the next revision, and each linearizable read names the one
//!          at which it read. Sort by it, replay, compare answers, look at real time: O(n log n).
//!
//! Why it is sound. What is accepted comes with the order itself: every revision is one write that was asked for, each
//! answer is what a sequential store gives there (`fill` replays them all), and nobody stands before somebody who had ended
//! before it began (`real_time`; O3 and deadlines). That is linearizability.
//! Why it tells no lies. Whatever order explains the answers has the writes by their revisions, and each read
//! between its revision's write and the next; reads between the same two writes can stand in the order of their calls.
//! So there is only one order to try, but for the revisions that no answer names (*gaps*). Those were taken
//! by writes with unknown outcome, each once: who took which is told by values that were read (with the revision of
//! their write), by the store's list of changes, and otherwise tried out, up to a bound with the verdict `Unknown`.
//!
//! What an order keeps to
//!   O1  A revision is one write. No write takes none; what changes nothing takes none (etcd: a delete that finds nothing).
//!   O2  An answer is what the state of its place gives.
//!   O3  An operation that returned before another was called stands before it. One with unknown outcome returns never,
//!       so it only mustn't stand before anything that returned before its call. Serializable reads may be of the past,
//!       not of the future.
//! Checked by: history/tests (mutants of each, brute force over all orders).
//! Source: Herlihy, Wing 1990 (definition); etcd `rpc.proto` ResponseHeader.revision, KeyValue.mod_revision.

mod fill;
mod timeline;

use std::collections::HashMap;

use super::numbered::{Answered, Key, Numbered, Op};
use super::operation::History;
use super::words::{shown, shown_time};
use super::{Verdict, Violation};

/// Judges a history by its revisions.
pub fn check(history: &History) -> Verdict {
    check_numbered(&Numbered::new(history))
}

pub(super) fn check_numbered(all: &Numbered) -> Verdict {
    let order = match Order::new(all) {
        Ok(order) => order,
        Err(found) => return Verdict::Violated(found.violation),
    };
    let timeline = timeline::Timeline::new(&order);
    let found = [order.real_time(), timeline.as_ref().err().cloned()].into_iter().flatten();
    if let Some(first) = found.min_by_key(|found| found.revision) {
        return Verdict::Violated(first.violation);
    }
    match timeline {
        Ok(timeline) => fill::run(&order, &timeline),
        Err(found) => Verdict::Violated(found.violation),
    }
}

/// A violation and where in the order it shows.
#[derive(Debug, Clone)]
struct Found {
    revision: u64,
    violation: Violation,
}

/// The answered operations in the order of their revisions.
struct Order<'a, 'h> {
    all: &'a Numbered<'h>,
    /// By revision, the write before the reads.
    sorted: Vec<usize>,
    /// At each place, the earliest return from there on.
    earliest_return: Vec<u64>,
    /// Who took a revision.
    writers: HashMap<u64, usize>,
    /// Revisions that were taken and that no answer names, ascending.
    gaps: Vec<u64>,
    /// Writes with unknown outcome, by call.
    open: Vec<usize>,
}

fn answered(op: &Op) -> &Answered {
    op.answered().expect("only answered operations are sorted")
}

impl<'a, 'h> Order<'a, 'h> {
    fn new(all: &'a Numbered<'h>) -> Result<Self, Found> {
        let mut sorted: Vec<usize> = (0..all.ops.len()).filter(|at| all.ops[*at].answered().is_some()).collect();
        sorted.sort_by_key(|at| {
            let answered = answered(&all.ops[*at]);
            (answered.revision, !answered.wrote, all.ops[*at].called)
        });
        let mut earliest = u64::MAX;
        let mut earliest_return: Vec<u64> = sorted
            .iter()
            .rev()
            .map(|at| {
                earliest = earliest.min(all.ops[*at].returned);
                earliest
            })
            .collect();
        earliest_return.reverse();
        let mut open: Vec<usize> = (0..all.ops.len()).filter(|at| all.ops[*at].is_open()).collect();
        open.sort_by_key(|at| all.ops[*at].called);
        let mut order = Self { all, sorted, earliest_return, writers: HashMap::new(), gaps: Vec::new(), open };
        order.number_writers()?;
        order.find_gaps()?;
        Ok(order)
    }

    /// O1: one write each, none before the beginning.
    fn number_writers(&mut self) -> Result<(), Found> {
        let all = self.all;
        for at in &self.sorted {
            let answered = answered(&all.ops[*at]);
            let first = all.history.begins_at + u64::from(answered.wrote);
            if answered.revision < first {
                let begins = all.history.begins_at;
                let what = format!("{} is from before the beginning, revision {begins}", shown(all, *at));
                return Err(self.found(answered.revision, what, &[*at]));
            }
            if !answered.wrote {
                continue;
            }
            if let Some(other) = self.writers.insert(answered.revision, *at) {
                let (one, two) = (shown(all, other), shown(all, *at));
                let what = format!("revision {} was taken twice: by {one} and by {two}", answered.revision);
                return Err(self.found(answered.revision, what, &[other, *at]));
            }
        }
        Ok(())
    }

    /// O1: who took the revisions that no answer names?
    fn find_gaps(&mut self) -> Result<(), Found> {
        let all = self.all;
        let begins = all.history.begins_at;
        let named = self.sorted.iter().map(|at| answered(&all.ops[*at]).revision);
        let last = named.chain(all.changes.iter().map(|(revision, _)| *revision)).max().unwrap_or(begins);
        let possible = (self.writers.len() + self.open.len()) as u64;
        if last - begins > possible {
            let what = format!(
                "revision {last} was reached from {begins}, and {possible} writes at most can have happened: \
                 {} were acknowledged, of {} the outcome is unknown",
                self.writers.len(),
                self.open.len()
            );
            return Err(self.found(last, what, self.sorted.last().map_or(&[], std::slice::from_ref)));
        }
        self.gaps = (begins + 1..=last).filter(|revision| !self.writers.contains_key(revision)).collect();
        Ok(())
    }

    /// The place from which on operations stand that have this revision or a later one.
    fn place(&self, revision: u64) -> usize {
        self.sorted.partition_point(|at| answered(&self.all.ops[*at]).revision < revision)
    }

    /// Before when an unknown write must have been called to take a revision.
    fn deadline(&self, gap: u64) -> u64 {
        self.earliest_return.get(self.place(gap)).copied().unwrap_or(u64::MAX)
    }

    fn has_gap(&self, after: u64, until: u64) -> bool {
        let next = self.gaps.partition_point(|gap| *gap <= after);
        self.gaps.get(next).is_some_and(|gap| *gap <= until)
    }

    /// O3 among answered operations.
    fn real_time(&self) -> Option<Found> {
        let ops = &self.all.ops;
        // Who was called last, of those that stand before: all that tell of the order, and the writes.
        let (mut latest, mut latest_write): (Option<usize>, Option<usize>) = (None, None);
        let later =
            |one: Option<usize>, other: usize| one.filter(|one| ops[*one].called >= ops[other].called).or(Some(other));
        let revision = |at: &usize| answered(&ops[*at]).revision;
        for group in self.sorted.chunk_by(|a, b| revision(a) == revision(b)) {
            for at in group.iter().filter(|at| answered(&ops[**at]).wrote) {
                if let Some(before) = latest.filter(|before| ops[*at].returned < ops[*before].called) {
                    return Some(self.out_of_time(*at, before));
                }
                (latest, latest_write) = (later(latest, *at), later(latest_write, *at));
            }
            let reads: Vec<usize> = group.iter().copied().filter(|at| !answered(&ops[*at]).wrote).collect();
            for at in &reads {
                let before = if ops[*at].serializable { latest_write } else { latest };
                if let Some(before) = before.filter(|before| ops[*at].returned < ops[*before].called) {
                    return Some(self.out_of_time(*at, before));
                }
            }
            latest = reads.into_iter().filter(|at| !ops[*at].serializable).fold(latest, later);
        }
        None
    }

    /// By revisions `before` stands before `at`, by the clock behind it.
    fn out_of_time(&self, at: usize, before: usize) -> Found {
        let all = self.all;
        let revision = answered(&all.ops[at]).revision;
        let what = format!(
            "{} returned before {} was called ({} before {}), and comes behind it by revisions, {revision} behind {}",
            shown(all, at),
            shown(all, before),
            shown_time(all.ops[at].returned),
            shown_time(all.ops[before].called),
            answered(&all.ops[before]).revision,
        );
        self.found(revision, what, &[before, at])
    }

    /// A violation with the operations around the ones it is about.
    fn found(&self, revision: u64, what: String, about: &[usize]) -> Found {
        const BEFORE: usize = 3;
        const AFTER: usize = 2;
        let keys: Vec<Key> = about.iter().flat_map(|at| self.all.ops[*at].keys()).collect();
        let related = |at: &&usize| about.is_empty() || self.all.ops[**at].keys().any(|key| keys.contains(&key));
        let place = self.place(revision);
        let mut around: Vec<usize> = self.sorted[..place].iter().rev().filter(related).take(BEFORE).copied().collect();
        around.reverse();
        around.extend(about);
        let here = self.sorted[place..].iter().filter(related);
        around.extend(here.take(AFTER + about.len()));
        let mut seen = std::collections::HashSet::new();
        around.retain(|at| seen.insert(*at));
        Found { revision, violation: Violation { what, around: around.into_iter().map(|at| at + 1).collect() } }
    }
}
