//! Clients that ask, wait and measure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::keys::Keys;
use super::operation::{Operator, after_prefix};
use super::report::Measured;
use super::rpc::messages::{Decided, Put, Range, Step, Txn};
use super::rpc::page::Page;
use super::rpc::{Caller, Channel, Rpc};
use super::{Args, OPERATION_MAX, Workload};

/// A client that failed waits before it asks again: a store that is down isn't hammered.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// Clients that write keys before the clock starts.
const PREPARING: usize = 16;
/// Writing one of them may fail so many times.
const PREPARING_ATTEMPTS: u32 = 5;
/// Keys of one transaction before the clock starts; etcd takes 128 operations.
const PREPARED_AT_ONCE: usize = 100;
/// Bytes of values of one; etcd takes 1.5 MiB.
const PREPARED_BYTES: usize = 512 << 10;
/// Keys of an answer when all are looked at.
const LOOKED_AT_ONCE: i64 = 10_000;

/// What is to be done, and how far it is.
pub(super) struct Load {
    pub(super) workload: Workload,
    pub(super) serializable: bool,
    pub(super) page: Option<u32>,
    pub(super) clients: u32,
    pub(super) keys: Keys,
    pub(super) total: u64,
    pub(super) time: Duration,
    value_size: usize,
    taken: AtomicU64,
    written: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Load {
    pub(super) fn new(args: &Args) -> Self {
        let keys = Keys::new(args);
        // Each creation has a key of its own.
        let total =
            if args.workload == Workload::Create { args.total.min(u64::from(keys.count())) } else { args.total };
        Self {
            workload: args.workload,
            serializable: args.serializable,
            page: args.page,
            clients: u32::from(args.clients),
            keys,
            total,
            time: Duration::from_secs(args.seconds),
            value_size: args.value_size as usize,
            taken: AtomicU64::new(0),
            written: AtomicU64::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Takes the next operation, and says which it is; `None` if all are taken.
    pub(super) fn take(&self) -> Option<u64> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        (taken < self.total).then_some(taken)
    }

    /// A write under load was acknowledged.
    pub(super) fn acknowledge(&self, number: u32, revision: i64) {
        self.keys.acknowledge(number, revision);
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes that were acknowledged under load.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// Writes every key once, many at a time.
pub(super) async fn prepare(load: &Arc<Load>, channels: &[Channel]) -> Result<()> {
    let at_once = (PREPARED_BYTES / load.value_size).clamp(1, PREPARED_AT_ONCE) as u64;
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::<Result<()>>::new();
    for (task, channel) in channels.iter().cycle().take(PREPARING).enumerate() {
        let (load, next, mut caller) = (Arc::clone(load), Arc::clone(&next), channel.caller(task));
        writers.spawn(async move {
            let mut rng = load.keys.rng(u64::MAX - task as u64);
            loop {
                let first = next.fetch_add(at_once, Ordering::Relaxed).min(u64::from(load.keys.count())) as u32;
                let end = load.keys.count().min(first + at_once as u32);
                if first == end {
                    return Ok(());
                }
                let put = |number| Put { key: load.keys.key(number), value: load.keys.value(&mut rng) };
                let success = (first..end).map(put).map(Step::put).collect();
                let revision = write(&mut caller, &Txn { success, ..Txn::default() }).await?;
                (first..end).for_each(|number| load.keys.acknowledge(number, revision));
            }
        });
    }
    while let Some(result) = writers.join_next().await {
        result??;
    }
    Ok(())
}

/// Writes what may as well be written twice; at which revision.
async fn write(caller: &mut Caller, txn: &Txn) -> Result<i64> {
    let mut attempt = 1;
    loop {
        let answer = tokio::time::timeout(OPERATION_MAX, caller.ask::<Decided>(Rpc::Txn, txn)).await;
        match answer.with_context(|| format!("no answer within {OPERATION_MAX:?}")).and_then(|a| Ok(a?)) {
            Ok(answer) => return Ok(answer.revision()),
            // A machine that does too much may be without a leader for a moment.
            Err(error) if attempt == PREPARING_ATTEMPTS => return Err(error),
            Err(_) => attempt += 1,
        }
        tokio::time::sleep(AFTER_FAILURE * 10).await;
    }
}

/// How many keys don't hold what was acknowledged last.
pub(super) async fn missing(load: &Load, channels: &[Channel]) -> Result<u64> {
    let mut caller = channels.first().context("no connection")?.caller(0);
    let mut read = Range {
        key: load.keys.prefix().to_vec(),
        end: after_prefix(load.keys.prefix()),
        limit: LOOKED_AT_ONCE,
        keys_only: true,
        ..Range::default()
    };
    let (mut next, mut lost) = (0, 0);
    let acknowledged =
        |numbers: std::ops::Range<u32>| numbers.filter(|number| load.keys.acknowledged(*number) > 0).count() as u64;
    loop {
        let mut page = Page::new(|found| {
            // Keys are in the order of their numbers.
            let Some(number) = load.keys.number(found.key) else { return };
            lost += acknowledged(next..number);
            lost += u64::from(found.mod_revision < load.keys.acknowledged(number));
            next = number + 1;
        });
        let looked = tokio::time::timeout(OPERATION_MAX, caller.look(Rpc::Range, &read, &mut page)).await;
        looked.with_context(|| format!("no answer within {OPERATION_MAX:?}"))??;
        page.end()?;
        if !page.more || page.last.is_empty() {
            break;
        }
        read.key = [page.last.as_slice(), &[0]].concat();
    }
    Ok(lost + acknowledged(next..load.keys.count()))
}

/// Runs the clients to the end of the load.
pub(super) async fn run(load: &Arc<Load>, connections: &[Channel], clients: u16) -> Result<Measured> {
    let deadline = Instant::now() + load.time;
    // One for each connection: a thousand histograms would be hundreds of megabytes.
    let measured: Vec<Arc<Mutex<Measured>>> =
        connections.iter().map(|_| Arc::new(Mutex::new(Measured::new()))).collect();
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let at = usize::from(number) % connections.len();
        let operator = Operator::new(Arc::clone(load), &connections[at], u32::from(number));
        let (load, measured) = (Arc::clone(load), Arc::clone(&measured[at]));
        tasks.spawn(async move { client_loop(&load, operator, deadline, &measured).await });
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

async fn client_loop(load: &Load, mut operator: Operator, deadline: Instant, measured: &Mutex<Measured>) {
    while Instant::now() < deadline {
        let Some(taken) = load.take() else { break };
        let asked = Instant::now();
        let answer = tokio::time::timeout(OPERATION_MAX, operator.operate(taken)).await;
        let took = asked.elapsed();
        let failed = {
            let mut measured = measured.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match answer {
                Ok(Ok(())) => measured.record(took),
                Ok(Err(error)) => measured.fail(error.to_string()),
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
