//! An administrator who adds, promotes and removes members, as `store/server/src/engine/leader.rs` lets him.

use store_core::membership::{Members, conf_change};
use store_core::wire::member_change::Change;
use store_core::wire::{Command, Member as Wire, MemberChange};

use prost::Message as _;

use crate::event::Event;
use crate::member::{Input, Member, Running};
use crate::queue::{MS, SECOND};
use crate::world::{Shared, World};

/// Voters that there are at most.
const VOTERS_MAX: usize = 5;

impl World {
    /// The next change, if anybody leads who would make it.
    pub(crate) fn administer(&mut self) {
        let ruined: Vec<u64> = self.members.iter().filter(|member| member.ruined).map(|member| member.id).collect();
        let is_quick = self.shared.calm;
        let wait = if is_quick { 200 * MS } else { self.shared.chance.around(3 * SECOND) + 100 * MS };
        self.shared.queue.after(wait, Event::Administer);
        let is_hurt = self.members.iter_mut().any(Member::is_damaged);
        let Self { shared, members, .. } = self;
        let now = shared.queue.now();
        let leads = |run: &&mut Running| run.replica.is_leader();
        let awake = members.iter_mut().filter(|member| member.paused_until <= now);
        let Some(run) = awake.filter_map(|member| member.run.as_mut()).find(leads) else { return };
        let present = &run.state.machine.members;
        let damaged = ruined.into_iter().find(|id| present.get(*id).is_some());
        let change = match damaged {
            Some(id) => Some(Change::Remove(id)),
            None if shared.is_moving && !shared.calm => choose(present, run, is_hurt, shared),
            None => replace(present, run, shared),
        };
        if let Some(change) = change {
            run.change_members(change, shared);
        }
    }
}

/// One for each that was removed because its disk is damaged.
fn replace(members: &Members, run: &Running, shared: &mut Shared) -> Option<Change> {
    let present = members.iter().count();
    if members.iter().any(|member| member.is_learner) {
        return promote(members, run);
    }
    if present >= shared.founders.iter().count() {
        return None;
    }
    add(newcomer(members, shared)?, shared)
}

fn promote(members: &Members, run: &Running) -> Option<Change> {
    let learner = members.iter().find(|member| member.is_learner)?;
    let matched = run.replica.matched(learner.id)?;
    let own = run.replica.matched(run.id)?;
    let is_ready = matched.saturating_mul(10) >= own.saturating_mul(9);
    is_ready.then_some(Change::Promote(learner.id))
}

fn newcomer(members: &Members, shared: &Shared) -> Option<u64> {
    (1..=shared.places()).find(|id| members.get(*id).is_none() && !members.was_removed(*id))
}

fn add(id: u64, shared: &mut Shared) -> Option<Change> {
    let is_learner = shared.chance.once_in(2);
    Some(Change::Add(Wire { id, name: format!("m{id}"), is_learner, ..Wire::default() }))
}

/// A change that the cluster can bear. While a disk is damaged, be it that nobody knows, none goes whose disk is whole.
fn choose(members: &Members, run: &Running, is_hurt: bool, shared: &mut Shared) -> Option<Change> {
    let voters = members.voters().count();
    if members.iter().any(|member| member.is_learner) {
        return promote(members, run);
    }
    match newcomer(members, shared) {
        Some(id) if voters < VOTERS_MAX && shared.chance.once_in(2) => add(id, shared),
        // One that is gone is made up for. Of two neither goes: one that leads, commits its own removal and is gone before
        // the other learns that it was committed leaves him waiting for its vote for ever, in etcd as well.
        Some(_) if voters > 2 && !is_hurt => {
            let all: Vec<u64> = members.voters().map(|member| member.id).collect();
            let id = all[shared.chance.place(all.len())];
            shared.to_go.insert(id);
            Some(Change::Remove(id))
        }
        _ => None,
    }
}

impl Running {
    /// Proposes a change of members, as the leader.
    fn change_members(&mut self, change: Change, shared: &mut Shared) {
        if change == Change::Remove(self.id) && shared.chance.once_in(2) {
            // As production does it: another makes the change. That it isn't so always, is for raft to bear.
            if let Some(successor) = self.replica.best_successor() {
                self.replica.transfer_to(successor);
            }
        } else if self.state.machine.members.check(&change).is_ok()
            && let Some(mut conf_change) = conf_change(&change)
        {
            let member = Some(MemberChange { change: Some(change) });
            conf_change.context = Command { member, by_member: true, ..Command::default() }.encode_to_vec().into();
            // Dropped, it is made up for by the next.
            let _ = self.replica.propose_members(&conf_change);
        }
        self.tell(Input::Look, shared);
    }
}
