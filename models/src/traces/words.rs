//! A verdict in words: where the specification and the traces part, side by side.

use std::io::{Result, Write};

use store_core::trace::{Cause, Effects, Event, Letter, View};

use super::{Stuck, Verdict, name};

pub(super) fn print(verdict: &Verdict, out: &mut dyn Write) -> Result<()> {
    let seen = verdict.seen;
    let Some(stuck) = &verdict.stuck else {
        writeln!(out, "a behaviour of Raft: {} events of {} members", seen.events, verdict.members)?;
        return counts(verdict, out);
    };
    writeln!(out, "no behaviour of Raft: {}, line {}, member {:x}", stuck.name, stuck.line, stuck.member)?;
    writeln!(out, "  {}", event(&stuck.event))?;
    writeln!(out, "broken: {}", stuck.impossible.rule)?;
    compare(stuck, out)?;
    writeln!(out, "before it, at this member:")?;
    for before in &stuck.before {
        writeln!(out, "  {}", event(before))?;
    }
    writeln!(out, "up to there: {} events of {} members", seen.events, verdict.members)?;
    counts(verdict, out)
}

fn counts(verdict: &Verdict, out: &mut dyn Write) -> Result<()> {
    let seen = verdict.seen;
    writeln!(
        out,
        "  {} messages, {} leaders, {} committed, {} reads, {} changes of members, {} snapshots, {} restarts",
        seen.messages, seen.leaders, seen.committed, seen.reads, seen.changes, seen.snapshots, seen.restarts
    )
}

/// What the member was, the likest of what the specification allows, and what the trace says.
fn compare(stuck: &Stuck, out: &mut dyn Write) -> Result<()> {
    let impossible = &stuck.impossible;
    let likeness = |view: &&View| impossible.seen.map_or(0, |seen| alike(view, &seen));
    let allowed = impossible.allowed.iter().max_by_key(likeness).copied();
    let columns = [("before", impossible.before), ("specification", allowed), ("trace", impossible.seen)];
    let known: Vec<_> = columns.into_iter().filter_map(|(title, view)| Some((title, fields(&view?)))).collect();
    if known.is_empty() {
        return Ok(());
    }
    let row = |out: &mut dyn Write, label: &str, cells: Vec<&str>, differs: bool| {
        let cells: String = cells.iter().map(|cell| format!(" | {cell:16}")).collect();
        writeln!(out, "  {label:8}{cells}{}", if differs { " <-" } else { "" })
    };
    row(out, "", known.iter().map(|(title, _)| *title).collect(), false)?;
    for (at, label) in ["term", "vote", "role", "leader", "commit", "last"].into_iter().enumerate() {
        let cells: Vec<&str> = known.iter().map(|(_, fields)| fields[at].as_str()).collect();
        let differs = match (allowed, impossible.seen) {
            (Some(allowed), Some(seen)) => fields(&allowed)[at] != fields(&seen)[at],
            _ => false,
        };
        row(out, label, cells, differs)?;
    }
    if impossible.allowed.len() > 1 {
        writeln!(out, "  ({} ways to go on are allowed; the likest is shown)", impossible.allowed.len())?;
    }
    Ok(())
}

fn fields(view: &View) -> [String; 6] {
    let (index, term) = view.last;
    [
        view.term.to_string(),
        format!("{:x}", view.vote),
        format!("{:?}", view.role),
        format!("{:x}", view.leader),
        view.commit.to_string(),
        format!("{index} of term {term}"),
    ]
}

fn alike(a: &View, b: &View) -> usize {
    fields(a).iter().zip(&fields(b)).filter(|(a, b)| a == b).count()
}

fn event(event: &Event) -> String {
    let what = name(event);
    match event {
        Event::Start { view, base, entries, applied, .. } => {
            format!("{what}: term {}, {} entries behind {base:?}, applied {applied}", view.term, entries.len())
        }
        Event::Step(effects) => format!("{what} of step {}: {}", effects.step, step(effects)),
        Event::Durable { step } => format!("{what}: step {step}"),
        Event::Input { cause, view } => {
            let cause = match cause {
                Cause::Message(letter) => message(letter),
                Cause::Propose(marks) => {
                    let sums: Vec<String> = marks.iter().map(|mark| format!("{:08x}", mark.1)).collect();
                    sums.join(" ")
                }
                Cause::Changed(change, members) => format!("{change:?}, since then {members:?}"),
                Cause::Read(context) => context.clone(),
                Cause::Persisted(number) | Cause::Applied(number) => number.to_string(),
                Cause::Time => String::new(),
            };
            let [term, vote, role, leader, commit, last] = fields(view);
            format!(
                "{what} {cause} → {role} of term {term}, vote {vote}, leader {leader}, commit {commit}, last {last}"
            )
        }
    }
}

fn step(effects: &Effects) -> String {
    let mut parts = Vec::new();
    if let Some(snapshot) = effects.snapshot {
        parts.push(format!("installs {snapshot:?}"));
    }
    if !effects.entries.is_empty() {
        parts.push(format!("writes {} entries from {}", effects.entries.len(), effects.from));
    }
    if let Some((term, vote, commit)) = effects.hard_state {
        parts.push(format!("writes term {term}, vote {vote:x}, commit {commit}"));
    }
    parts.extend(effects.now.iter().map(|letter| format!("sends {}", message(letter))));
    parts.extend(effects.after.iter().map(|letter| format!("then sends {}", message(letter))));
    if effects.apply > 0 {
        parts.push(format!("applies up to {}", effects.apply));
    }
    parts.join(", ")
}

fn message(letter: &Letter) -> String {
    let mut text = format!("{} {:x}→{:x} of term {}", letter.kind, letter.from, letter.to, letter.term);
    for (label, value) in [("index", letter.index), ("log term", letter.log_term), ("commit", letter.commit)] {
        if value > 0 {
            text += &format!(" {label} {value}");
        }
    }
    if let Some((index, term, _)) = &letter.snapshot {
        text += &format!(" snapshot {index} of term {term}");
    }
    if !letter.entries.is_empty() {
        text += &format!(" with {} entries", letter.entries.len());
    }
    if letter.reject {
        text += " refused";
    }
    text
}
