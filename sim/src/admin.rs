//! An administrator who adds, promotes and removes members, as `store/server/src/engine/leader.rs` lets him.

use store_core::membership::{Members, conf_change};
use store_core::wire::member_change::Change;
use store_core::wire::{Command, Member as Wire, MemberChange};

use prost::Message as _;

use crate::member::{Input, Running};
use crate::queue::{MS, SECOND};
use crate::world::{Event, Shared, World};

/// Voters that there are at most.
const VOTERS_MAX: usize = 5;

impl World {
    /// The next change, if anybody leads who would make it.
    pub(crate) fn administer(&mut self) {
        if self.shared.calm {
            return;
        }
        let wait = self.shared.chance.around(3 * SECOND) + 100 * MS;
        self.shared.queue.after(wait, Event::Administer);
        let Self { shared, members, .. } = self;
        let now = shared.queue.now();
        let leads = |run: &&mut Running| run.replica.is_leader();
        let awake = members.iter_mut().filter(|member| member.paused_until <= now);
        let Some(run) = awake.filter_map(|member| member.run.as_mut()).find(leads) else { return };
        let Some(change) = choose(&run.state.machine.members, run, shared) else { return };
        run.change_members(change, shared);
    }
}

/// A change that the cluster can bear.
fn choose(members: &Members, run: &Running, shared: &mut Shared) -> Option<Change> {
    let voters = members.voters().count();
    if let Some(learner) = members.iter().find(|member| member.is_learner) {
        let matched = run.replica.matched(learner.id)?;
        let own = run.replica.matched(run.id)?;
        let is_ready = matched.saturating_mul(10) >= own.saturating_mul(9);
        return if is_ready { Some(Change::Promote(learner.id)) } else { None };
    }
    let new = (1..=shared.places()).find(|id| members.get(*id).is_none() && !members.was_removed(*id));
    match new {
        Some(id) if voters < VOTERS_MAX && shared.chance.once_in(2) => {
            let is_learner = shared.chance.once_in(2);
            Some(Change::Add(Wire { id, name: format!("m{id}"), is_learner, ..Wire::default() }))
        }
        // One that is gone is made up for. Of two neither goes: one that leads, commits its own removal and is gone before
        // the other learns that it was committed leaves him waiting for its vote for ever, in etcd as well.
        Some(_) if voters > 2 => {
            let all: Vec<u64> = members.voters().map(|member| member.id).collect();
            Some(Change::Remove(all[shared.chance.place(all.len())]))
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
