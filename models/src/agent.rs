//! A node agent, explored: `agent_core::machine` behind the owner of a node's pods, killed and started again anywhere.
//!
//! Problem. What an agent knows dies with it, what it asked of the runtime doesn't: a call may take effect though nobody
//!          waits for it any more, while the next agent already looks at what there is. Tests kill it at chosen places.
//! Idea.    Each pod has the production [`PodMachine`](agent_core::machine::PodMachine). The model chooses every order of
//!          calls, answers, observations, watches, exits, crashes and deletions within bounds.
//!
//! What is the model's: the API with its objects, the runtime ([`models::runtime`], after containerd: names with attempts are
//! taken once), and around the machine what `agent/node/src/pods.rs` does with it (`mind`, `node`). Time passes when the agent
//! has nothing else to wait for. Images and volumes are there at once.
//!
//! Checks M1 of `agent_core::machine`, and of M4 that what runs has ended; with O1 and O3 of `agent/node/src/pods.rs` as the
//! model does them.

mod cluster;
mod mind;
mod moments;
mod node;
mod properties;
#[cfg(test)]
mod tests;
mod trace;

use std::io::Write;

use crate::exploration::{Report, explore};
use cluster::Cluster;

/// A bug to seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mutant {
    /// The agent acts before it knows what runs.
    ActEarly,
    /// Pods that the API doesn't have are stopped before the API's list is known.
    AdoptEarly,
    /// Pods that the API doesn't have are left alone.
    NeverAdopt,
    /// An observation is used though an action ended since it began.
    StaleLook,
    /// The runtime gives the same name and attempt twice.
    Unreserved,
    /// An object is deleted by its name, whatever its UID.
    DeleteByName,
    /// A status goes to whatever pod has the name.
    StatusByName,
    /// Nobody wakes the agent.
    NeverWake,
    /// The watch doesn't show that a pod is to be deleted.
    LoseMark,
}

/// When containers are started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    Always,
    OnFailure,
    Never,
}

impl Policy {
    /// As the pod's spec says it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// Pods of one name, one after another.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(crate) pods: u8,
    /// Containers of a pod.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) containers: u8,
    /// When they are started again.
    #[arg(long, value_enum, default_value = "always")]
    pub(crate) policy: Policy,
    /// Times that the agent is killed.
    #[arg(long, default_value_t = 1)]
    pub(crate) crashes: u8,
    /// Times that the machine starts anew, and with it all that runs ends.
    #[arg(long, default_value_t = 0)]
    pub(crate) reboots: u8,
    /// Calls whose answer is lost.
    #[arg(long, default_value_t = 0)]
    pub(crate) losses: u8,
    /// Calls that fail.
    #[arg(long, default_value_t = 0)]
    pub(crate) failures: u8,
    /// Containers that end by themselves, well or badly.
    #[arg(long, default_value_t = 1)]
    pub(crate) exits: u8,
    /// Pods that somebody deletes.
    #[arg(long, default_value_t = 1)]
    pub(crate) deletions: u8,
    /// Pods that somebody deletes without grace: their objects go at once.
    #[arg(long, default_value_t = 0)]
    pub(crate) forced: u8,
    /// Observations that arrive later than they were made.
    #[arg(long, default_value_t = 0)]
    pub(crate) looks: u8,
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
    report.besides = format!(", {} runs of a pod's machine", cluster.memo.runs());
    report
}
