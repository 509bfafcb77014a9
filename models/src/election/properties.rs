//! What must hold in every state, and what must come about in some.

use std::sync::atomic::Ordering;

use stateright::Property;

use super::Bounds;
use super::candidate::TIMING;
use super::cluster::{Cluster, State};

pub(super) const ONE: &str = "at most one may act";
pub(super) const HOLDS: &str = "who may act holds the lease";
pub(super) const BY_HOLDER: &str = "the lease is renewed and released by its holder";
pub(super) const COUNTED: &str = "each new holder counts, and nothing else";
pub(super) const WAITS: &str = "nobody waits for nothing";
pub(super) const ARRIVED: &str = "what one wrote while it led doesn't arrive while another may act";

pub(super) const TAKEN_OVER: &str = "another acts after one was killed";
pub(super) const HANDED_OVER: &str = "another acts before a lease that was released would have ended";
pub(super) const STOPPED: &str = "one stops because its renewals don't come through";
pub(super) const UNAWARE: &str = "one that stood still has yet to see that another acts";
pub(super) const LATE_REFUSED: &str = "a late write of the lease is refused";
pub(super) const LATE_WRITTEN: &str = "a late write of the lease comes through";

/// The properties; each finding is told once, with the first way to it.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<Cluster>> {
    let mut properties: Vec<Property<Cluster>> = vec![
        Property::always(ONE, |all, state: &State| all.found.always(0, all.acting(state).count() <= 1)),
        Property::always(HOLDS, |all, state: &State| {
            all.found.always(1, all.acting(state).all(|(_, candidate)| candidate.name == state.store.holder()))
        }),
        Property::always(BY_HOLDER, |all, state: &State| all.found.always(2, !state.store.broken.another)),
        Property::always(COUNTED, |all, state: &State| all.found.always(3, !state.store.broken.miscounted)),
        Property::always(WAITS, |all, state: &State| all.found.always(4, nobody_waits_for_nothing(state))),
        Property::always(ARRIVED, |all, state: &State| all.found.always(5, !state.store.broken.arrived)),
        Property::sometimes(UNAWARE, |all, state: &State| all.found.sometimes(6, || is_unaware(all, state))),
    ];
    if bounds.crashes > 0 {
        properties.push(Property::sometimes(TAKEN_OVER, |all, state: &State| {
            all.found.sometimes(7, || is_taken_over(all, state))
        }));
    }
    if bounds.releases > 0 {
        properties.push(Property::sometimes(HANDED_OVER, |all, state: &State| {
            all.found.sometimes(8, || is_handed_over(all, state))
        }));
    }
    if bounds.losses > 0 {
        properties.push(Property::sometimes(STOPPED, |all, _: &State| {
            all.found.sometimes(9, || all.seen.stopped.load(Ordering::Relaxed))
        }));
        properties.push(Property::sometimes(LATE_REFUSED, |all, _: &State| {
            all.found.sometimes(10, || all.seen.late_refused.load(Ordering::Relaxed))
        }));
        properties.push(Property::sometimes(LATE_WRITTEN, |all, _: &State| {
            all.found.sometimes(11, || all.seen.late_written.load(Ordering::Relaxed))
        }));
    }
    properties
}

fn nobody_waits_for_nothing(state: &State) -> bool {
    state.candidates.iter().all(|one| one.ended || one.awaited().is_some() || one.core.wake_at().is_some())
}

/// It would say of itself that it leads, but for the look at its clock.
fn is_unaware(all: &Cluster, state: &State) -> bool {
    let acting: Vec<usize> = all.acting(state).map(|(at, _)| at).collect();
    let thinks =
        |(at, one): (usize, &super::candidate::Candidate)| one.core.acts_until().is_some() && !acting.contains(&at);
    !acting.is_empty() && state.candidates.iter().enumerate().any(thinks)
}

fn transitions(state: &State) -> i32 {
    state.store.lease.as_ref().map_or(0, |stored| stored.record.transitions)
}

fn is_taken_over(all: &Cluster, state: &State) -> bool {
    state.used.releases == 0 && state.used.crashes > 0 && transitions(state) > 0 && all.acting(state).next().is_some()
}

fn is_handed_over(all: &Cluster, state: &State) -> bool {
    let clock = |(_, one): (usize, &super::candidate::Candidate)| one.clock(&all.bounds, state.now);
    let early = all.acting(state).any(|acting| clock(acting) < TIMING.lease_duration_ms);
    early && transitions(state) > 0
}
