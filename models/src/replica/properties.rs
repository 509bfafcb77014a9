//! What must hold in every state, and what must come about in some.

use std::sync::atomic::{AtomicBool, Ordering};

use raft::StateRole;
use stateright::Property;

use super::Bounds;
use super::cluster::{Cluster, State};
use super::disk::Slot;
use super::member::Status;
use super::symmetry::MEMBERS;

/// Members whose disks make a majority.
const MAJORITY: usize = MEMBERS / 2 + 1;

pub(super) const ONE_LEADER: &str = "a term has one leader";
pub(super) const LOGS_MATCH: &str = "logs that share an entry share all before it";
pub(super) const LEADER_COMPLETE: &str = "a later leader has all that was committed";
pub(super) const ONE_HISTORY: &str = "members commit and apply the same entries";
pub(super) const DURABLE: &str = "what is committed is durable on a majority";
pub(super) const TERMS_ASCEND: &str = "terms never decrease along a log";
pub(super) const NO_PANIC: &str = "no member panics";
pub(super) const READS: &str = "a read sees all that was committed before it";

pub(super) const COMMITS: &str = "a proposal is committed";
pub(super) const ALL_APPLY: &str = "every member applies every proposal";
pub(super) const SUCCESSION: &str = "a leader follows on the one that committed";
pub(super) const REPLACED: &str = "an entry waits to be replaced by a committed one";
pub(super) const READ_ELSEWHERE: &str = "a follower answers a read";

/// The properties; each finding is told once, with the first way to it.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<Cluster>> {
    let mut properties: Vec<Property<Cluster>> = vec![
        Property::always(ONE_LEADER, |all, state: &State| !state.promises.two_leaders || !all.found.first(0)),
        Property::always(LOGS_MATCH, |all, state: &State| logs_match(state) || !all.found.first(1)),
        Property::always(LEADER_COMPLETE, |all, state: &State| leader_complete(state) || !all.found.first(2)),
        Property::always(ONE_HISTORY, |all, state: &State| !state.promises.diverged || !all.found.first(3)),
        Property::always(DURABLE, |all, state: &State| durable(state) || !all.found.first(4)),
        Property::always(TERMS_ASCEND, |all, state: &State| terms_ascend(state) || !all.found.first(5)),
        Property::always(NO_PANIC, |all, state: &State| no_panic(state) || !all.found.first(6)),
        Property::always(READS, |all, state: &State| !state.promises.stale_read || !all.found.first(11)),
        Property::sometimes(COMMITS, |all, state: &State| !all.found.yet(7) && commits(state) && all.found.first(7)),
        Property::sometimes(ALL_APPLY, |all, state: &State| {
            !all.found.yet(8) && all_apply(all, state) && all.found.first(8)
        }),
        Property::sometimes(SUCCESSION, |all, state: &State| {
            !all.found.yet(9) && succession(state) && all.found.first(9)
        }),
        Property::sometimes(REPLACED, |all, state: &State| {
            !all.found.yet(10) && replaced(state) && all.found.first(10)
        }),
    ];
    if bounds.reads > 0 {
        properties.push(Property::sometimes(READ_ELSEWHERE, |all, state: &State| {
            !all.found.yet(12) && state.promises.read_elsewhere && all.found.first(12)
        }));
    }
    properties
}

/// What was found already. stateright would replace each finding by later ones, with longer ways to them.
#[derive(Debug, Default)]
pub(super) struct Found([AtomicBool; 13]);

impl Found {
    fn yet(&self, property: usize) -> bool {
        self.0[property].load(Ordering::Relaxed)
    }

    fn first(&self, property: usize) -> bool {
        !self.0[property].swap(true, Ordering::Relaxed)
    }
}

/// Logs in memory and on disk.
fn logs(state: &State) -> impl Iterator<Item = &[Slot]> {
    state.members.iter().flat_map(|member| [member.slots.as_slice(), member.disk.synced.slots.as_slice()])
}

/// Who believes to lead: term and log.
fn leaders(state: &State) -> impl Iterator<Item = (u64, &[Slot])> {
    state.members.iter().filter_map(|member| {
        let image = member.image().filter(|image| image.role == StateRole::Leader)?;
        Some((image.term, member.slots.as_slice()))
    })
}

fn terms_ascend(state: &State) -> bool {
    logs(state).all(|log| log.is_sorted_by_key(|slot| slot.term))
}

fn no_panic(state: &State) -> bool {
    !state.members.iter().any(|member| matches!(member.status, Status::Broken(_)))
}

fn logs_match(state: &State) -> bool {
    let agree = |a: &[Slot], b: &[Slot]| {
        let last = a.iter().zip(b).rposition(|(a, b)| a.term == b.term);
        last.is_none_or(|last| a[..=last] == b[..=last])
    };
    let logs: Vec<&[Slot]> = logs(state).collect();
    (0..logs.len()).all(|at| logs[..at].iter().all(|other| agree(logs[at], other)))
}

fn leader_complete(state: &State) -> bool {
    leaders(state).all(|(term, log)| {
        let mut committed = state.promises.committed.iter().enumerate();
        committed.all(|(at, (slot, in_term))| term <= *in_term || log.get(at) == Some(slot))
    })
}

fn durable(state: &State) -> bool {
    state.promises.committed.iter().enumerate().all(|(at, (slot, _))| {
        let holds = state.members.iter().filter(|member| member.disk.synced.slots.get(at) == Some(slot));
        holds.count() >= MAJORITY
    })
}

fn commits(state: &State) -> bool {
    state.promises.committed.iter().any(|(slot, _)| slot.value != 0)
}

fn succession(state: &State) -> bool {
    let mut committed = state.promises.committed.iter().filter(|(slot, _)| slot.value != 0);
    committed.any(|(_, in_term)| leaders(state).any(|(term, _)| term > *in_term))
}

fn replaced(state: &State) -> bool {
    let committed = &state.promises.committed;
    logs(state).any(|log| log.iter().zip(committed).any(|(slot, (known, _))| slot != known))
}

fn all_apply(cluster: &Cluster, state: &State) -> bool {
    let proposals = usize::from(cluster.bounds.proposals);
    state.members.iter().all(|member| {
        let applied = member.slots.iter().take(member.applied as usize);
        member.image().is_some() && applied.filter(|slot| slot.value != 0).count() == proposals
    })
}
