//! Clients that hold leases: they take one, put a key with it, renew it for a while, and let it go.

use models::history::{Answer as Seen, Given, Operation, Outcome, Request};
use store_core::mvcc::Answer;
use store_core::wire::command::Request as Wire;
use store_core::wire::{LeaseGrantRequest, LeaseRevokeMany};

use crate::clients::put;
use crate::event::Event;
use crate::member::{Reply, Want};
use crate::queue::{MS, SECOND, Time};
use crate::world::{RATE_MAX, Shared};

/// What the holder is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Wants a lease.
    Grant,
    /// Puts a key with it.
    Put,
    /// Renews it so many times yet.
    Renew(u64),
    /// Ends it itself.
    Revoke,
}

/// A holder, which asks one thing at a time.
pub(crate) struct Holder {
    number: usize,
    at: u64,
    call: u64,
    called: Option<Time>,
    phase: Phase,
    lease: i64,
    ttl: i64,
    granted: u64,
    /// Until then it asks nothing.
    idle_until: Time,
    /// Renewals that were answered.
    pub(crate) renewed: u64,
}

impl Holder {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            at: 1,
            call: 0,
            called: None,
            phase: Phase::Grant,
            lease: 0,
            ttl: 0,
            granted: 0,
            idle_until: 0,
            renewed: 0,
        }
    }

    fn key(&self) -> String {
        format!("l{}", self.number)
    }

    fn value(&self) -> String {
        format!("{}-{}", self.number, self.lease)
    }

    /// Asks a member for one more renewal, not before a time.
    pub(crate) fn renew_once_more(&mut self, member: u64, not_before: Time) {
        if matches!(self.phase, Phase::Renew(_)) {
            (self.at, self.phase, self.idle_until) = (member, Phase::Renew(0), not_before);
        }
    }

    /// Goes on.
    pub(crate) fn ask(&mut self, shared: &mut Shared) {
        if shared.queue.now() < self.idle_until {
            return shared.queue.at(self.idle_until, Event::Ask(self.number));
        }
        if self.phase != Phase::Renew(0) && shared.chance.once_in(6) {
            self.at = shared.any_member();
        }
        let want = match self.phase {
            Phase::Grant => {
                self.granted += 1;
                self.lease = (self.number as i64 + 1) * 1_000_000 + self.granted as i64;
                self.ttl =
                    if shared.chance.once_in(3) { shared.chance.between(8, 12) } else { shared.chance.between(2, 8) }
                        as i64;
                Want::Write(Wire::LeaseGrant(LeaseGrantRequest { id: self.lease, ttl: self.ttl }))
            }
            Phase::Put => put(&self.key(), &self.value(), self.lease),
            Phase::Renew(_) => Want::Renew(self.lease),
            Phase::Revoke => Want::Write(Wire::LeaseRevoke(LeaseRevokeMany { ids: vec![self.lease] })),
        };
        self.call += 1;
        self.called = Some(shared.queue.now());
        let (client, number, at, wait) = (self.number, self.call, self.at, shared.hop());
        shared.queue.after(wait, Event::Call { client, number, at, want });
        let shortest = if self.phase == Phase::Renew(0) { 3 * SECOND } else { SECOND };
        let patience = shared.chance.between(shortest, 6 * SECOND);
        shared.queue.after(patience, Event::GiveUp { client, number });
    }

    /// An answer came, or patience is at its end.
    pub(crate) fn answered(&mut self, number: u64, reply: Reply, shared: &mut Shared) {
        if number != self.call {
            return;
        }
        let Some(called) = self.called.take() else { return };
        if self.phase == Phase::Put {
            self.record(called, &reply, shared);
        }
        self.phase = match (self.phase, &reply) {
            (Phase::Grant, Reply::Done(Answer::LeaseGrant(id, ttl), _)) => {
                self.promised(*id, *ttl, called, shared);
                Phase::Put
            }
            (Phase::Put, Reply::Done(..)) => Phase::Renew(shared.chance.below(8)),
            (Phase::Renew(left), Reply::Seconds(seconds)) if *seconds > 0 => {
                self.renewed += 1;
                // What wasn't renewed any more is told with what is left of it: that is no promise.
                if *seconds >= self.ttl {
                    self.promised(self.lease, *seconds, called, shared);
                }
                match left {
                    0 if shared.chance.once_in(2) => Phase::Revoke,
                    0 => Phase::Grant,
                    left => Phase::Renew(left - 1),
                }
            }
            (Phase::Renew(left), Reply::Unknown(_) | Reply::Refused(_)) if left > 0 => Phase::Renew(left - 1),
            _ => Phase::Grant,
        };
        if matches!(reply, Reply::Unknown(_) | Reply::Refused(_)) {
            self.at = shared.any_member();
        }
        let pause = match self.phase {
            // Late at times: the log says by then that little is left.
            Phase::Renew(_) if shared.chance.once_in(4) => self.ttl as u64 * SECOND / 2,
            Phase::Renew(_) => self.ttl as u64 * SECOND / 3,
            _ => 100 * MS,
        };
        shared.queue.after(shared.chance.around(pause), Event::Ask(self.number));
    }

    /// What it has asked for and has no answer to.
    pub(crate) fn pending(&self, now: Time) -> Option<Operation> {
        let called = self.called.filter(|_| self.phase == Phase::Put)?;
        Some(self.operation(called, now, Outcome::Unknown("the run ended".to_owned())))
    }

    /// By the fastest clock, and from when it was asked for at the earliest.
    fn promised(&self, id: i64, seconds: i64, called: Time, shared: &mut Shared) {
        let life = (seconds as u64 * SECOND - 2 * MS) * 1_000_000 / RATE_MAX;
        let now = shared.queue.now();
        shared.canon.promised(id, called + life, now);
    }

    fn record(&self, called: Time, reply: &Reply, shared: &mut Shared) {
        let outcome = match reply {
            Reply::Done(_, revision) => {
                Outcome::Ok(Seen { revision: *revision as u64, succeeded: true, steps: vec![Given::Put] })
            }
            Reply::Refused(why) => Outcome::Failed(why.clone()),
            _ => Outcome::Unknown("no answer".to_owned()),
        };
        let operation = self.operation(called, shared.queue.now(), outcome);
        shared.operations.push(operation);
    }

    fn operation(&self, called: Time, returned: Time, outcome: Outcome) -> Operation {
        let request = Request::put(&self.key(), &self.value());
        Operation { client: self.number as u32, called: called * 1000, returned: returned * 1000, request, outcome }
    }
}
