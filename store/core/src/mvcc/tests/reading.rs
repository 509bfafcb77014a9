//! A transaction that only reads is answered without the log as if it had been applied.

use super::*;
use crate::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::request_op::Request as Inner;
use crate::wire::{Compare, RequestOp, TxnRequest};

fn of_range(range: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Inner::RequestRange(range)) }
}

fn read() -> impl Strategy<Value = RangeRequest> {
    (0..6u8, 0..8u8, -1..12i64, 0..3i64, any::<[bool; 3]>()).prop_map(
        |(key, end, revision, limit, [now, keys_only, descending])| RangeRequest {
            key: name(key).into(),
            range_end: if end <= key { Bytes::new() } else { name(end).into() },
            revision: if now { 0 } else { revision },
            limit,
            keys_only,
            sort_order: if descending { 2 } else { 0 },
            ..RangeRequest::default()
        },
    )
}

fn condition() -> impl Strategy<Value = Compare> {
    (0..6u8, 0..4i64, any::<bool>()).prop_map(|(key, version, by_value)| Compare {
        result: CompareResult::Equal as i32,
        target: if by_value { CompareTarget::Value } else { CompareTarget::Version } as i32,
        key: name(key).into(),
        target_union: Some(match by_value {
            true => TargetUnion::Value(version.to_string().into()),
            false => TargetUnion::Version(version),
        }),
        ..Compare::default()
    })
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let branch = || prop::collection::vec(read().prop_map(of_range), 0..4);
    let conditions = prop::collection::vec(condition(), 0..3);
    (conditions, branch(), branch()).prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
}

fn read_txn(store: &Store, request: &TxnRequest) -> Result<Answer, RequestError> {
    let mut reading = Reading::new(&store.mvcc, request, &store.disk)?;
    for search in &mut reading.searches {
        // Key by key: others may have the state in between.
        while search.go_on(&store.mvcc, 1) {}
    }
    let mut answer = reading.finish(&store.disk, |_| Ok(()))?;
    answer.header = Some(crate::wire::ResponseHeader { revision: store.mvcc.revision(), ..Default::default() });
    Ok(Answer::Txn(answer))
}

/// What a read in slices may forget of its ranges.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Forgotten {
    Revision,
    Limit,
    Order,
}

/// What is asked of the store, if this is forgotten.
fn applied(mut request: TxnRequest, forgotten: Option<Forgotten>) -> Request {
    for operation in request.success.iter_mut().chain(&mut request.failure) {
        let Some(Inner::RequestRange(range)) = &mut operation.request else { unreachable!("only reads are made") };
        match forgotten {
            Some(Forgotten::Revision) => range.revision = 0,
            Some(Forgotten::Limit) => range.limit = 0,
            Some(Forgotten::Order) => range.sort_order = 0,
            None => {}
        }
    }
    Request::Txn(request)
}

/// What was done before, and what is read then.
fn case() -> impl Strategy<Value = (Vec<Op>, Vec<TxnRequest>)> {
    (prop::collection::vec(op(), 0..20), prop::collection::vec(txn(), 1..8))
}

fn after(ops: Vec<Op>) -> Store {
    let mut store = Store::new();
    for op in ops {
        // What is refused is no part of the history.
        let _ = match op {
            Op::Put(key, value) => store.run(put(&name(key), &(value % 4).to_string())),
            Op::Delete(key, end) => store.run(delete(&name(key), &name(end))),
            Op::Compact(at) => {
                let revision = i64::from(at) % store.mvcc.revision() + 1;
                store.run(Request::Compact(crate::wire::CompactionRequest { revision, physical: false }))
            }
        };
    }
    store
}

fn reads_as_applied(
    (ops, txns): (Vec<Op>, Vec<TxnRequest>),
    forgotten: Option<Forgotten>,
) -> Result<(), TestCaseError> {
    let mut store = after(ops);
    for request in txns {
        prop_assert!(Reading::suits(&request));
        let read = read_txn(&store, &request);
        let before = store.mvcc.revision();
        prop_assert_eq!(read, store.run(applied(request, forgotten)));
        prop_assert_eq!(store.mvcc.revision(), before);
    }
    Ok(())
}

proptest! {
    #[test]
    fn reading_is_applying(case in case()) {
        reads_as_applied(case, None)?;
    }
}

/// Whatever of a range gets lost on one of the two ways is found.
#[test]
fn a_wrong_read_is_noticed() {
    assert_noticed(&[Forgotten::Revision, Forgotten::Limit, Forgotten::Order], &case(), reads_as_applied);
}

#[test]
fn what_writes_or_nests_goes_through_the_log() {
    let now = of_range(RangeRequest { key: "k".into(), ..RangeRequest::default() });
    let from_here = of_range(RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() });
    let nested = RequestOp { request: Some(Inner::RequestTxn(TxnRequest::default())) };
    let writes = RequestOp { request: Some(Inner::RequestPut(PutRequest::default())) };
    let either = |success: &RequestOp, failure: &RequestOp| TxnRequest {
        success: vec![success.clone()],
        failure: vec![failure.clone()],
        ..TxnRequest::default()
    };
    assert!(Reading::suits(&either(&now, &from_here)));
    assert!(!Reading::suits(&either(&now, &nested)));
    assert!(!Reading::suits(&either(&writes, &now)));
    assert!(Reading::is_serializable(&either(&from_here, &from_here)));
    assert!(!Reading::is_serializable(&either(&from_here, &now)));
    assert!(!Reading::is_serializable(&TxnRequest::default()), "conditions alone are about the present");
}
