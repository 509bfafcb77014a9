//! What must hold in every state, and what must come about in some.

use std::sync::atomic::Ordering;

use stateright::Property;

use super::Bounds;
use super::cluster::{Cluster, State};
use super::store::{Answer, Stage};

pub(super) const ROOM: &str = "no scheduler's binding gives a node more than it has room for";
pub(super) const ONCE: &str = "no pod is bound twice";
pub(super) const NONE_FORGOTTEN: &str = "when nothing is left to be done, no node has room for a pod that waits";
pub(super) const NONE_KEPT: &str = "when nothing is left to be done, no room is kept for a pod that isn't there";

pub(super) const ALL_PLACED: &str = "every node is full, or every pod has one";
pub(super) const FENCED: &str = "a fence refuses a binding";
pub(super) const REFUSED: &str = "a scheduler binds a pod that another has bound";
pub(super) const LATE: &str = "a binding is made that nobody waits for any more";
pub(super) const ASKED_AGAIN: &str = "a binding is asked for again while it is on its way";

/// The properties; each finding is told once, with the first way to it.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<Cluster>> {
    let mut properties: Vec<Property<Cluster>> = vec![
        Property::always(ROOM, |all, state: &State| all.found.always(0, !state.store.broken.overcommitted)),
        Property::always(ONCE, |all, state: &State| all.found.always(1, !state.store.broken.twice)),
        Property::always(NONE_FORGOTTEN, |all, state: &State| all.found.always(2, none_forgotten(all, state))),
        Property::always(NONE_KEPT, |all, state: &State| all.found.always(3, none_kept(state))),
        Property::sometimes(ALL_PLACED, |all, state: &State| {
            all.found.sometimes(4, || is_quiet(state) && state.store.pods.iter().any(|pod| pod.node.is_some()))
        }),
    ];
    let several = bounds.schedulers > 1;
    if several && !bounds.foreign {
        properties.push(Property::sometimes(FENCED, |all, state: &State| {
            all.found.sometimes(5, || is_answered(state, |answer| matches!(answer, Answer::Outdated(_))))
        }));
    }
    if several {
        properties.push(Property::sometimes(REFUSED, |all, state: &State| {
            all.found.sometimes(6, || is_answered(state, |answer| *answer == Answer::Refused))
        }));
    }
    if bounds.losses > 0 {
        properties.push(Property::sometimes(LATE, |all, _: &State| {
            all.found.sometimes(7, || all.late.load(Ordering::Relaxed))
        }));
        properties.push(Property::sometimes(ASKED_AGAIN, |all, state: &State| {
            all.found.sometimes(8, || is_asked_again(state))
        }));
    }
    properties
}

fn is_answered(state: &State, by: impl Fn(&Answer) -> bool) -> bool {
    let requests = state.members.iter().flat_map(|member| &member.requests);
    requests.into_iter().any(|request| matches!(&request.stage, Stage::Answered(answer) if by(answer)))
}

fn is_asked_again(state: &State) -> bool {
    state.members.iter().any(|member| {
        let of = |awaited: bool| member.requests.iter().filter(move |request| request.awaited == awaited);
        of(true).any(|new| of(false).any(|old| (old.pod, old.node) == (new.pod, new.node)))
    })
}

/// Whether nothing happens any more unless somebody deletes or binds something: all was shown, nothing is on its way, no
/// scheduler has anything to decide or a pause to wait for. Pods that waited for five minutes aren't tried again.
fn is_quiet(state: &State) -> bool {
    let rests = |scheduler: &super::member::Scheduler| !scheduler.is_ready() && !scheduler.pauses();
    state.plain.is_empty()
        && state.members.iter().all(|member| {
            member.requests.iter().all(|request| matches!(request.stage, Stage::Answered(_)))
                && state.is_shown(member)
                && rests(&member.scheduler)
        })
}

/// Requests that are answered may still be on their way only if nobody is ever told.
fn is_over(all: &Cluster, state: &State) -> bool {
    let is_told = |member: &super::member::Member| {
        let loses = all.bounds.mutant == Some(super::Mutant::LoseRefusal);
        loses || member.requests.is_empty()
    };
    is_quiet(state) && state.members.iter().all(is_told)
}

fn none_forgotten(all: &Cluster, state: &State) -> bool {
    if !is_over(all, state) {
        return true;
    }
    let waits = state.store.pods.iter().any(|pod| pod.node.is_none() && !pod.marked && !pod.gone);
    !waits || !(0..all.bounds.nodes).any(|node| state.store.has_room(node, &all.bounds))
}

fn none_kept(state: &State) -> bool {
    !is_quiet(state) || state.members.iter().any(|m| !m.requests.is_empty()) || {
        state.members.iter().all(|member| member.scheduler.core.counts().1 == 0)
    }
}
