//! Random sequences against Debian's etcd and against ours, compared field by field.
//!
//! `KEELSON_SEQUENCES=n` says how many, `KEELSON_SEED=n` with which seed they begin. A
//! failing sequence is made small and shown with the command that runs it again.

mod generate;
mod generate_txn;
mod generate_watch;
mod known;
mod named;
mod operation;
mod run;
pub(crate) mod server;
mod shrink;
mod watching;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant;

pub(crate) use operation::Call;
use operation::{Operation, Position};
use run::Pair;
use server::{Etcd, Server};

use crate::cluster::Cluster;

const SEQUENCES: u64 = 10_000;
/// After so many differences the rest tells nothing new.
const DIFFERENCES_MAX: usize = 5;
const PROGRESS_EVERY: u64 = 1_000;

/// Both servers, on folders in memory: disks are not what is compared.
struct Servers {
    pair: Pair,
    etcd: Etcd,
    _ours: Cluster,
}

impl Servers {
    async fn started() -> Self {
        let folder = || tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let etcd = Etcd::start(folder());
        let ours = Cluster::started_in(folder(), 1).await;
        let (theirs, own) = (Server::connect(&etcd.url).await, Server::connect(&ours.url(0)).await);
        let mut pair = Pair {
            etcd: theirs,
            ours: own,
            position: Position { revision: 0, compacted: 0 },
            compactions: BTreeSet::new(),
        };
        pair.align().await;
        Self { pair, etcd, _ours: ours }
    }

    /// Runs a sequence; says how it differs.
    async fn check(&mut self, seed: u64) -> Option<String> {
        let (operations, prefix) = (generate::sequence(seed), generate::prefix(seed));
        let difference = self.pair.run(&operations, &prefix).await.err()?;
        assert!(!self.etcd.died(), "etcd ended in the sequence of seed {seed}: {}", text(&operations));
        let (operations, difference) = shrink::shrink(&mut self.pair, &prefix, operations, difference).await;
        Some(format!(
            "seed {seed}: {difference}\nafter:\n{}again: KEELSON_SEED={seed} KEELSON_SEQUENCES=1 cargo test --release \
             -p store-server --test it differential -- --nocapture\n",
            text(&operations)
        ))
    }
}

fn text(operations: &[Operation]) -> String {
    operations.iter().fold(String::new(), |mut text, operation| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {operation:?}");
        text
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What differed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differed_once_is_answered_as_by_etcd() {
    let mut servers = Servers::started().await;
    for (name, operations) in named::sequences() {
        let run = servers.pair.run(&operations, named::PREFIX).await;
        assert!(!servers.etcd.died(), "{name}: etcd ended");
        run.unwrap_or_else(|difference| panic!("{name}: {difference}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_sequences_are_answered_as_by_etcd() {
    let count = setting("KEELSON_SEQUENCES").unwrap_or(SEQUENCES);
    // A new seed each time finds more than the same one always.
    let first = setting("KEELSON_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    println!("{count} sequences from seed {first}");
    let begun = Instant::now();
    let mut servers = Servers::started().await;
    let mut differences = Vec::new();
    for done in 0..count {
        if done % PROGRESS_EVERY == 0 && done > 0 {
            println!("{done} of {count} sequences, {:.0?}", begun.elapsed());
        }
        if let Some(difference) = servers.check(first + done).await {
            println!("{difference}");
            differences.push(difference);
            if differences.len() >= DIFFERENCES_MAX {
                break;
            }
        }
    }
    println!("{count} sequences from seed {first}: {:.0?}", begun.elapsed());
    assert!(differences.is_empty(), "{} sequences differ:\n{}", differences.len(), differences.join("\n"));
}
