//! What must hold in every state, and what must come about in some.

use stateright::Property;
use store_core::lease::Renewal;

use super::cluster::{Cluster, State};
use super::history::{Command, has_key};
use super::member::{GRACE_MS, fastest};

pub(super) const ITS_TIME: &str = "a lease lives as long as its holder was told";
pub(super) const LEADER_KEEPS: &str = "who answers for leases gives each as long as its holder was told";
pub(super) const AS_NOTED: &str = "a new leader gives a lease what the log says is left, and no more";
pub(super) const ONCE: &str = "a lease is ended once";
pub(super) const BY_LEADER: &str = "a lease is ended by the leader of the entry's term";
pub(super) const KEYS: &str = "no key outlives its lease";

pub(super) const EXPIRES: &str = "a lease expires, and its key goes";
pub(super) const RENEWED: &str = "a renewal is answered and kept";
pub(super) const FROM_CHECKPOINT: &str = "a new leader goes on from a checkpoint";
pub(super) const TAKEN_BACK: &str = "a checkpoint is taken back";
pub(super) const IN_VAIN: &str = "a deposed leader ends a lease in vain";

/// The properties; each finding is told once, with the first way to it.
pub(super) fn all() -> Vec<Property<Cluster>> {
    vec![
        Property::always(ITS_TIME, |all, state: &State| all.found.always(0, !state.broken.early)),
        Property::always(LEADER_KEEPS, |all, state: &State| all.found.always(1, leader_keeps(all, state))),
        Property::always(AS_NOTED, |all, state: &State| all.found.always(2, !state.broken.otherwise)),
        Property::always(ONCE, |all, state: &State| all.found.always(3, !state.broken.twice)),
        Property::always(BY_LEADER, |all, state: &State| all.found.always(4, !state.broken.deposed)),
        Property::always(KEYS, |all, state: &State| all.found.always(5, keys_go(all, state))),
        Property::sometimes(EXPIRES, |all, state: &State| all.found.sometimes(6, || expires(state))),
        Property::sometimes(RENEWED, |all, state: &State| all.found.sometimes(7, || renewed(state))),
        Property::sometimes(FROM_CHECKPOINT, |all, state: &State| {
            all.found.sometimes(8, || just_took_over(state).is_some_and(|begins| noted(state, begins, 1) > 0))
        }),
        Property::sometimes(TAKEN_BACK, |all, state: &State| all.found.sometimes(9, || taken_back(state))),
        Property::sometimes(IN_VAIN, |all, state: &State| {
            all.found.sometimes(10, || state.members.iter().any(|member| member.ended_in_vain))
        }),
    ]
}

/// What the lessor at a place gives a lease by its clock: milliseconds at most. `None`: it doesn't know it.
fn given(all: &Cluster, state: &State, at: usize, lease: i64) -> Option<u64> {
    let member = &state.members[at];
    // Asking changes nothing but where it renews.
    match member.lessor.clone().ask(member.clock(&all.bounds, state.now), lease, false) {
        Renewal::Remaining(seconds) => u64::try_from(seconds).ok().map(|seconds| seconds * 1000 + 999),
        _ => None,
    }
}

/// Whoever leads, and was told of all that is committed, would end no lease before its time. By its own clock, which may be
/// the fastest.
fn leader_keeps(all: &Cluster, state: &State) -> bool {
    let answers = |at: &usize| {
        let member = &state.members[*at];
        state.leads(member) && member.lessor.leads() && member.heard == state.committed.len()
    };
    let Some(at) = (0..state.members.len()).find(answers) else { return true };
    let (rate, fastest) = (state.members[at].rate(&all.bounds), fastest(&all.bounds));
    all.leases().zip(&state.holders).all(|(lease, holder)| {
        let (Some((since, seconds)), None) = (holder.promised, holder.ended) else { return true };
        let promised = u64::try_from(seconds).unwrap_or(0) * 1000;
        // By the fastest clock since the promise.
        let left = promised.saturating_sub(u64::from(state.now - since) * fastest);
        match given(all, state, at, lease) {
            Some(given) => given * fastest >= left * rate,
            None => false,
        }
    })
}

/// The last entry in the log whose leader has just taken over from it.
fn just_took_over(state: &State) -> Option<usize> {
    let begins = state.beginning(state.term).filter(|begins| state.committed.len() == begins + 1)?;
    state.members.iter().any(|member| state.leads(member) && member.lessor.leads()).then_some(begins)
}

/// What the log says of a lease, read without the state machine: seconds left, 0 for all.
fn noted(state: &State, to: usize, lease: i64) -> i64 {
    let said = state.committed[..=to].iter().rev().find_map(|applied| match &applied.entry.command {
        Command::Checkpoint(list) => list.iter().find(|(id, _)| *id == lease).map(|(_, left)| *left),
        Command::TakeBack(id) if *id == lease => Some(0),
        _ => None,
    });
    said.unwrap_or(0)
}

/// Whether a leader that just took over from the state at an index gives every lease what the log says up to there.
pub(super) fn gives_what_is_left(all: &Cluster, state: &State, at: usize, applied: usize) -> bool {
    let granted = |lease: i64| {
        let is_grant = |command: &Command| matches!(command, Command::Grant(id, _) if *id == lease);
        state.committed[..=applied].iter().any(|applied| is_grant(&applied.entry.command))
    };
    let ended = |lease: i64| {
        let is_end = |command: &Command| matches!(command, Command::Revoke(ids) if ids.contains(&lease));
        state.committed[..=applied].iter().any(|applied| is_end(&applied.entry.command))
    };
    let clock = |ms: u64| Some(ms / 1000 * 1000 + 999);
    all.leases().all(|lease| {
        let expected = match noted(state, applied, lease) {
            _ if !granted(lease) || ended(lease) => None,
            0 => clock(all.bounds.ttl as u64 * 1000),
            left => clock(left as u64 * 1000 + GRACE_MS),
        };
        given(all, state, at, lease) == expected
    })
}

fn keys_go(all: &Cluster, state: &State) -> bool {
    state.committed.last().is_none_or(|last| {
        all.leases().all(|lease| !has_key(&last.mvcc, lease) || last.mvcc.lease_ttl(lease).is_some())
    })
}

fn expires(state: &State) -> bool {
    state.committed.last().is_some_and(|last| {
        matches!(last.entry.command, Command::Revoke(_))
            && last.writes.changes.iter().any(|change| change.kv.version == 0)
    })
}

fn renewed(state: &State) -> bool {
    state.used.renewals > 0 && state.holders.iter().any(|h| h.ended.is_none() && h.promised.is_some_and(|p| p.0 > 0))
}

fn taken_back(state: &State) -> bool {
    let is_take_back = |command: &Command| matches!(command, Command::TakeBack(_));
    state.committed.last().is_some_and(|last| is_take_back(&last.entry.command))
}
