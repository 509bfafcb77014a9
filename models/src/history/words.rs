//! Operations in words.

use super::numbered::{Numbered, Value};
use super::operation::{Given, Operation, Outcome, Step, Target};

/// A time of the history's clock, in seconds.
pub(super) fn shown_time(nanoseconds: u64) -> String {
    format!("{}.{:09} s", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

/// An operation within a sentence.
pub(super) fn shown(all: &Numbered, at: usize) -> String {
    format!("operation {} ({})", at + 1, asked(&all.history.operations[at]))
}

/// A key's state within a sentence.
pub(super) fn state(all: &Numbered, state: Option<(Value, Option<u64>)>) -> String {
    match state {
        None => "nothing".to_owned(),
        Some((value, None)) => format!("{:?}", all.value_name(value)),
        Some((value, Some(revision))) => format!("{:?} of revision {revision}", all.value_name(value)),
    }
}

fn step(step: &Step) -> String {
    match step {
        Step::Get(key) => format!("get {key}"),
        Step::Put(key, value) => format!("put {key} = {value:?}"),
        Step::Delete(key) => format!("delete {key}"),
    }
}

fn steps(all: &[Step]) -> String {
    all.iter().map(step).collect::<Vec<_>>().join(", ")
}

/// What an operation asked for.
pub(super) fn asked(operation: &Operation) -> String {
    let request = &operation.request;
    let done = steps(&request.success);
    if request.compares.is_empty() {
        return if request.serializable { format!("{done}, serializable") } else { done };
    }
    let compare = |compare: &super::operation::Compare| match &compare.equals {
        Target::ModRevision(0) => format!("{} isn't there", compare.key),
        Target::ModRevision(revision) => format!("{} is of revision {revision}", compare.key),
        Target::Value(value) => format!("{} = {value:?}", compare.key),
    };
    let compares: Vec<String> = request.compares.iter().map(compare).collect();
    let otherwise = match request.failure.as_slice() {
        [] => String::new(),
        failure => format!(", else {}", steps(failure)),
    };
    format!("if {} then {done}{otherwise}", compares.join(" and "))
}

fn given(given: &Given) -> String {
    match given {
        Given::Found(value, revision) => format!("found {value:?} of revision {revision}"),
        Given::Absent => "found nothing".to_owned(),
        Given::Put => "put".to_owned(),
        Given::Deleted(count) => format!("deleted {count}"),
    }
}

/// What came of an operation.
pub(super) fn outcome(operation: &Operation) -> String {
    match &operation.outcome {
        Outcome::Failed(why) => format!("failed: {why}"),
        Outcome::Unknown(why) => format!("outcome unknown: {why}"),
        Outcome::Ok(answer) => {
            let steps: Vec<String> = answer.steps.iter().map(given).collect();
            let held = match (operation.request.compares.is_empty(), answer.succeeded) {
                (true, _) => "",
                (false, true) => "it held, ",
                (false, false) => "it didn't hold, ",
            };
            format!("{held}{} (revision {})", steps.join(", "), answer.revision)
        }
    }
}

/// A line on operation `number`, counted from 1.
pub(super) fn line(operation: &Operation, number: usize) -> String {
    format!(
        "{number:>8}  client {:<3} {} to {}  {}: {}",
        operation.client,
        shown_time(operation.called),
        shown_time(operation.returned),
        asked(operation),
        outcome(operation)
    )
}
