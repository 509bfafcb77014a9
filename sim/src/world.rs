//! The cluster and everybody around it, moved by one queue of events.

use std::collections::{BTreeMap, BTreeSet};

use models::history::Operation;
use raft::eraftpb::{Message, MessageType};
use store_core::membership::Members;
use store_core::replica::Retention;
use store_core::trace;
use store_core::wire::Member as Wire;

use crate::canon::Canon;
use crate::chance::Chance;
use crate::clients::{Client, compact};
use crate::event::Event;
use crate::holders::Holder;
use crate::member::{Input, Member, Origin, Reply, Want};
use crate::mutant::Mutant;
use crate::network::{self, Fate, Frame, Link};
use crate::pods::{Happened, Pods, STORE};
use crate::queue::{MS, Queue, SECOND, Time};
use crate::run::Workload;
use crate::stream::Answer;
use crate::watchers::Watcher;

/// How fast the fastest clock goes, and how slow the slowest, in millionths.
pub(crate) const RATE_MAX: u64 = 1_100_000;
const RATE_MIN: u64 = 900_000;
/// Members that may join.
const JOINERS: u64 = 4;
/// Inputs are held back for a member that stands still; more come to nothing.
const FRAMES_HELD_MAX: usize = 4096;

/// What a run's chance decided at its beginning.
pub(crate) struct Limits {
    pub(crate) segment_bytes: u64,
    pub(crate) retention: Retention,
    pub(crate) flush_entries: u64,
    pub(crate) ring_changes: usize,
    pub(crate) checkpoint_ms: u64,
    /// Between a client's calls, about.
    pub(crate) think: Time,
    /// Of a message, at least.
    latency: Time,
    sync: Time,
    /// The state thread is slow once in so many times.
    pub(crate) slow_apply: u64,
    /// Between faults, about.
    pub(crate) fault_every: Time,
}

/// What everybody needs.
pub(crate) struct Shared {
    pub(crate) queue: Queue<Event>,
    pub(crate) chance: Chance,
    pub(crate) canon: Canon,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) limits: Limits,
    pub(crate) operations: Vec<Operation>,
    /// Members at most, those that may join and those that were removed among them.
    places: u64,
    pub(crate) founders: Members,
    links: Vec<Link>,
    /// Members come and go.
    pub(crate) is_moving: bool,
    /// Who was to be removed, and may be.
    pub(crate) to_go: BTreeSet<u64>,
    /// Bits flip on disks.
    pub(crate) flips: bool,
    /// Members whose disk was found to be damaged.
    pub(crate) ruined: u64,
    /// Nothing breaks any more.
    pub(crate) calm: bool,
    pub(crate) crashes: u64,
    /// What each member did, as it would trace it; `None`: nobody asks. The stores under pods are those under keys.
    pub(crate) traces: Option<BTreeMap<u64, Vec<trace::Event>>>,
}

/// All of it.
pub(crate) struct World {
    pub(crate) shared: Shared,
    pub(crate) members: Vec<Member>,
    pub(crate) clients: Vec<Client>,
    pub(crate) holders: Vec<Holder>,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) pods: Option<Box<Pods>>,
}

impl Shared {
    pub(crate) fn link(&mut self, from: u64, to: u64) -> &mut Link {
        let place = (from - 1) * self.places + to - 1;
        &mut self.links[place as usize]
    }

    /// A member's trace goes on.
    pub(crate) fn trace(&mut self, member: u64, events: impl IntoIterator<Item = trace::Event>) {
        if let Some(traces) = &mut self.traces {
            traces.entry(member).or_default().extend(events);
        }
    }

    /// Sends a frame to a peer.
    pub(crate) fn send(&mut self, from: u64, to: u64, frame: Frame) {
        let slow = if self.chance.once_in(300) { self.chance.below(300 * MS) } else { 0 };
        let delay = self.limits.latency + self.chance.below(self.limits.latency) + slow;
        let now = self.queue.now();
        let delay = delay + if self.calm { 0 } else { self.tempt(from, &frame) };
        match self.link(from, to).send(now, delay) {
            Some((at, connection)) => self.queue.at(at, Event::Deliver { from, to, connection, frame }),
            None if self.chance.once_in(4) => self.queue.after(MS, Event::Unreachable { from, to }),
            None => {}
        }
    }

    /// Where much is at stake, more happens: votes are late, and who has just voted crashes; so do members that have just
    /// started and ask for a read, which arrives when they are back.
    fn tempt(&mut self, from: u64, frame: &Frame) -> Time {
        let Frame::Raft(message) = frame else { return 0 };
        match message.msg_type {
            MessageType::MsgRequestVote if self.chance.once_in(6) => self.chance.below(500 * MS),
            MessageType::MsgRequestVoteResponse if self.chance.once_in(6) => {
                let wait = self.chance.below(3 * MS);
                self.queue.after(wait, Event::Crash(from));
                0
            }
            MessageType::MsgReadIndex if asks_early(message) && self.chance.once_in(4) => {
                let crash = self.chance.below(3 * MS);
                self.queue.after(crash, Event::Crash(from));
                self.queue.after(crash + MS, Event::Start(from));
                network::DIAL_PAUSE + self.chance.below(100 * MS)
            }
            MessageType::MsgReadIndexResp if asks_early(message) && self.chance.once_in(2) => {
                self.chance.below(500 * MS)
            }
            _ => 0,
        }
    }

    /// How long a message between a client and a member takes.
    pub(crate) fn hop(&mut self) -> Time {
        let slow = if self.chance.once_in(200) { self.chance.below(500 * MS) } else { 0 };
        50 + self.chance.below(400) + slow
    }

    /// How long a sync takes.
    pub(crate) fn sync_time(&mut self) -> Time {
        let slow = if self.chance.once_in(500) { self.chance.below(400 * MS) } else { 0 };
        self.limits.sync + self.chance.below(self.limits.sync) + slow
    }

    pub(crate) fn any_member(&mut self) -> u64 {
        let present = self.canon.members.iter().count();
        let place = self.chance.place(present);
        self.canon.members.iter().nth(place).map_or(1, |member| member.id)
    }

    pub(crate) fn places(&self) -> u64 {
        self.places
    }
}

impl World {
    pub(crate) fn new(workload: Workload, seed: u64, members: u64, mutant: Option<Mutant>) -> Self {
        let mut chance = Chance::new(seed);
        let limits = Limits {
            segment_bytes: 1 << chance.between(9, 15),
            retention: Retention { entries: chance.between(2, 100) as usize, bytes: 1 << 20, bytes_max: 4 << 20 },
            flush_entries: chance.between(5, 60),
            ring_changes: chance.between(1, 100) as usize,
            checkpoint_ms: chance.between(300, 2000),
            think: chance.between(10, 300) * MS,
            latency: chance.between(50, 3000),
            sync: chance.between(50, 5000),
            slow_apply: if chance.once_in(3) { chance.between(5, 40) } else { 1000 },
            fault_every: chance.between(500, 6000) * MS,
        };
        let founder = |id: u64| Wire { id, name: format!("m{id}"), ..Wire::default() };
        let founders = Members::new(7, (1..=members).map(founder));
        // In every second run members come and go, in every second bits flip; whose disk is damaged is made up for.
        let (is_moving, flips) = (chance.once_in(2), chance.once_in(2) && members > 2);
        let places = if is_moving || flips { members + JOINERS } else { members };
        let links = (0..places * places).map(|_| Link::default()).collect();
        let nodes = (1..=places).map(|id| Member::new(id, chance.between(RATE_MIN, RATE_MAX), &founders)).collect();
        let clients = chance.between(2, 5) as usize;
        let holders = chance.between(1, 3) as usize;
        let ranges = [("k", "l"), ("k1", "k2"), ("a", "z")];
        let operations = Vec::new();
        let (queue, canon) = (Queue::new(), Canon::new(&founders));
        let shared = Shared {
            queue,
            chance,
            canon,
            mutant,
            limits,
            operations,
            places,
            founders,
            links,
            is_moving,
            to_go: BTreeSet::new(),
            flips,
            ruined: 0,
            calm: false,
            crashes: 0,
            traces: (workload == Workload::Kv).then(BTreeMap::new),
        };
        let is_kv = workload == Workload::Kv;
        let (clients, holders) = if is_kv { (clients, holders) } else { (0, 0) };
        Self {
            pods: (!is_kv).then(|| Box::new(Pods::new(seed, mutant))),
            clients: (0..clients).map(|number| Client::new(number, number as u64 % members + 1)).collect(),
            holders: (clients..clients + holders).map(Holder::new).collect(),
            watchers: ranges.into_iter().filter(|_| is_kv).map(Watcher::new).collect(),
            members: nodes,
            shared,
        }
    }

    /// Starts all.
    pub(crate) fn begin(&mut self) {
        for id in 1..=self.shared.places {
            let wait = self.shared.chance.below(200 * MS);
            self.shared.queue.after(wait, Event::Start(id));
        }
        for number in 0..self.clients.len() + self.holders.len() {
            let wait = self.shared.chance.below(500 * MS);
            self.shared.queue.after(wait, Event::Ask(number));
        }
        for (watcher, client) in self.watchers.iter_mut().enumerate() {
            client.connect(watcher, &mut self.shared);
        }
        if self.pods.is_some() {
            self.shared.queue.after(0, Event::BeginPods);
        } else {
            self.shared.queue.after(SECOND, Event::Stir);
        }
        self.shared.queue.after(5 * SECOND, Event::Compact);
        self.shared.queue.after(SECOND, Event::Break);
        self.shared.queue.after(3 * SECOND, Event::Administer);
    }

    pub(crate) fn member(&mut self, id: u64) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    /// Goes on until a time, or until something is violated.
    pub(crate) fn run_until(&mut self, end: Time) {
        while self.shared.queue.now() < end && self.shared.canon.violations.is_empty() {
            let Some(event) = self.shared.queue.next() else { return };
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        let about = match &event {
            Event::Tick(id, _)
            | Event::Owner(id, _)
            | Event::Written(id, _)
            | Event::State(id, _)
            | Event::Flushed(id, _)
            | Event::Retry(id, ..)
            | Event::Read(id, ..)
            | Event::Stream(id, ..) => Some(*id),
            Event::Call { at, .. } | Event::Watch { at, .. } | Event::Unwatch { at, .. } | Event::WentOn { at, .. } => {
                Some(*at)
            }
            Event::Deliver { to, .. } => Some(*to),
            Event::Transfer { message, .. } => Some(message.to),
            Event::Unreachable { from, .. } | Event::SnapshotSent { from, .. } => Some(*from),
            Event::Gone { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(id) = about {
            let paused_until = self.member(id).paused_until;
            if paused_until > self.shared.queue.now() {
                // It stands still: all that it would do waits, in order.
                self.shared.queue.at(paused_until, event);
                return;
            }
            return self.happen_at(id, event);
        }
        match event {
            Event::Ask(number) => match self.clients.get_mut(number) {
                Some(client) => client.ask(&mut self.shared),
                None => {
                    let place = number - self.clients.len();
                    if let Some(holder) = self.holders.get_mut(place) {
                        holder.ask(&mut self.shared);
                    }
                }
            },
            Event::BeginPods => self.pods_turn(Happened::Begin),
            Event::BreakPods => self.pods_turn(Happened::Break),
            Event::Later(what) => self.pods_turn(Happened::Later(what)),
            Event::Reply { client: STORE, number, reply } => self.pods_turn(Happened::Reply(number, reply)),
            Event::Told { watcher: STORE, generation, answer } => self.pods_turn(Happened::Told(generation, answer)),
            Event::Reply { client, number, reply } => self.reply(client, number, reply),
            Event::GiveUp { client, number } => self.reply(client, number, Reply::Unknown("no answer in time")),
            Event::Told { watcher, generation, answer } => {
                self.watchers[watcher].take(watcher, generation, answer, &mut self.shared);
            }
            Event::Doubt { watcher, generation } => {
                let client = &mut self.watchers[watcher];
                if client.generation == generation && !client.open {
                    client.connect(watcher, &mut self.shared);
                }
            }
            Event::Reconnect { watcher, generation } => {
                let client = &mut self.watchers[watcher];
                if client.generation == generation {
                    client.connect(watcher, &mut self.shared);
                }
            }
            Event::Stir => self.stir(),
            Event::Compact => self.compact(),
            Event::Administer => self.administer(),
            Event::Break => self.break_something(),
            Event::Mend(fault) => self.mend(fault),
            Event::Start(id) => self.start(id),
            Event::Crash(id) if !self.shared.calm => self.crash(id),
            _ => {}
        }
    }

    /// Something happens in the cluster that runs pods.
    fn pods_turn(&mut self, happened: Happened) {
        let Self { shared, pods: Some(pods), .. } = self else { return };
        let now = shared.queue.now();
        for (at, event) in pods.turn(now, &mut shared.canon, happened) {
            shared.queue.at(at, event);
        }
    }

    fn reply(&mut self, client: usize, number: u64, reply: Reply) {
        let place = client.wrapping_sub(self.clients.len());
        match self.clients.get_mut(client) {
            Some(client) => client.answered(number, reply, &mut self.shared),
            None => {
                if let Some(holder) = self.holders.get_mut(place) {
                    holder.answered(number, reply, &mut self.shared);
                }
            }
        }
    }

    /// Something happens at a member.
    fn happen_at(&mut self, id: u64, event: Event) {
        let Self { shared, members, .. } = self;
        let Some(run) = &mut members[id as usize - 1].run else { return refuse(event, shared) };
        match event {
            Event::Tick(_, boot) if boot == run.boot => run.tick(shared),
            Event::Owner(_, boot) if boot == run.boot => run.own(shared),
            Event::Written(_, boot) if boot == run.boot => run.written(shared),
            Event::State(_, boot) if boot == run.boot => run.work(shared),
            Event::Flushed(_, boot) if boot == run.boot => run.flushed(shared),
            Event::Retry(_, boot, token) if boot == run.boot => run.retry(token, shared),
            Event::Read(_, boot, token) if boot == run.boot => run.read_now(token, shared),
            Event::Stream(_, boot, id) if boot == run.boot => run.feed(id, shared),
            Event::Deliver { from, to, connection, frame } => {
                let link = shared.link(from, to);
                match link.fate {
                    Fate::Held if link.held.len() < FRAMES_HELD_MAX => link.held.push_back(frame),
                    _ if !link.carries(connection) => {}
                    _ => match frame {
                        Frame::Raft(message) => run.tell(Input::Message(Box::new(message)), shared),
                        Frame::Question { nonce, lease } => {
                            run.call(Origin::Peer(from, nonce), Want::Renew(lease), shared);
                        }
                        Frame::Answer { nonce, seconds } => run.answered(nonce, seconds, shared),
                    },
                }
            }
            Event::Unreachable { to, .. } => run.tell(Input::Unreachable(to), shared),
            Event::Gone { peer, .. } => run.tell(Input::Gone(peer), shared),
            Event::Transfer { message, content } => {
                let (from, to) = (message.from, message.to);
                if shared.link(from, to).fate == Fate::Open {
                    run.tell(Input::Received(message, content), shared);
                } else {
                    shared.queue.after(SECOND, Event::SnapshotSent { from, to, delivered: false });
                }
            }
            Event::SnapshotSent { to, delivered, .. } => run.tell(Input::SnapshotSent { peer: to, delivered }, shared),
            Event::Call { client, number, want, .. } => run.call(Origin::Client(client, number), want, shared),
            Event::Watch { id, wanted, start, before, .. } => run.watch(id, wanted, start, before, shared),
            Event::Unwatch { id, .. } => drop(run.streams.remove(&id)),
            Event::WentOn { id, asks, .. } => run.watcher_went_on(id, asks, shared),
            _ => {}
        }
        if run.left {
            return self.end(id);
        }
        if let Some(fault) = run.failed.take() {
            self.fail(id, fault);
        }
    }

    /// Watchers move on, or ask how far they are.
    fn stir(&mut self) {
        let Self { shared, watchers, .. } = self;
        shared.queue.after(500 * MS, Event::Stir);
        let watcher = shared.chance.place(watchers.len());
        let client = &mut watchers[watcher];
        if shared.chance.once_in(6) {
            client.connect(watcher, shared);
        } else if client.open {
            let (at, generation, wait) = (client.at, client.generation, shared.hop());
            shared.queue.after(wait, Event::WentOn { id: (watcher, generation), at, asks: true });
        }
    }

    fn compact(&mut self) {
        let shared = &mut self.shared;
        let wait = shared.chance.between(SECOND, 10 * SECOND);
        shared.queue.after(wait, Event::Compact);
        let newest = shared.canon.revision();
        let revision = newest - shared.chance.below(60).min(newest as u64 - 1) as i64;
        // Nobody waits for the answer.
        let (client, at) = (usize::MAX, shared.any_member());
        shared.queue.after(0, Event::Call { client, number: 0, at, want: compact(revision) });
    }
}

/// Whether a read is one of the first that a member asks for since it started: by its context.
fn asks_early(message: &Message) -> bool {
    let context = message.entries.first().and_then(|entry| entry.data.get(16..24));
    context.and_then(|count| count.try_into().ok()).is_some_and(|count| u64::from_be_bytes(count) <= 2)
}

/// A member that doesn't run is asked for something.
fn refuse(event: Event, shared: &mut Shared) {
    match event {
        Event::Call { client, number, .. } => {
            let wait = shared.hop();
            let reply = Reply::Refused("connection refused".to_owned());
            shared.queue.after(wait, Event::Reply { client, number, reply });
        }
        Event::Watch { id: (watcher, generation), .. } => {
            let wait = shared.hop();
            shared.queue.after(wait, Event::Told { watcher, generation, answer: Answer::Broken });
        }
        Event::Deliver { from, to, .. } => {
            let now = shared.queue.now();
            shared.link(from, to).reset(now, true);
            shared.queue.after(MS, Event::Unreachable { from, to });
        }
        Event::Transfer { message, .. } => {
            let (from, to) = (message.from, message.to);
            shared.queue.after(MS, Event::SnapshotSent { from, to, delivered: false });
        }
        _ => {}
    }
}
