//! A member: the first orders what all are asked, the others hand it on.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc as threads;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;

use super::{Depth, MEMBERS, client_port, log, peer_port, serve};

/// Who orders.
const FIRST: usize = 0;

/// A put, and who waits for it where.
#[derive(Clone)]
struct Entry {
    from: u8,
    id: u64,
    key: Bytes,
    value: Bytes,
}

impl Entry {
    fn encode(&self, into: &mut BytesMut) {
        into.put_u8(self.from);
        into.put_u64(self.id);
        into.put_u32(self.key.len() as u32);
        into.put_u32(self.value.len() as u32);
        into.put_slice(&self.key);
        into.put_slice(&self.value);
    }

    fn decode(from: &mut Bytes) -> Self {
        let (at, id) = (from.get_u8(), from.get_u64());
        let (key, value) = (from.get_u32() as usize, from.get_u32() as usize);
        Self { from: at, id, key: from.split_to(key), value: from.split_to(value) }
    }
}

/// What members tell each other: a length, a kind, and the rest.
mod kind {
    pub(super) const FORWARD: u8 = 0;
    pub(super) const APPEND: u8 = 1;
    pub(super) const ACK: u8 = 2;
    pub(super) const COMMIT: u8 = 3;
}

fn frame(kind: u8, number: u64, entries: &[Entry]) -> Bytes {
    let bytes = entries.iter().map(|entry| 17 + entry.key.len() + entry.value.len()).sum::<usize>();
    let mut frame = BytesMut::with_capacity(13 + bytes);
    frame.put_u32(9 + bytes as u32);
    frame.put_u8(kind);
    frame.put_u64(number);
    entries.iter().for_each(|entry| entry.encode(&mut frame));
    frame.freeze()
}

/// A value and its revision.
pub(crate) type Kept = (Bytes, i64);

/// All that a member knows.
pub(crate) struct Member {
    at: usize,
    depth: Depth,
    revision: i64,
    pub(crate) keys: BTreeMap<Bytes, Kept>,
    next_id: u64,
    waiting: HashMap<u64, oneshot::Sender<i64>>,
    /// What came while the log was at work.
    queue: Vec<Entry>,
    is_syncing: bool,
    /// Batches that aren't decided.
    batches: VecDeque<(u64, Vec<Entry>)>,
    newest: u64,
    /// How far each member has synced.
    synced: [u64; MEMBERS],
    decided: u64,
    links: Vec<Option<mpsc::UnboundedSender<Bytes>>>,
    /// Something was asked.
    asked: Rc<Notify>,
    log: Option<threads::Sender<(u64, Bytes)>>,
}

impl Member {
    /// Begins a put; when it is done its revision comes.
    pub(crate) fn put(&mut self, key: Bytes, value: Bytes) -> oneshot::Receiver<i64> {
        let (done, revision) = oneshot::channel();
        self.next_id += 1;
        let entry = Entry { from: self.at as u8, id: self.next_id, key, value };
        self.waiting.insert(entry.id, done);
        if self.depth == Depth::Serve {
            self.apply(entry);
        } else {
            self.queue.push(entry);
            self.asked.notify_one();
        }
        revision
    }

    fn send(&self, to: usize, frame: Bytes) {
        if let Some(link) = &self.links[to] {
            // A member that goes takes all with it.
            let _ = link.send(frame);
        }
    }

    /// What was asked since goes on its way; those who follow hand it on, the first orders it while its log is idle.
    fn flush(&mut self) {
        if self.queue.is_empty() || (self.at == FIRST && self.is_syncing) {
            return;
        }
        let entries = std::mem::take(&mut self.queue);
        if self.at != FIRST {
            return self.send(FIRST, frame(kind::FORWARD, 0, &entries));
        }
        let append = frame(kind::APPEND, self.newest + 1, &entries);
        for to in 1..MEMBERS {
            self.send(to, append.clone());
        }
        self.append(self.newest + 1, entries, append);
    }

    fn append(&mut self, number: u64, entries: Vec<Entry>, bytes: Bytes) {
        self.newest = number;
        self.batches.push_back((number, entries));
        match &self.log {
            Some(log) => {
                self.is_syncing = true;
                // The thread ends with this process.
                let _ = log.send((number, bytes));
            }
            None => self.has_synced(number),
        }
    }

    fn has_synced(&mut self, number: u64) {
        self.is_syncing = false;
        self.synced[self.at] = number;
        if self.at != FIRST {
            return self.send(FIRST, frame(kind::ACK, number, &[]));
        }
        self.decide();
        self.flush();
    }

    fn decide(&mut self) {
        let mut synced = self.synced;
        synced.sort_unstable();
        if synced[MEMBERS / 2] > self.decided {
            self.decided = synced[MEMBERS / 2];
            for to in 1..MEMBERS {
                self.send(to, frame(kind::COMMIT, self.decided, &[]));
            }
            self.apply_decided();
        }
    }

    fn apply_decided(&mut self) {
        while self.batches.front().is_some_and(|(number, _)| *number <= self.decided) {
            let entries = self.batches.pop_front().map(|(_, entries)| entries).unwrap_or_default();
            entries.into_iter().for_each(|entry| self.apply(entry));
        }
    }

    fn apply(&mut self, entry: Entry) {
        self.revision += 1;
        self.keys.insert(entry.key, (entry.value, self.revision));
        if usize::from(entry.from) == self.at
            && let Some(done) = self.waiting.remove(&entry.id)
        {
            // Who asked may have gone.
            let _ = done.send(self.revision);
        }
    }

    fn told(&mut self, from: usize, mut told: Bytes) {
        let whole = told.clone();
        let (kind, number) = (told.get_u8(), told.get_u64());
        match kind {
            kind::ACK => {
                self.synced[from] = number;
                self.decide();
            }
            kind::COMMIT => {
                self.decided = number;
                self.apply_decided();
            }
            _ => {
                let mut entries = Vec::new();
                while told.has_remaining() {
                    entries.push(Entry::decode(&mut told));
                }
                if kind == kind::APPEND {
                    return self.append(number, entries, whole);
                }
                self.queue.append(&mut entries);
                self.asked.notify_one();
            }
        }
    }
}

/// What one is told by another, as it comes.
async fn read(member: Rc<RefCell<Member>>, from: usize, mut stream: TcpStream) -> Result<()> {
    let mut came = BytesMut::with_capacity(1 << 20);
    loop {
        came.reserve(1 << 18);
        if stream.read_buf(&mut came).await? == 0 {
            std::process::exit(0);
        }
        while came.len() >= 4 {
            let length = u32::from_be_bytes([came[0], came[1], came[2], came[3]]) as usize;
            if came.len() < 4 + length {
                break;
            }
            came.advance(4);
            let told = came.split_to(length).freeze();
            member.borrow_mut().told(from, told);
        }
    }
}

/// What one tells another, as it is there.
async fn write(mut stream: TcpStream, mut frames: mpsc::UnboundedReceiver<Bytes>) -> Result<()> {
    let mut more = Vec::new();
    while frames.recv_many(&mut more, 64).await > 0 {
        for frame in more.drain(..) {
            stream.write_all(&frame).await?;
        }
    }
    Ok(())
}

/// Runs a member until it is ended.
pub(crate) fn run(at: usize, depth: Depth, dir: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let (told, mut synced) = mpsc::unbounded_channel();
        let path = dir.join(format!("floor-{at}.log"));
        let log = (depth == Depth::Sync).then(|| log::open(&path, told)).transpose()?;
        let member = Rc::new(RefCell::new(Member {
            at,
            depth,
            revision: 1,
            keys: BTreeMap::new(),
            next_id: 0,
            waiting: HashMap::new(),
            queue: Vec::new(),
            is_syncing: false,
            batches: VecDeque::new(),
            newest: 0,
            synced: [0; MEMBERS],
            decided: 0,
            links: (0..MEMBERS).map(|_| None).collect(),
            asked: Rc::default(),
            log,
        }));
        let flushing = Rc::clone(&member);
        tokio::task::spawn_local(async move {
            let asked = Rc::clone(&flushing.borrow().asked);
            loop {
                asked.notified().await;
                // What other connections have goes along.
                tokio::task::yield_now().await;
                flushing.borrow_mut().flush();
            }
        });
        let listener = TcpListener::bind(("127.0.0.1", peer_port(at))).await.context("listening for members")?;
        for to in (0..MEMBERS).filter(|to| *to != at) {
            let mut stream = loop {
                match TcpStream::connect(("127.0.0.1", peer_port(to))).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            };
            stream.set_nodelay(true)?;
            stream.write_u8(at as u8).await?;
            let (link, frames) = mpsc::unbounded_channel();
            member.borrow_mut().links[to] = Some(link);
            tokio::task::spawn_local(write(stream, frames));
        }
        for _ in 1..MEMBERS {
            let (mut stream, _) = listener.accept().await?;
            let from = usize::from(stream.read_u8().await?);
            tokio::task::spawn_local(read(Rc::clone(&member), from, stream));
        }
        let syncing = Rc::clone(&member);
        tokio::task::spawn_local(async move {
            while let Some(number) = synced.recv().await {
                syncing.borrow_mut().has_synced(number);
            }
        });
        let clients = TcpListener::bind(("127.0.0.1", client_port(at))).await.context("listening for clients")?;
        loop {
            let (stream, _) = clients.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(serve::connection(Rc::clone(&member), stream));
        }
    })
}
