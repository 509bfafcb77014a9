//! `keelson up` as a person uses it: real processes, real kubectl, real containers, kill -9.

mod cluster;
mod containers;
mod control;
mod durability;
mod failover;
mod flags;
mod hollow;
mod import;
mod partitions;
#[path = "../../../store/server/tests/it/ports.rs"]
mod ports;
#[path = "../../../apiserver/server/tests/it/programs.rs"]
mod programs;
mod registry;
mod snapshot;
