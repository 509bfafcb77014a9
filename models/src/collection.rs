//! Garbage collection against adoption, explored: `controllers_core::graph` and `replica_set`, and the API between them.
//!
//! Problem. The collector deletes what has no owner left, and ReplicaSets adopt what has none: each by what its own watches
//!          have shown, which lag, while people delete owners in three ways, make others of the same name, and change
//!          labels and owners by hand. A write decided upon what was must not undo what is.
//! Idea.    The collector decides by the production [`Graph`](controllers_core::graph::Graph), each set's controller by the
//!          production `replica_set::reconcile`. What a write or a deletion does to an object is decided by
//!          `apiserver_core::lifecycle`. The model chooses every order of watches, decisions, questions and writes.
//!
//! What is the model's: the stored objects and their log (`store`), and around the decisions what `controllers/server` does
//! with them: four watches that lag by themselves (the collector's of sets and of pods, the controllers' of both),
//! queues of keys, one piece of work a key, its writes one by one, again after a failure (`cluster`).
//!
//! Checks G1 to G5 of `controllers_core::graph`, R1 and R4 of `replica_set`.

mod cluster;
mod execute;
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
    /// A deletion by the collector names the uid alone.
    UnguardedDelete,
    /// Lists of owners and finalizers are written over whatever they are.
    UnguardedPatch,
    /// A set adopts without asking the API whether it is still there.
    NoConfirm,
    /// An owner counts as there if one of its name is.
    ByName,
    /// An owner that the collector wasn't shown counts as gone.
    NoCheck,
    /// The collector begins before all was listed.
    LookEarly,
    /// An owner is let go before its dependents are.
    FinalizerFirst,
    /// Nobody is told of a pod that nobody controls.
    DeafController,
}

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// ReplicaSets that select the pod: the first one controls it.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) sets: u8,
    /// The second set owns the pod too, without controlling it.
    #[arg(long)]
    pub(crate) shared: bool,
    /// Sets that are deleted, in any of the three ways.
    #[arg(long, default_value_t = 1)]
    pub(crate) deletions: u8,
    /// Times that the first set is made anew under its name.
    #[arg(long, default_value_t = 1)]
    pub(crate) recreations: u8,
    /// Times that somebody takes the pod's owners off.
    #[arg(long, default_value_t = 0)]
    pub(crate) unlinks: u8,
    /// Times that the pod's label is taken off, or put back.
    #[arg(long, default_value_t = 0)]
    pub(crate) relabels: u8,
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
