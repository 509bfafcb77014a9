//! The engine: one thread owns the replica, one the log's files, one the state.
//!
//! They talk through bounded channels. The owner never waits for a disk: entries
//! leave for followers while the log thread syncs them, one sync covers all that
//! has gathered meanwhile, and committed entries are applied beside it all. The
//! owner's thread also serves the peers' connections: what comes from a peer, and
//! what leaves for one, wakes no other thread.
//!
//! Invariants
//!   E1  A proposer is answered once: by the state that applied its command, or with
//!       an error that says whether the command may have been made.
//!   E2  A linearizable read is answered only after the state has applied the index
//!       that a majority confirmed after the read was asked for.
//!   E3  A failed disk stops the member: nothing is acknowledged on its word.

mod apply;
mod divergence;
mod flush;
mod leader;
mod owner;
mod persist;
mod quota;
mod requests;
mod ring;
mod snapshots;
#[cfg(test)]
mod tests;
mod threads;
mod tokens;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::eraftpb::{ConfChange, ConfState, Message};
use store_core::auth::tokens::Tokens;
use store_core::errors::RequestError;
use store_core::lease::Renewal;
use store_core::membership::Members;
use store_core::mvcc::{Answer, Change};
use store_core::replica::{Replica, Timing};
use store_core::watch::{Ring, Told};
use store_core::wire::peer_answer;
use store_shared::{Bound, Published, Waiting};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admission::Admission;
use crate::config::Config;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::slow::Slow;
use crate::state::{Received, State, StateError};
use crate::trace::{Trace, TraceError};
use crate::wal::{self, Wal, WalError};
use owner::OwnerTiming;
use requests::{Answering, WAITING_BYTES_MAX, WAITING_MAX};
pub(crate) use snapshots::Copied;
use threads::Quiet;
pub(crate) use threads::run;

/// Requests and messages that wait for the owner; beyond, they are refused or dropped. What the
/// engine's own threads tell is bounded by what they were given and is never refused: the owner
/// may be waiting for them.
const INPUTS_MAX: usize = 8192;
/// Work that waits for the log thread.
const LOG_QUEUE_MAX: usize = 4096;
/// Backups that are sent at once.
const BACKUPS_MAX: usize = 2;

/// Watchers of all clients; each is some hundred bytes and a look at every change.
const WATCHERS_MAX: usize = 100_000;

/// What the owner is told.
pub(crate) enum Input {
    /// From outside the engine, and counted.
    Queued(Box<Input>),
    Message(Box<Message>),
    Propose {
        command: Bytes,
        dropped: oneshot::Sender<()>,
    },
    ProposeMembers {
        change: Box<ConfChange>,
        dropped: oneshot::Sender<()>,
    },
    /// A change of members was applied, the one in the entry of this index; without one a snapshot brought them.
    Members {
        change: Option<(u64, Box<ConfChange>)>,
        members: Box<Members>,
    },
    /// A peer says that this member was removed.
    Removed,
    /// A peer says that this member had another folder.
    Wiped,
    Read(oneshot::Sender<Result<(), RequestError>>),
    /// A step is on disk, and all before it; what may leave only then.
    Persisted {
        step: u64,
        after: Vec<Message>,
    },
    Applied {
        index: u64,
    },
    Flushed {
        index: u64,
    },
    Leases {
        granted: Vec<(i64, i64)>,
        ended: Vec<i64>,
        checkpoints: Vec<(i64, i64)>,
    },
    KeepAlive {
        lease: i64,
        renew: bool,
        reply: oneshot::Sender<Renewal>,
    },
    /// Whether this member has answered for leases without a break since then.
    Reigns {
        reign: u64,
        reply: oneshot::Sender<bool>,
    },
    /// How far a peer's log is, and the leader's own; `None` unless this member leads and knows the peer.
    Progress {
        peer: u64,
        reply: oneshot::Sender<Option<(u64, u64)>>,
    },
    /// Let another member lead; without one named, the one that is furthest.
    Transfer {
        to: Option<u64>,
    },
    /// Somebody wants a copy of the state.
    Copy(oneshot::Sender<Result<Arc<Copied>, RequestError>>),
    /// A copy of the state was made.
    Copied(Arc<Copied>),
    /// A snapshot came, files and message.
    Received {
        message: Box<Message>,
        received: Box<Received>,
        done: oneshot::Sender<()>,
    },
    SnapshotSent {
        peer: u64,
        delivered: bool,
    },
    Unreachable(u64),
    /// A peer's process has ended.
    Gone(u64),
    Failed(String),
    /// This member's state isn't the majority's.
    Diverged,
    Stop,
}

/// An answer, and the revision at which it was given.
type Outcome = Result<(Answer, i64), RequestError>;

/// What everybody may know of the member at any time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) leader: u64,
    pub(crate) term: u64,
    pub(crate) committed: u64,
}

/// Why a member ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Its disk failed.
    Storage(String),
    /// Its state isn't the majority's.
    Diverged,
    /// It isn't a member any more.
    Removed,
    /// Its folder isn't the one that it had.
    Wiped,
    /// One of its threads panicked.
    Panicked(&'static str),
}

/// The engine, as the rest of the member sees it.
pub(crate) struct Engine {
    pub(crate) id: u64,
    /// The number of its folder.
    pub(crate) folder: u64,
    pub(crate) state: State,
    inputs: UnboundedSender<Input>,
    /// Of them, requests and messages.
    queued: Bound,
    /// Each is told its outcome, and how long the state took for it.
    waiting: Waiting<Answering>,
    questions: Mutex<HashMap<u64, oneshot::Sender<Option<peer_answer::Answer>>>>,
    next_request: AtomicU64,
    /// How long a request may take.
    patience: Duration,
    next_lease: AtomicU64,
    /// Where requests are served.
    runtime: Handle,
    applied: AtomicU64,
    /// Whether the owner waits for more to be applied; else it asks by itself.
    applied_wanted: AtomicBool,
    position: watch::Sender<Position>,
    revision: watch::Sender<i64>,
    ring: Published<Ring>,
    /// Bytes of the requests that wait.
    waiting_bytes: Arc<tokio::sync::Semaphore>,
    /// What large answers hold.
    pub(crate) admission: Admission,
    /// Watchers of this member, which are bounded.
    pub(crate) watchers: Arc<tokio::sync::Semaphore>,
    /// What compaction to here left behind is deleted.
    collected: watch::Sender<i64>,
    tokens: Mutex<Tokens>,
    begun: Instant,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) slow: Slow,
    trace: Option<Trace>,
    members: watch::Sender<Members>,
    /// What peers that are far behind are sent.
    copied: Mutex<Option<Arc<Copied>>>,
    copies: PathBuf,
    next_copy: AtomicU64,
    /// Backups that are sent at once; each keeps old files on disk.
    pub(crate) backups: Arc<tokio::sync::Semaphore>,
    /// Bytes of keys, values and leases that may be live here; `None` for any number.
    quota: Option<u64>,
    /// Taken by who raises the alarm about it.
    raising: tokio::sync::Semaphore,
    /// Whether changes of members are refused that the cluster can't bear.
    strict: bool,
    pub(crate) ended: watch::Sender<Option<End>>,
    /// Tells when nobody uses the engine any more. Dropped after the state, which is closed then.
    _closed: DropGuard,
}

/// Why a member can't start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error("opening the log")]
    Wal(#[from] WalError),
    /// The state.
    #[error("opening the state")]
    State(#[from] StateError),
    /// The trace.
    #[error("tracing consensus")]
    Trace(#[from] TraceError),
    /// The system gives no means to wait for peers.
    #[error("making the runtime of the thread that owns the replica")]
    Runtime(#[source] std::io::Error),
    /// The folder.
    #[error("using {path}")]
    Folder {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What [`Engine::open`] leaves to be started.
pub(crate) struct Opened {
    pub(crate) engine: Arc<Engine>,
    /// Cancelled once nobody uses the engine any more.
    pub(crate) closed: CancellationToken,
    receiver: UnboundedReceiver<Input>,
    replica: Replica,
    wal: Wal,
    timing: OwnerTiming,
    runtime: Quiet,
}

impl Opened {
    /// Where the owner will run, and what talks to peers should.
    pub(crate) fn runtime(&self) -> Handle {
        self.runtime.handle()
    }
}

/// Where a member's leases begin: 16 bits of its number, 40 of the time, 8 to count with. A later run begins above an
/// earlier one that chose fewer than 256 a millisecond. Source: etcd `pkg/idutil`.
fn first_lease(member: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let time = u64::try_from(now % (1 << 40)).unwrap_or(0);
    (member << 48) | (time << 8)
}

impl Engine {
    /// Opens the log of a member, to go on from its state.
    fn open(config: &Config, state: State, identity: &Identity, boot: u64) -> Result<Opened, OpenError> {
        let id = identity.id;
        let copies = config.data_dir.join(snapshots::FOLDER);
        snapshots::prepare(&copies)?;
        let position = state.applied()?;
        let (applied, _) = position;
        // Before its first snapshot, one that joins knows nobody who votes: the leader will tell.
        let conf_state = if applied == 0 { ConfState::default() } else { identity.members.conf_state() };
        let (wal, log) = wal::open(&config.data_dir.join("log"), position, conf_state)?;
        let ticks = config.election_timeout.as_millis() / config.heartbeat_interval.as_millis().max(1);
        let timing = Timing::spread(usize::try_from(ticks).unwrap_or(10).max(2), 1);
        let mut replica = Replica::new(id, boot, timing, applied, log);
        let trace = config.trace_raft.as_ref().map(|path| Trace::open(path, id)).transpose()?;
        if trace.is_some() {
            replica.record();
        }
        let (inputs, receiver) = unbounded_channel();
        let runtime = Quiet::new().map_err(OpenError::Runtime)?;
        let revision = state.read().revision();
        let closed = CancellationToken::new();
        let engine = Arc::new(Self {
            id,
            folder: identity.folder,
            state,
            inputs,
            queued: Bound::new(INPUTS_MAX),
            questions: Mutex::new(HashMap::new()),
            waiting: Waiting::new(WAITING_MAX),
            // Numbers of one member never meet those of another, nor those of its earlier runs.
            next_request: AtomicU64::new(id.rotate_left(32) ^ boot),
            patience: requests::patience(config.election_timeout),
            next_lease: AtomicU64::new(first_lease(id)),
            runtime: Handle::current(),
            applied: AtomicU64::new(applied),
            applied_wanted: AtomicBool::new(true),
            position: watch::Sender::new(Position::default()),
            revision: watch::Sender::new(revision),
            ring: Published::new(Ring::new(revision)),
            waiting_bytes: Arc::new(tokio::sync::Semaphore::new(WAITING_BYTES_MAX)),
            admission: Admission::new(config.max_answer_bytes),
            watchers: Arc::new(tokio::sync::Semaphore::new(WATCHERS_MAX)),
            collected: watch::Sender::new(0),
            tokens: Mutex::new(Tokens::new(u64::try_from(config.auth_token_ttl.as_millis()).unwrap_or(u64::MAX))),
            begun: Instant::now(),
            metrics: Arc::new(Metrics::new(id, crate::grpc::VERSION)),
            slow: Slow::new(config.warning_apply_duration),
            trace,
            members: watch::Sender::new(identity.members.clone()),
            copied: Mutex::new(None),
            copies,
            next_copy: AtomicU64::new(0),
            backups: Arc::new(tokio::sync::Semaphore::new(BACKUPS_MAX)),
            quota: config.quota(),
            raising: tokio::sync::Semaphore::new(1),
            strict: config.strict_reconfig_check,
            ended: watch::Sender::new(None),
            _closed: closed.clone().drop_guard(),
        });
        let timing = OwnerTiming {
            tick: config.heartbeat_interval,
            election_timeout: config.election_timeout,
            lease_checkpoints: config.lease_checkpoint_interval,
        };
        Ok(Opened { engine, closed, receiver, replica, wal, timing, runtime })
    }

    /// Gives a request or message to the owner; `false` if too many wait or it has ended.
    pub(crate) fn send(&self, input: Input) -> bool {
        if !self.queued.enter() {
            return false;
        }
        self.inputs.send(Input::Queued(Box::new(input))).is_ok()
    }

    /// Tells the owner what one of the engine's threads did.
    fn tell(&self, input: Input) {
        // The owner has ended: there is nobody left to tell.
        let _ = self.inputs.send(input);
    }

    /// How long a request may take.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn position(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    /// Who leads, and how far the log is.
    pub(crate) fn position_now(&self) -> Position {
        *self.position.borrow()
    }

    /// Whether this member only learns, and doesn't vote yet.
    pub(crate) fn is_learner(&self) -> bool {
        self.members.borrow().get(self.id).is_some_and(|member| member.is_learner)
    }

    /// Tells of each new revision.
    pub(crate) fn revisions(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }

    /// Tells of each change of members.
    pub(crate) fn members(&self) -> watch::Receiver<Members> {
        self.members.subscribe()
    }

    /// A number for a lease whose client left the choice to us; never 0, never negative. Those of one member rise.
    pub(crate) fn next_lease(&self) -> i64 {
        (self.next_lease.fetch_add(1, Ordering::Relaxed) & (u64::MAX >> 1)).max(1).cast_signed()
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    /// Waits until nothing is left of what compaction to a revision hides.
    pub(crate) async fn collected(&self, revision: i64) -> Result<(), RequestError> {
        let (mut collected, mut ended) = (self.collected.subscribe(), self.ended.subscribe());
        tokio::select! {
            done = collected.wait_for(|to| *to >= revision) => done.map(drop).map_err(|_| RequestError::Stopped),
            _ = ended.wait_for(Option::is_some) => Err(RequestError::Stopped),
        }
    }

    /// Publishes applied changes to watchers.
    fn publish(&self, changes: Vec<Change>, revision: i64) {
        self.metrics.watching.events.inc_by(changes.len() as u64);
        let kept = self.ring.read().kept().clone();
        let told = changes.into_iter().map(|change| Arc::new(Told::new(change, &kept))).collect();
        let tell = || {
            self.revision.send_if_modified(|now| std::mem::replace(now, revision) != revision);
        };
        self.ring.publish(|ring| ring.push(told), tell);
    }

    /// Forgets everything recent, after a snapshot replaced the state.
    fn restart_ring(&self, revision: i64) {
        let tell = || {
            self.revision.send_replace(revision);
        };
        self.ring.publish(|ring| *ring = Ring::new(revision), tell);
    }
}

/// Opens the state in a member's folder.
pub(crate) async fn open_state(data_dir: PathBuf) -> Result<State, OpenError> {
    blocking(move || {
        std::fs::create_dir_all(&data_dir)
            .map_err(|source| OpenError::Folder { path: data_dir.display().to_string(), source })?;
        Ok(State::open(&data_dir.join("state"))?)
    })
    .await
}

/// Opens a member's log, to go on from its state.
pub(crate) async fn open(config: Config, state: State, identity: Identity, boot: u64) -> Result<Opened, OpenError> {
    blocking(move || Engine::open(&config, state, &identity, boot)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
