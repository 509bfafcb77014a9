//! The scheduler's decisions: which pod is next, which node it goes to, and why.
//!
//! [`State`] is told what the API shows and how bindings went, and says what is to be done. Within it [`Cluster`]
//! knows nodes and pods, and [`schedule`] decides for one pod.
//!
//! Absences: no clock, no randomness, no I/O; a decision places nothing by itself.

pub mod bindings;
pub mod groups;
pub mod queue;
pub mod state;

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
pub use state::State;

#[cfg(test)]
mod scenario;
