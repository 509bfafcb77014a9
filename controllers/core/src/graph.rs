//! Garbage collection: the graph of owners and what dangles from it.
//!
//! Invariants
//!   G1  An object is collected only if each of its owners is known to be gone,
//!       or waits in the foreground for this object's end.
//!   G2  "Gone" is confirmed with the API before anything is deleted: informers
//!       may lag behind a creation.
//!   G3  An owner that is deleted in the foreground goes after the dependents that block it, as far as they were shown.
//!   G4  What is written counts only for the version of the object that was decided upon: who was adopted, or changed
//!       otherwise, in between isn't deleted, and nobody's change is undone.
//!   G5  Who is looked at once is looked at again when that may lead to something else.
//! Checked by: models/src/collection (G1–G5), graph/tests.rs.
//! Source: `pkg/controller/garbagecollector` (graph.go, attemptToDeleteItem).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::write::{Propagation, Target, Write};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What the collector knows of an object: metadata alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Which object.
    pub target: Target,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub version: String,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl Object {
    fn waits(&self, finalizer: &str) -> bool {
        self.deleting && self.finalizers.iter().any(|f| f == finalizer)
    }

    fn without_finalizer(&self, finalizer: &str) -> Write {
        let left: Vec<&String> = self.finalizers.iter().filter(|f| *f != finalizer).collect();
        let left: Value = if left.is_empty() { Value::Null } else { json!(left) };
        self.patch("finalizers", left)
    }

    /// The object without the owners that match.
    fn without_owners(&self, matches: impl Fn(&OwnerReference) -> bool) -> Write {
        let left: Vec<&OwnerReference> = self.owners.iter().filter(|owner| !matches(owner)).collect();
        self.patch("ownerReferences", if left.is_empty() { Value::Null } else { json!(left) })
    }

    /// A list of the metadata replaced (G4).
    fn patch(&self, field: &str, list: Value) -> Write {
        let mut patch = json!({"metadata": {"uid": self.uid, "resourceVersion": self.version}});
        patch["metadata"][field] = list;
        Write::Patch(self.target.clone(), patch)
    }
}

/// The graph: objects by uid, dependents by owner.
#[derive(Debug, Default)]
pub struct Graph {
    objects: BTreeMap<String, Object>,
    dependents: BTreeMap<String, BTreeSet<String>>,
}

/// What to do about an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Ask the API whether these owners are gone (G2), then call [`Graph::after_check`].
    Check(Vec<OwnerReference>),
    /// Make these writes.
    Act(Vec<Write>),
}

impl Graph {
    /// Takes in an object's present state; returns the uids to look at.
    pub fn observe(&mut self, object: Object) -> Vec<String> {
        let uid = object.uid.clone();
        let mut look = Vec::new();
        if let Some(old) = self.objects.get(&uid) {
            for owner in &old.owners {
                if let Some(set) = self.dependents.get_mut(&owner.uid) {
                    set.remove(&uid);
                }
                // An owner in the foreground may have waited for this one (G5).
                if !object.owners.contains(owner) {
                    look.push(owner.uid.clone());
                }
            }
        }
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let interesting = object.deleting || !object.owners.is_empty();
        if object.waits(FOREGROUND) || object.waits(ORPHAN) {
            look.extend(self.dependents_of(&uid));
        }
        self.objects.insert(uid.clone(), object);
        if interesting {
            look.push(uid);
        }
        look
    }

    /// Takes in that an object is gone; returns the uids to look at.
    pub fn forget(&mut self, uid: &str) -> Vec<String> {
        let mut look = self.dependents_of(uid);
        if let Some(old) = self.objects.remove(uid) {
            for owner in &old.owners {
                let empty = match self.dependents.get_mut(&owner.uid) {
                    Some(set) => {
                        set.remove(uid);
                        set.is_empty()
                    }
                    None => false,
                };
                if empty {
                    self.dependents.remove(&owner.uid);
                }
                // An owner in the foreground may have waited for this one.
                look.push(owner.uid.clone());
            }
        }
        look
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The namespace of an object.
    pub fn namespace_of(&self, uid: &str) -> Option<String> {
        self.objects.get(uid).map(|object| object.target.namespace.clone())
    }

    /// A graph of the object and its owners alone: enough to decide about it elsewhere.
    #[must_use]
    pub fn around(&self, uid: &str) -> Graph {
        let mut small = Graph::default();
        if let Some(object) = self.objects.get(uid) {
            for owner in object.owners.iter().filter_map(|o| self.objects.get(&o.uid)) {
                small.observe(owner.clone());
            }
            small.observe(object.clone());
        }
        small
    }

    /// Objects known.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Decides what to do about an object.
    pub fn look(&self, uid: &str) -> Verdict {
        let Some(object) = self.objects.get(uid) else { return Verdict::Keep };
        if object.waits(ORPHAN) {
            return Verdict::Act(self.orphan(object));
        }
        if object.waits(FOREGROUND) {
            return self.foreground(object);
        }
        if object.deleting || object.owners.is_empty() {
            return Verdict::Keep;
        }
        let unknown: Vec<OwnerReference> =
            object.owners.iter().filter(|o| !self.objects.contains_key(&o.uid)).cloned().collect();
        if !unknown.is_empty() {
            return Verdict::Check(unknown);
        }
        self.after_check(uid, &BTreeSet::new())
    }

    fn waits(&self, owner: &OwnerReference) -> bool {
        self.objects.get(&owner.uid).is_some_and(|object| object.waits(FOREGROUND))
    }

    /// G1: decides once the API has said which owners are gone.
    pub fn after_check(&self, uid: &str, gone: &BTreeSet<String>) -> Verdict {
        let Some(object) = self.objects.get(uid) else { return Verdict::Keep };
        if object.deleting {
            return Verdict::Keep;
        }
        let lost = |owner: &OwnerReference| gone.contains(&owner.uid);
        let waiting = object.owners.iter().filter(|owner| !lost(owner) && self.waits(owner)).count();
        let living = object.owners.iter().filter(|owner| !lost(owner) && !self.waits(owner)).count();
        if living == object.owners.len() {
            return Verdict::Keep;
        }
        // Another owner lives: those that are gone, or wait for this object's end, are only taken off the list.
        if living > 0 {
            return Verdict::Act(vec![object.without_owners(|owner| lost(owner) || self.waits(owner))]);
        }
        // Who waits in the foreground waits for this object's own dependents too.
        let propagation = if waiting > 0 { Propagation::Foreground } else { Propagation::Background };
        Verdict::Act(vec![self.delete(object, propagation)])
    }

    /// An object's own finalizers decide how it goes, if it has any.
    fn delete(&self, object: &Object, propagation: Propagation) -> Write {
        let propagation = if object.finalizers.iter().any(|f| f == ORPHAN) {
            Propagation::Orphan
        } else if object.finalizers.iter().any(|f| f == FOREGROUND) {
            Propagation::Foreground
        } else {
            propagation
        };
        Write::DeleteAt(object.target.clone(), object.uid.clone(), object.version.clone(), propagation)
    }

    fn orphan(&self, owner: &Object) -> Vec<Write> {
        let mut writes: Vec<Write> = self
            .dependents_of(&owner.uid)
            .iter()
            .filter_map(|uid| self.objects.get(uid))
            .map(|dependent| dependent.without_owners(|reference| reference.uid == owner.uid))
            .collect();
        writes.push(owner.without_finalizer(ORPHAN));
        writes
    }

    /// G3: deletes the dependents, or lets the owner go if none blocks it any more.
    fn foreground(&self, owner: &Object) -> Verdict {
        let dependents = self.dependents_of(&owner.uid);
        let blocks = |uid: &String| {
            let object = self.objects.get(uid)?;
            let reference = object.owners.iter().find(|o| o.uid == owner.uid)?;
            (reference.block_owner_deletion == Some(true)).then_some(object)
        };
        if dependents.iter().filter_map(blocks).next().is_none() {
            return Verdict::Act(vec![owner.without_finalizer(FOREGROUND)]);
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests;
