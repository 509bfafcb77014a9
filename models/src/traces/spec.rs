//! All members together: what is known of every term and of everything committed, and one event after the other.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use store_core::trace::{Cause, Change, Event, Letter, Mark, Members, Role, View};

use super::disk::{Disk, Found};
use super::log::Log;
use super::member::{Member, Permit};
use super::membership::{after, members_made};
use super::outcomes::{self, Outcome, Votes, outcomes};

/// A step that the specification doesn't have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// The rule that it breaks.
    pub rule: String,
    /// What the member was before it.
    pub before: Option<View>,
    /// What it could have become, if the rule is about that.
    pub allowed: Vec<View>,
    /// What the trace says that it became.
    pub seen: Option<View>,
}

/// Who led in a term, and the log of that time.
#[derive(Debug)]
pub(super) struct Reign {
    pub(super) leader: u64,
    pub(super) log: Log,
}

/// An entry that is committed, and the term that its committer led in.
#[derive(Debug, Clone, Copy)]
struct Committed {
    mark: Mark,
    term: u64,
}

/// What came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events.
    pub events: u64,
    /// Starts after the first.
    pub restarts: u64,
    /// Terms with a leader.
    pub leaders: u64,
    /// Messages that were received.
    pub messages: u64,
    /// The highest index that is committed.
    pub committed: u64,
    /// Changes of members.
    pub changes: u64,
    /// Snapshots that were taken.
    pub snapshots: u64,
    /// Reads that were given an index.
    pub reads: u64,
}

#[derive(Debug, Default)]
pub(super) struct Spec {
    pub(super) members: BTreeMap<u64, Box<Member>>,
    /// Messages that left, by how often, and weren't received.
    pub(super) flying: HashMap<Letter, u32>,
    pub(super) reigns: BTreeMap<u64, Reign>,
    committed: BTreeMap<u64, Committed>,
    /// The highest index that anybody knew to be committed.
    pub(super) commit_max: u64,
    /// Changes of members by their index, and who takes part since.
    changes: BTreeMap<u64, Members>,
    /// Where changes were passed over: they came to nothing.
    refused: BTreeMap<u64, u64>,
    /// Reads under way: what was committed when they were asked for.
    pub(super) reads: HashMap<String, u64>,
    pub(super) seen: Seen,
}

/// Why an event isn't a step of the specification, in the words of [`Impossible::rule`].
pub(super) type Broken = String;

impl Spec {
    /// Whether a member's event can come now: not a message that nobody has sent yet.
    pub(super) fn can_take(&self, event: &Event) -> bool {
        match event {
            Event::Input { cause: Cause::Message(letter), .. } => self.flying.contains_key(letter),
            _ => true,
        }
    }

    /// Takes a member's next event.
    pub(super) fn take(&mut self, id: u64, event: &Event) -> Result<(), Box<Impossible>> {
        self.seen.events += 1;
        let before = self.members.get(&id).map(|member| member.view);
        let broken = |rule| Box::new(Impossible { rule, before, allowed: Vec::new(), seen: None });
        match event {
            Event::Start { view, base, entries, applied, members } => {
                let log = Log::new(*base, entries.clone());
                self.start(id, *view, log, *applied, members)
                    .map_err(|rule| Box::new(Impossible { seen: Some(*view), ..*broken(rule) }))
            }
            Event::Input { cause, view } => self.input(id, cause, *view),
            Event::Step(effects) => self.step(id, effects).map_err(broken),
            Event::Durable { step } => self.durable(id, *step).map_err(broken),
        }
    }

    fn start(&mut self, id: u64, view: View, log: Log, applied: u64, members: &Members) -> Result<(), Broken> {
        let disk = Disk::new(&view, log.clone());
        if let Some(old) = self.members.get(&id) {
            self.seen.restarts += 1;
            if !old.disk.may_leave(&Found { view: &view, log: &log }) {
                return Err(format!(
                    "a member starts with what its disk may have kept: term {}, vote {:x} and a log up to {:?} were durable",
                    old.disk.term,
                    old.disk.vote,
                    old.disk.log.last()
                ));
            }
            let known = old.view.commit.max(log.base().0);
            if view.commit > known {
                return Err(format!("a member that starts doesn't know more than before: {known} was committed"));
            }
            // Who votes alone led in a term that never became durable: nothing of it left, and it may come again.
            self.reigns.retain(|term, reign| reign.leader != id || *term <= view.term);
        } else {
            self.know(&log, view)?;
        }
        self.agree(&log, 0, view, view.term)?;
        self.members_at(applied, members)?;
        let member = Member::start(id, view, log, disk, members.clone(), applied);
        self.members.insert(id, Box::new(member));
        Ok(())
    }

    /// What was committed before the traces begin.
    fn know(&mut self, log: &Log, view: View) -> Result<(), Broken> {
        for index in log.base().0 + 1..=view.commit {
            if let Some(mark) = log.get(index) {
                let committed = self.committed.entry(index).or_insert(Committed { mark, term: view.term });
                if committed.mark != mark {
                    return Err(format!(
                        "members agree on what is committed: at {index} they differ from the beginning"
                    ));
                }
            }
        }
        self.commit_max = self.commit_max.max(view.commit);
        Ok(())
    }

    /// A member's commit index moves: only a leader commits what nobody has, and all commit the same.
    fn agree(&mut self, log: &Log, from: u64, view: View, term: u64) -> Result<(), Broken> {
        for index in from.max(log.base().0) + 1..=view.commit {
            let Some(mark) = log.get(index) else {
                return Err(format!("a member commits what it has: entry {index} isn't in its log"));
            };
            match self.committed.get(&index) {
                Some(committed) if committed.mark == mark => {}
                Some(committed) => {
                    return Err(format!(
                        "members commit the same: at {index} an entry of term {} is committed, not this one of term {}",
                        committed.mark.0, mark.0
                    ));
                }
                None if view.role == Role::Leader => {
                    self.committed.insert(index, Committed { mark, term });
                }
                None => {
                    return Err(format!("what a member knows to be committed, a leader has committed: not {index}"));
                }
            }
        }
        if view.commit > self.commit_max && view.role != Role::Leader {
            return Err(format!("what a member knows to be committed, a leader has committed: not {}", view.commit));
        }
        self.commit_max = self.commit_max.max(view.commit);
        Ok(())
    }

    /// Whether who takes part at an applied index is who took part there at other members.
    fn members_at(&mut self, applied: u64, members: &Members) -> Result<(), Broken> {
        let Some((since, known)) = self.changes.range(..=applied).next_back() else {
            if !members.voters.is_empty() && self.changes.is_empty() {
                self.changes.insert(applied, members.clone());
            }
            return Ok(());
        };
        // What a member applied just before it stopped, nobody may have told of; what is committed says it.
        let committed = self.committed.range((Bound::Excluded(*since), Bound::Included(applied)));
        let untold = committed.filter_map(|(index, committed)| Some((*index, committed.mark.2?)));
        let Some(made) = members_made(known, untold, members) else {
            return Err(format!(
                "members take part in the same cluster: since {since} these do: {known:?}, not {members:?}"
            ));
        };
        self.changes.extend(made);
        Ok(())
    }

    fn input(&mut self, id: u64, cause: &Cause, view: View) -> Result<(), Box<Impossible>> {
        let Some(mut member) = self.members.remove(&id) else {
            let rule = "a member's trace begins with its start".to_owned();
            return Err(Box::new(Impossible { rule, before: None, allowed: Vec::new(), seen: Some(view) }));
        };
        let before = member.view;
        let broken = |rule| Box::new(Impossible { rule, before: Some(before), allowed: Vec::new(), seen: Some(view) });
        self.prepare(&mut member, cause).map_err(broken)?;
        let mut all = outcomes(&member, cause);
        let Some(at) = all.iter().position(|outcome| outcome.view == view) else {
            let rule = "an input makes of a member what Raft makes of it".to_owned();
            let allowed = all.iter().map(|outcome| outcome.view).collect();
            return Err(Box::new(Impossible { rule, before: Some(before), allowed, seen: Some(view) }));
        };
        self.turn_into(&mut member, all.swap_remove(at)).map_err(broken)?;
        self.members.insert(id, member);
        Ok(())
    }

    /// What an input tells a member, before it decides.
    fn prepare(&mut self, member: &mut Member, cause: &Cause) -> Result<(), Broken> {
        match cause {
            Cause::Message(letter) => {
                self.receive(member.id, letter)?;
                let acknowledges = letter.kind == "AppendResponse" && !letter.reject && letter.term == member.view.term;
                if acknowledges && member.view.role == Role::Leader {
                    let matched = member.matched.entry(letter.from).or_default();
                    *matched = (*matched).max(letter.index);
                }
            }
            Cause::Persisted(step) => member.tell(*step),
            Cause::Read(context) => {
                if self.reads.insert(context.clone(), self.commit_max).is_some() {
                    return Err(format!("a read's context is used once: {context}"));
                }
            }
            Cause::Changed(change, members) => self.change(member, *change, members)?,
            Cause::Time | Cause::Propose(_) | Cause::Applied(_) => {}
        }
        Ok(())
    }

    fn receive(&mut self, id: u64, letter: &Letter) -> Result<(), Broken> {
        if letter.to != id {
            return Err(format!("a message is received by whom it is for: {:x}", letter.to));
        }
        let Some(left) = self.flying.get_mut(letter) else {
            return Err("a message is received once for each time that it was sent".to_owned());
        };
        *left -= 1;
        if *left == 0 {
            self.flying.remove(letter);
        }
        self.seen.messages += 1;
        Ok(())
    }

    /// A change of members is applied, at every member the same ones in the order of the log.
    fn change(&mut self, member: &mut Member, change: Change, members: &Members) -> Result<(), Broken> {
        let mut passed = Vec::new();
        let applied = (member.changed_to + 1..=member.applied).find(|index| match member.log.get(*index) {
            Some(Mark(_, _, Some(found))) if found == change => true,
            Some(Mark(_, _, Some(_))) => {
                passed.push(*index);
                false
            }
            _ => false,
        });
        let Some(index) = applied else {
            return Err(format!("a change of members is in the log and handed out before it is applied: {change:?}"));
        };
        if let Some(passed) = passed.iter().find(|index| self.changes.contains_key(index)) {
            return Err(format!("members apply the same changes of members: this one passes over that at {passed}"));
        }
        if self.refused.contains_key(&index) {
            return Err(format!("members apply the same changes of members: others passed over that at {index}"));
        }
        let expected = after(&member.members, change);
        if expected != *members || self.changes.get(&index).is_some_and(|known| known != members) {
            return Err(format!("a change of members makes of {:?} {expected:?}, not {members:?}", member.members));
        }
        self.refused.extend(passed.into_iter().map(|index| (index, member.id)));
        if self.changes.insert(index, members.clone()).is_none() {
            self.seen.changes += 1;
        }
        if let Change::Voter(id) | Change::Learner(id) = change
            && !member.members.voters.contains(&id)
            && !member.members.learners.contains(&id)
        {
            // Of one that comes nothing is known, even if it had been there.
            member.matched.remove(&id);
        }
        member.members = members.clone();
        member.changed_to = index;
        Ok(())
    }

    /// A member becomes what one of the outcomes says.
    fn turn_into(&mut self, member: &mut Member, outcome: Outcome) -> Result<(), Broken> {
        let before = member.view;
        if outcome.view == before
            && outcome.votes == Votes::Keep
            && outcome.permit.is_none()
            && matches!(outcome.log, outcomes::Change::Nothing)
        {
            return Ok(());
        }
        member.votes = match outcome.votes {
            Votes::Keep => std::mem::take(&mut member.votes),
            Votes::Begin => BTreeMap::from([(member.id, true)]),
            Votes::Add(from, granted) => {
                let mut votes = std::mem::take(&mut member.votes);
                votes.entry(from).or_insert(granted);
                votes
            }
        };
        let is_elected =
            outcome.view.role == Role::Leader && (before.role != Role::Leader || before.term != outcome.view.term);
        if is_elected {
            self.elect(member, outcome.view)?;
        }
        match outcome.log {
            outcomes::Change::Nothing => {}
            outcomes::Change::Put(from, marks) => {
                if !member.put(from, &marks) {
                    return Err(format!("entries join the log that they are put into: not at {from}"));
                }
                if outcome.view.role == Role::Leader
                    && let Some(reign) = self.reigns.get_mut(&outcome.view.term)
                {
                    reign.log.put(from, &marks);
                }
            }
            outcomes::Change::Restore(base, members) => {
                self.members_at(base.0, &members)?;
                member.restore(base, members);
                self.seen.snapshots += 1;
            }
        }
        self.agree(&member.log, before.commit, outcome.view, outcome.view.term)?;
        self.seen.committed = self.commit_max;
        member.permits.extend(outcome.permit);
        member.view = outcome.view;
        member.window.push(outcome.view);
        Ok(())
    }

    /// A member leads: nobody else in this term, and with everything that was committed in terms before.
    fn elect(&mut self, member: &mut Member, view: View) -> Result<(), Broken> {
        if let Some(reign) = self.reigns.get(&view.term) {
            return Err(format!("a term has one leader: {:x} leads in term {}", reign.leader, view.term));
        }
        for (index, committed) in self.committed.range(member.log.base().0 + 1..) {
            if committed.term < view.term && member.log.get(*index) != Some(committed.mark) {
                return Err(format!(
                    "a leader has all that was committed before its term: not {index}, committed in term {}",
                    committed.term
                ));
            }
        }
        member.matched = BTreeMap::from([(member.id, member.told)]);
        self.reigns.insert(view.term, Reign { leader: member.id, log: member.log.clone() });
        self.seen.leaders += 1;
        Ok(())
    }

    fn durable(&mut self, id: u64, step: u64) -> Result<(), Broken> {
        let Some(mut member) = self.members.remove(&id) else {
            return Err("a member's trace begins with its start".to_owned());
        };
        for effects in member.disk.sync(step) {
            for letter in effects.after {
                self.leave(&member, letter)?;
            }
        }
        self.members.insert(id, member);
        Ok(())
    }

    /// Whether a permit is there for an answer, for once.
    pub(super) fn permitted(member: &mut Member, permit: Permit) -> bool {
        let at = member.permits.iter().position(|known| *known == permit);
        at.map(|at| member.permits.swap_remove(at)).is_some()
    }

    /// Whether an entry is committed.
    pub(super) fn is_committed(&self, index: u64, term: u64) -> bool {
        index <= self.commit_max && self.committed.get(&index).is_none_or(|committed| committed.mark.0 == term)
    }
}
