//! Kubernetes' own control plane on three members of the store, with churn, for as long as one likes.
//!
//! Starts the members, kube-apiserver, kube-controller-manager, kube-scheduler and hollow nodes on localhost; then
//! rounds of churn, watchers and a counter, while one member after the other is killed, stopped, replaced, and so on.
//! At the end every object that the apiserver lists must be what each member holds. Exit code 1 if anything failed.
//! `cargo xtask interop kubernetes` builds what it needs and runs it.
//!
//! Back of the envelope: a round makes some 60 pods, and a pod's life is ≈ 15 writes (pod, binding, statuses, events,
//! endpoints): a thousand writes a round, of which the two cores that everything shares hold one in ≈ 10 s.

mod api;
mod check;
mod churn;
mod cluster;
mod disturb;
mod measure;
mod pki;
mod process;
mod report;
mod store;
mod watching;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use churn::Churn;
use cluster::{Cluster, Plan};
use disturb::Disturber;
use measure::Measurer;
use report::Report;
use store::{MEMBERS, Program, Store};
use watching::Watcher;

/// The apiserver compacts this often as it comes.
const COMPACTION_MAX: Duration = Duration::from_secs(300);
/// Events live an hour as it comes; here leases must run out within a run.
const EVENT_TTL: Duration = Duration::from_secs(300);
/// What churn has begun when its time is up may take this long to end.
const END_MAX: Duration = Duration::from_secs(600);

/// Runs Kubernetes' control plane on the store.
#[derive(Parser, Clone)]
struct Cli {
    /// Folder of kube-apiserver, kube-controller-manager, kube-scheduler and kubemark.
    #[arg(long)]
    kubernetes: PathBuf,
    /// The program whose `store` command is a member; without it, `etcd` is.
    #[arg(long)]
    keelson: Option<PathBuf>,
    /// Folder for everything, which is filled and left to you.
    #[arg(long)]
    dir: PathBuf,
    /// Minutes of churn.
    #[arg(long, default_value_t = 15.0)]
    minutes: f64,
    /// Hollow nodes.
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// Namespaces that are churned in side by side.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Seconds from one disturbance to the next; 0: none.
    #[arg(long, default_value_t = 30)]
    disturb: u64,
    /// Seed of sizes and numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// First of the ports.
    #[arg(long, default_value_t = 25_790)]
    port: u16,
    /// Draws the chart into this file besides the folder.
    #[arg(long)]
    chart: Option<PathBuf>,
}

impl Cli {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    fn store_name(&self) -> &'static str {
        if self.keelson.is_some() { "keelson store" } else { "etcd" }
    }
}

/// Everything that runs.
struct Run {
    begun: Instant,
    store: Arc<Store>,
    cluster: Arc<Cluster>,
    churn: Arc<Churn>,
    disturber: Arc<Disturber>,
    measurer: Arc<Measurer>,
    watchers: Vec<Watcher>,
}

impl Run {
    async fn start(cli: &Cli) -> Result<Self> {
        let pki = pki::Pki::make(&cli.dir.join("pki"))?;
        let program = cli.keelson.clone().map_or(Program::Etcd, Program::Keelson);
        let store = Arc::new(Store::start(program, &cli.dir, cli.port, &pki)?);
        println!("the store settled: {:.1} s", store.settled().await?.as_secs_f64());
        let plan = Plan {
            programs: &cli.kubernetes,
            dir: &cli.dir,
            port: cli.port + 6,
            nodes: cli.nodes,
            compaction: COMPACTION_MAX.min(cli.time() / 3),
            event_ttl: EVENT_TTL.min(cli.time() / 3),
        };
        let cluster = Arc::new(Cluster::start(&plan, &pki, &store).await?);
        println!("look at it: kubectl --kubeconfig {} get pods -A", cluster.kubeconfig.display());
        Churn::prepare(&cluster.api).await?;
        let begun = Instant::now();
        let disturber = Disturber {
            store: store.clone(),
            begun,
            every: Duration::from_secs(cli.disturb),
            stop: AtomicBool::new(cli.disturb == 0),
            done: Mutex::default(),
        };
        let measurer = Measurer {
            store: store.clone(),
            cluster: cluster.clone(),
            begun,
            stop: AtomicBool::new(false),
            samples: Mutex::default(),
            unready: Mutex::default(),
        };
        let watchers = ["Pod", "ConfigMap", "Event"].map(|kind| Watcher::start(&cluster.api, kind)).into();
        let (disturber, measurer) = (Arc::new(disturber), Arc::new(measurer));
        Ok(Self { begun, store, cluster, churn: Arc::default(), disturber, measurer, watchers })
    }

    /// Churns and disturbs until the time is up or something fails.
    async fn churn(&self, cli: &Cli) -> Result<()> {
        let mut measuring = JoinSet::new();
        measuring.spawn(self.measurer.clone().run());
        measuring.spawn(self.measurer.clone().watch_readiness());
        let mut tasks = JoinSet::new();
        for worker in 0..cli.rounds {
            tasks.spawn(self.churn.clone().rounds(self.cluster.api.clone(), worker, cli.seed));
        }
        for _ in 0..2 {
            tasks.spawn(self.churn.clone().count(self.cluster.api.clone()));
        }
        tasks.spawn(self.disturber.clone().run());
        let end = tokio::time::sleep(cli.time());
        tokio::pin!(end);
        let mut stopping = false;
        loop {
            tokio::select! {
                done = tasks.join_next() => match done {
                    Some(done) => done??,
                    None => break,
                },
                Some(done) = measuring.join_next() => done??,
                () = &mut end => {
                    ensure!(!stopping, "churn didn't end within {} s of its time", END_MAX.as_secs());
                    stopping = true;
                    end.as_mut().reset(tokio::time::Instant::now() + END_MAX);
                    self.churn.stop.store(true, Ordering::Relaxed);
                    self.disturber.stop.store(true, Ordering::Relaxed);
                }
            }
        }
        self.measurer.stop.store(true, Ordering::Relaxed);
        while let Some(done) = measuring.join_next().await {
            done??;
        }
        Ok(())
    }

    /// What must hold when churn has ended.
    async fn check(&self, cli: &Cli) -> Result<Vec<String>> {
        let mut facts = vec![self.churn.check_counter(&self.cluster.api).await?];
        let ready = self.cluster.ready_nodes().await?;
        ensure!(ready == cli.nodes, "{ready} of {} nodes are ready", cli.nodes);
        println!("all is quiet from here: controllers, scheduler and nodes end");
        self.cluster.quiet();
        self.store.settled().await?;
        for watcher in &self.watchers {
            let objects = watcher.is_current(&self.cluster.api).await?;
            let events = watcher.events.load(Ordering::Relaxed);
            facts.push(format!("watcher of {}: {events} events, has all {objects} objects", watcher.resource()));
        }
        let equal = check::all_equal(&self.cluster.api, &self.store).await?;
        facts.push(format!(
            "{} objects through the apiserver and its caches are what each member holds in {} keys; HashKV of all is {} at revision {}",
            equal.objects, equal.keys, equal.hash, equal.revision
        ));
        Ok(facts)
    }

    fn report(&self, cli: &Cli, facts: Vec<String>, failures: Vec<String>) -> Report {
        let (requests, longest, again) = self.cluster.api.counted();
        let churn = &self.churn;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut all = vec![
            format!(
                "{} rounds, {} convergences, the longest after {:.1} s",
                count(&churn.rounds),
                count(&churn.convergences),
                count(&churn.longest_ms) as f64 / 1000.0
            ),
            format!("{requests} requests of the driver, the longest {:.1} s", longest as f64 / 1000.0),
        ];
        let restarts = self.cluster.restarts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.push(format!("programs of Kubernetes that ended and were started again: {}", restarts.len()));
        all.extend(restarts);
        all.extend(facts);
        Report {
            store: cli.store_name().to_owned(),
            took: self.begun.elapsed(),
            nodes: cli.nodes,
            samples: self.measurer.samples.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            disturbances: self.disturber.done(),
            unready: self.measurer.unready.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            facts: all,
            again,
            log: Default::default(),
            failures,
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let run = Run::start(cli).await?;
    let mut failures = Vec::new();
    if let Err(error) = run.churn(cli).await {
        failures.push(format!("{error:#}"));
    }
    let facts = match run.check(cli).await {
        Ok(facts) => facts,
        Err(error) => {
            failures.push(format!("{error:#}"));
            Vec::new()
        }
    };
    let mut report = run.report(cli, facts, failures);
    for program in ["kube-scheduler", "kube-controller-manager", "kube-apiserver"] {
        match check::log(&cli.dir.join(format!("{program}.log"))) {
            // The last one is the apiserver's, the only one that talks to the store.
            Ok(kinds) => report.log = kinds,
            Err(error) => report.failures.push(format!("{error:#}")),
        }
    }
    if cli.keelson.is_some() {
        for at in 0..MEMBERS {
            if let Err(error) = check::log(&run.store.log(at)) {
                report.failures.push(format!("{error:#}"));
            }
        }
    }
    let text = report.markdown()?;
    println!("\n{text}");
    std::fs::write(cli.dir.join("report.md"), &text)?;
    for path in std::iter::once(&cli.dir.join("chart.svg")).chain(&cli.chart) {
        report.chart(path).with_context(|| format!("writing {}", path.display()))?;
    }
    ensure!(report.failures.is_empty(), "{} things failed; logs are in {}", report.failures.len(), cli.dir.display());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    // What a run before left is no part of this one.
    ensure!(!cli.dir.join("pki").exists(), "{} holds a run already; remove it or name another", cli.dir.display());
    std::fs::create_dir_all(&cli.dir)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // What was started ends with its owner.
    tokio::select! {
        done = run(&cli) => done,
        _ = terminate.recv() => bail!("asked to end"),
        _ = interrupt.recv() => bail!("asked to end"),
    }
}
