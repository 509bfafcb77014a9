//! Puts, transactions, reads, lists and watches against any etcd, bounded in count and time.
//!
//! Clients share connections and a number of operations. Each waits for its answer before
//! it asks again (a closed loop): a slow store lowers the load, so throughput and latency
//! belong together, for one number of clients. At the end every key must hold what was
//! acknowledged last.

mod fan_out;
mod keys;
mod load;
mod operation;
mod outcome;
mod report;
mod rpc;
#[cfg(test)]
mod tests;
mod watch;
mod watchers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use load::Load;
pub use outcome::{Outcome, cpu};
use rpc::messages::{Counted, DeleteRange, Range, Written};
use rpc::{Channel, Rpc, Trust};
use watchers::Watchers;

/// Bytes of every key, as with etcd's own benchmark.
const KEY_BYTES: usize = 32;
/// Waiting for one answer at most.
const OPERATION_MAX: Duration = Duration::from_secs(10);
/// Waiting for the first answer at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Keys that one load can tell apart.
const KEYS_MAX: u32 = 20_000_000;

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Writes a key at random.
    Put,
    /// Makes a key that isn't there, by the transaction by which kube-apiserver makes an object.
    Create,
    /// Changes a key whose revision is known, by the transaction by which kube-apiserver changes an object.
    Update,
    /// Reads a key at random.
    Range,
    /// Reads all keys with their values, at once or by pages.
    List,
    /// Reads four times for each write.
    Mixed,
    /// Watches all keys while one writer writes: the time from sending a write to seeing it.
    Watch,
    /// Watches all keys while clients write at a fixed rate: events delivered in the time.
    FanOut,
}

impl Workload {
    /// Whether keys must be there before the clock starts.
    fn needs_keys(self) -> bool {
        matches!(self, Self::Range | Self::Mixed | Self::List | Self::Update)
    }
}

/// How much of what.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What clients do.
    #[arg(value_enum)]
    pub workload: Workload,
    /// Members, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub endpoints: Vec<String>,
    /// Authority that signed the members' certificates (PEM).
    #[arg(long)]
    pub cacert: Option<PathBuf>,
    /// Certificate to show (PEM).
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Clients that wait for their answers side by side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: u16,
    /// Connections that they share, each to one member if there are enough [default: one for eight clients].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub connections: Option<u16>,
    /// Operations, all clients together.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub total: u64,
    /// Seconds after which the load ends, whatever was done.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    pub value_size: u32,
    /// Different keys; `create` makes as many as there are operations.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    pub key_space: u32,
    /// Seed of the order in which keys are chosen.
    #[arg(long, default_value_t = 1)]
    pub keys_seed: u64,
    /// Reads may be answered from what the asked member has.
    #[arg(long)]
    pub serializable: bool,
    /// Keys of a page of `list`; all but the first are read at the first one's revision [default: all at once].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub page: Option<u32>,
    /// Watchers: of `fan-out` each of all keys; beside other loads each of its share of the keys.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub watchers: u32,
    /// Watchers that share one stream.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub watchers_per_stream: u32,
    /// Writes a second that `fan-out` aims at.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Writes every key before the clock starts, whatever the workload.
    #[arg(long)]
    pub prepare: bool,
    /// Leaves the keys in the store.
    #[arg(long)]
    pub keep: bool,
    /// File that gets what was measured, as one JSON object.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// No line each second.
    #[arg(long)]
    pub quiet: bool,
}

impl Args {
    /// How many connections the clients share.
    fn connections(&self) -> usize {
        usize::from(self.connections.unwrap_or_else(|| self.clients.div_ceil(8)))
    }
}

/// Puts load on a store and prints what was measured.
///
/// # Errors
/// If nobody answers, files can't be read or written, operations failed (those are counted and
/// printed by kind before), or what was acknowledged isn't there.
pub async fn run(args: &Args) -> Result<()> {
    let (outcome, (), ()) = measure(args, || ()).await?;
    outcome.print(args);
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{}\n", outcome.json())).with_context(|| path.display().to_string())?;
    }
    outcome.verdict()
}

/// Puts load on a store and says what was measured, failures included, and what `look` saw right before
/// and right after, without preparations and checks.
///
/// # Errors
/// If nobody answers, or the keys can't be prepared, checked or deleted.
pub async fn measure<T>(args: &Args, look: impl Fn() -> T) -> Result<(Outcome, T, T)> {
    if args.workload == Workload::FanOut && args.watchers == 0 {
        bail!("fan-out asks for --watchers");
    }
    let channels = connect(args).await?;
    let load = Arc::new(Load::new(args));
    if args.prepare || args.workload.needs_keys() {
        if !args.quiet {
            println!("writing {} keys of {} bytes", args.key_space, args.value_size);
        }
        load::prepare(&load, &channels).await.context("writing the keys to work on")?;
    }
    let origin = Instant::now();
    let watching = match args.workload {
        // As many connections again.
        Workload::Watch | Workload::FanOut => unopened(args)?,
        _ if args.watchers > 0 => unopened(args)?,
        _ => Vec::new(),
    };
    let watchers = match args.workload {
        Workload::Watch => None,
        Workload::FanOut => Some(Watchers::of_all(&load, &watching, args, origin).await?),
        _ if args.watchers == 0 => None,
        _ => Some(Watchers::of_shares(&load, &watching, args).await?),
    };
    let before = look();
    let (begun, cpu) = (Instant::now(), outcome::own_cpu());
    let progress = (!args.quiet).then(|| tokio::spawn(report::progress(Arc::clone(&load), begun)));
    let measured = match args.workload {
        Workload::Watch => watch::run(&load, &channels[0], &watching, args.clients).await,
        Workload::FanOut => fan_out::run(&load, &channels, args.rate, origin).await,
        _ => load::run(&load, &channels, args.clients).await,
    };
    if let Some(progress) = progress {
        progress.abort();
    }
    let mut measured = measured?;
    let mut outcome = Outcome::new(args, &load, begun.elapsed(), outcome::own_cpu() - cpu);
    let after = look();
    if let Some(watchers) = watchers {
        // At a rate, what isn't there in time isn't waited for.
        let paced = args.workload == Workload::FanOut;
        let (goal, patience) = if paced { (0, Duration::ZERO) } else { (load.written(), watchers::LAG_MAX) };
        let (events, delivered) = watchers.finish(goal, patience).await?;
        outcome.events = events;
        measured.add(&delivered);
    }
    outcome.take(&measured);
    outcome.lost = load::missing(&load, &channels).await.context("reading what was acknowledged")?;
    // Why operations failed says more than that the keys are still there.
    if let Err(error) = if args.keep { Ok(()) } else { clear(&channels, &load).await }
        && outcome.verdict().is_ok()
    {
        return Err(error);
    }
    Ok((outcome, before, after))
}

/// Connections, none of them open yet.
fn unopened(args: &Args) -> Result<Vec<Channel>> {
    let trust = Trust::read(args.cacert.as_deref(), args.cert.as_ref().zip(args.key.as_ref()))?;
    let connections = args.connections();
    (0..connections).map(|number| Channel::new(endpoints(&args.endpoints, number, connections), &trust)).collect()
}

/// For requests: connections that have answered once, so that they are open when the clock starts.
async fn connect(args: &Args) -> Result<Vec<Channel>> {
    let channels = unopened(args)?;
    for (number, channel) in channels.iter().enumerate() {
        let names = endpoints(&args.endpoints, number, args.connections()).join(", ");
        let mut caller = channel.caller(0);
        let read = Range { key: keys::PREFIX.into(), ..Range::default() };
        let answer = tokio::time::timeout(CONNECT_MAX, caller.ask::<Counted>(Rpc::Range, &read)).await;
        answer
            .with_context(|| format!("no answer from {names} within {CONNECT_MAX:?}"))?
            .with_context(|| format!("asking {names}"))?;
    }
    Ok(channels)
}

/// Whom a connection asks: one member by turns, as etcd's own benchmark does, if that leaves no member out; else all.
/// A connection to each member for each of ours would be thrice the sockets, with a third of the requests on each.
fn endpoints(all: &[String], number: usize, connections: usize) -> &[String] {
    if connections < all.len() { all } else { std::slice::from_ref(&all[number % all.len()]) }
}

/// Takes the keys away again.
async fn clear(channels: &[Channel], load: &Load) -> Result<()> {
    if let Some(channel) = channels.first() {
        let prefix = load.keys.prefix();
        let all = DeleteRange { key: prefix.to_vec(), end: operation::after_prefix(prefix) };
        let mut caller = channel.caller(0);
        let deleted = tokio::time::timeout(6 * OPERATION_MAX, caller.ask::<Written>(Rpc::DeleteRange, &all)).await;
        deleted.context("no answer to deleting the keys")?.context("deleting the keys")?;
    }
    Ok(())
}
