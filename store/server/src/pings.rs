//! Cuts off clients that try their connection more often than they may.
//!
//! Problem. Many clients with a short keepalive cost a server more than their requests. The HTTP/2 library answers
//!          pings by itself and tells nobody of them.
//! Idea.    Frames are followed on their way in and out, without changing them: pings are held against gRPC's
//!          rule, and who breaks it is told `too_many_pings` and cut off.
//!
//! Invariants
//!   K1  A connection that keeps to the rule is never changed.
//!   K2  GOAWAY is written between two frames or not at all.
//! Source: gRPC proposal A8 (server enforcement), grpc-go `internal/transport/http2_server.go`; RFC 9113 §4.1, §6.7, §6.8.

mod policy;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use policy::{Policy, Verdict};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// ACK of a PING, END_STREAM of DATA and HEADERS.
const FLAG_1: u8 = 0x1;
/// RFC 9113 §7: the peer is generating excessive load.
const ENHANCE_YOUR_CALM: u8 = 0xb;
const WHY: &[u8] = b"too_many_pings";

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds the heads of frames in bytes that come in pieces.
#[derive(Default)]
struct Scan {
    head: [u8; HEAD_BYTES],
    known: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
}

impl Scan {
    fn follow(&mut self, mut bytes: &[u8], mut found: impl FnMut(Head)) {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.known).min(bytes.len());
            self.head[self.known..][..taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == HEAD_BYTES {
                let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
                self.known = 0;
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                found(Head { kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) });
            }
        }
    }

    fn is_between_frames(&self) -> bool {
        self.known == 0 && self.left == 0
    }
}

enum Stage {
    /// So much of the preface has come.
    Opening(usize),
    /// Not HTTP/2.
    Passing,
    Following,
    /// So much of the last frame is written.
    Leaving(Vec<u8>, usize),
}

/// A server's stream whose client may ping only so often.
pub(crate) struct Policed<S> {
    inner: S,
    stage: Stage,
    policy: Policy,
    read: Scan,
    written: Scan,
}

impl<S> Policed<S> {
    /// Pings may be `every` apart; gRPC's default for zero.
    pub(crate) fn new(inner: S, every: Duration) -> Self {
        let (read, written) = (Scan::default(), Scan::default());
        Self { inner, stage: Stage::Opening(0), policy: Policy::new(every), read, written }
    }

    fn came(&mut self, mut bytes: &[u8]) {
        if let Stage::Opening(known) = self.stage {
            let taken = (PREFACE.len() - known).min(bytes.len());
            let is_preface = bytes[..taken] == PREFACE[known..known + taken];
            bytes = &bytes[taken..];
            self.stage = match known + taken {
                _ if !is_preface => Stage::Passing,
                all if all == PREFACE.len() => Stage::Following,
                part => Stage::Opening(part),
            };
        }
        if !matches!(self.stage, Stage::Following) {
            return;
        }
        let (policy, mut verdict) = (&mut self.policy, Verdict::Fine);
        self.read.follow(bytes, |head| match head.kind {
            HEADERS => policy.stream_began(head.stream),
            RST_STREAM => policy.stream_ended(head.stream),
            PING if head.flags & FLAG_1 == 0 && verdict == Verdict::Fine => verdict = policy.ping(Instant::now()),
            _ => {}
        });
        if verdict == Verdict::TooMany {
            tracing::info!("a client pings more often than --grpc-keepalive-min-time allows; it is cut off");
            // A client that has taken half a frame doesn't read: it isn't told (K2).
            let last = if self.written.is_between_frames() { goaway(self.policy.last_stream()) } else { Vec::new() };
            self.stage = Stage::Leaving(last, 0);
        }
    }

    fn went(&mut self, bytes: &[u8]) {
        if matches!(self.stage, Stage::Opening(_) | Stage::Following) {
            let policy = &mut self.policy;
            self.written.follow(bytes, |head| match head.kind {
                DATA | HEADERS => policy.answered(head.stream, head.flags & FLAG_1 != 0),
                RST_STREAM => policy.stream_ended(head.stream),
                _ => {}
            });
        }
    }
}

fn goaway(last_stream: u32) -> Vec<u8> {
    let mut frame = vec![0, 0, 8 + WHY.len() as u8, GOAWAY, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, ENHANCE_YOUR_CALM]);
    frame.extend_from_slice(WHY);
    frame
}

impl<S: AsyncWrite + Unpin> Policed<S> {
    /// Writes what is left of the last frame, as far as the client takes it at once: who doesn't read isn't waited
    /// for. Then the connection is at its end.
    fn leave(&mut self, cx: &mut Context<'_>) -> io::Error {
        if let Stage::Leaving(frame, done) = &mut self.stage {
            while *done < frame.len() {
                match Pin::new(&mut self.inner).poll_write(cx, &frame[*done..]) {
                    Poll::Ready(Ok(size)) if size > 0 => *done += size,
                    _ => break,
                }
            }
            // Whether it comes to him is the client's matter.
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        io::Error::other("the client pings too often")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Policed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !matches!(this.stage, Stage::Leaving(..)) {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            this.came(&buf.filled()[before..]);
            if !matches!(this.stage, Stage::Leaving(..)) {
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
        }
        Poll::Ready(Err(this.leave(cx)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Policed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if matches!(self.stage, Stage::Leaving(..)) {
            return Poll::Ready(Err(self.leave(cx)));
        }
        let size = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.went(&bytes[..size]);
        Poll::Ready(Ok(size))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.stage, Stage::Leaving(..)) {
            return Poll::Ready(Err(self.leave(cx)));
        }
        let size = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
        let mut left = size;
        for slice in slices {
            let taken = slice.len().min(left);
            self.went(&slice[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(size))
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
mod tests;
