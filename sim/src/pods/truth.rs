//! What is true of objects: all that the store committed, judged as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use apiserver_core::meta;
use bytes::Bytes;
use serde_json::Value;

use super::objects::{Kind, Object};
use super::tasks::Sim;
use crate::canon::Told;

/// A pod's life, by UID.
#[derive(Debug, Default, Clone)]
pub(crate) struct Life {
    pub(crate) node: Option<String>,
    /// The phase that it can't leave.
    over: Option<String>,
    /// Its object went before its agent asked for it.
    pub(crate) forced: bool,
}

/// All of it.
pub(crate) struct Truth {
    sim: Sim,
    /// Objects by key.
    pub(crate) objects: BTreeMap<String, Rc<Object>>,
    uids: BTreeSet<String>,
    pub(crate) lives: BTreeMap<String, Life>,
    /// What nodes told last of their room, by name.
    rooms: BTreeMap<String, i64>,
    /// Changes of objects.
    pub(crate) changes: u64,
}

/// Thousandths of a core that a pod asks for.
pub(crate) fn requests(pod: &Value) -> i64 {
    let of = |container: &Value| quantity(meta::text(container, "/resources/requests/cpu"));
    meta::items(pod, "/spec/containers").iter().map(of).sum()
}

/// Thousandths.
pub(crate) fn quantity(text: &str) -> i64 {
    text.parse::<api::quantity::Quantity>().map_or(0, |quantity| quantity.milli_value())
}

/// Whether a pod takes no room any more.
pub(crate) fn is_over(pod: &Value) -> bool {
    matches!(meta::text(pod, "/status/phase"), "Succeeded" | "Failed")
}

impl Truth {
    pub(crate) fn new(sim: &Sim) -> Self {
        let (objects, lives) = (BTreeMap::new(), BTreeMap::new());
        Self { sim: sim.clone(), objects, uids: BTreeSet::new(), lives, rooms: BTreeMap::new(), changes: 0 }
    }

    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Rc<Object>> {
        self.objects
            .range(kind.prefix().to_owned()..)
            .take_while(move |(key, _)| key.starts_with(kind.prefix()))
            .map(|(_, object)| object)
    }

    /// A change was committed.
    pub(crate) fn see(&mut self, told: &Told) {
        let Some(kind) = Kind::of_key(&told.key) else { return };
        self.changes += 1;
        let before = self.objects.remove(&told.key);
        let Some(value) = &told.value else {
            return self.gone(kind, before.as_deref());
        };
        let bytes = Bytes::copy_from_slice(value.as_bytes());
        let object = match self.sim.memo.decode(&told.key, told.revision, &bytes) {
            Ok(object) => object,
            Err(status) => {
                return self.sim.violate(format_args!("{} holds what isn't an object: {status:?}", told.key));
            }
        };
        let uid = object.uid().to_owned();
        match &before {
            None => {
                if !self.uids.insert(uid.clone()) {
                    self.sim.violate(format_args!("{} is made with the UID of another, {uid}", told.key));
                }
            }
            Some(before) if before.uid() != uid => {
                self.sim.violate(format_args!("{} is replaced by another object", told.key));
            }
            Some(before) if meta::is_deleting(&before.value) && !meta::is_deleting(&object.value) => {
                self.sim.violate(format_args!("{} isn't being deleted any more", told.key));
            }
            Some(_) => {}
        }
        self.objects.insert(told.key.clone(), object.clone());
        match kind {
            Kind::Pod => self.pod(&object),
            Kind::Node => self.node(&object),
            _ => {}
        }
    }

    fn gone(&mut self, kind: Kind, before: Option<&Object>) {
        let Some(before) = before else { return };
        if !meta::finalizers(&before.value).is_empty()
            && meta::finalizers(&before.value) != ["foregroundDeletion"]
            && meta::finalizers(&before.value) != ["orphan"]
        {
            self.sim.violate(format_args!("{} went with its finalizers", before.key));
        }
        if kind == Kind::Pod {
            let has_grace = meta::deletion_grace(&before.value).unwrap_or(0) > 0;
            let life = self.lives.entry(before.uid().to_owned()).or_default();
            // Whether its agent said so shows in what still runs. One with grace may lose it on the way.
            life.forced |= !has_grace || self.sim.forced.borrow().contains(before.uid());
        }
    }

    fn pod(&mut self, object: &Object) {
        let (pod, uid) = (&object.value, object.uid().to_owned());
        let node = meta::text(pod, "/spec/nodeName").to_owned();
        let phase = meta::text(pod, "/status/phase").to_owned();
        let life = self.lives.entry(uid.clone()).or_default();
        if let Some(bound) = life.node.as_ref().filter(|bound| **bound != node) {
            let what = format!("pod {} ({uid}) was bound to {bound} and is bound to {node:?} now", object.name());
            return self.sim.violate(what);
        }
        if let Some(over) = life.over.as_ref().filter(|over| **over != phase) {
            let what = format!("pod {} ({uid}) was {over} and is {phase:?} now", object.name());
            return self.sim.violate(what);
        }
        life.over = is_over(pod).then_some(phase);
        for status in meta::items(pod, "/status/containerStatuses") {
            let id = meta::text(status, "/containerID");
            if !id.is_empty() && !id.contains(&uid) {
                let what =
                    format!("pod {} ({uid}) is given the status of another: its container is {id}", object.name());
                return self.sim.violate(what);
            }
        }
        if life.node.is_none() && !node.is_empty() {
            life.node = Some(node.clone());
            self.has_room(&node);
        }
    }

    /// One that is made again has told nothing yet: a scheduler that hasn't heard of that still takes it for the one it
    /// was, as a binding names a node and no UID. What its machine has is what it told before.
    fn node(&mut self, object: &Object) {
        let told = meta::text(&object.value, "/status/allocatable/cpu");
        if !told.is_empty() {
            self.rooms.insert(object.name().to_owned(), quantity(told));
        }
    }

    /// A node was given a pod: it must have had room for it.
    fn has_room(&self, node: &str) {
        if !self.objects.contains_key(&Kind::Node.key("", node)) {
            return;
        }
        let room = self.rooms.get(node).copied().unwrap_or_default();
        let load = self.load(node);
        if load > room {
            self.sim.violate(format_args!("node {node} has room for {room} and was given pods that ask for {load}"));
        }
    }

    /// What pods on a node ask for.
    pub(crate) fn load(&self, node: &str) -> i64 {
        let here = |pod: &&Rc<Object>| meta::text(&pod.value, "/spec/nodeName") == node && !is_over(&pod.value);
        self.of(Kind::Pod).filter(here).map(|pod| requests(&pod.value)).sum()
    }
}
