//! Requests that are wrong whatever the state, refused before they reach the log.
//!
//! Source: etcd `server/etcdserver/api/v3rpc/key.go`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::in_range;
use crate::errors::RequestError;
use crate::wire::command::Request;
use crate::wire::request_op::Request as Op;
use crate::wire::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// Operations in a transaction, as etcd's default.
pub const OPS_MAX: usize = 128;

/// Checks a request of the log.
///
/// # Errors
/// The first rule it breaks.
pub fn request(request: &Request) -> Result<(), RequestError> {
    match request {
        Request::Put(put) => check_put(put),
        Request::DeleteRange(delete) => check_delete(delete),
        Request::Txn(txn) => check_txn(txn),
        Request::LeaseGrant(grant) if grant.ttl > crate::lease::TTL_SECONDS_MAX => Err(RequestError::LeaseTooLong),
        _ => Ok(()),
    }
}

/// Checks a read.
///
/// # Errors
/// The first rule it breaks.
pub fn range(range: &RangeRequest) -> Result<(), RequestError> {
    if range.key.is_empty() { Err(RequestError::EmptyKey) } else { Ok(()) }
}

fn check_put(put: &PutRequest) -> Result<(), RequestError> {
    match () {
        () if put.key.is_empty() => Err(RequestError::EmptyKey),
        () if put.ignore_value && !put.value.is_empty() => Err(RequestError::ValueProvided),
        () if put.ignore_lease && put.lease != 0 => Err(RequestError::LeaseProvided),
        () => Ok(()),
    }
}

fn check_delete(delete: &DeleteRangeRequest) -> Result<(), RequestError> {
    if delete.key.is_empty() { Err(RequestError::EmptyKey) } else { Ok(()) }
}

fn check_txn(txn: &TxnRequest) -> Result<(), RequestError> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    if ops > OPS_MAX {
        return Err(RequestError::TooManyOps);
    }
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(RequestError::EmptyKey);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Op::RequestRange(inner)) => range(inner)?,
            Some(Op::RequestPut(inner)) => check_put(inner)?,
            Some(Op::RequestDeleteRange(inner)) => check_delete(inner)?,
            Some(Op::RequestTxn(inner)) => check_txn(inner)?,
            // An operation of nothing is taken for a range without a key.
            None => return Err(RequestError::EmptyKey),
        }
    }
    writes(&txn.success)?;
    writes(&txn.failure)?;
    Ok(())
}

/// What a list of operations writes; a key may be written once.
struct Written {
    puts: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

fn writes(ops: &[RequestOp]) -> Result<Written, RequestError> {
    let mut all = Written { puts: BTreeSet::new(), deletes: Vec::new() };
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            all.deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in ops {
        let Some(Op::RequestTxn(txn)) = &op.request else { continue };
        // Either branch may run: what both write counts once, what another operation writes too is a clash.
        let (success, failure) = (writes(&txn.success)?, writes(&txn.failure)?);
        let branch: BTreeSet<Bytes> = success.puts.union(&failure.puts).cloned().collect();
        for key in &branch {
            if all.puts.contains(key) || all.deletes.iter().any(|(start, end)| in_range(key, start, end)) {
                return Err(RequestError::DuplicateKey);
            }
        }
        let deletes: Vec<_> = success.deletes.into_iter().chain(failure.deletes).collect();
        if all.puts.iter().any(|key| deletes.iter().any(|(start, end)| in_range(key, start, end))) {
            return Err(RequestError::DuplicateKey);
        }
        all.puts.extend(branch);
        all.deletes.extend(deletes);
    }
    for op in ops {
        let Some(Op::RequestPut(put)) = &op.request else { continue };
        let deleted = all.deletes.iter().any(|(start, end)| in_range(&put.key, start, end));
        if deleted || !all.puts.insert(put.key.clone()) {
            return Err(RequestError::DuplicateKey);
        }
    }
    Ok(all)
}
