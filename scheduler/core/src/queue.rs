//! The queue of pods that wait for a node.
//!
//! Pure: time comes in as milliseconds.
//!
//! ```text
//!   add ──► active ──take──► in flight ──done──► out
//!             ▲  ▲ ▲            │  │
//!             │  │ └── again ───┤  │
//!             │  └── over ── backoff ◄─ failed
//!             └── event, change, 5 min ── parked ◄─ rejected
//! ```
//! Invariants
//!   Q1  A pod is in exactly one of: active, backoff, parked, in flight.
//!   Q2  What happens while a pod is in flight counts as if it had happened right after it was parked.
//!   Q3  Active pods go by priority, then by how long they have been there.
//! Checked by: queue/tests.rs.
//! Source: scheduler `backend/queue/scheduling_queue.go`, `backoff_queue.go`.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::failure::Failure;
use crate::filter::Plugin;
use crate::pod::Refusal;
use crate::preemption;

/// The first pause after a rejection; it doubles with each.
const FIRST_PAUSE_MS: u64 = 1000;
const LONGEST_PAUSE_MS: u64 = 10_000;
/// A parked pod that nothing seems to help is tried again after this.
const PARKED_MAX_MS: u64 = 300_000;

/// Something happened that may give a pod a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A node came.
    NodeAdded,
    /// What of the node is another now.
    NodeChanged {
        /// Its labels.
        labels: bool,
        /// Its taints, or whether it takes pods at all.
        taints: bool,
        /// What it has for pods.
        allocatable: bool,
    },
    /// A node went.
    NodeRemoved,
    /// A pod got a node, or one that has a node got other labels.
    PodPlaced,
    /// A pod that had a node went or asks for something else.
    PodRemoved,
    /// The waiting pod itself.
    PodChanged,
}

/// What a parked pod waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitsFor {
    /// Nodes that these don't reject.
    Nodes(BTreeSet<Plugin>),
    /// A change of itself.
    Itself,
}

impl WaitsFor {
    /// What may help after a failure.
    #[must_use]
    pub fn after(failure: &Failure) -> Self {
        match failure {
            Failure::Refused(Refusal::Gated(_) | Refusal::Unsupported(_) | Refusal::Unreadable(_)) => Self::Itself,
            Failure::NoNodes => Self::Nodes(BTreeSet::new()),
            Failure::Unfit(diagnosis) => Self::Nodes(diagnosis.plugins()),
        }
    }

    /// Whether trying again may be worth it: upstream's queueing hints, by kind of event only.
    fn helped_by(&self, happening: Happening) -> bool {
        let Self::Nodes(plugins) = self else { return happening == Happening::PodChanged };
        let helps = |plugin: &Plugin| match happening {
            Happening::NodeAdded | Happening::PodChanged => true,
            Happening::NodeChanged { labels, taints, allocatable } => match plugin {
                Plugin::NodeUnschedulable | Plugin::TaintToleration => taints,
                Plugin::NodeAffinity => labels,
                Plugin::NodeResourcesFit => allocatable,
                Plugin::PodTopologySpread => labels || taints,
                Plugin::NodeName | Plugin::NodePorts => false,
            },
            Happening::NodeRemoved | Happening::PodPlaced => *plugin == Plugin::PodTopologySpread,
            Happening::PodRemoved => preemption::pods_matter(*plugin),
        };
        matches!(happening, Happening::NodeAdded | Happening::PodChanged) || plugins.iter().any(helps)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Active,
    /// Until then. After an error the pause is kept even if there is nothing else to do.
    Backoff {
        until: u64,
        error: bool,
    },
    Parked(WaitsFor),
    InFlight(Vec<Happening>),
}

#[derive(Debug, Clone)]
struct Entry {
    priority: i32,
    /// When it last came into the queue or was rejected.
    since: u64,
    /// How often it was taken in vain.
    failures: u32,
    /// Its place in line among those that came at the same time.
    turn: u64,
    place: Place,
}

type Rank = (Reverse<i32>, u64, u64, String);

/// Pods by uid.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    entries: BTreeMap<String, Entry>,
    active: BTreeSet<Rank>,
    backoff: BTreeSet<(u64, String)>,
    /// Since when.
    parked: BTreeMap<String, u64>,
    /// Those of them that wait for a better spread: what happens most often helps only these.
    parked_for_spread: BTreeSet<String>,
    in_flight: BTreeSet<String>,
    turns: u64,
}

/// The pause after so many failures.
pub(crate) fn pause_ms(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(20);
    if failures == 0 { 0 } else { (FIRST_PAUSE_MS << doublings).min(LONGEST_PAUSE_MS) }
}

impl Entry {
    fn rank(&self, uid: &str) -> Rank {
        (Reverse(self.priority), self.since, self.turn, uid.to_owned())
    }

    fn pause_over(&self) -> u64 {
        self.since.saturating_add(pause_ms(self.failures))
    }
}

impl Queue {
    /// How many pods wait, in whatever way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no pod waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A pod came, or changed in a way that may matter.
    pub fn add(&mut self, uid: &str, priority: i32, now: u64) {
        let Some(entry) = self.entries.get_mut(uid) else {
            self.turns += 1;
            let entry = Entry { priority, since: now, failures: 0, turn: self.turns, place: Place::Active };
            self.active.insert(entry.rank(uid));
            self.entries.insert(uid.to_owned(), entry);
            return;
        };
        match &mut entry.place {
            Place::Active => {
                self.active.remove(&entry.rank(uid));
                entry.priority = priority;
                self.active.insert(entry.rank(uid));
            }
            Place::Backoff { .. } => entry.priority = priority,
            Place::InFlight(missed) => {
                entry.priority = priority;
                missed.push(Happening::PodChanged);
            }
            Place::Parked(_) => {
                entry.priority = priority;
                self.requeue(uid, now);
            }
        }
    }

    /// A pod went, or has a node.
    pub fn remove(&mut self, uid: &str) {
        let Some(entry) = self.entries.remove(uid) else { return };
        match entry.place {
            Place::Active => {
                self.active.remove(&entry.rank(uid));
            }
            Place::Backoff { until, .. } => {
                self.backoff.remove(&(until, uid.to_owned()));
            }
            Place::Parked(_) => self.unpark(uid),
            Place::InFlight(_) => {
                self.in_flight.remove(uid);
            }
        }
    }

    fn unpark(&mut self, uid: &str) {
        self.parked.remove(uid);
        self.parked_for_spread.remove(uid);
    }

    /// Takes the next pod; it is in flight until [`Queue::rejected`], [`Queue::failed`], [`Queue::again`] or
    /// [`Queue::remove`].
    pub fn take(&mut self, now: u64) -> Option<String> {
        self.wake(now);
        let uid = match self.active.pop_first() {
            Some((.., uid)) => uid,
            // Nothing else to do: those that only wait for their pause go at once.
            None => {
                let patient = |(_, uid): &&(u64, String)| !self.is_error(uid);
                let (until, uid) = self.backoff.iter().find(patient)?.clone();
                self.backoff.remove(&(until, uid.clone()));
                uid
            }
        };
        self.entries.get_mut(&uid)?.place = Place::InFlight(Vec::new());
        self.in_flight.insert(uid.clone());
        Some(uid)
    }

    fn is_error(&self, uid: &str) -> bool {
        self.entries.get(uid).is_some_and(|entry| matches!(entry.place, Place::Backoff { error: true, .. }))
    }

    /// Whether [`Queue::take`] has something.
    #[must_use]
    pub fn ready(&self, now: u64) -> bool {
        !self.active.is_empty() || self.backoff.iter().any(|(until, uid)| *until <= now || !self.is_error(uid))
    }

    /// Ends a flight: what was missed.
    fn land(&mut self, uid: &str) -> Option<Vec<Happening>> {
        if !self.in_flight.remove(uid) {
            return None;
        }
        match &mut self.entries.get_mut(uid)?.place {
            Place::InFlight(missed) => Some(std::mem::take(missed)),
            _ => None,
        }
    }

    /// No node was right for a pod in flight.
    pub fn rejected(&mut self, uid: &str, waits_for: WaitsFor, now: u64) {
        let Some(missed) = self.land(uid) else { return };
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.failures = entry.failures.saturating_add(1);
        entry.since = now;
        self.parked.insert(uid.to_owned(), now);
        if matches!(&waits_for, WaitsFor::Nodes(plugins) if plugins.contains(&Plugin::PodTopologySpread)) {
            self.parked_for_spread.insert(uid.to_owned());
        }
        // Q2.
        let again = missed.iter().any(|happening| waits_for.helped_by(*happening));
        entry.place = Place::Parked(waits_for);
        if again {
            self.requeue(uid, now);
        }
    }

    /// A pod in flight had a node but didn't get there.
    pub fn failed(&mut self, uid: &str, now: u64) {
        if self.land(uid).is_none() {
            return;
        }
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.failures = entry.failures.saturating_add(1);
        entry.since = now;
        let until = entry.pause_over();
        entry.place = Place::Backoff { until, error: true };
        self.backoff.insert((until, uid.to_owned()));
    }

    /// What was decided for a pod in flight doesn't hold any more, by no fault of its own: it is active again.
    pub fn again(&mut self, uid: &str, now: u64) {
        if self.land(uid).is_some() {
            self.activate(uid, now);
        }
    }

    /// Something happened.
    pub fn happened(&mut self, happening: Happening, now: u64) {
        for uid in &self.in_flight {
            if let Some(Entry { place: Place::InFlight(missed), .. }) = self.entries.get_mut(uid)
                && !missed.contains(&happening)
            {
                missed.push(happening);
            }
        }
        let helped = |uid: &String| match self.entries.get(uid) {
            Some(Entry { place: Place::Parked(waits_for), turn, .. }) if waits_for.helped_by(happening) => {
                Some((*turn, uid.clone()))
            }
            _ => None,
        };
        let mut helped: Vec<(u64, String)> = match happening {
            Happening::PodPlaced | Happening::NodeRemoved => self.parked_for_spread.iter().filter_map(helped).collect(),
            _ => self.parked.keys().filter_map(helped).collect(),
        };
        helped.sort();
        for (_, uid) in helped {
            self.requeue(&uid, now);
        }
    }

    /// Moves what is due: pods whose pause is over, and those that were parked too long.
    fn wake(&mut self, now: u64) {
        while let Some((until, uid)) = self.backoff.first().filter(|(until, _)| *until <= now).cloned() {
            self.backoff.remove(&(until, uid.clone()));
            self.activate(&uid, now);
        }
    }

    /// Puts pods back that were parked for too long. To be called now and then.
    pub fn flush(&mut self, now: u64) {
        let old = |since: u64| now.saturating_sub(since) > PARKED_MAX_MS;
        let stale: Vec<String> = self.parked.iter().filter(|(_, since)| old(**since)).map(|(u, _)| u.clone()).collect();
        for uid in stale {
            self.requeue(&uid, now);
        }
    }

    /// When the next pause is over.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.backoff.first().map(|(until, _)| *until)
    }

    /// A parked pod is to be tried again, once its pause is over.
    fn requeue(&mut self, uid: &str, now: u64) {
        self.unpark(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let until = entry.pause_over();
        if until > now {
            entry.place = Place::Backoff { until, error: false };
            self.backoff.insert((until, uid.to_owned()));
        } else {
            self.activate(uid, now);
        }
    }

    fn activate(&mut self, uid: &str, now: u64) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        self.turns += 1;
        entry.since = now;
        entry.turn = self.turns;
        entry.place = Place::Active;
        self.active.insert(entry.rank(uid));
    }
}
