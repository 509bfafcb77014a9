//! What must be once nothing breaks any more and all has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use agent_core::backoff;
use apiserver_core::meta;
use controllers_core::replica_set;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::informer::Kept;
use super::machine::Machine;
use super::objects::{Kind, Object};
use super::tasks::Sim;
use super::truth::{Truth, is_over, quantity, requests};

/// After its wait a container runs within this.
const STARTING_MAX: SignedDuration = SignedDuration::from_secs(10);

/// What isn't as it must be.
pub(crate) fn wrong(sim: &Sim, truth: &Truth, machines: &[&Machine]) -> Vec<String> {
    sim.caches.borrow_mut().retain(|kept| kept.cache.strong_count() > 0);
    let mut wrong: Vec<String> = sim.caches.borrow().iter().filter_map(|kept| stale(kept, truth)).collect();
    wrong.extend(truth.objects.values().filter_map(|object| lingers(object, truth)));
    wrong.extend(truth.of(Kind::Pod).filter_map(|pod| unwell(sim, pod, truth, machines)));
    wrong.extend(truth.of(Kind::Pod).filter_map(|pod| unadopted(pod, truth)));
    wrong.extend(truth.of(Kind::ReplicaSet).filter_map(|set| short(set, truth)));
    wrong.extend(truth.of(Kind::Deployment).filter_map(|deployment| unrolled(deployment, truth)));
    wrong.extend(machines.iter().flat_map(|machine| machine.leftovers()));
    wrong.extend(machines.iter().filter_map(|machine| unready(machine, truth)));
    wrong
}

/// Whoever keeps a cache has what the store has.
fn stale(kept: &Kept, truth: &Truth) -> Option<String> {
    let cache = kept.cache.upgrade()?;
    let revisions = |(key, object): (&String, &Rc<Object>)| (key.clone(), object.revision);
    let here: BTreeMap<String, i64> = cache.borrow().iter().map(revisions).collect();
    let wanted = truth.of(kept.wanted.kind).filter(|object| kept.wanted.matches(object));
    let there: BTreeMap<String, i64> = wanted.map(|object| (object.key.clone(), object.revision)).collect();
    let differs = here.iter().find(|(key, revision)| there.get(*key) != Some(revision));
    let lacks = there.iter().find(|(key, revision)| here.get(*key) != Some(revision));
    (here != there).then(|| format!("{} has {differs:?} where the store has {lacks:?}", kept.who))
}

fn text<'a>(object: &'a Object, pointer: &str) -> &'a str {
    meta::text(&object.value, pointer)
}

fn number(object: &Object, pointer: &str) -> i64 {
    object.value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// What is deleted is gone, and what it owned is too.
fn lingers(object: &Object, truth: &Truth) -> Option<String> {
    let uids: BTreeSet<&str> = truth.objects.values().map(|object| object.uid()).collect();
    let owners = meta::items(&object.value, "/metadata/ownerReferences");
    if meta::is_deleting(&object.value) {
        return Some(format!("{} is still being deleted", object.key));
    }
    let lost = !owners.is_empty() && owners.iter().all(|owner| !uids.contains(meta::text(owner, "/uid")));
    lost.then(|| format!("{} is there though its owners are gone", object.key))
}

fn condition<'a>(object: &'a Object, kind: &str) -> &'a str {
    let conditions = meta::items(&object.value, "/status/conditions");
    conditions.iter().find(|c| c["type"] == kind).map_or("", |condition| meta::text(condition, "/status"))
}

/// Whether a container may still wait to be started again, as its agent says.
fn waits(status: &Value, now: Timestamp) -> bool {
    let ended: Option<Timestamp> = meta::text(status, "/lastState/terminated/finishedAt").parse().ok();
    let restarts = status["restartCount"].as_u64().and_then(|count| u32::try_from(count).ok());
    let until = ended.zip(restarts).map(|(ended, restarts)| ended + backoff::crash_delay(restarts) + STARTING_MAX);
    meta::text(status, "/state/waiting/reason") == "CrashLoopBackOff" && until.is_some_and(|until| now < until)
}

/// A pod has a node if there is one for it, runs there, and says so.
fn unwell(sim: &Sim, pod: &Object, truth: &Truth, machines: &[&Machine]) -> Option<String> {
    let (name, uid, node) = (pod.name(), pod.uid(), text(pod, "/spec/nodeName"));
    let machine = machines.iter().find(|machine| machine.name == node);
    let running = machine.map_or(0, |machine| machine.running(uid));
    if is_over(&pod.value) {
        return (running > 0).then(|| format!("pod {name} ({uid}) is over and {running} containers of it run"));
    }
    if node.is_empty() {
        let fits = truth.of(Kind::Node).find(|node| has_room(node, requests(&pod.value), truth))?;
        return Some(format!("pod {name} ({uid}) has no node though {} has room", fits.name()));
    }
    if machine.is_none() {
        return Some(format!("pod {name} ({uid}) is on {node}, which is gone"));
    }
    let statuses = meta::items(&pod.value, "/status/containerStatuses");
    let waiting = statuses.iter().filter(|status| waits(status, sim.wall())).count();
    let wanted = meta::items(&pod.value, "/spec/containers").len().saturating_sub(waiting);
    let always = text(pod, "/spec/restartPolicy") == "Always";
    let (phase, ready) = (text(pod, "/status/phase"), condition(pod, "Ready"));
    let right = if waiting > 0 { "False" } else { "True" };
    let is_well =
        if always { running == wanted && phase == "Running" && ready == right } else { running + waiting > 0 };
    (!is_well).then(|| {
        let says = pod.value.pointer("/status/containerStatuses").unwrap_or(&Value::Null);
        format!("pod {name} ({uid}) on {node} runs {running} containers of {wanted}, is {phase:?} and says {says}")
    })
}

/// A pod that nobody controls belongs to the ReplicaSet that selects it.
fn unadopted(object: &Object, truth: &Truth) -> Option<String> {
    let pod = object.pod();
    let mut sets = truth.of(Kind::ReplicaSet).filter(|set| !meta::is_deleting(&set.value));
    let set = sets.find(|set| replica_set::would_adopt(&set.replica_set(), &pod))?;
    replica_set::is_active(&pod).then(|| format!("{} is nobody's, though {} selects it", object.key, set.key))
}

fn has_room(node: &Object, more: i64, truth: &Truth) -> bool {
    let is_open = node.value.pointer("/spec/unschedulable") != Some(&Value::Bool(true));
    let taints = meta::items(&node.value, "/spec/taints");
    let room = quantity(text(node, "/status/allocatable/cpu"));
    is_open && taints.is_empty() && truth.load(node.name()) + more <= room
}

fn controlled<'a>(owner: &'a Object, kind: Kind, truth: &'a Truth) -> impl Iterator<Item = &'a Rc<Object>> {
    let is_controller = |reference: &Value| reference["uid"] == owner.uid() && reference["controller"] == true;
    truth.of(kind).filter(move |o| meta::items(&o.value, "/metadata/ownerReferences").iter().any(is_controller))
}

/// A ReplicaSet has as many pods as it asks for, and says how many are ready.
fn short(set: &Object, truth: &Truth) -> Option<String> {
    let pods: Vec<_> = controlled(set, Kind::Pod, truth)
        .filter(|pod| !is_over(&pod.value) && !meta::is_deleting(&pod.value))
        .collect();
    let ready = pods.iter().filter(|pod| condition(pod, "Ready") == "True").count();
    let said = (number(set, "/status/replicas"), number(set, "/status/readyReplicas"));
    let (wanted, is) = (number(set, "/spec/replicas"), (pods.len() as i64, ready as i64));
    let label = text(set, "/metadata/labels/app");
    let others = truth.of(Kind::Pod).filter(|pod| text(pod, "/metadata/labels/app") == label);
    let others: Vec<_> = others.map(|pod| (pod.name(), pod.value.pointer("/metadata/ownerReferences/0/uid"))).collect();
    (wanted != is.0 || said != is).then(|| {
        format!("{} ({}) asks for {wanted} pods, has {} of which {} are ready, and says {said:?}; pods of the label: {others:?}",
            set.key, set.uid(), is.0, is.1)
    })
}

/// A Deployment whose pods are all ready is rolled out.
fn unrolled(deployment: &Object, truth: &Truth) -> Option<String> {
    let sets: Vec<_> = controlled(deployment, Kind::ReplicaSet, truth).collect();
    let wanted = number(deployment, "/spec/replicas");
    let asked: i64 = sets.iter().map(|set| number(set, "/spec/replicas")).sum();
    let ready: i64 = sets.iter().map(|set| number(set, "/status/readyReplicas")).sum();
    let said = (number(deployment, "/status/updatedReplicas"), number(deployment, "/status/observedGeneration"));
    let right = (wanted, number(deployment, "/metadata/generation"));
    (sets.is_empty() || asked == ready && (asked != wanted || said != right)).then(|| {
        format!("{} asks for {wanted} pods, its sets for {asked}, which are ready; it says {said:?}", deployment.key)
    })
}

/// A machine's node is there and ready.
fn unready(machine: &Machine, truth: &Truth) -> Option<String> {
    let node = truth.objects.get(&Kind::Node.key("", &machine.name));
    let Some(node) = node else { return Some(format!("node {} isn't there", machine.name)) };
    let said = node.value.pointer("/status/conditions");
    (condition(node, "Ready") != "True").then(|| format!("node {} isn't ready: {said:?}", machine.name))
}
