//! The store's decisions: consensus, revisions, leases, permissions.
//!
//! Pure: no clock, no thread, no disk, no socket. [`replica`] turns inputs into an
//! ordered list of effects around raft-rs, [`trace`] says what it did, [`wal`] turns its log into frames and back; [`machine`] turns committed commands into
//! writes, events and answers: [`mvcc`] those about keys and leases, [`membership`] those
//! about the cluster itself, [`auth`] those about users, and it says who may do what, [`alarms`]
//! what is refused to everybody, [`divergence`] whether members came to the same.
//! [`peers`] reads what members say to each other, [`transfer`] a snapshot on its way between them, [`backup`] a file of one, [`json`] what clients without gRPC say,
//! [`lease`] says what has expired, given the time, [`auto_compaction`] what may be forgotten, [`watch`] what a
//! watcher is told next.
//!
//! Absences: nothing here waits; nothing here reads randomness; nothing that
//! reaches output depends on the order of a hash map.

pub mod alarms;
pub mod auth;
pub mod auto_compaction;
pub mod backup;
pub mod divergence;
pub mod errors;
pub mod json;
pub mod lease;
pub mod machine;
pub mod membership;
pub mod mvcc;
pub mod peers;
pub mod replica;
pub mod trace;
pub mod transfer;
pub mod wal;
pub mod watch;

/// etcd's messages, which are also what commands in the log are made of.
#[allow(missing_docs, clippy::all, reason = "generated from proto/etcd.proto, where etcd's names speak for themselves")]
#[allow(unreachable_pub, reason = "generated")]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}
