//! The Kubernetes object model: what every other crate means by an object.
//!
//! An object is a [`serde_json::Value`] tree that keeps the order of its keys. One compact table,
//! generated from the facts about Kubernetes 1.36 and embedded, says what each kind holds; decoding,
//! pruning, defaulting, merging and protobuf transcoding all read it.
//!
//! Always holds: nothing here reads a clock, a file, a socket or a source of randomness, and
//! nothing that comes from outside makes it panic.

pub mod gvk;
pub mod schema;

pub mod columns;
pub mod resources;

pub mod decode;
pub mod defaults;
pub mod merge;
pub mod protobuf;
pub mod yaml;

pub mod names;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod time;

pub use serde_json::Value;
