//! Writes of the collector and of controllers, as `controllers/server/src/execute.rs` makes them, and what is to be said of them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use apiserver_core::options::Propagation as Asked;
use controllers_core::Write;
use controllers_core::write::Propagation;
use serde_json::Value;

use super::Mutant;
use super::cluster::{Cluster, State, Who, Work};
use super::store::{FOREGROUND, Kind, ORPHAN, Object, Refusal, Store};

/// A write that was decided upon.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) write: Arc<Write>,
    /// What it says, to tell it from others.
    text: Arc<str>,
}

impl Pending {
    pub(super) fn new(write: Write) -> Self {
        Self { text: format!("{write:?}").into(), write: Arc::new(write) }
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Hash for Pending {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.text.hash(hasher);
    }
}

/// What must never be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Broken {
    /// Something was collected that has no owner, or one that lives.
    pub(super) owned: bool,
    /// Something was collected that an owner's deletion had let go, and nobody had adopted since.
    pub(super) orphan: bool,
    /// A writer took off an owner that isn't its own, and lives.
    pub(super) stolen: bool,
    /// A pod has two controllers.
    pub(super) two: bool,
    /// An owner was let go before a dependent that it was to leave alone.
    pub(super) left_behind: bool,
    /// An owner was let go before a dependent that was to go first.
    pub(super) too_soon: bool,
}

fn asked(propagation: Propagation) -> Asked {
    match propagation {
        Propagation::Background => Asked::Background,
        Propagation::Foreground => Asked::Foreground,
        Propagation::Orphan => Asked::Orphan,
    }
}

/// Whether an owner stands for its dependents: it is there, and doesn't wait for them to go.
fn lives(store: &Store, uid: &str) -> bool {
    store.by_uid(uid).is_some_and(|owner| !owner.waits(FOREGROUND))
}

impl Cluster {
    /// Whether a write is a question that is put to the API.
    pub(super) fn asks(&self, write: &Write) -> bool {
        matches!(write, Write::Confirm(..)) && self.bounds.mutant != Some(Mutant::NoConfirm)
    }

    /// Makes a write, the next one of a piece of work.
    pub(super) fn write(&self, state: &mut State, work: &Work, pending: &Pending) -> Result<(), Refusal> {
        match &*pending.write {
            Write::Confirm(target, uid) if self.asks(&pending.write) => {
                let found = state.store.by_name(Kind::of(target), &target.name);
                let is_same = found.is_some_and(|set| set.uid == *uid && !set.deleting);
                if !is_same {
                    self.seen.unconfirmed.store(true, Ordering::Relaxed);
                }
                let refusal = if found.is_none() { Refusal::Missing } else { Refusal::Conflict };
                if is_same { Ok(()) } else { Err(refusal) }
            }
            Write::Patch(target, patch) => self.patch(state, work, (Kind::of(target), &target.name), patch),
            Write::DeleteAt(target, uid, version, propagation) => {
                let is_guarded = self.bounds.mutant != Some(Mutant::UnguardedDelete);
                let version = is_guarded.then(|| version.clone());
                let before = state.store.clone();
                let (kind, name) = (Kind::of(target), &target.name);
                match state.store.delete(kind, name, (Some(uid.clone()), version), asked(*propagation)) {
                    Ok(()) => self.judge_deletion(state, &before, uid),
                    Err(Refusal::Conflict) if before.by_name(kind, name).is_some_and(|found| found.uid == *uid) => {
                        self.seen.refused.store(true, Ordering::Relaxed);
                    }
                    Err(_) => {}
                }
                // What doesn't meet the conditions is decided upon anew.
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn patch(&self, state: &mut State, work: &Work, (kind, name): (Kind, &str), patch: &Value) -> Result<(), Refusal> {
        let mut patch = patch.clone();
        if self.bounds.mutant == Some(Mutant::UnguardedPatch)
            && let Some(metadata) = patch["metadata"].as_object_mut()
        {
            metadata.shift_remove("resourceVersion");
        }
        let old = state.store.by_name(kind, name).cloned();
        let before = state.store.clone();
        state.store.patch(kind, name, &patch)?;
        let Some(old) = old else { return Ok(()) };
        match kind {
            Kind::Pod => self.judge_owners(state, work, &old),
            Kind::Set => self.judge_release(state, &before, &old, work.shown.pods),
        }
        Ok(())
    }

    /// G1, G4.
    fn judge_deletion(&self, state: &mut State, before: &Store, uid: &str) {
        let Some(object) = before.by_uid(uid) else { return };
        let is_right = !object.owners.is_empty() && object.owners.iter().all(|owner| !lives(before, &owner.uid));
        state.broken.owned |= !is_right;
        state.broken.orphan |= state.spared;
        self.seen.collected.store(true, Ordering::Relaxed);
    }

    /// Who owns the pod from now on.
    fn judge_owners(&self, state: &mut State, Work { who, confirmed, .. }: &Work, old: &Object) {
        let Some(new) = state.store.by_uid(&old.uid).cloned() else { return };
        let store = &state.store;
        for lost in old.owners.iter().filter(|owner| !new.is_owned_by(&owner.uid)) {
            let is_orphaned = store.by_uid(&lost.uid).is_some_and(|owner| owner.waits(ORPHAN));
            let may = match who {
                Who::Collector(_) => !lives(store, &lost.uid) || is_orphaned,
                Who::Controller(_, uid) => lost.uid == *uid,
            };
            state.broken.stolen |= !may;
            state.spared |= is_orphaned && matches!(who, Who::Collector(_)) && new.owners.is_empty();
        }
        state.broken.two |= new.owners.iter().filter(|owner| owner.controls).count() > 1;
        let adopts = |uid: &str| *confirmed || lives(store, uid);
        let is_adopted = new.owners.iter().any(|owner| !old.is_owned_by(&owner.uid) && adopts(&owner.uid));
        if is_adopted {
            self.seen.adopted.store(true, Ordering::Relaxed);
            if state.spared {
                self.seen.readopted.store(true, Ordering::Relaxed);
            }
            state.spared = false;
        } else if new.owners.len() < old.owners.len() && !new.owners.is_empty() {
            self.seen.taken_off.store(true, Ordering::Relaxed);
        }
    }

    /// G3: what an owner was let go before, of what its author had been shown.
    fn judge_release(&self, state: &mut State, before: &Store, old: &Object, shown: usize) {
        let has = |finalizer: &str| state.store.by_uid(&old.uid).is_some_and(|set| set.waits(finalizer));
        // What was listed at the beginning was shown, or is to be waited for.
        let listed = usize::from(self.bounds.sets) + 1;
        let was_shown = |pod: &&Object| {
            let last = before.log[..shown.max(listed)].iter().rev().find(|change| change.uid == pod.uid);
            last.and_then(|change| change.object.as_ref()).is_some_and(|seen| seen.is_owned_by(&old.uid))
        };
        let depends = |pod: &Object| pod.is_owned_by(&old.uid);
        let behind = before.pods().filter(was_shown).any(depends);
        let (orphan, foreground) = (old.waits(ORPHAN) && !has(ORPHAN), old.waits(FOREGROUND) && !has(FOREGROUND));
        state.broken.left_behind |= orphan && behind;
        state.broken.too_soon |= foreground && behind;
        if foreground {
            self.seen.foreground.store(true, Ordering::Relaxed);
        }
    }
}
