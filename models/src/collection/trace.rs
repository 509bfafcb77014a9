//! A path through the model, for people.

use apiserver_core::options::Propagation;
use controllers_core::Write;

use super::cluster::{Action, Cluster, Left, State, Who, Work};
use super::store::{Change, Kind, Object};
use crate::exploration::{END, Path};

/// The steps of a path, each with what changed, and the state it ends in.
pub(super) fn lines(_: &Cluster, path: &Path<Cluster>) -> Vec<String> {
    let mut lines = Vec::new();
    let befores = path.iter().zip(path.iter().skip(1).map(|(state, _)| state));
    for (number, ((before, action), after)) in befores.enumerate() {
        if let Some(action) = action {
            lines.push(format!("{:4}.  {}", number + 1, step(before, action)));
            let new = after.store.log.iter().enumerate().skip(before.store.log.len());
            lines.extend(new.map(|(at, c)| format!("       version {}: {}", at + 1, change(c))));
        }
    }
    if let Some((last, _)) = path.last() {
        lines.push(END.to_owned());
        lines.extend(last.store.objects.iter().map(|object| format!("       {}", shown(object))));
        lines.extend(last.work.iter().map(|work| format!("       {}", about(work))));
    }
    lines
}

fn shown(object: &Object) -> String {
    let what = if object.kind == Kind::Set { "set" } else { "pod" };
    let mut said = format!("{what} {} ({})", object.name, object.uid);
    if !object.owners.is_empty() {
        let owner = |owner: &super::store::Owner| {
            format!("{}{}", owner.uid, if owner.controls { " as its controller" } else { "" })
        };
        let owners: Vec<String> = object.owners.iter().map(owner).collect();
        said += &format!(", owned by {}", owners.join(" and "));
    }
    if object.kind == Kind::Pod && !object.labelled {
        said += ", not selected";
    }
    if object.deleting {
        said += &format!(", being deleted: {}", object.finalizers.join(", "));
    }
    said
}

fn change(change: &Change) -> String {
    change.object.as_ref().map_or_else(|| format!("{} is gone", change.uid), shown)
}

fn writes(write: &Write) -> String {
    match write {
        Write::Confirm(target, uid) => format!("asks whether {} ({uid}) is there", target.name),
        Write::Patch(target, patch) => format!("patches {}: {}", target.name, patch["metadata"]),
        Write::DeleteAt(target, uid, version, propagation) => {
            format!("deletes {} ({uid}) at version {version}, {propagation:?}", target.name)
        }
        other => format!("{other:?}"),
    }
}

fn author(who: &Who) -> String {
    match who {
        Who::Collector(uid) => format!("the collector, about {uid},"),
        Who::Controller(name, uid) => format!("the controller of {name} ({uid})"),
    }
}

fn about(work: &Work) -> String {
    let what = match &work.left {
        Left::Check(owners) => {
            let uids: Vec<&str> = owners.iter().map(|owner| owner.uid.as_str()).collect();
            format!("asks whether {} is there", uids.join(" and "))
        }
        Left::Write(pending) => pending.last().map_or(String::new(), |pending| writes(&pending.write)),
    };
    format!("{} {what}", author(&work.who))
}

fn step(before: &State, action: &Action) -> String {
    match action {
        Action::Show { collector, kind } => {
            let who = if *collector { "the collector is" } else { "the controllers are" };
            let at = before.next_change(*collector, *kind);
            format!("{who} shown: {}", at.map_or(String::new(), |at| change(&before.store.log[at])))
        }
        Action::Look(uid) => format!("the collector looks at {uid}"),
        Action::Reconcile(name) => format!("the controller looks at {name}"),
        Action::Step(at) => about(&before.work[*at]),
        Action::Delete(name, Propagation::Background) => format!("somebody deletes {name}, its pods after it"),
        Action::Delete(name, Propagation::Foreground) => format!("somebody deletes {name}, its pods before it"),
        Action::Delete(name, Propagation::Orphan) => format!("somebody deletes {name}, and leaves its pods"),
        Action::Recreate => "somebody makes r anew".to_owned(),
        Action::Unlink => "somebody takes the pod's owners off".to_owned(),
        Action::Relabel => "somebody changes the pod's label".to_owned(),
    }
}
