//! What was measured, and how it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::load::Load;
use super::{Args, Workload};

/// Latencies are kept in microseconds up to a minute; operations end long before.
const LONGEST_US: u64 = 60_000_000;
/// Different errors that are told apart.
const KINDS_MAX: usize = 16;
/// Characters of the longest bar.
const BAR_MAX: u64 = 50;

/// Latencies of what succeeded, and errors by kind.
pub(super) struct Measured {
    latencies: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

impl Measured {
    pub(super) fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, 3);
        // Fails only for bounds that make no sense; these are constants that do.
        Self { latencies: latencies.unwrap_or_else(|e| panic!("histogram: {e}")), errors: BTreeMap::new() }
    }

    /// A success; returns `false`: it isn't a failure.
    pub(super) fn record(&mut self, took: Duration) -> bool {
        self.latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).max(1));
        false
    }

    /// A failure; returns `true`.
    pub(super) fn fail(&mut self, kind: String) -> bool {
        self.count(kind, 1);
        true
    }

    fn count(&mut self, kind: String, times: u64) {
        let known = self.errors.contains_key(&kind) || self.errors.len() < KINDS_MAX;
        *self.errors.entry(if known { kind } else { "others".to_owned() }).or_default() += times;
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds, so that nothing can fall outside.
        let _ = self.latencies.add(&other.latencies);
        for (kind, times) in &other.errors {
            self.count(kind.clone(), *times);
        }
    }

    pub(super) fn done(&self) -> u64 {
        self.latencies.len()
    }

    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Different errors.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> usize {
        self.errors.len()
    }

    pub(super) fn print(&self, args: &Args, took: Duration) {
        let seconds = took.as_secs_f64();
        let what = match args.workload {
            Workload::Put => "writes",
            Workload::Range => "reads",
            Workload::Mixed => "reads and writes",
            Workload::Watch => "events",
        };
        let rate = self.done() as f64 / seconds;
        println!("{} {what} in {seconds:.1} s: {rate:.0}/s, {} clients", self.done(), args.clients);
        if self.done() > 0 {
            self.print_latencies();
        }
        for (kind, times) in &self.errors {
            println!("{times:>10} failed: {kind}");
        }
    }

    fn print_latencies(&self) {
        let at = |quantile| ms(self.latencies.value_at_quantile(quantile));
        println!(
            "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            ms(self.latencies.max())
        );
        let buckets: Vec<(u64, u64)> = self
            .latencies
            .iter_log(100, 2.0)
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_since_last_iteration()))
            .skip_while(|(_, count)| *count == 0)
            .collect();
        let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
        for (to, count) in buckets {
            // What is there at all is seen.
            let length = (count * BAR_MAX).div_ceil(most);
            println!("  to {:>10} {count:>9} {}", ms(to + 1), "#".repeat(length as usize));
        }
    }
}

fn ms(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1000.0)
}

/// A line each second, until aborted.
pub(super) async fn progress(load: Arc<Load>, begun: Instant) {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (done, failed) = (load.done.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        println!("{:5.0} s  {done:>10} done  {:>8}/s{failures}", begun.elapsed().as_secs_f64(), done - last);
        last = done;
    }
}
