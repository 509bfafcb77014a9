//! Clients that ask, wait and measure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use etcd_client::{Client, Error, GetOptions};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::report::Measured;
use super::{Args, KEY_BYTES, OPERATION_MAX, Workload};

/// What all keys begin with.
pub(super) const PREFIX: &str = "keelson-bench/";
/// A client that failed waits before it asks again: a store that is down isn't hammered.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// Of so many operations of the mixed workload one is a write.
const MIXED_WRITE_OF: u32 = 5;

/// What is to be done, and how far it is.
pub(super) struct Load {
    workload: Workload,
    serializable: bool,
    key_space: u32,
    value_size: usize,
    seed: u64,
    pub(super) total: u64,
    pub(super) time: Duration,
    taken: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Load {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            workload: args.workload,
            serializable: args.serializable,
            key_space: args.key_space,
            value_size: args.value_size as usize,
            seed: args.keys_seed,
            total: args.total,
            time: Duration::from_secs(args.seconds),
            taken: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// What the keys of this load begin with: loads of different seeds don't meet.
    pub(super) fn prefix(&self) -> String {
        format!("{PREFIX}{:x}/", self.seed)
    }

    pub(super) fn key(&self, number: u32) -> String {
        let prefix = self.prefix();
        let width = KEY_BYTES.saturating_sub(prefix.len());
        format!("{prefix}{number:0width$}")
    }

    /// A value that doesn't compress.
    pub(super) fn value(&self, rng: &mut StdRng) -> Vec<u8> {
        let mut value = vec![0; self.value_size];
        rng.fill(&mut value[..]);
        value
    }

    pub(super) fn rng(&self, client: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(client))
    }

    pub(super) fn random_key(&self, rng: &mut StdRng) -> String {
        self.key(rng.random_range(0..self.key_space))
    }

    /// Takes the next operation; `false` if all are taken.
    pub(super) fn take(&self) -> bool {
        self.taken.fetch_add(1, Ordering::Relaxed) < self.total
    }
}

/// Writes every key once.
pub(super) async fn prepare(load: &Arc<Load>, clients: &[Client], tasks: usize) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::<anyhow::Result<()>>::new();
    for (task, client) in clients.iter().cycle().take(tasks).cloned().enumerate() {
        let (load, next, mut client) = (Arc::clone(load), Arc::clone(&next), client);
        writers.spawn(async move {
            let mut rng = load.rng(u64::MAX - task as u64);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(number) = u32::try_from(number).ok().filter(|n| *n < load.key_space) else { return Ok(()) };
                client.put(load.key(number), load.value(&mut rng), None).await?;
            }
        });
    }
    while let Some(result) = writers.join_next().await {
        result??;
    }
    Ok(())
}

/// Runs the clients to the end of the load.
pub(super) async fn run(load: &Arc<Load>, connections: &[Client], clients: u16) -> Result<Measured> {
    let deadline = Instant::now() + load.time;
    // One for each connection: a thousand histograms would be hundreds of megabytes.
    let measured: Vec<Arc<Mutex<Measured>>> =
        connections.iter().map(|_| Arc::new(Mutex::new(Measured::new()))).collect();
    let mut tasks = JoinSet::new();
    for number in 0..usize::from(clients) {
        let at = number % connections.len();
        let (load, client, measured) = (Arc::clone(load), connections[at].clone(), Arc::clone(&measured[at]));
        tasks.spawn(async move { client_loop(&load, client, number as u64, deadline, &measured).await });
    }
    while let Some(result) = tasks.join_next().await {
        result?;
    }
    let mut all = Measured::new();
    for one in measured {
        all.add(&one.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
    Ok(all)
}

async fn client_loop(load: &Load, mut client: Client, number: u64, deadline: Instant, measured: &Mutex<Measured>) {
    let mut rng = load.rng(number);
    while Instant::now() < deadline && load.take() {
        let key = load.random_key(&mut rng);
        let write = match load.workload {
            Workload::Put => true,
            Workload::Mixed => rng.random_ratio(1, MIXED_WRITE_OF),
            Workload::Range | Workload::Watch => false,
        };
        let value = if write { load.value(&mut rng) } else { Vec::new() };
        let asked = Instant::now();
        let answer = tokio::time::timeout(OPERATION_MAX, async {
            if write {
                client.put(key, value, None).await.map(drop)
            } else {
                let options = load.serializable.then(|| GetOptions::new().with_serializable());
                let found = client.get(key, options).await?;
                // Every key was written: a store that lost one didn't do the work.
                if found.count() == 1 { Ok(()) } else { Err(Error::Internal("a key is missing".to_owned())) }
            }
        })
        .await;
        let took = asked.elapsed();
        let failed = {
            let mut measured = measured.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match answer {
                Ok(Ok(())) => measured.record(took),
                Ok(Err(error)) => measured.fail(kind(&error)),
                Err(_) => measured.fail(format!("no answer within {OPERATION_MAX:?}")),
            }
        };
        if failed {
            load.failed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(AFTER_FAILURE).await;
        } else {
            load.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Errors that mean the same, in the same words.
pub(super) fn kind(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
        other => other.to_string(),
    }
}
