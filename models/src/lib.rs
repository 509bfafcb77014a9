//! What the checks know of a store: histories of its clients, and whether they are linearizable; traces of its members, and
//! whether they are Raft; and a made-up
//! container runtime for node agents.
//!
//! The models themselves are the program's (`main.rs`).

pub mod history;
pub mod runtime;
pub mod traces;
