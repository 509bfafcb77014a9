//! Streams: reads in pieces, fragments of watches, and streams that end without a leader.

use std::time::{Duration, Instant};

use store_core::wire::request_op::Request as Op;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{
    CompactionRequest, DeleteRangeRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse,
    RequestOp, StatusRequest, StatusResponse, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use crate::cluster::{Cluster, eventually};
use crate::differential::Call;
use crate::differential::server::{PATIENCE, Reply, Server};

async fn put(server: &Server, key: String, value: Vec<u8>) {
    let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
    server.call(Call::Put(put)).await.expect("a put");
}

fn everything() -> RangeRequest {
    RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() }
}

async fn range(server: &Server, request: RangeRequest) -> RangeResponse {
    match server.call(Call::Range(request)).await {
        Ok(Reply::Range(answer)) => answer,
        other => panic!("a read: {other:?}"),
    }
}

/// The pieces put together; all but the last hold keys alone.
async fn streamed(server: &Server, request: RangeRequest) -> (RangeResponse, usize) {
    let pieces = server.range_stream(request).await.expect("pieces");
    let (last, before) = pieces.split_last().expect("a last piece");
    assert!(before.iter().all(|p| p.header.is_none() && p.count == 0 && !p.more && !p.kvs.is_empty()));
    let mut whole = last.clone();
    whole.header =
        whole.header.map(|h| store_core::wire::ResponseHeader { revision: h.revision, ..Default::default() });
    whole.kvs = pieces.iter().flat_map(|p| p.kvs.clone()).collect();
    (whole, pieces.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_of_a_read_are_the_whole_read() {
    let cluster = Cluster::started(1).await;
    let server = Server::connect(&cluster.url(0)).await;
    for n in 0..100 {
        put(&server, format!("k{n:03}"), vec![b'v'; 10]).await;
    }
    for n in 0..5 {
        put(&server, format!("klarge{n}"), vec![b'v'; 1 << 20]).await;
    }
    let old = server.revision().await - 50;
    let requests = [
        everything(),
        RangeRequest { revision: old, ..everything() },
        RangeRequest { limit: 10, ..everything() },
        RangeRequest { limit: 33, sort_order: 1, ..everything() },
        RangeRequest { count_only: true, ..everything() },
        RangeRequest { keys_only: true, ..everything() },
        RangeRequest { key: "none".into(), ..RangeRequest::default() },
        RangeRequest { key: "k007".into(), ..RangeRequest::default() },
        RangeRequest { key: "k".into(), range_end: "\0".into(), ..RangeRequest::default() },
    ];
    for request in requests {
        let (whole, _) = streamed(&server, request.clone()).await;
        assert_eq!(whole, range(&server, request.clone()).await, "{request:?}");
    }
    // 10, 20, 40, 30 small ones and what is large, each piece bounded by the bytes of a request.
    let (_, pieces) = streamed(&server, everything()).await;
    assert!((6..=8).contains(&pieces), "{pieces} pieces");
    let refused = |request: RangeRequest| async { server.range_stream(request).await.expect_err("refused") };
    let descending = refused(RangeRequest { sort_order: 2, ..everything() }).await;
    let filtered = refused(RangeRequest { max_mod_revision: 5, ..everything() }).await;
    let future = refused(RangeRequest { revision: 1_000_000, ..everything() }).await;
    let codes = [descending, filtered, future].map(|status| status.code());
    assert_eq!(codes, [Code::Unimplemented, Code::Unimplemented, Code::OutOfRange]);
}

/// The next response, or how the stream ended.
async fn next(answers: &mut tonic::Streaming<WatchResponse>) -> Result<WatchResponse, Status> {
    let answer = tokio::time::timeout(PATIENCE, answers.message()).await.expect("in time");
    answer.map(|response| response.expect("a response"))
}

fn watch(start_revision: i64) -> WatchRequest {
    let create = WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        start_revision,
        fragment: true,
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_revision_comes_in_marked_fragments() {
    let cluster = Cluster::started(1).await;
    let server = Server::connect(&cluster.url(0)).await;
    let put = |n: usize| {
        let put = PutRequest { key: format!("k{n}").into(), value: vec![b'v'; 450 << 10].into(), ..Default::default() };
        RequestOp { request: Some(Op::RequestPut(put)) }
    };
    for _ in 0..2 {
        let txn = TxnRequest { success: (0..3).map(put).collect(), ..TxnRequest::default() };
        server.call(Call::Txn(txn)).await.expect("a transaction");
    }
    let (requests, receiver) = mpsc::channel(1);
    // The revision before is small enough for one message: it has nothing before it.
    requests.send(watch(2)).await.expect("room");
    let mut answers = server.watch(receiver).await;
    assert!(next(&mut answers).await.expect("a response").created);
    let mut fragments = Vec::new();
    while fragments.iter().map(|(events, _)| events).sum::<usize>() < 6 {
        let response = next(&mut answers).await.expect("a response");
        fragments.push((response.events.len(), response.fragment));
    }
    assert_eq!(fragments, [(3, false), (2, true), (1, false)]);
}

/// More than what else there is to write when a cluster has started.
const READS: u64 = 20;

/// A transaction that only reads needs no log, and no leader if its reads don't.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_reads_is_a_read() {
    let mut cluster = Cluster::started(3).await;
    // Members that start tell their names, which are in the log.
    eventually("three names", || async {
        let answer = cluster.client(0).await.member_list().await.map_err(|error| error.to_string())?;
        let all = answer.members().iter().all(|member| !member.name().is_empty());
        if all { Ok(()) } else { Err("not all are known".to_owned()) }
    })
    .await;
    let server = Server::connect(&cluster.url(0)).await;
    put(&server, "k".to_owned(), b"v".to_vec()).await;
    let reading = |serializable: bool| {
        let read = RangeRequest { key: "k".into(), serializable, ..RangeRequest::default() };
        let op = RequestOp { request: Some(Op::RequestRange(read)) };
        Call::Txn(TxnRequest { success: vec![op], ..TxnRequest::default() })
    };
    let status = "/etcdserverpb.Maintenance/Status";
    let before: StatusResponse = server.unary(status, StatusRequest {}).await.expect("a status");
    for _ in 0..READS {
        server.call(reading(false)).await.expect("a read");
    }
    let after: StatusResponse = server.unary(status, StatusRequest {}).await.expect("a status");
    // A member that wasn't answered in time may still tell its name once more.
    let entries = after.raft_index - before.raft_index;
    assert!(entries < READS, "{READS} reads and {entries} entries: reads leave the log alone");
    cluster.stop(1).await;
    cluster.stop(2).await;
    let here = server.call(reading(true)).await.expect("what this member has");
    assert!(matches!(here, Reply::Txn(answer) if answer.succeeded && answer.responses.len() == 1));
    let nobody_can_say = (Code::Unavailable, "etcdserver: request timed out".to_owned());
    assert_eq!(server.call(reading(false)).await.expect_err("no majority"), nobody_can_say);
}

/// Far more than HTTP/2's windows take of an answer that nobody reads.
const LARGE_KEYS: usize = 4_000;
const LARGE_BYTES: usize = 4 << 10;

/// Every key anew, of one letter each time; returns the revision.
async fn write_large(server: &Server, letter: u8) -> i64 {
    for first in (0..LARGE_KEYS).step_by(100) {
        let put = |n: usize| {
            let (key, value) = (format!("k{n:05}").into(), vec![letter; LARGE_BYTES].into());
            RequestOp { request: Some(Op::RequestPut(PutRequest { key, value, ..PutRequest::default() })) }
        };
        let success = (first..first + 100).map(put).collect();
        server.call(Call::Txn(TxnRequest { success, ..TxnRequest::default() })).await.expect("a transaction");
    }
    server.revision().await
}

/// The rest of a read in pieces, all of them as one revision has them; and how it ended.
async fn rest(
    mut answers: tonic::Streaming<RangeStreamResponse>,
    letter: u8,
    revision: i64,
) -> (usize, Result<RangeResponse, Status>) {
    let (mut keys, mut last) = (0, RangeResponse::default());
    loop {
        match tokio::time::timeout(PATIENCE, answers.message()).await.expect("in time") {
            Ok(Some(answer)) => last = answer.range_response.expect("a piece"),
            Ok(None) => return (keys, Ok(last)),
            Err(error) => return (keys, Err(error)),
        }
        for kv in &last.kvs {
            assert_eq!(kv.key, format!("k{keys:05}"), "no key is left out");
            assert!(kv.mod_revision <= revision && kv.value.iter().all(|byte| *byte == letter), "{}", kv.mod_revision);
            keys += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_are_of_one_revision_whatever_happens_meanwhile() {
    let cluster = Cluster::started(1).await;
    let server = Server::connect(&cluster.url(0)).await;
    let first = write_large(&server, b'a').await;
    // Nobody takes these while everything is written anew, and half of it deleted.
    let slow = Server::connect(&cluster.url(0)).await.pieces_untaken(everything()).await.expect("pieces");
    let old = RangeRequest { revision: first, ..everything() };
    let slow_and_old = Server::connect(&cluster.url(0)).await.pieces_untaken(old).await.expect("pieces");
    let second = write_large(&server, b'b').await;
    let delete = DeleteRangeRequest { key: "k02".into(), range_end: "l".into(), ..DeleteRangeRequest::default() };
    server.call(Call::DeleteRange(delete)).await.expect("a delete");
    for answers in [slow, slow_and_old] {
        let (keys, last) = rest(answers, b'a', first).await;
        let last = last.expect("a last piece");
        assert_eq!((keys, last.count, last.more), (LARGE_KEYS, LARGE_KEYS as i64, false));
        assert_eq!(last.header.map(|header| header.revision), Some(first));
    }
    // One whose revision is compacted meanwhile says so; what it gave before is right.
    let second_read = RangeRequest { revision: second, ..everything() };
    let overtaken = Server::connect(&cluster.url(0)).await.pieces_untaken(second_read).await.expect("pieces");
    let revision = write_large(&server, b'c').await;
    server.call(Call::Compact(CompactionRequest { revision, physical: true })).await.expect("a compaction");
    let (keys, ended) = rest(overtaken, b'b', second).await;
    let ended = ended.expect_err("its revision is gone");
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!((ended.code(), ended.message()), (Code::OutOfRange, compacted));
    assert!(keys < LARGE_KEYS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_needs_a_leader_ends_without_one() {
    let mut cluster = Cluster::started(3).await;
    let server = Server::connect(&cluster.url(0)).await;
    let open = |needs_leader: bool| {
        let server = server.clone();
        async move {
            let (requests, receiver) = mpsc::channel(1);
            requests.send(watch(0)).await.expect("room");
            let mut request = Request::new(ReceiverStream::new(receiver));
            if needs_leader {
                request.metadata_mut().insert("hasleader", "true".parse().expect("a value"));
            }
            let mut answers = server.watch_with(request).await;
            assert!(next(&mut answers).await.expect("a response").created);
            (requests, answers)
        }
    };
    let ((_keep, mut with), (_keep_too, mut without)) = (open(true).await, open(false).await);
    cluster.stop(1).await;
    cluster.stop(2).await;
    let begun = Instant::now();
    let ended = next(&mut with).await.expect_err("ended");
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
    // Three election timeouts of a second; a moment for the leader to notice.
    assert!(begun.elapsed() >= Duration::from_millis(2_900), "{:?}", begun.elapsed());
    let still = tokio::time::timeout(Duration::from_millis(200), without.message()).await;
    assert!(still.is_err(), "a stream that didn't ask goes on: {still:?}");
    // One call is refused at once, and doesn't wait for a leader to be.
    let mut request = Request::new(PutRequest { key: "k".into(), ..PutRequest::default() });
    request.metadata_mut().insert("hasleader", "true".parse().expect("a value"));
    let refused = server.unary_with::<_, PutResponse>("/etcdserverpb.KV/Put", request).await.expect_err("refused");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_nothing_more_is_told_on() {
    let cluster = Cluster::started(1).await;
    let server = Server::connect(&cluster.url(0)).await;
    let (requests, receiver) = mpsc::channel(1);
    requests.send(watch(0)).await.expect("room");
    drop(requests);
    let mut answers = server.watch(receiver).await;
    assert!(next(&mut answers).await.expect("a response").created);
    for revision in 2..4 {
        put(&server, "k".to_owned(), b"v".to_vec()).await;
        let told = next(&mut answers).await.expect("a response");
        assert_eq!(told.events[0].kv.as_ref().map(|kv| kv.mod_revision), Some(revision));
    }
    let watchers = async || {
        let (_, metrics) = crate::operating::page(&cluster.url(0), "/metrics").await;
        let left = metrics.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "));
        left.expect("a metric").to_owned()
    };
    assert_eq!(watchers().await, "1");
    drop(answers);
    eventually("no watcher", || async {
        let left = watchers().await;
        if left == "0" { Ok(()) } else { Err(left) }
    })
    .await;
}
