//! Samples over time: the members' memory and disks, the apiserver's requests and its requests to the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::Cluster;
use super::store::{MEMBERS, Store, size};

/// Between two samples, and lines of progress.
const EVERY: Duration = Duration::from_secs(10);
/// Between two questions whether the apiserver is ready.
const READY_EVERY: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(9);
/// Where the apiserver keeps the revision that it compacted.
const COMPACTED: &str = "compact_rev_key";

/// One moment of a run.
#[derive(Clone, Default)]
pub(crate) struct Sample {
    /// Since the run's beginning.
    pub(crate) at: Duration,
    /// Bytes, of each member.
    pub(crate) resident: [u64; MEMBERS],
    /// Bytes of the data folder, of each member.
    pub(crate) disk: [u64; MEMBERS],
    /// Bytes that each member names as its database's, and as used of it.
    pub(crate) db_size: [u64; MEMBERS],
    pub(crate) db_used: [u64; MEMBERS],
    pub(crate) apiserver: u64,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// Requests a second since the sample before.
    pub(crate) requests: f64,
    /// Requests to the store a second, and their quantiles in seconds.
    pub(crate) store_requests: f64,
    pub(crate) store_p50: f64,
    pub(crate) store_p99: f64,
}

/// All samples, and how long the apiserver wasn't ready.
pub(crate) struct Measurer {
    pub(crate) store: Arc<Store>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) begun: Instant,
    pub(crate) stop: AtomicBool,
    pub(crate) samples: Mutex<Vec<Sample>>,
    /// Each stretch, in order.
    pub(crate) unready: Mutex<Vec<Duration>>,
}

impl Measurer {
    /// Samples until told to stop; ends with an error if the apiserver or a member ended.
    pub(crate) async fn run(self: Arc<Self>) -> Result<()> {
        let mut before: Option<(Instant, Counters)> = None;
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(ended) = self.cluster.ended() {
                anyhow::bail!("{ended}");
            }
            self.cluster.restart_ended()?;
            if Instant::now() >= next {
                next += EVERY;
                // Between two leaders there may be no answer: the sample after spans both.
                if let Ok(text) = self.cluster.api.text("/metrics", ANSWER_MAX).await {
                    let now = (Instant::now(), Counters::read(&text));
                    if let Some(before) = &before {
                        self.sample(before, &now).await;
                    }
                    before = Some(now);
                }
            }
            tokio::time::sleep(READY_EVERY).await;
        }
        Ok(())
    }

    /// Asks each second whether the apiserver is ready.
    pub(crate) async fn watch_readiness(self: Arc<Self>) -> Result<()> {
        let mut since = None;
        while !self.stop.load(Ordering::Relaxed) {
            match (self.cluster.is_ready().await, since) {
                (false, None) => since = Some(Instant::now()),
                (true, Some(begun)) => {
                    self.unready.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::elapsed(&begun));
                    since = None;
                }
                _ => {}
            }
            tokio::time::sleep(READY_EVERY).await;
        }
        Ok(())
    }

    async fn sample(&self, before: &(Instant, Counters), now: &(Instant, Counters)) {
        let seconds = (now.0 - before.0).as_secs_f64().max(0.001);
        let store = now.1.store.since(&before.1.store);
        let mut sample = Sample {
            at: self.begun.elapsed(),
            resident: self.store.resident(),
            disk: [0, 1, 2].map(|at| size(&self.store.data_dir(at))),
            apiserver: self.cluster.resident(),
            requests: (now.1.requests - before.1.requests).max(0.0) / seconds,
            store_requests: store.count() / seconds,
            store_p50: store.quantile(0.5),
            store_p99: store.quantile(0.99),
            ..Sample::default()
        };
        for at in 0..MEMBERS {
            // A stopped member has nothing to say.
            if let Ok(glance) = self.store.glance(at).await {
                (sample.db_size[at], sample.db_used[at]) = (glance.db_size, glance.db_used);
                sample.revision = sample.revision.max(glance.revision);
            }
        }
        sample.compacted = self.compacted().await;
        print(&sample);
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }

    /// The revision at which the apiserver compacted last; 0 if there is none or nobody answers.
    async fn compacted(&self) -> i64 {
        for at in 0..MEMBERS {
            let Ok(mut client) = self.store.client(at).await else { continue };
            let options = etcd_client::GetOptions::new().with_serializable();
            if let Ok(Ok(read)) = tokio::time::timeout(ANSWER_MAX, client.get(COMPACTED, Some(options))).await {
                let revision = read.kvs().first().and_then(|kv| kv.value_str().ok()?.parse().ok());
                return revision.unwrap_or(0);
            }
        }
        0
    }
}

fn print(sample: &Sample) {
    let mib = |bytes: &u64| (bytes >> 20).to_string();
    let all = |bytes: &[u64]| bytes.iter().map(mib).collect::<Vec<_>>().join("/");
    println!(
        "{:6.0} s  {:5.0} requests/s, to the store {:5.0}/s p50 {:5.1} p99 {:6.1} ms; revision {}, compacted {}; MiB: RSS {}, disk {}, db {}, apiserver {}",
        sample.at.as_secs_f64(),
        sample.requests,
        sample.store_requests,
        sample.store_p50 * 1000.0,
        sample.store_p99 * 1000.0,
        sample.revision,
        sample.compacted,
        all(&sample.resident),
        all(&sample.disk),
        all(&sample.db_size),
        mib(&sample.apiserver),
    );
}

/// A Prometheus histogram: upper bound in seconds (as bits, for order) → observations up to it.
#[derive(Default)]
struct Buckets(BTreeMap<u64, f64>);

impl Buckets {
    fn since(&self, before: &Self) -> Self {
        let less = |(bound, count): (&u64, &f64)| (*bound, (count - before.0.get(bound).unwrap_or(&0.0)).max(0.0));
        Self(self.0.iter().map(less).collect())
    }

    fn count(&self) -> f64 {
        self.0.values().last().copied().unwrap_or(0.0)
    }

    /// As Prometheus does: linear within the bucket; the last bound for what lies beyond.
    fn quantile(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count();
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            let bound = f64::from_bits(*bound);
            if *count >= rank && *count > below {
                return if bound.is_finite() { low + (bound - low) * (rank - below) / (count - below) } else { low };
            }
            (low, below) = (bound, *count);
        }
        0.0
    }
}

#[derive(Default)]
struct Counters {
    requests: f64,
    store: Buckets,
}

impl Counters {
    fn read(text: &str) -> Self {
        let mut counters = Self::default();
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            if series.starts_with("apiserver_request_total{") {
                counters.requests += value;
            } else if series.starts_with("etcd_request_duration_seconds_bucket{")
                && let Some((_, bound)) = series.split_once("le=\"")
                && let Some(Ok(bound)) = bound.split('"').next().map(|b| b.replace("+Inf", "inf").parse::<f64>())
            {
                *counters.store.0.entry(bound.to_bits()).or_default() += value;
            }
        }
        counters
    }
}
