//! What the person who waits is shown.

use std::time::{Duration, Instant};

use store_server::ImportProgress;

const EVERY: Duration = Duration::from_secs(1);

/// Says how far it is, once a second at most.
pub(super) struct Shown {
    begun: Instant,
    last: Instant,
    keys_before: u64,
    bytes_before: u64,
}

impl Shown {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), last: Instant::now(), keys_before: 0, bytes_before: 0 }
    }

    /// What is there already took no time.
    pub(super) fn begin(&mut self, progress: &ImportProgress) {
        *self = Self { keys_before: progress.keys, bytes_before: progress.bytes, ..Self::new() };
    }

    pub(super) fn page(&mut self, progress: &ImportProgress, total: u64) {
        let is_last = progress.paged;
        if self.last.elapsed() < EVERY && !is_last {
            return;
        }
        self.last = Instant::now();
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let (keys, bytes) = (progress.keys - self.keys_before, progress.bytes - self.bytes_before);
        eprintln!(
            "{} of {total} keys ({} %), {:.1} MiB; {:.0} keys/s, {:.1} MiB/s",
            progress.keys,
            progress.keys * 100 / total.max(1),
            mebi(progress.bytes),
            keys as f64 / seconds,
            mebi(bytes) / seconds,
        );
    }

    pub(super) fn follow(&mut self, progress: &ImportProgress) {
        if self.last.elapsed() >= EVERY {
            self.last = Instant::now();
            eprintln!("up to revision {}", progress.watched);
        }
    }
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
