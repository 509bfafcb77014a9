//! The log thread and the state thread, as `store/server/src/engine/persist.rs` and `apply.rs`.

use std::rc::Rc;
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState, Message};
use store_core::divergence::CHECK_ENTRIES;
use store_core::mvcc::Answer;
use store_core::replica::Persist;
use store_core::trace::Event as Traced;
use store_core::watch::{Ring, Told};

use super::{Input, Running};
use crate::event::Event;
use crate::mutant::Mutant;
use crate::queue::MS;
use crate::run::FAULTS;
use crate::state::{Applied, Content};
use crate::world::Shared;

/// What the log thread is given.
pub(crate) enum ToLog {
    Step { number: u64, persist: Persist, after: Vec<Message> },
    Reset { number: u64, index: u64, term: u64, hard_state: HardState, after: Vec<Message> },
    Release(u64),
}

/// What the state thread is given.
pub(crate) enum ToState {
    Apply(Vec<Entry>),
    /// A peer needs a copy of the state.
    Build,
}

impl Running {
    pub(super) fn give_log(&mut self, order: ToLog, shared: &mut Shared) {
        self.log_queue.push_back(order);
        if !self.log_busy {
            self.write(shared);
        }
    }

    /// Writes all that waits; [`Running::written`] follows when the disk is done.
    fn write(&mut self, shared: &mut Shared) {
        let (mut sync, mut last, mut messages, mut release) = (false, None, Vec::new(), None);
        let mut fault = None;
        for order in std::mem::take(&mut self.log_queue) {
            match order {
                ToLog::Step { number, persist, after } => {
                    self.push(persist.entries, persist.hard_state, shared.mutant);
                    sync |= persist.sync;
                    last = Some(number);
                    messages.extend(after);
                }
                ToLog::Reset { number, index, term, hard_state, after } => {
                    fault = fault.or(self.wal.reset(index, term, &hard_state).err());
                    self.log_end = index;
                    last = Some(number);
                    messages.extend(after);
                }
                ToLog::Release(index) => release = Some(index),
            }
        }
        if last.is_some() && fault.is_none() {
            fault = self.wal.flush(sync).err();
        }
        if let Some(fault) = fault {
            // Nothing that this batch would have acknowledged leaves.
            self.tell(Input::Failed(fault), shared);
            self.log_busy = true;
            return;
        }
        if shared.mutant == Some(Mutant::ReplyBeforeSync) {
            self.release_messages(std::mem::take(&mut messages), shared);
            if let Some(number) = last {
                self.tell(Input::Persisted(number), shared);
            }
        }
        self.writing = (last, messages, release);
        self.log_busy = true;
        let wait = if sync { shared.sync_time() } else { 5 };
        let done = (shared.queue.now() + wait).max(self.stalled_until);
        shared.queue.at(done, Event::Written(self.id, self.boot));
    }

    fn push(&mut self, mut entries: Vec<Entry>, mut hard_state: Option<HardState>, mutant: Option<Mutant>) {
        match (mutant, &mut hard_state) {
            (Some(Mutant::LoseVote), Some(hard_state)) => hard_state.vote = 0,
            (Some(Mutant::KeepReplaced), _) => entries.retain(|entry| entry.index > self.log_end),
            _ => {}
        }
        self.log_end = entries.last().map_or(self.log_end, |entry| entry.index);
        self.wal.push(&entries, hard_state.as_ref());
    }

    fn release_messages(&mut self, messages: Vec<Message>, shared: &mut Shared) {
        for message in messages {
            self.send(message, shared);
        }
    }

    /// The disk has done what it was asked for.
    pub(crate) fn written(&mut self, shared: &mut Shared) {
        self.log_busy = false;
        self.wal.segments().settle();
        let (last, messages, release) = std::mem::take(&mut self.writing);
        if let Some(step) = last {
            shared.trace(self.id, [Traced::Durable { step }]);
        }
        self.release_messages(messages, shared);
        if let Some(number) = last.filter(|_| shared.mutant != Some(Mutant::ReplyBeforeSync)) {
            self.tell(Input::Persisted(number), shared);
        }
        if let Some(index) = release
            && let Err(fault) = self.wal.release(index)
        {
            self.tell(Input::Failed(fault), shared);
        }
        if !self.log_queue.is_empty() {
            self.write(shared);
        }
    }

    pub(crate) fn fill_disk(&mut self) {
        self.wal.segments().full = true;
    }

    pub(super) fn give_state(&mut self, order: ToState, shared: &mut Shared) {
        self.state_queue.push_back(order);
        self.wake_state(shared);
    }

    fn wake_state(&mut self, shared: &mut Shared) {
        if self.state_busy || self.state_queue.is_empty() {
            return;
        }
        self.state_busy = true;
        // In the calm it keeps up with whatever load there is.
        let slow = shared.chance.once_in(shared.limits.slow_apply) && shared.queue.now() < FAULTS;
        let wait = if slow { shared.chance.below(300 * MS) } else { shared.chance.between(10, 200) };
        shared.queue.after(wait, Event::State(self.id, self.boot));
    }

    /// The state thread's turn.
    pub(crate) fn work(&mut self, shared: &mut Shared) {
        self.state_busy = false;
        if let Some(order) = self.state_queue.pop_front() {
            self.obey(order, shared);
        }
        if self.collecting && shared.chance.once_in(4) {
            self.collecting = self.state.collect();
        }
        if shared.chance.once_in(200) {
            // The database makes room in memory when it likes to, and tells nobody.
            self.state.flush();
        }
        self.wake_state(shared);
    }

    /// The flushing thread is done.
    pub(crate) fn flushed(&mut self, shared: &mut Shared) {
        let Some((index, content)) = self.flushing.take() else { return };
        self.state.flushed_to(content);
        self.tell(Input::Flushed(index), shared);
    }

    fn obey(&mut self, order: ToState, shared: &mut Shared) {
        match order {
            ToState::Apply(entries) => {
                // Together: watchers are told of all of them at once, and then each who waits.
                let (mut changes, mut answers) = (Vec::new(), Vec::new());
                for entry in &entries {
                    let Some(applied) = self.apply(entry, shared) else { continue };
                    changes.extend(applied.changes);
                    answers.push((applied.request_id, applied.answer, applied.revision));
                }
                if self.failed.is_some() {
                    return;
                }
                let revision = answers.last().map(|(_, _, revision)| *revision);
                if let Some(revision) = revision.filter(|_| !changes.is_empty()) {
                    let kept = self.ring.kept().clone();
                    self.ring.push(changes.into_iter().map(|change| Arc::new(Told::new(change, &kept))).collect());
                    self.publish(revision, shared);
                }
                for (request_id, answer, revision) in answers {
                    self.call_applied(request_id, answer, revision, shared);
                }
                let (index, _) = self.state.content.applied;
                self.tell(Input::Applied(index), shared);
                self.entries_since_flush += entries.len() as u64;
                if self.entries_since_flush >= shared.limits.flush_entries && self.flushing.is_none() {
                    self.entries_since_flush = 0;
                    self.flushing = Some((index, self.state.content.clone()));
                    let wait = shared.chance.between(MS, 200 * MS);
                    shared.queue.after(wait, Event::Flushed(self.id, self.boot));
                }
            }
            ToState::Build => {
                self.state.flush();
                self.tell(Input::Copied(self.state.content.clone()), shared);
            }
        }
    }

    /// Applies an entry; `None` if it holds no command, or the state is damaged now or was before.
    fn apply(&mut self, entry: &Entry, shared: &mut Shared) -> Option<Applied> {
        if self.failed.is_some() {
            return None;
        }
        let applied = match self.state.apply(entry) {
            Ok(applied) => applied,
            Err(fault) => {
                self.failed = Some(fault);
                return None;
            }
        };
        shared.canon.applied(self.id, entry, &self.state, applied.as_ref(), shared.queue.now());
        if entry.index.is_multiple_of(CHECK_ENTRIES) {
            let hash = self.state.machine.chain.hash().to_vec();
            self.tell(Input::Vote { index: entry.index, hash }, shared);
        }
        let mut applied = applied?;
        self.collecting |= applied.compacted.is_some();
        if let Ok(Answer::Voted(wrong)) = &applied.answer {
            assert!(wrong.is_empty(), "members {wrong:?} are found to be wrong");
        }
        let granted = std::mem::take(&mut applied.granted);
        let (ended, checkpoints) = (std::mem::take(&mut applied.ended), std::mem::take(&mut applied.checkpoints));
        if !(granted.is_empty() && ended.is_empty() && checkpoints.is_empty()) {
            self.tell(Input::Leases { granted, ended, checkpoints }, shared);
        }
        if let Some(members) = applied.members.take() {
            let removed = members.was_removed(self.id);
            let change = applied.conf_change.take().map(|change| (entry.index, Box::new(change)));
            self.tell(Input::Members(change, removed), shared);
        }
        Some(applied)
    }

    /// A snapshot replaces the state; the owner waits for it.
    pub(super) fn install(&mut self, content: Rc<Content>, shared: &mut Shared) {
        while let Some(order) = self.state_queue.pop_front() {
            self.obey(order, shared);
        }
        self.state.install(content);
        shared.canon.installed(self.id, &self.state, shared.queue.now());
        let revision = self.state.machine.mvcc.revision();
        if shared.mutant != Some(Mutant::KeepRing) {
            self.ring = Ring::bounded(revision, shared.limits.ring_changes);
        }
        self.collecting = true;
        let removed = self.state.machine.members.was_removed(self.id);
        // raft took the configuration from the snapshot itself.
        self.tell(Input::Members(None, removed), shared);
        self.publish(revision, shared);
    }

    fn publish(&mut self, revision: i64, shared: &mut Shared) {
        self.published = revision;
        self.wake_streams(shared);
    }
}
