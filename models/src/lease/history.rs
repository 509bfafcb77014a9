//! The log as far as leases go: what is committed is applied by the production state machine.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use store_core::errors::RequestError;
use store_core::mvcc::{Mvcc, Revision, Values, Writes};
use store_core::wire::command::Request;
use store_core::wire::{
    Command as Wire, LeaseCheckpoint, LeaseCheckpointMany, LeaseGrantRequest, LeaseRevokeMany, PutRequest,
};

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Command {
    /// A new leader's empty entry.
    Nothing,
    /// A client asks for a lease.
    Grant(i64, i64),
    /// A client puts the key that goes with a lease.
    Put(i64),
    /// A leader ends leases that have expired.
    Revoke(Vec<i64>),
    /// A leader notes the seconds that are left.
    Checkpoint(Vec<(i64, i64)>),
    /// Whoever renewed a lease lets the log say that it has its whole time.
    TakeBack(i64),
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) term: u8,
    /// The term of the leader that decided on it by itself; its own where a client asked for it.
    pub(super) decided: u8,
    pub(super) command: Command,
}

/// A committed entry, what applying it told the member's threads, and the state behind it.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    pub(super) entry: Entry,
    pub(super) writes: Writes,
    pub(super) mvcc: Mvcc,
}

/// What was applied follows from the entries: the same commands in the same order give the same state.
impl PartialEq for Applied {
    fn eq(&self, other: &Self) -> bool {
        self.entry == other.entry
    }
}

impl Hash for Applied {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.entry.hash(hasher);
    }
}

/// Values don't matter here.
struct Empty;

impl Values for Empty {
    fn value(&self, _: Revision) -> Result<Bytes, RequestError> {
        Ok(Bytes::new())
    }
}

/// The key that is put with a lease.
fn key(lease: i64) -> Bytes {
    Bytes::from(vec![b'j' + u8::try_from(lease).unwrap_or(0)])
}

/// Whether the key of a lease is there.
pub(super) fn has_key(mvcc: &Mvcc, lease: i64) -> bool {
    mvcc.created(&key(lease)).is_some()
}

impl Entry {
    /// Applies it behind what is committed.
    pub(super) fn apply(self, committed: &[Arc<Applied>]) -> Arc<Applied> {
        let mut mvcc = committed.last().map_or_else(Mvcc::new, |last| last.mvcc.clone());
        let checkpoint = |&(id, remaining): &(i64, i64)| LeaseCheckpoint { id, remaining };
        let request = match &self.command {
            Command::Nothing => None,
            Command::Grant(id, ttl) => Some(Request::LeaseGrant(LeaseGrantRequest { id: *id, ttl: *ttl })),
            Command::Put(lease) => {
                Some(Request::Put(PutRequest { key: key(*lease), lease: *lease, ..PutRequest::default() }))
            }
            Command::Revoke(ids) => Some(Request::LeaseRevoke(LeaseRevokeMany { ids: ids.clone() })),
            Command::Checkpoint(list) => {
                let checkpoints = list.iter().map(checkpoint).collect();
                Some(Request::LeaseCheckpoint(LeaseCheckpointMany { checkpoints }))
            }
            Command::TakeBack(id) => {
                let checkpoints = vec![checkpoint(&(*id, 0))];
                Some(Request::LeaseCheckpoint(LeaseCheckpointMany { checkpoints }))
            }
        };
        let writes = match request {
            None => Writes::default(),
            // What is refused changes nothing; a put that comes after its lease's end is.
            request => mvcc.apply(&Wire { request, ..Wire::default() }, &Empty).0,
        };
        Arc::new(Applied { entry: self, writes, mvcc })
    }
}
