//! All orders of tiny histories: what the checks must agree with exactly.

use std::collections::HashMap;

use super::super::*;
use super::sequential::{Shape, Store, noise, recorded};
use super::words;

/// Whether any order explains a history, by trying all. `next` does an operation, and says whether its answer is right.
fn any_order<S: Clone>(history: &History, state: &S, next: &dyn Fn(&mut S, &Operation) -> bool) -> bool {
    fn go<S: Clone>(left: &[&Operation], state: &S, next: &dyn Fn(&mut S, &Operation) -> bool) -> bool {
        let is_answered = |operation: &&Operation| matches!(operation.outcome, Outcome::Ok(_));
        if !left.iter().any(is_answered) {
            return true;
        }
        (0..left.len()).any(|at| {
            let one = left[at];
            let mut others = left.to_vec();
            others.remove(at);
            // Who returned before this one was called must stand before it.
            let late =
                |other: &&Operation| is_answered(other) && other.returned < one.called && !other.request.serializable;
            if others.iter().any(late) {
                return false;
            }
            let mut state = state.clone();
            next(&mut state, one) && go(&others, &state, next)
        })
    }
    let happened: Vec<&Operation> =
        history.operations.iter().filter(|operation| !matches!(operation.outcome, Outcome::Failed(_))).collect();
    go(&happened, state, next)
}

/// By everything that is in an answer, revisions too. The store must end at the last revision that was told.
fn by_revisions(history: &History) -> bool {
    any_order(history, &Store::new(), &|store, operation| {
        let given = store.carry_out(&operation.request);
        match &operation.outcome {
            Outcome::Ok(answer) => *answer == given,
            _ => true,
        }
    })
}

/// By values: a revision only tells one acknowledged write from another.
fn by_values(history: &History) -> bool {
    let told = told(history);
    any_order(history, &HashMap::new(), &|state: &mut HashMap<String, (String, Option<u64>)>, operation| {
        let request = &operation.request;
        let same = |key: &str, revision: u64, state: &HashMap<String, (String, Option<u64>)>| match state.get(key) {
            None => false,
            Some((_, Some(known))) => *known == revision,
            Some((value, None)) => {
                told.get(&(key.to_owned(), revision)).is_some_and(|told| told.as_ref() == Some(value))
            }
        };
        let held = request.compares.iter().all(|compare| match &compare.equals {
            Target::ModRevision(0) => !state.contains_key(&compare.key),
            Target::ModRevision(revision) => same(&compare.key, *revision, state),
            Target::Value(value) => state.get(&compare.key).is_some_and(|(held, _)| held == value),
        });
        let answer = match &operation.outcome {
            Outcome::Ok(answer) => Some(answer),
            _ => None,
        };
        if answer.is_some_and(|answer| answer.succeeded != held) {
            return false;
        }
        request.branch(held).iter().enumerate().all(|(at, step)| {
            let given = answer.map(|answer| &answer.steps[at]);
            match (step, given) {
                (Step::Get(key), Some(Given::Found(value, revision))) => state
                    .get(key)
                    .is_some_and(|(held, known)| held == value && known.is_none_or(|known| known == *revision)),
                (Step::Get(key), Some(_)) => !state.contains_key(key),
                (Step::Get(_), None) => true,
                (Step::Put(key, value), _) => {
                    state.insert(key.clone(), (value.clone(), answer.map(|answer| answer.revision)));
                    true
                }
                (Step::Delete(key), given) => {
                    let deleted = u64::from(state.remove(key).is_some());
                    given.is_none_or(|given| *given == Given::Deleted(deleted))
                }
            }
        })
    })
}

/// What gets tell of who wrote at a revision of a key: the value; none if an acknowledged write took the revision.
fn told(history: &History) -> HashMap<(String, u64), Option<String>> {
    let mut told = HashMap::new();
    for operation in &history.operations {
        let Outcome::Ok(answer) = &operation.outcome else { continue };
        for (step, given) in operation.request.branch(answer.succeeded).iter().zip(&answer.steps) {
            if let Given::Found(value, revision) = given {
                told.entry((step.key().to_owned(), *revision)).or_insert_with(|| Some(value.clone()));
            }
        }
    }
    for operation in &history.operations {
        let Outcome::Ok(answer) = &operation.outcome else { continue };
        if answer.steps.iter().any(|given| matches!(given, Given::Put | Given::Deleted(1))) {
            told.iter_mut()
                .filter(|((_, revision), _)| *revision == answer.revision)
                .for_each(|(_, value)| *value = None);
        }
    }
    told
}

/// Changes something about an operation, so that most histories become impossible, and some not.
fn disturb(history: &mut History, number: u64) {
    let count = history.operations.len() as u64;
    let (at, other) = ((number % count) as usize, (number / 7 % count) as usize);
    let twin = &history.operations[other];
    let taken = (twin.request == history.operations[at].request).then(|| twin.outcome.clone());
    let operation = &mut history.operations[at];
    match number / 100 % 7 {
        0 => {
            let by = number / 1_000 % 200;
            (operation.called, operation.returned) = (operation.called + by, operation.returned + by);
        }
        1 => operation.outcome = Outcome::Unknown("disturbed".to_owned()),
        2 => operation.outcome = Outcome::Failed("disturbed".to_owned()),
        3 => operation.outcome = taken.unwrap_or(Outcome::Unknown("disturbed".to_owned())),
        4 => {
            history.operations.remove(at);
        }
        kind => {
            let Outcome::Ok(answer) = &mut operation.outcome else { return };
            match (kind, answer.steps.first_mut()) {
                (5, _) => answer.revision = answer.revision.max(3) - 1 + number / 1_000 % 2,
                (_, Some(given @ Given::Found(..))) => *given = Given::Absent,
                (_, Some(Given::Put) | None) => {}
                (_, Some(given @ Given::Absent)) => *given = Given::Found(format!("v{}", number / 1_000 % count), 2),
                (_, Some(Given::Deleted(deleted))) => *deleted = 1 - *deleted,
            }
        }
    }
}

fn decided(verdict: &Verdict) -> Option<bool> {
    match verdict {
        Verdict::Linearizable => Some(true),
        Verdict::Violated(_) => Some(false),
        Verdict::Unknown(_) => None,
    }
}

/// Both checks say of each tiny history what all of its orders say.
#[test]
fn checks_agree_with_all_orders() {
    const HISTORIES: u64 = 6_000;
    let (mut possible, mut impossible, mut undecided) = ([0, 0], [0, 0], 0);
    for seed in 0..HISTORIES {
        let raw: Vec<u64> = noise(seed).take(2 + (seed % 5) as usize).collect();
        let shape = Shape { keys: 1 + seed % 2, unknown: 25, failed: 5, ..Shape::wild() };
        let mut history = recorded(&raw, &shape);
        for number in noise(!seed).take((seed % 4) as usize) {
            disturb(&mut history, number >> 1);
            if history.operations.is_empty() {
                break;
            }
        }
        if history.operations.iter().any(|operation| operation.fault().is_some()) {
            continue;
        }
        // Reads of the past have no place in an order; what they may give is for the mutants.
        history.operations.retain(|operation| !operation.request.serializable);
        let report = check(&history);
        let orders = [by_revisions(&history), by_values(&history)];
        for (which, (verdict, order)) in [&report.by_revisions, &report.by_search].into_iter().zip(orders).enumerate() {
            let Some(decided) = decided(verdict) else {
                undecided += 1;
                continue;
            };
            assert_eq!(decided, order, "check {which} of seed {seed}: {}\n{history:#?}", words(verdict, &history));
            *(if order { &mut possible[which] } else { &mut impossible[which] }) += 1;
        }
    }
    println!("possible {possible:?}, impossible {impossible:?}, undecided {undecided}");
    assert!(possible.iter().chain(&impossible).all(|count| *count > HISTORIES / 15), "{possible:?} {impossible:?}");
    assert!(undecided < HISTORIES / 10, "{undecided}");
}
