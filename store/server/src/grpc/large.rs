//! Answers whose bytes tonic doesn't make.
//!
//! Problem. tonic makes an answer's bytes at once, out of a message that is there at once: a large list is twice in
//!          memory, and a client gets the first of it after the last of it is read.
//! Idea.    Who makes the bytes himself gives a body, which takes the place of tonic's. Of a large answer he hands over
//!          pieces of the encoded message, whose length is known before. Nobody waits for the client: what it holds was
//!          admitted before.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message".

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http;
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use store_core::errors::RequestError;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::status;

/// Before a message: that it isn't compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Where an answer's pieces are handed over.
pub(super) struct Sender(mpsc::Sender<Result<Bytes, RequestError>>);

/// An answer's body; in the response's extensions until it takes the place of tonic's.
#[derive(Clone)]
pub(crate) struct Made(Arc<Mutex<Option<Body>>>);

/// The body.
struct Pieces {
    /// Handed over before the others.
    prefix: Bytes,
    pieces: mpsc::Receiver<Result<Bytes, RequestError>>,
    /// Bytes of the message that are still to come.
    left: usize,
    is_ended: bool,
}

/// A place for an answer of so many bytes, which comes in at most so many pieces.
///
/// # Errors
/// [`RequestError::TooLarge`] beyond what a message's length can say.
pub(super) fn large(bytes: usize, pieces_max: usize) -> Result<(Sender, Made), RequestError> {
    let length = u32::try_from(bytes).map_err(|_| RequestError::TooLarge)?.to_be_bytes();
    let prefix = [&[0], &length[..]].concat();
    assert_eq!(prefix.len(), PREFIX_BYTES);
    let (sender, pieces) = mpsc::channel(pieces_max.max(1));
    let pieces = Pieces { prefix: prefix.into(), pieces, left: bytes, is_ended: false };
    Ok((Sender(sender), Made::new(pieces)))
}

impl Made {
    pub(super) fn new(body: impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Body::new(body)))))
    }

    /// The body, for who asks first.
    pub(crate) fn into_body(self) -> Option<Body> {
        self.0.lock().take()
    }
}

/// The end of a body, with its code.
pub(super) fn end(status: &Status) -> Frame<Bytes> {
    let mut trailers = http::HeaderMap::new();
    // Its text is one of ours: it can be a header.
    let _ = status.add_header(&mut trailers);
    Frame::trailers(trailers)
}

impl Sender {
    /// Hands a piece over, or why there are no more; `false` if nobody takes it.
    pub(super) fn send(&self, piece: Result<Vec<u8>, RequestError>) -> bool {
        self.0.try_send(piece.map(Bytes::from)).is_ok()
    }
}

impl Pieces {
    /// The end, with its code.
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.is_ended = true;
        end(status)
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        if !self.prefix.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.prefix)))));
        }
        let frame = match ready!(self.pieces.poll_recv(cx)) {
            Some(Ok(piece)) => {
                self.left = self.left.saturating_sub(piece.len());
                Frame::data(piece)
            }
            Some(Err(error)) => self.end(&status(error)),
            None if self.left == 0 => self.end(&Status::ok("")),
            None => self.end(&Status::new(Code::Internal, "the read was abandoned")),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }
}

/// Puts a body that was made elsewhere where tonic's is.
pub(crate) fn as_made(mut response: Response) -> Response {
    let made = response.extensions_mut().remove::<Made>();
    match made.and_then(Made::into_body) {
        Some(body) => response.map(|_| body),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    async fn ended(pieces: Vec<Result<Vec<u8>, RequestError>>) -> (Vec<u8>, String) {
        let (sender, large) = large(6, 3).expect("small enough");
        for piece in pieces {
            assert!(sender.send(piece));
        }
        drop(sender);
        let mut response = http::Response::new(Body::empty());
        response.extensions_mut().insert(large);
        let mut body = Box::pin(as_made(response).into_body());
        let (mut bytes, mut code) = (Vec::new(), String::new());
        let frames = futures::stream::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx));
        for frame in frames.collect::<Vec<_>>().await {
            let frame = frame.expect("a frame");
            if let Some(trailers) = frame.trailers_ref() {
                code = trailers["grpc-status"].to_str().expect("a number").to_owned();
            } else {
                bytes.extend(frame.into_data().expect("data"));
            }
        }
        (bytes, code)
    }

    /// Whatever becomes of who reads, the client is told.
    #[tokio::test]
    async fn pieces_are_one_message_with_an_end() {
        let piece = |text: &str| Ok(text.as_bytes().to_vec());
        let whole = ended(vec![piece("abcd"), piece("ef")]).await;
        assert_eq!(whole, (b"\0\0\0\0\x06abcdef".to_vec(), "0".to_owned()));
        let broken = ended(vec![piece("abcd"), Err(RequestError::Disk)]).await;
        assert_eq!(broken, (b"\0\0\0\0\x06abcd".to_vec(), (Code::DataLoss as i32).to_string()));
        let abandoned = ended(vec![piece("abcd")]).await;
        assert_eq!(abandoned.1, (Code::Internal as i32).to_string());
    }
}
