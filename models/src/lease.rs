//! Leases, explored: `store_core::lease` on members whose clocks differ, and `store_core::mvcc` under their log.
//!
//! Problem. A lease must live as long as its holder was told, whoever leads: a leader that doesn't know
//!          yet that another leads, a checkpoint on its way and a renewal that waits meet in orders that tests don't hit.
//! Idea.    Up to three members run the production [`Lessor`](store_core::lease::Lessor); what the log says is
//!          applied by the production `Mvcc`. The model chooses every order of time, looks at the leases,
//!          renewals, commits and elections within bounds, and checks each state it comes to.
//!
//! What is the model's: the log (`history`: consensus itself is `check replica`'s), and around the lessor what
//! `store/server/src/engine` does with it (`member`). A member stops to know what happens at any time, for any time: so
//! pauses, stalls and partitions need no step of their own. Clocks run at rates within a bound,
//! and what was promised counts by the fastest of them.
//!
//! Checks X1, X3 and X4 of `store_core::lease`, and that a key goes with its lease.

mod cluster;
mod history;
mod member;
mod properties;
#[cfg(test)]
mod tests;
mod trace;

use std::io::Write;

use crate::exploration::{Report, explore};
use cluster::Cluster;
use member::Mutant;

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// Members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) members: u8,
    /// Leases, each with a key.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) leases: u8,
    /// Seconds that a lease lives.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i64).range(1..=60))]
    pub(crate) ttl: i64,
    /// Seconds that pass, by the true clock.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u8,
    /// Percent by which a member's clock runs faster or slower than the true one.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u8).range(0..=90))]
    pub(crate) skew: u8,
    /// Seconds between two checkpoints of a lease.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) checkpoint: u64,
    /// Times that another leads, or the same one again.
    #[arg(long, default_value_t = 2)]
    pub(crate) elections: u8,
    /// Times that a member is asked to renew a lease.
    #[arg(long, default_value_t = 1)]
    pub(crate) renewals: u8,
    /// Whether a leader's lessor is told late of what is applied, and takes over from a state that is further.
    #[arg(long)]
    pub(crate) lag: bool,
    /// Commands that a leader has proposed and not committed; states with more are not followed.
    #[arg(long, default_value_t = 3)]
    pub(crate) in_flight: usize,
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
