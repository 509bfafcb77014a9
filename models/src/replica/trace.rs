//! A path through the model, for people.

use raft::eraftpb::Message;

use crate::exploration::END;

use super::cluster::{Action, Cluster, State};
use super::disk::{Content, Entries, Record};
use super::entry::{Change, FORWARDED, Slot, Value};
use super::member::{Member, Status};
use super::memo::Cut;
use super::packet::{Packet, describe};
use super::shell::{Effect, Input};

/// The steps of a path, each with what it did, and the state it ends in.
pub(super) fn lines(cluster: &Cluster, path: &[(State, Option<Action>)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, (state, action)) in path.iter().enumerate() {
        match action {
            Some(action) => step(cluster, number + 1, state, action, &mut lines),
            None => end(state, &mut lines),
        }
    }
    lines
}

/// The state that a path ends in.
pub(super) fn end(state: &State, lines: &mut Vec<String>) {
    lines.push(END.to_owned());
    lines.extend(state.members.iter().map(|m| format!("       {}", member(m))));
    lines.extend(state.wire.iter().map(|p| format!("       on the wire: {}", routed(&p.message))));
}

/// A step, and what it did.
pub(super) fn step(cluster: &Cluster, number: usize, state: &State, action: &Action, lines: &mut Vec<String>) {
    match action {
        Action::Lose { from_wire } => lines.push(format!("{number:4}.  {}", is_lost(&state.wire[*from_wire]))),
        _ => lines.push(format!("{number:4}.  {}", title(action))),
    }
    match action {
        Action::Lose { .. } | Action::Cut { .. } => {}
        Action::Start { at, outcome } => {
            effects(cluster, &state.members[*at], Input::Flush, outcome.cut, &outcome.member, lines);
        }
        Action::Take { at, input, outcome, .. } => {
            effects(cluster, &state.members[*at], *input, outcome.cut, &outcome.member, lines);
        }
    }
}

/// What is done, as far as it can be told without the state.
pub(super) fn title(action: &Action) -> String {
    match action {
        Action::Lose { from_wire } => format!("message {from_wire} on the wire is lost"),
        Action::Cut { at, member } => format!("member {}: the power is cut; {}", at + 1, left(member)),
        Action::Start { at, .. } => format!("member {} starts", at + 1),
        Action::Take { at, input, .. } => format!("member {} {}", at + 1, happens(*input)),
    }
}

/// What happens to a member.
pub(super) fn happens(input: Input) -> String {
    match input {
        Input::Timeout => "waited in vain for a leader".to_owned(),
        Input::Wait => "no longer keeps to its leader".to_owned(),
        Input::Beat => "leads on for a tick".to_owned(),
        Input::Propose(number) => format!("is asked for {}", what(Value::Proposal(number))),
        Input::Forward(number) => {
            format!("is asked for {}, which its leader has to decide", what(Value::Proposal(number)))
        }
        Input::Read => "is asked for a read".to_owned(),
        Input::Change(change, id) => format!("is asked for {}", what(Value::Change(change, id))),
        Input::Compact => "cuts its log".to_owned(),
        Input::Transfer(to) => format!("is asked to hand over to {to}"),
        Input::Receive(packet) => arrives(packet),
        Input::Flush => "has a disk that catches up".to_owned(),
        Input::Apply => "has a state that goes on".to_owned(),
    }
}

/// What a member receives.
pub(super) fn arrives(packet: &Packet) -> String {
    format!("receives from {}: {}", packet.message.from, describe(&packet.message))
}

/// What is lost.
pub(super) fn is_lost(packet: &Packet) -> String {
    format!("{} is lost", routed(&packet.message))
}

/// What the step did, found by doing it again.
fn effects(cluster: &Cluster, before: &Member, input: Input, cut: Cut, after: &Member, lines: &mut Vec<String>) {
    let mut history = before.history.clone();
    if before.image().is_some() {
        history.inputs.push((input, cut == Cut::Stalled));
    }
    if cut == Cut::Panicked {
        return carried_out(&[], cut, after, lines);
    }
    let (_, effects) = history.replay(cluster.bounds.manner());
    carried_out(&effects, cut, after, lines);
}

/// What of the effects happened, and what came in between.
pub(super) fn carried_out(effects: &[Effect], cut: Cut, after: &Member, lines: &mut Vec<String>) {
    if let Status::Broken(why) = &after.status {
        lines.push(format!("       it panics: {why}"));
        return;
    }
    let carried = if let Cut::Crashed { effects, .. } = cut { effects } else { effects.len() };
    lines.extend(effects.iter().take(carried).flat_map(describe_effect));
    match cut {
        Cut::Stalled => lines.push("       its disk stalls".to_owned()),
        Cut::Crashed { partly_sent, .. } => {
            if partly_sent {
                lines.push("       a part of the next messages leaves".to_owned());
            }
            lines.push(format!("       the power is cut; {}", left(after)));
        }
        Cut::Done | Cut::Panicked => {}
    }
}

fn describe_effect(effect: &Effect) -> Vec<String> {
    match effect {
        Effect::Elected(term) => vec![format!("       leads term {term}")],
        Effect::Send(messages) => {
            messages.iter().map(|m| format!("       sends to {}: {}", m.to, describe(m))).collect()
        }
        Effect::Write(records) => {
            let records: Vec<String> = records.iter().map(record).collect();
            vec![format!("       writes {}", records.join(", "))]
        }
        Effect::Sync => vec!["       syncs".to_owned()],
        Effect::Ask(_) => Vec::new(),
        Effect::Answer(_, index) => vec![format!("       answers the read from index {index} on")],
        Effect::Apply(slots) => vec![format!("       applies {}", list(slots))],
        Effect::Install(slots, _) => vec![format!("       installs the state {}", list(slots))],
        Effect::Keep => vec!["       makes its state durable".to_owned()],
        Effect::Release(index) => vec![format!("       forgets entries up to {index}")],
    }
}

fn routed(message: &Message) -> String {
    format!("{} → {}: {}", message.from, message.to, describe(message))
}

fn record(record: &Record) -> String {
    match record {
        Record::Entry(index, s) | Record::InPlace(index, s) => format!("{index}={}", slot(*s)),
        Record::Reset(index, term) => format!("a new log behind {index}@{term}"),
        Record::State { term, vote, commit } => format!("term {term} vote {vote} commit {commit}"),
    }
}

/// A letter for a proposal, or a number of those behind the letters, `-` for nothing, `+3`, `^3` and `−3` for adding, promoting and removing a member.
pub(super) fn what(value: Value) -> String {
    match value {
        Value::Nothing => "-".to_owned(),
        Value::Proposal(number @ 1..=26) => char::from(b'a' + number - 1).to_string(),
        Value::Proposal(number @ FORWARDED..) => format!("f{}", number - FORWARDED),
        Value::Proposal(number) => format!("p{number}"),
        Value::Change(Change::AddLearner, id) => format!("+{id}"),
        Value::Change(Change::Promote, id) => format!("^{id}"),
        Value::Change(Change::Remove, id) => format!("−{id}"),
        Value::Founding(_) => "founding".to_owned(),
    }
}

/// An entry and its term.
pub(super) fn slot(slot: Slot) -> String {
    format!("{}@{}", what(slot.value), slot.term)
}

fn list(slots: &[Slot]) -> String {
    let slots: Vec<String> = slots.iter().map(|s| slot(*s)).collect();
    slots.join(" ")
}

fn log(entries: &Entries) -> String {
    format!("{}@{} [{}]", entries.base, entries.base_term, list(&entries.slots))
}

fn disk(content: &Content) -> String {
    format!("{} term {} vote {} commit {}", log(&content.log), content.term, content.vote, content.commit)
}

pub(super) fn left(member: &Member) -> String {
    format!("its disk holds {}, its state applied {}", disk(&member.disk.synced), member.state.len())
}

fn member(member: &Member) -> String {
    let id = member.id();
    match &member.status {
        Status::Up(image) => format!(
            "member {id}: {:?} term {} log {} commit {} applied {}; disk {}",
            image.role,
            image.term,
            log(&member.log),
            image.committed,
            member.state.len(),
            disk(&member.disk.synced)
        ),
        Status::Down => format!("member {id}: down; {}", left(member)),
        Status::Broken(why) => format!("member {id}: panicked: {why}"),
    }
}
