//! What breaks, and how it is mended.

use store_core::membership::Members;

use crate::disk;
use crate::event::Event;
use crate::network::Fate;
use crate::queue::{MS, SECOND, Time};
use crate::run::FAULTS;
use crate::world::{Shared, World};

/// What is to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// All links.
    Network,
}

impl Shared {
    /// Some members are told that another has ended, soon or when it lives again; or it never has.
    fn tell_gone(&mut self, peer: u64) {
        for to in (1..=self.places()).filter(|to| *to != peer) {
            if self.chance.once_in(2) {
                let after = self.chance.around(20 * MS);
                self.queue.after(after, Event::Gone { peer, to });
            }
        }
    }
}

impl World {
    /// The next fault, unless all is to be calm.
    pub(crate) fn break_something(&mut self) {
        if self.shared.calm {
            return;
        }
        let (every, members) = (self.shared.limits.fault_every, self.shared.places());
        let next = self.shared.chance.around(every) + 10 * MS;
        self.shared.queue.after(next, Event::Break);
        let id = self.shared.any_member();
        let leader = self.members.iter().find(|m| m.run.as_ref().is_some_and(|run| run.replica.is_leader()));
        // Leaders have the most to lose.
        let leader = leader.map(|member| member.id);
        let id = leader.filter(|_| self.shared.chance.once_in(2)).unwrap_or(id);
        let kinds = if self.shared.flips { 17 } else { 13 };
        match self.shared.chance.below(kinds) {
            0..3 => self.crash(id),
            3 => (1..=members).for_each(|id| self.crash(id)),
            4..7 => self.partition(id),
            7 => self.reset_links(),
            8 => {
                let pause = self.shared.chance.around(2 * SECOND).min(8 * SECOND);
                let until = (self.shared.queue.now() + pause).min(FAULTS);
                self.member(id).paused_until = until;
            }
            9 => {
                let stall = self.shared.chance.around(2 * SECOND).min(10 * SECOND);
                let until = (self.shared.queue.now() + stall).min(FAULTS);
                self.member(id).stall(until);
            }
            10 => {
                if let Some(run) = &mut self.member(id).run {
                    run.fill_disk();
                }
            }
            11 => {
                self.crash(id);
                self.partition(id);
            }
            12 => self.eclipse(leader.unwrap_or(id)),
            _ => self.flip_bit(id),
        }
    }

    /// A member stands still, cut off, and goes on before it hears what came of it meanwhile. Holders of leases wait for it.
    fn eclipse(&mut self, id: u64) {
        let Self { shared, members, holders, .. } = self;
        let now = shared.queue.now();
        let pause = shared.chance.between(2 * SECOND, 5 * SECOND);
        let until = (now + pause).min(FAULTS);
        members[id as usize - 1].paused_until = until;
        for other in (1..=shared.places()).filter(|other| *other != id) {
            shared.link(id, other).fate = Fate::Cut;
            shared.link(other, id).fate = Fate::Cut;
        }
        shared.tell_gone(id);
        for holder in holders.iter_mut() {
            let before = shared.chance.below(300 * MS);
            holder.renew_once_more(id, until.saturating_sub(before));
        }
        let more = shared.chance.below(SECOND);
        shared.queue.after(pause + more, Event::Mend(Fault::Network));
    }

    pub(crate) fn crash(&mut self, id: u64) {
        let power = self.shared.chance.once_in(2);
        let Self { shared, members, .. } = self;
        let member = &mut members[id as usize - 1];
        if member.run.is_none() {
            return;
        }
        member.paused_until = 0;
        shared.crashes += 1;
        member.crash(power, shared);
        self.down(id);
    }

    /// A member was removed.
    pub(crate) fn end(&mut self, id: u64) {
        let Self { shared, members, .. } = self;
        members[id as usize - 1].crash(false, shared);
        self.down(id);
    }

    /// A member has ended: what was sent to it is lost, and it is started again.
    fn down(&mut self, id: u64) {
        let shared = &mut self.shared;
        let now = shared.queue.now();
        for peer in (1..=shared.places()).filter(|peer| *peer != id) {
            shared.link(peer, id).reset(now, true);
            let lose = shared.chance.once_in(2);
            shared.link(id, peer).reset(now, lose);
        }
        shared.tell_gone(id);
        // Whose disk was full is started soon once all is calm.
        let at_once = shared.calm || shared.chance.once_in(3);
        let wait = if at_once { shared.chance.below(20 * MS) } else { 50 * MS + shared.chance.around(2 * SECOND) };
        shared.queue.after(wait, Event::Start(id));
    }

    /// A member's disk failed: it ends, and somebody makes room and starts it again, if that helps.
    pub(crate) fn fail(&mut self, id: u64, fault: disk::Fault) {
        let Self { shared, members, .. } = self;
        members[id as usize - 1].crash(false, shared);
        self.down(id);
        if fault != disk::Fault::Full {
            self.refused(id, fault);
        }
    }

    /// A member doesn't go on with what is on its disks.
    fn refused(&mut self, id: u64, fault: disk::Fault) {
        if self.member(id).is_right(&fault) {
            self.shared.ruined += 1;
            self.member(id).ruined = true;
        } else {
            let now = self.shared.queue.now();
            self.shared
                .canon
                .violate(now, format!("member {id} finds its disk damaged, and it isn't there: {fault:?}"));
        }
    }

    /// A bit flips on the disk of one that votes; a minority is damaged at most, for whatever member counts those who vote.
    fn flip_bit(&mut self, id: u64) {
        let present: Vec<u64> = self.shared.canon.members.iter().map(|member| member.id).collect();
        let known = present.iter().flat_map(|id| self.members[*id as usize - 1].known_members());
        let mut known: Vec<Members> = known.collect();
        known.push(self.shared.canon.members.clone());
        // Who starts again behind a removal that he applied counts the one that has gone once more.
        let Shared { to_go, canon, .. } = &self.shared;
        let gone = usize::from(to_go.iter().any(|id| canon.members.was_removed(*id)));
        let bears = known.iter().all(|known| self.bears_damage(id, known, gone));
        if !bears || !self.shared.canon.members.voters().any(|voter| voter.id == id) {
            return;
        }
        // Looked at when it starts, or whenever the database comes by.
        if self.member_flips(id) && self.shared.chance.once_in(2) {
            self.crash(id);
        }
    }

    /// Whether a majority of those who vote is whole if one more isn't. Who is removed, or about to be, doesn't count as whole: it
    /// may be gone before all know that its removal is committed.
    fn bears_damage(&mut self, id: u64, known: &Members, gone: usize) -> bool {
        let voters: Vec<u64> = known.voters().map(|member| member.id).collect();
        let mut is_whole = |voter: &&u64| {
            **voter != id && !self.shared.to_go.contains(voter) && !self.members[**voter as usize - 1].is_damaged()
        };
        let whole = voters.iter().filter(&mut is_whole).count();
        !voters.contains(&id) || whole > (voters.len() + gone) / 2
    }

    fn member_flips(&mut self, id: u64) -> bool {
        let Self { shared, members, .. } = self;
        members[id as usize - 1].flip(shared)
    }

    pub(crate) fn start(&mut self, id: u64) {
        let Self { shared, members, .. } = self;
        let member = &mut members[id as usize - 1];
        if member.run.is_some() || member.ruined || shared.canon.members.was_removed(id) {
            return;
        }
        if shared.canon.members.get(id).is_none() {
            // It waits until it is added.
            shared.queue.after(500 * MS, Event::Start(id));
            return;
        }
        match member.start(shared) {
            Err(fault) => self.refused(id, fault),
            // What a mutant passes over is to show in what comes of it.
            Ok(()) if shared.mutant.is_none() && member.files().has_flipped() => {
                shared.canon.violate(shared.queue.now(), format!("member {id} starts with a log that is damaged"));
            }
            Ok(()) => {}
        }
    }

    /// Cuts a group off from the others, or one direction, for a while.
    fn partition(&mut self, id: u64) {
        let (shared, members) = (&mut self.shared, self.members.len() as u64);
        let fate = if shared.chance.once_in(2) { Fate::Cut } else { Fate::Held };
        let one_way = shared.chance.once_in(3);
        let alone = shared.chance.once_in(2);
        let inside: Vec<bool> =
            (1..=members).map(|other| other == id || (!alone && shared.chance.once_in(2))).collect();
        for from in 1..=members {
            for to in 1..=members {
                let (a, b) = (inside[from as usize - 1], inside[to as usize - 1]);
                if a != b && (!one_way || a) {
                    shared.link(from, to).fate = fate;
                }
            }
        }
        let wait = 100 * MS + shared.chance.around(2 * SECOND);
        shared.queue.after(wait, Event::Mend(Fault::Network));
    }

    fn reset_links(&mut self) {
        let (shared, members) = (&mut self.shared, self.members.len() as u64);
        let now = shared.queue.now();
        for from in 1..=members {
            for to in 1..=members {
                if shared.chance.once_in(2) {
                    let lose = shared.chance.once_in(2);
                    shared.link(from, to).reset(now, lose);
                }
            }
        }
    }

    pub(crate) fn mend(&mut self, fault: Fault) {
        let Fault::Network = fault;
        let members = self.members.len() as u64;
        for from in 1..=members {
            for to in 1..=members {
                self.mend_link(from, to);
            }
        }
    }

    fn mend_link(&mut self, from: u64, to: u64) {
        let shared = &mut self.shared;
        let now = shared.queue.now();
        let link = shared.link(from, to);
        let was = std::mem::replace(&mut link.fate, Fate::Open);
        if was == Fate::Cut {
            link.reset(now, true);
        }
        let held: Vec<_> = link.held.drain(..).collect();
        let arrival = link.send(now, 0);
        if let Some((_, connection)) = arrival {
            for frame in held {
                shared.queue.at(now, Event::Deliver { from, to, connection, frame });
            }
        }
    }

    /// Whose disk is damaged, and who doesn't know it yet, is taken away, to be made up for.
    fn look_at_disks(&mut self) {
        for id in 1..=self.members.len() as u64 {
            if !self.member(id).ruined && self.member(id).is_damaged() {
                self.end(id);
                self.shared.ruined += 1;
                self.member(id).ruined = true;
            }
        }
    }

    /// All is mended, and nothing breaks any more.
    pub(crate) fn calm_down(&mut self) {
        self.shared.calm = true;
        if let Some(pods) = &mut self.pods {
            pods.calm_down();
        }
        self.mend(Fault::Network);
        let now: Time = self.shared.queue.now();
        for id in 1..=self.members.len() as u64 {
            let member = self.member(id);
            member.paused_until = member.paused_until.min(now);
            member.stall(now);
            self.start(id);
        }
        self.look_at_disks();
        self.shared.queue.after(0, Event::Administer);
    }
}
