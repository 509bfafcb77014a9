//! Events for a trace, while somebody asks for them.

use super::{Replica, Step};
use crate::trace::{Cause, Effects, Event, Letter, Mark, Members, View, hexadecimal};

/// What happened since the events were taken last.
#[derive(Debug)]
pub(super) struct Recorder {
    /// As told last.
    view: View,
    events: Vec<Event>,
}

impl Replica {
    /// From now on what happens is recorded, beginning with what this member is. Take it with [`Replica::recorded`] after
    /// every poll, before what the step asks for is done: nothing else bounds it.
    pub fn record(&mut self) {
        let log = self.log();
        let base = log.base();
        let entries = log.entries().map(Mark::from).collect();
        let (view, members) = (self.view(), Members::from(&self.conf_state()));
        let events = vec![Event::Start { view, base, entries, applied: self.node.raft.raft_log.applied, members }];
        self.recorder = Some(Recorder { view, events });
    }

    /// What happened since this was asked for last.
    pub fn recorded(&mut self) -> Vec<Event> {
        self.recorder.as_mut().map(|recorder| std::mem::take(&mut recorder.events)).unwrap_or_default()
    }

    /// This member between two inputs.
    #[must_use]
    pub fn view(&self) -> View {
        let (raft, log) = (&self.node.raft, &self.node.raft.raft_log);
        View {
            term: raft.term,
            vote: raft.vote,
            role: raft.state.into(),
            leader: raft.leader_id,
            commit: log.committed,
            last: (log.last_index(), log.last_term()),
        }
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// Notes an input if it changed what the member is.
    pub(super) fn note_change(&mut self, cause: impl FnOnce() -> Cause) {
        let Some(recorder) = &self.recorder else { return };
        if recorder.view != self.view() {
            self.note(cause);
        }
    }

    /// Notes that time passed, if that changed what the member is, or it stood once more.
    pub(super) fn note_time(&mut self, stands_again: bool) {
        if stands_again {
            self.note(|| Cause::Time);
        } else {
            self.note_change(|| Cause::Time);
        }
    }

    /// Notes an input.
    pub(super) fn note(&mut self, cause: impl FnOnce() -> Cause) {
        if self.is_recorded() {
            let view = self.view();
            if let Some(recorder) = &mut self.recorder {
                recorder.view = view;
                recorder.events.push(Event::Input { cause: cause(), view });
            }
        }
    }

    /// Notes the effects of what was noted before them.
    pub(super) fn note_step(&mut self, step: &Step) {
        let Some(recorder) = &mut self.recorder else { return };
        recorder.events.push(Event::Step(Effects {
            now: step.now.iter().map(Letter::from).collect(),
            after: step.after.iter().map(Letter::from).collect(),
            apply: step.apply.last().map_or(0, |entry| entry.index),
            reads: step.reads.iter().map(|read| (hexadecimal(&read.request_ctx), read.index)).collect(),
            ..Effects::to_write(step.number, &step.persist)
        }));
    }
}
