//! What must hold in every state, and what must come about in some.

use std::sync::atomic::Ordering;

use agent_core::runtime::ContainerState;
use stateright::Property;

use super::cluster::{Cluster, Stage, State};
use super::mind::{Shown, names};
use super::{Bounds, Policy};

pub(super) const ONCE: &str = "no container of a pod runs twice, or could";
pub(super) const IN_TURN: &str = "a pod's containers have ended before those of the next one of its name begin";
pub(super) const WHOLE: &str = "no container loses its sandbox, its volumes or its record while it runs";
pub(super) const STOPPED: &str = "an object is deleted once its containers have ended";
pub(super) const ASKED: &str = "no object is deleted that isn't to be";
pub(super) const NONE_LEFT: &str = "when nothing is left to be done, nothing is left of pods that aren't wanted";
pub(super) const ALL_RUN: &str = "when nothing is left to be done, every wanted pod runs or has ended, and says so";

pub(super) const RUNS: &str = "a pod runs";
pub(super) const NEXT_RUNS: &str = "the next pod of the name runs";
pub(super) const KEPT: &str = "a container runs on under another agent";
pub(super) const AGAIN: &str = "a container runs again";
pub(super) const LATE: &str = "a call takes effect that nobody waits for";
pub(super) const ADOPTED: &str = "an agent stops a pod that it never heard of";
pub(super) const ENDED: &str = "a pod has ended";

/// The properties; each finding is told once, with the first way to it.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<Cluster>> {
    let mut properties: Vec<Property<Cluster>> = vec![
        Property::always(ONCE, |all, state: &State| all.found.always(0, none_twice(all, state))),
        Property::always(IN_TURN, |all, state: &State| all.found.always(1, in_turn(state))),
        Property::always(WHOLE, |all, state: &State| all.found.always(2, !state.broken.torn)),
        Property::always(STOPPED, |all, state: &State| all.found.always(3, !state.broken.early)),
        Property::always(ASKED, |all, state: &State| all.found.always(4, !state.broken.unasked)),
        Property::always(NONE_LEFT, |all, state: &State| all.found.always(5, none_left(state) || !all.is_quiet(state))),
        Property::always(ALL_RUN, |all, state: &State| {
            all.found.always(6, all_run(all, state) || !all.is_quiet(state))
        }),
        Property::sometimes(RUNS, |all, state: &State| {
            all.found.sometimes(7, || state.runtime.running(0).next().is_some() && all.is_quiet(state))
        }),
    ];
    let goes = bounds.deletions + bounds.forced > 0;
    if goes && bounds.pods > 1 {
        properties.push(Property::sometimes(NEXT_RUNS, |all, state: &State| {
            all.found.sometimes(8, || state.runtime.running(1).next().is_some() && all.is_quiet(state))
        }));
    }
    if bounds.crashes > 0 {
        properties.push(Property::sometimes(KEPT, |all, state: &State| all.found.sometimes(9, || is_kept(all, state))));
        properties.push(Property::sometimes(LATE, |all, _: &State| {
            all.found.sometimes(10, || all.late.load(Ordering::Relaxed))
        }));
    }
    if bounds.exits > 0 && bounds.policy != Policy::Never {
        properties.push(Property::sometimes(AGAIN, |all, state: &State| {
            all.found.sometimes(11, || state.runtime.running(0).any(|c| c.attempt > 0))
        }));
    }
    if bounds.exits > 0 && bounds.policy != Policy::Always {
        properties.push(Property::sometimes(ENDED, |all, state: &State| {
            all.found.sometimes(12, || {
                all.is_quiet(state) && state.api[0].stage == Stage::Wanted && state.runtime.running(0).next().is_none()
            })
        }));
    }
    if bounds.forced > 0 && bounds.crashes > 0 {
        properties.push(Property::sometimes(ADOPTED, |all, state: &State| {
            all.found.sometimes(13, || {
                let minds = state.agent.iter().flat_map(|agent| agent.minds.iter().flatten());
                minds.into_iter().any(|mind| mind.shown == Shown::Orphan)
            })
        }));
    }
    properties
}

/// A container could run if it is the newest of its name, in a sandbox that is ready: older ones are never started.
fn none_twice(all: &Cluster, state: &State) -> bool {
    state.runtime.pods.iter().all(|pod| {
        let is_ready = |id: &str| pod.sandboxes.iter().any(|s| s.id == id && s.ready);
        names(&all.bounds).all(|name| {
            let of_name = || pod.containers.iter().filter(|c| c.name == name);
            let newest = of_name().map(|c| c.attempt).max();
            let lives = |c: &&agent_core::runtime::Container| match c.state {
                ContainerState::Running => true,
                ContainerState::Created => Some(c.attempt) == newest && is_ready(&c.sandbox_id),
                _ => false,
            };
            of_name().filter(lives).count() <= 1
        })
    })
}

/// Who deletes without grace doesn't wait for that.
fn in_turn(state: &State) -> bool {
    let runs = |uid: &usize| state.runtime.running(*uid).next().is_some();
    let mut running = (0..state.api.len()).filter(runs);
    running.next().is_none_or(|first| state.api[first].forced || running.next().is_none())
}

fn none_left(state: &State) -> bool {
    let pairs = state.api.iter().zip(&state.runtime.pods);
    pairs.into_iter().all(|(object, pod)| match object.stage {
        Stage::Wanted => true,
        Stage::Marked => false,
        Stage::Unborn | Stage::Gone => pod.is_empty(),
    })
}

fn all_run(all: &Cluster, state: &State) -> bool {
    let wanted = (0..state.api.len()).filter(|uid| state.api[*uid].stage == Stage::Wanted);
    wanted.into_iter().all(|uid| names(&all.bounds).all(|name| is_true(all, state, uid, name)))
}

/// Whether a container runs, or has ended for good, and its pod's status says so.
fn is_true(all: &Cluster, state: &State, uid: usize, name: &str) -> bool {
    let runs = state.runtime.running(uid).any(|c| c.name == name);
    let status = state.api[uid].status.as_ref().and_then(|status| status.status.container_statuses.as_ref());
    let said = status.and_then(|all| all.iter().find(|c| c.name == name)).and_then(|c| c.state.clone());
    let said = said.unwrap_or_default();
    match (runs, said.terminated) {
        (true, _) => said.running.is_some(),
        (false, Some(end)) => match all.bounds.policy {
            Policy::Always => false,
            Policy::OnFailure => end.exit_code == 0,
            Policy::Never => true,
        },
        (false, None) => false,
    }
}

fn is_kept(all: &Cluster, state: &State) -> bool {
    state.used.crashes > 0 && state.runtime.running(0).any(|c| c.attempt == 0) && all.is_quiet(state)
}
