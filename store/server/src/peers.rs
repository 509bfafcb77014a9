//! Peers: raft messages over connections of their own, mutual TLS if configured.
//!
//! Each member dials each other one and sends frames. A queue that is full drops
//! messages: raft repeats what matters. A lost connection is dialled again after a
//! pause. Who is dialled follows the cluster's members.

mod accept;
mod dial;
mod frame;
mod transfer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raft::eraftpb::{Message, MessageType};
use store_core::membership::Members;
use store_core::peers::{Frame, Greeting, Purpose};
use store_core::replica::is_snapshot;
use store_core::wire::peer_answer::Answer;
use store_core::wire::peer_question::Question;
use store_core::wire::{PeerAnswer, PeerQuestion};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Input};
use crate::tls::{ClientTls, ServerTls};
pub use dial::JoinError;
pub(crate) use dial::members_at;

/// Messages that wait for a peer's connection.
const QUEUE_MESSAGES_MAX: usize = 4096;
/// Pauses before looks whether a peer has ended: what a process listened on may be closed behind its connections.
const LOOKS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_millis(1000),
];
/// Peers that greeted and that this member, being behind, doesn't know yet.
const STRANGERS_MAX: usize = 16;

/// TLS of both directions; `None` for plain connections.
#[derive(Clone)]
pub(crate) struct PeerTls {
    pub(crate) server: ServerTls,
    pub(crate) client: ClientTls,
}

/// A peer that is dialled.
struct Peer {
    urls: Vec<String>,
    queue: mpsc::Sender<Frame>,
    /// Since when it is connected.
    connected: Arc<Mutex<Option<Instant>>>,
    /// It told its URL itself; the members don't say so yet.
    is_stranger: bool,
    _stop: tokio_util::sync::DropGuard,
}

/// All peers.
pub(crate) struct Peers {
    engine: Arc<Engine>,
    cluster_id: u64,
    own_url: String,
    tls: Option<ClientTls>,
    shutdown: CancellationToken,
    peers: Mutex<HashMap<u64, Peer>>,
    /// One snapshot leaves at a time, and one comes.
    sending: Arc<Semaphore>,
    receiving: Arc<Semaphore>,
    /// Where connections are served: the owner's thread, whose messages they carry.
    owners: Handle,
    /// Where all else is: what may take long.
    runtime: Handle,
}

impl Peers {
    /// Starts with nobody; [`Peers::follow`] brings the members.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        cluster_id: u64,
        own_url: String,
        tls: Option<&PeerTls>,
        owners: Handle,
        shutdown: &CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine: engine.clone(),
            cluster_id,
            own_url,
            tls: tls.map(|t| t.client.clone()),
            shutdown: shutdown.clone(),
            peers: Mutex::new(HashMap::new()),
            sending: Arc::new(Semaphore::new(1)),
            receiving: Arc::new(Semaphore::new(1)),
            owners,
            runtime: Handle::current(),
        })
    }

    /// Accepts peers' connections until shutdown.
    pub(crate) fn serve(self: Arc<Self>, listener: TcpListener, tls: Option<PeerTls>) {
        let shutdown = self.shutdown.clone();
        self.owners.clone().spawn(accept::serve(listener, tls, self, shutdown));
    }

    /// Keeps to the cluster's members until shutdown.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut members = self.engine.members();
        loop {
            let now = members.borrow_and_update().clone();
            self.keep_to(&now);
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                changed = members.changed() => if changed.is_err() { return },
            }
        }
    }

    fn keep_to(&self, members: &Members) {
        let mut peers = self.peers.lock();
        peers.retain(|id, peer| match members.get(*id) {
            Some(member) => member.peer_ur_ls == peer.urls,
            None => peer.is_stranger && !members.was_removed(*id),
        });
        for member in members.iter().filter(|m| m.id != self.engine.id) {
            if peers.get(&member.id).is_none_or(|peer| peer.is_stranger) {
                peers.insert(member.id, self.dial(member.id, member.peer_ur_ls.clone(), false));
            }
        }
    }

    /// Somebody greeted whom the members may not name yet: a leader that was added while this member was behind must
    /// be answered, or this member would never learn of it.
    fn meet(&self, id: u64, url: &str) {
        let mut peers = self.peers.lock();
        let strangers = peers.values().filter(|peer| peer.is_stranger).count();
        if id != self.engine.id && !url.is_empty() && strangers < STRANGERS_MAX && !peers.contains_key(&id) {
            peers.insert(id, self.dial(id, vec![url.to_owned()], true));
        }
    }

    fn dial(&self, id: u64, urls: Vec<String>, is_stranger: bool) -> Peer {
        let (queue, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let stop = self.shutdown.child_token();
        let connected = Arc::new(Mutex::new(None));
        let line = dial::Line {
            engine: self.engine.clone(),
            greeting: self.greeting(Purpose::Talk, id),
            urls: urls.clone(),
            tls: self.tls.clone(),
            connected: connected.clone(),
            stop: stop.clone(),
        };
        self.owners.spawn(line.feed(receiver));
        Peer { urls, queue, connected, is_stranger, _stop: stop.drop_guard() }
    }

    /// Puts a message into its peer's queue; a full queue drops it and says so. A snapshot goes a way of its own.
    pub(crate) fn send(&self, message: Message) {
        let to = message.to;
        if is_snapshot(&message) {
            transfer::start(self, message);
            return;
        }
        let is_heartbeat = message.get_msg_type() == MessageType::MsgHeartbeat;
        if !self.put(to, Frame::Raft(Box::new(message))) {
            let metrics = &self.engine.metrics.peers;
            metrics.not_sent(to);
            if is_heartbeat {
                metrics.heartbeat_failures.inc();
            }
            self.engine.send(Input::Unreachable(to));
        }
    }

    fn greeting(&self, purpose: Purpose, to: u64) -> Greeting {
        let (cluster_id, from, url) = (self.cluster_id, self.engine.id, self.own_url.clone());
        let to_folder = self.engine.members().borrow().folder(to).unwrap_or(0);
        Greeting { purpose, cluster_id, from, to, url, from_folder: self.engine.folder, to_folder }
    }

    /// Asks the leader; the answer comes to the engine.
    pub(crate) fn ask(&self, leader: u64, nonce: u64, question: Question) {
        // A frame that may be lost: whoever waits for its answer asks again.
        self.put(leader, Frame::Question(PeerQuestion { nonce, question: Some(question) }));
    }

    fn answer(&self, to: u64, nonce: u64, answer: Option<Answer>) {
        self.put(to, Frame::Answer(PeerAnswer { nonce, answer }));
    }

    fn put(&self, to: u64, frame: Frame) -> bool {
        let peers = self.peers.lock();
        peers.get(&to).is_some_and(|peer| peer.queue.try_send(frame).is_ok())
    }

    /// Whether a peer whose connection has ended has ended itself.
    async fn has_ended(&self, id: u64) -> bool {
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            if self.refuses(id).await {
                return true;
            }
        }
        false
    }

    /// Whether nobody listens at a peer's URLs, as the system of its machine says. A machine that doesn't answer says
    /// nothing.
    async fn refuses(&self, id: u64) -> bool {
        let urls = self.peers.lock().get(&id).map(|peer| peer.urls.clone()).unwrap_or_default();
        for url in &urls {
            if !dial::is_refused(url).await {
                return false;
            }
        }
        !urls.is_empty()
    }

    /// For how long a peer has been connected; `None` if it isn't.
    pub(crate) fn connected_for(&self, id: u64) -> Option<Duration> {
        let peers = self.peers.lock();
        let since = *peers.get(&id)?.connected.lock();
        since.map(|since| since.elapsed())
    }
}
