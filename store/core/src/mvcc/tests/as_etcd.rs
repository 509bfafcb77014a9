//! Answers that random comparison with a real etcd showed to be etcd's, however odd.

use super::*;
use crate::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::request_op::Request as Op;
use crate::wire::response_op::Response;
use crate::wire::{Compare, RequestOp, TxnRequest, TxnResponse};

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put_op(key: &str, value: &str) -> RequestOp {
    let Request::Put(request) = put(key, value) else { unreachable!("a put") };
    op(Op::RequestPut(request))
}

fn delete_op(key: &str, end: &str) -> RequestOp {
    let Request::DeleteRange(request) = delete(key, end) else { unreachable!("a deletion") };
    op(Op::RequestDeleteRange(request))
}

fn range_op(revision: i64) -> RequestOp {
    op(Op::RequestRange(everything(revision)))
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn nested(success: Vec<RequestOp>) -> RequestOp {
    op(Op::RequestTxn(then(success)))
}

fn txn(store: &mut Store, request: TxnRequest) -> Result<TxnResponse, RequestError> {
    match store.run(Request::Txn(request))? {
        Answer::Txn(answer) => Ok(answer),
        other => panic!("the answer to a transaction: {other:?}"),
    }
}

fn refused(request: TxnRequest) -> RequestError {
    txn(&mut Store::new(), request).expect_err("refused")
}

#[test]
fn an_operation_of_nothing_is_a_key_that_is_not_found() {
    assert_eq!(refused(then(vec![RequestOp { request: None }])), RequestError::KeyNotFound);
}

#[test]
fn operations_inside_count_against_the_same_limit() {
    let many = |count: usize| (0..count).map(|_| range_op(0)).collect::<Vec<_>>();
    let with_inner = |inner: usize| {
        let mut ops = many(125);
        ops.push(nested(many(inner)));
        check::request(&Request::Txn(then(ops)), 128)
    };
    assert_eq!((with_inner(2), with_inner(3)), (Ok(()), Err(RequestError::TooManyOps)));
}

#[test]
fn a_put_meets_deletions_before_it_and_not_after() {
    assert_eq!(refused(then(vec![nested(vec![delete_op("a", "c")]), nested(vec![put_op("b", "")])])), {
        RequestError::DuplicateKey
    });
    let mut store = Store::new();
    txn(&mut store, then(vec![nested(vec![put_op("b", "")]), nested(vec![delete_op("a", "c")])])).expect("made");
    assert_eq!(store.range(&everything(0)).expect("a read").count, 0);
}

/// The key is ended and begins anew within one revision.
#[test]
fn a_deletion_of_everything_behind_a_key_meets_no_put() {
    let mut store = Store::new();
    store.run(put("b", "old")).expect("a put");
    txn(&mut store, then(vec![delete_op("a", "\0"), put_op("b", "new")])).expect("made");
    let kv = &store.range(&everything(0)).expect("a read").kvs[0];
    assert_eq!((&kv.value[..], kv.version, kv.create_revision), (&b"new"[..], 1, 3));
}

#[test]
fn value_or_lease_is_kept_only_of_a_key_that_was_there_before() {
    let keeping = Op::RequestPut(PutRequest { key: "a".into(), ignore_value: true, ..PutRequest::default() });
    assert_eq!(refused(then(vec![op(keeping)])), RequestError::KeyNotFound);
    // Alone, the lease is looked at first; in a transaction, the key.
    let both = PutRequest { key: "a".into(), ignore_value: true, lease: 9, ..PutRequest::default() };
    assert_eq!(Store::new().run(Request::Put(both.clone())), Err(RequestError::LeaseNotFound));
    assert_eq!(refused(then(vec![op(Op::RequestPut(both))])), RequestError::KeyNotFound);
}

/// etcd panics.
#[test]
fn value_or_lease_of_a_key_that_was_deleted_before_is_not_kept() {
    let mut store = Store::new();
    store.run(put("b", "old")).expect("a put");
    let keeping = Op::RequestPut(PutRequest { key: "b".into(), ignore_value: true, ..PutRequest::default() });
    let request = then(vec![nested(vec![delete_op("a", "\0"), op(keeping)])]);
    assert_eq!(txn(&mut store, request), Err(RequestError::KeyNotFound));
    assert_eq!(store.range(&everything(0)).expect("a read").count, 1);
}

/// A watcher may begin at the compacted revision: what happened there is kept until the next compaction, deletions
/// too, and found again after a restart. etcd lost them before 3.5.13 (etcd 17780).
#[test]
fn a_deletion_at_the_compacted_revision_is_kept() {
    let compact = |revision| Request::Compact(crate::wire::CompactionRequest { revision, physical: false });
    let mut store = Store::new();
    store.run(put("a", "")).expect("a put");
    store.run(delete("a", "")).expect("a deletion");
    store.run(compact(3)).expect("compacted");
    assert_eq!(store.mvcc.collect(), (vec![Revision { main: 2, sub: 0 }], false));
    let mut restarted = Mvcc::new();
    restarted.restore_compacted(3);
    let tombstone = crate::wire::KeyValue { key: "a".into(), mod_revision: 3, ..Default::default() };
    restarted.restore_change(Revision { main: 3, sub: 0 }, &tombstone, 0);
    assert_eq!((restarted.collect(), restarted.key_count()), ((vec![], false), 0));
    store.mvcc = restarted;
    store.run(put("b", "")).expect("a put");
    store.run(compact(4)).expect("compacted");
    assert_eq!(store.mvcc.collect(), (vec![Revision { main: 3, sub: 0 }], false));
}

#[test]
fn a_negative_revision_is_compacted_inside_a_transaction_only() {
    let mut store = Store::new();
    store.run(put("a", "")).expect("a put");
    store.run(Request::Compact(crate::wire::CompactionRequest { revision: 2, physical: false })).expect("compacted");
    assert_eq!(store.range(&everything(-1)).expect("a read").count, 1);
    assert_eq!(txn(&mut store, then(vec![range_op(-1)])), Err(RequestError::Compacted));
}

#[test]
fn a_transaction_inside_has_a_header_without_revision() {
    let answer = txn(&mut Store::new(), then(vec![nested(vec![put_op("a", "")])])).expect("made");
    let Some(Response::ResponseTxn(inner)) = &answer.responses[0].response else { panic!("{answer:?}") };
    assert_eq!(inner.header, Some(crate::wire::ResponseHeader::default()));
    assert_eq!(answer.header.expect("a header").revision, 2);
}

#[test]
fn comparisons_that_do_not_exist_hold() {
    let compare = |result: i32, target: i32, union| Compare {
        key: "a".into(),
        result,
        target,
        target_union: union,
        ..Compare::default()
    };
    let holds = |compare| {
        let request = TxnRequest { compare: vec![compare], ..TxnRequest::default() };
        txn(&mut Store::new(), request).expect("made").succeeded
    };
    assert!(holds(compare(77, CompareTarget::Version as i32, Some(TargetUnion::Version(5)))));
    assert!(holds(compare(CompareResult::Equal as i32, 99, Some(TargetUnion::Version(5)))));
    assert!(!holds(compare(CompareResult::Less as i32, 99, Some(TargetUnion::Version(5)))));
    assert!(holds(compare(CompareResult::Equal as i32, CompareTarget::Mod as i32, Some(TargetUnion::Version(5)))));
}

#[test]
fn a_target_without_an_order_sorts_one_key_more_than_the_limit() {
    let mut store = Store::new();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1")] {
        store.run(put(key, value)).expect("a put");
    }
    let by_value = RangeRequest { limit: 1, sort_target: 4, ..everything(0) };
    let page = store.range(&by_value).expect("a read");
    assert_eq!((&page.kvs[0].key[..], page.more, page.count), (&b"b"[..], true, 3));
    let ascending = store.range(&RangeRequest { sort_order: 1, ..by_value }).expect("a read");
    assert_eq!(&ascending.kvs[0].key[..], b"c");
}

#[test]
fn sorts_that_do_not_exist_are_refused() {
    let bad = RangeRequest { sort_target: 9, ..everything(0) };
    assert_eq!(Store::new().range(&bad), Err(RequestError::InvalidSort));
    assert_eq!(refused(then(vec![op(Op::RequestRange(bad))])), RequestError::InvalidSort);
}
