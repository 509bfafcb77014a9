//! Lets in clients whose `:authority` isn't one.
//!
//! Problem. Clients of etcd 3.4 dial `http://host:port` for some calls and send all of it as
//!          `:authority`, and the path of a socket that they dial; Go's server takes it, the
//!          HTTP/2 library here resets the stream.
//! Idea.    The first request's headers are looked at before the library sees them. If its
//!          authority is none, headers of this connection are rewritten on their way in;
//!          else the bytes pass untouched from then on.
//!
//! Invariants
//!   B1  A connection whose first authority is valid is never changed.
//!   B2  At most one frame and one block of headers are held back.
//!   B3  No headers are kept beyond [`HEADERS_BYTES_MAX`] decoded, nor a table beyond [`TABLE_BYTES_MAX`].
//!   B4  What comes before the first request passes at once: Go's clients ask nothing before
//!       their settings are answered.
//! Source: RFC 9113 §4.1, §6.2, §8.3.1; RFC 7541 §6.2.2 (literals without indexing).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, BytesMut};
use loona_hpack::Decoder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
/// What a peer may send before it is told otherwise (RFC 9113 §6.5.2); larger frames are the library's to refuse.
const FRAME_BYTES_MAX: usize = 16_384;
const READ_BYTES: usize = 8 << 10;
/// A request's headers: a block refers to earlier ones by a byte each, so that few bytes may mean very many.
const HEADERS_BYTES_MAX: usize = 16_384;
/// What peers may have decoders remember unless they are told otherwise (RFC 9113 §6.5.2).
const TABLE_BYTES_MAX: usize = 4096;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

enum Stage {
    /// Not even the preface has come.
    Opening,
    /// The first request's headers haven't come yet.
    Deciding,
    /// Nothing is looked at any more.
    Passing,
    Rewriting(Box<Rewriter>),
}

/// A stream that mends authorities on the way in.
pub(crate) struct Lenient<S> {
    inner: S,
    stage: Stage,
    /// Read and not yet judged.
    raw: BytesMut,
    /// For the reader.
    out: BytesMut,
}

impl<S> Lenient<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, stage: Stage::Opening, raw: BytesMut::new(), out: BytesMut::new() }
    }

    fn advance(&mut self) -> io::Result<()> {
        if matches!(self.stage, Stage::Opening) {
            self.open();
        }
        if matches!(self.stage, Stage::Deciding) {
            self.decide();
        }
        match &mut self.stage {
            Stage::Opening | Stage::Deciding => Ok(()),
            Stage::Rewriting(rewriter) => rewriter.advance(&mut self.raw, &mut self.out),
            Stage::Passing => {
                self.out.unsplit(self.raw.split());
                Ok(())
            }
        }
    }

    fn open(&mut self) {
        let known = self.raw.len().min(PREFACE.len());
        if self.raw[..known] != PREFACE[..known] {
            self.stage = Stage::Passing;
        } else if known == PREFACE.len() {
            self.out.extend_from_slice(&self.raw.split_to(known));
            self.stage = Stage::Deciding;
        }
    }

    fn decide(&mut self) {
        while let Some(next) = frame(&self.raw) {
            match next {
                Err(TooLong) => self.stage = Stage::Passing,
                Ok(frame) if frame.kind == HEADERS => {
                    self.stage = if is_mended(&frame) { Stage::Rewriting(Box::default()) } else { Stage::Passing };
                }
                Ok(Frame { end, .. }) => {
                    self.out.extend_from_slice(&self.raw.split_to(end));
                    continue;
                }
            }
            return;
        }
    }
}

/// One frame.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    payload: &'a [u8],
    /// Its length with the head.
    end: usize,
}

/// The first frame; `None` if it isn't all there.
fn frame(bytes: &[u8]) -> Option<Result<Frame<'_>, TooLong>> {
    let head = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if length > FRAME_BYTES_MAX {
        return Some(Err(TooLong));
    }
    let end = FRAME_HEAD_BYTES + length;
    let payload = bytes.get(FRAME_HEAD_BYTES..end)?;
    Some(Ok(Frame { kind: head[3], flags: head[4], payload, end }))
}

struct TooLong;

/// Whether a connection whose first request has these headers must be rewritten.
fn is_mended(first: &Frame<'_>) -> bool {
    // A first request that doesn't fit one frame isn't from the clients that are meant.
    let block = block(first.flags, first.payload).filter(|_| first.flags & END_HEADERS != 0);
    let headers = block.and_then(|block| headers(&mut decoder(), block)).unwrap_or_default();
    headers.iter().any(|(name, value)| name == b":authority" && bare(value) != value.as_slice())
}

/// An authority without the scheme before it and the slash behind it; of what can't be one, such as a socket's path,
/// the name that newer clients send for it.
fn bare(authority: &[u8]) -> &[u8] {
    let after = authority.windows(3).position(|w| w == b"://").map_or(authority, |at| &authority[at + 3..]);
    let bare = after.strip_suffix(b"/").unwrap_or(after);
    if http::uri::Authority::try_from(bare).is_ok() { bare } else { b"localhost" }
}

/// The headers' bytes in the payload of a HEADERS frame.
fn block(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    let (padding, payload) = if flags & PADDED != 0 {
        let (length, rest) = payload.split_first()?;
        (usize::from(*length), rest)
    } else {
        (0, payload)
    };
    let payload = if flags & PRIORITY != 0 { payload.get(5..)? } else { payload };
    payload.get(..payload.len().checked_sub(padding)?)
}

fn decoder() -> Decoder<'static> {
    let mut decoder = Decoder::new();
    decoder.set_max_allowed_table_size(TABLE_BYTES_MAX);
    decoder
}

/// Names and values in a block; `None` if it is damaged, or means too many (B3).
fn headers(decoder: &mut Decoder<'static>, block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let decoded = decoder.decode_with_cb(block, |name, value| {
        bytes += name.len() + value.len();
        if bytes <= HEADERS_BYTES_MAX {
            found.push((name.into_owned(), value.into_owned()));
        }
    });
    (decoded.is_ok() && bytes <= HEADERS_BYTES_MAX).then_some(found)
}

struct Rewriter {
    decoder: Decoder<'static>,
    /// Headers that go on in the next frame: whether they end their stream, and their bytes so far.
    open: Option<(u8, Vec<u8>)>,
}

impl Default for Rewriter {
    fn default() -> Self {
        Self { decoder: decoder(), open: None }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Rewriter {
    fn advance(&mut self, raw: &mut BytesMut, out: &mut BytesMut) -> io::Result<()> {
        while let Some(next) = frame(raw) {
            let Ok(Frame { kind, flags, payload, end }) = next else {
                return Err(damaged("a frame is longer than allowed"));
            };
            match kind {
                HEADERS => {
                    let block = block(flags, payload).ok_or_else(|| damaged("headers are padded wrongly"))?;
                    self.open = Some((flags & END_STREAM, block.to_vec()));
                }
                CONTINUATION => {
                    let (_, open) = self.open.as_mut().ok_or_else(|| damaged("headers go on that never began"))?;
                    if open.len() + payload.len() > FRAME_BYTES_MAX {
                        return Err(damaged("headers are longer than allowed"));
                    }
                    open.extend_from_slice(payload);
                }
                _ => {
                    out.extend_from_slice(&raw[..end]);
                    raw.advance(end);
                    continue;
                }
            }
            let stream = raw[5..FRAME_HEAD_BYTES].to_vec();
            if flags & END_HEADERS != 0
                && let Some((end_stream, block)) = self.open.take()
            {
                self.rewrite(end_stream, &stream, &block, out)?;
            }
            raw.advance(end);
        }
        Ok(())
    }

    fn rewrite(&mut self, end_stream: u8, stream: &[u8], block: &[u8], out: &mut BytesMut) -> io::Result<()> {
        let headers = headers(&mut self.decoder, block);
        let headers = headers.ok_or_else(|| damaged("headers can't be decoded, or are longer than allowed"))?;
        let mut plain = BytesMut::with_capacity(block.len() * 2);
        for (name, value) in &headers {
            let value = if name == b":authority" { bare(value) } else { value };
            plain.put_u8(0);
            put_text(&mut plain, name);
            put_text(&mut plain, value);
        }
        if plain.len() > FRAME_BYTES_MAX {
            return Err(damaged("headers are longer than allowed"));
        }
        out.put_uint(plain.len() as u64, 3);
        out.put_u8(HEADERS);
        out.put_u8(END_HEADERS | end_stream);
        out.put_slice(stream);
        out.put_slice(&plain);
        Ok(())
    }
}

/// A string literal without Huffman coding (RFC 7541 §5.2), its length with a prefix of seven bits (§5.1).
fn put_text(out: &mut BytesMut, text: &[u8]) {
    if text.len() < 127 {
        out.put_u8(text.len() as u8);
    } else {
        out.put_u8(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            out.put_u8((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        out.put_u8(rest as u8);
    }
    out.put_slice(text);
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.out.is_empty() {
                let size = this.out.len().min(buf.remaining());
                buf.put_slice(&this.out.split_to(size));
                return Poll::Ready(Ok(()));
            }
            if matches!(this.stage, Stage::Passing) {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            let mut piece = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // The end: what was held back is all there will be.
                this.stage = Stage::Passing;
            }
            this.raw.extend_from_slice(read.filled());
            this.advance()?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
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
mod tests;
