//! What must hold in every state, and what must come about in some.

use stateright::Property;

use super::Bounds;
use super::cluster::{Cluster, State};
use super::history::events;
use super::replica::Next;
use super::stream::{Answer, Source};

pub(super) const SLICE: &str = "a watcher is given what the log has next for it, whole revisions";
pub(super) const PROGRESS: &str = "progress is told when everything up to it was given";
pub(super) const NO_WAY_BACK: &str = "progress isn't told of less than a client has seen";
pub(super) const COMPACTED: &str = "a watcher ends where a compaction overtook it, and is told which";
pub(super) const NONE_FORGOTTEN: &str = "when nothing is left to be done, watchers have what is published";

pub(super) const FROM_DISK: &str = "a watcher that lags is given the past from disk";
pub(super) const TOGETHER: &str = "watchers that stand at one place are given their turn together";
pub(super) const FULL: &str = "a watcher is behind while the client has no room";
pub(super) const ELSEWHERE: &str = "a client goes on at a member that is behind what it has seen";
pub(super) const OVERTAKEN: &str = "compaction overtakes a watcher";
pub(super) const TOLD: &str = "progress is told to one watcher";
pub(super) const TOLD_ALL: &str = "progress is told to all watchers";

/// The properties; each finding is told once, with the first way to it.
pub(super) fn all(bounds: &Bounds) -> Vec<Property<Cluster>> {
    let mut properties: Vec<Property<Cluster>> = vec![
        Property::always(SLICE, |all, state: &State| all.found.always(0, !state.broken.slice)),
        Property::always(PROGRESS, |all, state: &State| all.found.always(1, !state.broken.early)),
        Property::always(NO_WAY_BACK, |all, state: &State| all.found.always(2, !state.broken.back)),
        Property::always(COMPACTED, |all, state: &State| all.found.always(3, !state.broken.compacted)),
        Property::always(NONE_FORGOTTEN, |all, state: &State| all.found.always(4, none_forgotten(state))),
        Property::sometimes(FROM_DISK, |all, state: &State| {
            all.found.sometimes(5, || on_its_way(state, |answer| is_from(answer, Source::Disk)))
        }),
        Property::sometimes(TOGETHER, |all, state: &State| {
            all.found.sometimes(11, || on_its_way(state, |answer| is_from(answer, Source::Together)))
        }),
        Property::sometimes(FULL, |all, state: &State| all.found.sometimes(6, || full(all, state))),
    ];
    if bounds.connections > 1 {
        properties
            .push(Property::sometimes(ELSEWHERE, |all, state: &State| all.found.sometimes(7, || elsewhere(state))));
    }
    if bounds.compactions > 0 {
        properties.push(Property::sometimes(OVERTAKEN, |all, state: &State| {
            all.found.sometimes(8, || on_its_way(state, |answer| matches!(answer, Answer::Compacted(..))))
        }));
    }
    if bounds.progress > 0 {
        properties.push(Property::sometimes(TOLD, |all, state: &State| {
            all.found.sometimes(9, || on_its_way(state, |answer| matches!(answer, Answer::Progress(Some(_), _))))
        }));
        properties.push(Property::sometimes(TOLD_ALL, |all, state: &State| {
            all.found.sometimes(10, || on_its_way(state, |answer| matches!(answer, Answer::Progress(None, _))))
        }));
    }
    properties
}

fn is_from(answer: &Answer, of: Source) -> bool {
    matches!(answer, Answer::Events { source, .. } if *source == of)
}

fn on_its_way(state: &State, is_it: impl Fn(&Answer) -> bool) -> bool {
    state.stream.as_ref().is_some_and(|stream| stream.out.iter().any(is_it))
}

/// A stream at rest has given its client everything that its member has published.
fn none_forgotten(state: &State) -> bool {
    let Some(stream) = &state.stream else { return true };
    let member = &state.members[stream.at];
    if member.next != Next::Entry || !stream.rests(member) {
        return true;
    }
    let mut open = state.watchers.iter().filter(|watcher| watcher.open);
    open.all(|watcher| {
        let seen = watcher.seen.unwrap_or(0);
        events(&state.log, watcher.wanted, seen, member.published).is_empty()
    })
}

fn full(all: &Cluster, state: &State) -> bool {
    let Some(stream) = &state.stream else { return false };
    stream.waiting() >= all.bounds.room && !stream.is_idle()
}

/// A watcher is created that begins later than what its member has published.
fn elsewhere(state: &State) -> bool {
    let Some(stream) = &state.stream else { return false };
    let published = state.members[stream.at].published;
    state.used.connections > 1 && state.watchers.iter().any(|w| w.open && w.seen.is_some_and(|seen| seen > published))
}
