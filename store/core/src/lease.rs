//! Leases: when they expire, by the leader's clock.
//!
//! Deadlines live on the leader alone. Expiry is a command in the log, so a lease
//! ends at the same place of the history everywhere. A new leader gives every
//! lease its whole time again: none ends early by a change of leader.
//!
//! Invariants
//!   X1  A lease is proposed for expiry only at or after its deadline.
//!   X2  At most [`EXPIRE_MAX`] leases are proposed at once.
//! Source: etcd `server/lease/lessor.go`.

use std::collections::BTreeMap;

/// Leases that one command ends at most.
pub const EXPIRE_MAX: usize = 1000;
/// Longest time to live, in seconds, as in etcd.
pub const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// Deadlines of the leases, in milliseconds of a monotonic clock.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Deadlines(BTreeMap<i64, u64>);

fn after(now_ms: u64, ttl_seconds: i64) -> u64 {
    now_ms.saturating_add(u64::try_from(ttl_seconds).unwrap_or(0).saturating_mul(1000))
}

impl Deadlines {
    /// Starts anew, as a member that just became leader.
    pub fn restart(&mut self, now_ms: u64, leases: impl Iterator<Item = (i64, i64)>) {
        self.0 = leases.map(|(id, ttl)| (id, after(now_ms, ttl))).collect();
    }

    /// Forgets everything, as a member that no longer leads.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Gives a lease its whole time again.
    pub fn renew(&mut self, now_ms: u64, id: i64, ttl_seconds: i64) {
        self.0.insert(id, after(now_ms, ttl_seconds));
    }

    /// A lease ended.
    pub fn remove(&mut self, id: i64) {
        self.0.remove(&id);
    }

    /// Whole seconds left, as etcd counts them; `None` for an unknown lease.
    pub fn remaining(&self, now_ms: u64, id: i64) -> Option<i64> {
        let left = self.0.get(&id)?.saturating_sub(now_ms);
        i64::try_from(left / 1000).ok()
    }

    /// What has expired (X1, X2).
    pub fn expired(&self, now_ms: u64) -> Vec<i64> {
        self.0.iter().filter(|(_, deadline)| **deadline <= now_ms).map(|(id, _)| *id).take(EXPIRE_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X1.
    #[test]
    fn a_lease_ends_at_its_deadline_and_not_before() {
        let mut deadlines = Deadlines::default();
        deadlines.renew(1_000, 7, 5);
        assert_eq!((deadlines.expired(5_999), deadlines.expired(6_000)), (vec![], vec![7]));
        deadlines.renew(5_000, 7, 5);
        assert_eq!(deadlines.expired(6_000), []);
        assert_eq!((deadlines.remaining(5_000, 7), deadlines.remaining(6_500, 7)), (Some(5), Some(3)));
    }

    #[test]
    fn a_new_leader_gives_the_whole_time_again() {
        let mut deadlines = Deadlines::default();
        deadlines.restart(100_000, [(1, 10), (2, 20)].into_iter());
        assert_eq!(deadlines.expired(110_000), [1]);
    }
}
