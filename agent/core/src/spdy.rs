//! The few words of SPDY/3.1 that a runtime's streaming server understands: open streams,
//! send and receive data, close one side.
//!
//! Both ends of this protocol here are on one machine; flow control windows are not
//! used, as `moby/spdystream`, which runtimes serve with, doesn't.
//!
//! Invariants
//!   Y1  What is received doesn't depend on how it is cut into pieces.
//!   Y2  Of a frame no more is held than is handed on at once, whatever length it announces.
//! Checked by: spdy/tests.rs, fuzz/fuzz_targets/streams.rs (Y1, Y2).
//! Source: SPDY Protocol Draft 3.1 §2.2–2.6; Kubernetes `remotecommand` for the stream types.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, CompressError, Compression, FlushCompress};

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const FIN: u8 = 1;
const HEAD_BYTES: usize = 8;
/// Bytes handed on at a time; a frame may hold 16 MiB.
pub const PIECE_BYTES_MAX: usize = 32 << 10;
/// Bytes of a frame that says something other than data.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;

/// Why what came can't be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpdyFault {
    /// It announces more than anything said by it needs.
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    /// It should name a stream or a ping.
    #[error("a control frame of kind {0} that names nothing")]
    Nameless(u16),
    /// The other side went in the midst of a frame.
    #[error("the connection ended within a frame")]
    CutOff,
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Bytes of a stream, and whether they were its last.
    Data {
        /// Its number.
        stream: u32,
        /// At most [`PIECE_BYTES_MAX`].
        bytes: Bytes,
        /// Whether the other side closed its end with them.
        last: bool,
    },
    /// A stream was given up.
    Reset {
        /// Its number.
        stream: u32,
    },
    /// Is answered with itself.
    Ping {
        /// What is answered.
        id: u32,
    },
    /// No more will come.
    End,
}

/// Writes frames.
#[derive(Debug)]
pub struct Encoder {
    /// Headers of all streams are one compressed stream. No dictionary: what isn't
    /// announced in the zlib header isn't asked for.
    headers: Compress,
    next_stream: u32,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { headers: Compress::new(Compression::fast(), true), next_stream: 1 }
    }
}

impl Encoder {
    /// Opens a stream of this type (`stdin`, `error`, …): its number, and what is to be sent.
    ///
    /// # Errors
    /// What the compression says.
    pub fn open(&mut self, stream_type: &str) -> Result<(u32, Bytes), CompressError> {
        let id = self.next_stream;
        self.next_stream += 2;
        let mut names = BytesMut::new();
        names.put_u32(1);
        for text in ["streamtype", stream_type] {
            names.put_u32(text.len() as u32);
            names.put_slice(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(256);
        self.headers.compress_vec(&names, &mut packed, FlushCompress::Sync)?;
        let mut body = BytesMut::new();
        body.put_u32(id);
        body.put_u32(0);
        body.put_u16(0);
        body.put_slice(&packed);
        Ok((id, control(SYN_STREAM, 0, &body)))
    }
}

/// Bytes on a stream, in frames; `last` closes this side of it.
pub fn data(stream: u32, bytes: &[u8], last: bool) -> impl Iterator<Item = Bytes> {
    let count = bytes.len().div_ceil(PIECE_BYTES_MAX);
    // One without bytes still closes.
    let only_closes = (count == 0 && last).then_some(&[][..]);
    let pieces = bytes.chunks(PIECE_BYTES_MAX).chain(only_closes).enumerate();
    pieces.map(move |(number, piece)| data_frame(stream, piece, last && number + 1 >= count))
}

fn data_frame(stream: u32, piece: &[u8], last: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + piece.len());
    frame.put_u32(stream);
    frame.put_u32(u32::from(if last { FIN } else { 0 }) << 24 | piece.len() as u32);
    frame.put_slice(piece);
    frame.freeze()
}

/// The answer to a ping.
#[must_use]
pub fn pong(id: u32) -> Bytes {
    control(PING, 0, &id.to_be_bytes())
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + body.len());
    frame.put_u16(VERSION);
    frame.put_u16(kind);
    // Bodies are made here, of a few hundred bytes at most.
    frame.put_u32(u32::from(flags) << 24 | body.len() as u32);
    frame.put_slice(body);
    frame.freeze()
}

/// A data frame whose bytes are still coming.
#[derive(Debug, Clone, Copy)]
struct Open {
    stream: u32,
    left: usize,
    last: bool,
}

/// Reads frames.
///
/// Order of calls: [`Decoder::feed`] with what came, [`Decoder::poll`] until it has nothing; [`Decoder::end`] when
/// the connection ended.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Came, and isn't handed on.
    bytes: BytesMut,
    open: Option<Open>,
}

impl Decoder {
    /// Takes what came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that came and weren't handed on.
    #[must_use]
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// What came next, if it is all there.
    ///
    /// # Errors
    /// [`SpdyFault`]; then nothing behind it can be read.
    pub fn poll(&mut self) -> Result<Option<Received>, SpdyFault> {
        loop {
            if let Some(open) = self.open {
                return Ok(self.piece(open));
            }
            let Some(head) = self.bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
            let mut head = head.as_slice();
            let (word, second) = (head.get_u32(), head.get_u32());
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if word & 0x8000_0000 == 0 {
                self.bytes.advance(HEAD_BYTES);
                self.open = Some(Open { stream: word, left: length, last: flags & FIN != 0 });
                continue;
            }
            if length > CONTROL_BYTES_MAX {
                return Err(SpdyFault::TooLong(length));
            }
            if self.bytes.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            self.bytes.advance(HEAD_BYTES);
            let body = self.bytes.split_to(length);
            if let Some(received) = said((word & 0xffff) as u16, &body)? {
                return Ok(Some(received));
            }
        }
    }

    fn piece(&mut self, open: Open) -> Option<Received> {
        let size = open.left.min(PIECE_BYTES_MAX);
        if self.bytes.len() < size {
            return None;
        }
        let bytes = self.bytes.split_to(size).freeze();
        let left = open.left - size;
        self.open = (left > 0).then_some(Open { left, ..open });
        Some(Received::Data { stream: open.stream, bytes, last: open.last && left == 0 })
    }

    /// Says whether the connection ended where it may.
    ///
    /// # Errors
    /// [`SpdyFault::CutOff`].
    pub fn end(&self) -> Result<(), SpdyFault> {
        if self.open.is_none() && self.bytes.is_empty() { Ok(()) } else { Err(SpdyFault::CutOff) }
    }
}

/// What a control frame says; replies and settings say nothing that is needed.
fn said(kind: u16, body: &[u8]) -> Result<Option<Received>, SpdyFault> {
    let number = || body.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(SpdyFault::Nameless(kind));
    Ok(match kind {
        RST_STREAM => Some(Received::Reset { stream: number()? & 0x7fff_ffff }),
        PING => Some(Received::Ping { id: number()? }),
        GO_AWAY => Some(Received::End),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
