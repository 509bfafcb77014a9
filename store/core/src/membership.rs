//! Who belongs to the cluster: part of the replicated state, changed by commands in the log.
//!
//! raft's configuration is derived from it (voters and learners), so the two can't disagree.
//!
//! Invariants
//!   N1  A member's number is never used again once it was removed.
//!   N2  No two members have a peer URL in common.
//!   N3  A change that is refused changes nothing.
//!   N4  A member has one folder in its life: who lost it has forgotten votes and entries that
//!       others count on, and may only come back under a new number.
//! Source: etcd `server/etcdserver/api/membership/cluster.go`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::{ConfChange, ConfChangeType, ConfState};

use crate::errors::RequestError;
use crate::wire::member_change::Change;
use crate::wire::{Folder, Member, Membership};

/// Learners at once: each one costs the leader as much as a voter, and none helps a quorum.
pub const LEARNERS_MAX: usize = 1;

/// The cluster's members.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members {
    cluster_id: u64,
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    folders: BTreeMap<u64, u64>,
}

impl Members {
    /// The members a cluster begins with, all voting.
    #[must_use]
    pub fn new(cluster_id: u64, members: impl IntoIterator<Item = Member>) -> Self {
        let members = members.into_iter().map(|member| (member.id, member)).collect();
        Self { cluster_id, members, removed: BTreeSet::new(), folders: BTreeMap::new() }
    }

    /// As it is stored and sent.
    #[must_use]
    pub fn to_wire(&self) -> Membership {
        let (members, removed) = (self.members.values().cloned().collect(), self.removed.iter().copied().collect());
        let folders = self.folders.iter().map(|(member, number)| Folder { member: *member, number: *number }).collect();
        Membership { cluster_id: self.cluster_id, members, removed, folders }
    }

    /// From what was stored or sent.
    #[must_use]
    pub fn from_wire(wire: Membership) -> Self {
        let removed = wire.removed.into_iter().collect();
        let folders = wire.folders.into_iter().map(|folder| (folder.member, folder.number)).collect();
        Self { removed, folders, ..Self::new(wire.cluster_id, wire.members) }
    }

    /// The cluster's number.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// All members, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Members who vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| !member.is_learner)
    }

    /// A member; `None` if there is none of that number.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether a member of that number was removed.
    #[must_use]
    pub fn was_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Whether a change was made, and maybe others after it.
    #[must_use]
    pub fn show(&self, change: &Change) -> bool {
        match change {
            Change::Add(member) => self.get(member.id).is_some() || self.was_removed(member.id),
            Change::Remove(id) => self.get(*id).is_none(),
            Change::Promote(id) => self.get(*id).is_none_or(|member| !member.is_learner),
            Change::Update(_) | Change::Describe(_) => true,
        }
    }

    /// The number of a member's folder; `None` before it ran.
    #[must_use]
    pub fn folder(&self, id: u64) -> Option<u64> {
        self.folders.get(&id).copied()
    }

    /// The member that peers reach at exactly these URLs, in any order.
    #[must_use]
    pub fn at_peer_urls(&self, urls: &[String]) -> Option<&Member> {
        let set = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<_>>();
        self.iter().find(|member| set(&member.peer_ur_ls) == set(urls))
    }

    /// raft's configuration.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        let ids = |learner: bool| self.iter().filter(|m| m.is_learner == learner).map(|m| m.id).collect::<Vec<_>>();
        ConfState::from((ids(false), ids(true)))
    }

    /// Whether a change may be made now.
    ///
    /// # Errors
    /// What etcd answers to it.
    pub fn check(&self, change: &Change) -> Result<(), RequestError> {
        let known = |id: u64| match self.members.get(&id) {
            Some(member) => Ok(member),
            None => Err(RequestError::MemberNotFound),
        };
        match change {
            Change::Add(member) => {
                if self.removed.contains(&member.id) || self.members.contains_key(&member.id) {
                    return Err(RequestError::MemberExists);
                }
                self.check_urls(member)?;
                let learners = self.iter().filter(|m| m.is_learner).count();
                if member.is_learner && learners >= LEARNERS_MAX {
                    return Err(RequestError::TooManyLearners);
                }
                Ok(())
            }
            Change::Remove(id) => {
                let member = known(*id)?;
                // Without a voter there is no cluster, and raft would refuse.
                enough(member.is_learner || self.voters().count() > 1)
            }
            Change::Promote(id) => {
                if known(*id)?.is_learner {
                    Ok(())
                } else {
                    Err(RequestError::MemberNotLearner)
                }
            }
            Change::Update(member) => {
                known(member.id)?;
                self.check_urls(member)
            }
            Change::Describe(told) => {
                let id = told.member.as_ref().map_or(0, |member| member.id);
                known(id)?;
                let is_other = self.folder(id).is_some_and(|folder| folder != told.folder);
                if is_other { Err(RequestError::MemberExists) } else { Ok(()) }
            }
        }
    }

    /// N2.
    fn check_urls(&self, member: &Member) -> Result<(), RequestError> {
        let taken = |url: &String| self.iter().any(|m| m.id != member.id && m.peer_ur_ls.contains(url));
        if member.peer_ur_ls.iter().any(taken) { Err(RequestError::PeerUrlExists) } else { Ok(()) }
    }

    /// Makes a change.
    ///
    /// # Errors
    /// As [`Members::check`]; then nothing changed (N3).
    pub fn apply(&mut self, change: &Change) -> Result<(), RequestError> {
        self.check(change)?;
        match change {
            Change::Add(member) => {
                self.members.insert(member.id, member.clone());
            }
            Change::Remove(id) => {
                self.members.remove(id);
                self.folders.remove(id);
                self.removed.insert(*id);
            }
            Change::Promote(id) => self.edit(*id, |member| member.is_learner = false),
            Change::Update(new) => self.edit(new.id, |member| member.peer_ur_ls.clone_from(&new.peer_ur_ls)),
            Change::Describe(told) => {
                let new = told.member.clone().unwrap_or_default();
                self.folders.insert(new.id, told.folder);
                self.edit(new.id, |member| (member.name, member.client_ur_ls) = (new.name, new.client_ur_ls));
            }
        }
        Ok(())
    }

    fn edit(&mut self, id: u64, edit: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(&id) {
            edit(member);
        }
    }

    /// Whether a voter may be added: those who have started must still be a quorum with it.
    ///
    /// # Errors
    /// [`RequestError::NotEnoughStarted`].
    pub fn check_quorum_with_one_more(&self) -> Result<(), RequestError> {
        let (voters, started) = self.voter_counts(None);
        // A cluster of one that is being restored gets its second member while the first is alone.
        let restoring = voters == 1 && started == 1;
        enough(restoring || started > voters.div_ceil(2))
    }

    /// Whether a learner may vote: as for one more, but it is started itself.
    ///
    /// # Errors
    /// [`RequestError::NotEnoughStarted`].
    pub fn check_quorum_with_promoted(&self) -> Result<(), RequestError> {
        let (voters, started) = self.voter_counts(None);
        enough(started + 1 > voters.div_ceil(2))
    }

    /// Whether a voter may go: the others who have started must be a quorum of the rest.
    ///
    /// # Errors
    /// [`RequestError::NotEnoughStarted`].
    pub fn check_quorum_without(&self, id: u64) -> Result<(), RequestError> {
        if self.get(id).is_some_and(|member| member.is_learner) {
            return Ok(());
        }
        let (voters, started) = self.voter_counts(Some(id));
        enough(voters > 0 && started > voters / 2)
    }

    /// Voters, and those of them who have told their name, which they do once they run.
    fn voter_counts(&self, without: Option<u64>) -> (usize, usize) {
        let voters = || self.voters().filter(|member| Some(member.id) != without);
        (voters().count(), voters().filter(|member| !member.name.is_empty()).count())
    }
}

fn enough(is_enough: bool) -> Result<(), RequestError> {
    if is_enough { Ok(()) } else { Err(RequestError::NotEnoughStarted) }
}

/// What a change is to raft; `None` if it doesn't touch the configuration.
#[must_use]
pub fn conf_change(change: &Change) -> Option<ConfChange> {
    let (kind, node_id) = match change {
        Change::Add(member) if member.is_learner => (ConfChangeType::AddLearnerNode, member.id),
        Change::Add(member) => (ConfChangeType::AddNode, member.id),
        Change::Promote(id) => (ConfChangeType::AddNode, *id),
        Change::Remove(id) => (ConfChangeType::RemoveNode, *id),
        Change::Update(_) | Change::Describe(_) => return None,
    };
    let mut conf_change = ConfChange::default();
    conf_change.set_change_type(kind);
    conf_change.node_id = node_id;
    Some(conf_change)
}
