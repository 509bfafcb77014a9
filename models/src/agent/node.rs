//! The agent's process: what it was shown, its pods, its calls. After the owner in `agent/node/src/pods.rs`.

use std::sync::Arc;

use agent_core::runtime::{Action, ObservedPod};

use super::cluster::{Object, Stage};
use super::mind::{Input, Memo, Mind, Shown};
use super::{Bounds, Mutant};

/// A call to the runtime or the API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Call {
    pub(super) uid: u8,
    pub(super) action: Arc<Action>,
    /// Whether it was done or refused, once it was.
    pub(super) done: Option<bool>,
}

/// All that runs, as of when it was looked at.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Look {
    pods: Vec<Arc<ObservedPod>>,
    /// Pods of which an action has ended since.
    outdated: Vec<bool>,
}

/// The process.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Agent {
    /// Whether the API's list is known.
    pub(super) listed: bool,
    /// Whether it is known what runs.
    pub(super) observed: bool,
    /// What the watch has shown of each pod.
    told: Vec<Stage>,
    /// What runs of pods without an entry.
    found: Vec<Arc<ObservedPod>>,
    /// Entries, by UID.
    pub(super) minds: Vec<Option<Arc<Mind>>>,
    /// In order: which was first doesn't matter.
    pub(super) calls: Vec<Call>,
    pub(super) look: Option<Look>,
}

/// What the agent decides with.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) memo: &'a Memo,
    pub(super) bounds: &'a Bounds,
    pub(super) now: u32,
}

impl Setting<'_> {
    fn has(&self, mutant: Mutant) -> bool {
        self.bounds.mutant == Some(mutant)
    }
}

impl Agent {
    pub(super) fn started(bounds: &Bounds) -> Self {
        let pods = usize::from(bounds.pods);
        Self {
            listed: false,
            observed: bounds.mutant == Some(Mutant::ActEarly),
            told: vec![Stage::Unborn; pods],
            found: vec![Arc::default(); pods],
            minds: vec![None; pods],
            calls: Vec::new(),
            look: None,
        }
    }

    fn tell(&mut self, uid: usize, input: Input, with: Setting<'_>) {
        if !self.observed {
            return;
        }
        let Some(mind) = &self.minds[uid] else { return };
        let next = with.memo.next(mind, input, with.now);
        let number = u8::try_from(uid).expect("few pods");
        let calls = next.calls.iter().map(|action| Call { uid: number, action: action.clone(), done: None });
        self.calls.extend(calls);
        self.calls.sort_unstable();
        self.minds[uid] = Some(next.mind.clone()).filter(|mind| !mind.gone);
        if next.mind.gone {
            self.found[uid] = Arc::default();
        }
    }

    fn insert(&mut self, uid: usize, shown: Shown, object: Option<&Object>, with: Setting<'_>) {
        let number = u8::try_from(uid).expect("few pods");
        let status = object.and_then(|object| object.status.clone());
        self.minds[uid] = Some(Mind::new(number, shown, status, std::mem::take(&mut self.found[uid])));
        self.tell(uid, Input::Look, with);
    }

    /// The API's list.
    pub(super) fn list(&mut self, api: &[Object], with: Setting<'_>) {
        self.listed = true;
        for uid in 0..api.len() {
            self.show(uid, api, with);
        }
        self.adopt(with);
    }

    /// Whether the watch has something to show of a pod.
    pub(super) fn is_behind(&self, uid: usize, api: &[Object], bounds: &Bounds) -> bool {
        let (told, stage) = (self.told[uid], api[uid].stage);
        let is_lost = bounds.mutant == Some(Mutant::LoseMark) && (told, stage) == (Stage::Wanted, Stage::Marked);
        self.listed && self.observed && told != stage && (told, stage) != (Stage::Unborn, Stage::Gone) && !is_lost
    }

    /// The watch shows what the API has of a pod now.
    pub(super) fn show(&mut self, uid: usize, api: &[Object], with: Setting<'_>) {
        let object = &api[uid];
        self.told[uid] = object.stage;
        let shown = match object.stage {
            Stage::Unborn => return,
            Stage::Wanted => Shown::Wanted,
            Stage::Marked => Shown::Marked,
            Stage::Gone => Shown::Removed,
        };
        match &self.minds[uid] {
            // What was taken for nobody's stays so.
            Some(mind) if mind.shown == Shown::Orphan => {}
            Some(_) => self.tell(uid, Input::Shown(shown), with),
            None if shown == Shown::Removed => {}
            None => self.insert(uid, shown, Some(object), with),
        }
    }

    /// O3.
    fn adopt(&mut self, with: Setting<'_>) {
        if !self.observed || !(self.listed || with.has(Mutant::AdoptEarly)) || with.has(Mutant::NeverAdopt) {
            return;
        }
        for uid in 0..self.minds.len() {
            if self.minds[uid].is_none() && !self.found[uid].is_empty() {
                self.insert(uid, Shown::Orphan, None, with);
            }
        }
    }

    /// Whether something runs otherwise than the agent knows.
    pub(super) fn is_blind(&self, pods: &[Arc<ObservedPod>]) -> bool {
        let known = |uid: usize| self.minds[uid].as_ref().map_or(&self.found[uid], |mind| &mind.observed);
        !self.observed || (0..pods.len()).any(|uid| known(uid) != &pods[uid])
    }

    /// What runs is looked at, and told at once.
    pub(super) fn observe(&mut self, pods: &[Arc<ObservedPod>], with: Setting<'_>) {
        let look = Look { pods: pods.to_vec(), outdated: vec![false; pods.len()] };
        self.see(&look, with);
    }

    /// What runs is looked at.
    pub(super) fn take_look(&mut self, pods: &[Arc<ObservedPod>]) {
        self.look = Some(Look { pods: pods.to_vec(), outdated: vec![false; pods.len()] });
    }

    /// What was looked at is told. O1.
    pub(super) fn see(&mut self, look: &Look, with: Setting<'_>) {
        let first = !self.observed;
        self.observed = true;
        for uid in 0..look.pods.len() {
            let Some(mind) = &self.minds[uid] else {
                self.found[uid] = look.pods[uid].clone();
                continue;
            };
            let is_used = !look.outdated[uid] || with.has(Mutant::StaleLook);
            if is_used && (first || mind.observed != look.pods[uid]) {
                self.tell(uid, Input::Observed(look.pods[uid].clone()), with);
            }
        }
        self.adopt(with);
    }

    /// A call came to an end.
    pub(super) fn end(&mut self, call: Call, is_done: bool, seen: Arc<ObservedPod>, with: Setting<'_>) {
        let uid = usize::from(call.uid);
        if let Some(look) = self.look.as_mut().filter(|_| self.minds[uid].is_some()) {
            look.outdated[uid] = true;
        }
        self.tell(uid, Input::Done { action: call.action, is_done, seen }, with);
    }

    /// A pod's status was written.
    pub(super) fn written(&mut self, uid: usize, with: Setting<'_>) {
        self.tell(uid, Input::Written, with);
    }

    /// When the agent looks again by itself.
    pub(super) fn next_wake(&self) -> Option<u32> {
        self.minds.iter().flatten().filter_map(|mind| mind.wake).min()
    }

    /// Time has passed.
    pub(super) fn wake(&mut self, with: Setting<'_>) {
        for uid in 0..self.minds.len() {
            if self.minds[uid].as_ref().is_some_and(|mind| mind.wake.is_some_and(|wake| wake <= with.now)) {
                self.tell(uid, Input::Look, with);
            }
        }
    }
}
