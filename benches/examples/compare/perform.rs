//! Doing a row's work to one program's members, once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use benches::store::{Args, Outcome};
use clap::Parser;
use etcd_client::{Client, GetOptions, ResponseHeader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cluster::{Cluster, Program};
use super::go;
use super::observe::{Cost, Usage, disk};
use super::rows::{SECONDS, Scenario, Work};

/// Between two compactions of the churn.
const COMPACT_EVERY: Duration = Duration::from_secs(5);
/// Revisions that a compaction leaves.
const KEPT: i64 = 1_000;
/// Disks settle so long after the churn.
const SETTLE: Duration = Duration::from_secs(10);
/// Writes that are acknowledged before the leader is killed.
const BEFORE_KILL: usize = 200;
/// A new leader takes no longer.
const FAILOVER_MAX: Duration = Duration::from_secs(30);
/// Between two attempts to write while nobody leads.
const ATTEMPT_EVERY: Duration = Duration::from_millis(10);
const ATTEMPT_MAX: Duration = Duration::from_secs(10);

/// What one repetition came to; what wasn't measured is 0.
#[derive(Default, Clone)]
pub(crate) struct Readings {
    pub(crate) per_second: f64,
    pub(crate) writes_per_second: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) worst_p999: f64,
    pub(crate) took: f64,
    /// MiB.
    pub(crate) resident: f64,
    pub(crate) anonymous: f64,
    pub(crate) disk: f64,
    pub(crate) live: f64,
    pub(crate) cost: Cost,
    /// µs an operation.
    pub(crate) client_cpu: f64,
}

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    args: Args,
}

/// How much less than a row says.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Everything tiny: only whether it works.
    pub(crate) quick: bool,
    /// Seconds of loads that end with their time.
    pub(crate) seconds: Option<u64>,
}

impl Scale {
    fn apply(self, args: &mut Args) {
        if let Some(seconds) = self.seconds
            && args.seconds == SECONDS
        {
            args.seconds = seconds;
        }
        if self.quick {
            args.seconds = 1;
            args.total = args.total.min(500);
            args.key_space = args.key_space.min(500);
            args.watchers = args.watchers.min(20);
            args.clients = args.clients.min(16);
        }
    }
}

fn arguments(words: &str, cluster: &Cluster, scale: Scale) -> Result<Args> {
    let mut args = Words::try_parse_from(["load"].into_iter().chain(words.split(' ')))?.args;
    args.endpoints = cluster.endpoints();
    (args.keep, args.quiet) = (true, true);
    scale.apply(&mut args);
    Ok(args)
}

/// Starts members, does the work, and throws the members away. `go_load` is the program of the rows that need it.
pub(crate) async fn perform(
    scenario: &Scenario,
    program: &Program,
    dir: &Path,
    scale: Scale,
    go_load: Option<&Path>,
) -> Result<Readings> {
    let mut cluster = Cluster::start(program, dir, scenario.members).await?;
    let readings = match &scenario.work {
        Work::Load(words) => load(&cluster, &arguments(words, &cluster, scale)?).await?,
        Work::Go { what, clients } => {
            let go_load = go_load.context("--go-load names no program")?;
            go::load(go_load, &cluster, what, *clients, scale).await?
        }
        Work::Restart { keys } => restart(&mut cluster, *keys, scale).await?,
        Work::KillLeader => kill_leader(&mut cluster).await?,
        Work::Churn { puts } => churn(&cluster, *puts, scale).await?,
    };
    cluster.all_run()?;
    cluster.remove()?;
    Ok(readings)
}

async fn measure(cluster: &Cluster, args: &Args) -> Result<(Outcome, Usage, Usage)> {
    let running = cluster.running();
    let (outcome, before, after) = benches::store::measure(args, || Usage::of(&running)).await?;
    outcome.verdict()?;
    Ok((outcome, before, after))
}

async fn load(cluster: &Cluster, args: &Args) -> Result<Readings> {
    let (outcome, before, after) = measure(cluster, args).await?;
    Ok(Readings {
        per_second: outcome.rate(),
        writes_per_second: outcome.written as f64 / outcome.seconds,
        p50: outcome.latency(0.5),
        p99: outcome.latency(0.99),
        p999: outcome.latency(0.999),
        resident: after.resident,
        anonymous: after.anonymous,
        disk: disk(cluster),
        cost: after.cost_since(&before, outcome.done, outcome.written, outcome.seconds),
        client_cpu: outcome.client_cpu.as_secs_f64() * 1e6 / (outcome.done as f64).max(1.0),
        ..Readings::default()
    })
}

async fn restart(cluster: &mut Cluster, keys: u32, scale: Scale) -> Result<Readings> {
    let words = format!("put --prepare --key-space {keys} --clients 64 --total 1000");
    load(cluster, &arguments(&words, cluster, scale)?).await?;
    cluster.kill(None)?;
    let begun = Instant::now();
    cluster.run_all()?;
    cluster.answering().await?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    let Usage { resident, anonymous, .. } = Usage::of(&cluster.running());
    Ok(Readings { took, resident, anonymous, disk: disk(cluster), ..Readings::default() })
}

/// Writes that were acknowledged, then the leader's end, then writes to the others until one is acknowledged.
async fn kill_leader(cluster: &mut Cluster) -> Result<Readings> {
    let leader = cluster.leader().await?;
    let mut others = Vec::new();
    for at in (0..cluster.running().len()).filter(|at| *at != leader) {
        others.push(cluster.client(at).await?);
    }
    let mut writer = others.first().context("a leader alone")?.clone();
    for number in 0..BEFORE_KILL {
        writer.put(format!("before/{number:04}"), "acknowledged", None).await?;
    }
    let begun = Instant::now();
    cluster.kill(Some(leader))?;
    let took = first_write(&others, begun).await?.as_secs_f64() * 1000.0;
    let all = GetOptions::new().with_prefix().with_count_only();
    let found = writer.get("before/", Some(all)).await?.count();
    ensure!(found == BEFORE_KILL as i64, "acknowledged writes are missing: {found} of {BEFORE_KILL} are there");
    // The one that was killed on purpose starts again, so that all run at the end.
    cluster.run_all()?;
    Ok(Readings { took, ..Readings::default() })
}

/// A new attempt at each of them every few milliseconds: what an attempt waits for isn't what the next waits for.
async fn first_write(clients: &[Client], begun: Instant) -> Result<Duration> {
    let (acknowledged, mut first) = mpsc::channel::<Duration>(1);
    let done = Arc::new(AtomicBool::new(false));
    let mut attempts = JoinSet::new();
    while begun.elapsed() < FAILOVER_MAX && !done.load(Ordering::Relaxed) {
        for client in clients {
            let (mut client, acknowledged, done) = (client.clone(), acknowledged.clone(), Arc::clone(&done));
            attempts.spawn(async move {
                if let Ok(Ok(_)) = tokio::time::timeout(ATTEMPT_MAX, client.put("after", "kill", None)).await {
                    done.store(true, Ordering::Relaxed);
                    // Only the first counts.
                    let _ = acknowledged.try_send(begun.elapsed());
                }
            });
        }
        tokio::time::sleep(ATTEMPT_EVERY).await;
    }
    attempts.shutdown().await;
    first.try_recv().ok().with_context(|| format!("no write was acknowledged within {FAILOVER_MAX:?}"))
}

/// Loads of a minute each, with compactions beside them.
async fn churn(cluster: &Cluster, puts: u64, scale: Scale) -> Result<Readings> {
    let mut compacting = JoinSet::new();
    compacting.spawn(compact(cluster.client(0).await?));
    let (begun, mut done, mut minutes, mut last) = (Instant::now(), 0, Vec::new(), Readings::default());
    while done < puts && (minutes.is_empty() || !scale.quick) {
        let words = format!("put --clients 256 --seconds 60 --total {}", puts - done);
        let args = arguments(&words, cluster, scale)?;
        let (outcome, before, after) = measure(cluster, &args).await?;
        done += outcome.done;
        minutes.push(outcome.latency(0.999));
        last = Readings {
            p50: outcome.latency(0.5),
            p99: outcome.latency(0.99),
            resident: after.resident,
            cost: after.cost_since(&before, outcome.done, outcome.written, outcome.seconds),
            client_cpu: outcome.client_cpu.as_secs_f64() * 1e6 / (outcome.done as f64).max(1.0),
            ..Readings::default()
        };
        if let Some(ended) = compacting.try_join_next() {
            ended?.context("compacting")?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    tokio::time::sleep(if scale.quick { PAUSE_QUICK } else { SETTLE }).await;
    let status = cluster.client(0).await?.status().await?;
    minutes.sort_by(f64::total_cmp);
    Ok(Readings {
        per_second: done as f64 / seconds,
        p999: minutes[minutes.len() / 2],
        worst_p999: minutes.last().copied().unwrap_or(0.0),
        disk: disk(cluster),
        live: status.raft_used_db_size() as f64 / f64::from(1 << 20),
        ..last
    })
}

/// Nothing settles in a smoke test.
const PAUSE_QUICK: Duration = Duration::from_millis(100);

/// Forgets all but the newest revisions, again and again.
async fn compact(mut client: Client) -> Result<()> {
    let mut compacted = 0;
    loop {
        tokio::time::sleep(COMPACT_EVERY).await;
        let revision = client.status().await?.header().map_or(0, ResponseHeader::revision) - KEPT;
        if revision > compacted {
            client.compact(revision, None).await?;
            compacted = revision;
        }
    }
}
