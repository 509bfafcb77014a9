//! A path through the model, for people.

use super::cluster::{Action, Cluster, State};
use super::history::{Command, Event};
use super::replica::Next;
use super::stream::{Answer, Move, Source};
use crate::exploration::{END, Path};

/// The steps of a path, each with what it did, and the state it ends in.
pub(super) fn lines(_: &Cluster, path: &Path<Cluster>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((first, _)) = path.first() {
        let log: Vec<String> = first.log.iter().map(|c| command(*c)).collect();
        lines.push(format!("       the log: {}", log.join(", ")));
    }
    let befores = path.iter().zip(path.iter().skip(1).map(|(state, _)| state));
    for (number, ((before, action), after)) in befores.enumerate() {
        if let Some(action) = action {
            lines.push(format!("{:4}.  {}", number + 1, step(before, *action)));
            let queued = |state: &State| state.stream.as_ref().map_or(0, |stream| stream.out.len());
            let sent = after.stream.iter().flat_map(|stream| stream.out.iter().skip(queued(before)));
            lines.extend(sent.map(|sent| format!("       sends {}", answer(sent))));
        }
    }
    if let Some((last, _)) = path.last() {
        lines.push(END.to_owned());
        state(last, &mut lines);
    }
    lines
}

fn step(before: &State, action: Action) -> String {
    let serving = before.stream.as_ref().map_or(0, |stream| stream.at + 1);
    match action {
        Action::Apply(at) => {
            format!("member {} applies {}", at + 1, command(before.log[before.members[at].applied]))
        }
        Action::Publish(at) => match before.members[at].next {
            Next::Restart(revision) => format!("member {} begins to publish behind {revision}", at + 1),
            _ => format!("member {} publishes it", at + 1),
        },
        Action::Collect(at) => format!("member {} collects what compaction left", at + 1),
        Action::Install { at, from } => format!("member {} takes a snapshot of member {}", at + 1, from + 1),
        Action::Connect(at) => {
            let starts: Vec<String> =
                before.watchers.iter().map(|w| w.seen.map_or("now".to_owned(), |n| (n + 1).to_string())).collect();
            format!("the client connects to member {} to watch from {}", at + 1, starts.join(" and "))
        }
        Action::Disconnect => "the client loses its stream".to_owned(),
        Action::Ask => "the client asks for progress".to_owned(),
        Action::Stream(Move::Wake) => format!("the stream at member {serving} is told of a new revision"),
        Action::Stream(Move::Take) => format!("the stream at member {serving} takes a request"),
        Action::Stream(Move::Tick) => format!("it is time for the stream at member {serving} to tell of progress"),
        Action::Stream(Move::GoOn) => format!("the stream at member {serving} goes on"),
        Action::Receive => {
            let first = before.stream.as_ref().and_then(|stream| stream.out.front());
            format!("the client receives {}", first.map_or(String::new(), answer))
        }
    }
}

fn command(command: Command) -> String {
    match command {
        Command::Put(key) => format!("a put of {}", char::from(key)),
        Command::PutBoth => "a transaction that puts a and b".to_owned(),
        Command::Delete(key) => format!("a deletion of {}", char::from(key)),
        Command::Compact(to) => format!("a compaction to {to}"),
    }
}

fn answer(answer: &Answer) -> String {
    let event =
        |&(main, sub, key, gone): &Event| format!("{}{}@{main}.{sub}", if gone { "−" } else { "" }, char::from(key));
    match answer {
        Answer::Created(id, published) => format!("watcher {} created at {published}", id + 1),
        Answer::Events { id, events, source } => {
            let events: Vec<String> = events.iter().map(event).collect();
            let source = match source {
                Source::Ring => "",
                Source::Disk => " from disk",
                Source::Together => " with others",
            };
            format!("to watcher {}{source}: {}", id + 1, events.join(" "))
        }
        Answer::Progress(Some(id), to) => format!("to watcher {}: progress to {to}", id + 1),
        Answer::Progress(None, to) => format!("to all watchers: progress to {to}"),
        Answer::Compacted(id, to) => format!("to watcher {}: compacted to {to}", id + 1),
    }
}

fn state(state: &State, lines: &mut Vec<String>) {
    for (number, watcher) in state.watchers.iter().enumerate() {
        let seen = watcher.seen.map_or("nothing".to_owned(), |seen| format!("all up to {seen}"));
        lines.push(format!("       watcher {} has seen {seen}", number + 1));
    }
    for (at, member) in state.members.iter().enumerate() {
        let (revision, compacted) = (member.mvcc.revision(), member.mvcc.compacted());
        let published = member.published;
        lines.push(format!(
            "       member {}: revision {revision}, compacted to {compacted}, published to {published}",
            at + 1
        ));
    }
}
