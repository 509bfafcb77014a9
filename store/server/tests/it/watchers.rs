//! Many watchers, some of which don't read: what waits for them is bounded, and nobody misses anything.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use store_core::wire::request_op::Request as Op;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{
    CompactionRequest, PutRequest, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::cluster::{Cluster, eventually};
use crate::differential::Call;
use crate::differential::server::{PATIENCE, Server};

const READING: usize = 45;
/// Of these some go on reading before the history is compacted, some after.
const STUCK: usize = 5;
const RESUMED: usize = 3;
/// Far more than HTTP/2's windows and the ring of recent changes hold.
const EVENTS: usize = 40_000;
const OF_A_REVISION: usize = 50;
const VALUE_BYTES: usize = 250;
/// What may wait in a stream: two slices, one of which may end with a revision of this test beyond its bound.
const PENDING_BYTES_MAX: usize = (128 << 10) + 2 * OF_A_REVISION * (VALUE_BYTES + 100);

struct Watcher {
    answers: Streaming<WatchResponse>,
    _requests: mpsc::Sender<WatchRequest>,
    next: usize,
}

impl Watcher {
    /// A watcher on a connection of its own: what one doesn't read holds up all that shares its window.
    async fn of_everything(url: &str) -> Self {
        let (requests, receiver) = mpsc::channel(1);
        let create = WatchCreateRequest { key: "k".into(), range_end: "l".into(), ..WatchCreateRequest::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(create).await.expect("room");
        let mut answers = Server::connect(url).await.watch(receiver).await;
        assert!(answers.message().await.expect("a response").expect("one").created);
        Self { answers, _requests: requests, next: 0 }
    }

    /// Reads until all events were there, each once and in order; or returns where compaction ended it.
    async fn read(&mut self) -> Option<i64> {
        while self.next < EVENTS {
            let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("in time");
            let answer = answer.expect("a response").expect("one");
            if answer.canceled {
                assert!(answer.events.is_empty() && answer.compact_revision > 0, "{answer:?}");
                return Some(answer.compact_revision);
            }
            for event in &answer.events {
                let key = &event.kv.as_ref().expect("a key").key;
                assert_eq!(*key, format!("k{:06}", self.next));
                self.next += 1;
            }
            assert_eq!(self.next % OF_A_REVISION, 0, "a revision is never split");
        }
        None
    }
}

async fn write_everything(server: &Server) {
    for first in (0..EVENTS).step_by(OF_A_REVISION) {
        let put = |n: usize| {
            let (key, value) = (format!("k{n:06}").into(), vec![b'v'; VALUE_BYTES].into());
            RequestOp { request: Some(Op::RequestPut(PutRequest { key, value, ..PutRequest::default() })) }
        };
        let success = (first..first + OF_A_REVISION).map(put).collect();
        server.call(Call::Txn(TxnRequest { success, ..TxnRequest::default() })).await.expect("a transaction");
    }
}

/// A metric of a member, as it is now.
async fn metric(url: &str, name: &'static str) -> usize {
    let address = url.trim_start_matches("http://").to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(&address).expect("a connection");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    let answer = asked.await.expect("no panic");
    let value = answer.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{name} isn't in {answer}"))
}

const PENDING_BYTES: &str = "keelson_store_watch_pending_bytes";
const SLOW: &str = "etcd_debugging_mvcc_slow_watcher_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_do_not_read_cost_bounded_memory_and_miss_nothing() {
    let cluster = Cluster::started(1).await;
    let (url, server) = (cluster.url(0), Server::connect(&cluster.url(0)).await);
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        stuck.push(Watcher::of_everything(&url).await);
    }
    let mut reading = tokio::task::JoinSet::new();
    for _ in 0..READING {
        let mut watcher = Watcher::of_everything(&url).await;
        reading.spawn(async move { watcher.read().await });
    }
    assert_eq!(metric(&url, "etcd_debugging_mvcc_watcher_total").await, READING + STUCK);
    assert_eq!(metric(&url, "etcd_debugging_mvcc_watch_stream_total").await, READING + STUCK);
    let (sampled, written) = (url.clone(), tokio_util::sync::CancellationToken::new());
    let until = written.clone();
    let sampling = tokio::spawn(async move {
        let mut most = 0;
        while !until.is_cancelled() {
            most = most.max(metric(&sampled, PENDING_BYTES).await);
        }
        most
    });
    write_everything(&server).await;
    while let Some(ended) = reading.join_next().await {
        assert_eq!(ended.expect("no panic"), None, "who reads isn't overtaken");
    }
    written.cancel();
    let most = sampling.await.expect("no panic");
    assert!(most <= (READING + STUCK) * PENDING_BYTES_MAX, "{most} bytes waited for clients");
    // All who read are gone; what still waits does so for those who don't.
    let settled = || async {
        let (slow, streams) = (metric(&url, SLOW).await, metric(&url, "etcd_debugging_mvcc_watch_stream_total").await);
        if (slow, streams) == (STUCK, STUCK) { Ok(()) } else { Err(format!("{slow} slow of {streams}")) }
    };
    eventually("only those who don't read are left", settled).await;
    let waiting = metric(&url, PENDING_BYTES).await;
    assert!((1..=STUCK * PENDING_BYTES_MAX).contains(&waiting), "{waiting} bytes wait for those who don't read");
    assert_eq!(metric(&url, "etcd_debugging_mvcc_events_total").await, EVENTS);
    for watcher in &mut stuck[..RESUMED] {
        assert_eq!((watcher.read().await, watcher.next), (None, EVENTS));
    }
    let revision = server.revision().await;
    let compact = CompactionRequest { revision, physical: true };
    server.call(Call::Compact(compact)).await.expect("a compaction");
    for watcher in &mut stuck[RESUMED..] {
        let ended = watcher.read().await;
        assert_eq!(ended, Some(revision), "after {} events", watcher.next);
        assert!(watcher.next < EVENTS);
    }
    eventually("nobody waits any more", || async {
        match metric(&url, PENDING_BYTES).await {
            0 => Ok(()),
            bytes => Err(format!("{bytes} bytes wait")),
        }
    })
    .await;
}

/// As many as a stream may have.
const OF_A_STREAM: usize = 10_000;
const OF_A_MEMBER: usize = 100_000;

fn creates(key: String) -> WatchRequest {
    let create = WatchCreateRequest { key: key.into(), ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// A stream with as many watchers as there may be, of `k0`, `k1` and so on; and the next answer that it gives.
struct Full {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Full {
    async fn new(url: &str) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let answers = Server::connect(url).await.watch(receiver).await;
        let asking = requests.clone();
        let asked = tokio::spawn(async move {
            for n in 0..OF_A_STREAM {
                asking.send(creates(format!("k{n}"))).await.expect("the stream lives");
            }
        });
        let mut full = Self { requests, answers };
        for n in 0..OF_A_STREAM {
            let answer = full.next().await;
            assert!(answer.created && !answer.canceled && answer.watch_id == n as i64, "{answer:?}");
        }
        asked.await.expect("asked");
        full
    }

    async fn next(&mut self) -> WatchResponse {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("in time");
        answer.expect("a response").expect("one")
    }

    async fn one_more(&mut self) -> WatchResponse {
        self.requests.send(creates("more".to_owned())).await.expect("the stream lives");
        self.next().await
    }
}

/// One watcher more than there may be is refused in plain words, and harms none of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_so_many_watchers_and_no_more() {
    let cluster = Cluster::started(1).await;
    let (url, server) = (cluster.url(0), Server::connect(&cluster.url(0)).await);
    let mut full = Full::new(&url).await;
    let refused = full.one_more().await;
    assert!(refused.created && refused.canceled && refused.watch_id == -1, "{refused:?}");
    assert_eq!(refused.cancel_reason, "etcdserver: too many watchers on the stream");
    assert_eq!(metric(&url, "etcd_debugging_mvcc_watcher_total").await, OF_A_STREAM);
    // The others go on, here and elsewhere.
    let put = |key: &str| Call::Put(PutRequest { key: key.to_owned().into(), ..PutRequest::default() });
    for (key, id) in [("k0", 0), ("k9999", 9999)] {
        server.call(put(key)).await.expect("a put");
        let told = full.next().await;
        assert_eq!((told.watch_id, told.events.len()), (id, 1), "{told:?}");
    }
    Watcher::of_everything(&url).await;
    // One that goes makes room.
    let cancel = WatchRequest { request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 7 })) };
    full.requests.send(cancel).await.expect("the stream lives");
    let ended = full.next().await;
    assert!(ended.canceled && ended.watch_id == 7, "{ended:?}");
    let created = full.one_more().await;
    assert!(created.created && !created.canceled, "{created:?}");
}

/// So it is for a member: however many streams a client opens, it can't have more than its memory bears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_has_so_many_watchers_and_no_more() {
    let cluster = Cluster::started(1).await;
    let url = cluster.url(0);
    let mut streams = Vec::new();
    for _ in 0..OF_A_MEMBER / OF_A_STREAM {
        streams.push(Full::new(&url).await);
    }
    let (requests, receiver) = mpsc::channel(1);
    let mut one = Full { requests, answers: Server::connect(&url).await.watch(receiver).await };
    let refused = one.one_more().await;
    assert_eq!((refused.created, refused.canceled, refused.watch_id), (true, true, -1));
    assert_eq!(refused.cancel_reason, "etcdserver: too many watchers on the member");
    // A client that goes makes room.
    streams.pop();
    while !one.one_more().await.cancel_reason.is_empty() {}
}

/// Keys that are written in turn, and each watcher's first revision in their history.
const IN_TURN: i64 = 5;
const HISTORY: i64 = 3_000;
const STARTS: [i64; 4] = [2, 700, 1_501, 2_999];
/// Together more than the ring of recent changes holds.
const IN_TURN_BYTES: usize = 4 << 10;
/// Answers about progress at so many revisions, while somebody writes.
const TOLD_MIN: usize = 100;

/// Alone, somebody writes the keys in turn: this one at a revision.
fn in_turn(revision: i64) -> String {
    format!("turn{}", revision % IN_TURN)
}

async fn put_in_turn(server: &Server, revision: i64) {
    let value = vec![b'v'; IN_TURN_BYTES].into();
    let put = PutRequest { key: in_turn(revision).into(), value, ..PutRequest::default() };
    server.call(Call::Put(put)).await.expect("a put");
}

/// The first revision from one on at which a key is written; every key has a watcher per start.
fn next_of(key: i64, from: i64) -> i64 {
    from + (key - from).rem_euclid(IN_TURN)
}

/// Progress of a whole stream is told behind all events of all its watchers up to it: a kube-apiserver asks for it every
/// 100 ms while reads wait, and answers them from its cache as of then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_of_a_stream_is_told_behind_everything_before_it() {
    let cluster = Cluster::started(1).await;
    let server = Server::connect(&cluster.url(0)).await;
    for revision in 2..HISTORY {
        put_in_turn(&server, revision).await;
    }
    let written = tokio_util::sync::CancellationToken::new();
    let (writer, until) = (server.clone(), written.clone());
    let writing = tokio::spawn(async move {
        for revision in HISTORY.. {
            if until.is_cancelled() {
                return;
            }
            put_in_turn(&writer, revision).await;
        }
    });
    let (requests, receiver) = mpsc::channel(64);
    let mut answers = server.watch(receiver).await;
    let mut awaited = Vec::new();
    for start in STARTS {
        for key in 0..IN_TURN {
            let create = WatchCreateRequest {
                key: in_turn(key).into(),
                start_revision: start,
                watch_id: awaited.len() as i64 + 1,
                ..WatchCreateRequest::default()
            };
            awaited.push((key, next_of(key, start)));
            let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            requests.send(create).await.expect("the stream lives");
        }
    }
    let mut told = std::collections::BTreeSet::new();
    while told.len() < TOLD_MIN {
        // As fast as anything comes; one that isn't answered is asked for again.
        let progress = WatchRequest { request_union: Some(RequestUnion::ProgressRequest(Default::default())) };
        requests.send(progress).await.expect("the stream lives");
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await.expect("in time");
        let answer = answer.expect("a response").expect("one");
        assert!(!answer.canceled, "{answer:?}");
        if answer.watch_id == -1 {
            let reached = answer.header.expect("a header").revision;
            for (id, (key, next)) in awaited.iter().enumerate() {
                assert!(*next > reached, "watcher {id} of key {key} misses {next}, and progress is {reached}");
            }
            told.insert(reached);
        }
        for event in &answer.events {
            let kv = event.kv.as_ref().expect("a key");
            let (key, next) = &mut awaited[answer.watch_id as usize - 1];
            assert_eq!((kv.mod_revision, kv.key.as_ref()), (*next, in_turn(*key).as_bytes()));
            *next += IN_TURN;
        }
    }
    written.cancel();
    writing.await.expect("no panic");
}

/// Versions of a key, each nearly a slice's worth many times over, so that a watcher who doesn't read stops among them.
const VERSIONS: i64 = 16;
const VERSION_BYTES: usize = 300 << 10;

/// Reads all versions of a key, each with the one before it; or returns where compaction ended the watcher.
async fn versions(answers: &mut Streaming<WatchResponse>) -> Option<i64> {
    let mut last = 1;
    while last < VERSIONS {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await.expect("in time");
        let answer = answer.expect("a response").expect("one");
        if answer.canceled {
            assert!(answer.events.is_empty() && answer.compact_revision > 0, "{answer:?}");
            return Some(answer.compact_revision);
        }
        for event in &answer.events {
            let version = |kv: &Option<store_core::wire::KeyValue>| kv.as_ref().map(|kv| (kv.version, kv.value.len()));
            let before = if last == 1 { 1 } else { VERSION_BYTES };
            assert_eq!(version(&event.kv), Some((last + 1, VERSION_BYTES)));
            assert_eq!(version(&event.prev_kv), Some((last, before)), "what was before version {}", last + 1);
            last += 1;
        }
    }
    None
}

/// A kube-apiserver's watch ends with an error when what was before a change is missing (etcd #10681).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_before_is_told_or_the_watcher_ends() {
    let cluster = Cluster::started(1).await;
    let (url, server) = (cluster.url(0), Server::connect(&cluster.url(0)).await);
    let (mut told, mut ended) = (0, 0);
    for physical in [false, true] {
        // Compaction comes to a halt before, at and behind the place where the watcher waits, wherever that is.
        for version in 2..=VERSIONS {
            let key = format!("{physical}{version:02}");
            let put = |bytes: usize| {
                let put = PutRequest { key: key.clone().into(), value: vec![b'v'; bytes].into(), ..Default::default() };
                server.call(Call::Put(put))
            };
            put(1).await.expect("a put");
            let created = server.revision().await;
            let (requests, receiver) = mpsc::channel(1);
            let create = WatchCreateRequest { key: key.clone().into(), prev_kv: true, ..Default::default() };
            let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            requests.send(create).await.expect("room");
            let mut answers = Server::connect(&url).await.watch(receiver).await;
            assert!(answers.message().await.expect("a response").expect("one").created);
            for _ in 1..VERSIONS {
                put(VERSION_BYTES).await.expect("a put");
            }
            let revision = created + version - 1;
            server.call(Call::Compact(CompactionRequest { revision, physical })).await.expect("a compaction");
            match versions(&mut answers).await {
                None => told += 1,
                Some(at) => {
                    assert_eq!(at, revision);
                    ended += 1;
                }
            }
        }
    }
    assert!(told > 0 && ended > 0, "{told} were told everything, {ended} were overtaken");
}
