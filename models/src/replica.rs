//! The store's consensus driver, explored: `store_core::replica` with raft-rs inside.
//!
//! Problem. A crash between saving and sending, an answer before its sync, a log whose
//!          end is torn: bugs there need a rare order of events that tests don't hit.
//! Idea.    Up to five members run the production driver. The model chooses every order of
//!          messages, time, proposals, stalling disks and power cuts within bounds,
//!          and checks each state it comes to.
//!
//! What is the model's: the disk (`disk`), the threads around the driver (`shell`), the
//! network (`cluster`: FIFO on a link unless messages overtake; what arrives at a member that is down is lost).
//! What is production code: everything that decides.
//! Source: Raft (Ongaro, Ousterhout 2014) figure 3 for the first four properties.

mod bounds;
mod browser;
mod cluster;
mod disk;
mod entry;
mod episode;
mod kept;
mod lag;
mod member;
mod memo;
mod packet;
mod promises;
mod properties;
mod random;
mod shell;
mod symmetry;
#[cfg(test)]
mod tests;
mod trace;
mod walk;

use std::io::Write;

use crate::exploration::{Report, explore};
pub(crate) use bounds::Bounds;
pub(crate) use browser::{Explorer, serve};
use cluster::Cluster;
pub(crate) use walk::{Walk, walk};

/// Explores everything within the bounds; tells of its progress each second.
pub(crate) fn check(bounds: &Bounds, progress: &mut dyn Write) -> Report {
    let (report, cluster) = explore(Cluster::new(bounds.resolved()), bounds.threads, progress, trace::lines);
    let (executions, members) = cluster.memo.sizes();
    let besides = format!("; {members} states of a member from {executions} runs of the driver");
    Report { audit: cluster.memo.audit(), besides, ..report }
}
