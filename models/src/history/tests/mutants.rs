//! Faults put into histories that can be: each must be found.

use super::super::*;
use super::sequential::{Shape, noise, recorded};
use super::words;

/// A fault, and who can see it.
struct Mutant {
    name: &'static str,
    /// Whether values alone show it; revisions show all.
    by_values: bool,
    /// Puts it into a history, at the first place where it can't be explained away.
    put: fn(&mut History) -> Option<()>,
}

const MUTANTS: &[Mutant] = &[
    Mutant { name: "stale read", by_values: true, put: stale_read },
    Mutant { name: "stale read, at its own old revision", by_values: true, put: stale_read_of_old_revision },
    Mutant { name: "lost write", by_values: true, put: lost_write },
    Mutant { name: "acknowledged write vanished", by_values: true, put: vanished },
    Mutant { name: "writes reordered", by_values: false, put: reordered },
    Mutant { name: "revision taken twice", by_values: false, put: taken_twice },
    Mutant { name: "failed write visible", by_values: true, put: failed_visible },
    Mutant { name: "write by nobody", by_values: true, put: by_nobody },
    Mutant { name: "revision by nobody", by_values: false, put: revision_by_nobody },
    Mutant { name: "read before the write", by_values: true, put: read_before_write },
    Mutant { name: "swap done twice", by_values: true, put: swapped_twice },
    Mutant { name: "deleted twice", by_values: true, put: deleted_twice },
    Mutant { name: "old value back under a new revision", by_values: false, put: same_value_again },
    Mutant { name: "serializable read of the future", by_values: false, put: serializable_of_the_future },
    Mutant { name: "store tells another change", by_values: false, put: told_otherwise },
    Mutant { name: "store tells of a change too few", by_values: false, put: told_of_nobody },
];

fn answer(operation: &Operation) -> Option<&Answer> {
    match &operation.outcome {
        Outcome::Ok(answer) => Some(answer),
        _ => None,
    }
}

fn answer_mut(operation: &mut Operation) -> &mut Answer {
    match &mut operation.outcome {
        Outcome::Ok(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// Acknowledged plain puts: place, key, value and revision.
fn puts(history: &History) -> Vec<(usize, String, String, u64)> {
    let put = |(at, operation): (usize, &Operation)| match operation.request.success.as_slice() {
        [Step::Put(key, value)] if operation.request.compares.is_empty() => {
            Some((at, key.clone(), value.clone(), answer(operation)?.revision))
        }
        _ => None,
    };
    history.operations.iter().enumerate().filter_map(put).collect()
}

/// Linearizable plain gets: place, key, what was found and the revision.
fn gets(history: &History) -> Vec<(usize, String, Given, u64)> {
    let get = |(at, operation): (usize, &Operation)| match operation.request.success.as_slice() {
        [Step::Get(key)] if !operation.request.serializable => {
            let answer = answer(operation)?;
            Some((at, key.clone(), answer.steps[0].clone(), answer.revision))
        }
        _ => None,
    };
    history.operations.iter().enumerate().filter_map(get).collect()
}

fn before(history: &History, one: usize, other: usize) -> bool {
    history.operations[one].returned < history.operations[other].called
}

/// Two puts of a key, one after the other, and a get that found the second behind both.
fn two_puts_and_a_get(history: &History) -> Option<((String, u64), usize)> {
    let puts = puts(history);
    gets(history).into_iter().find_map(|(get, key, found, _)| {
        let Given::Found(_, revision) = found else { return None };
        let second = puts.iter().find(|put| put.3 == revision && before(history, put.0, get))?;
        let first = puts.iter().find(|put| put.1 == key && before(history, put.0, second.0))?;
        Some(((first.2.clone(), first.3), get))
    })
}

fn stale_read(history: &mut History) -> Option<()> {
    let ((value, revision), get) = two_puts_and_a_get(history)?;
    answer_mut(&mut history.operations[get]).steps[0] = Given::Found(value, revision);
    Some(())
}

fn stale_read_of_old_revision(history: &mut History) -> Option<()> {
    let ((value, revision), get) = two_puts_and_a_get(history)?;
    let answer = answer_mut(&mut history.operations[get]);
    (answer.steps[0], answer.revision) = (Given::Found(value, revision), revision);
    Some(())
}

/// Whoever read the second put of a key reads the one before it instead.
fn lost_write(history: &mut History) -> Option<()> {
    let ((value, revision), get) = two_puts_and_a_get(history)?;
    let lost = answer(&history.operations[get])?.steps[0].clone();
    for operation in &mut history.operations {
        let Outcome::Ok(answer) = &mut operation.outcome else { continue };
        let steps = answer.steps.iter_mut().filter(|given| **given == lost);
        steps.for_each(|given| *given = Given::Found(value.clone(), revision));
    }
    Some(())
}

/// A get behind the only writes of a key, all puts, finds nothing.
fn vanished(history: &mut History) -> Option<()> {
    let (get, ..) = gets(history).into_iter().find(|(get, key, found, _)| {
        let deletes = |operation: &Operation| {
            let steps = operation.request.success.iter().chain(&operation.request.failure);
            steps.into_iter().any(|step| matches!(step, Step::Delete(deleted) if deleted == key))
        };
        let is_put = puts(history).iter().any(|put| put.1 == *key && before(history, put.0, *get));
        let all = &history.operations;
        let unseen = all.iter().any(|o| deletes(o) && o.called <= all[*get].returned);
        matches!(found, Given::Found(..)) && is_put && !unseen
    })?;
    answer_mut(&mut history.operations[get]).steps[0] = Given::Absent;
    Some(())
}

/// Two neighbours in revision of different keys, one after the other in time, in each other's place.
fn reordered(history: &mut History) -> Option<()> {
    let puts = puts(history);
    let pair = |one: &(usize, String, String, u64)| {
        let next = |other: &&(usize, String, String, u64)| {
            other.3 == one.3 + 1 && other.1 != one.1 && before(history, one.0, other.0)
        };
        Some((one.3, puts.iter().find(next)?.3))
    };
    let (one, two) = puts.iter().find_map(pair)?;
    let swap = |revision: &mut u64| {
        if *revision == one {
            *revision = two;
        } else if *revision == two {
            *revision = one;
        }
    };
    for operation in &mut history.operations {
        for compare in &mut operation.request.compares {
            if let Target::ModRevision(revision) = &mut compare.equals {
                swap(revision);
            }
        }
        let Outcome::Ok(answer) = &mut operation.outcome else { continue };
        if answer.steps.iter().any(|given| !matches!(given, Given::Found(..) | Given::Absent)) {
            swap(&mut answer.revision);
        }
        for given in &mut answer.steps {
            if let Given::Found(_, revision) = given {
                swap(revision);
            }
        }
    }
    for change in &mut history.changes {
        swap(&mut change.revision);
    }
    history.changes.sort_by_key(|change| change.revision);
    Some(())
}

fn taken_twice(history: &mut History) -> Option<()> {
    let puts = puts(history);
    let [(.., first), .., (at, _, _, _)] = puts.as_slice() else { return None };
    answer_mut(&mut history.operations[*at]).revision = *first;
    Some(())
}

fn failed_visible(history: &mut History) -> Option<()> {
    let gets = gets(history);
    let seen = |put: &&(usize, String, String, u64)| gets.iter().any(|get| get.2 == Given::Found(put.2.clone(), put.3));
    let (at, ..) = puts(history).iter().find(seen)?.clone();
    history.operations[at].outcome = Outcome::Failed("refused".to_owned());
    Some(())
}

fn by_nobody(history: &mut History) -> Option<()> {
    let (at, ..) = gets(history).into_iter().find(|get| matches!(get.2, Given::Found(..)))?;
    if let Given::Found(value, _) = &mut answer_mut(&mut history.operations[at]).steps[0] {
        "from nowhere".clone_into(value);
    }
    Some(())
}

/// A put that nobody saw is no operation of anybody's; others came behind it.
fn revision_by_nobody(history: &mut History) -> Option<()> {
    history.changes.clear();
    let gets = gets(history);
    let seen = |value: &str| gets.iter().any(|get| matches!(&get.2, Given::Found(found, _) if found == value));
    let puts = puts(history);
    let (last, first) = (puts.last()?.3, puts.iter().find(|put| !seen(&put.2))?);
    if first.3 == last {
        return None;
    }
    history.operations.remove(first.0);
    Some(())
}

fn read_before_write(history: &mut History) -> Option<()> {
    let gets = gets(history);
    let (put, get) = puts(history)
        .iter()
        .find_map(|put| Some((put.0, gets.iter().find(|get| get.2 == Given::Found(put.2.clone(), put.3))?.0)))?;
    let returned = history.operations[get].returned;
    let put = &mut history.operations[put];
    (put.called, put.returned) = (returned + 1, put.returned.max(returned + 2));
    Some(())
}

fn end(history: &History) -> (u64, u64) {
    let time = history.operations.iter().map(|operation| operation.returned).max().unwrap_or_default();
    let revision = history.operations.iter().filter_map(|operation| Some(answer(operation)?.revision)).max();
    (time + 1, revision.unwrap_or(history.begins_at))
}

fn append(history: &mut History, request: Request, given: Given) {
    let (time, last) = end(history);
    let answer = Answer { revision: last + 1, succeeded: true, steps: vec![given] };
    history.changes.clear();
    history.operations.push(Operation {
        client: 99,
        called: time,
        returned: time + 1,
        request,
        outcome: Outcome::Ok(answer),
    });
}

fn swapped_twice(history: &mut History) -> Option<()> {
    let is_swap = |operation: &&Operation| {
        let request = &operation.request;
        let by_revision = matches!(request.compares.as_slice(), [Compare { equals: Target::ModRevision(1..), .. }]);
        by_revision && answer(operation).is_some_and(|answer| answer.succeeded)
    };
    let mut again = history.operations.iter().find(is_swap)?.request.clone();
    if let Some(Step::Put(_, value)) = again.success.first_mut() {
        "again".clone_into(value);
    }
    append(history, again, Given::Put);
    Some(())
}

fn deleted_twice(history: &mut History) -> Option<()> {
    append(history, Request::put("gone", "soon"), Given::Put);
    append(history, Request::delete("gone"), Given::Deleted(1));
    append(history, Request::delete("gone"), Given::Deleted(1));
    Some(())
}

fn same_value_again(history: &mut History) -> Option<()> {
    append(history, Request::put("again", "one"), Given::Put);
    append(history, Request::put("again", "two"), Given::Put);
    let last = history.operations.len() - 2;
    let first = answer(&history.operations[last])?.revision;
    history.operations[last].outcome = Outcome::Unknown("deadline exceeded".to_owned());
    let (time, _) = end(history);
    let get = |at, revision| Operation {
        client: 99,
        called: time + at,
        returned: time + at + 1,
        request: Request::get("again"),
        outcome: super::answered(revision, &[super::found("one", revision)]),
    };
    // Read before the second put was asked for, and again behind it.
    let second = history.operations.pop()?;
    history.operations.push(get(0, first));
    history.operations.push(Operation { called: time + 10, returned: time + 11, ..second });
    history.operations.push(get(20, first + 2));
    Some(())
}

fn serializable_of_the_future(history: &mut History) -> Option<()> {
    let (at, ..) = gets(history).into_iter().find(|get| matches!(get.2, Given::Found(..)))?;
    history.operations[at].request.serializable = true;
    read_before_write_of(history, at)
}

fn read_before_write_of(history: &mut History, get: usize) -> Option<()> {
    let found = answer(&history.operations[get])?.steps[0].clone();
    let put = puts(history).into_iter().find(|put| found == Given::Found(put.2.clone(), put.3))?.0;
    let called = history.operations[put].called.checked_sub(10)?;
    (history.operations[get].called, history.operations[get].returned) = (called, called + 1);
    Some(())
}

fn told_otherwise(history: &mut History) -> Option<()> {
    let change = history.changes.iter_mut().find(|change| matches!(change.events.as_slice(), [(_, Some(_))]))?;
    change.events[0].1 = Some("otherwise".to_owned());
    Some(())
}

/// A change beyond all that was asked for.
fn told_of_nobody(history: &mut History) -> Option<()> {
    let last = history.changes.last()?.revision;
    history.changes.push(Change { revision: last + 1, events: vec![("k0".to_owned(), None)] });
    Some(())
}

/// Every fault in many histories, without and with unknown outcomes around it.
#[test]
fn every_mutant_is_found() {
    const SEEDS: u64 = 200;
    for mutant in MUTANTS {
        let mut met = 0;
        for seed in 0..SEEDS {
            let raw: Vec<u64> = noise(seed).take(40).collect();
            let mut history = recorded(&raw, &Shape { unknown: 0, ..Shape::calm() });
            assert!(check(&history).holds());
            if (mutant.put)(&mut history).is_none() {
                continue;
            }
            met += 1;
            let report = check(&history);
            let (one, two) = (words(&report.by_revisions, &history), words(&report.by_search, &history));
            let violated = |verdict: &Verdict| matches!(verdict, Verdict::Violated(found) if !found.around.is_empty());
            assert!(violated(&report.by_revisions), "{}, seed {seed}: {one}\n{history:#?}", mutant.name);
            assert!(
                !mutant.by_values || violated(&report.by_search),
                "{}, seed {seed}: {two}\n{history:#?}",
                mutant.name
            );
        }
        assert!(met > SEEDS / 10, "{}: there was a place for it in {met} histories alone", mutant.name);
    }
}
