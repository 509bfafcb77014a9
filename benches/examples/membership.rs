//! A member joins a store of gigabytes and the leader leaves, while clients write and read.
//!
//! Starts three members on localhost, fills them, measures writes for a while; then adds a learner, starts it, promotes
//! it once it has caught up, removes the leader, and measures the same all along. Each writer reads its key back
//! through another member each time: an older value is a stale read. At the end every key must hold what was
//! acknowledged last. Prints the slowest writes of each phase; exit code 1 if anything was stale or lost.
//!
//! Back of the envelope: the learner is sent a copy of the state's files, so a gigabyte is read once and written once,
//! twice on one disk; writes go on beside it and share the disk's bandwidth.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use etcd_client::{Client, MemberAddOptions};
use hdrhistogram::Histogram;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const PHASES: [&str; 4] = ["before", "learner joins", "leader removed", "after"];
/// An answer that takes longer doesn't count as one.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Catching up may take this long.
const CATCH_UP_MAX: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(100);
/// Values of the filling, in bytes: they don't compress.
const FILLING: usize = 64 << 10;

/// Measures a change of members under load.
#[derive(Parser, Clone)]
struct Cli {
    /// The program whose `store` command is a member.
    #[arg(long)]
    keelson: PathBuf,
    /// Folder for the members, which is filled and left to you.
    #[arg(long)]
    dir: PathBuf,
    /// MiB of values before the change.
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    /// Clients that write and read.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Seconds of measuring before and after.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// First of eight ports.
    #[arg(long, default_value_t = 24_790)]
    port: u16,
}

/// Ends with its process.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Cli {
    fn client_url(&self, at: u16) -> String {
        format!("http://127.0.0.1:{}", self.port + 2 * at)
    }

    fn peer_url(&self, at: u16) -> String {
        format!("http://127.0.0.1:{}", self.port + 2 * at + 1)
    }

    fn start(&self, at: u16) -> Result<Member> {
        let of_cluster = if at < 3 { 0..3 } else { 0..at + 1 };
        let cluster: Vec<String> = of_cluster.map(|m| format!("m{m}={}", self.peer_url(m))).collect();
        let log = std::fs::File::create(self.dir.join(format!("m{at}.log")))?;
        let child = Command::new(&self.keelson)
            .args(["store", "--name", &format!("m{at}"), "--data-dir"])
            .arg(self.dir.join(format!("m{at}")))
            .args(["--listen-client-urls", &self.client_url(at), "--advertise-client-urls", &self.client_url(at)])
            .args(["--listen-peer-urls", &self.peer_url(at), "--initial-advertise-peer-urls", &self.peer_url(at)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--initial-cluster-state", if at < 3 { "new" } else { "existing" }])
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", self.keelson.display()))?;
        Ok(Member(child))
    }

    async fn client(&self, at: u16) -> Result<Client> {
        Ok(Client::connect([self.client_url(at)], None).await?)
    }
}

/// What all clients share.
struct Load {
    phase: AtomicUsize,
    stop: AtomicBool,
    stale: AtomicU64,
    retries: AtomicU64,
    /// Members that serve, by their places.
    serving: Mutex<BTreeMap<u16, Client>>,
    took: Mutex<[Histogram<u64>; 4]>,
}

impl Load {
    async fn other(&self, number: usize) -> Client {
        let serving = self.serving.lock().await;
        let clients: Vec<&Client> = serving.values().collect();
        clients[number % clients.len()].clone()
    }

    /// One key, written and read back until the end; what was acknowledged last.
    async fn write_and_read(self: Arc<Self>, number: usize) -> Result<(String, u64)> {
        let key = format!("writer/{number:04}");
        let (mut acknowledged, mut turn) = (0, number);
        for value in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let (phase, asked) = (self.phase.load(Ordering::Relaxed), Instant::now());
            loop {
                let mut client = self.other(turn).await;
                match tokio::time::timeout(ANSWER_MAX, client.put(key.as_str(), value.to_string(), None)).await {
                    Ok(Ok(_)) => break,
                    // It may have been made or not; making it again gives the same.
                    Ok(Err(_)) | Err(_) => {
                        self.retries.fetch_add(1, Ordering::Relaxed);
                        turn += 1;
                    }
                }
                ensure!(asked.elapsed() < CATCH_UP_MAX, "no write succeeds");
            }
            acknowledged = value;
            let micros = u64::try_from(asked.elapsed().as_micros())?.max(1);
            self.took.lock().await[phase].saturating_record(micros);
            turn += 1;
            let mut client = self.other(turn).await;
            if let Ok(Ok(read)) = tokio::time::timeout(ANSWER_MAX, client.get(key.as_str(), None)).await {
                let seen = read.kvs().first().and_then(|kv| kv.value_str().ok()?.parse().ok()).unwrap_or(0_u64);
                if seen < acknowledged {
                    self.stale.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok((key, acknowledged))
    }
}

/// Writes values that don't compress, side by side.
async fn fill(cli: &Cli, load: &Load) -> Result<()> {
    let count = (cli.mib << 20) / FILLING as u64;
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for task in 0..8 {
        let (next, mut client) = (next.clone(), load.other(task).await);
        writers.spawn(async move {
            use rand::{Rng as _, SeedableRng as _};
            let mut rng = rand::rngs::StdRng::seed_from_u64(task as u64);
            let mut value = vec![0; FILLING];
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                if number % (count / 10).max(1) == 0 {
                    println!("filling: {} of {count}", number);
                }
                rng.fill(&mut value[..]);
                client.put(format!("filling/{number:08}"), value.clone(), None).await?;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

/// The leader's place and number.
async fn leader(load: &Load) -> Result<(u16, u64)> {
    let clients = load.serving.lock().await.clone();
    for (at, mut client) in clients {
        if let Ok(status) = client.status().await
            && let Some(id) = status.header().map(etcd_client::ResponseHeader::member_id)
            && status.leader() == id
        {
            return Ok((at, id));
        }
    }
    bail!("nobody leads")
}

/// Adds a learner, starts it, promotes it once it has caught up.
async fn join(cli: &Cli, load: &Load) -> Result<Member> {
    let options = MemberAddOptions::new().with_is_learner();
    let added = load.other(0).await.member_add([cli.peer_url(3)], Some(options)).await?;
    let id = added.member().context("the new member")?.id();
    let begun = Instant::now();
    let member = cli.start(3)?;
    loop {
        match load.other(0).await.member_promote(id).await {
            Ok(_) => break,
            Err(error) => ensure!(begun.elapsed() < CATCH_UP_MAX, "promoting: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!("the learner was promoted after {:.1} s", begun.elapsed().as_secs_f64());
    load.serving.lock().await.insert(3, cli.client(3).await?);
    Ok(member)
}

async fn remove_leader(load: &Load) -> Result<()> {
    let (at, id) = leader(load).await?;
    load.serving.lock().await.remove(&at);
    let begun = Instant::now();
    load.other(0).await.member_remove(id).await?;
    println!("the leader was removed after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

async fn measure(cli: &Cli, load: &Arc<Load>) -> Result<Vec<(String, u64)>> {
    let mut writers = JoinSet::new();
    for number in 0..cli.clients {
        writers.spawn(load.clone().write_and_read(number));
    }
    let time = Duration::from_secs(cli.seconds);
    tokio::time::sleep(time).await;
    load.phase.store(1, Ordering::Relaxed);
    let _joined = join(cli, load).await?;
    load.phase.store(2, Ordering::Relaxed);
    remove_leader(load).await?;
    tokio::time::sleep(time / 4).await;
    load.phase.store(3, Ordering::Relaxed);
    tokio::time::sleep(time).await;
    load.stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    while let Some(done) = writers.join_next().await {
        written.push(done??);
    }
    check(load, &written).await?;
    Ok(written)
}

/// Every key holds what was acknowledged last, whomever one asks.
async fn check(load: &Load, written: &[(String, u64)]) -> Result<()> {
    for (at, mut client) in load.serving.lock().await.clone() {
        for (key, acknowledged) in written {
            let read = client.get(key.as_str(), None).await?;
            let seen: u64 = read.kvs().first().context("a key is gone")?.value_str()?.parse()?;
            ensure!(seen >= *acknowledged, "m{at}: {key} is {seen}, {acknowledged} was acknowledged");
        }
    }
    Ok(())
}

fn print(load: &Load, took: &[Histogram<u64>; 4]) {
    let ms = |micros: u64| micros as f64 / 1000.0;
    let normal = took[0].value_at_quantile(0.99);
    for (phase, took) in PHASES.iter().zip(took) {
        let (p50, p99) = (took.value_at_quantile(0.5), took.value_at_quantile(0.99));
        println!(
            "{phase:>15}: {:6} writes, p50 {:6.1} ms, p99 {:7.1} ms ({:4.1} ×), longest {:7.1} ms",
            took.len(),
            ms(p50),
            ms(p99),
            p99 as f64 / normal.max(1) as f64,
            ms(took.max()),
        );
    }
    println!(
        "{} attempts made again, {} stale reads",
        load.retries.load(Ordering::Relaxed),
        load.stale.load(Ordering::Relaxed)
    );
}

fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |path: PathBuf| if path.is_dir() { size(&path) } else { path.metadata().map_or(0, |m| m.len()) };
    entries.flatten().map(|entry| of(entry.path())).sum()
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    std::fs::create_dir_all(&cli.dir)?;
    let _members = [cli.start(0)?, cli.start(1)?, cli.start(2)?];
    let mut serving = BTreeMap::new();
    for at in 0..3 {
        serving.insert(at, cli.client(at).await?);
    }
    let histogram = || Histogram::new_with_bounds(1, 900_000_000, 3);
    let load = Arc::new(Load {
        phase: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        stale: AtomicU64::new(0),
        retries: AtomicU64::new(0),
        serving: Mutex::new(serving),
        took: Mutex::new([histogram()?, histogram()?, histogram()?, histogram()?]),
    });
    let begun = Instant::now();
    while leader(&load).await.is_err() {
        ensure!(begun.elapsed() < ANSWER_MAX, "nobody leads; see the logs in {}", cli.dir.display());
        tokio::time::sleep(PAUSE).await;
    }
    fill(&cli, &load).await?;
    println!("m0 holds {} MiB on disk", size(&cli.dir.join("m0")) >> 20);
    let written = measure(&cli, &load).await?;
    print(&load, &*load.took.lock().await);
    ensure!(load.stale.load(Ordering::Relaxed) == 0, "reads were stale");
    println!("all {} keys hold what was acknowledged last", written.len());
    Ok(())
}
