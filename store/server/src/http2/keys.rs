//! Calls of keys, which are most of all calls: what is done before and behind them is as for other calls, but from the
//! request's bytes to the answer's there is nothing in between.
//!
//! Source: gRPC over HTTP/2; for what is wrong with a request, tonic, which serves the others, and grpc-go's
//! `rpc_util.go` where clients know its words.

use std::future::poll_fn;

use axum::body::Body;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Request, Response, header};
use prost::Message;
use store_core::errors::RequestError;
use tonic::{Code, Status};

use super::body::{self, Gone};
use crate::admission::Held;
use crate::auth::{CommonName, Credentials, guard};
use crate::grpc::{self, Made, Service};
use crate::metrics::Watched;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");
/// Before a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;
/// An answer as small is sent without asking whether the client takes it.
const SMALL_BYTES: usize = 4 << 10;

/// What is asked of keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
}

/// What is asked, if it is asked as clients do: whatever is special goes the general way.
pub(super) fn method(request: &Request<RecvStream>) -> Option<Method> {
    let method = match request.uri().path().strip_prefix("/etcdserverpb.KV/")? {
        "Range" => Method::Range,
        "Put" => Method::Put,
        "DeleteRange" => Method::DeleteRange,
        "Txn" => Method::Txn,
        _ => return None,
    };
    let is_usual = request.method() == HttpMethod::POST
        && request.headers().get(header::CONTENT_TYPE) == Some(&GRPC)
        && !request.headers().contains_key("grpc-encoding");
    is_usual.then_some(method)
}

/// An answer.
enum Answer {
    /// As it is sent, and what it holds until then.
    Whole(Bytes, Option<Held>),
    /// It is made while it is sent.
    Pieces(Response<Body>),
}

/// Carries a call out and answers it, unless the client gives it up.
pub(super) async fn answer(
    service: Service,
    method: Method,
    name: CommonName,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let watched = Watched::begin(&service.engine.metrics, request.uri().path());
    let answered = tokio::select! {
        biased;
        answered = carry_out(&service, method, &name, request, &watched) => answered,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    // The client may have gone.
    let _ = send(&mut respond, answered, watched).await;
}

async fn carry_out(
    service: &Service,
    method: Method,
    name: &CommonName,
    request: Request<RecvStream>,
    watched: &Watched,
) -> Result<Answer, Status> {
    let (head, mut body) = request.into_parts();
    let credentials = Credentials::of(&head.headers, Some(name));
    let caller = guard::admit(service, head.uri.path(), credentials).await?;
    service.refuse_early(head.uri.path(), &head.headers)?;
    let message = message(&mut body, service.config.max_message_bytes()).await?;
    watched.received(HEAD_BYTES + message.len());
    match method {
        Method::Range => encoded(service.answer_range(caller, decoded(message)?).await?),
        Method::Put => encoded(service.answer_put(&caller, decoded(message)?).await?),
        Method::DeleteRange => encoded(service.answer_delete(&caller, decoded(message)?).await?),
        Method::Txn => encoded(service.answer_txn(caller, decoded(message)?).await?),
    }
}

/// A request's one message; in the memory that it was received in, if it came at once. What stands behind it is passed over.
async fn message(body: &mut RecvStream, bytes_max: usize) -> Result<Bytes, Status> {
    let mut came = next(body).await?.ok_or_else(|| ended(false))?;
    let mut whole = loop {
        let length = length(&came, bytes_max)?;
        if let Some(length) = length.filter(|length| came.len() - HEAD_BYTES >= *length) {
            came.truncate(HEAD_BYTES + length);
            break came;
        }
        // What is said to come isn't there yet: room is made for what is.
        let mut more = BytesMut::from(&came[..]);
        let wanted = length.map_or(HEAD_BYTES, |length| HEAD_BYTES + length);
        while more.len() < wanted {
            let is_begun = !more.is_empty();
            more.extend_from_slice(&next(body).await?.ok_or_else(|| ended(is_begun))?);
        }
        came = more.freeze();
    };
    while !body.is_end_stream() && next(body).await?.is_some() {}
    whole.advance(HEAD_BYTES);
    Ok(whole)
}

/// There is no whole message.
fn ended(is_begun: bool) -> Status {
    Status::internal(if is_begun { "Unexpected EOF decoding stream." } else { "Missing request message." })
}

/// The next bytes of a request.
async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, Status> {
    let data = poll_fn(|cx| body::poll_data(body, cx)).await.transpose();
    data.map_err(|_| Status::cancelled("the request was broken off"))
}

/// How long a message is, once its head has come.
fn length(came: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let Some(([flag, length @ ..], _)) = came.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    match flag {
        0 if length > bytes_max => Err(grpc::too_large(length, bytes_max)),
        0 => Ok(Some(length)),
        1 => Err(Status::internal(
            "protocol error: received message with compressed-flag but no grpc-encoding was specified",
        )),
        flag => {
            Err(Status::internal(format!("protocol error: received message with invalid compression flag: {flag}")))
        }
    }
}

fn decoded<T: Message + Default>(message: Bytes) -> Result<T, Status> {
    T::decode(message).map_err(|error| Status::internal(error.to_string()))
}

/// An answer as it is sent.
fn encoded<T: Message>(answer: tonic::Response<T>) -> Result<Answer, Status> {
    let (_, message, mut extensions) = answer.into_parts();
    let held = extensions.remove::<Held>();
    if let Some(body) = extensions.remove::<Made>().and_then(Made::into_body) {
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
        if let Some(held) = held {
            response.extensions_mut().insert(held);
        }
        return Ok(Answer::Pieces(response));
    }
    let length = message.encoded_len();
    let prefix = u32::try_from(length).map_err(|_| grpc::status(RequestError::TooLarge))?;
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode_raw(&mut bytes);
    Ok(Answer::Whole(bytes.freeze(), held))
}

async fn send(
    respond: &mut SendResponse<Bytes>,
    answered: Result<Answer, Status>,
    watched: Watched,
) -> Result<(), Gone> {
    match answered {
        Ok(Answer::Whole(bytes, _held)) => {
            let mut head = Response::new(());
            head.headers_mut().insert(header::CONTENT_TYPE, GRPC);
            let mut stream = respond.send_response(head, false)?;
            let length = bytes.len();
            if length > SMALL_BYTES {
                body::send_data(&mut stream, bytes).await?;
            } else {
                stream.send_data(bytes, false)?;
            }
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert("grpc-status", OK);
            stream.send_trailers(trailers)?;
            watched.ended(Code::Ok, length);
        }
        Ok(Answer::Pieces(response)) => body::send(respond, watched.answered(response)).await?,
        Err(status) => {
            let code = status.code();
            respond.send_response(status.into_http(), true)?;
            watched.ended(code, 0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
