//! Histories of a store that does one thing after the other, seen by clients whose calls overlap.

use std::collections::BTreeMap;

use super::super::*;

/// Numbers that look random and are the same on each run (splitmix64).
pub(super) fn noise(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::from_fn(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(x ^ (x >> 31))
    })
}

/// What kind of history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) keys: u64,
    /// Of 100 operations, how many aren't answered, by halves happening and not.
    pub(super) unknown: u64,
    /// How many are refused.
    pub(super) failed: u64,
    /// How long calls and answers take, compared with the time between operations.
    pub(super) overlap: u64,
    /// Whether the store tells of its changes.
    pub(super) told: bool,
    /// Whether there are serializable reads and transactions over two keys.
    pub(super) rich: bool,
}

impl Shape {
    pub(super) fn wild() -> Self {
        Self { keys: 3, unknown: 20, failed: 5, overlap: 5, told: false, rich: true }
    }

    pub(super) fn calm() -> Self {
        Self { keys: 2, unknown: 0, failed: 0, overlap: 1, told: true, rich: true }
    }

    pub(super) fn large() -> Self {
        Self { keys: 100, unknown: 1, failed: 1, overlap: 10, told: true, rich: false }
    }
}

type State = BTreeMap<String, (String, u64)>;

/// A store that does one thing after the other.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) revision: u64,
    pub(super) state: State,
    pub(super) changes: Vec<Change>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self { revision: 1, state: State::new(), changes: Vec::new() }
    }

    pub(super) fn holds(&self, compare: &Compare) -> bool {
        let held = self.state.get(&compare.key);
        match &compare.equals {
            Target::ModRevision(wanted) => held.map_or(0, |(_, revision)| *revision) == *wanted,
            Target::Value(wanted) => held.is_some_and(|(value, _)| value == wanted),
        }
    }

    pub(super) fn carry_out(&mut self, request: &Request) -> Answer {
        let succeeded = request.compares.iter().all(|compare| self.holds(compare));
        let (next, mut events) = (self.revision + 1, Vec::new());
        let steps = request.branch(succeeded).iter().map(|step| match step {
            Step::Get(key) => match self.state.get(key) {
                Some((value, revision)) => Given::Found(value.clone(), *revision),
                None => Given::Absent,
            },
            Step::Put(key, value) => {
                self.state.insert(key.clone(), (value.clone(), next));
                events.push((key.clone(), Some(value.clone())));
                Given::Put
            }
            Step::Delete(key) => {
                let deleted = self.state.remove(key).is_some();
                events.extend(deleted.then(|| (key.clone(), None)));
                Given::Deleted(u64::from(deleted))
            }
        });
        let steps = steps.collect();
        if !events.is_empty() {
            self.revision = next;
            self.changes.push(Change { revision: next, events });
        }
        Answer { revision: self.revision, succeeded, steps }
    }
}

/// Takes small numbers out of a large one.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        let drawn = self.0 % bound;
        self.0 /= bound;
        drawn
    }
}

/// Revisions of each key that answers told, 0 where it wasn't there: what clients compare with.
type Told = BTreeMap<String, Vec<u64>>;

fn learn(told: &mut Told, request: &Request, answer: &Answer) {
    for (step, given) in request.branch(answer.succeeded).iter().zip(&answer.steps) {
        let revision = match given {
            Given::Found(_, revision) => *revision,
            Given::Put => answer.revision,
            Given::Absent | Given::Deleted(_) => 0,
        };
        told.entry(step.key().to_owned()).or_default().push(revision);
    }
}

fn request(dice: &mut Dice, at: usize, shape: &Shape, store: &Store, told: &Told) -> Request {
    let key = format!("k{}", dice.below(shape.keys));
    let value = format!("v{at}");
    let told = told.get(&key).map_or(&[0][..], Vec::as_slice);
    let last = told.len() - 1;
    let kinds = if shape.rich { 11 } else { 9 };
    match dice.below(kinds) {
        0..=2 => Request::get(&key),
        3..=5 => Request::put(&key, &value),
        6 => Request::delete(&key),
        7 => Request::swap(&key, told[last], &value),
        8 => Request::swap(&key, told[last - dice.below(4).min(last as u64) as usize], &value),
        9 => Request { serializable: true, ..Request::get(&key) },
        _ => {
            let other = format!("k{}", shape.keys - 1);
            let equals =
                store.state.get(&key).map_or(Target::ModRevision(0), |(value, _)| Target::Value(value.clone()));
            let mut success = vec![Step::Put(key.clone(), value), Step::Get(key.clone())];
            if key != other {
                success.push(if dice.below(2) == 0 { Step::Delete(other) } else { Step::Put(other, format!("w{at}")) });
            }
            Request { compares: vec![Compare { key, equals }], success, ..Request::default() }
        }
    }
}

/// One operation for each number.
pub(super) fn recorded(raw: &[u64], shape: &Shape) -> History {
    let mut store = Store::new();
    // What was lately, for reads of the past.
    let mut earlier = store.clone();
    let mut told = Told::new();
    let mut free: Vec<u64> = Vec::new();
    let mut operations = Vec::new();
    let mut now = 1_000;
    for (at, number) in raw.iter().enumerate() {
        let mut dice = Dice(*number);
        now += 1 + dice.below(20);
        let called = now - dice.below(20 * shape.overlap).min(now);
        let returned = now + dice.below(20 * shape.overlap);
        let request = request(&mut dice, at, shape, &store, &told);
        let fate = dice.below(100);
        let outcome = if fate < shape.failed {
            Outcome::Failed("refused".to_owned())
        } else if fate < shape.failed + shape.unknown {
            if dice.below(2) == 0 {
                store.carry_out(&request);
            }
            Outcome::Unknown("deadline exceeded".to_owned())
        } else if request.serializable && dice.below(2) == 0 {
            Outcome::Ok(earlier.carry_out(&request))
        } else {
            Outcome::Ok(store.carry_out(&request))
        };
        if let Outcome::Ok(answer) = &outcome {
            learn(&mut told, &request, answer);
        }
        if shape.rich && at % 4 == 0 {
            earlier = store.clone();
        }
        let client = free.iter().position(|until| *until < called).unwrap_or(free.len());
        free.resize(free.len().max(client + 1), 0);
        free[client] = returned;
        operations.push(Operation { client: u32::try_from(client).expect("few"), called, returned, request, outcome });
    }
    let changes = if shape.told { store.changes } else { Vec::new() };
    History { begins_at: 1, operations, changes }
}
