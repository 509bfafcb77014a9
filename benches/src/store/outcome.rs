//! What a load came to, for people and programs.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum as _;
use hdrhistogram::Histogram;

use super::Args;
use super::load::Load;
use super::report::Measured;

/// Ticks a second of the CPU times that Linux tells, on every architecture.
const TICKS: u64 = 100;

/// What was done in which time, and what failed.
pub struct Outcome {
    /// As it is called on the command line.
    pub workload: String,
    /// Clients side by side.
    pub clients: u16,
    /// Time of the load, without preparations.
    pub seconds: f64,
    /// Operations that succeeded; events, where these are what is measured.
    pub done: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Writes that were acknowledged.
    pub written: u64,
    /// Events that watchers beside the load got.
    pub events: u64,
    /// Keys that don't hold what was acknowledged last.
    pub lost: u64,
    /// What this process spent in that time.
    pub client_cpu: Duration,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    pub(super) latencies: Histogram<u64>,
}

impl Outcome {
    pub(super) fn new(args: &Args, load: &Load, took: Duration, client_cpu: Duration) -> Self {
        let workload = args.workload.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned());
        Self {
            workload,
            clients: args.clients,
            seconds: took.as_secs_f64(),
            done: load.done.load(Ordering::Relaxed),
            failed: 0,
            written: load.written(),
            events: 0,
            lost: 0,
            client_cpu,
            errors: BTreeMap::new(),
            latencies: Measured::new().latencies,
        }
    }

    /// Adds what was measured.
    pub(super) fn take(&mut self, measured: &Measured) {
        self.done = measured.done();
        self.failed = measured.failed();
        self.errors.clone_from(&measured.errors);
        self.latencies = measured.latencies.clone();
    }

    /// Operations a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.seconds.max(1e-9)
    }

    /// A quantile of the times, in milliseconds.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// One object, on one line.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::json!({
            "workload": self.workload,
            "clients": self.clients,
            "seconds": self.seconds,
            "done": self.done,
            "failed": self.failed,
            "written": self.written,
            "events": self.events,
            "lost": self.lost,
            "per_second": self.rate(),
            "p50_ms": self.latency(0.5),
            "p90_ms": self.latency(0.9),
            "p99_ms": self.latency(0.99),
            "p99.9_ms": self.latency(0.999),
            "max_ms": self.latency(1.0),
            "client_cpu_seconds": self.client_cpu.as_secs_f64(),
            "errors": self.errors,
        })
        .to_string()
    }

    /// Whether all went well.
    ///
    /// # Errors
    /// If operations failed, none was done, or what was acknowledged is missing.
    pub fn verdict(&self) -> Result<()> {
        if self.lost > 0 {
            bail!("{} keys lack what was acknowledged", self.lost);
        }
        if self.failed > 0 {
            let why = self.errors.iter().max_by_key(|(_, times)| **times).map_or("", |(kind, _)| kind);
            bail!("{} of {} operations failed: {why}", self.failed, self.failed + self.done);
        }
        if self.done == 0 {
            bail!("the time was over before the first operation");
        }
        Ok(())
    }
}

/// CPU time of a process; nothing if it is gone.
#[must_use]
pub fn cpu(pid: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, come the state and, as 12th and 13th, user's and system's ticks.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

pub(super) fn own_cpu() -> Duration {
    cpu("self")
}
