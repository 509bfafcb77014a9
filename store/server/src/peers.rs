//! Peers: raft messages over connections of their own, mutual TLS if configured.
//!
//! Each member dials each other one and sends frames: a length and a message. A
//! queue that is full drops messages: raft repeats what matters. A lost connection
//! is dialled again after a pause.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protobuf::Message as _;
use raft::eraftpb::Message;
use rustls::pki_types::ServerName;
use store_core::replica::is_snapshot;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Member, url_parts};
use crate::engine::{Engine, Input};

/// Messages that wait for a peer's connection.
const QUEUE_MESSAGES_MAX: usize = 4096;
/// Larger than any message: entries come in batches of a MiB, snapshots up to 256 MiB.
const FRAME_BYTES_MAX: usize = 300 << 20;
const DIAL_PAUSE: Duration = Duration::from_millis(100);
const DIAL_MAX: Duration = Duration::from_secs(2);

/// TLS of both directions; `None` for plain connections.
#[derive(Clone)]
pub(crate) struct PeerTls {
    pub(crate) server: Arc<rustls::ServerConfig>,
    pub(crate) client: Arc<rustls::ClientConfig>,
}

/// What goes to a peer.
enum Frame {
    Raft(Box<Message>),
    /// A follower asks the leader about a lease.
    Ask {
        nonce: u64,
        lease: i64,
        renew: bool,
    },
    /// The leader's answer; `i64::MIN` if it doesn't lead.
    Answer {
        nonce: u64,
        remaining: i64,
    },
}

const RAFT: u8 = 0;
const ASK: u8 = 1;
const ANSWER: u8 = 2;

impl Frame {
    fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Frame::Raft(message) => {
                out.push(RAFT);
                message.write_to_vec(&mut out).map_err(std::io::Error::other)?;
            }
            Frame::Ask { nonce, lease, renew } => {
                out.push(ASK);
                out.extend_from_slice(&nonce.to_be_bytes());
                out.extend_from_slice(&lease.to_be_bytes());
                out.push(u8::from(*renew));
            }
            Frame::Answer { nonce, remaining } => {
                out.push(ANSWER);
                out.extend_from_slice(&nonce.to_be_bytes());
                out.extend_from_slice(&remaining.to_be_bytes());
            }
        }
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> std::io::Result<Self> {
        let short = || std::io::Error::other("a frame is cut short");
        let (kind, rest) = bytes.split_first().ok_or_else(short)?;
        let word = |at: usize| -> std::io::Result<[u8; 8]> {
            rest.get(at..at + 8).and_then(|w| w.try_into().ok()).ok_or_else(short)
        };
        match *kind {
            RAFT => Ok(Frame::Raft(Box::new(Message::parse_from_bytes(rest).map_err(std::io::Error::other)?))),
            ASK => {
                let renew = rest.get(16).ok_or_else(short)? == &1;
                Ok(Frame::Ask { nonce: u64::from_be_bytes(word(0)?), lease: i64::from_be_bytes(word(8)?), renew })
            }
            ANSWER => {
                Ok(Frame::Answer { nonce: u64::from_be_bytes(word(0)?), remaining: i64::from_be_bytes(word(8)?) })
            }
            other => Err(std::io::Error::other(format!("a frame of unknown kind {other}"))),
        }
    }

    fn is_snapshot(&self) -> bool {
        matches!(self, Frame::Raft(message) if is_snapshot(message))
    }
}

/// Queues to all peers.
pub(crate) struct Peers {
    queues: HashMap<u64, mpsc::Sender<Frame>>,
}

impl Peers {
    /// Starts a sender for each peer.
    pub(crate) fn start(
        members: &[Member],
        own: u64,
        tls: Option<&PeerTls>,
        engine: &Arc<Engine>,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        let mut queues = HashMap::new();
        for member in members.iter().filter(|m| m.id != own) {
            let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
            queues.insert(member.id, sender);
            let client = tls.map(|t| t.client.clone());
            tokio::spawn(feed(member.clone(), client, engine.clone(), receiver, shutdown.clone()));
        }
        Arc::new(Self { queues })
    }

    /// Puts a message into its peer's queue; a full queue drops it and says so.
    pub(crate) fn send(&self, engine: &Engine, message: Message) {
        let (to, snapshot) = (message.to, is_snapshot(&message));
        let Some(queue) = self.queues.get(&to) else { return };
        if queue.try_send(Frame::Raft(Box::new(message))).is_err() {
            engine.send(if snapshot {
                Input::SnapshotSent { peer: to, delivered: false }
            } else {
                Input::Unreachable(to)
            });
        }
    }
}

impl Peers {
    /// Asks the leader about a lease; the answer comes to the engine.
    pub(crate) fn ask(&self, leader: u64, nonce: u64, lease: i64, renew: bool) {
        self.put(leader, Frame::Ask { nonce, lease, renew });
    }

    /// A frame that may be lost: whoever waits for it asks again.
    fn put(&self, peer: u64, frame: Frame) {
        if let Some(queue) = self.queues.get(&peer) {
            let _ = queue.try_send(frame);
        }
    }
}

async fn feed(
    member: Member,
    tls: Option<Arc<rustls::ClientConfig>>,
    engine: Arc<Engine>,
    mut queue: mpsc::Receiver<Frame>,
    shutdown: CancellationToken,
) {
    loop {
        let connected = tokio::select! {
            () = shutdown.cancelled() => return,
            connected = tokio::time::timeout(DIAL_MAX, dial(&member, tls.clone())) => connected,
        };
        if let Ok(Ok(mut stream)) = connected {
            tracing::debug!(peer = member.name, "connected");
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = forward(&mut stream, &engine, &mut queue, member.id) => ended,
            };
            match ended {
                Ok(()) => return,
                Err(error) => tracing::debug!(peer = member.name, %error, "connection lost"),
            }
        }
        // What waited is stale: heartbeats and appends will be made anew.
        while let Ok(frame) = queue.try_recv() {
            if frame.is_snapshot() {
                engine.send(Input::SnapshotSent { peer: member.id, delivered: false });
            }
        }
        engine.send(Input::Unreachable(member.id));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(DIAL_PAUSE) => {}
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn dial(member: &Member, tls: Option<Arc<rustls::ClientConfig>>) -> std::io::Result<BufWriter<Box<dyn Stream>>> {
    let (secure, address) = url_parts(&member.peer_url).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match (secure, tls) {
        (false, _) => Box::new(stream),
        (true, None) => return Err(std::io::Error::other("the peer wants TLS and none is configured")),
        (true, Some(tls)) => {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
            Box::new(tokio_rustls::TlsConnector::from(tls).connect(name, stream).await?)
        }
    };
    Ok(BufWriter::with_capacity(64 * 1024, stream))
}

/// Writes messages as they come; `Ok` when the queue is closed.
async fn forward(
    stream: &mut BufWriter<Box<dyn Stream>>,
    engine: &Engine,
    queue: &mut mpsc::Receiver<Frame>,
    peer: u64,
) -> std::io::Result<()> {
    loop {
        let frame = match queue.try_recv() {
            Ok(frame) => frame,
            Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
            Err(mpsc::error::TryRecvError::Empty) => {
                stream.flush().await?;
                match queue.recv().await {
                    Some(frame) => frame,
                    None => return Ok(()),
                }
            }
        };
        let bytes = frame.encode()?;
        let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
        stream.write_u32(length).await?;
        stream.write_all(&bytes).await?;
        if frame.is_snapshot() {
            stream.flush().await?;
            engine.send(Input::SnapshotSent { peer, delivered: true });
        }
    }
}

/// Accepts peers' connections.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<PeerTls>,
    engine: Arc<Engine>,
    peers: Arc<Peers>,
    members: Arc<Vec<Member>>,
    shutdown: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(DIAL_PAUSE).await;
            continue;
        };
        let (tls, engine, peers, members, shutdown) =
            (tls.clone(), engine.clone(), peers.clone(), members.clone(), shutdown.clone());
        tokio::spawn(async move {
            let result = tokio::select! {
                () = shutdown.cancelled() => return,
                result = accept(stream, tls, &engine, &peers, &members) => result,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a peer's connection ended");
            }
        });
    }
}

async fn accept(
    stream: TcpStream,
    tls: Option<PeerTls>,
    engine: &Engine,
    peers: &Peers,
    members: &[Member],
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => receive(stream, engine, peers, members).await,
        Some(tls) => {
            let stream =
                tokio::time::timeout(DIAL_MAX, tokio_rustls::TlsAcceptor::from(tls.server).accept(stream)).await??;
            receive(stream, engine, peers, members).await
        }
    }
}

async fn receive(
    stream: impl AsyncRead + Unpin,
    engine: &Engine,
    peers: &Peers,
    members: &[Member],
) -> std::io::Result<()> {
    let mut stream = tokio::io::BufReader::with_capacity(64 * 1024, stream);
    // A connection carries one peer's messages; heartbeats come long before the first question.
    let mut from = 0;
    loop {
        let length = stream.read_u32().await? as usize;
        if length > FRAME_BYTES_MAX {
            return Err(std::io::Error::other(format!("a frame of {length} bytes")));
        }
        let mut bytes = Vec::new();
        // Space grows with what really comes, not with what was announced.
        (&mut stream).take(length as u64).read_to_end(&mut bytes).await?;
        if bytes.len() < length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match Frame::decode(&bytes)? {
            Frame::Raft(message) => {
                from = message.from;
                if message.to == engine.id && members.iter().any(|m| m.id == from) {
                    engine.send(Input::Message(message));
                }
            }
            Frame::Answer { nonce, remaining } => {
                engine.leader_answered(nonce, (remaining != i64::MIN).then_some(remaining))
            }
            Frame::Ask { nonce, lease, renew } => {
                let remaining = engine.keep_alive_here(lease, renew).await.unwrap_or(i64::MIN);
                peers.put(from, Frame::Answer { nonce, remaining });
            }
        }
    }
}
