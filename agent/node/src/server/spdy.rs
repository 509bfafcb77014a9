//! The few words of SPDY/3.1 that a runtime's streaming server understands: open streams,
//! send and receive data, close one side.
//!
//! Both ends of this protocol here are on one machine; flow control windows are not
//! used, as `moby/spdystream`, which runtimes serve with, doesn't.
//! Source: SPDY Protocol Draft 3.1 §2.2–2.6; Kubernetes `remotecommand` for the stream types.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GO_AWAY: u16 = 7;
const FIN: u8 = 1;
/// Bytes handed on at a time; a frame may hold 16 MiB.
const PIECE_BYTES_MAX: usize = 32 << 10;
/// Bytes of a frame that says something other than data.
const CONTROL_BYTES_MAX: usize = 64 << 10;

/// Why the runtime's streaming server can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpdyError {
    #[error("the runtime's streaming address {0:?} is not usable")]
    Address(String),
    #[error("the runtime's streaming server did not upgrade: {0}")]
    Refused(StatusCode),
    #[error("the runtime's streaming server doesn't speak HTTP as expected")]
    Http(#[from] hyper::Error),
    #[error("the runtime's streaming server: {0}")]
    Io(#[from] std::io::Error),
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Bytes of a stream, and whether they were its last.
    Data { stream: u32, bytes: Bytes, last: bool },
    /// A stream was given up.
    Reset { stream: u32 },
    /// Is answered with itself.
    Ping { id: u32 },
    /// No more will come.
    End,
}

/// The half that sends.
pub(super) struct Sender {
    io: WriteHalf<TokioIo<Upgraded>>,
    /// Headers of all streams are one compressed stream. No dictionary: what isn't
    /// announced in the zlib header isn't asked for.
    headers: Compress,
    next_stream: u32,
}

/// The half that receives.
pub(super) struct Receiver {
    io: ReadHalf<TokioIo<Upgraded>>,
    /// What is left of a data frame: stream, bytes, whether it is the last.
    open: Option<(u32, usize, bool)>,
}

/// Asks the streaming server at `url` to upgrade.
pub(super) async fn connect(url: &str) -> Result<(Sender, Receiver), SpdyError> {
    let bad = || SpdyError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?.to_string();
    if uri.scheme_str() != Some("http") {
        return Err(bad());
    }
    let stream = TcpStream::connect(&authority).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::post(path)
        .header(header::HOST, authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", "v4.channel.k8s.io")
        .body(Empty::<Bytes>::new())
        .map_err(|_| bad())?;
    let answer = sender.send_request(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(SpdyError::Refused(answer.status()));
    }
    let upgraded = hyper::upgrade::on(answer).await?;
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    let headers = Compress::new(Compression::fast(), true);
    Ok((Sender { io: writer, headers, next_stream: 1 }, Receiver { io: reader, open: None }))
}

fn control(kind: u16, flags: u8, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_u16(VERSION);
    frame.put_u16(kind);
    // Bodies are made here, of a few hundred bytes at most.
    frame.put_u32(u32::from(flags) << 24 | body.len() as u32);
    frame.put_slice(body);
    frame
}

impl Sender {
    /// Opens a stream of this type (`stdin`, `error`, …); returns its number.
    pub(super) async fn open(&mut self, stream_type: &str) -> Result<u32, SpdyError> {
        let id = self.next_stream;
        self.next_stream += 2;
        let mut names = BytesMut::new();
        names.put_u32(1);
        for text in ["streamtype", stream_type] {
            names.put_u32(text.len() as u32);
            names.put_slice(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(256);
        self.headers.compress_vec(&names, &mut packed, FlushCompress::Sync).map_err(std::io::Error::from)?;
        let mut body = BytesMut::new();
        body.put_u32(id);
        body.put_u32(0);
        body.put_u16(0);
        body.put_slice(&packed);
        self.io.write_all(&control(SYN_STREAM, 0, &body)).await?;
        Ok(id)
    }

    /// Sends bytes on a stream; `last` closes this side of it.
    pub(super) async fn send(&mut self, stream: u32, bytes: &[u8], last: bool) -> Result<(), SpdyError> {
        let mut pieces = bytes.chunks(PIECE_BYTES_MAX).peekable();
        if pieces.peek().is_none() && last {
            self.frame(stream, &[], true).await?;
        }
        while let Some(piece) = pieces.next() {
            self.frame(stream, piece, last && pieces.peek().is_none()).await?;
        }
        self.io.flush().await?;
        Ok(())
    }

    async fn frame(&mut self, stream: u32, piece: &[u8], last: bool) -> Result<(), SpdyError> {
        let mut frame = BytesMut::with_capacity(8 + piece.len());
        frame.put_u32(stream);
        frame.put_u32(u32::from(if last { FIN } else { 0 }) << 24 | piece.len() as u32);
        frame.put_slice(piece);
        Ok(self.io.write_all(&frame).await?)
    }

    /// Answers a ping.
    pub(super) async fn pong(&mut self, id: u32) -> Result<(), SpdyError> {
        self.io.write_all(&control(PING, 0, &id.to_be_bytes())).await?;
        Ok(self.io.flush().await?)
    }
}

impl Receiver {
    /// What comes next. Must not be given up half-way.
    pub(super) async fn next(&mut self) -> Result<Received, SpdyError> {
        loop {
            if let Some((stream, left, last)) = self.open {
                return self.piece(stream, left, last).await;
            }
            let mut head = [0; 8];
            match self.io.read_exact(&mut head).await {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(Received::End),
                result => result?,
            };
            let (mut first, mut second) = (&head[..4], &head[4..]);
            let (word, second) = (first.get_u32(), second.get_u32());
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if word & 0x8000_0000 == 0 {
                self.open = Some((word, length, flags & FIN != 0));
                continue;
            }
            if let Some(received) = self.control((word & 0xffff) as u16, length).await? {
                return Ok(received);
            }
        }
    }

    async fn piece(&mut self, stream: u32, left: usize, last: bool) -> Result<Received, SpdyError> {
        let size = left.min(PIECE_BYTES_MAX);
        let mut bytes = vec![0; size];
        self.io.read_exact(&mut bytes).await?;
        let done = size == left;
        self.open = (!done).then_some((stream, left - size, last));
        Ok(Received::Data { stream, bytes: Bytes::from(bytes), last: last && done })
    }

    async fn control(&mut self, kind: u16, length: usize) -> Result<Option<Received>, SpdyError> {
        if length > CONTROL_BYTES_MAX {
            return Err(std::io::Error::other(format!("a control frame of {length} bytes")).into());
        }
        let mut body = vec![0; length];
        self.io.read_exact(&mut body).await?;
        let number = body.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Ok(match kind {
            RST_STREAM => Some(Received::Reset { stream: number & 0x7fff_ffff }),
            PING => Some(Received::Ping { id: number }),
            GO_AWAY => Some(Received::End),
            // Replies and settings say nothing that is needed.
            _ => None,
        })
    }
}
