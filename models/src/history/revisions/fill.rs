//! Replays the order on a sequential store; puts unknown writes where revisions were taken that no answer names.
//!
//! A gap takes an unknown write that was called in time, does in the state of its place what is certain of the gap, and
//! contradicts nobody. Where several fit, all are tried, depth first: those that a later answer needs, then those that
//! nobody will notice, then the rest. Gaps come in ascending order and whoever was called in time for one is in
//! time for all later ones, so that mostly the first choice does.

use std::collections::HashMap;

use super::super::numbered::{Act, Effects, Is, Key, Op, Seen, Value};
use super::super::words::{self, shown};
use super::super::{Verdict, Violation};
use super::timeline::{Left, Timeline};
use super::{Found, Order, answered};

/// Unknown writes tried in gaps before the check gives up.
const CHOICES_MAX: usize = 1_000_000;

/// A key's value and the revision of its write.
type Held = Option<(Value, u64)>;

struct Fill<'f, 'a, 'h> {
    order: &'f Order<'a, 'h>,
    timeline: &'f Timeline,
    /// Unknown writes that alone can have put what was read at some gap.
    reserved: HashMap<usize, u64>,
    used: Vec<bool>,
    state: Vec<Held>,
    /// What was there before each change.
    undo: Vec<(Key, Held)>,
    /// The dead end that came furthest.
    furthest: Option<Found>,
}

/// A gap and what was tried there.
struct Choice {
    /// Where the replay goes on.
    place: usize,
    undo: usize,
    candidates: std::vec::IntoIter<(usize, Effects)>,
    chosen: Option<usize>,
}

/// Replays everything.
pub(super) fn run(order: &Order, timeline: &Timeline) -> Verdict {
    let mut fill = Fill {
        order,
        timeline,
        reserved: HashMap::new(),
        used: vec![false; order.all.ops.len()],
        state: vec![None; order.all.keys_count()],
        undo: Vec::new(),
        furthest: None,
    };
    fill.reserve();
    fill.search()
}

impl Fill<'_, '_, '_> {
    /// What was read at a gap and only one unknown write puts is kept for it.
    fn reserve(&mut self) {
        let mut putters: HashMap<(Key, Value), Vec<usize>> = HashMap::new();
        for at in &self.order.open {
            for (key, value) in self.order.all.ops[*at].writes() {
                if let Some(value) = value {
                    putters.entry((key, value)).or_default().push(*at);
                }
            }
        }
        for (gap, pins) in &self.timeline.pins {
            for (key, left) in pins {
                let Left::Put(value) = left else { continue };
                if let Some([one]) = putters.get(&(*key, *value)).map(Vec::as_slice) {
                    self.reserved.insert(*one, *gap);
                }
            }
        }
    }

    fn search(&mut self) -> Verdict {
        let gaps = &self.order.gaps;
        let mut choices: Vec<Choice> = Vec::new();
        let mut place = 0;
        for _ in 0..CHOICES_MAX {
            let gap = gaps.get(choices.len()).copied();
            match self.replay(&mut place, gap.unwrap_or(u64::MAX)) {
                Ok(()) => match gap {
                    None => return Verdict::Linearizable,
                    Some(gap) => {
                        let candidates = self.candidates(gap).into_iter();
                        choices.push(Choice { place, undo: self.undo.len(), candidates, chosen: None });
                    }
                },
                Err(found) => self.note(found),
            }
            match self.choose(&mut choices) {
                Some(next) => place = next,
                None => return self.dead_end(),
            }
        }
        let gap = gaps.get(choices.len()).copied().unwrap_or_default();
        Verdict::Unknown(format!(
            "{CHOICES_MAX} choices of unknown writes don't explain revision {gap}, one of {}",
            gaps.len()
        ))
    }

    /// The next way to go on, at the last gap that has one; where to.
    fn choose(&mut self, choices: &mut Vec<Choice>) -> Option<usize> {
        while let Some(choice) = choices.last_mut() {
            for (key, held) in self.undo.drain(choice.undo..).rev() {
                self.state[key.0 as usize] = held;
            }
            if let Some(chosen) = choice.chosen.take() {
                self.used[chosen] = false;
            }
            if let Some((chosen, effects)) = choice.candidates.next() {
                (choice.chosen, self.used[chosen]) = (Some(chosen), true);
                let (place, gap) = (choice.place, self.order.gaps[choices.len() - 1]);
                for (key, value) in effects {
                    self.set(key, value.map(|value| (value, gap)));
                }
                return Some(place);
            }
            choices.pop();
        }
        None
    }

    fn note(&mut self, found: Found) {
        if self.furthest.as_ref().is_none_or(|furthest| furthest.revision < found.revision) {
            self.furthest = Some(found);
        }
    }

    fn dead_end(&mut self) -> Verdict {
        let nothing = || Violation { what: "no order of unknown writes fits".to_owned(), around: Vec::new() };
        Verdict::Violated(self.furthest.take().map_or_else(nothing, |found| found.violation))
    }

    fn set(&mut self, key: Key, held: Held) {
        let place = &mut self.state[key.0 as usize];
        self.undo.push((key, std::mem::replace(place, held)));
    }

    fn held(&self, key: Key) -> Held {
        self.state[key.0 as usize]
    }

    fn compares_hold(&self, op: &Op) -> bool {
        op.compares.iter().all(|(key, is)| match (is, self.held(*key)) {
            (Is::Absent, held) => held.is_none(),
            (Is::At(revision), held) => held.is_some_and(|(_, at)| at == *revision),
            (Is::Value(value), held) => held.is_some_and(|(held, _)| held == *value),
        })
    }

    /// Answered operations from `place` on, before the next gap.
    fn replay(&mut self, place: &mut usize, gap: u64) -> Result<(), Found> {
        while let Some(at) = self.order.sorted.get(*place).copied() {
            if answered(&self.order.all.ops[at]).revision >= gap {
                return Ok(());
            }
            self.redo(at)?;
            *place += 1;
        }
        Ok(())
    }

    /// O2: does an operation again; its answers must be the same.
    fn redo(&mut self, at: usize) -> Result<(), Found> {
        let order = self.order;
        let op = &order.all.ops[at];
        let (revision, succeeded) = (answered(op).revision, answered(op).succeeded);
        if self.compares_hold(op) != succeeded {
            let held: Vec<String> = op.compares.iter().map(|(key, _)| self.shown_state(*key)).collect();
            let did = if succeeded { "held" } else { "didn't hold" };
            let what = format!("the compares of {} {did}, and there was {}", shown(order.all, at), held.join(", "));
            return Err(order.found(revision, what, &[at]));
        }
        for (act, seen) in op.done() {
            let held = self.held(act.key());
            let agrees = match seen {
                Seen::Found(value, at) => held == Some((value, at)),
                Seen::Absent => held.is_none(),
                Seen::Deleted(any) => held.is_some() == any,
                Seen::Put => true,
            };
            if !agrees {
                let said = words::outcome(&order.all.history.operations[at]);
                let there = self.shown_state(act.key());
                let what = format!("{}: {said}, and there was {there}", shown(order.all, at));
                return Err(order.found(revision, what, &[at]));
            }
            match act {
                Act::Put(key, value) => self.set(key, Some((value, revision))),
                Act::Delete(key) if held.is_some() => self.set(key, None),
                _ => {}
            }
        }
        Ok(())
    }

    fn shown_state(&self, key: Key) -> String {
        let held = self.held(key).map(|(value, revision)| (value, Some(revision)));
        format!("{} = {}", self.order.all.key_name(key), words::state(self.order.all, held))
    }

    /// What an operation would change now.
    fn effects(&self, op: &Op) -> Effects {
        let branch = &op.branches[usize::from(self.compares_hold(op))];
        let effect = |act: &Act| match act {
            Act::Put(key, value) => Some((*key, Some(*value))),
            Act::Delete(key) => self.held(*key).map(|_| (*key, None)),
            Act::Get(_) => None,
        };
        branch.iter().filter_map(effect).collect()
    }

    /// Unknown writes that may have taken a gap, the likeliest first.
    fn candidates(&mut self, gap: u64) -> Vec<(usize, Effects)> {
        let order = self.order;
        let deadline = order.deadline(gap);
        let called_in_time = order.open.partition_point(|at| order.all.ops[*at].called <= deadline);
        let mut found: Vec<((u8, u64, bool), usize, Effects)> = Vec::new();
        for at in &order.open[..called_in_time] {
            if self.used[*at] || self.reserved.get(at).is_some_and(|reserved| *reserved != gap) {
                continue;
            }
            let op = &order.all.ops[*at];
            let effects = self.effects(op);
            if !effects.is_empty() && self.fits(gap, &effects) {
                let (class, until) = self.rank(gap, &effects);
                found.push(((class, until, op.compares.is_empty()), *at, effects));
            }
        }
        // Whose condition held will hardly find it again: it goes before those that can wait.
        found.sort_by_key(|(rank, ..)| *rank);
        if found.is_empty() {
            let pins = self.timeline.pins.get(&gap).map(Vec::as_slice).unwrap_or_default();
            let pin = |(key, left): &(Key, Left)| match left {
                Left::Put(value) => format!("put {} = {:?}", order.all.key_name(*key), order.all.value_name(*value)),
                Left::SomePut => format!("put {}", order.all.key_name(*key)),
                Left::Deletion => format!("delete {}", order.all.key_name(*key)),
            };
            let pins: Vec<String> = pins.iter().map(pin).collect();
            let did = if pins.is_empty() { String::new() } else { format!(" (it was {})", pins.join(", ")) };
            let what = format!(
                "revision {gap} was taken{did}, but by no acknowledged write, and no write with unknown outcome \
                 that was called in time can have done it"
            );
            self.note(order.found(gap, what, &[]));
        }
        found.into_iter().map(|(_, at, effects)| (at, effects)).collect()
    }

    /// Whether effects are what is certain of the gap and contradict nobody.
    fn fits(&self, gap: u64, effects: &Effects) -> bool {
        let has = |(key, left): &(Key, Left)| {
            effects.iter().any(|(written, value)| {
                written == key
                    && match left {
                        Left::Put(wanted) => *value == Some(*wanted),
                        Left::SomePut => value.is_some(),
                        Left::Deletion => value.is_none(),
                    }
            })
        };
        if self.timeline.pins.get(&gap).is_some_and(|pins| !pins.iter().all(has)) {
            return false;
        }
        if let Some(told) = self.timeline.told.get(&gap) {
            return told.len() == effects.len();
        }
        !effects.iter().any(|(key, _)| self.timeline.tracks[key.0 as usize].is_frozen(gap))
    }

    /// How well effects serve what comes next: what is needed soonest, what does no harm, what needs another write.
    fn rank(&self, gap: u64, effects: &Effects) -> (u8, u64) {
        let mut rank = (1, 0);
        for (key, value) in effects {
            let track = &self.timeline.tracks[key.0 as usize];
            let (absent, present) = (track.absent_by(gap), track.present_by(gap));
            let wanted = match (absent, present) {
                (Some(at), _) => Some((false, at)),
                (None, Some(at)) => Some((true, at)),
                (None, None) => None,
            };
            let Some((there, until)) = wanted else { continue };
            let (was, is) = (self.held(*key).is_some(), value.is_some());
            if is != there {
                return (2, until);
            }
            if was != there {
                rank = (0, until);
            }
        }
        rank
    }
}
