//! What a client speaks, by its first bytes: HTTP/2 begins with a preface that is no request of HTTP/1.
//!
//! Source: RFC 9113 §3.4.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream of which the first bytes were looked at; they come again.
pub(crate) struct Opened<S> {
    inner: S,
    early: BytesMut,
    /// Whether HTTP/2 is spoken.
    pub(crate) is_http2: bool,
}

/// Waits until it is clear what a client speaks. One that has gone speaks HTTP/1, whose server finds that out.
///
/// # Errors
/// If the stream can't be read.
pub(crate) async fn opened<S: AsyncRead + Unpin>(mut inner: S) -> io::Result<Opened<S>> {
    let mut early = BytesMut::with_capacity(PREFACE.len());
    loop {
        let length = early.len().min(PREFACE.len());
        let is_http2 = early[..length] == PREFACE[..length];
        if !is_http2 || length == PREFACE.len() {
            return Ok(Opened { inner, early, is_http2 });
        }
        if inner.read_buf(&mut early).await? == 0 {
            return Ok(Opened { inner, early, is_http2: false });
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opened<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let taken = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..taken]);
        self.early.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Sends bytes one by one; what is spoken, and what the server reads.
    async fn spoken(bytes: &[u8]) -> (bool, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(64);
        let sending = async move {
            for byte in bytes {
                client.write_all(&[*byte]).await.expect("room");
            }
        };
        let reading = async {
            let mut opened = opened(server).await.expect("readable");
            let mut read = Vec::new();
            opened.read_to_end(&mut read).await.expect("readable");
            (opened.is_http2, read)
        };
        tokio::join!(sending, reading).1
    }

    #[tokio::test]
    async fn what_is_spoken_is_seen_and_nothing_is_lost() {
        let http2 = [PREFACE, b"frames"].concat();
        assert_eq!(spoken(&http2).await, (true, http2));
        for other in [&b""[..], b"PRI", b"PUT / HTTP/1.1\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.1"] {
            assert_eq!(spoken(other).await, (false, other.to_vec()), "{}", other.escape_ascii());
        }
    }
}
