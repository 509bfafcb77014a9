//! Load for a running store, from outside.
//!
//! What runs inside one process is measured by the criterion benchmarks beside this
//! library (`benches/benches`); [`store`] is for whole clusters, ours or etcd's own.

pub mod store;
