//! Controllers' decisions: observed objects in, writes out.
//!
//! Each module but [`election`] (which of several processes acts) and what they share is one controller: a pure function from what informers have seen
//! to what should be written. Reading time, watching and writing is the shell's
//! work, and so are retries: a reconcile that is called twice with the same
//! objects asks for the same writes.
//!
//! Absences: no clock, no network, no order of events. A controller looks at
//! levels, never at edges.

pub mod deployment;
pub mod election;
pub mod endpoint_slice;
pub mod graph;
pub mod namespace;
pub mod node;
pub mod owner;
pub mod queue;
pub mod replica_set;
pub mod unseen;
pub mod write;

pub use write::{Target, Write};
