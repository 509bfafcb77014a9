//! The store's consensus driver, explored: `store_core::replica` with raft-rs inside.
//!
//! Problem. A crash between saving and sending, an answer before its sync, a log whose
//!          end is torn: bugs there need a rare order of events that tests don't hit.
//! Idea.    Three members run the production driver. The model chooses every order of
//!          messages, time, proposals, stalling disks and power cuts within bounds,
//!          and checks each state it comes to.
//!
//! What is the model's: the disk (`disk`), the threads around the driver (`shell`), the
//! network (`cluster`: FIFO on a link unless messages overtake; what arrives at a member that is down is lost).
//! What is production code: everything that decides.
//! Source: Raft (Ongaro, Ousterhout 2014) figure 3 for the first four properties.

mod cluster;
mod disk;
mod entry;
mod member;
mod memo;
mod packet;
mod properties;
mod shell;
mod symmetry;
#[cfg(test)]
mod tests;
mod trace;

use std::io::Write;

use crate::exploration::{Report, explore};
use cluster::Cluster;
use shell::Mutant;

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// Members that begin the cluster, out of three; the others join it by changes.
    #[arg(long, default_value_t = 3)]
    pub(crate) founders: usize,
    /// Terms in which members campaign.
    #[arg(long, default_value_t = 2)]
    pub(crate) terms: u64,
    /// Proposals.
    #[arg(long, default_value_t = 1)]
    pub(crate) proposals: u8,
    /// Power cuts.
    #[arg(long, default_value_t = 1)]
    pub(crate) crashes: u8,
    /// Times that a member waits in vain for a leader and campaigns.
    #[arg(long, default_value_t = 2)]
    pub(crate) timeouts: u8,
    /// Times that a member stops to keep to a silent leader without campaigning.
    #[arg(long, default_value_t = 0)]
    pub(crate) waits: u8,
    /// Ticks that leaders live through: heartbeats, and looking for their peers.
    #[arg(long, default_value_t = 0)]
    pub(crate) beats: u8,
    /// Inputs taken while the disk doesn't keep up.
    #[arg(long, default_value_t = 0)]
    pub(crate) stalls: u8,
    /// Messages that the network loses, besides those to members that are down.
    #[arg(long, default_value_t = 0)]
    pub(crate) drops: u8,
    /// Messages that arrive twice.
    #[arg(long, default_value_t = 0)]
    pub(crate) duplicates: u8,
    /// Messages that overtake others on their link.
    #[arg(long, default_value_t = 0)]
    pub(crate) overtakings: u8,
    /// Linearizable reads that members are asked for.
    #[arg(long, default_value_t = 0)]
    pub(crate) reads: u8,
    /// Times that a leader is asked to hand over to another member.
    #[arg(long, default_value_t = 0)]
    pub(crate) transfers: u8,
    /// Changes of members: adding a learner, promoting it, removing a member.
    #[arg(long, default_value_t = 0)]
    pub(crate) changes: u8,
    /// Times that a member cuts its log, so that others may need a snapshot.
    #[arg(long, default_value_t = 0)]
    pub(crate) compactions: u8,
    /// Messages on their way; states with more are not followed.
    #[arg(long, default_value_t = 6)]
    pub(crate) in_flight: usize,
    /// A bug to seed into the model's shell: the check must find it.
    #[arg(long)]
    pub(crate) mutant: Option<Mutant>,
    /// Afterwards, compares what was remembered with running the code another way.
    #[arg(long)]
    pub(crate) audit: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

/// Explores everything within the bounds; tells of its progress each second.
pub(crate) fn check(bounds: &Bounds, progress: &mut dyn Write) -> Report {
    let (report, cluster) = explore(Cluster::new(bounds.clone()), bounds.threads, progress, trace::lines);
    let (executions, members) = cluster.memo.sizes();
    let besides = format!("; {members} states of a member from {executions} runs of the driver");
    Report { audit: cluster.memo.audit(), besides, ..report }
}
