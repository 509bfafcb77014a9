//! A member: the production lessor, its clock, and what stands around it.
//!
//! Does what `store/server/src/engine` does: `owner` looks at the leases now and then, tells the lessor what the log
//! says, and lets it take over once an entry of its own term is applied; `leader` answers who renews a lease.

use std::sync::Arc;

use store_core::lease::{Lessor, Promise, Renewal};
use store_core::mvcc::Writes;

use super::Bounds;
use super::history::{Applied, Command};

/// A seeded bug of the shell: what the check must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mutant {
    /// Who renews a lease is answered from memory, without asking a majority whether this member still leads.
    AnswerAtOnce,
    /// Once a majority was asked, or the checkpoint taken back, nobody looks whether this member still leads.
    ForgetReign,
    /// The lessor isn't told that its checkpoints are on their way.
    ForgetProposed,
    /// The lessor isn't told that the end of leases was proposed.
    ForgetEnding,
    /// The lessor takes over as soon as its member is elected, although that hasn't applied all that is committed.
    LeadEarly,
    /// What a member decides that doesn't lead any more goes on to who does, as clients' requests do.
    ForwardExpiry,
}

/// Milliseconds of the true clock in a step of time.
pub(super) const STEP_MS: u64 = 1000;
/// What a new leader adds to what is left of a lease.
pub(super) const GRACE_MS: u64 = 500;

/// A renewal that isn't answered yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) lease: i64,
    /// When the lessor renewed the lease, by the true clock.
    pub(super) since: u8,
    pub(super) promise: Promise,
    pub(super) stage: Stage,
}

/// What a renewal waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// A majority says that this member leads, or its leader that this is the present.
    Confirming,
    /// The command that takes back the checkpoint isn't proposed yet.
    Proposing,
    /// It is, at this place of the log.
    TakingBack(usize),
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Member {
    /// Whether its clock is fast; else it is slow.
    pub(super) is_fast: bool,
    /// The term in which it leads, as far as it knows.
    pub(super) leads: Option<u8>,
    /// How much of the log its lessor was told of, while that leads.
    pub(super) heard: usize,
    /// Another leads without its knowing.
    pub(super) unaware: bool,
    pub(super) lessor: Lessor,
    pub(super) waiting: Option<Waiting>,
    /// It ended a lease in a log that nobody follows any more.
    pub(super) ended_in_vain: bool,
}

impl Member {
    pub(super) fn new(bounds: &Bounds, is_fast: bool) -> Self {
        Self {
            is_fast,
            leads: None,
            heard: 0,
            unaware: false,
            lessor: Lessor::new(bounds.checkpoint * 1000),
            waiting: None,
            ended_in_vain: false,
        }
    }

    /// Milliseconds of its clock in a step of time.
    pub(super) fn rate(&self, bounds: &Bounds) -> u64 {
        if self.is_fast { fastest(bounds) } else { STEP_MS - STEP_MS * u64::from(bounds.skew) / 100 }
    }

    /// Its clock.
    pub(super) fn clock(&self, bounds: &Bounds, now: u8) -> u64 {
        u64::from(now) * self.rate(bounds)
    }

    /// Another leads, or it does in another term, and it knows. Who waits for a command of his learns
    /// that its outcome is unknown.
    pub(super) fn leader_changed(&mut self, leads: Option<u8>) {
        self.leads = leads;
        self.heard = 0;
        self.unaware = false;
        self.ended_in_vain = false;
        self.lessor.resign();
        if matches!(&self.waiting, Some(Waiting { stage: Stage::TakingBack(_), .. })) {
            self.waiting = None;
        }
    }

    /// Who doesn't lead, and owes nobody an answer, is as at the beginning: how often it has led is only for renewals.
    pub(super) fn forget(&mut self, bounds: &Bounds) {
        if self.leads.is_none() && self.waiting.is_none() {
            *self = Self::new(bounds, self.is_fast);
        }
    }

    /// Its lessor takes over at an index of the log, from a state that may be further.
    pub(super) fn take_over(&mut self, clock: u64, index: usize, state: &Applied) {
        self.lessor.lead(clock, GRACE_MS, state.mvcc.lease_times());
        self.heard = index;
    }

    /// The state thread has applied the next entry that is about leases, and told so.
    pub(super) fn hear(&mut self, clock: u64, committed: &[Arc<Applied>]) {
        let mut heard = false;
        while let Some(applied) = committed.get(self.heard) {
            let Writes { granted, ended, checkpoints, .. } = &applied.writes;
            let is_about_leases = !(granted.is_empty() && ended.is_empty() && checkpoints.is_empty());
            if is_about_leases && std::mem::replace(&mut heard, true) {
                break;
            }
            granted.iter().for_each(|(id, ttl)| self.lessor.granted(clock, *id, *ttl));
            ended.iter().for_each(|id| self.lessor.ended(*id));
            checkpoints.iter().for_each(|(id, remaining)| self.lessor.noted(*id, *remaining));
            self.heard += 1;
        }
    }

    /// Looks at the leases; returns what it proposes.
    pub(super) fn look(&mut self, clock: u64, mutant: Option<Mutant>) -> Vec<Command> {
        let mut proposals = Vec::new();
        let expired = self.lessor.expired(clock);
        if !expired.is_empty() {
            if mutant != Some(Mutant::ForgetEnding) {
                self.lessor.ending(&expired);
            }
            proposals.push(Command::Revoke(expired));
        }
        let checkpoints = self.lessor.checkpoints(clock);
        if !checkpoints.is_empty() {
            if mutant != Some(Mutant::ForgetProposed) {
                self.lessor.proposed(clock, &checkpoints);
            }
            proposals.push(Command::Checkpoint(checkpoints));
        }
        proposals
    }

    /// Is asked to renew a lease; `false` if there is nothing to wait for.
    pub(super) fn renew(&mut self, clock: u64, now: u8, lease: i64) -> bool {
        let Renewal::Renewed(promise) = self.lessor.ask(clock, lease, true) else { return false };
        let stage = if promise.take_back { Stage::Proposing } else { Stage::Confirming };
        self.waiting = Some(Waiting { lease, since: now, promise, stage });
        true
    }

    /// What it has waited for has come: whether the renewal is answered.
    pub(super) fn stands_by(&self, promise: Promise, mutant: Option<Mutant>) -> bool {
        mutant == Some(Mutant::ForgetReign) || self.lessor.reigns(promise.reign)
    }
}

/// Milliseconds of the fastest clock in a step of time.
pub(super) fn fastest(bounds: &Bounds) -> u64 {
    STEP_MS + STEP_MS * u64::from(bounds.skew) / 100
}
