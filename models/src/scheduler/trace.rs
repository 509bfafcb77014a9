//! A path through the model, for people.

use super::cluster::{Action, Cluster, State};
use super::store::{Answer, Change, Request, Stage, Store, node_name, pod_name};
use crate::exploration::{END, Path};

/// The steps of a path, each with what it did, and the state it ends in.
pub(super) fn lines(_: &Cluster, path: &Path<Cluster>) -> Vec<String> {
    let mut lines = Vec::new();
    let befores = path.iter().zip(path.iter().skip(1).map(|(state, _)| state));
    for (number, ((before, action), after)) in befores.enumerate() {
        if let Some(action) = action {
            lines.push(format!("{:4}.  {}", number + 1, step(before, *action)));
            lines.extend(sent(before, after).map(|request| format!("       sends {}", asked(&request))));
            let new = after.store.log.iter().enumerate().skip(before.store.log.len());
            lines.extend(new.map(|(at, c)| format!("       revision {}: {}", Store::revision_of(at), change(*c))));
        }
    }
    if let Some((last, _)) = path.last() {
        lines.push(END.to_owned());
        state(last, &mut lines);
    }
    lines
}

/// What is on its way that wasn't.
fn sent(before: &State, after: &State) -> impl Iterator<Item = Request> {
    let pairs = before.members.iter().zip(&after.members);
    let new = |(before, after): (&super::member::Member, &super::member::Member)| {
        let is_new = |request: &&Request| request.stage == Stage::Sent && request.awaited;
        let known = before.requests.clone();
        let new = after.requests.iter().filter(is_new).filter(|request| !known.contains(request));
        new.copied().collect::<Vec<_>>()
    };
    pairs.flat_map(new).collect::<Vec<_>>().into_iter()
}

fn change(change: Change) -> String {
    match change {
        Change::Bound { pod, node } => format!("{} is on {}", pod_name(pod), node_name(node)),
        Change::Marked(pod) => format!("{} is being deleted", pod_name(pod)),
        Change::PodGone(pod) => format!("{} is gone", pod_name(pod)),
        Change::NodeGone(node) => format!("node {} is gone", node_name(node)),
    }
}

fn asked(request: &Request) -> String {
    let known = request.known.map_or(String::new(), |known| format!(", knowing all up to {known}"));
    format!("{} to {}{known}", pod_name(request.pod), node_name(request.node))
}

fn said(answer: Answer) -> String {
    match answer {
        Answer::Bound(_) => "that it is bound".to_owned(),
        Answer::Refused => "that the pod can't be bound".to_owned(),
        Answer::Outdated(revision) => format!("that the node was given a pod at {revision}"),
    }
}

fn step(before: &State, action: Action) -> String {
    let request = |at: usize, request: usize| before.members[at].requests[request];
    let taken = |request: Request| match request.stage {
        Stage::Sent => format!("an apiserver reads the pod for {}", asked(&request)),
        _ => format!("an apiserver writes {}", asked(&request)),
    };
    match action {
        Action::Show { at, of_pods } => {
            let member = &before.members[at];
            let place = if of_pods { member.pods } else { member.nodes };
            format!("scheduler {} is shown that {}", at + 1, change(before.store.log[place]))
        }
        Action::Decide(at) => format!("scheduler {} decides", at + 1),
        Action::Wake(at) => format!("scheduler {} has paused", at + 1),
        Action::Step { at, request: which } => taken(request(at, which)),
        Action::Answer { at, request: which } => match request(at, which).stage {
            Stage::Answered(answer) => format!("scheduler {} is told {}", at + 1, said(answer)),
            _ => format!("scheduler {} is told", at + 1),
        },
        Action::Lose { at, request: which } => {
            format!("scheduler {} has waited too long for {}", at + 1, asked(&request(at, which)))
        }
        Action::Drop { at, request: which } => format!("the request for {} is lost", asked(&request(at, which))),
        Action::Delete(what) => format!("somebody deletes: {}", change(what)),
        Action::Plain { pod, node } => format!("somebody asks for {} to {}", pod_name(pod), node_name(node)),
        Action::PlainStep(which) => taken(before.plain[which]),
    }
}

fn state(state: &State, lines: &mut Vec<String>) {
    for (node, is_there) in (0..).zip(&state.store.nodes) {
        let on = (0..).zip(&state.store.pods).filter(|(_, pod)| !pod.gone && pod.node == Some(node));
        let on: Vec<String> = on.map(|(pod, _)| pod_name(pod)).collect();
        let (gone, fence) = (if *is_there { "" } else { " (gone)" }, state.store.fences[usize::from(node)]);
        lines.push(format!("       node {}{gone}: [{}], fence at {fence}", node_name(node), on.join(" ")));
    }
    for (at, member) in state.members.iter().enumerate() {
        let (waiting, assumed) = member.scheduler.core.counts();
        lines.push(format!("       scheduler {}: {waiting} wait, {assumed} assumed", at + 1));
    }
}
