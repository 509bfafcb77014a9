//! What the store's threads share, where locks and atomics alone don't say what holds.
//!
//! Each is small and knows nothing of the store, so that its tests run under loom, which tries every order of its steps
//! within a bound of preemptions: `cargo test -p store-shared --features loom --release`.
//!
//! - [`Bound`]: how many are under way.
//! - [`Waiting`]: who waits for an answer.
//! - [`Pins`]: what readers still need.
//! - [`Published`]: what those who are told of something find.

mod bound;
mod pins;
mod published;
mod sync;
mod waiting;

pub use bound::Bound;
pub use pins::{Pin, Pins};
pub use published::Published;
pub use waiting::{Refused, Waiting};
