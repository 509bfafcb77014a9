//! Whole clusters of stores in one thread, under virtual time.
//!
//! [`run`] takes a seed and does a run: production code of `store-core` decides, everything around it is modelled, time
//! and all that may break. What a seed does once it does again.
//!
//! In reading order: `queue` (time), `chance`, `disk`, `network`, `state`, `member` (the shell), `stream` (watches),
//! `clients`, `holders` (leases), `watchers`, `admin` (members), `canon` (what is true), `world`, `faults`, `run` (what is checked);
//! `pods` is a cluster that runs pods on such a store.

mod admin;
mod canon;
mod chance;
mod clients;
mod disk;
mod event;
mod faults;
mod holders;
mod member;
mod mutant;
mod network;
mod panics;
mod pods;
mod queue;
mod run;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod watchers;
mod world;

pub use mutant::Mutant;
pub use run::{Report, Workload, run};
