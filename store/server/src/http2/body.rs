//! Bodies of requests and of answers.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use axum::body::Body;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, header};
use http_body::{Body as _, Frame, SizeHint};

/// The client has gone, or has given up this call.
#[derive(Debug)]
pub(super) struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// A request's body, taken as fast as it is read.
pub(super) struct Incoming(RecvStream);

impl From<RecvStream> for Incoming {
    fn from(stream: RecvStream) -> Self {
        Self(stream)
    }
}

/// The next bytes; the client may send as many again.
pub(super) fn poll_data(stream: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
    let data = ready!(stream.poll_data(cx)).map(|data| {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        Ok(data)
    });
    Poll::Ready(data)
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let frame = match ready!(poll_data(&mut self.0, cx)) {
            Some(data) => Some(data.map(Frame::data)),
            None => ready!(self.0.poll_trailers(cx)).transpose().map(|trailers| trailers.map(Frame::trailers)),
        };
        // Who takes back only what nobody needs any more did nothing wrong (RFC 9113 §8.1).
        let is_needless = |error: &h2::Error| error.is_reset() && error.reason() == Some(Reason::NO_ERROR);
        Poll::Ready(frame.filter(|frame| !frame.as_ref().is_err_and(is_needless)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.0.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

/// Sends an answer, as fast as its body is made and the client takes it.
pub(super) async fn send(respond: &mut SendResponse<Bytes>, response: Response<Body>) -> Result<(), Gone> {
    let (mut head, body) = response.into_parts();
    let is_all = body.is_end_stream();
    if let (false, Some(bytes)) = (is_all, body.size_hint().exact()) {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| bytes.into());
    }
    // Calls of gRPC have none.
    if head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| !kind.as_bytes().starts_with(b"application/grpc"))
        && let Ok(date) = httpdate::fmt_http_date(SystemTime::now()).parse()
    {
        head.headers.entry(header::DATE).or_insert(date);
    }
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_all)?;
    if is_all {
        return Ok(());
    }
    let mut body = pin!(body);
    loop {
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Pending => stream.poll_reset(cx).map(|_| Err(Gone)),
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        });
        match frame.await? {
            None => return Ok(stream.send_data(Bytes::new(), true)?),
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(Gone);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => send_data(&mut stream, data).await?,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Ok(stream.send_trailers(trailers)?);
                }
            },
        }
    }
}

/// Sends bytes of an answer that goes on behind them, as fast as the client takes them.
pub(super) async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), Gone> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = match stream.capacity() {
            0 => poll_fn(|cx| poll_granted(stream, cx)).await?,
            granted => granted,
        };
        stream.send_data(data.split_to(granted.min(data.len())), false)?;
    }
    Ok(())
}

fn poll_granted(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
    loop {
        match stream.poll_capacity(cx) {
            Poll::Ready(Some(Ok(0))) => {}
            Poll::Ready(granted) => return Poll::Ready(granted.ok_or(Gone)?.map_err(Gone::from)),
            Poll::Pending => return stream.poll_reset(cx).map(|_| Err(Gone)),
        }
    }
}
