//! Applying commands.

use bytes::Bytes;

use super::range::key_value;
use super::{Answer, Change, Mvcc, Revision, Values, Writes, in_range};
use crate::errors::RequestError;
use crate::wire::command::Request;
use crate::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::request_op::Request as Op;
use crate::wire::response_op::Response;
use crate::wire::{
    Command, Compare, DeleteRangeRequest, DeleteRangeResponse, KeyValue, LeaseGrantRequest, PutRequest, PutResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
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
    let checked = super::check::request(request);
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
            check_put(state, request)?;
            put(state, request, writes, values).map(Answer::Put)
        }
        Request::DeleteRange(request) => delete_range(state, request, writes, values).map(Answer::DeleteRange),
        Request::Txn(request) => {
            let path = path(state, request, values)?;
            check_txn(state, request, &path)?;
            let mut at = 0;
            txn(state, request, &path, &mut at, writes, values).map(Answer::Txn)
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
        // Not about keys: `machine` gives it to `auth`.
        Request::Auth(_) => Err(RequestError::InvalidAuthMgmt),
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

fn record(state: &mut Mvcc, kv: KeyValue, writes: &mut Writes) {
    let at = next(state, writes);
    state.write_index(at, &kv);
    writes.changes.push(Change { at, kv });
}

/// The key as it is now, this command's own changes included.
fn current(state: &Mvcc, key: &Bytes, writes: &Writes, values: &impl Values) -> Result<Option<KeyValue>, RequestError> {
    let Some(version) = state.index.latest(key).filter(|v| !v.is_deletion()) else { return Ok(None) };
    let value = Overlay { writes, below: values }.value(version.at)?;
    Ok(Some(key_value(key, version, value)))
}

/// What must hold before a put changes anything (V2).
fn check_put(state: &Mvcc, request: &PutRequest) -> Result<(), RequestError> {
    let exists = state.index.latest(&request.key).is_some_and(|v| !v.is_deletion());
    if (request.ignore_value || request.ignore_lease) && !exists {
        return Err(RequestError::KeyNotFound);
    }
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
    let old_version = state.index.latest(&request.key).filter(|v| !v.is_deletion()).copied();
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
    record(state, kv, writes);
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
        state.index.range(&request.key, &request.range_end, newest).map(|(k, _)| k.clone()).collect();
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
    record(state, KeyValue { key: key.clone(), mod_revision: main, ..KeyValue::default() }, writes);
}

fn grant(state: &mut Mvcc, request: &LeaseGrantRequest, writes: &mut Writes) -> Result<Answer, RequestError> {
    if state.leases.contains_key(&request.id) {
        return Err(RequestError::LeaseExists);
    }
    let ttl = request.ttl.max(1);
    state.restore_lease(request.id, ttl);
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

/// Which branch each transaction takes, nested ones after their parents, in order.
fn path(state: &Mvcc, request: &TxnRequest, values: &impl Values) -> Result<Vec<bool>, RequestError> {
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

fn branch(request: &TxnRequest, taken: bool) -> &[RequestOp] {
    if taken { &request.success } else { &request.failure }
}

/// Whether a comparison holds for every key it is about. Source: etcd `applyCompare`.
fn holds(state: &Mvcc, compare: &Compare, values: &impl Values) -> Result<bool, RequestError> {
    let keys: Vec<(Bytes, super::Version)> =
        state.index.range(&compare.key, &compare.range_end, i64::MAX).map(|(k, v)| (k.clone(), *v)).collect();
    let by_value = compare.target == CompareTarget::Value as i32;
    if keys.is_empty() {
        // A missing key has no value to compare; its numbers are all zero.
        return Ok(!by_value && compare_one(compare, &KeyValue::default()));
    }
    for (key, version) in keys {
        let value = if by_value { values.value(version.at)? } else { Bytes::new() };
        if !compare_one(compare, &key_value(&key, &version, value)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compare_one(compare: &Compare, kv: &KeyValue) -> bool {
    let ordering = match (CompareTarget::try_from(compare.target), &compare.target_union) {
        (Ok(CompareTarget::Value), Some(TargetUnion::Value(value))) => kv.value.cmp(value),
        (Ok(CompareTarget::Value), _) => kv.value.as_ref().cmp(b""),
        (Ok(CompareTarget::Create), union) => {
            kv.create_revision.cmp(&if let Some(TargetUnion::CreateRevision(n)) = union { *n } else { 0 })
        }
        (Ok(CompareTarget::Mod), union) => {
            kv.mod_revision.cmp(&if let Some(TargetUnion::ModRevision(n)) = union { *n } else { 0 })
        }
        (Ok(CompareTarget::Lease), union) => {
            kv.lease.cmp(&if let Some(TargetUnion::Lease(n)) = union { *n } else { 0 })
        }
        (_, union) => kv.version.cmp(&if let Some(TargetUnion::Version(n)) = union { *n } else { 0 }),
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => false,
    }
}

/// V2: everything that could refuse an operation is looked at before the first runs.
fn check_txn(state: &Mvcc, request: &TxnRequest, path: &[bool]) -> Result<(), RequestError> {
    let mut at = 0;
    check_branch(state, request, path, &mut at, &mut Vec::new())
}

fn check_branch(
    state: &Mvcc,
    request: &TxnRequest,
    path: &[bool],
    at: &mut usize,
    put: &mut Vec<Bytes>,
) -> Result<(), RequestError> {
    let taken = path[*at];
    *at += 1;
    for op in branch(request, taken) {
        match &op.request {
            Some(Op::RequestPut(inner)) => {
                let made = put.iter().any(|key| in_range(key, &inner.key, b""));
                match check_put(state, inner) {
                    // An earlier operation of this transaction may have made the key.
                    Err(RequestError::KeyNotFound) if made => {}
                    result => result?,
                }
                put.push(inner.key.clone());
            }
            Some(Op::RequestRange(inner)) => {
                state.read_revision(inner.revision)?;
            }
            Some(Op::RequestTxn(inner)) => check_branch(state, inner, path, at, put)?,
            _ => {}
        }
    }
    Ok(())
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
    Ok(TxnResponse { header: inner_header(state, writes), succeeded, responses })
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
