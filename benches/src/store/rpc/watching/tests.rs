//! Answers in pieces, and watches at a member that does what the watched key says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message as _;
use store_core::wire::watch_request::RequestUnion;
use store_core::wire::{Event, KeyValue, ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::{Messages, Said, Stream};
use crate::store::rpc::messages::Create;
use crate::store::rpc::{Channel, Error, HEAD, Trust};

/// Two watchers' answers, events of a key with and without a value, an answer of progress.
fn answers() -> Vec<Vec<u8>> {
    let header = Some(ResponseHeader { revision: 9, cluster_id: 1 << 60, ..ResponseHeader::default() });
    let progress = framed(&WatchResponse { header, watch_id: -1, ..WatchResponse::default() });
    let large = vec![b'x'; 300];
    vec![created(), events(&[b"one", b""]), canceled(false), Vec::from([0; HEAD]), progress, events(&[&large])]
}

#[test]
fn a_watch_is_the_same_in_whatever_pieces_it_comes() {
    let bytes = answers().concat();
    for size in 1..=bytes.len() {
        let (mut messages, mut values, mut facts) = (Messages::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            messages.take(piece, |value| values.push(value.to_vec()), |said| facts.push(said)).expect("answers");
        }
        assert_eq!(values, [&b"one"[..], b"", &[b'x'; 300]], "in pieces of {size}");
        let canceled = Said { created: false, canceled: Some("compacted".to_owned()) };
        assert_eq!(facts, [Said { created: true, canceled: None }, canceled], "in pieces of {size}");
        assert_eq!(messages.end(), Ok(()));
    }
}

#[test]
fn whole_messages_are_looked_through_where_they_lie() {
    let bytes = answers().concat();
    let mut messages = Messages::default();
    let inside = |value: &[u8]| assert!(bytes.as_ptr_range().contains(&value.as_ptr()) || value.is_empty());
    messages.take(&bytes, inside, |_| {}).expect("answers");
    assert_eq!(messages.begun.capacity(), 0, "nothing was kept");
}

#[test]
fn a_watch_that_makes_no_sense_is_wrong() {
    let take = |bytes: &[u8]| Messages::default().take(bytes, |_| {}, |_| {});
    // Compressed; too large; a field without its end; an event that is none; a key that is none.
    for bytes in [&[1, 0, 0, 0, 0][..], &[0, 0xff, 0, 0, 0], &[0, 0, 0, 0, 1, 0x5a], &[0, 0, 0, 0, 3, 0x5a, 1, 0xff]] {
        assert!(take(bytes).is_err(), "{bytes:?}");
    }
    assert!(take(&[0, 0, 0, 0, 5, 0x5a, 3, 0x12, 1, 0xff]).is_err());
    assert!(take(&[0, 0, 0, 0, 5, 0x5a]).is_ok(), "its end may still come");
}

fn created() -> Vec<u8> {
    framed(&WatchResponse { created: true, ..WatchResponse::default() })
}

fn canceled(created: bool) -> Vec<u8> {
    let cancel_reason = "compacted".to_owned();
    framed(&WatchResponse { created, canceled: true, cancel_reason, ..WatchResponse::default() })
}

fn events(values: &[&[u8]]) -> Vec<u8> {
    let kv = |value: &[u8]| KeyValue { value: Bytes::copy_from_slice(value), ..KeyValue::default() };
    let event = |value: &&[u8]| Event { kv: Some(kv(value)), ..Event::default() };
    framed(&WatchResponse { events: values.iter().map(event).collect(), ..WatchResponse::default() })
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &u32::try_from(bytes.len()).expect("small").to_be_bytes(), &bytes].concat()
}

/// The pieces that a watch is answered with; the code with which the stream ends then, empty for no word of it.
fn script(create: &WatchCreateRequest) -> (Vec<Vec<u8>>, Option<&'static str>) {
    let half = |message: Vec<u8>| message[..message.len() / 2].to_vec();
    match &create.key[..] {
        b"cancel" => (vec![canceled(true)], None),
        b"overtaken" => {
            (vec![created(), [canceled(false), events(&[b"12345678", b""]), canceled(false)].concat()], None)
        }
        b"end" => (vec![created()], Some("0")),
        b"fail" => (vec![created()], Some("8")),
        b"cut off" => (vec![created(), half(events(&[b"12345678"]))], Some("0")),
        b"lose" => (vec![created()], Some("")),
        b"nonsense" => (vec![created(), [events(&[b"12345678"]), vec![1; HEAD]].concat()], None),
        key => (vec![created(), events(&[key, &create.range_end])], None),
    }
}

/// The next watch that is asked for.
async fn asked(body: &mut RecvStream) -> Option<WatchCreateRequest> {
    let mut bytes = BytesMut::new();
    loop {
        if let Some((head, message)) = bytes.split_first_chunk::<HEAD>()
            && message.len() >= u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize
        {
            let Some(RequestUnion::CreateRequest(create)) = WatchRequest::decode(message).expect("one").request_union
            else {
                panic!("no watch is asked for");
            };
            return Some(create);
        }
        let piece = body.data().await?.ok()?;
        body.flow_control().release_capacity(piece.len()).expect("what was read");
        bytes.extend_from_slice(&piece);
    }
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("grpc-message", HeaderValue::from_static("too%20many"));
    trailers
}

async fn answer(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    let mut next = asked(&mut body).await;
    let code = next.as_ref().and_then(|create| create.key.strip_prefix(b"only "));
    if let Some(code) = code {
        let mut head = Response::new(());
        *head.headers_mut() = status(if code == b"0" { "0" } else { "8" });
        respond.send_response(head, true).expect("sent");
        return;
    }
    // Like etcd: no headers before there is an answer.
    let mut answers = respond.send_response(Response::new(()), false).expect("sent");
    while let Some(create) = next {
        let (pieces, end) = script(&create);
        for piece in pieces {
            answers.send_data(piece.into(), false).expect("sent");
        }
        match end {
            None => next = asked(&mut body).await,
            Some("") => return answers.send_data(Bytes::new(), true).expect("sent"),
            Some(code) => return answers.send_trailers(status(code)).expect("sent"),
        }
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let mut connection = h2::server::handshake(io).await.expect("a connection");
    while let Some(Ok((request, respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/etcdserverpb.Watch/Watch");
        tokio::spawn(answer(request.into_body(), respond));
    }
}

/// A member, and how many connections it has taken.
pub(in crate::store) async fn member() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream));
        }
    });
    (format!("http://{address}"), taken)
}

pub(in crate::store) fn channel(endpoints: &[String]) -> Channel {
    Channel::new(endpoints, &Trust::default()).expect("endpoints")
}

fn create(key: &str, end: &str) -> Create {
    Create { key: key.into(), end: end.into() }
}

async fn open(channel: &Channel, key: &str, end: &str) -> Result<Stream, Error> {
    let mut caller = channel.caller(0);
    let opened = tokio::time::timeout(Duration::from_secs(5), caller.watch(create(key, end)));
    opened.await.expect("an answer in time")
}

/// What a stream tells: values and facts in their order, up to so many, or how it ends before.
async fn told(stream: &mut Stream, count: usize) -> (Vec<String>, Result<bool, Error>) {
    let mut told = Vec::new();
    while told.len() < count {
        let (mut values, mut facts) = (Vec::new(), Vec::new());
        let event = |value: &[u8]| values.push(String::from_utf8_lossy(value).into_owned());
        let reading = stream.read(event, |said| facts.push(format!("{said:?}")));
        let read = tokio::time::timeout(Duration::from_secs(5), reading).await.expect("an answer in time");
        told.extend(facts);
        told.extend(values);
        if read != Ok(true) {
            return (told, read);
        }
    }
    (told, Ok(true))
}

fn said(canceled: Option<&str>, created: bool) -> String {
    format!("{:?}", Said { created, canceled: canceled.map(str::to_owned) })
}

#[tokio::test]
async fn streams_share_a_connection_and_each_watches_its_ranges() {
    let (endpoint, taken) = member().await;
    let channel = channel(&[endpoint]);
    let mut a = open(&channel, "a", "b").await.expect("a stream");
    let mut c = open(&channel, "c", "d").await.expect("a stream");
    c.ask(create("e", "f")).expect("asked");
    let is = said(None, true);
    assert_eq!(told(&mut a, 3).await, ([is.as_str(), "a", "b"].map(str::to_owned).to_vec(), Ok(true)));
    let both = [is.as_str(), "c", "d", is.as_str(), "e", "f"].map(str::to_owned).to_vec();
    assert_eq!(told(&mut c, 6).await, (both, Ok(true)));
    assert_eq!(taken.load(Ordering::Relaxed), 1);
    // One that ends leaves the other alone.
    drop(c);
    a.ask(create("g", "h")).expect("asked");
    assert_eq!(told(&mut a, 3).await.0[1..], ["g", "h"]);
}

#[tokio::test]
async fn a_watcher_that_is_cancelled_is_told_and_the_others_stay() {
    let (endpoint, _) = member().await;
    let mut stream = open(&channel(&[endpoint]), "cancel", "").await.expect("a stream");
    stream.ask(create("a", "b")).expect("asked");
    let expected = [said(Some("compacted"), true), said(None, true), "a".to_owned(), "b".to_owned()];
    assert_eq!(told(&mut stream, 4).await, (expected.to_vec(), Ok(true)));
}

#[tokio::test]
async fn how_a_stream_ends_is_told() {
    let (endpoint, _) = member().await;
    let channel = channel(&[endpoint]);
    for (key, end) in [
        ("end", Ok(false)),
        ("fail", Err(Error::Refused("ResourceExhausted", "too many".to_owned()))),
        ("cut off", Err(Error::Wrong("an answer is cut off"))),
        ("lose", Err(Error::Wrong("an answer without an end"))),
        ("nonsense", Err(Error::Wrong("an answer is compressed, or too large"))),
    ] {
        let mut stream = open(&channel, key, "").await.expect("a stream");
        assert_eq!(told(&mut stream, usize::MAX).await.1, end, "{key}");
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_at_once_is_told() {
    let (endpoint, _) = member().await;
    let channel = channel(&[endpoint]);
    let refused = open(&channel, "only 8", "").await.err();
    assert_eq!(refused, Some(Error::Refused("ResourceExhausted", "too many".to_owned())));
    assert_eq!(open(&channel, "only 0", "").await.err(), Some(Error::Wrong("a watch without an answer")));
}

#[tokio::test]
async fn a_member_that_is_gone_is_left_out() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = gone.local_addr().expect("an address").to_string();
    drop(gone);
    assert!(matches!(open(&channel(std::slice::from_ref(&endpoint)), "a", "b").await, Err(Error::Unavailable(_))));
    let mut stream = open(&channel(&[endpoint, member().await.0]), "a", "b").await.expect("a stream");
    assert_eq!(told(&mut stream, 3).await.0[1..], ["a", "b"]);
}
