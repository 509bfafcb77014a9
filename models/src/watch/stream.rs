//! A stream: the task that serves a client's watchers, as `store/server/src/grpc/watch.rs` does.
//!
//! Each step is what the task does between two looks at what it shares with the state thread: its turn, the read, and
//! the look at the compacted revision after it, with which it gives.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use store_core::watch::Cursor;

use super::history::{Event, Wanted};
use super::replica::Replica;

/// A seeded bug of the shell: what the check must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mutant {
    /// Nobody looks at the compacted revision after a slice was read.
    CheckOnce,
    /// A revision is published before its changes are in the ring.
    PublishFirst,
    /// The ring goes on after a snapshot replaced the state.
    KeepRing,
    /// A slice of the past ends in the middle of a revision.
    SplitRevision,
    /// Progress is told of what is published when it is told, not when the watchers were fed.
    ProgressNow,
    /// A watcher of the present begins later than its answer says.
    HeaderFirst,
    /// What is published while the stream feeds its watchers doesn't wake it.
    LoseWake,
    /// Progress is told of whatever is published to watchers that begin later.
    ProgressBack,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Request {
    /// A watcher from a revision on; 0: from the next one.
    Create { id: usize, wanted: Wanted, start: i64 },
    /// How far the stream's watchers are.
    Progress,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// The watcher is there; the revision that is published.
    Created(usize, i64),
    Events {
        id: usize,
        events: Vec<Event>,
        from_disk: bool,
    },
    /// One watcher, or all of the stream, have all up to a revision.
    Progress(Option<usize>, i64),
    /// Compaction to a revision overtook a watcher.
    Compacted(usize, i64),
}

/// A watcher, on the stream's side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Watcher {
    id: usize,
    wanted: Wanted,
    cursor: Cursor,
}

/// What follows when the watchers are fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Then {
    Nothing,
    /// The client asked for progress.
    Answer,
    /// It is time to tell each watcher of it.
    Tell,
}

/// Where the turn of a watcher is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Turn,
    Read,
    Give { events: Vec<Event>, reached: i64, from_disk: bool },
}

/// What the task is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    Idle,
    /// The answer to a client that wants a watcher is decided on, with this revision.
    Creating {
        id: usize,
        wanted: Wanted,
        start: i64,
        published: i64,
    },
    /// Gives watchers all up to a revision, one after the other: places of those that are left.
    Feeding {
        to: i64,
        left: VecDeque<usize>,
        stage: Stage,
        then: Then,
    },
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    /// The member that serves it.
    pub(super) at: usize,
    watchers: Vec<Watcher>,
    pub(super) requests: VecDeque<Request>,
    /// Up to where it has noticed that something is published.
    noticed: i64,
    task: Task,
    /// On their way to the client.
    pub(super) out: VecDeque<Answer>,
}

impl Hash for Stream {
    /// All but who serves it, which is no name: that member's digest says so.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { at: _, watchers, requests, noticed, task, out } = self;
        (watchers, requests, noticed, task, out).hash(hasher);
    }
}

/// What may be done next by the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// It is told that there is a new revision.
    Wake,
    /// It takes the client's next request.
    Take,
    /// It is time to tell of progress.
    Tick,
    /// It goes on with what it is about.
    GoOn,
}

impl Stream {
    pub(super) fn new(at: usize, replica: &Replica) -> Self {
        Self {
            at,
            watchers: Vec::new(),
            requests: VecDeque::new(),
            noticed: replica.published,
            task: Task::Idle,
            out: VecDeque::new(),
        }
    }

    /// Whether it waits for something to happen.
    pub(super) fn is_idle(&self) -> bool {
        self.task == Task::Idle
    }

    /// Whether it waits for something to happen, and everything has.
    pub(super) fn rests(&self, replica: &Replica) -> bool {
        self.is_idle() && self.requests.is_empty() && self.out.is_empty() && self.noticed == replica.published
    }

    pub(super) fn moves(&self, replica: &Replica, room: usize, moves: &mut Vec<Move>) {
        match &self.task {
            Task::Idle => {
                if self.noticed != replica.published {
                    moves.push(Move::Wake);
                }
                if !self.requests.is_empty() {
                    moves.push(Move::Take);
                }
                if !self.watchers.is_empty() {
                    moves.push(Move::Tick);
                }
            }
            Task::Creating { .. } => moves.push(Move::GoOn),
            Task::Feeding { stage, .. } => {
                let waiting = self.out.iter().filter(|answer| matches!(answer, Answer::Events { .. })).count();
                // First room, then events.
                if *stage != Stage::Turn || waiting < room {
                    moves.push(Move::GoOn);
                }
            }
        }
    }

    pub(super) fn step(&mut self, step: Move, replica: &Replica, mutant: Option<Mutant>) {
        match step {
            Move::Wake => {
                self.noticed = replica.published;
                self.feed(Then::Nothing, replica);
            }
            Move::Tick => self.feed(Then::Tell, replica),
            Move::Take => match self.requests.pop_front() {
                Some(Request::Create { id, wanted, start }) => {
                    self.task = Task::Creating { id, wanted, start, published: replica.published };
                }
                Some(Request::Progress) => self.feed(Then::Answer, replica),
                None => {}
            },
            Move::GoOn => self.go_on(replica, mutant),
        }
        self.settle(replica, mutant);
    }

    /// Gives every watcher what is published now, and no more.
    fn feed(&mut self, then: Then, replica: &Replica) {
        let left = (0..self.watchers.len()).collect();
        self.task = Task::Feeding { to: replica.published, left, stage: Stage::Turn, then };
    }

    fn go_on(&mut self, replica: &Replica, mutant: Option<Mutant>) {
        match std::mem::replace(&mut self.task, Task::Idle) {
            Task::Idle => {}
            Task::Creating { id, wanted, start, published } => {
                let begins = if mutant == Some(Mutant::HeaderFirst) { replica.published } else { published };
                self.watchers.push(Watcher { id, wanted, cursor: Cursor::new(start, begins) });
                self.out.push_back(Answer::Created(id, published));
                let left = VecDeque::from([self.watchers.len() - 1]);
                self.task = Task::Feeding { to: replica.published, left, stage: Stage::Turn, then: Then::Nothing };
            }
            Task::Feeding { to, mut left, stage, then } => {
                let Some(place) = left.front().copied() else { return };
                let next = self.turn(place, to, stage, replica, mutant);
                if next.is_none() {
                    left.pop_front();
                }
                self.task = Task::Feeding { to, left, stage: next.unwrap_or(Stage::Turn), then };
            }
        }
    }

    /// A step of a watcher's turn; `None` ends it.
    fn turn(
        &mut self,
        place: usize,
        to: i64,
        stage: Stage,
        replica: &Replica,
        mutant: Option<Mutant>,
    ) -> Option<Stage> {
        let watcher = &mut self.watchers[place];
        let compacted = replica.mvcc.compacted();
        match stage {
            Stage::Turn if watcher.cursor.is_overtaken(compacted) => {
                watcher.cursor.end();
                self.out.push_back(Answer::Compacted(watcher.id, compacted));
                None
            }
            Stage::Turn => Some(Stage::Read),
            Stage::Read => {
                let (slice, from_disk) = replica.slice(watcher.cursor.next(), to, watcher.wanted, mutant);
                let event = |told: &std::sync::Arc<store_core::watch::Told>| {
                    (told.at.main, told.at.sub, told.key[0], told.is_deletion)
                };
                let events = slice.events.iter().map(event).collect();
                Some(Stage::Give { events, reached: slice.reached, from_disk })
            }
            Stage::Give { .. } if watcher.cursor.is_overtaken(compacted) && mutant != Some(Mutant::CheckOnce) => {
                Some(Stage::Turn)
            }
            Stage::Give { events, reached, from_disk } => {
                watcher.cursor.given(reached);
                if !events.is_empty() {
                    self.out.push_back(Answer::Events { id: watcher.id, events, from_disk });
                }
                Some(Stage::Turn)
            }
        }
    }

    /// Goes to the next watcher that is behind; after the last one, to what follows.
    fn settle(&mut self, replica: &Replica, mutant: Option<Mutant>) {
        let Task::Feeding { to, left, stage: Stage::Turn, then } = &mut self.task else { return };
        while left.front().is_some_and(|place| !self.watchers[*place].cursor.is_behind(*to)) {
            left.pop_front();
        }
        if !left.is_empty() {
            return;
        }
        let (reached, then) = (if mutant == Some(Mutant::ProgressNow) { replica.published } else { *to }, *then);
        let has_all = |cursor: &Cursor| match mutant {
            Some(Mutant::ProgressNow) => cursor.has_all(*to),
            Some(Mutant::ProgressBack) => !cursor.has_ended() && !cursor.is_behind(*to),
            _ => cursor.has_all(reached),
        };
        match then {
            Then::Nothing => {}
            Then::Answer => {
                let all = match mutant {
                    None => Cursor::have_all(self.watchers.iter().map(|watcher| &watcher.cursor), reached),
                    Some(_) => {
                        let mut live = self.watchers.iter().filter(|watcher| !watcher.cursor.has_ended()).peekable();
                        live.peek().is_some() && live.all(|watcher| has_all(&watcher.cursor))
                    }
                };
                if all {
                    self.out.push_back(Answer::Progress(None, reached));
                }
            }
            Then::Tell => {
                let told = self.watchers.iter().filter(|watcher| has_all(&watcher.cursor));
                self.out.extend(told.map(|watcher| Answer::Progress(Some(watcher.id), reached)));
            }
        }
        if mutant == Some(Mutant::LoseWake) {
            self.noticed = replica.published;
        }
        self.task = Task::Idle;
    }
}
