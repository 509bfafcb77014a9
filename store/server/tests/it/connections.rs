//! What one connection and one request may ask for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use crate::cluster::{Cluster, eventually};
use crate::operating::page;

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];

/// Sends frames once the server has told its settings; returns all that come until the end.
fn frames_of(url: &str, sent: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("written");
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let size = stream.read(&mut piece).expect("settings");
    bytes.extend_from_slice(&piece[..size]);
    stream.write_all(sent).expect("written");
    // Cut off with something still unread is a reset.
    while let Ok(size @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..size]);
        if bytes.windows(14).any(|found| found == b"too_many_pings") {
            break;
        }
    }
    let (mut frames, mut rest) = (Vec::new(), bytes.as_slice());
    while let [a, b, c, kind, _, _, _, _, _, tail @ ..] = rest {
        let (payload, next) = tail.split_at(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c));
        frames.push((*kind, payload.to_vec()));
        rest = next;
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pings_too_often_is_told_and_told_how_many_streams_there_may_be() {
    let mut cluster = Cluster::new(1);
    cluster.members[0].config.max_concurrent_streams = 7;
    cluster.start(0);
    cluster.wait_for_leader().await;
    let url = cluster.url(0);
    let ping = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let frames = tokio::task::spawn_blocking(move || frames_of(&url, &ping.repeat(4))).await.expect("no panic");
    let (kind, settings) = frames.first().expect("settings");
    let streams =
        settings.chunks(6).find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS).map(|setting| &setting[2..]);
    assert_eq!((*kind, streams), (SETTINGS, Some(&[0, 0, 0, 7][..])));
    let (kind, last) = frames.last().expect("the last frame");
    assert_eq!((*kind, &last[..]), (GOAWAY, &b"\0\0\0\0\0\0\0\x0btoo_many_pings"[..]));
    // Others aren't harmed.
    cluster.client(0).await.put("k", "v", None).await.expect("a put");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_have_their_sizes() {
    let mut cluster = Cluster::new(1);
    cluster.members[0].config.max_txn_ops = 200;
    cluster.members[0].config.max_request_bytes = 4096;
    cluster.start(0);
    cluster.wait_for_leader().await;
    let mut client = cluster.client(0).await;
    let txn = |count: usize| {
        Txn::new()
            .when([Compare::version("none", CompareOp::Equal, 0)])
            .and_then((0..count).map(|n| TxnOp::put(format!("k{n}"), "", None)).collect::<Vec<_>>())
    };
    assert!(client.txn(txn(200)).await.expect("a txn").succeeded());
    let refused = client.txn(txn(201)).await.expect_err("too many").to_string();
    assert!(refused.contains("etcdserver: too many operations in txn request"), "{refused}");
    client.put("a", vec![b'v'; 4000], None).await.expect("small enough");
    let refused = client.put("a", vec![b'v'; 4096], None).await.expect_err("too large").to_string();
    assert!(refused.contains("etcdserver: request is too large"), "{refused}");
    let refused = client.put("a", vec![b'v'; 1 << 20], None).await.expect_err("too large for a message");
    let etcd_client::Error::GRpcStatus(refused) = refused else { panic!("{refused}") };
    let limit = 4096 + (512 << 10);
    let words = format!("grpc: received message larger than max (1048583 vs. {limit})");
    assert_eq!((refused.code(), refused.message()), (tonic::Code::ResourceExhausted, words.as_str()));
    // A restart applies what was committed, whatever the setting is by then.
    let before = client.get("k199", None).await.expect("a read").kvs()[0].mod_revision();
    cluster.stop(0).await;
    cluster.members[0].config.max_txn_ops = 10;
    cluster.start(0);
    cluster.wait_for_leader().await;
    let after = cluster.client(0).await.get("k199", None).await.expect("a read").kvs()[0].mod_revision();
    assert_eq!(before, after);
}

/// A call whose client goes is dropped with what it holds, at once and not when its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_is_not_waited_for() {
    let mut cluster = Cluster::started(3).await;
    let mut client = cluster.client(0).await;
    client.put("k", "v", None).await.expect("a put");
    cluster.stop(1).await;
    cluster.stop(2).await;
    let url = cluster.url(0);
    // By then the member itself gives up: too late to have been told by the client.
    let patience = Duration::from_secs(5) + 2 * cluster.members[0].config.election_timeout;
    for method in ["Put", "Range", "LeaseGrant"] {
        let begun = Instant::now();
        let asked = async {
            match method {
                "Put" => client.put("k", "w", None).await.err(),
                "Range" => client.get("k", None).await.err(),
                _ => client.lease_grant(60, None).await.err(),
            }
        };
        let answered = tokio::time::timeout(Duration::from_millis(300), asked).await;
        assert!(answered.is_err(), "nobody leads, and yet {method} was answered: {answered:?}");
        let given_up = format!("grpc_method=\"{method}\",grpc_code=\"Canceled\"}} 1");
        eventually(&format!("{method} is given up"), || async {
            let (_, body) = page(&url, "/metrics").await;
            if body.contains(&given_up) { Ok(()) } else { Err("it goes on") }
        })
        .await;
        assert!(begun.elapsed() < patience, "{method} is given up only when its time is over");
    }
}
