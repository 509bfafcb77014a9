//! Many watchers of a store, of which some never read, while writers write as fast as they can: how many events a
//! second arrive, and what memory the member needs for it.
//!
//! Back of the envelope: each event goes to `watchers / groups` watchers; a core copies and frames a few hundred
//! thousand events a second, so writing is the limit only for few watchers a group. A member should need for those who
//! don't read what HTTP/2's windows and its own bound hold: hundreds of KiB each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use etcd_client::{Client, Txn, TxnOp, WatchOptions, WatchStream};
use tokio::task::JoinSet;

/// Puts of a transaction: a revision.
const OF_A_TXN: u64 = 100;
/// Those who don't read have connections of their own: else they hold up others of their connection.
const STUCK_PER_CONNECTION: usize = 10;
/// Nothing for so long: what is missing is lost.
const LAG_MAX: Duration = Duration::from_secs(60);

/// Measures watchers of one member.
#[derive(Parser, Clone)]
struct Cli {
    /// The member.
    #[arg(long, default_value = "http://127.0.0.1:2379")]
    endpoint: String,
    /// Its process, whose memory is looked at.
    #[arg(long)]
    pid: u32,
    /// Watchers, all together.
    #[arg(long, default_value_t = 1000)]
    watchers: usize,
    /// Of these, some never read.
    #[arg(long, default_value_t = 100)]
    stuck: usize,
    /// Prefixes that watchers and events are spread over; each event is for the watchers of one.
    #[arg(long, default_value_t = 100)]
    groups: u64,
    /// Events, a multiple of the groups and of 100.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 200)]
    value_size: usize,
    /// Connections of those who read.
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// Writers side by side.
    #[arg(long, default_value_t = 4)]
    writers: u64,
    /// Watchers ask for what was before.
    #[arg(long)]
    prev_kv: bool,
}

/// Memory of a process in MiB: now and at most.
fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading the member's memory")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    field("VmRSS:").zip(field("VmHWM:")).map(|(now, peak)| (now >> 10, peak >> 10)).context("no VmRSS or VmHWM")
}

async fn connect(cli: &Cli) -> Result<Client> {
    Client::connect([&cli.endpoint], None).await.with_context(|| format!("connecting to {}", cli.endpoint))
}

async fn watch(cli: &Cli, client: &Client, number: usize) -> Result<WatchStream> {
    let prefix = format!("watchers/{:04}/", number as u64 % cli.groups);
    let mut options = WatchOptions::new().with_prefix();
    if cli.prev_kv {
        options = options.with_prev_key();
    }
    let mut stream = client.clone().watch(prefix, Some(options)).await?;
    stream.message().await?.context("no answer to a watch")?;
    Ok(stream)
}

/// Writes a writer's share of the transactions; each key comes up again and again.
async fn write(cli: Cli, writer: u64, next: Arc<AtomicU64>) -> Result<()> {
    let mut client = connect(&cli).await?;
    let value = vec![b'v'; cli.value_size];
    loop {
        let first = next.fetch_add(OF_A_TXN, Ordering::Relaxed);
        if first >= cli.events {
            return Ok(());
        }
        let put = |n: u64| {
            let (group, key) = (n % cli.groups, (n / cli.groups) % 100);
            TxnOp::put(format!("watchers/{group:04}/{writer}-{key:08}"), value.clone(), None)
        };
        let puts: Vec<TxnOp> = (first..first + OF_A_TXN).map(put).collect();
        client.txn(Txn::new().and_then(puts)).await?;
    }
}

async fn read(mut stream: WatchStream, goal: u64, seen: Arc<AtomicU64>) -> Result<()> {
    let (mut got, mut last) = (0, 0);
    while got < goal {
        let answer = tokio::time::timeout(LAG_MAX, stream.message()).await;
        let answer = answer.with_context(|| format!("{} of {goal} events are missing", goal - got))??;
        let answer = answer.context("a stream ended")?;
        if answer.canceled() {
            bail!("a watcher was cancelled: {}", answer.cancel_reason());
        }
        for event in answer.events() {
            let revision = event.kv().context("an event without a key")?.mod_revision();
            if revision < last {
                bail!("revision {revision} after {last}");
            }
            last = revision;
        }
        got += answer.events().len() as u64;
        seen.fetch_add(answer.events().len() as u64, Ordering::Relaxed);
    }
    if got > goal {
        bail!("{got} events instead of {goal}");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let goal = cli.events / cli.groups;
    if cli.events % cli.groups != 0 || cli.events % OF_A_TXN != 0 || cli.stuck > cli.watchers {
        bail!("events must be a multiple of groups and of {OF_A_TXN}, and no more can be stuck than watch");
    }
    let (bare, _) = memory(cli.pid)?;
    let mut stuck = Vec::new();
    let mut client = connect(&cli).await?;
    for number in 0..cli.stuck {
        if number % STUCK_PER_CONNECTION == 0 {
            client = connect(&cli).await?;
        }
        stuck.push(watch(&cli, &client, number).await?);
    }
    let mut clients = Vec::new();
    for _ in 0..cli.connections {
        clients.push(connect(&cli).await?);
    }
    let seen = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    for (number, client) in (cli.stuck..cli.watchers).zip(clients.iter().cycle()) {
        readers.spawn(read(watch(&cli, client, number).await?, goal, Arc::clone(&seen)));
    }
    let (idle, _) = memory(cli.pid)?;
    let (begun, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    for writer in 0..cli.writers {
        writers.spawn(write(cli.clone(), writer, Arc::clone(&next)));
    }
    while let Some(result) = writers.join_next().await {
        result??;
    }
    let written = begun.elapsed().as_secs_f64();
    while let Some(result) = readers.join_next().await {
        result??;
    }
    let (took, seen) = (begun.elapsed().as_secs_f64(), seen.load(Ordering::Relaxed));
    let (after, peak) = memory(cli.pid)?;
    let Cli { watchers, stuck: unread, events, groups, value_size, .. } = cli;
    println!("{watchers} watchers, {unread} of which never read; {events} events of {value_size} B, {groups} groups");
    println!("written in {written:.1} s: {:.0}/s; all read after {took:.1} s", events as f64 / written);
    println!("delivered {seen} events: {:.0}/s", seen as f64 / took);
    println!("member, MiB: {bare} bare, {idle} with watchers, {peak} at most, {after} after");
    drop(stuck);
    Ok(())
}
