//! Puts, ranges and watches against any etcd, bounded in count and time.
//!
//! Clients share connections and a number of operations. Each waits for its answer before
//! it asks again (a closed loop): a slow store lowers the load, so throughput and latency
//! belong together, for one number of clients.

mod load;
mod report;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use etcd_client::{Certificate, Client, ConnectOptions, DeleteOptions, Identity, TlsOptions};

use load::Load;
use report::Measured;

/// Bytes of every key, as with etcd's own benchmark.
const KEY_BYTES: usize = 32;
/// Waiting for one answer at most.
const OPERATION_MAX: Duration = Duration::from_secs(10);
/// Waiting for the first answer at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Clients that write keys before the clock starts.
const PREPARING: usize = 64;

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Writes a key at random.
    Put,
    /// Reads a key at random.
    Range,
    /// Reads four times for each write.
    Mixed,
    /// Watches all keys while one writer writes: the time from sending a write to seeing it.
    Watch,
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
    /// Connections that they share [default: one for eight clients].
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
    /// Different keys.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub key_space: u32,
    /// Seed of the order in which keys are chosen.
    #[arg(long, default_value_t = 1)]
    pub keys_seed: u64,
    /// Reads may be answered from what the asked member has.
    #[arg(long)]
    pub serializable: bool,
    /// Leaves the keys in the store.
    #[arg(long)]
    pub keep: bool,
}

/// Puts load on a store and prints what was measured.
///
/// # Errors
/// If nobody answers, files can't be read, or operations failed: those are counted and
/// printed by kind before.
pub async fn run(args: &Args) -> Result<()> {
    let clients = connect(args).await?;
    let load = Arc::new(Load::new(args));
    if matches!(args.workload, Workload::Range | Workload::Mixed) {
        println!("writing {} keys of {} bytes", args.key_space, args.value_size);
        load::prepare(&load, &clients, PREPARING).await.context("writing the keys to work on")?;
    }
    let begun = Instant::now();
    let progress = tokio::spawn(report::progress(Arc::clone(&load), begun));
    let measured = match args.workload {
        Workload::Watch => watch::run(&load, &clients, args.clients).await,
        _ => load::run(&load, &clients, args.clients).await,
    };
    progress.abort();
    let measured = measured?;
    measured.print(args, begun.elapsed());
    let verdict = verdict(&measured);
    let cleared = if args.keep { Ok(()) } else { clear(clients, &load).await };
    // Why operations failed says more than that the keys are still there.
    verdict.and(cleared)
}

fn verdict(measured: &Measured) -> Result<()> {
    let (failed, all) = (measured.failed(), measured.failed() + measured.done());
    if failed > 0 {
        bail!("{failed} of {all} operations failed");
    }
    if all == 0 {
        bail!("the time was over before the first operation");
    }
    Ok(())
}

async fn connect(args: &Args) -> Result<Vec<Client>> {
    let mut options = ConnectOptions::new().with_connect_timeout(CONNECT_MAX).with_timeout(OPERATION_MAX);
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    if args.cacert.is_some() || args.cert.is_some() {
        let mut tls = TlsOptions::new();
        if let Some(path) = &args.cacert {
            tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
        }
        if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        options = options.with_tls(tls);
    }
    let connections = args.connections.unwrap_or_else(|| args.clients.div_ceil(8));
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = Client::connect(&args.endpoints, Some(options.clone()))
            .await
            .with_context(|| format!("connecting to {}", args.endpoints.join(", ")))?;
        // Connections are opened on first use: this one is, before the clock starts.
        let answer = tokio::time::timeout(CONNECT_MAX, client.get(load::PREFIX, None)).await;
        answer
            .with_context(|| format!("no answer from {} within {CONNECT_MAX:?}", args.endpoints.join(", ")))?
            .with_context(|| format!("asking {}", args.endpoints.join(", ")))?;
        clients.push(client);
    }
    Ok(clients)
}

/// Takes the keys away again.
async fn clear(mut clients: Vec<Client>, load: &Load) -> Result<()> {
    if let Some(client) = clients.first_mut() {
        let all = DeleteOptions::new().with_prefix();
        client.delete(load.prefix(), Some(all)).await.context("deleting the keys")?;
    }
    Ok(())
}
