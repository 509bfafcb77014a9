//! Clients' connections over HTTP/2.
//!
//! Problem. A general server gives each request a task, and a task that waits for the log is woken by itself: of what a
//!          small call costs a member, half was spent between the socket and the call.
//! Idea.    A connection is one task that carries out its calls of keys itself. What comes together is begun together, what
//!          is decided together wakes the connection once, and its answers leave in one write. Everything else has a
//!          task of its own, and goes the general way.
//!
//! Invariants
//!   H1  What a client has given up isn't waited for: its call is dropped when its stream or its connection ends.
//!   H2  Of an answer no more is handed to HTTP/2 than the client takes, but for one small message a call.
//! Source: RFC 9113; gRPC over HTTP/2; gRPC proposal A9 (server's keepalive).

mod body;
mod gathering;
mod keys;

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use h2::server::{Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::auth::CommonName;
use crate::closing::Doors;
use crate::config::Config;
use crate::serve::Front;
use body::Incoming;
use gathering::{Gathering, gathering};

/// Bytes that a client may send before it is told that they were taken: of one request, and of all.
const WINDOW_BYTES: u32 = 1 << 20;
/// A request's headers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Bytes of answers that wait for the socket, of each stream.
const SEND_BYTES_MAX: usize = 400 << 10;

/// A connection with its calls.
struct Served<S> {
    connection: Connection<Gathering<S>, Bytes>,
    /// What the connection writes, until it is sent.
    written: Gathering<S>,
    front: Front,
    name: CommonName,
    /// Calls of keys.
    calls: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Served<S> {
    /// Takes requests, goes on with calls and sends what they made; ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let turn = self.poll_turn(cx);
            match ready!(self.written.poll_send(cx)) {
                Ok(true) if turn.is_pending() => {}
                Ok(_) => return turn,
                // A client that breaks off is its own affair.
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Takes requests and goes on with calls.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // All that came, before any of it is answered: looking for more also writes what is answered.
            while let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
                match accepted {
                    Some(Ok((request, respond))) => self.begin(request, respond),
                    // A client that breaks off is its own affair.
                    Some(Err(_)) | None => return Poll::Ready(()),
                }
            }
            let mut has_answered = false;
            while let Poll::Ready(Some(())) = self.calls.poll_next_unpin(cx) {
                has_answered = true;
            }
            if !has_answered {
                return Poll::Pending;
            }
        }
    }

    fn begin(&mut self, mut request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        if let Some((service, method)) = self.front.keys().zip(keys::method(&request)) {
            let call = keys::answer(service.clone(), method, self.name.clone(), request, respond);
            self.calls.push(Box::pin(call));
            return;
        }
        request.extensions_mut().insert(self.name.clone());
        let request = request.map(|body| Body::new(Incoming::from(body)));
        let front = self.front.clone();
        tokio::spawn(async move {
            let mut respond = respond;
            let answered = tokio::select! {
                answered = front.answer(request) => answered,
                _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            };
            let Ok(response) = answered;
            // The client may have gone.
            let _ = body::send(&mut respond, response).await;
        });
    }
}

/// Serves a connection until it ends, or the doors close.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    name: CommonName,
    front: Front,
    config: &Config,
    doors: &Doors,
) {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_send_buffer_size(SEND_BYTES_MAX)
        .max_concurrent_streams(config.max_concurrent_streams);
    let (socket, written) = gathering(stream);
    let shaken = tokio::select! {
        () = doors.closing.cancelled() => return,
        () = doors.stop.cancelled() => return,
        shaken = builder.handshake(socket) => shaken,
    };
    let Ok(mut connection) = shaken else { return };
    let mut lost = pin!(lost(connection.ping_pong(), config.client_keepalive));
    let mut served = Served { connection, written, front, name, calls: FuturesUnordered::new() };
    tokio::select! {
        () = poll_fn(|cx| served.poll(cx)) => return,
        () = &mut lost => return,
        () = doors.stop.cancelled() => return,
        () = doors.closing.cancelled() => served.connection.graceful_shutdown(),
    }
    tokio::select! {
        () = poll_fn(|cx| served.poll(cx)) => {}
        () = &mut lost => {}
        () = doors.stop.cancelled() => {}
    }
}

/// Ready once a client doesn't answer pings: it has gone without a word.
async fn lost(pings: Option<PingPong>, keepalive: Option<(Duration, Duration)>) {
    let Some((mut pings, (every, patience))) = pings.zip(keepalive) else { return pending().await };
    loop {
        tokio::time::sleep(every).await;
        if !matches!(tokio::time::timeout(patience, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}
