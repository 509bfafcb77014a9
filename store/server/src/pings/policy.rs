//! How often a client may ping: gRPC's rule for servers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Where the setting is zero.
const EVERY: Duration = Duration::from_secs(300);
/// Without a request under way: only TCP's own keepalive is that patient.
const EVERY_IDLE: Duration = Duration::from_secs(7200);
/// Early pings that are borne in a row.
const STRIKES_MAX: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    TooMany,
}

/// What is known of a connection's pings.
pub(super) struct Policy {
    every: Duration,
    last: Option<Instant>,
    strikes: u32,
    /// Something was answered since the last ping: clients measure their bandwidth with the next.
    is_forgiven: bool,
    /// Requests under way.
    streams: BTreeSet<u32>,
    last_stream: u32,
}

impl Policy {
    pub(super) fn new(every: Duration) -> Self {
        let every = if every.is_zero() { EVERY } else { every };
        Self { every, last: None, strikes: 0, is_forgiven: false, streams: BTreeSet::new(), last_stream: 0 }
    }

    /// The newest request's stream.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// Headers came; those of a stream that is known already end it.
    pub(super) fn stream_began(&mut self, stream: u32) {
        if stream > self.last_stream {
            self.last_stream = stream;
            self.streams.insert(stream);
        }
    }

    pub(super) fn stream_ended(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Headers or data went to the client.
    pub(super) fn answered(&mut self, stream: u32, is_end: bool) {
        self.is_forgiven = true;
        if is_end {
            self.stream_ended(stream);
        }
    }

    pub(super) fn ping(&mut self, now: Instant) -> Verdict {
        let last = self.last.replace(now);
        if std::mem::take(&mut self.is_forgiven) {
            self.strikes = 0;
            return Verdict::Fine;
        }
        let every = if self.streams.is_empty() { EVERY_IDLE } else { self.every };
        if last.is_some_and(|last| now.duration_since(last) < every) {
            self.strikes += 1;
        }
        if self.strikes > STRIKES_MAX { Verdict::TooMany } else { Verdict::Fine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of pings so many milliseconds after the start.
    fn pings(policy: &mut Policy, times: &[u64]) -> Vec<bool> {
        let start = Instant::now();
        times.iter().map(|ms| policy.ping(start + Duration::from_millis(*ms)) == Verdict::Fine).collect()
    }

    #[test]
    fn the_third_early_ping_is_too_many() {
        let mut policy = Policy::new(Duration::from_secs(5));
        policy.stream_began(1);
        assert_eq!(pings(&mut policy, &[0, 4999, 9999, 14_998, 19_997]), [true, true, true, true, false]);
    }

    #[test]
    fn an_idle_connection_has_nothing_to_try() {
        let mut policy = Policy::new(Duration::from_secs(5));
        assert_eq!(pings(&mut policy, &[0, 10_000, 20_000, 30_000]), [true, true, true, false]);
        let mut policy = Policy::new(Duration::from_secs(5));
        [1, 3].into_iter().for_each(|stream| policy.stream_began(stream));
        policy.answered(1, true);
        policy.stream_ended(3);
        assert_eq!(pings(&mut policy, &[0, 10_000, 20_000, 30_000]), [true, true, true, false]);
        // A stream doesn't begin twice.
        policy.stream_began(3);
        assert_eq!((policy.streams.len(), policy.last_stream()), (0, 3));
    }

    #[test]
    fn an_answer_forgives() {
        let mut policy = Policy::new(Duration::ZERO);
        policy.stream_began(1);
        for _ in 0..3 {
            assert_eq!(pings(&mut policy, &[0, 1, 2]), [true, true, true]);
            policy.answered(1, false);
        }
        assert_eq!(pings(&mut policy, &[0, 299_999, 599_998, 899_997]), [true, true, true, false]);
    }
}
