//! The cross-check: looks for an order of each key's operations that explains their answers, by values.
//!
//! Problem. The main check trusts the store's revisions. If the store numbered a wrong history well, or the
//!          main check were wrong itself, nobody would notice.
//! Idea.    Wing and Gong: take one operation after the other that nobody has to precede, as long as the answers
//!          agree; go back where none is left. Lowe: never be twice in the same place, that is with the same operations
//!          done and the same state. Keys are independent, but those that a transaction joins: each group is searched alone.
//!
//! It looks at values, and at a revision only to tell one write of a value from another: an answer's
//! header tells it what to try first, never what may be. Serializable reads, which may be of the past, it leaves out.
//!
//! Why unknown writes don't blow it up. They return never, so they may be taken at any time after their call, or not at
//! all. One on a single key is taken only if that makes a waiting operation possible, or changes what an unknown one with
//! conditions would do (or if such a one spans keys, its own among them): otherwise it could as well come behind what comes
//! next, or is overwritten unseen. Of those that do the same, the one called first goes first. And what only one operation can put isn't overwritten before all who found it.
//!
//! Places are remembered as 128-bit fingerprints; two of 10⁷ places agree by chance in one of 10²⁴ searches. The bound on steps
//! bounds memory as well. Its verdict is `Unknown`.
//! Checked by: history/tests (exact agreement with all orders of tiny histories).
//! Source: Wing, Gong 1993; Lowe, "Testing for linearizability" 2017, §4.

mod place;
mod told;

use std::collections::{HashMap, HashSet};

use super::numbered::{Effects, Is, Key, Numbered, Op, Seen, Value};
use super::operation::History;
use super::words::{self, shown};
use super::{Verdict, Violation};
use place::Place;
use told::Told;

/// Steps of all searches together, before the verdict is `Unknown`: seconds, and some 300 MB.
pub const STEPS_MAX: usize = 10_000_000;

/// Judges a history by search, within so many steps.
pub fn check(history: &History, steps_max: usize) -> Verdict {
    check_numbered(&Numbered::new(history), steps_max)
}

pub(super) fn check_numbered(all: &Numbered, steps_max: usize) -> Verdict {
    let told = Told::new(all);
    let mut steps = steps_max;
    let mut undecided = None;
    for group in groups(all) {
        if let Some(why) = told.puzzle(all, &group) {
            undecided = Some(why);
            continue;
        }
        match Search::new(all, &told, &group).run(&mut steps) {
            Verdict::Linearizable => {}
            Verdict::Unknown(why) => undecided = Some(why),
            violated => return violated,
        }
    }
    undecided.map_or(Verdict::Linearizable, Verdict::Unknown)
}

/// Operations that matter, in groups that share no key.
fn groups(all: &Numbered) -> Vec<Vec<usize>> {
    let mut parents: Vec<usize> = (0..all.keys_count()).collect();
    fn root(parents: &mut [usize], mut key: usize) -> usize {
        while parents[key] != key {
            parents[key] = parents[parents[key]];
            key = parents[key];
        }
        key
    }
    let matters = |at: &usize| {
        let op = &all.ops[*at];
        !op.serializable && (op.answered().is_some() || op.is_open())
    };
    let ops: Vec<usize> = (0..all.ops.len()).filter(matters).collect();
    for at in &ops {
        let mut keys = all.ops[*at].keys();
        let Some(first) = keys.next() else { continue };
        for key in keys {
            let (one, two) = (root(&mut parents, first.0 as usize), root(&mut parents, key.0 as usize));
            parents[one] = two;
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); parents.len()];
    for at in ops {
        if let Some(key) = all.ops[at].keys().next() {
            groups[root(&mut parents, key.0 as usize)].push(at);
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// A call or a return in the list of what isn't taken yet.
#[derive(Debug, Clone, Copy)]
struct Event {
    time: u64,
    at: usize,
    is_return: bool,
}

/// What is tried at a place, in this order.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// The operation that comes next by its revision.
    First,
    /// Unknown ones that let it come, by their number.
    Enabling(usize),
    /// The others that wait, by revision.
    Known(usize),
    /// The other unknown ones that help.
    Open(usize),
}

/// What was taken at which turn: the place of its call if it was answered.
struct Taken {
    turn: Turn,
    call: usize,
    mark: place::Mark,
}

/// What an unknown operation could help.
#[derive(Default)]
struct Waits {
    /// The first return: what is called later can't come yet.
    limit: u64,
    /// What those who wait found.
    values: HashSet<Value>,
    /// Answered operations that wait, and whether they could come as it is.
    ops: Vec<usize>,
    possible: Vec<bool>,
    /// Whether any put, or any deletion, may let one of them come that couldn't.
    needs_put: bool,
    needs_deletion: bool,
    /// Unknown ones with conditions, and what they would do as it is.
    conditional: Vec<usize>,
    effects: Vec<Effects>,
}

struct Search<'a, 'h> {
    all: &'a Numbered<'h>,
    group: &'a [usize],
    /// Calls and returns by time; 0 stands before the first, behind the last comes `END`.
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where an operation's return stands, by its call's place.
    return_of: Vec<usize>,
    open: Vec<usize>,
    open_used: Vec<bool>,
    /// An earlier unknown operation that could be this one's twin: it goes first.
    same_before: Vec<Option<usize>>,
    place: Place<'a>,
    path: Vec<Taken>,
    visited: HashSet<u128>,
    known_left: usize,
    furthest: Option<(usize, Violation)>,
}

const END: usize = usize::MAX;

impl<'a, 'h> Search<'a, 'h> {
    fn new(all: &'a Numbered<'h>, told: &'a Told, group: &'a [usize]) -> Self {
        let known: Vec<usize> = group.iter().copied().filter(|at| all.ops[*at].answered().is_some()).collect();
        let mut open: Vec<usize> = group.iter().copied().filter(|at| all.ops[*at].is_open()).collect();
        open.sort_by_key(|at| all.ops[*at].called);
        let call = |at: &usize| Event { time: all.ops[*at].called, at: *at, is_return: false };
        let ret = |at: &usize| Event { time: all.ops[*at].returned, at: *at, is_return: true };
        let mut events: Vec<Event> = known.iter().map(call).chain(known.iter().map(ret)).collect();
        // At the same time, calls come first: neither operation has to precede the other.
        events.sort_by_key(|event| (event.time, event.is_return, event.at));
        events.insert(0, Event { time: 0, at: END, is_return: false });
        let count = events.len();
        let calls: HashMap<usize, usize> =
            (1..count).filter(|e| !events[*e].is_return).map(|e| (events[e].at, e)).collect();
        let mut return_of = vec![END; count];
        (1..count).filter(|e| events[*e].is_return).for_each(|e| return_of[calls[&events[e].at]] = e);
        Self {
            all,
            group,
            next: (1..count).chain([END]).collect(),
            previous: (0..count).map(|e| e.wrapping_sub(1)).collect(),
            events,
            return_of,
            open_used: vec![false; open.len()],
            same_before: told.twins(all, &open),
            open,
            place: Place::new(all, told, group),
            path: Vec::new(),
            visited: HashSet::new(),
            known_left: known.len(),
            furthest: None,
        }
    }

    fn run(mut self, steps: &mut usize) -> Verdict {
        let mut turn = Some(Turn::First);
        while self.known_left > 0 {
            let Some(left) = steps.checked_sub(1) else {
                return Verdict::Unknown(format!("the search of {} came to its bound", self.keys()));
            };
            *steps = left;
            turn = match (turn, self.path.last()) {
                (Some(turn), _) => self.take(turn),
                (None, Some(_)) => self.give_back(),
                (None, None) => return self.violated(),
            };
        }
        Verdict::Linearizable
    }

    /// Takes what the turn says. Returns the next turn: the first of the new place, or the one to try instead.
    fn take(&mut self, turn: Turn) -> Option<Turn> {
        let calls = self.waiting();
        match turn {
            Turn::First if self.take_known(calls[0], turn) => Some(Turn::First),
            Turn::First => Some(Turn::Enabling(0)),
            Turn::Enabling(number) => {
                let taken = self.take_open(&calls, number, true);
                Some(if taken { Turn::First } else { Turn::Known(1) })
            }
            Turn::Known(at) if at < calls.len() => {
                let taken = self.take_known(calls[at], turn);
                Some(if taken { Turn::First } else { Turn::Known(at + 1) })
            }
            Turn::Known(_) => {
                self.note(&calls);
                Some(Turn::Open(0))
            }
            Turn::Open(number) => self.take_open(&calls, number, false).then_some(Turn::First),
        }
    }

    fn take_known(&mut self, call: usize, turn: Turn) -> bool {
        let mark = self.place.mark();
        let at = self.events[call].at;
        if !(self.place.redo(at) && self.visited.insert(self.place.fingerprint())) {
            self.place.back_to(mark);
            return false;
        }
        self.unlink(call);
        self.unlink(self.return_of[call]);
        self.known_left -= 1;
        self.path.push(Taken { turn, call, mark });
        true
    }

    /// Takes the next unknown operation from `number` on that helps, and lets the first that waits come, or not.
    fn take_open(&mut self, calls: &[usize], number: usize, enabling: bool) -> bool {
        let first = self.events[calls[0]].at;
        let is_stuck = !self.place.would_redo(first);
        if number >= self.open.len() || enabling && !is_stuck {
            return false;
        }
        let waits = self.waits(calls);
        for number in number..self.open.len() {
            let at = self.open[number];
            let is_shadowed = self.same_before[number].is_some_and(|same| !self.open_used[same]);
            if self.open_used[number] || self.all.ops[at].called > waits.limit || is_shadowed {
                continue;
            }
            if !self.serves(at, &waits) || !self.helps(at, &waits) {
                continue;
            }
            let mark = self.place.mark();
            if self.place.carry_out(at)
                && (is_stuck && self.place.would_redo(first)) == enabling
                && self.visited.insert(self.place.fingerprint())
            {
                self.open_used[number] = true;
                let turn = if enabling { Turn::Enabling(number) } else { Turn::Open(number) };
                self.path.push(Taken { turn, call: END, mark });
                return true;
            }
            self.place.back_to(mark);
        }
        false
    }

    /// Whether something waits for what an operation may do, whatever its value.
    fn serves(&self, at: usize, waits: &Waits) -> bool {
        let op = &self.all.ops[at];
        let needs = |value: Option<Value>| if value.is_some() { waits.needs_put } else { waits.needs_deletion };
        let is_wanted = |value: Option<Value>| value.is_some_and(|value| waits.values.contains(&value));
        op.spans_keys()
            || !waits.conditional.is_empty()
            || op.writes().any(|(_, value)| needs(value) || is_wanted(value))
    }

    /// Undoes the last step. Returns what to try instead.
    fn give_back(&mut self) -> Option<Turn> {
        let taken = self.path.pop()?;
        self.place.back_to(taken.mark);
        if taken.call != END {
            self.known_left += 1;
            self.relink(self.return_of[taken.call]);
            self.relink(taken.call);
        }
        Some(match taken.turn {
            Turn::First => Turn::Enabling(0),
            Turn::Known(at) => Turn::Known(at + 1),
            Turn::Enabling(number) => {
                self.open_used[number] = false;
                Turn::Enabling(number + 1)
            }
            Turn::Open(number) => {
                self.open_used[number] = false;
                Turn::Open(number + 1)
            }
        })
    }

    fn unlink(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        self.next[previous] = next;
        if next != END {
            self.previous[next] = previous;
        }
    }

    fn relink(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        self.next[previous] = event;
        if next != END {
            self.previous[next] = event;
        }
    }

    /// The calls of operations of which none has to precede another, those before the first return. They are sorted by
    /// revision: that is how it mostly was, and where it wasn't, others are tried as well.
    fn waiting(&self) -> Vec<usize> {
        let mut event = self.next[0];
        let mut calls = Vec::new();
        while !self.events[event].is_return {
            calls.push(event);
            event = self.next[event];
        }
        calls.sort_by_key(|call| {
            let answered = self.all.ops[self.events[*call].at].answered();
            (answered.map(|answered| (answered.revision, !answered.wrote)), *call)
        });
        calls
    }

    /// The first return.
    fn first_return(&self) -> Event {
        let mut event = self.next[0];
        while !self.events[event].is_return {
            event = self.next[event];
        }
        self.events[event]
    }

    /// What an unknown operation could help now.
    fn waits(&mut self, calls: &[usize]) -> Waits {
        let ops: Vec<usize> = calls.iter().map(|call| self.events[*call].at).collect();
        let limit = self.first_return().time;
        let found = |at: &usize| self.all.ops[*at].done().map(|(_, seen)| seen);
        let values = ops.iter().flat_map(found).filter_map(|seen| match seen {
            Seen::Found(value, _) => Some(value),
            _ => None,
        });
        let values = values.collect();
        let possible: Vec<bool> = ops.iter().map(|at| self.place.would_redo(*at)).collect();
        let mut waits = Waits { limit, values, ops, possible, ..Waits::default() };
        for (at, _) in waits.ops.iter().zip(&waits.possible).filter(|(_, possible)| !**possible) {
            let op = &self.all.ops[*at];
            let gave = |wanted: &[Seen]| op.done().any(|(_, seen)| wanted.contains(&seen));
            let is_unclear = !op.compares.is_empty() || op.spans_keys();
            waits.needs_put |= is_unclear || gave(&[Seen::Deleted(true)]);
            waits.needs_deletion |= is_unclear || gave(&[Seen::Deleted(false), Seen::Absent]);
        }
        self.add_conditional(&mut waits);
        waits
    }

    /// Unknown operations with conditions that could serve those who wait, themselves or by way of others.
    fn add_conditional(&self, waits: &mut Waits) {
        let can = |at: &usize| !self.all.ops[*at].compares.is_empty() && self.all.ops[*at].called <= waits.limit;
        let unused = (0..self.open.len()).filter(|number| !self.open_used[*number]).map(|number| self.open[number]);
        let (mut left, mut wanted): (Vec<usize>, _) = (unused.filter(can).collect(), waits.values.clone());
        loop {
            let serves = |at: &usize| {
                let op = &self.all.ops[*at];
                let mut writes = op.writes();
                op.spans_keys()
                    || writes.any(|(_, value)| match value {
                        Some(value) => waits.needs_put || wanted.contains(&value),
                        None => waits.needs_deletion,
                    })
            };
            let (serving, others): (Vec<usize>, Vec<usize>) = left.iter().partition(|at| serves(at));
            if serving.is_empty() {
                break;
            }
            let compares = serving.iter().flat_map(|at| &self.all.ops[*at].compares);
            wanted.extend(compares.filter_map(|(_, is)| match is {
                Is::Value(value) => Some(*value),
                _ => None,
            }));
            left = others;
            waits.conditional.extend(serving);
        }
        waits.effects = waits.conditional.iter().map(|at| self.place.effects(*at)).collect();
    }

    /// Whether something waits for an unknown operation, as the header says.
    fn helps(&mut self, at: usize, waits: &Waits) -> bool {
        if self.all.ops[at].spans_keys() {
            return true;
        }
        let mark = self.place.mark();
        let helps = self.place.carry_out(at) && {
            let keys: Vec<Key> = self.all.ops[at].writes().map(|(key, _)| key).collect();
            // What spans keys may need several writes before it: each counts.
            let may_need = |op: &Op| op.spans_keys() && op.keys().any(|key| keys.contains(&key));
            let mut ops = waits.ops.iter().zip(&waits.possible).filter(|(_, possible)| !**possible);
            let mut conditional = waits.conditional.iter().zip(&waits.effects).filter(|(op, _)| **op != at);
            ops.any(|(op, _)| may_need(&self.all.ops[*op]) || self.place.would_redo(*op))
                || conditional.any(|(op, before)| may_need(&self.all.ops[*op]) || self.place.effects(*op) != *before)
        };
        self.place.back_to(mark);
        helps
    }

    fn keys(&self) -> String {
        let mut keys: Vec<&str> =
            self.group.iter().flat_map(|at| self.all.ops[*at].keys()).map(|key| self.all.key_name(key)).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() > 5 {
            format!("{} and {} other keys", keys[..5].join(", "), keys.len() - 5)
        } else {
            keys.join(", ")
        }
    }

    /// Remembers the dead end that came furthest.
    fn note(&mut self, calls: &[usize]) {
        const SHOWN: usize = 4;
        if self.furthest.as_ref().is_some_and(|(left, _)| *left <= self.known_left) {
            return;
        }
        let at = self.first_return().at;
        let taken = |taken: &Taken| match taken.turn {
            Turn::First | Turn::Known(_) => self.events[taken.call].at,
            Turn::Enabling(number) | Turn::Open(number) => self.open[number],
        };
        let mut around: Vec<usize> = self.path.iter().rev().take(SHOWN).map(taken).collect();
        around.reverse();
        let waiting = calls.iter().map(|call| self.events[*call].at).filter(|other| *other != at);
        let waiting: Vec<usize> = waiting.take(SHOWN).collect();
        around.extend([at].iter().chain(&waiting));
        let what = format!(
            "no order explains what {} gave ({}): at best {} of {} operations come before it, and leave {}",
            shown(self.all, at),
            words::outcome(&self.all.history.operations[at]),
            self.path.len(),
            self.group.len(),
            self.place.shown()
        );
        let around = around.into_iter().map(|at| at + 1).collect();
        self.furthest = Some((self.known_left, Violation { what, around }));
    }

    fn violated(mut self) -> Verdict {
        let (_, mut violation) = self.furthest.take().expect("an operation that wasn't taken has returned");
        violation.what = format!("{}: {}", self.keys(), violation.what);
        Verdict::Violated(violation)
    }
}
