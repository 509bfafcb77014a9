//! Requests that are wrong whatever the state, refused before they reach the log.
//!
//! Source: etcd `server/etcdserver/api/v3rpc/key.go`.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::errors::RequestError;
use crate::wire::command::Request;
use crate::wire::range_request::{SortOrder, SortTarget};
use crate::wire::request_op::Request as Op;
use crate::wire::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// Checks a request of the log; a transaction may have so many operations, those inside it included.
///
/// How many is each member's own setting, so that it can't be asked what is committed already.
///
/// # Errors
/// The first rule it breaks.
pub fn request(request: &Request, txn_ops_max: usize) -> Result<(), RequestError> {
    match request {
        Request::Put(put) => check_put(put),
        Request::DeleteRange(delete) => check_delete(delete),
        Request::Txn(txn) => check_txn(txn, txn_ops_max),
        Request::LeaseGrant(grant) if grant.ttl > crate::lease::TTL_SECONDS_MAX => Err(RequestError::LeaseTooLong),
        _ => Ok(()),
    }
}

/// Checks a read.
///
/// # Errors
/// The first rule it breaks.
pub fn range(range: &RangeRequest) -> Result<(), RequestError> {
    if range.key.is_empty() {
        return Err(RequestError::EmptyKey);
    }
    let sortable = SortOrder::try_from(range.sort_order).is_ok() && SortTarget::try_from(range.sort_target).is_ok();
    if sortable { Ok(()) } else { Err(RequestError::InvalidSort) }
}

/// Checks a read that is answered in pieces: they come in order of keys, each key looked at once.
///
/// # Errors
/// The first rule it breaks.
pub fn range_stream(request: &RangeRequest) -> Result<(), RequestError> {
    range(request)?;
    let by_key = request.sort_order == SortOrder::Ascend as i32 && request.sort_target == SortTarget::Key as i32;
    match () {
        () if request.sort_order != SortOrder::None as i32 && !by_key => Err(RequestError::StreamSort),
        () if super::range::filters(request) => Err(RequestError::StreamFilter),
        () => Ok(()),
    }
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

fn check_txn(txn: &TxnRequest, ops_max: usize) -> Result<(), RequestError> {
    check_ops(txn, ops_max)?;
    // After all single operations, as in etcd: the first error that is told depends on it.
    writes(&txn.success)?;
    writes(&txn.failure)?;
    Ok(())
}

/// Checks a transaction's operations. What it holds itself is taken from what those inside it may hold.
fn check_ops(txn: &TxnRequest, ops_max: usize) -> Result<(), RequestError> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = ops_max.checked_sub(ops).ok_or(RequestError::TooManyOps)?;
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(RequestError::EmptyKey);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Op::RequestRange(inner)) => range(inner)?,
            Some(Op::RequestPut(inner)) => check_put(inner)?,
            Some(Op::RequestDeleteRange(inner)) => check_delete(inner)?,
            Some(Op::RequestTxn(inner)) => check_ops(inner, left)?,
            None => return Err(RequestError::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations writes; a key may be written once.
struct Written {
    puts: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Written {
    /// Whether a put of the key meets a deletion.
    ///
    /// As etcd sees it, which takes a range's end literally here: a deletion of everything from
    /// a key on (an end of one zero byte) meets no put.
    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(
            |(start, end)| {
                if end.is_empty() { key == start } else { key >= start.as_ref() && key < end.as_ref() }
            },
        )
    }
}

/// What the operations write. etcd's rule isn't symmetric, and is kept as it is: puts are compared with
/// deletions of their own list and of earlier transactions in it, never with those of later ones.
fn writes(ops: &[RequestOp]) -> Result<Written, RequestError> {
    let mut all = Written { puts: BTreeSet::new(), deletes: Vec::new() };
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            all.deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in ops {
        let Some(Op::RequestTxn(txn)) = &op.request else { continue };
        let (success, failure) = (writes(&txn.success)?, writes(&txn.failure)?);
        // Either branch runs, not both: a key that both put is put once.
        let branches: BTreeSet<Bytes> = success.puts.union(&failure.puts).cloned().collect();
        if branches.iter().any(|key| all.puts.contains(key) || all.deletes(key)) {
            return Err(RequestError::DuplicateKey);
        }
        all.puts.extend(branches);
        all.deletes.extend(success.deletes.into_iter().chain(failure.deletes));
    }
    for op in ops {
        let Some(Op::RequestPut(put)) = &op.request else { continue };
        if all.deletes(&put.key) || !all.puts.insert(put.key.clone()) {
            return Err(RequestError::DuplicateKey);
        }
    }
    Ok(all)
}
