//! One connection, as one task.
//!
//! The HTTP/2 library writes each request's data by itself. Here what it writes is gathered in memory, and goes to the
//! socket once when all who were woken together have asked: sending costs more than all else that a client does.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::{Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Error;
use super::target::Target;
use crate::store::CONNECT_MAX;

/// What isn't read yet never makes a member wait.
const WINDOW: u32 = (1 << 31) - 1;
/// Bytes that are gathered at most.
const GATHERED_MAX: usize = 1 << 20;

/// Connects, and speaks HTTP/2 until the connection ends or nobody holds it any more.
pub(super) async fn open(target: &Target) -> Result<SendRequest<Bytes>, Error> {
    let opening = tokio::time::timeout(CONNECT_MAX, connect(target)).await;
    opening.unwrap_or_else(|_| Err(io::Error::other(format!("no connection within {CONNECT_MAX:?}")))).map_err(|why| {
        // The same reason in the same words, whichever member.
        Error::Unavailable(format!("connecting: {why}"))
    })
}

async fn connect(target: &Target) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    match &target.tls {
        None => {
            let (reader, writer) = stream.into_split();
            speak(reader, writer).await
        }
        Some((tls, name)) => {
            let (reader, writer) = tokio::io::split(tls.connect(name.clone(), stream).await?);
            speak(reader, writer).await
        }
    }
}

async fn speak<R, W>(reader: R, writer: W) -> io::Result<SendRequest<Bytes>>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let gathered = Gathered::default();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
    let io = Gathering { reader, gathered: gathered.clone() };
    let (requests, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
    // Callers hear of an end by their requests.
    tokio::spawn(Task { connection, gathered, writer, yielded: false });
    Ok(requests)
}

/// Bytes to be sent.
#[derive(Clone, Default)]
struct Gathered(Arc<Mutex<BytesMut>>);

impl Gathered {
    fn bytes(&self) -> MutexGuard<'_, BytesMut> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the HTTP/2 library takes for the socket.
struct Gathering<R> {
    reader: R,
    gathered: Gathered,
}

impl<R: AsyncRead + Unpin> AsyncRead for Gathering<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl<R: Unpin> AsyncWrite for Gathering<R> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut gathered = self.gathered.bytes();
        if gathered.len() >= GATHERED_MAX {
            // The task that is here sends some, and comes again.
            return Poll::Pending;
        }
        gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The connection's life.
struct Task<R: AsyncRead + Unpin, W> {
    connection: Connection<Gathering<R>, Bytes>,
    gathered: Gathered,
    writer: W,
    /// Others had their turn since something was gathered.
    yielded: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Task<R, W> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.gathered.bytes();
        while !gathered.is_empty() {
            let sent = ready!(Pin::new(&mut self.writer).poll_write(cx, &gathered))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            gathered.advance(sent);
        }
        Pin::new(&mut self.writer).poll_flush(cx)
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Future for Task<R, W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = &mut *self;
        loop {
            let ended = Pin::new(&mut task.connection).poll(cx).is_ready();
            let waiting = task.gathered.bytes().len();
            if waiting == 0 && !ended {
                return Poll::Pending;
            }
            if !task.yielded && !ended && waiting < GATHERED_MAX {
                task.yielded = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            task.yielded = false;
            match task.send(cx) {
                // What was said last is sent if the socket takes it.
                _ if ended => return Poll::Ready(()),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
                // With all of it sent there may be room for more.
                Poll::Ready(Ok(())) if waiting >= GATHERED_MAX => {}
                Poll::Ready(Ok(())) => return Poll::Pending,
            }
        }
    }
}
