//! How a member's service to clients ends when it is told to stop.
//!
//! Problem. Whose call is broken off doesn't know whether it was carried out.
//! Idea.    Nobody is let in any more, and who is there learns that his connection takes no more calls. Calls come to
//!          their end, and streams that have none are ended, so that each connection ends by itself with all sent.
//!
//! Invariants
//!   D1  A call that is let in is answered, unless that takes longer than a request may.
//! Source: etcd `embed.Etcd.Close`, which waits as long, for streams as well, and only for who comes without TLS.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::response::Response;
use http_body::Frame;
use store_core::errors::RequestError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::grpc::status;

/// Streams that go on until somebody ends them.
const ENDLESS: [&str; 4] = [
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/v3electionpb.Election/Observe",
    "/grpc.health.v1.Health/Watch",
];

/// For how long streams go on once the doors close.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// Where clients come in.
#[derive(Clone)]
pub(crate) struct Doors {
    /// Nobody is let in any more.
    pub(crate) closing: CancellationToken,
    /// Who is still there is broken off.
    pub(crate) stop: CancellationToken,
    pub(crate) connections: TaskTracker,
}

impl Doors {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { closing: CancellationToken::new(), stop, connections: TaskTracker::new() }
    }

    /// Closes, and waits until everybody has gone.
    pub(crate) async fn close(&self, patience: Duration) {
        self.closing.cancel();
        self.connections.close();
        if tokio::time::timeout(patience, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "clients don't come to an end; they are broken off");
        }
    }
}

/// What ends a call's answer if it is endless, once the doors close.
pub(crate) struct EndStream(Option<CancellationToken>);

/// By a call's path.
pub(crate) fn end_stream(path: &str, closing: &CancellationToken) -> EndStream {
    EndStream(ENDLESS.contains(&path).then(|| closing.clone()))
}

impl EndStream {
    /// The answer, with its end.
    pub(crate) fn of(self, response: Response) -> Response {
        let Some(closing) = self.0 else { return response };
        response.map(|body| Body::new(Ending { body, closing: Some(ending(closing)) }))
    }
}

/// When a stream ends. What happened before the doors closed is on its way to it by then, by a task that may have to wait
/// for a core.
fn ending(closing: CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        closing.cancelled_owned().await;
        tokio::time::sleep(ON_ITS_WAY).await;
    })
}

/// A stream's body.
struct Ending {
    body: Body,
    /// `None` once it has ended.
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    /// A refusal is all in its head: nothing comes behind it, not even trailers.
    fn is_end_stream(&self) -> bool {
        self.closing.is_none() || self.body.is_end_stream()
    }

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        let Some(closing) = &mut this.closing else { return Poll::Ready(None) };
        // What is there goes first.
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if closing.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.closing = None;
        // Its handler learns that nobody listens.
        this.body = Body::empty();
        let mut trailers = HeaderMap::new();
        // The text is etcd's own: it can be a header.
        let _ = status(RequestError::Stopped).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    #[test]
    fn a_refused_stream_ends_in_its_head() {
        let waiting = || Some(ending(CancellationToken::new()));
        assert!(Ending { body: Body::empty(), closing: waiting() }.is_end_stream());
        assert!(!Ending { body: Body::from("an event"), closing: waiting() }.is_end_stream());
    }
}
