//! What a member's disk holds: what is durable, and what was handed out since.

use std::collections::VecDeque;

use store_core::trace::{Effects, Mark, View};

use super::log::Log;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) log: Log,
    /// Steps that aren't durable yet, without their messages.
    pending: VecDeque<Effects>,
}

/// What one that starts has.
pub(super) struct Found<'a> {
    pub(super) view: &'a View,
    pub(super) log: &'a Log,
}

impl Disk {
    pub(super) fn new(view: &View, log: Log) -> Self {
        Self { term: view.term, vote: view.vote, log, pending: VecDeque::new() }
    }

    pub(super) fn hand_out(&mut self, effects: Effects) {
        self.pending.push_back(effects);
    }

    /// Everything up to a step is durable; gives back those steps.
    pub(super) fn sync(&mut self, step: u64) -> Vec<Effects> {
        let mut synced = Vec::new();
        while self.pending.front().is_some_and(|effects| effects.step <= step) {
            let Some(effects) = self.pending.pop_front() else { break };
            self.fold(&effects);
            synced.push(effects);
        }
        synced
    }

    fn fold(&mut self, effects: &Effects) {
        if let Some((term, vote, _)) = effects.hard_state {
            (self.term, self.vote) = (term, vote);
        }
        if let Some(base) = effects.snapshot {
            self.log = Log::new(base, Vec::new());
        }
        if !effects.entries.is_empty() {
            // The step was looked at when it was handed out: its entries join the log.
            self.log.put(effects.from, &effects.entries);
        }
    }

    /// Whether an entry is durable.
    pub(super) fn holds(&self, index: u64, term: u64) -> bool {
        index <= self.log.base().0 || self.log.term(index) == Some(term)
    }

    /// Whether a member can have found this after a crash: everything that was durable, and of what was handed out since
    /// the first so many steps. A snapshot's state may have been installed while the log wasn't begun anew yet.
    pub(super) fn may_leave(&self, found: &Found<'_>) -> bool {
        let mut disk = Self { pending: VecDeque::new(), ..self.clone() };
        let mut steps = self.pending.iter();
        loop {
            let next = steps.next();
            if disk.is(found, &disk.log) {
                return true;
            }
            if let Some(base) = next.and_then(|effects| effects.snapshot)
                && disk.logs_behind(base).iter().any(|log| disk.is(found, log))
            {
                return true;
            }
            let Some(effects) = next else { return false };
            disk.fold(effects);
        }
    }

    /// What may be left of the log behind a state that is further.
    fn logs_behind(&self, base: (u64, u64)) -> [Log; 2] {
        let joins = self.log.term(base.0) == Some(base.1);
        let rest: Vec<Mark> = if joins { self.log.since(base.0 + 1).to_vec() } else { Vec::new() };
        [Log::new(base, Vec::new()), Log::new(base, rest)]
    }

    fn is(&self, found: &Found<'_>, log: &Log) -> bool {
        (self.term, self.vote) == (found.view.term, found.view.vote) && log.agrees(found.log)
    }
}
