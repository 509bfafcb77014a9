//! A path through the model, for people.

use agent_core::runtime::Action as Ask;

use super::cluster::{Action, Cluster, State};
use super::moments::uid_name;
use super::node::Call;
use crate::exploration::{END, Path};

/// The steps of a path, each with what it did, and the state it ends in.
pub(super) fn lines(_: &Cluster, path: &Path<Cluster>) -> Vec<String> {
    let mut lines = Vec::new();
    let befores = path.iter().zip(path.iter().skip(1).map(|(state, _)| state));
    for (number, ((before, action), after)) in befores.enumerate() {
        if let Some(action) = action {
            lines.push(format!("{:4}.  {}", number + 1, step(before, action)));
            let calls = |state: &State| state.agent.as_ref().map(|agent| agent.calls.clone()).unwrap_or_default();
            let known = calls(before);
            let is_new = |call: &&Call| call.done.is_none() && !known.contains(call);
            let new = calls(after);
            lines.extend(new.iter().filter(is_new).map(|call| format!("       asks: {}", asked(call))));
        }
    }
    if let Some((last, _)) = path.last() {
        lines.push(END.to_owned());
        state(last, &mut lines);
    }
    lines
}

fn asked(call: &Call) -> String {
    let what = match &*call.action {
        Ask::RunSandbox { attempt } => format!("make sandbox {attempt}"),
        Ask::CreateContainer { container, sandbox_id, attempt } => {
            format!("create {container} {attempt} in {sandbox_id}")
        }
        Ask::StartContainer { id, .. } => format!("start {id}"),
        Ask::StopContainer { id, .. } => format!("stop {id}"),
        Ask::RemoveContainer { id, .. } => format!("remove {id}"),
        Ask::StopSandbox { id } => format!("stop {id}"),
        Ask::RemoveSandbox { id } => format!("remove {id}"),
        Ask::CleanUp => "clean up".to_owned(),
        Ask::DeleteObject => "delete the object".to_owned(),
        other => format!("{other:?}"),
    };
    format!("{what} of {}", uid_name(call.uid))
}

fn step(before: &State, action: &Action) -> String {
    let call = |at: usize| before.agent.as_ref().map(|agent| asked(&agent.calls[at])).unwrap_or_default();
    let pod = |uid: &usize| uid_name(u8::try_from(*uid).expect("few pods"));
    match action {
        Action::Start => "the agent starts".to_owned(),
        Action::List => "the API's list reaches the agent".to_owned(),
        Action::Observe => "the agent sees what runs".to_owned(),
        Action::Look => "the runtime is asked what runs".to_owned(),
        Action::See => "the agent is told what ran then".to_owned(),
        Action::Show(uid) => format!("the watch shows {} as {:?}", pod(uid), before.api[*uid].stage),
        Action::Effect(at) => format!("takes effect: {}", call(*at)),
        Action::Fail(at) => format!("fails: {}", call(*at)),
        Action::Answer(at) => format!("answered: {}", call(*at)),
        Action::Lose(at) => format!("the answer is lost: {}", call(*at)),
        Action::Publish(uid) => format!("the status of {} is written", pod(uid)),
        Action::Wake => "time passes".to_owned(),
        Action::Crash => "the agent is killed".to_owned(),
        Action::Reboot => "the machine starts anew".to_owned(),
        Action::Ghost(at) => format!("takes effect, though nobody waits for it: {}", asked(&before.ghosts[*at])),
        Action::Drop(at) => format!("never takes effect: {}", asked(&before.ghosts[*at])),
        Action::Exit { uid, id, code } => format!("{id} of {} ends with {code}", pod(uid)),
        Action::Create(uid) => format!("somebody makes {}", pod(uid)),
        Action::Mark(uid) => format!("somebody deletes {}", pod(uid)),
        Action::Force(uid) => format!("somebody deletes {} without grace", pod(uid)),
    }
}

fn state(state: &State, lines: &mut Vec<String>) {
    for (uid, (object, pod)) in (0..).zip(state.api.iter().zip(&state.runtime.pods)) {
        let phase = object.status.as_ref().and_then(|status| status.status.phase.clone()).unwrap_or_default();
        lines.push(format!("       {} is {:?}, phase {phase:?}", uid_name(uid), object.stage));
        let sandboxes = pod.sandboxes.iter().map(|s| format!("{}{}", s.id, if s.ready { "" } else { " (stopped)" }));
        let containers = pod.containers.iter().map(|c| format!("{} {:?} in {}", c.id, c.state, c.sandbox_id));
        lines.extend(sandboxes.chain(containers).map(|what| format!("         {what}")));
    }
}
