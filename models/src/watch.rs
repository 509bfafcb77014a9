//! Watches, explored: `store_core::watch` on members that apply at their own pace, under a client that goes on elsewhere.
//!
//! Problem. A watcher that lags, compaction while its past is read, a snapshot, a member that is behind, a client
//!          that comes back: what is lost, told twice or told too early there, nobody notices.
//! Idea.    Members apply a log of puts, deletions, a transaction and a compaction with the production `Mvcc`, and
//!          publish into the production `Ring`; a stream serves its watchers by the production `Cursor`. The model
//!          chooses every order of applying, publishing, collecting, reading, sending, receiving and reconnecting
//!          within bounds, and compares what the client is given with the log.
//!
//! What is the model's: the log, the members' disks (`replica`), the stream's task as in `store/server/src/grpc/watch.rs`
//! (`stream`: it may be overtaken between any two looks at what it shares), and the client (`client`: it resumes from what
//! it saw last, as etcd's does). Not modelled: users and roles, previous values, fragments, several streams.
//!
//! Checks W1 to W3 of `store_core::watch`.

mod client;
mod cluster;
mod history;
mod properties;
mod replica;
mod stream;
#[cfg(test)]
mod tests;
mod trace;

use std::io::Write;

use crate::exploration::{Report, explore};
use cluster::Cluster;
use stream::Mutant;

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// Members.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) members: u8,
    /// Watchers of the client: of both keys, and of one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) watchers: u8,
    /// Writes: a put, a transaction of two, a deletion, a put.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) writes: u8,
    /// Compactions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) compactions: u8,
    /// Times that a member is sent a snapshot.
    #[arg(long, default_value_t = 0)]
    pub(crate) snapshots: u8,
    /// Times that the client connects.
    #[arg(long, default_value_t = 2)]
    pub(crate) connections: u8,
    /// Times that the client asks for progress, or it is time to tell it.
    #[arg(long, default_value_t = 1)]
    pub(crate) progress: u8,
    /// Changes that a member keeps for watchers; older ones are read from disk.
    #[arg(long, default_value_t = 2)]
    pub(crate) ring: usize,
    /// Answers with events that wait for the client.
    #[arg(long, default_value_t = 1)]
    pub(crate) room: usize,
    /// A bug to seed into the model's shell: the check must find it.
    #[arg(long)]
    pub(crate) mutant: Option<Mutant>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

/// Explores everything within the bounds; tells of its progress each second.
pub(crate) fn check(bounds: &Bounds, progress: &mut dyn Write) -> Report {
    explore(Cluster::new(bounds.clone()), bounds.threads, progress, trace::lines).0
}
