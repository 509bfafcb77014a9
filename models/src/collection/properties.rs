//! What must hold in every state, and what must come about in some.

use std::sync::atomic::{AtomicBool, Ordering};

use stateright::Property;

use super::Bounds;
use super::cluster::{Cluster, State};
use super::store::Object;

pub(super) const OWNERLESS: &str = "what is collected has owners, and each is gone or waits for it to go";
pub(super) const SPARED: &str = "what a deletion let go isn't collected, unless it was adopted since";
pub(super) const OWN: &str = "nobody takes off an owner that lives, but that owner's controller";
pub(super) const ONE: &str = "a pod has one controller";
pub(super) const LET_GO: &str = "an owner that leaves its dependents goes after all of them are free";
pub(super) const LAST: &str = "an owner that waits for its dependents goes after them";
pub(super) const COLLECTED: &str = "when nothing is left to be done, nothing is left whose owners are all gone";
pub(super) const ENDED: &str = "when nothing is left to be done, nothing waits to go";
pub(super) const ADOPTED: &str = "when nothing is left to be done, no pod is alone that a set selects";

pub(super) const FREED: &str = "a deletion lets a pod go";
pub(super) const COLLECTS: &str = "a pod is collected";
pub(super) const WAITED: &str = "a set goes that waited for its pod";
pub(super) const READOPTED: &str = "a pod that was let go is adopted";
pub(super) const ADOPTS: &str = "a pod is adopted";
pub(super) const UNCONFIRMED: &str = "a set that would adopt isn't there any more, or about to go";
pub(super) const REFUSED: &str = "what was to be collected has changed, and stays";
pub(super) const TAKEN_OFF: &str = "one of two owners is taken off";

/// The properties; each finding is told once, with the first way to it.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<Cluster>> {
    let mut properties: Vec<Property<Cluster>> = vec![
        Property::always(OWNERLESS, |all, state: &State| all.found.always(0, !state.broken.owned)),
        Property::always(SPARED, |all, state: &State| all.found.always(1, !state.broken.orphan)),
        Property::always(OWN, |all, state: &State| all.found.always(2, !state.broken.stolen)),
        Property::always(ONE, |all, state: &State| all.found.always(3, !state.broken.two)),
        Property::always(LET_GO, |all, state: &State| all.found.always(4, !state.broken.left_behind)),
        Property::always(LAST, |all, state: &State| all.found.always(5, !state.broken.too_soon)),
        Property::always(COLLECTED, |all, state: &State| all.found.always(6, !state.is_quiet() || none_left(state))),
        Property::always(ENDED, |all, state: &State| all.found.always(7, !state.is_quiet() || none_waits(state))),
        Property::always(ADOPTED, |all, state: &State| all.found.always(8, !state.is_quiet() || none_alone(state))),
    ];
    if bounds.deletions > 0 {
        properties.push(Property::sometimes(FREED, |all, state: &State| all.found.sometimes(16, || state.spared)));
        properties.push(Property::sometimes(COLLECTS, |all, _: &State| came(all, 9, &all.seen.collected)));
        properties.push(Property::sometimes(WAITED, |all, _: &State| came(all, 10, &all.seen.foreground)));
        properties.push(Property::sometimes(READOPTED, |all, _: &State| came(all, 11, &all.seen.readopted)));
        properties.push(Property::sometimes(UNCONFIRMED, |all, _: &State| came(all, 12, &all.seen.unconfirmed)));
    }
    if bounds.unlinks > 0 {
        properties.push(Property::sometimes(ADOPTS, |all, _: &State| came(all, 13, &all.seen.adopted)));
        properties.push(Property::sometimes(REFUSED, |all, _: &State| came(all, 14, &all.seen.refused)));
    }
    if bounds.shared {
        properties.push(Property::sometimes(TAKEN_OFF, |all, _: &State| came(all, 15, &all.seen.taken_off)));
    }
    properties
}

fn came(all: &Cluster, property: usize, about: &AtomicBool) -> bool {
    all.found.sometimes(property, || about.load(Ordering::Relaxed))
}

fn none_left(state: &State) -> bool {
    let is_gone = |pod: &Object| pod.owners.iter().all(|owner| state.store.by_uid(&owner.uid).is_none());
    !state.store.pods().any(|pod| !pod.owners.is_empty() && is_gone(pod))
}

fn none_waits(state: &State) -> bool {
    !state.store.objects.iter().any(|object| object.deleting)
}

fn none_alone(state: &State) -> bool {
    let is_alone = |pod: &Object| pod.labelled && !pod.owners.iter().any(|owner| owner.controls);
    !state.store.pods().any(is_alone) || !state.store.sets().any(|set| !set.deleting)
}
