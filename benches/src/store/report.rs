//! What was measured, and how it is shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::load::Load;
use super::{Args, Outcome, Workload};

/// Latencies are kept in microseconds up to a minute; operations end long before.
const LONGEST_US: u64 = 60_000_000;
/// Different errors that are told apart.
const KINDS_MAX: usize = 16;
/// Characters of the longest bar.
const BAR_MAX: u64 = 50;

/// Latencies of what succeeded, and errors by kind.
pub(super) struct Measured {
    pub(super) latencies: Histogram<u64>,
    pub(super) errors: BTreeMap<String, u64>,
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
}

impl Outcome {
    /// For people: figures, a histogram and what failed.
    pub fn print(&self, args: &Args) {
        let what = match args.workload {
            Workload::Put | Workload::Create | Workload::Update => "writes",
            Workload::Range => "reads",
            Workload::List => "lists",
            Workload::Mixed => "reads and writes",
            Workload::Watch | Workload::FanOut => "events",
        };
        let (done, seconds) = (self.done, self.seconds);
        println!("{done} {what} in {seconds:.1} s: {:.0}/s, {} clients", self.rate(), args.clients);
        if self.written > 0 && self.written != done {
            println!("{} writes, {:.0}/s", self.written, self.written as f64 / seconds);
        }
        if self.events > 0 {
            println!("{} events for {} watchers", self.events, args.watchers);
        }
        if done > 0 {
            self.print_latencies();
            let each = self.client_cpu.as_secs_f64() / done as f64;
            println!("this client: {:.1} s of CPU, {:.1} µs for each", self.client_cpu.as_secs_f64(), each * 1e6);
        }
        for (kind, times) in &self.errors {
            println!("{times:>10} failed: {kind}");
        }
        if self.lost > 0 {
            println!("{:>10} keys lack what was acknowledged", self.lost);
        }
    }

    fn print_latencies(&self) {
        let at = |quantile| ms(self.latency(quantile));
        let (p50, p90, p99, p999) = (at(0.5), at(0.9), at(0.99), at(0.999));
        println!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {}", at(1.0));
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
            let to = ms((to + 1) as f64 / 1000.0);
            println!("  to {to:>10} {count:>9} {}", "#".repeat(length as usize));
        }
    }
}

fn ms(ms: f64) -> String {
    format!("{ms:.2} ms")
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
