//! What differed once, by name: each sequence is the smallest that showed it.

use store_core::wire::compare::TargetUnion;
use store_core::wire::request_op::Request as Inner;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCancelRequest, WatchCreateRequest, WatchRequest,
};

use super::operation::{Call, Operation, compacted, now};

/// What the keys begin with.
pub(crate) const PREFIX: &str = "n/";

fn put(key: &'static str, value: impl Into<bytes::Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

fn range(key: &'static str, range_end: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: range_end.into(), ..RangeRequest::default() }
}

fn delete(key: &'static str, range_end: &'static str) -> Inner {
    let request = DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: true };
    Inner::RequestDeleteRange(request)
}

fn then<const N: usize>(ops: [Inner; N]) -> TxnRequest {
    let success = ops.map(|request| RequestOp { request: Some(request) }).into();
    TxnRequest { success, ..TxnRequest::default() }
}

fn nested<const N: usize>(ops: [Inner; N]) -> Inner {
    Inner::RequestTxn(then(ops))
}

fn puts(key: &'static str, value: &'static str) -> Operation {
    Operation::Call(Call::Put(put(key, value)))
}

fn txn(request: TxnRequest) -> Operation {
    Operation::Call(Call::Txn(request))
}

fn ranges(request: RangeRequest) -> Operation {
    Operation::Call(Call::Range(request))
}

fn watch(create: WatchCreateRequest) -> Operation {
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    Operation::Watch { stream: 0, request }
}

fn watcher(start_revision: i64) -> WatchCreateRequest {
    let (key, range_end) = (PREFIX.into(), "n0".into());
    WatchCreateRequest { key, range_end, start_revision, prev_kv: true, ..WatchCreateRequest::default() }
}

fn compact(revision: i64) -> Operation {
    Operation::Call(Call::Compact(CompactionRequest { revision, physical: true }))
}

fn transactions() -> Vec<(&'static str, Vec<Operation>)> {
    let keeping = PutRequest { ignore_value: true, ..put("n/a", "") };
    let keeping_with_lease = PutRequest { lease: 99, ..keeping.clone() };
    let nothing = TxnRequest { success: vec![RequestOp { request: None }], ..TxnRequest::default() };
    let odd = |result, target| {
        let target_union = Some(TargetUnion::Version(5));
        let compare = Compare { key: "n/a".into(), result, target, target_union, ..Compare::default() };
        txn(TxnRequest { compare: vec![compare], ..TxnRequest::default() })
    };
    let crowd = |inside: usize| {
        let read = RequestOp { request: Some(Inner::RequestRange(range("n/a", ""))) };
        let inner = TxnRequest { success: vec![read.clone(); inside], ..TxnRequest::default() };
        let mut success = vec![read; 125];
        success.push(RequestOp { request: Some(Inner::RequestTxn(inner)) });
        txn(TxnRequest { success, ..TxnRequest::default() })
    };
    let put = |key, value| Inner::RequestPut(put(key, value));
    let past = Inner::RequestRange(RangeRequest { revision: -1, ..range("n/a", "") });
    vec![
        ("an operation of nothing", vec![txn(nothing)]),
        ("a limit for operations at all depths", vec![crowd(2), crowd(3)]),
        ("a put after a deletion", vec![txn(then([nested([delete("n/a", "n/c")]), nested([put("n/b", "")])]))]),
        ("a put before a deletion", vec![txn(then([nested([put("n/b", "")]), nested([delete("n/a", "n/c")])]))]),
        (
            "a put under a deletion of everything",
            vec![
                puts("n/b", "old"),
                watch(watcher(0)),
                txn(then([delete("n/a", "\0"), put("n/b", "new")])),
                ranges(range("n/b", "")),
            ],
        ),
        (
            "a value kept of a key made in the transaction",
            vec![
                txn(then([Inner::RequestPut(keeping.clone())])),
                Operation::Call(Call::Put(keeping_with_lease.clone())),
                txn(then([Inner::RequestPut(keeping_with_lease)])),
            ],
        ),
        ("a negative revision", vec![ranges(RangeRequest { revision: -1, ..range("n/a", "") }), txn(then([past]))]),
        ("the header of a transaction inside", vec![txn(then([nested([put("n/a", "1")])]))]),
        ("comparisons that do not exist", vec![odd(77, 0), odd(0, 99), odd(2, 99), odd(0, 2), odd(3, 3)]),
    ]
}

fn watches() -> Vec<(&'static str, Vec<Operation>)> {
    let large = || Operation::Call(Call::Put(put("n/a", vec![b'v'; 1 << 20])));
    let cancel = || {
        let request_union = Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 3 }));
        Operation::Watch { stream: 0, request: WatchRequest { request_union } }
    };
    let third = |start_revision| watch(WatchCreateRequest { watch_id: 3, ..watcher(start_revision) });
    vec![
        (
            "an empty range",
            vec![watch(WatchCreateRequest { key: "n/b".into(), range_end: "n/a".into(), ..watcher(0) })],
        ),
        (
            "a number taken until it is cancelled",
            vec![
                puts("n/a", "1"),
                puts("n/a", "2"),
                compact(now(0)),
                third(compacted(-1)),
                third(0),
                cancel(),
                third(0),
                puts("n/a", "3"),
                cancel(),
                cancel(),
            ],
        ),
        (
            "a beginning in the future",
            vec![watch(watcher(now(3))), puts("n/a", "1"), puts("n/a", "2"), puts("n/a", "3"), puts("n/a", "4")],
        ),
        (
            "a beginning in the past",
            vec![puts("n/a", "1"), puts("n/a", "2"), watch(watcher(now(-1))), puts("n/a", "3")],
        ),
        (
            "a large history in fragments",
            vec![
                large(),
                large(),
                large(),
                watch(WatchCreateRequest { fragment: true, ..watcher(now(-2)) }),
                puts("n/a", ""),
            ],
        ),
    ]
}

/// The sequences.
pub(crate) fn sequences() -> Vec<(&'static str, Vec<Operation>)> {
    let by_value = |sort_order| RangeRequest { limit: 1, sort_target: 4, sort_order, ..range("n/", "n0") };
    let by_value = [by_value(0), by_value(1), by_value(2)].map(ranges);
    let sorted = [puts("n/a", "3"), puts("n/b", "2"), puts("n/c", "1")].into_iter().chain(by_value).collect();
    let lease = Operation::BriefGrant { id: 7, ttl: 0 };
    let mut all = vec![("a target without an order", sorted), ("the shortest lease", vec![lease])];
    all.extend(transactions());
    all.extend(watches());
    all
}
