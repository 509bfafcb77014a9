//! Schedulers, explored: `scheduler_core::state` in several processes, and the decisions of `apiserver_core` between them.
//!
//! Problem. Two schedulers that know different things, and bindings that go unanswered or arrive late, meet in orders
//!          that tests don't hit; each by itself does what is right, and a node gets more than it has room for.
//! Idea.    Each process runs the production [`State`](scheduler_core::State), oracle, queue, bindings and all. What
//!          a binding does to a pod and to the node's fence is the production `kinds::bind` and `fence`. The model
//!          chooses every order of watches, decisions, requests, answers, losses and deletions within bounds.
//!
//! What is the model's: the store with its transactions and its log (`store`), and around the state what
//! `scheduler/server` does with it (`member`). Each watch of each scheduler lags by itself. A request is read and
//! committed in two steps, as by several apiservers; it may go unanswered at any time, and be carried out
//! afterwards, or not. Time passes when a scheduler has nothing else to wait for.
//!
//! Checks S1, S2, S5 and B1 to B3 of `scheduler_core`, F1 and F2 of `apiserver_core::fence`.

mod cluster;
mod member;
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
    /// The transaction doesn't ask the node's fence.
    NoFence,
    /// A binding that doesn't tell what its author knew doesn't write the fence either.
    PlainUnseen,
    /// The transaction doesn't compare the pod's revision.
    NoCompare,
    /// A binding without an answer counts as failed.
    ForgetUnanswered,
    /// The watch is told to be further than what it has shown.
    ReachEarly,
    /// A binding tells what is known when it is sent, not what its decision knew.
    KnownWhenSent,
    /// The answer tells the store's revision, not the binding's.
    AnswerLater,
    /// Nobody is told that a binding was refused.
    LoseRefusal,
    /// Nobody is told how far the watch is.
    NeverReach,
    /// A watch leaves out that pods were given nodes.
    SkipBound,
}

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// Schedulers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) schedulers: u8,
    /// Pods, all alike.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) pods: u8,
    /// Nodes, all alike.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) nodes: u8,
    /// Pods that a node has room for.
    #[arg(long, default_value_t = 1)]
    pub(crate) room: u8,
    /// Requests that go unanswered.
    #[arg(long, default_value_t = 1)]
    pub(crate) losses: u8,
    /// Pods that are deleted, or marked.
    #[arg(long, default_value_t = 0)]
    pub(crate) deletions: u8,
    /// Nodes that are deleted.
    #[arg(long, default_value_t = 0)]
    pub(crate) departures: u8,
    /// Bindings by somebody who doesn't tell what he knew, to any node.
    #[arg(long, default_value_t = 0)]
    pub(crate) plain: u8,
    /// Times that a scheduler's pause is over before it is shown everything.
    #[arg(long, default_value_t = 1)]
    pub(crate) early: u8,
    /// The apiserver is another's, that knows no fences.
    #[arg(long)]
    pub(crate) foreign: bool,
    /// A bug to seed into the model's shell: the check must find it.
    #[arg(long)]
    pub(crate) mutant: Option<Mutant>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

/// Explores everything within the bounds; tells of its progress each second.
pub(crate) fn check(bounds: &Bounds, progress: &mut dyn Write) -> Report {
    let (mut report, cluster) = explore(Cluster::new(bounds.clone()), bounds.threads, progress, trace::lines);
    report.besides = format!(", {} runs of a scheduler", cluster.memo.runs());
    report
}
