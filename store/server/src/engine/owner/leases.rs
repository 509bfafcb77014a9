//! What a leader does for leases: their time is its own.

use store_core::lease::Renewal;
use store_core::wire::{AlarmType, LeaseCheckpoint, LeaseCheckpointMany, LeaseRevokeMany, command::Request};

use super::{Owner, milliseconds};

impl Owner {
    /// A leader answers for the leases once it has applied an entry of its own term: all that was committed before.
    pub(super) fn take_over_leases(&mut self) {
        if self.lessor.leads() || !self.replica.leads_applied() {
            return;
        }
        let leases: Vec<_> = self.engine.state.read().lease_times().collect();
        self.lessor.lead(self.now_ms(), milliseconds(self.grace), leases.into_iter());
    }

    pub(super) fn note_leases(&mut self, granted: &[(i64, i64)], ended: &[i64], checkpoints: &[(i64, i64)]) {
        let now = self.now_ms();
        granted.iter().for_each(|(id, ttl)| self.lessor.granted(now, *id, *ttl));
        ended.iter().for_each(|id| self.lessor.ended(*id));
        checkpoints.iter().for_each(|(id, remaining)| self.lessor.noted(*id, *remaining));
    }

    pub(super) fn keep_alive(&mut self, lease: i64, renew: bool) -> Renewal {
        let renewal = self.lessor.ask(self.now_ms(), lease, renew);
        if matches!(renewal, Renewal::Renewed(_)) {
            self.engine.metrics.leases_renewed.inc();
        }
        renewal
    }

    pub(super) fn end_leases(&mut self) {
        if self.engine.state.alarms().is_raised(AlarmType::Corrupt) {
            // Refused until the alarm is ended, and proposed anew then.
            self.lessor.nothing_ends();
            return;
        }
        let ids = self.lessor.expired(self.now_ms());
        if !ids.is_empty() && self.propose(Request::LeaseRevoke(LeaseRevokeMany { ids: ids.clone() })) {
            self.lessor.ending(&ids);
        }
    }

    pub(super) fn note_remaining(&mut self) {
        let now = self.now_ms();
        let due = self.lessor.checkpoints(now);
        let checkpoints =
            due.iter().map(|(id, remaining)| LeaseCheckpoint { id: *id, remaining: *remaining }).collect();
        if !due.is_empty() && self.propose(Request::LeaseCheckpoint(LeaseCheckpointMany { checkpoints })) {
            self.lessor.proposed(now, &due);
        }
    }
}
