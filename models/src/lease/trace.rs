//! A path through the model, for people.

use super::cluster::{Action, Cluster, State};
use super::history::{Command, Entry};
use super::member::{Stage, Waiting};
use crate::exploration::{END, Path};

/// The steps of a path, each with what it did, and the state it ends in.
pub(super) fn lines(cluster: &Cluster, path: &Path<Cluster>) -> Vec<String> {
    let mut lines = Vec::new();
    let befores = path.iter().zip(path.iter().skip(1).map(|(state, _)| state));
    for (number, ((before, action), after)) in befores.enumerate() {
        if let Some(action) = action {
            lines.push(format!("{:4}.  {}", number + 1, step(before, after, *action)));
            let known = if *action == Action::Commit { before.proposed.len() - 1 } else { before.proposed.len() };
            let kept = if let Action::Elect { kept, .. } = action { *kept } else { known };
            lines.extend(after.proposed.iter().skip(kept).map(|entry| format!("       proposes {}", said(entry))));
        }
    }
    if let Some((last, _)) = path.last() {
        lines.push(END.to_owned());
        state(cluster, last, &mut lines);
    }
    lines
}

fn step(before: &State, after: &State, action: Action) -> String {
    let member = |at: usize| {
        let clock = if before.members[at].is_fast { "fast" } else { "slow" };
        format!("member {} ({clock})", at + 1)
    };
    match action {
        Action::Pass => format!("a second passes: {}", after.now),
        Action::Grant => format!("a client asks for lease {}, and puts its key", after.used.grants),
        Action::Commit => format!("{} is committed", said(&before.proposed[0])),
        Action::Elect { at, kept } => {
            let lost = before.proposed.len() - kept;
            format!("{} is elected in term {}; of what was proposed, {kept} stay and {lost} go", member(at), after.term)
        }
        Action::Learn(at) => format!("{} learns that it doesn't lead", member(at)),
        Action::TakeOver { at, state } => format!("{} takes over, its state at {}", member(at), state + 1),
        Action::Hear(at) => {
            let heard = &before.committed[before.members[at].heard..after.members[at].heard];
            let heard: Vec<String> = heard.iter().map(|applied| said(&applied.entry)).collect();
            format!("{} is told of {}", member(at), heard.join(", "))
        }
        Action::Look(at) => format!("{} looks at its leases", member(at)),
        Action::Renew { at, lease } => {
            let waits = after.members[at].waiting.as_ref().map_or("nothing", waits_for);
            format!("{} renews lease {lease}, and waits for {waits}", member(at))
        }
        Action::TakeBack(at) => format!("{} takes the checkpoint back", member(at)),
        Action::Answer(at) => {
            let told = if before.holders == after.holders { "doesn't answer" } else { "answers" };
            format!("{} has waited, and {told}", member(at))
        }
    }
}

fn waits_for(waiting: &Waiting) -> &'static str {
    match waiting.stage {
        Stage::Confirming => "a majority to know that it leads",
        Stage::Proposing | Stage::TakingBack(_) => "the log to take its checkpoint back",
    }
}

fn said(entry: &Entry) -> String {
    let what = match &entry.command {
        Command::Nothing => "the term's first entry".to_owned(),
        Command::Grant(id, ttl) => format!("lease {id} for {ttl} s"),
        Command::Put(lease) => format!("the key of lease {lease}"),
        Command::Revoke(ids) => format!("the end of {}", leases(ids)),
        Command::Checkpoint(list) => {
            let left: Vec<String> = list.iter().map(|(id, left)| format!("{left} s left of lease {id}")).collect();
            left.join(" and ")
        }
        Command::TakeBack(id) => format!("all is left of lease {id}"),
    };
    format!("{what}@{}", entry.term)
}

fn leases(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("lease {id}")).collect();
    ids.join(" and ")
}

fn state(cluster: &Cluster, state: &State, lines: &mut Vec<String>) {
    for (lease, holder) in cluster.leases().zip(&state.holders) {
        let told = holder.promised.map_or("nothing".to_owned(), |(since, left)| format!("{left} s at {since}"));
        let ended = holder.ended.map_or(String::new(), |at| format!("; it ended at {at}"));
        lines.push(format!("       the holder of lease {lease} was told {told}{ended}"));
    }
    for (at, member) in state.members.iter().enumerate() {
        let leads = member.leads.map_or("follows".to_owned(), |term| format!("leads term {term}"));
        let clock = member.clock(&cluster.bounds, state.now);
        let left: Vec<String> = cluster
            .leases()
            .map(|lease| format!("{lease}: {:?}", member.lessor.clone().ask(clock, lease, false)))
            .collect();
        lines.push(format!("       member {} at {clock} ms {leads}; leases {}", at + 1, left.join(", ")));
    }
}
