//! Messages as the store reads them, answers in pieces, and members that come and go.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use prost::Message as _;
use rustls::pki_types::PrivateKeyDer;
use store_core::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use store_core::wire::request_op::Request as StepOf;
use store_core::wire::{self, KeyValue, PutResponse, RangeResponse, ResponseHeader, TxnRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::messages::{Compare, Decided, Put, Range, Step, Txn, Written};
use super::page::Page;
use super::{Answer as _, Channel, Error, Frame, HEAD, Rpc, Trust};

#[test]
fn the_store_reads_what_is_meant() {
    let range =
        Range { key: b"a".into(), end: b"b".into(), limit: 5, revision: 7, serializable: true, keys_only: true };
    let read = wire::RangeRequest::decode(range.encode_to_vec().as_slice()).expect("a request");
    let expected = wire::RangeRequest {
        key: "a".into(),
        range_end: "b".into(),
        limit: 5,
        revision: 7,
        serializable: true,
        keys_only: true,
        ..wire::RangeRequest::default()
    };
    assert_eq!(read, expected);
    let txn = Txn {
        compare: vec![Compare::revision_is(b"k".into(), 0)],
        success: vec![Step::put(Put { key: b"k".into(), value: b"v".into() })],
        failure: vec![Step::range(Range { key: b"k".into(), ..Range::default() })],
    };
    let txn = TxnRequest::decode(txn.encode_to_vec().as_slice()).expect("a request");
    let compare = &txn.compare[0];
    assert_eq!((compare.result(), compare.target()), (CompareResult::Equal, CompareTarget::Mod));
    assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(0)));
    let is_put = matches!(&txn.success[0].request, Some(StepOf::RequestPut(put)) if put.value == "v");
    let is_range = matches!(&txn.failure[0].request, Some(StepOf::RequestRange(range)) if range.key == "k");
    assert!(is_put && is_range, "{txn:?}");
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, cluster_id: 1 << 60, member_id: 3, raft_term: 4 })
}

#[test]
fn a_transaction_that_failed_tells_the_revision_that_is_there() {
    let kv = KeyValue { key: "k".into(), value: "v".into(), mod_revision: 41, ..KeyValue::default() };
    let found = RangeResponse { header: None, kvs: vec![kv], more: false, count: 1 };
    let response = Some(wire::response_op::Response::ResponseRange(found));
    let responses = vec![wire::ResponseOp { response }];
    let answer = wire::TxnResponse { header: header(50), succeeded: false, responses };
    let decided = Decided::decode(answer.encode_to_vec().as_slice()).expect("an answer");
    assert_eq!((decided.revision(), decided.succeeded, decided.found()), (50, false, Some(41)));
}

fn list(keys: i64) -> RangeResponse {
    let kv = |n: i64| KeyValue {
        key: format!("key{n}").into(),
        value: vec![7; n as usize * 50].into(),
        mod_revision: n << 20,
        ..KeyValue::default()
    };
    RangeResponse { header: header(99), kvs: (0..keys).map(kv).collect(), more: true, count: keys + 5 }
}

#[test]
fn an_answer_is_the_same_in_whatever_pieces_it_comes() {
    let bytes = list(8).encode_to_vec();
    for size in 1..=bytes.len() {
        let mut seen = Vec::new();
        let mut page = Page::new(|found| seen.push((found.key.to_vec(), found.mod_revision, found.value)));
        bytes.chunks(size).for_each(|piece| page.piece(piece).expect("an answer"));
        page.end().expect("all of it");
        assert_eq!((page.revision, page.more, page.last.as_slice()), (99, true, &b"key7"[..]));
        let expected: Vec<_> = (0..8).map(|n| (format!("key{n}").into_bytes(), n << 20, n as usize * 50)).collect();
        assert_eq!(seen, expected, "in pieces of {size}");
    }
}

#[test]
fn an_answer_that_is_cut_off_or_makes_no_sense_is_wrong() {
    let bytes = list(3).encode_to_vec();
    let mut page = Page::new(|_| {});
    page.piece(&bytes[..bytes.len() - 1]).expect("the beginning of an answer");
    assert!(page.end().is_err());
    for bytes in [&[0x17][..], &[0xff; 12], &[0x12, 3, 0x0a, 9, 1]] {
        assert!(Page::new(|_| {}).piece(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_frame_holds_one_message() {
    let framed = |length: u32| [&[0][..], &length.to_be_bytes(), b"abc"].concat();
    for size in 1..=HEAD + 3 {
        let (mut frame, mut whole) = (Frame::default(), Vec::new());
        framed(3).chunks(size).for_each(|piece| frame.take(piece, &mut whole).expect("a message"));
        assert_eq!((whole.as_slice(), frame.end()), (&b"abc"[..], Ok(())));
    }
    let mut frame = Frame::default();
    assert_eq!(frame.take(&framed(2), &mut Vec::new()), Err(Error::Wrong("a second answer")));
    let mut frame = Frame::default();
    frame.take(&framed(4), &mut Vec::new()).expect("a beginning");
    assert!(frame.end().is_err());
}

/// Answers puts: with a revision, or a refusal if the value says so. Ends with the last answer that it is to give.
async fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, revision: i64, answers: usize) {
    let mut connection = h2::server::handshake(io).await.expect("a connection");
    for _ in 0..answers {
        let Some(Ok((request, mut respond))) = connection.accept().await else { return };
        assert_eq!(request.uri().path(), "/etcdserverpb.KV/Put");
        tokio::spawn(async move {
            let (mut body, mut bytes) = (request.into_body(), BytesMut::new());
            while let Some(Ok(piece)) = body.data().await {
                bytes.extend_from_slice(&piece);
                body.flow_control().release_capacity(piece.len()).expect("what was read");
            }
            let put = wire::PutRequest::decode(&bytes[HEAD..]).expect("a put");
            let mut trailers = HeaderMap::new();
            if put.value == "refuse" {
                trailers.insert("grpc-status", HeaderValue::from_static("8"));
                trailers.insert("grpc-message", HeaderValue::from_static("too%20many"));
                let mut answer = Response::new(());
                *answer.headers_mut() = trailers;
                respond.send_response(answer, true).expect("sent");
                return;
            }
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let message = PutResponse { header: header(revision), prev_kv: None }.encode_to_vec();
            let mut framed = BytesMut::from(&[0][..]);
            framed.put_u32(message.len() as u32);
            framed.put_slice(&message);
            let mut answer = respond.send_response(Response::new(()), false).expect("sent");
            answer.send_data(framed.freeze(), false).expect("sent");
            answer.send_trailers(trailers).expect("sent");
        });
    }
    // What was answered is sent before the connection ends.
    let _ = tokio::time::timeout(Duration::from_millis(200), connection.accept()).await;
}

async fn put(caller: &mut super::Caller, value: &[u8]) -> Result<i64, Error> {
    let put = Put { key: b"k".into(), value: value.into() };
    let asked = tokio::time::timeout(Duration::from_secs(5), caller.ask::<Written>(Rpc::Put, &put));
    asked.await.expect("an answer in time").map(|written| written.revision())
}

/// A listener that serves so many connections, so many answers each.
async fn member(revision: i64, connections: usize, answers: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.expect("a connection");
            serve(stream, revision, answers).await;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn members_are_asked_by_turns_and_one_that_is_gone_is_left_out() {
    let endpoints = [member(1, 1, 2).await, member(2, 1, usize::MAX).await];
    let channel = Channel::new(&endpoints, &Trust::default()).expect("endpoints");
    let mut caller = channel.caller(0);
    let mut revisions = Vec::new();
    for _ in 0..4 {
        revisions.push(put(&mut caller, b"v").await.expect("an answer"));
    }
    assert_eq!(revisions, [1, 2, 1, 2]);
    // The first takes no connections any more. What it was asked while it ended may be lost; nothing after that.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let _ = put(&mut caller, b"v").await;
    for _ in 0..4 {
        assert_eq!(put(&mut caller, b"v").await, Ok(2));
    }
}

#[tokio::test]
async fn a_connection_that_ended_is_opened_again_and_refusals_are_told() {
    let channel = Channel::new(&[member(5, 2, 2).await], &Trust::default()).expect("an endpoint");
    let mut caller = channel.caller(0);
    assert_eq!(put(&mut caller, b"refuse").await, Err(Error::Refused("ResourceExhausted", "too many".to_owned())));
    // More than one window and one frame.
    assert_eq!(put(&mut caller, &vec![7; 300_000]).await, Ok(5));
    tokio::time::sleep(Duration::from_millis(400)).await;
    let _ = put(&mut caller, b"v").await;
    assert_eq!(put(&mut caller, b"v").await, Ok(5));
    drop(channel);
}

#[tokio::test]
async fn nobody_there_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let channel = Channel::new(&[endpoint], &Trust::default()).expect("an endpoint");
    let why = put(&mut channel.caller(0), b"v").await.expect_err("nobody");
    assert!(why.to_string().starts_with("Unavailable: connecting: "), "{why}");
}

#[tokio::test]
async fn members_are_asked_over_tls() {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let dir = std::env::temp_dir().join(format!("keelson-benches-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let authority = dir.join("ca.pem");
    std::fs::write(&authority, signed.cert.pem()).expect("written");
    let trust = Trust::read(Some(&authority), None).expect("an authority");
    std::fs::remove_dir_all(&dir).expect("removed");

    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.expect("versions").with_no_client_auth().with_single_cert(vec![signed.cert.der().clone()], key);
    let mut tls = tls.expect("a certificate");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("https://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        serve(acceptor.accept(stream).await.expect("tls"), 9, usize::MAX).await;
    });
    assert!(Channel::new(std::slice::from_ref(&endpoint), &Trust::default()).is_err(), "no authority, no trust");
    let channel = Channel::new(&[endpoint], &trust).expect("an endpoint");
    assert_eq!(put(&mut channel.caller(0), &vec![7; 100_000]).await, Ok(9));
}

#[test]
fn endpoints_that_are_none_are_refused() {
    for endpoint in ["ftp://127.0.0.1:1", "http://", "https://127.0.0.1:1", "http://a b"] {
        assert!(Channel::new(&[endpoint.to_owned()], &Trust::default()).is_err(), "{endpoint}");
    }
}
