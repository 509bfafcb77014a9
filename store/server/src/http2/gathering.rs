//! Frames that are sent together.
//!
//! Problem. The HTTP/2 library writes a frame as soon as it has it. Frames of data hold 16 KiB, so that of a large answer
//!          every one costs a call into the system, a turn of the network and a wakening of the client.
//! Idea.    What it takes for the socket gathers what it writes. The connection's task sends that once nothing more is to
//!          be written for now, or once there is much of it.
//!
//! Invariants
//!   T1  What the library flushed is sent before the task waits for anything else.
//!   T2  No more is gathered than one write beyond [`GATHERED_MAX`], and nothing of it is kept by who has nothing to say.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much as the loopback interface and network cards with segmentation take as one packet.
const GATHERED_MAX: usize = 64 << 10;
/// Memory as small is kept for what comes next.
const KEPT_MAX: usize = 8 << 10;

/// What the library takes for the socket, and who sends what is gathered. Only one task uses them.
pub(super) struct Gathering<S>(Arc<Mutex<Socket<S>>>);

struct Socket<S> {
    stream: S,
    gathered: BytesMut,
    /// The library has more.
    is_refused: bool,
}

/// Two of them: for the library, and for the task.
pub(super) fn gathering<S>(stream: S) -> (Gathering<S>, Gathering<S>) {
    let socket = Arc::new(Mutex::new(Socket { stream, gathered: BytesMut::new(), is_refused: false }));
    (Gathering(socket.clone()), Gathering(socket))
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    /// Sends all that is gathered; then says whether the library has more to write.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let socket = &mut *self.0.lock();
        while !socket.gathered.is_empty() {
            let sent = ready!(Pin::new(&mut socket.stream).poll_write(cx, &socket.gathered))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            socket.gathered.advance(sent);
        }
        if socket.gathered.capacity() > KEPT_MAX {
            socket.gathered = BytesMut::new();
        }
        ready!(Pin::new(&mut socket.stream).poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut socket.is_refused)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = &mut *self.0.lock();
        if socket.gathered.len() >= GATHERED_MAX {
            socket.is_refused = true;
            // The task sends what there is, and comes again.
            return Poll::Pending;
        }
        socket.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.0.lock().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn frames_leave_together_and_no_more_is_gathered_than_may_be() {
        let (socket, mut client) = tokio::io::duplex(2 * GATHERED_MAX);
        let (mut library, task) = gathering(socket);
        library.write_all(b"head").await.expect("room");
        library.flush().await.expect("room");
        library.write_all(&[7; 100]).await.expect("room");
        let mut read = vec![0; 104];
        assert!(client.read_exact(&mut read).now_or_never().is_none(), "nothing leaves by itself");
        assert!(!poll_fn(|cx| task.poll_send(cx)).await.expect("sent"), "the library has said all");
        client.read_exact(&mut read).await.expect("all came");
        assert_eq!((&read[..4], &read[4..]), (&b"head"[..], &[7; 100][..]));
        library.write_all(&vec![1; GATHERED_MAX]).await.expect("room");
        assert!(library.write_all(b"more").now_or_never().is_none(), "T2");
        assert!(poll_fn(|cx| task.poll_send(cx)).await.expect("sent"), "the library has more");
        assert!(task.0.lock().gathered.capacity() <= KEPT_MAX, "T2");
        library.write_all(b"more").await.expect("room again");
    }

    #[tokio::test]
    async fn what_was_written_last_is_sent_before_the_end() {
        let (socket, mut client) = tokio::io::duplex(64);
        let (mut library, _task) = gathering(socket);
        library.write_all(b"goodbye").await.expect("room");
        library.shutdown().await.expect("sent");
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.expect("all came");
        assert_eq!(read, b"goodbye");
    }
}
