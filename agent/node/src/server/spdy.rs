//! A connection to a runtime's streaming server; what is said on it is `agent_core::spdy`'s matter.

use agent_core::spdy::{Decoder, Encoder, Received, SpdyFault, data, pong};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

/// Bytes read at a time.
const READ_BYTES: usize = 32 << 10;

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
    #[error("the runtime's streaming server: {0}")]
    Fault(#[from] SpdyFault),
}

/// The half that sends.
pub(super) struct Sender {
    io: WriteHalf<TokioIo<Upgraded>>,
    encoder: Encoder,
}

/// The half that receives.
pub(super) struct Receiver {
    io: ReadHalf<TokioIo<Upgraded>>,
    decoder: Decoder,
    read: Vec<u8>,
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
    let receiver = Receiver { io: reader, decoder: Decoder::default(), read: vec![0; READ_BYTES] };
    Ok((Sender { io: writer, encoder: Encoder::default() }, receiver))
}

impl Sender {
    /// Opens a stream of this type (`stdin`, `error`, …); returns its number.
    pub(super) async fn open(&mut self, stream_type: &str) -> Result<u32, SpdyError> {
        let (id, frame) = self.encoder.open(stream_type).map_err(std::io::Error::from)?;
        self.io.write_all(&frame).await?;
        Ok(id)
    }

    /// Sends bytes on a stream; `last` closes this side of it.
    pub(super) async fn send(&mut self, stream: u32, bytes: &[u8], last: bool) -> Result<(), SpdyError> {
        for frame in data(stream, bytes, last) {
            self.io.write_all(&frame).await?;
        }
        Ok(self.io.flush().await?)
    }

    /// Answers a ping.
    pub(super) async fn pong(&mut self, id: u32) -> Result<(), SpdyError> {
        self.io.write_all(&pong(id)).await?;
        Ok(self.io.flush().await?)
    }
}

impl Receiver {
    /// What comes next. May be given up at any time: what came is kept.
    pub(super) async fn next(&mut self) -> Result<Received, SpdyError> {
        loop {
            if let Some(received) = self.decoder.poll()? {
                return Ok(received);
            }
            let count = self.io.read(&mut self.read).await?;
            if count == 0 {
                self.decoder.end()?;
                return Ok(Received::End);
            }
            self.decoder.feed(self.read.get(..count).unwrap_or_default());
        }
    }
}
