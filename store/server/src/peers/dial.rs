//! The dialling side: one task a peer, which connects, greets and forwards what is queued.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use parking_lot::Mutex;
use prost::Message as _;
use rustls::pki_types::ServerName;
use store_core::membership::Members;
use store_core::peers::{Frame, Greeting, Purpose, Reception};
use store_core::wire::Membership;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{read_bytes, read_reception, write_frame, write_greeting};
use crate::config::url_parts;
use crate::engine::{Engine, Input};
use crate::listener::Stream;
use crate::tls::ClientTls;

const DIAL_PAUSE: Duration = Duration::from_millis(100);
/// Time between measures of the way to a peer and back, as etcd's.
const PING_EVERY: Duration = Duration::from_secs(4);
/// How long connecting and greeting may take.
pub(super) const GREET_MAX: Duration = Duration::from_secs(2);
/// Members as they are told to one that joins.
const MEMBERS_BYTES_MAX: usize = 1 << 20;

pub(super) type Connection = BufWriter<Box<dyn Stream>>;

/// The way to one peer.
pub(super) struct Line {
    pub(super) engine: Arc<Engine>,
    pub(super) greeting: Greeting,
    pub(super) urls: Vec<String>,
    pub(super) tls: Option<ClientTls>,
    pub(super) connected: Arc<Mutex<Option<Instant>>>,
    pub(super) stop: CancellationToken,
}

impl Line {
    /// Forwards what comes until the peer isn't one any more.
    pub(super) async fn feed(self, mut queue: mpsc::Receiver<Frame>) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.feed_on(&mut queue) => {}
        }
    }

    async fn feed_on(&self, queue: &mut mpsc::Receiver<Frame>) {
        let peer = format!("{:x}", self.greeting.to);
        for url in self.urls.iter().cycle() {
            let met = tokio::time::timeout(GREET_MAX, self.meet(url)).await;
            match met.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
                Ok((stream, Reception::Welcome)) => {
                    tracing::debug!(peer, url, "connected");
                    *self.connected.lock() = Some(Instant::now());
                    self.engine.metrics.peers.connected(self.greeting.to);
                    let ended = self.forward(stream, queue).await;
                    *self.connected.lock() = None;
                    self.engine.metrics.peers.disconnected(self.greeting.to);
                    match ended {
                        Ok(()) => return,
                        Err(error) => tracing::debug!(peer, url, %error, "connection lost"),
                    }
                }
                Ok((_, Reception::Removed)) => {
                    self.engine.send(Input::Removed);
                    return;
                }
                Ok((_, Reception::Wiped)) => {
                    self.engine.send(Input::Wiped);
                    return;
                }
                Ok((_, other)) => tracing::warn!(peer, url, ?other, "somebody else is at the peer's URL"),
                Err(error) => tracing::debug!(peer, url, %error, "not connected"),
            }
            self.give_up_waiting(queue);
            tokio::time::sleep(DIAL_PAUSE).await;
        }
    }

    async fn meet(&self, url: &str) -> std::io::Result<(Connection, Reception)> {
        // The peer may have told its folder meanwhile.
        let to_folder = self.engine.members().borrow().folder(self.greeting.to).unwrap_or(0);
        greet(url, self.tls.clone(), &Greeting { to_folder, ..self.greeting.clone() }).await
    }

    /// What waited is stale: heartbeats and appends will be made anew.
    fn give_up_waiting(&self, queue: &mut mpsc::Receiver<Frame>) {
        let peer = self.greeting.to;
        while queue.try_recv().is_ok() {
            self.engine.metrics.peers.not_sent(peer);
        }
        self.engine.send(Input::Unreachable(peer));
    }

    /// Writes messages as they come; `Ok` when the queue is closed.
    async fn forward(&self, mut stream: Connection, queue: &mut mpsc::Receiver<Frame>) -> std::io::Result<()> {
        let mut pings = tokio::time::interval(PING_EVERY);
        pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let sent = self.engine.metrics.peers.sent(self.greeting.to);
        loop {
            let frame = if pings.tick().now_or_never().is_some() {
                Some(Frame::Ping(self.engine.metrics.peers.ping()))
            } else {
                match queue.try_recv() {
                    Ok(frame) => Some(frame),
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                    Err(mpsc::error::TryRecvError::Empty) => {
                        stream.flush().await?;
                        tokio::select! {
                            frame = queue.recv() => frame,
                            _ = pings.tick() => Some(Frame::Ping(self.engine.metrics.peers.ping())),
                        }
                    }
                }
            };
            let Some(frame) = frame else { return Ok(()) };
            sent.inc_by(write_frame(&mut stream, &frame).await?);
        }
    }
}

pub(super) async fn greet(
    url: &str,
    tls: Option<ClientTls>,
    greeting: &Greeting,
) -> std::io::Result<(Connection, Reception)> {
    let mut stream = connect(url, tls).await?;
    write_greeting(&mut stream, greeting).await?;
    let reception = read_reception(&mut stream).await?;
    Ok((stream, reception))
}

async fn connect(url: &str, tls: Option<ClientTls>) -> std::io::Result<Connection> {
    let (secure, address) = url_parts(url).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match (secure, tls) {
        (false, _) => Box::new(stream),
        (true, None) => return Err(std::io::Error::other("the peer wants TLS and none is configured")),
        (true, Some(tls)) => {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
            Box::new(tokio_rustls::TlsConnector::from(tls.get()).connect(name, stream).await?)
        }
    };
    Ok(BufWriter::with_capacity(64 * 1024, stream))
}

/// Whether the machine of a URL says that nobody listens there.
pub(super) async fn is_refused(url: &str) -> bool {
    let Ok((_, address)) = url_parts(url) else { return false };
    let dialled = tokio::time::timeout(GREET_MAX, TcpStream::connect(address)).await;
    matches!(dialled, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Why nobody tells the members to one that joins.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// None of the URLs.
    #[error("no member of the cluster answers at {0}; is one of them running?")]
    NobodyAnswers(String),
    /// The members know nobody at this member's peer URLs.
    #[error("no member is expected at {0}; add it first (etcdctl member add NAME --peer-urls={0})")]
    NotExpected(String),
}

/// The members, as one of the URLs tells them.
///
/// # Errors
/// [`JoinError::NobodyAnswers`].
pub(crate) async fn members_at(urls: &[String], tls: Option<&ClientTls>) -> Result<Members, JoinError> {
    for url in urls {
        let asked = tokio::time::timeout(GREET_MAX, ask_members(url, tls.cloned())).await;
        match asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(members) => return Ok(members),
            Err(error) => tracing::warn!(url, %error, "asking for the cluster's members"),
        }
    }
    Err(JoinError::NobodyAnswers(urls.join(", ")))
}

async fn ask_members(url: &str, tls: Option<ClientTls>) -> std::io::Result<Members> {
    let greeting = Greeting { purpose: Purpose::Join, ..Greeting::default() };
    let (mut stream, reception) = greet(url, tls, &greeting).await?;
    if reception != Reception::Welcome {
        return Err(std::io::Error::other(format!("refused: {reception:?}")));
    }
    let bytes = read_bytes(&mut stream, MEMBERS_BYTES_MAX).await?;
    Ok(Members::from_wire(Membership::decode(bytes.as_slice()).map_err(std::io::Error::other)?))
}
