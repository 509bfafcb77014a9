//! Waiting times after failures: 10 s, doubling to 5 min, forgotten after 10 min.
//!
//! Source: kubelet `MaxContainerBackOff`, `containerBackOffPeriod`, and
//! client-go `flowcontrol.Backoff`, whose entries expire after twice the maximum.

use jiff::{SignedDuration, Timestamp};

/// First waiting time.
pub const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// Longest waiting time.
pub const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long has its failures forgiven.
pub const FORGIVEN_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// The wait before try number `failures` + 1; none before the first retry of a crash.
///
/// `failures` counts the failures in a row before the one just seen.
pub fn crash_delay(failures: u32) -> SignedDuration {
    if failures == 0 {
        return SignedDuration::ZERO;
    }
    doubled(failures - 1)
}

/// The wait after the `failures`-th failure in a row of a pull or a sandbox.
pub fn retry_delay(failures: u32) -> SignedDuration {
    doubled(failures.saturating_sub(1))
}

fn doubled(times: u32) -> SignedDuration {
    let factor = 1_i32 << times.min(5);
    (FIRST * factor).min(LONGEST)
}

/// Failures in a row of one thing that is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    failures: u32,
    /// One word for the waiting state.
    pub reason: String,
    /// What went wrong last.
    pub message: String,
    not_before: Option<Timestamp>,
}

impl Retry {
    /// Notes a failure at `now`; the next try is after a longer wait than the last.
    pub fn failed(&mut self, now: Timestamp, reason: &str, message: &str) {
        self.failures = self.failures.saturating_add(1);
        self.reason = reason.to_owned();
        self.message = message.to_owned();
        self.not_before = now.checked_add(retry_delay(self.failures)).ok();
    }

    /// The moment of the next try, if it is still to come.
    pub fn waits_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.not_before.filter(|at| *at > now)
    }

    /// Failures so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_delays_double_up_to_five_minutes() {
        let seconds: Vec<i64> = (0..8).map(|n| crash_delay(n).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_retry_waits_after_its_first_failure() {
        let mut retry = Retry::default();
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(retry.waits_until(now), None);
        retry.failed(now, "ErrImagePull", "no such image");
        assert_eq!(retry.waits_until(now), now.checked_add(FIRST).ok());
        let later = now.checked_add(FIRST).expect("in range");
        assert_eq!(retry.waits_until(later), None);
    }
}
