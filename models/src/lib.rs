//! What the checks know of a store's clients: histories of their operations, and whether they are linearizable.
//!
//! The models themselves are the program's (`main.rs`).

pub mod history;
pub mod traces;
