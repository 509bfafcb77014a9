//! Compaction that nobody asks for: up to which revision, and when.
//!
//! Two ways, as in etcd: what is older than a time goes, or what is more than so many revisions back.
//! The shell calls [`AutoCompaction::tick`] every [`AutoCompaction::every_ms`]; if a revision comes
//! back, it compacts to it and says [`AutoCompaction::done`] once that is so.
//!
//! Invariants
//!   K1  By time, no revision is compacted to before it has been the newest for the whole retention.
//!   K2  By revisions, as many as are retained stay readable.
//!   K3  Only a leader is told to compact, so that members don't ask for the same.
//! Source: etcd `server/etcdserver/api/v3compactor/{periodic,revision}.go`.

use std::collections::VecDeque;

const HOUR_MS: u64 = 3_600_000;
/// Looks in each interval between compactions, by time.
const LOOKS: u64 = 10;
/// Time between looks, by revisions.
const REVISION_EVERY_MS: u64 = 5 * 60 * 1000;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Everything that was the newest within so many milliseconds; more than 0.
    Periodic(u64),
    /// So many revisions; more than 0.
    Revision(i64),
}

/// When to compact, and to where.
#[derive(Debug, Clone)]
pub struct AutoCompaction {
    retention: Retention,
    /// The newest revisions of the last looks, oldest first.
    seen: VecDeque<i64>,
    compacted: i64,
    /// When the last compaction was, or when this began.
    last_ms: u64,
    /// The first compaction waits for the whole retention, later ones for an hour at most.
    has_compacted: bool,
}

impl AutoCompaction {
    /// Begins, with the store at a revision.
    #[must_use]
    pub fn new(retention: Retention, now_ms: u64, revision: i64) -> Self {
        Self { retention, seen: [revision].into(), compacted: 0, last_ms: now_ms, has_compacted: false }
    }

    /// Milliseconds between ticks.
    #[must_use]
    pub fn every_ms(&self) -> u64 {
        match self.retention {
            Retention::Periodic(ms) => (ms.min(HOUR_MS) / LOOKS).max(1),
            Retention::Revision(_) => REVISION_EVERY_MS,
        }
    }

    /// Looks at the store's revision; the revision to compact to, if it is time and this member leads.
    pub fn tick(&mut self, now_ms: u64, revision: i64, leads: bool) -> Option<i64> {
        let to = match self.retention {
            Retention::Periodic(ms) => self.periodic(ms, now_ms),
            Retention::Revision(kept) => Some(revision.saturating_sub(kept)),
        };
        self.see(revision);
        to.filter(|to| leads && *to > self.compacted)
    }

    fn periodic(&self, retention_ms: u64, now_ms: u64) -> Option<i64> {
        let wait = if self.has_compacted { retention_ms.min(HOUR_MS) } else { retention_ms };
        let is_time = now_ms.saturating_sub(self.last_ms) >= wait;
        // Not all looks of the retention have been: the oldest revision may be too young.
        let is_old = self.seen.len() >= self.looks();
        (is_time && is_old).then(|| self.seen.front().copied()).flatten()
    }

    /// Looks whose revisions are kept: the oldest is of a retention ago.
    fn looks(&self) -> usize {
        match self.retention {
            Retention::Periodic(ms) => usize::try_from(ms / self.every_ms()).unwrap_or(usize::MAX),
            Retention::Revision(_) => 1,
        }
    }

    fn see(&mut self, revision: i64) {
        self.seen.push_back(revision);
        while self.seen.len() > self.looks() {
            self.seen.pop_front();
        }
    }

    /// The store is compacted to a revision, by this or by somebody else.
    pub fn done(&mut self, now_ms: u64, to: i64) {
        self.compacted = self.compacted.max(to);
        self.last_ms = now_ms;
        self.has_compacted = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks over a time; a revision a second is made. Returns when and to where it compacts.
    fn run(retention: Retention, ticks: u64, leads: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
        let mut auto = AutoCompaction::new(retention, 0, 1);
        let mut compactions = Vec::new();
        for tick in 1..=ticks {
            let now_ms = tick * auto.every_ms();
            let revision = i64::try_from(now_ms / 1000).expect("small") + 1;
            if let Some(to) = auto.tick(now_ms, revision, leads(now_ms)) {
                auto.done(now_ms, to);
                compactions.push((now_ms / 1000, to));
            }
        }
        compactions
    }

    /// K1: at second s the revision is s + 1, so a compaction at s goes to at most s - retention + 1.
    #[test]
    fn by_time_what_is_older_goes() {
        assert_eq!(run(Retention::Periodic(100_000), 35, |_| true), [(100, 1), (200, 101), (300, 201)]);
        // More than an hour: after the first time, every hour.
        let day = 24 * 3600;
        let compactions = run(Retention::Periodic(day * 1000), 260, |_| true);
        assert_eq!(compactions, [(day, 1), (day + 3600, 3601), (day + 7200, 7201)]);
    }

    /// K2.
    #[test]
    fn by_revisions_so_many_stay() {
        assert_eq!(run(Retention::Revision(500), 4, |_| true), [(600, 101), (900, 401), (1200, 701)]);
    }

    /// K3: who becomes leader has looked on.
    #[test]
    fn only_a_leader_compacts() {
        let compactions = run(Retention::Periodic(100_000), 22, |now_ms| now_ms >= 150_000);
        assert_eq!(compactions, [(150, 51)]);
    }

    #[test]
    fn nothing_is_compacted_twice() {
        let mut auto = AutoCompaction::new(Retention::Revision(10), 0, 1);
        assert_eq!(auto.tick(1, 100, true), Some(90));
        // It failed: asked again.
        assert_eq!(auto.tick(2, 100, true), Some(90));
        auto.done(3, 90);
        assert_eq!(auto.tick(4, 100, true), None);
    }
}
