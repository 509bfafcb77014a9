//! Clients over HTTP/2: puts, and the reads of keys that the load checks itself with.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Bound;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt as _};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use prost::Message;
use store_core::wire::{KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader};
use tokio::net::TcpStream;

use super::member::Member;

const WINDOW_BYTES: u32 = 1 << 20;
/// The load reads its keys once it has ended: by then each member has all, without asking the others.
const BEFORE_READS: Duration = Duration::from_millis(200);

/// Serves a connection until it ends.
pub(crate) async fn connection(member: Rc<RefCell<Member>>, stream: TcpStream) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut calls = FuturesUnordered::new();
    poll_fn(|cx| {
        loop {
            while let Poll::Ready(accepted) = connection.poll_accept(cx) {
                let Some(Ok((request, respond))) = accepted else { return Poll::Ready(()) };
                calls.push(call(Rc::clone(&member), request, respond));
            }
            let mut has_answered = false;
            while let Poll::Ready(Some(_)) = calls.poll_next_unpin(cx) {
                has_answered = true;
            }
            if !has_answered {
                return Poll::Pending;
            }
        }
    })
    .await;
}

async fn call(
    member: Rc<RefCell<Member>>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut came = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        came.extend_from_slice(&data);
    }
    came.advance(5.min(came.len()));
    let answer = match head.uri.path() {
        "/etcdserverpb.KV/Put" => {
            let put = PutRequest::decode(came.freeze()).unwrap_or_default();
            let done = member.borrow_mut().put(put.key, put.value);
            framed(&PutResponse { header: header_at(done.await.unwrap_or(0)), ..PutResponse::default() })
        }
        "/etcdserverpb.KV/Range" => {
            let range = RangeRequest::decode(came.freeze()).unwrap_or_default();
            tokio::time::sleep(BEFORE_READS).await;
            framed(&read(&member.borrow(), &range))
        }
        _ => Bytes::new(),
    };
    let mut head = Response::new(());
    head.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(answer, false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

fn header_at(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: u64::MAX, member_id: u64::MAX, revision, raft_term: 2 })
}

/// Keys without values.
fn read(member: &Member, range: &RangeRequest) -> RangeResponse {
    let bounds = (Bound::Included(range.key.clone()), Bound::Excluded(range.range_end.clone()));
    let mut found = member.keys.range(bounds);
    let limit = usize::try_from(range.limit).unwrap_or(0);
    let kvs = found.by_ref().take(limit).map(|(key, (_, revision))| KeyValue {
        key: key.clone(),
        mod_revision: *revision,
        ..KeyValue::default()
    });
    RangeResponse { kvs: kvs.collect(), header: header_at(0), more: found.next().is_some(), ..RangeResponse::default() }
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    message.encode_raw(&mut bytes);
    bytes.freeze()
}
