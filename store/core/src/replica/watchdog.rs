//! A disk that hangs: a leader that can't write hands over to one that can.
//!
//! Heartbeats don't wait for the disk, so nobody would depose such a leader, and nothing that
//! it proposes would be applied by it.

/// Watches what was handed out to be persisted, by the owner's ticks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watchdog {
    handed_out: u64,
    persisted: u64,
    /// The tick of the last progress, or of the first step that waits.
    since: u64,
}

impl Watchdog {
    /// A step was handed out.
    pub fn handed_out(&mut self, tick: u64, number: u64) {
        if self.handed_out == self.persisted {
            self.since = tick;
        }
        self.handed_out = number;
    }

    /// Steps up to this one are durable.
    pub fn persisted(&mut self, tick: u64, number: u64) {
        self.persisted = number;
        self.since = tick;
    }

    /// Whether the disk is at work.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.handed_out != self.persisted
    }

    /// For how many ticks the disk has made no progress with what waits for it.
    #[must_use]
    pub fn stalled_for(&self, tick: u64) -> u64 {
        if self.handed_out == self.persisted { 0 } else { tick.saturating_sub(self.since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_that_owes_something_and_makes_no_progress_is_stalled() {
        let mut dog = Watchdog::default();
        assert_eq!(dog.stalled_for(100), 0, "nothing was asked of it");
        assert!(!dog.is_busy());
        dog.handed_out(100, 1);
        dog.handed_out(105, 2);
        assert_eq!(dog.stalled_for(110), 10, "the first waits longest");
        dog.persisted(111, 1);
        assert!(dog.is_busy());
        assert_eq!(dog.stalled_for(115), 4, "slow isn't stalled");
        dog.persisted(116, 2);
        assert_eq!(dog.stalled_for(1000), 0);
        assert!(!dog.is_busy());
    }
}
