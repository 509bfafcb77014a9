//! `keelson up` as a person uses it: real processes, real kubectl, real containers, kill -9.

mod cluster;
mod containers;
mod control;
mod hollow;
mod registry;
