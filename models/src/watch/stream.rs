//! A stream: the task that serves a client's watchers, as `store/server/src/grpc/watch.rs` does.
//!
//! Each step is what the task does between two looks at what it shares with the state thread: its turn, the read, and
//! the look at the compacted revision after it, with which it gives. Who stands elsewhere than the others has his turn
//! first; then come those who stand together, all at once; then whoever still lacks something.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use store_core::watch::{Cursor, Told};

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
    /// Who found no room among those who are told together counts as told.
    SkipFull,
    /// Who is told together counts as told of all that is published, however much there was room for in one answer.
    CountAll,
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
        source: Source,
    },
    /// One watcher, or all of the stream, have all up to a revision.
    Progress(Option<usize>, i64),
    /// Compaction to a revision overtook a watcher.
    Compacted(usize, i64),
}

/// Where events were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Ring,
    Disk,
    /// In the ring, for all who stand together.
    Together,
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

/// Who is to be told, by his place, and of what.
pub(super) type ToTell = Vec<(usize, Vec<Event>)>;

/// Where the turn of a watcher is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Turn,
    Read,
    Give {
        events: Vec<Event>,
        reached: i64,
        source: Source,
    },
    /// What was read for all who stand together.
    GiveAll {
        told: ToTell,
        reached: i64,
    },
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Turn {
    /// Of those who don't stand at this revision with the others.
    Elsewhere(i64),
    /// Of those who do, at once.
    Together(i64),
    /// Of whoever lacks something.
    Rest,
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
    /// Gives watchers all up to a revision: places of those that are left, who have their turns one after the other.
    Feeding {
        to: i64,
        turn: Turn,
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
    /// Those who have all that was published at the last turn read on from here.
    together: i64,
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
        let Self { at: _, watchers, together, requests, noticed, task, out } = self;
        (watchers, together, requests, noticed, task, out).hash(hasher);
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
            together: 0,
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
                // First room, then events.
                if *stage != Stage::Turn || self.waiting() < room {
                    moves.push(Move::GoOn);
                }
            }
        }
    }

    /// Answers with events that the client hasn't taken.
    pub(super) fn waiting(&self) -> usize {
        self.out.iter().filter(|answer| matches!(answer, Answer::Events { .. })).count()
    }

    pub(super) fn step(&mut self, step: Move, replica: &Replica, room: usize, mutant: Option<Mutant>) {
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
            Move::GoOn => self.go_on(replica, room, mutant),
        }
        self.settle(replica, mutant);
    }

    /// Gives every watcher what is published now, and no more.
    fn feed(&mut self, then: Then, replica: &Replica) {
        let to = replica.published;
        let from = std::mem::replace(&mut self.together, to + 1);
        let left = self.lacking(to, |cursor| !goes_along(cursor, from));
        self.task = Task::Feeding { to, turn: Turn::Elsewhere(from), left, stage: Stage::Turn, then };
    }

    /// Places of watchers that lack something up to a revision.
    fn lacking(&self, to: i64, whom: impl Fn(&Cursor) -> bool) -> VecDeque<usize> {
        let places = self.watchers.iter().enumerate();
        places.filter(|(_, one)| one.cursor.is_behind(to) && whom(&one.cursor)).map(|(place, _)| place).collect()
    }

    fn go_on(&mut self, replica: &Replica, room: usize, mutant: Option<Mutant>) {
        match std::mem::replace(&mut self.task, Task::Idle) {
            Task::Idle => {}
            Task::Creating { id, wanted, start, published } => {
                let begins = if mutant == Some(Mutant::HeaderFirst) { replica.published } else { published };
                self.watchers.push(Watcher { id, wanted, cursor: Cursor::new(start, begins) });
                self.out.push_back(Answer::Created(id, published));
                let left = VecDeque::from([self.watchers.len() - 1]);
                let (to, turn, stage) = (replica.published, Turn::Rest, Stage::Turn);
                self.task = Task::Feeding { to, turn, left, stage, then: Then::Nothing };
            }
            Task::Feeding { to, turn: Turn::Together(from), stage, then, .. } => {
                let (turn, stage) = self.turn_together((from, to), stage, replica, room, mutant);
                let left = if turn == Turn::Rest { self.lacking(to, |_| true) } else { VecDeque::new() };
                self.task = Task::Feeding { to, turn, left, stage, then };
            }
            Task::Feeding { to, turn, mut left, stage, then } => {
                let Some(place) = left.front().copied() else { return };
                let next = self.turn(place, to, stage, replica, mutant);
                if next.is_none() {
                    left.pop_front();
                }
                self.task = Task::Feeding { to, turn, left, stage: next.unwrap_or(Stage::Turn), then };
            }
        }
    }

    /// A step of the turn of all who stand at a revision.
    fn turn_together(
        &mut self,
        (from, to): (i64, i64),
        stage: Stage,
        replica: &Replica,
        room: usize,
        mutant: Option<Mutant>,
    ) -> (Turn, Stage) {
        let compacted = replica.mvcc.compacted();
        match stage {
            Stage::Turn => (Turn::Together(from), Stage::Read),
            Stage::Read => {
                let wanted = self.watchers.iter().map(|watcher| watcher.wanted);
                match replica.heard(from, to, wanted) {
                    Some((told, reached)) => (Turn::Together(from), Stage::GiveAll { told, reached }),
                    None => (Turn::Rest, Stage::Turn),
                }
            }
            Stage::GiveAll { told, reached } if reached >= from && from >= compacted => {
                let reached = if mutant == Some(Mutant::CountAll) { to } else { reached };
                let others = self.give_all(from, told, reached, room, mutant);
                (Turn::Together(if others { from } else { reached + 1 }), Stage::Turn)
            }
            Stage::Give { .. } | Stage::GiveAll { .. } => (Turn::Rest, Stage::Turn),
        }
    }

    /// Tells those who stand at a revision as far as there is room; whether there wasn't for all of them.
    fn give_all(&mut self, from: i64, told: ToTell, reached: i64, room: usize, mutant: Option<Mutant>) -> bool {
        let mut others = Vec::new();
        for (place, events) in told {
            let watcher = &self.watchers[place];
            if !goes_along(&watcher.cursor, from) {
                continue;
            }
            if self.waiting() < room {
                self.out.push_back(Answer::Events { id: watcher.id, events, source: Source::Together });
            } else {
                others.push(place);
            }
        }
        for (place, watcher) in self.watchers.iter_mut().enumerate() {
            let is_told = !others.contains(&place) || mutant == Some(Mutant::SkipFull);
            if goes_along(&watcher.cursor, from) && is_told {
                watcher.cursor.given(reached);
            }
        }
        !others.is_empty()
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
                let (slice, source) = replica.slice(watcher.cursor.next(), to, watcher.wanted, mutant);
                let events = slice.events.iter().map(event).collect();
                Some(Stage::Give { events, reached: slice.reached, source })
            }
            Stage::Give { .. } if watcher.cursor.is_overtaken(compacted) && mutant != Some(Mutant::CheckOnce) => {
                Some(Stage::Turn)
            }
            Stage::Give { events, reached, source } => {
                watcher.cursor.given(reached);
                if !events.is_empty() {
                    self.out.push_back(Answer::Events { id: watcher.id, events, source });
                }
                Some(Stage::Turn)
            }
            Stage::GiveAll { .. } => None,
        }
    }

    /// Goes to the next watcher that is behind; after the last one, to those who stand together, and to what follows.
    fn settle(&mut self, replica: &Replica, mutant: Option<Mutant>) {
        loop {
            let Task::Feeding { to, turn, left, stage: Stage::Turn, .. } = &mut self.task else { return };
            while left.front().is_some_and(|place| !self.watchers[*place].cursor.is_behind(*to)) {
                left.pop_front();
            }
            let (to, whose) = (*to, *turn);
            let next = match whose {
                _ if !left.is_empty() => return,
                Turn::Elsewhere(from) => Turn::Together(from),
                // If nobody stands there nothing comes of it.
                Turn::Together(from) if from <= to && self.watchers.iter().any(|one| goes_along(&one.cursor, from)) => {
                    return;
                }
                Turn::Together(_) => Turn::Rest,
                Turn::Rest => break,
            };
            let lacking = if next == Turn::Rest { self.lacking(to, |_| true) } else { VecDeque::new() };
            if let Task::Feeding { turn, left, .. } = &mut self.task {
                (*turn, *left) = (next, lacking);
            }
        }
        let Task::Feeding { to, then, .. } = &self.task else { return };
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

/// Whether a watcher stands at a revision, and wants to be told on.
fn goes_along(cursor: &Cursor, from: i64) -> bool {
    !cursor.has_ended() && cursor.next() == from
}

/// A change, as it is told.
pub(super) fn event(told: &Arc<Told>) -> Event {
    (told.at.main, told.at.sub, told.key[0], told.is_deletion)
}
