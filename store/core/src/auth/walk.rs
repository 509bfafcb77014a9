//! The one walk over a request that decides whether it may be made.
//!
//! Invariants
//!   P1  Nothing is read, written, compared or deleted that the asker may not, at any
//!       depth of a transaction and in whichever branch: both are walked.
//!   P2  Every kind of request is decided here: a new one doesn't compile without.
//!   P3  A lease is attached or ended only by who may write all its keys: they go with it.
//! Checked by: auth/walk/tests.rs against a check of each single key.
//! Source: etcd `server/etcdserver/apply/apply_auth.go`; GHSA-rfx7-8w68-q57q (nested
//! transactions), GHSA-x35m-3gp4-4fh5 (puts in transactions), GHSA-q8m4-xhhv-38mg (leases, compaction),
//! GHSA-xg4h-6gfc-h4m8 (ranges without an end).

#[cfg(test)]
mod tests;

use super::{Access, Asker, Auth};
use crate::errors::RequestError;
use crate::mvcc::Mvcc;
use crate::wire::alarm_request::AlarmAction;
use crate::wire::auth_change::Change;
use crate::wire::command::Request;
use crate::wire::request_op::Request as Op;
use crate::wire::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

/// Who asks, of which state.
struct Walk<'a> {
    auth: &'a Auth,
    mvcc: &'a Mvcc,
    asker: &'a Asker,
}

impl Auth {
    /// Whether the asker may make a request of the log, as things stand.
    ///
    /// # Errors
    /// The first thing that he may not.
    pub fn permit(&self, mvcc: &Mvcc, asker: &Asker, request: &Request) -> Result<(), RequestError> {
        if !self.is_enabled() || *asker == Asker::Member {
            return Ok(());
        }
        let walk = Walk { auth: self, mvcc, asker };
        match request {
            Request::Put(put) => walk.put(put),
            Request::DeleteRange(delete) => walk.delete(delete),
            Request::Txn(txn) => walk.txn(txn),
            Request::Compact(_) => self.admin(asker),
            Request::LeaseGrant(_) => self.named(asker),
            Request::LeaseRevoke(revoke) => {
                self.named(asker)?;
                revoke.ids.iter().try_for_each(|id| walk.lease(*id, Access::Write))
            }
            // Only members note what is left of leases.
            Request::LeaseCheckpoint(_) => Err(RequestError::PermissionDenied),
            // Of alarms, ordinary users may only know.
            Request::Alarm(alarm) if alarm.action == AlarmAction::Get as i32 => self.named(asker),
            Request::Alarm(_) | Request::Vote(_) => self.admin(asker),
            Request::Auth(change) => match change.change {
                // Who asks for a token isn't known before he has it.
                Some(Change::TokenAssign(_)) => Ok(()),
                _ => self.admin(asker),
            },
        }
    }

    /// Whether the asker may do this with all keys of a lease.
    ///
    /// # Errors
    /// Why not.
    pub fn lease(&self, mvcc: &Mvcc, asker: &Asker, id: i64, access: Access) -> Result<(), RequestError> {
        self.named(asker)?;
        Walk { auth: self, mvcc, asker }.lease(id, access)
    }

    /// Whether the asker may know of all leases: as of their keys.
    ///
    /// # Errors
    /// Why not.
    pub fn leases(&self, mvcc: &Mvcc, asker: &Asker) -> Result<(), RequestError> {
        self.named(asker)?;
        let walk = Walk { auth: self, mvcc, asker };
        mvcc.leases().try_for_each(|id| walk.lease(id, Access::Read))
    }
}

impl Walk<'_> {
    fn keys(&self, access: Access, key: &[u8], range_end: &[u8]) -> Result<(), RequestError> {
        self.auth.keys(self.asker, access, key, range_end)
    }

    fn put(&self, put: &PutRequest) -> Result<(), RequestError> {
        self.keys(Access::Write, &put.key, b"")?;
        self.lease(put.lease, Access::Write)?;
        if put.prev_kv { self.keys(Access::Read, &put.key, b"") } else { Ok(()) }
    }

    fn delete(&self, delete: &DeleteRangeRequest) -> Result<(), RequestError> {
        self.keys(Access::Write, &delete.key, &delete.range_end)?;
        if delete.prev_kv { self.keys(Access::Read, &delete.key, &delete.range_end) } else { Ok(()) }
    }

    /// How deep transactions nest is bounded by the decoder, at a hundred messages in one another.
    fn txn(&self, txn: &TxnRequest) -> Result<(), RequestError> {
        // A transaction of nothing does nothing, but not for everybody.
        self.auth.named(self.asker)?;
        txn.compare.iter().try_for_each(|compare| self.keys(Access::Read, &compare.key, &compare.range_end))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|op| self.op(op))
    }

    fn op(&self, op: &RequestOp) -> Result<(), RequestError> {
        match &op.request {
            Some(Op::RequestRange(range)) => self.keys(Access::Read, &range.key, &range.range_end),
            Some(Op::RequestPut(put)) => self.put(put),
            Some(Op::RequestDeleteRange(delete)) => self.delete(delete),
            Some(Op::RequestTxn(txn)) => self.txn(txn),
            None => Ok(()),
        }
    }

    /// P3. A lease that doesn't exist has no keys.
    fn lease(&self, id: i64, access: Access) -> Result<(), RequestError> {
        if self.auth.admin(self.asker).is_ok() {
            return Ok(());
        }
        self.mvcc.lease_keys(id).iter().try_for_each(|key| self.keys(access, key, b""))
    }
}
