//! A path through the model, for people.

use controllers_core::election::{Record, Stored};

use super::cluster::{Action, Cluster, State};
use super::store::{Answer, Ask};
use crate::exploration::{END, Path};

/// The steps of a path, each with what it led to, and the state it ends in.
pub(super) fn lines(cluster: &Cluster, path: &Path<Cluster>) -> Vec<String> {
    let mut lines = Vec::new();
    let befores = path.iter().zip(path.iter().skip(1).map(|(state, _)| state));
    for (number, ((before, action), after)) in befores.enumerate() {
        if let Some(action) = action {
            lines.push(format!("{:4}.  {}", number + 1, step(before, after, *action)));
            lines.extend(sent(before, after));
        }
    }
    if let Some((last, _)) = path.last() {
        lines.push(END.to_owned());
        state(cluster, last, &mut lines);
    }
    lines
}

/// What is asked for that wasn't.
fn sent(before: &State, after: &State) -> Vec<String> {
    let pairs = before.candidates.iter().zip(&after.candidates);
    let new = pairs.filter_map(|(before, after)| {
        let asked = after.requests.iter().find(|request| request.awaited && request.answer.is_none())?;
        (!before.requests.contains(asked)).then(|| format!("       asks {}", ask(&asked.ask)))
    });
    new.collect()
}

fn record(record: &Record) -> String {
    let holder = if record.holder.is_empty() { "nobody" } else { &record.holder };
    format!("held by {holder}, after {} changes", record.transitions)
}

fn stored(stored: &Stored) -> String {
    format!("version {}: {}", stored.version, record(&stored.record))
}

fn ask(ask: &Ask) -> String {
    match ask {
        Ask::Read => "what the lease says".to_owned(),
        Ask::Create(new) => format!("for a lease {}", record(new)),
        Ask::Update { record: new, version } => format!("for the lease {}, if it is at version {version}", record(new)),
    }
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Read(None) => "there is none".to_owned(),
        Answer::Read(Some(found)) => stored(found),
        Answer::Written(new) => format!("written, {}", stored(new)),
        Answer::Refused(_) => "refused".to_owned(),
    }
}

fn step(before: &State, after: &State, action: Action) -> String {
    let name = |at: usize| {
        let one = &before.candidates[at];
        format!("{} ({})", one.name, if one.is_fast { "fast" } else { "slow" })
    };
    let answer = |at: usize| {
        let one = &before.candidates[at];
        one.awaited().and_then(|request| one.requests[request].answer.as_ref()).map_or(String::new(), said)
    };
    match action {
        Action::Pass => format!("a second passes: {}", after.now),
        Action::Wake(at) => format!("{} is woken", name(at)),
        Action::Carry { at, request } => {
            let sent = &before.candidates[at].requests[request];
            let late = if sent.awaited { "" } else { ", for which nobody waits" };
            format!("carried out for {}{late}: {}", sent.author, ask(&sent.ask))
        }
        Action::Stale { at, .. } => format!("{} is to be shown the lease as it was", name(at)),
        Action::Answer(at) => format!("{} is answered: {}", name(at), answer(at)),
        Action::Lose(at) => format!("{} has waited for too long", name(at)),
        Action::Crash(at) => format!("{} is killed, and starts as {}", name(at), after.candidates[at].name),
        Action::Release(at) => format!("{} is told to end", name(at)),
        Action::Write(at) => format!("{} may act, and lets a write go", name(at)),
        Action::Arrive(at) => format!("a write of {} arrives", name(at)),
    }
}

fn state(cluster: &Cluster, state: &State, lines: &mut Vec<String>) {
    let lease = state.store.lease.as_ref().map_or("there is no lease".to_owned(), stored);
    lines.push(format!("       {lease}"));
    for one in &state.candidates {
        let clock = one.clock(&cluster.bounds, state.now);
        let acts = if one.may_act(&cluster.bounds, state.now) { "may act" } else { "may not act" };
        let until = one.until.map_or(String::new(), |until| format!(", its reign until {until} ms"));
        lines.push(format!("       {} at {clock} ms {acts}{until}", one.name));
    }
}
