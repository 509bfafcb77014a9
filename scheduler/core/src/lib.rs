//! The scheduler's decisions: which node a pod goes to, and why.
//!
//! [`Cluster`] is told of nodes and pods; [`schedule`] decides for one pod.
//!
//! Absences: no clock, no randomness, no I/O; a decision places nothing by itself.

pub mod cluster;
pub mod oracle;

pub mod failure;
pub mod node;
pub mod pod;

pub mod affinity;
pub mod balanced;
pub mod choose;
pub mod filter;
pub mod fit;
pub mod images;
pub mod labels;
pub mod order;
pub mod ports;
pub mod preemption;
pub mod resources;
pub mod spread;
pub mod taints;

pub use cluster::Cluster;
pub use failure::Failure;
pub use oracle::{Decision, schedule};
pub use spread::{OwnerSelector, SpreadDefaults};

#[cfg(test)]
mod scenario;
