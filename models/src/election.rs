//! Leader election, explored: `controllers_core::election` in several processes, and one lease between them.
//!
//! Problem. Nobody knows whether the one that acts is dead, slow or cut off; no two clocks agree; what was asked for may be
//!          carried out long after its author gave it up; a process may stand still and go on where it stopped.
//! Idea.    Each process runs the production [`Election`](controllers_core::election::Election). The model chooses every order
//!          of time, wakings, requests, answers, losses, crashes and releases within bounds, and looks in each state,
//!          at the true time, who may act by its own clock.
//!
//! What is the model's: the lease with its comparison of versions (`store`), and around the election what
//! `controllers/server/src/elect.rs` does with it (`candidate`). A process is woken at any time after it asked to be, or
//! never: so pauses need no step of their own. A request is carried out at any time after it was sent, also if nobody
//! waits for it any more, or never; so is a write of the controllers that was let go while its author led.
//!
//! Checks E1 to E4 of `controllers_core::election`.

mod candidate;
mod cluster;
mod properties;
mod store;
#[cfg(test)]
mod tests;
mod trace;

use std::io::Write;

use crate::exploration::{Report, explore};
use cluster::Cluster;

/// A bug to seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mutant {
    /// The lease is written whatever version its author saw.
    NoCompare,
    /// How long a lease lasts is counted by the time that its holder wrote into it.
    RemoteClock,
    /// A lease counts as unchanged for long enough after a second.
    StealEarly,
    /// A reign counts from the answer to the last renewal.
    FromAnswer,
    /// Who acts looks at no clock: it stops when it is told to.
    NeverStop,
    /// All have the same name.
    SameName,
    /// A refusal is taken for what was asked for.
    RefusedIsWritten,
    /// An answer tells the lease's latest version, not the one that was written.
    AnswerLater,
    /// The lease is released before the controllers have stopped.
    ReleaseFirst,
}

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// Candidates.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) candidates: u8,
    /// Seconds that pass, by the true clock. A lease lasts three, its holder acts for two, and all try each second.
    #[arg(long, default_value_t = 4)]
    pub(crate) seconds: u8,
    /// Percent by which a candidate's clock runs faster or slower than the true one.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=90))]
    pub(crate) skew: u8,
    /// Requests that go unanswered.
    #[arg(long, default_value_t = 0)]
    pub(crate) losses: u8,
    /// Times that a candidate is killed and starts anew.
    #[arg(long, default_value_t = 1)]
    pub(crate) crashes: u8,
    /// Candidates that end as they should.
    #[arg(long, default_value_t = 1)]
    pub(crate) releases: u8,
    /// Times that the lease is read as it was before its last change.
    #[arg(long, default_value_t = 0)]
    pub(crate) stale: u8,
    /// Writes of the controllers.
    #[arg(long, default_value_t = 0)]
    pub(crate) writes: u8,
    /// Seconds that such a write is on its way at most.
    #[arg(long, default_value_t = 0)]
    pub(crate) write_max: u8,
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
