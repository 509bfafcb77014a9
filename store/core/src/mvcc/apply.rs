//! Applying commands.

use bytes::Bytes;

use super::index::Spot;
use super::range::key_value;
use super::{Answer, Change, Mvcc, Revision, Values, Writes};
use crate::errors::RequestError;
use crate::wire::command::Request;
use crate::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::request_op::Request as Op;
use crate::wire::response_op::Response;
use crate::wire::{
    Command, Compare, DeleteRangeRequest, DeleteRangeResponse, KeyValue, LeaseCheckpoint, LeaseGrantRequest,
    PutRequest, PutResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

/// Values of this command's own changes, in front of the shell's.
struct Overlay<'a, V> {
    writes: &'a Writes,
    below: &'a V,
}

impl<V: Values> Values for Overlay<'_, V> {
    fn value(&self, at: Revision) -> Result<Bytes, RequestError> {
        match self.writes.changes.iter().find(|change| change.at == at) {
            Some(change) => Ok(change.kv.value.clone()),
            None => self.below.value(at),
        }
    }
}

pub(super) fn apply(
    state: &mut Mvcc,
    command: &Command,
    values: &impl Values,
) -> (Writes, Result<Answer, RequestError>) {
    let mut writes = Writes::default();
    // What a member of another version put into the log and this one can't read is nothing.
    let Some(request) = &command.request else { return (writes, Err(RequestError::EmptyKey)) };
    let checked = super::check::request(request, usize::MAX);
    let answer = match checked {
        Err(error) => Err(error),
        Ok(()) => run(state, request, &mut writes, values),
    };
    if !writes.changes.is_empty() {
        state.revision += 1;
    }
    (writes, answer)
}

fn run(state: &mut Mvcc, request: &Request, writes: &mut Writes, values: &impl Values) -> Result<Answer, RequestError> {
    match request {
        Request::Put(request) => {
            // Outside a transaction etcd looks at the lease first, inside at the key.
            check_lease(state, request)?;
            check_previous(state, request)?;
            put(state, request, writes, values).map(Answer::Put)
        }
        Request::DeleteRange(request) => delete_range(state, request, writes, values).map(Answer::DeleteRange),
        Request::Txn(request) => {
            let path = path(state, request, values)?;
            check_txn(state, request, &path, &mut Vec::new())?;
            let mut at = 0;
            let mut answer = txn(state, request, &path, &mut at, writes, values)?;
            answer.header = inner_header(state, writes);
            Ok(Answer::Txn(answer))
        }
        Request::Compact(request) => state.compact(request.revision, writes).map(|()| Answer::Compact),
        Request::LeaseGrant(request) => grant(state, request, writes),
        Request::LeaseRevoke(request) => {
            let [only] = request.ids.as_slice() else {
                request.ids.iter().for_each(|id| revoke(state, *id, writes));
                return Ok(Answer::LeaseRevoke);
            };
            if !state.leases.contains_key(only) {
                return Err(RequestError::LeaseNotFound);
            }
            revoke(state, *only, writes);
            Ok(Answer::LeaseRevoke)
        }
        Request::LeaseCheckpoint(request) => {
            request.checkpoints.iter().for_each(|checkpoint| note_remaining(state, checkpoint, writes));
            Ok(Answer::LeaseCheckpoint)
        }
        // Not about keys: `machine` gives them to others.
        Request::Auth(_) | Request::Alarm(_) | Request::Vote(_) => Err(RequestError::InvalidAuthMgmt),
    }
}

/// The next change's place.
fn next(state: &Mvcc, writes: &Writes) -> Revision {
    Revision { main: state.revision + 1, sub: writes.changes.len() as i64 }
}

/// The header of an answer inside an answer, which carries the revision alone.
fn inner_header(state: &Mvcc, writes: &Writes) -> Option<ResponseHeader> {
    let revision = state.revision + i64::from(!writes.changes.is_empty());
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// Writes a key where it was looked up.
fn record(state: &mut Mvcc, spot: Spot, kv: KeyValue, writes: &mut Writes) {
    let at = next(state, writes);
    // Requests are far smaller.
    state.write_index_at(spot, at, &kv, u32::try_from(kv.value.len()).unwrap_or(u32::MAX));
    writes.changes.push(Change { at, kv });
}

/// The key as it is now, this command's own changes included.
fn current(state: &Mvcc, key: &Bytes, writes: &Writes, values: &impl Values) -> Result<Option<KeyValue>, RequestError> {
    let Some(version) = state.index.latest(key).filter(|v| !v.is_deletion()) else { return Ok(None) };
    let value = Overlay { writes, below: values }.value(version.at)?;
    Ok(Some(key_value(key, version, value)))
}

/// The key that a put takes value or lease from must be there before it changes anything (V2).
fn check_previous(state: &Mvcc, request: &PutRequest) -> Result<(), RequestError> {
    let exists = || state.index.latest(&request.key).is_some_and(|v| !v.is_deletion());
    if (request.ignore_value || request.ignore_lease) && !exists() { Err(RequestError::KeyNotFound) } else { Ok(()) }
}

/// So must its lease.
fn check_lease(state: &Mvcc, request: &PutRequest) -> Result<(), RequestError> {
    if request.lease != 0 && !state.leases.contains_key(&request.lease) {
        return Err(RequestError::LeaseNotFound);
    }
    Ok(())
}

fn put(
    state: &mut Mvcc,
    request: &PutRequest,
    writes: &mut Writes,
    values: &impl Values,
) -> Result<PutResponse, RequestError> {
    let spot = state.index.spot(&request.key);
    let old_version = state.index.latest_at(spot).filter(|v| !v.is_deletion()).copied();
    let needs_value = request.prev_kv || request.ignore_value;
    let old = if needs_value { current(state, &request.key, writes, values)? } else { None };
    let main = next(state, writes).main;
    let kv = KeyValue {
        key: request.key.clone(),
        create_revision: old_version.map_or(main, |v| v.create),
        mod_revision: main,
        version: old_version.map_or(0, |v| v.version) + 1,
        value: match (&old, request.ignore_value) {
            (Some(old), true) => old.value.clone(),
            _ => request.value.clone(),
        },
        lease: match (old_version, request.ignore_lease) {
            (Some(old), true) => old.lease,
            _ => request.lease,
        },
    };
    record(state, spot, kv, writes);
    Ok(PutResponse { header: inner_header(state, writes), prev_kv: if request.prev_kv { old } else { None } })
}

fn delete_range(
    state: &mut Mvcc,
    request: &DeleteRangeRequest,
    writes: &mut Writes,
    values: &impl Values,
) -> Result<DeleteRangeResponse, RequestError> {
    let newest = i64::MAX;
    let keys: Vec<Bytes> =
        state.index.range(&request.key, &request.range_end, newest).map(|(k, _)| Bytes::copy_from_slice(k)).collect();
    let mut prev_kvs = Vec::new();
    if request.prev_kv {
        for key in &keys {
            prev_kvs.extend(current(state, key, writes, values)?);
        }
    }
    for key in &keys {
        delete(state, key, writes);
    }
    Ok(DeleteRangeResponse { header: inner_header(state, writes), deleted: keys.len() as i64, prev_kvs })
}

fn delete(state: &mut Mvcc, key: &Bytes, writes: &mut Writes) {
    let main = next(state, writes).main;
    let spot = state.index.spot(key);
    record(state, spot, KeyValue { key: key.clone(), mod_revision: main, ..KeyValue::default() }, writes);
}

fn grant(state: &mut Mvcc, request: &LeaseGrantRequest, writes: &mut Writes) -> Result<Answer, RequestError> {
    if state.leases.contains_key(&request.id) {
        return Err(RequestError::LeaseExists);
    }
    let ttl = request.ttl.max(1);
    state.restore_lease(request.id, ttl, 0);
    writes.granted.push((request.id, ttl));
    Ok(Answer::LeaseGrant(request.id, ttl))
}

fn revoke(state: &mut Mvcc, id: i64, writes: &mut Writes) {
    // A lease that ended meanwhile needs no second end.
    if !state.leases.contains_key(&id) {
        return;
    }
    for key in state.lease_keys(id) {
        delete(state, &key, writes);
    }
    state.leases.remove(&id);
    writes.ended.push(id);
}

fn note_remaining(state: &mut Mvcc, checkpoint: &LeaseCheckpoint, writes: &mut Writes) {
    // It may have ended meanwhile.
    let Some(lease) = state.leases.get_mut(&checkpoint.id) else { return };
    lease.remaining = checkpoint.remaining.clamp(0, lease.ttl);
    writes.checkpoints.push((checkpoint.id, lease.remaining));
}

/// Which branch each transaction takes, nested ones after their parents, in order.
pub(super) fn path(state: &Mvcc, request: &TxnRequest, values: &impl Values) -> Result<Vec<bool>, RequestError> {
    let mut taken = true;
    for compare in &request.compare {
        if !holds(state, compare, values)? {
            taken = false;
            break;
        }
    }
    let mut all = vec![taken];
    for op in branch(request, taken) {
        if let Some(Op::RequestTxn(inner)) = &op.request {
            all.extend(path(state, inner, values)?);
        }
    }
    Ok(all)
}

pub(super) fn branch(request: &TxnRequest, taken: bool) -> &[RequestOp] {
    if taken { &request.success } else { &request.failure }
}

/// Whether a comparison holds for every key it is about. Source: etcd `applyCompare`.
fn holds(state: &Mvcc, compare: &Compare, values: &impl Values) -> Result<bool, RequestError> {
    let by_value = compare.target == CompareTarget::Value as i32;
    let mut versions = state.index.range(&compare.key, &compare.range_end, i64::MAX).map(|(_, v)| v).peekable();
    if versions.peek().is_none() {
        // A missing key has no value to compare; its numbers are all zero.
        return Ok(!by_value && compare_one(compare, &KeyValue::default()));
    }
    for version in versions {
        let value = if by_value { values.value(version.at)? } else { Bytes::new() };
        // It isn't the key that is compared.
        if !compare_one(compare, &key_value(&Bytes::new(), version, value)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares one key. A value of another kind than the target's counts as zero, a target that doesn't exist
/// as equal, and a result that doesn't exist holds always: so it is in etcd.
fn compare_one(compare: &Compare, kv: &KeyValue) -> bool {
    let union = compare.target_union.as_ref();
    let number = |asked: Option<&i64>| asked.copied().unwrap_or(0);
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let asked = if let Some(TargetUnion::Value(value)) = union { value.as_ref() } else { b"" };
            kv.value.as_ref().cmp(asked)
        }
        Ok(CompareTarget::Version) => {
            kv.version.cmp(&number(if let Some(TargetUnion::Version(n)) = union { Some(n) } else { None }))
        }
        Ok(CompareTarget::Create) => kv
            .create_revision
            .cmp(&number(if let Some(TargetUnion::CreateRevision(n)) = union { Some(n) } else { None })),
        Ok(CompareTarget::Mod) => {
            kv.mod_revision.cmp(&number(if let Some(TargetUnion::ModRevision(n)) = union { Some(n) } else { None }))
        }
        Ok(CompareTarget::Lease) => {
            kv.lease.cmp(&number(if let Some(TargetUnion::Lease(n)) = union { Some(n) } else { None }))
        }
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

/// V2: everything that could refuse an operation is looked at, in the state before the first one, before it runs.
/// Returns how many transactions there are inside.
///
/// `ended` are the keys from which on earlier operations delete everything: no other deletion may meet a put. etcd
/// panics if a put then keeps the value or lease of such a key.
pub(super) fn check_txn<'a>(
    state: &Mvcc,
    request: &'a TxnRequest,
    path: &[bool],
    ended: &mut Vec<&'a Bytes>,
) -> Result<usize, RequestError> {
    let mut inside = 0;
    for op in branch(request, path[0]) {
        match &op.request {
            Some(Op::RequestPut(inner)) => {
                check_previous(state, inner)?;
                if (inner.ignore_value || inner.ignore_lease) && ended.iter().any(|from| inner.key >= *from) {
                    return Err(RequestError::KeyNotFound);
                }
                check_lease(state, inner)?;
            }
            Some(Op::RequestDeleteRange(inner)) if inner.range_end == "\0" => ended.push(&inner.key),
            Some(Op::RequestRange(inner)) => check_revision(state, inner.revision)?,
            Some(Op::RequestTxn(inner)) => inside += 1 + check_txn(state, inner, &path[1 + inside..], ended)?,
            _ => {}
        }
    }
    Ok(inside)
}

/// In a transaction a negative revision is one of the past, where a read alone takes it for the newest.
fn check_revision(state: &Mvcc, asked: i64) -> Result<(), RequestError> {
    match asked {
        0 => Ok(()),
        asked if asked > state.revision => Err(RequestError::Future),
        asked if asked < state.compacted => Err(RequestError::Compacted),
        _ => Ok(()),
    }
}

fn txn(
    state: &mut Mvcc,
    request: &TxnRequest,
    path: &[bool],
    at: &mut usize,
    writes: &mut Writes,
    values: &impl Values,
) -> Result<TxnResponse, RequestError> {
    let succeeded = path[*at];
    *at += 1;
    let mut responses = Vec::new();
    for op in branch(request, succeeded) {
        let response = match &op.request {
            Some(Op::RequestRange(inner)) => Response::ResponseRange(range_within(state, inner, writes, values)?),
            Some(Op::RequestPut(inner)) => Response::ResponsePut(put(state, inner, writes, values)?),
            Some(Op::RequestDeleteRange(inner)) => {
                Response::ResponseDeleteRange(delete_range(state, inner, writes, values)?)
            }
            Some(Op::RequestTxn(inner)) => Response::ResponseTxn(txn(state, inner, path, at, writes, values)?),
            None => continue,
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    // A transaction inside another one has a header without a revision.
    Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
}

/// A read inside a transaction sees what the transaction wrote before it.
fn range_within(
    state: &mut Mvcc,
    request: &crate::wire::RangeRequest,
    writes: &Writes,
    values: &impl Values,
) -> Result<crate::wire::RangeResponse, RequestError> {
    let written = !writes.changes.is_empty();
    state.revision += i64::from(written);
    let answer = state.range(request, &Overlay { writes, below: values });
    state.revision -= i64::from(written);
    let mut answer = answer?;
    answer.header = inner_header(state, writes);
    Ok(answer)
}
