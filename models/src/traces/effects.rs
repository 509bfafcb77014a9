//! What a member does: what it writes, and what leaves it when.

use store_core::trace::{Effects, Letter, Role};

use super::member::{Handed, Member, Permit};
use super::spec::{Broken, Spec};

impl Spec {
    /// Effects of all inputs since the last step.
    pub(super) fn step(&mut self, id: u64, effects: &Effects) -> Result<(), Broken> {
        let Some(mut member) = self.members.remove(&id) else {
            return Err("a member's trace begins with its start".to_owned());
        };
        if effects.step != member.last_step + 1 {
            return Err(format!("steps follow each other: {} comes after {}", effects.step, member.last_step));
        }
        written(&member, effects)?;
        for letter in effects.now.iter().chain(&effects.after) {
            self.sent(&mut member, letter)?;
        }
        let view = member.view;
        member.last_step = effects.step;
        member.hard_state = (view.term, view.vote, view.commit);
        member.handed.push_back(Handed {
            step: effects.step,
            last: (!effects.entries.is_empty()).then_some(view.last),
            snapshot: effects.snapshot.map(|(index, _)| index),
        });
        (member.dirty, member.restored) = (None, None);
        member.window = vec![view];
        member.permits.clear();
        let to_write = Effects {
            step: effects.step,
            snapshot: effects.snapshot,
            from: effects.from,
            entries: effects.entries.clone(),
            hard_state: effects.hard_state,
            after: effects.after.clone(),
            ..Effects::default()
        };
        for letter in &effects.now {
            // What leaves at once stands on what was durable before.
            self.leave(&member, letter.clone())?;
        }
        member.disk.hand_out(to_write);
        apply(&mut member, effects)?;
        self.answer(effects)?;
        self.members.insert(id, member);
        Ok(())
    }

    /// Reads are linearizable: from all on that was committed when they were asked for.
    fn answer(&mut self, effects: &Effects) -> Result<(), Broken> {
        for (context, index) in &effects.reads {
            match self.reads.remove(context) {
                Some(committed) if *index >= committed => self.seen.reads += 1,
                Some(committed) => {
                    return Err(format!("a read sees all that was committed before it: {committed}, not {index}"));
                }
                None => return Err(format!("a read that is answered was asked for: {context}")),
            }
        }
        Ok(())
    }

    /// Whether a member may say this.
    fn sent(&self, member: &mut Member, letter: &Letter) -> Result<(), Broken> {
        let told = || format!("{} to {:x} of term {}", letter.kind, letter.to, letter.term);
        if letter.from != member.id && letter.from != 0 {
            return Err(format!("a member speaks for itself: {}", told()));
        }
        let last = (letter.index, letter.log_term);
        let was = |role: Role, term: u64| {
            let mut window = member.window.iter();
            window.any(|view| view.role == role && view.term == term && view.last == last)
        };
        let knows = |term: u64| member.window.iter().any(|view| view.term == term);
        let allowed = match letter.kind.as_str() {
            "RequestPreVote" => was(Role::PreCandidate, letter.term.saturating_sub(1)),
            "RequestVote" => was(Role::Candidate, letter.term),
            "RequestVoteResponse" if !letter.reject => Self::permitted(member, Permit::Vote(letter.to, letter.term)),
            "RequestPreVoteResponse" if !letter.reject => {
                Self::permitted(member, Permit::PreVote(letter.to, letter.term))
            }
            "AppendResponse" if !letter.reject && letter.index > 0 => {
                Self::permitted(member, Permit::Taken(letter.to, letter.term, letter.index))
            }
            "RequestVoteResponse" | "RequestPreVoteResponse" | "AppendResponse" | "HeartbeatResponse" => {
                knows(letter.term)
            }
            "Append" => return self.appended(member, letter),
            "Heartbeat" => {
                let matched = member.matched.get(&letter.to).copied().unwrap_or(0);
                let reigns = member.view.role == Role::Leader && member.view.term == letter.term;
                self.led(member, letter.term)
                    && letter.commit <= member.view.commit
                    && (!reigns || letter.commit <= matched)
            }
            "Snapshot" => letter.snapshot.as_ref().is_some_and(|(index, term, _)| {
                self.led(member, letter.term) && *index <= member.view.commit && self.is_committed(*index, *term)
            }),
            "TimeoutNow" | "ReadIndexResp" => self.led(member, letter.term),
            "Propose" | "ReadIndex" => letter.term == 0 || knows(letter.term),
            _ => false,
        };
        if allowed { Ok(()) } else { Err(format!("a member says what its part allows: not {}", told())) }
    }

    /// Whether this member led in a term.
    fn led(&self, member: &Member, term: u64) -> bool {
        self.reigns.get(&term).is_some_and(|reign| reign.leader == member.id)
    }

    /// What a leader sends is in its log.
    fn appended(&self, member: &Member, letter: &Letter) -> Result<(), Broken> {
        let Some(reign) = self.reigns.get(&letter.term).filter(|reign| reign.leader == member.id) else {
            return Err(format!("only the leader of term {} appends entries in it", letter.term));
        };
        let log = &reign.log;
        let joins = letter.index < log.base().0 || log.term(letter.index) == Some(letter.log_term);
        let theirs = |(offset, mark): (usize, _)| {
            let index = letter.index + 1 + offset as u64;
            index <= log.base().0 || log.get(index).as_ref() == Some(mark)
        };
        if !joins || !letter.entries.iter().enumerate().all(theirs) {
            return Err(format!(
                "a leader sends what is in its log: not these behind {} of term {}",
                letter.index, letter.log_term
            ));
        }
        if letter.commit > member.view.commit {
            return Err(format!("a leader tells what it has committed: not {}", letter.commit));
        }
        Ok(())
    }

    /// A message leaves: what it says is durable.
    pub(super) fn leave(&mut self, member: &Member, letter: Letter) -> Result<(), Broken> {
        let disk = &member.disk;
        let told = || format!("{} to {:x} of term {}", letter.kind, letter.to, letter.term);
        // A term that is only asked for isn't the sender's.
        let is_ahead = letter.kind == "RequestPreVote" || letter.kind == "RequestPreVoteResponse" && !letter.reject;
        if !is_ahead && letter.term > disk.term {
            return Err(format!("a term is durable before it is told: not {} for {}", disk.term, told()));
        }
        let vote = match letter.kind.as_str() {
            "RequestVote" => Some(letter.from),
            "RequestVoteResponse" if !letter.reject => Some(letter.to),
            _ => None,
        };
        if disk.term == letter.term && vote.is_some_and(|vote| vote != disk.vote) {
            return Err(format!("a vote is durable before it is told: not for {}", told()));
        }
        let acknowledges = letter.kind == "AppendResponse" && !letter.reject && letter.index > 0;
        if acknowledges && disk.term == letter.term && !self.acknowledged(member, &letter) {
            return Err(format!(
                "entries are durable before they are acknowledged: not up to {} for {}",
                letter.index,
                told()
            ));
        }
        *self.flying.entry(letter).or_default() += 1;
        Ok(())
    }

    /// Whether the disk holds what the leader has there.
    fn acknowledged(&self, member: &Member, letter: &Letter) -> bool {
        let Some(reign) = self.reigns.get(&letter.term) else { return false };
        match reign.log.term(letter.index) {
            Some(term) => member.disk.holds(letter.index, term),
            None => letter.index <= reign.log.base().0,
        }
    }
}

/// What is to be written is what changed.
fn written(member: &Member, effects: &Effects) -> Result<(), Broken> {
    let view = member.view;
    if effects.snapshot != member.restored {
        return Err(format!(
            "a snapshot that was taken is installed: {:?}, not {:?}",
            member.restored, effects.snapshot
        ));
    }
    let changed = member.dirty.unwrap_or(u64::MAX);
    let complete = match (effects.entries.is_empty(), member.dirty) {
        (true, None) => true,
        (true, Some(_)) => false,
        (false, _) => effects.from <= changed && member.log.since(effects.from) == effects.entries,
    };
    if !complete {
        return Err(format!("all entries that are new are written: those from {changed} to {:?}", view.last));
    }
    let now = (view.term, view.vote, view.commit);
    if effects.hard_state.is_some_and(|written| written != now)
        || effects.hard_state.is_none() && now != member.hard_state
    {
        return Err(format!("term, vote and commit are written as they are: {now:?}, not {:?}", effects.hard_state));
    }
    let (term, vote, _) = member.hard_state;
    let must_sync = !effects.entries.is_empty() || (view.term, view.vote) != (term, vote);
    if must_sync && !effects.sync {
        return Err("what others are told of is synced: term, vote and entries".to_owned());
    }
    Ok(())
}

/// What is handed out to apply is committed, and durable here.
fn apply(member: &mut Member, effects: &Effects) -> Result<(), Broken> {
    let index = effects.apply;
    if index == 0 {
        return Ok(());
    }
    let term = member.log.term(index);
    let durable = term.is_some_and(|term| member.disk.holds(index, term));
    if index > member.view.commit || !durable {
        return Err(format!("what is applied is committed and durable: not {index}"));
    }
    member.applied = member.applied.max(index);
    Ok(())
}
