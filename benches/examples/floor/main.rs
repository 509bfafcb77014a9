//! The least that a replicated put can cost on this machine: what no store of this shape can be better than.
//!
//! Problem. Three members and their clients share two cores. How far a store is from what is possible at all can't be
//!          seen from its own figures.
//! Idea.    Three processes that do what each such store must, and nothing else: take puts over gRPC's HTTP/2, hand them
//!          to one of the three, write them to three logs past the page cache, sync these, answer when two have. No
//!          terms, elections, revisions of old, watches, leases, users, limits, counters; keys live in memory alone.
//!          The same load as for real stores is put on them.
//!
//!     cargo run -p benches --release --example floor -- put --clients 256 --seconds 5 --total 100000000
//!     … --depth serve      # each member answers by itself at once: the cost of serving alone
//!     … --depth replicate  # without logs
//!
//! It isn't a store: a member that ends takes everything with it.

mod log;
mod member;
mod serve;

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

const MEMBERS: usize = 3;
/// Clients' ports; peers' are behind them.
const FIRST_PORT: u16 = 24_790;

/// How much of a write is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Depth {
    /// It is taken and answered.
    Serve,
    /// It is sent to all members, and answered when two have it.
    Replicate,
    /// It is in all members' logs, and answered when two have synced it.
    Sync,
}

/// Puts load on the least that a store can be.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    load: benches::store::Args,
    #[arg(long, value_enum, default_value = "sync")]
    depth: Depth,
    /// Folder for the logs; on the disk that stores are measured on.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Only starts the members, for another load, and ends with this process.
    #[arg(long)]
    wait: bool,
    /// Is this member.
    #[arg(long, hide = true)]
    member: Option<usize>,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn client_port(at: usize) -> u16 {
    FIRST_PORT + at as u16
}

fn peer_port(at: usize) -> u16 {
    FIRST_PORT + (MEMBERS + at) as u16
}

/// Processes that end with this one.
struct Members(Vec<Child>);

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start() -> Result<Members> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut members = Members(Vec::new());
    for at in 0..MEMBERS {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).args(["--member", &at.to_string()]);
        members.0.push(command.spawn().context("starting a member")?);
    }
    Ok(members)
}

fn main() -> Result<()> {
    let mut cli = Cli::parse();
    if let Some(at) = cli.member {
        return member::run(at, cli.depth, &cli.dir);
    }
    let members = start()?;
    std::thread::sleep(Duration::from_secs(1));
    cli.load.endpoints = (0..MEMBERS).map(|at| format!("http://127.0.0.1:{}", client_port(at))).collect();
    if cli.wait {
        println!("{}", cli.load.endpoints.join(","));
        std::thread::park();
    }
    // Its keys aren't deleted: that would be a transaction.
    (cli.load.keep, cli.load.quiet) = (true, true);
    let cpu = || members.0.iter().map(|child| benches::store::cpu(&child.id().to_string())).sum::<Duration>();
    let runtime = tokio::runtime::Runtime::new().context("starting threads")?;
    let (outcome, before, after) = runtime.block_on(benches::store::measure(&cli.load, cpu))?;
    // Members that serve alone each have what they were asked themselves.
    let lost = if cli.depth == Depth::Serve { 0 } else { outcome.lost };
    if outcome.failed + lost > 0 {
        bail!(
            "{} failed, {} keys don't hold what was acknowledged: {:?}",
            outcome.failed,
            outcome.lost,
            outcome.errors
        );
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / (outcome.done as f64).max(1.0);
    println!(
        "{:?} {}/{}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms; CPU of an operation: members {:.1} µs, client {:.1} µs",
        cli.depth,
        outcome.workload,
        outcome.clients,
        outcome.rate(),
        outcome.latency(0.5),
        outcome.latency(0.99),
        each(after.saturating_sub(before)),
        each(outcome.client_cpu),
    );
    Ok(())
}
