//! What must hold in every state, and what must come about in some.

use std::collections::BTreeSet;

use raft::StateRole;
use stateright::Property;

use super::Bounds;
use super::cluster::{Cluster, State};
use super::disk::Entries;
use super::entry::{FORWARDED, Slot, Value, conf_state};
use super::member::{Member, Status};

pub(super) const ONE_LEADER: &str = "a term has one leader";
pub(super) const LOGS_MATCH: &str = "logs that share an entry share all before it";
pub(super) const LEADER_COMPLETE: &str = "a later leader has all that was committed";
pub(super) const ONE_HISTORY: &str = "members commit and apply the same entries";
pub(super) const DURABLE: &str = "what is committed is durable on a majority";
pub(super) const TERMS_ASCEND: &str = "terms never decrease along a log";
pub(super) const CONFIGURED: &str = "who votes is who the state says";
pub(super) const NO_PANIC: &str = "no member panics";
pub(super) const READS: &str = "a read sees all that was committed before it";

pub(super) const BACKED: &str = "what a message says is durable";
pub(super) const ONCE: &str = "a proposal is committed once";

pub(super) const COMMITS: &str = "a proposal is committed";
pub(super) const ALL_APPLY: &str = "every member applies every proposal made so far";
pub(super) const SUCCESSION: &str = "a leader follows on the one that committed";
pub(super) const REPLACED: &str = "an entry waits to be replaced by a committed one";
pub(super) const INSTALLED: &str = "a member takes a snapshot";
pub(super) const CHANGED: &str = "a change of members is applied by all that remain";
pub(super) const OVERTAKEN: &str = "a snapshot overtakes a change of members";
pub(super) const FORWARDS: &str = "what a follower was asked for is committed";
pub(super) const READ_ELSEWHERE: &str = "a follower answers a read";

/// The properties; each finding is told once, with the first way to it.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<Cluster>> {
    let mut properties: Vec<Property<Cluster>> = vec![
        Property::always(ONE_LEADER, |all, state: &State| all.found.always(0, !state.promises.two_leaders)),
        Property::always(LOGS_MATCH, |all, state: &State| all.found.always(1, logs_match(state))),
        Property::always(LEADER_COMPLETE, |all, state: &State| all.found.always(2, leader_complete(state))),
        Property::always(ONE_HISTORY, |all, state: &State| all.found.always(3, !state.promises.diverged)),
        Property::always(DURABLE, |all, state: &State| all.found.always(4, durable(state))),
        Property::always(TERMS_ASCEND, |all, state: &State| all.found.always(5, terms_ascend(state))),
        Property::always(CONFIGURED, |all, state: &State| all.found.always(15, configured(state))),
        Property::always(NO_PANIC, |all, state: &State| all.found.always(6, no_panic(state))),
        Property::always(READS, |all, state: &State| all.found.always(11, !state.promises.stale_read)),
        Property::always(ONCE, |all, state: &State| all.found.always(16, once(state))),
        Property::always(BACKED, |all, state: &State| all.found.always(18, !state.promises.early)),
        Property::sometimes(COMMITS, |all, state: &State| all.found.sometimes(7, || commits(state))),
        Property::sometimes(ALL_APPLY, |all, state: &State| all.found.sometimes(8, || all_apply(state))),
        Property::sometimes(SUCCESSION, |all, state: &State| all.found.sometimes(9, || succession(state))),
        Property::sometimes(REPLACED, |all, state: &State| all.found.sometimes(10, || replaced(state))),
    ];
    if bounds.reads > 0 {
        properties.push(Property::sometimes(READ_ELSEWHERE, |all, state: &State| {
            all.found.sometimes(12, || state.promises.read_elsewhere)
        }));
    }
    let start = conf_state(&bounds.start());
    let some_join = start.voters.len() + start.learners.len() < usize::from(bounds.nodes);
    if bounds.compactions > 0 || some_join {
        properties.push(Property::sometimes(INSTALLED, |all, state: &State| {
            all.found.sometimes(13, || state.promises.installed)
        }));
    }
    if bounds.forwards > 0 {
        properties.push(Property::sometimes(FORWARDS, |all, state: &State| {
            all.found.sometimes(17, || committed(state).any(|(_, slot, _)| is_forwarded(slot)))
        }));
    }
    if bounds.changes > 0 {
        properties.push(Property::sometimes(CHANGED, |all, state: &State| all.found.sometimes(14, || changed(state))));
    }
    if bounds.lag && bounds.changes > 0 && bounds.compactions > 0 {
        properties.push(Property::sometimes(OVERTAKEN, |all, state: &State| {
            all.found.sometimes(19, || state.members.iter().any(|member| member.overtaken))
        }));
    }
    properties
}

/// Logs in memory and on disk.
fn logs(state: &State) -> impl Iterator<Item = &Entries> {
    state.members.iter().flat_map(|member| [&member.log, &member.disk.synced.log])
}

/// Who believes to lead: term and log.
fn leaders(state: &State) -> impl Iterator<Item = (u64, &Entries)> {
    state.members.iter().filter_map(|member| {
        let image = member.image().filter(|image| image.role == StateRole::Leader)?;
        Some((image.term, &member.log))
    })
}

fn terms_ascend(state: &State) -> bool {
    logs(state).all(|log| {
        let first = log.slots.first().map_or(log.base_term, |slot| slot.term);
        log.base_term <= first && log.slots.is_sorted_by_key(|slot| slot.term)
    })
}

fn no_panic(state: &State) -> bool {
    !state.members.iter().any(|member| matches!(member.status, Status::Broken(_)))
}

fn logs_match(state: &State) -> bool {
    let agree = |a: &Entries, b: &Entries| {
        let both = a.base.max(b.base) + 1..=a.last().min(b.last());
        let same_term = |index: &u64| a.get(*index).map(|slot| slot.term) == b.get(*index).map(|slot| slot.term);
        let last = both.clone().rev().find(same_term);
        last.is_none_or(|last| (*both.start()..=last).all(|index| a.get(index) == b.get(index)))
    };
    let logs: Vec<&Entries> = logs(state).collect();
    (0..logs.len()).all(|at| logs[..at].iter().all(|other| agree(logs[at], other)))
}

/// What is committed, with its index and the latest term in which it can have become so.
fn committed(state: &State) -> impl Iterator<Item = (u64, Slot, u64)> {
    let committed = state.promises.committed.iter().enumerate();
    committed.map(|(at, (slot, term))| (at as u64 + 1, *slot, *term))
}

fn leader_complete(state: &State) -> bool {
    leaders(state).all(|(term, log)| {
        let mut committed = committed(state);
        // What is before the log was applied, and compared then.
        committed.all(|(index, slot, in_term)| term <= in_term || index <= log.base || log.get(index) == Some(slot))
    })
}

/// Voters that lack something committed can't elect anybody without one that has it.
fn durable(state: &State) -> bool {
    let voters = state.promises.conf_state().voters;
    let majority = voters.len() / 2 + 1;
    committed(state).all(|(index, slot, _)| {
        let lacks = |id: &&u64| {
            let member = &state.members[**id as usize - 1];
            index > member.floor && member.disk.synced.log.get(index) != Some(slot)
        };
        voters.iter().filter(lacks).count() < majority
    })
}

fn configured(state: &State) -> bool {
    state.members.iter().all(|member| {
        let Some(image) = member.image() else { return true };
        let conf = conf_state(&member.state);
        let same = |ids: &[u64], set: &BTreeSet<u64>| ids.len() == set.len() && ids.iter().all(|id| set.contains(id));
        same(&conf.voters, &image.voters) && same(&conf.learners, &image.learners)
    })
}

fn is_proposal(slot: Slot) -> bool {
    matches!(slot.value, Value::Proposal(_))
}

fn is_forwarded(slot: Slot) -> bool {
    matches!(slot.value, Value::Proposal(number) if number > FORWARDED)
}

fn once(state: &State) -> bool {
    let mut numbers = 0u64;
    committed(state).all(|(_, slot, _)| {
        let Value::Proposal(number) = slot.value else { return true };
        // Numbers end below 64.
        let is_new = numbers & 1 << number == 0;
        numbers |= 1 << number;
        is_new
    })
}

fn commits(state: &State) -> bool {
    committed(state).any(|(_, slot, _)| is_proposal(slot))
}

fn succession(state: &State) -> bool {
    let mut committed = committed(state).filter(|(_, slot, _)| is_proposal(*slot));
    committed.any(|(_, _, in_term)| leaders(state).any(|(term, _)| term > in_term))
}

fn replaced(state: &State) -> bool {
    let differs = |log: &Entries| {
        let mut committed = committed(state);
        committed.any(|(index, slot, _)| log.get(index).is_some_and(|own| own != slot))
    };
    logs(state).any(differs)
}

/// The members of the latest configuration.
fn belonging(state: &State) -> impl Iterator<Item = &Member> {
    let conf = state.promises.conf_state();
    conf.voters.into_iter().chain(conf.learners).map(|id| &*state.members[id as usize - 1])
}

fn all_apply(state: &State) -> bool {
    let proposals = usize::from(state.used.proposals + state.used.forwards);
    proposals > 0
        && belonging(state).all(|member| {
            member.image().is_some() && member.state.iter().filter(|slot| is_proposal(**slot)).count() == proposals
        })
}

fn changed(state: &State) -> bool {
    let is_change = |slot: &Slot| matches!(slot.value, Value::Change(..));
    let applied = |member: &Member| member.image().is_some() && member.state.len() == state.promises.committed.len();
    committed(state).any(|(_, slot, _)| is_change(&slot)) && belonging(state).all(applied)
}
