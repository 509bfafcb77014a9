//! What an input may make of a member: Raft's actions, as raft-rs takes them.
//!
//! An input that comes to nothing is always allowed: as if it had been lost, or the time for it hadn't come. Everything else
//! is one of the outcomes named here.
//!
//! Source: Raft thesis §3 and §9.6 (pre-vote); raft-rs 0.7 `raft.rs`, `step` and what it calls.

use store_core::trace::{Cause, Letter, Mark, Members, Role, View};

use super::member::{Member, Permit};

/// What a member becomes.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) view: View,
    pub(super) log: Change,
    pub(super) votes: Votes,
    pub(super) permit: Option<Permit>,
}

/// What becomes of its log.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Nothing,
    Put(u64, Vec<Mark>),
    Restore((u64, u64), Members),
}

/// What becomes of the votes that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Votes {
    Keep,
    /// An answer more.
    Add(u64, bool),
    /// It stands, with its own.
    Begin,
}

impl Outcome {
    fn of(view: View) -> Self {
        Self { view, log: Change::Nothing, votes: Votes::Keep, permit: None }
    }

    fn allowing(self, permit: Permit) -> Self {
        Self { permit: Some(permit), ..self }
    }
}

/// All that an input may come to, the one that changes nothing last.
pub(super) fn outcomes(member: &Member, cause: &Cause) -> Vec<Outcome> {
    let mut outcomes = match cause {
        Cause::Time => time(member),
        Cause::Message(letter) => message(member, letter),
        Cause::Propose(marks) => propose(member, marks),
        Cause::Changed(..) => changed(member),
        Cause::Persisted(_) => commit(member),
        Cause::Read(_) | Cause::Applied(_) => Vec::new(),
    };
    outcomes.push(Outcome::of(member.view));
    outcomes
}

fn follower(view: View, term: u64, leader: u64) -> View {
    let vote = if term == view.term { view.vote } else { 0 };
    View { term, vote, role: Role::Follower, leader, ..view }
}

fn time(member: &Member) -> Vec<Outcome> {
    let view = member.view;
    if view.role == Role::Leader {
        // It hears from no majority any more.
        return vec![Outcome::of(follower(view, view.term, 0))];
    }
    if !member.votes() {
        return Vec::new();
    }
    if member.members.voters == [member.id] {
        return vec![elected(member, view.term + 1)];
    }
    let asking = View { role: Role::PreCandidate, leader: 0, ..view };
    vec![Outcome { votes: Votes::Begin, ..Outcome::of(asking) }]
}

/// It stands, for a term that nobody else can be voted for with its vote.
fn candidate(member: &Member) -> Outcome {
    let term = member.view.term + 1;
    if member.members.voters == [member.id] {
        return elected(member, term);
    }
    let view = View { term, vote: member.id, role: Role::Candidate, leader: 0, ..member.view };
    Outcome { votes: Votes::Begin, ..Outcome::of(view) }
}

/// It leads, and its term begins with an empty entry.
fn elected(member: &Member, term: u64) -> Outcome {
    let index = member.view.last.0 + 1;
    let view =
        View { term, vote: member.id, role: Role::Leader, leader: member.id, last: (index, term), ..member.view };
    Outcome { log: Change::Put(index, vec![Mark::empty(term)]), ..Outcome::of(view) }
}

fn propose(member: &Member, marks: &[Mark]) -> Vec<Outcome> {
    if member.view.role != Role::Leader || marks.is_empty() {
        return Vec::new();
    }
    let (term, from) = (member.view.term, member.view.last.0 + 1);
    let marks: Vec<Mark> = marks.iter().map(|Mark(_, sum, change)| Mark(term, *sum, *change)).collect();
    let view = View { last: (from + marks.len() as u64 - 1, term), ..member.view };
    vec![Outcome { log: Change::Put(from, marks), ..Outcome::of(view) }]
}

/// A leader commits what a majority has, if the last of it is of its own term.
fn commit(member: &Member) -> Vec<Outcome> {
    let (view, agreed) = (member.view, member.agreed());
    if view.role == Role::Leader && agreed > view.commit && member.log.term(agreed) == Some(view.term) {
        return vec![Outcome::of(View { commit: agreed, ..view })];
    }
    Vec::new()
}

fn changed(member: &Member) -> Vec<Outcome> {
    let view = member.view;
    if view.role == Role::Leader && !member.votes() {
        return vec![Outcome::of(follower(view, view.term, 0))];
    }
    commit(member)
}

fn message(member: &Member, letter: &Letter) -> Vec<Outcome> {
    let view = member.view;
    let kind = letter.kind.as_str();
    let asks = kind == "RequestPreVote" || kind == "RequestPreVoteResponse" && !letter.reject;
    if letter.term > view.term && !asks {
        let leader = if matches!(kind, "Append" | "Heartbeat" | "Snapshot") { letter.from } else { 0 };
        let behind = Member { view: follower(view, letter.term, leader), ..member.clone() };
        let mut outcomes = of_this_term(&behind, letter);
        outcomes.push(Outcome::of(behind.view));
        return outcomes;
    }
    if letter.term == 0 || letter.term == view.term || asks && letter.term > view.term {
        return of_this_term(member, letter);
    }
    Vec::new()
}

fn of_this_term(member: &Member, letter: &Letter) -> Vec<Outcome> {
    match letter.kind.as_str() {
        "Append" => append(member, letter),
        "Heartbeat" => {
            let view = led(member, letter);
            let commit = if member.view.role == Role::Leader { view.commit } else { view.commit.max(letter.commit) };
            vec![Outcome::of(View { commit, ..view })]
        }
        "Snapshot" => snapshot(member, letter),
        "RequestVote" => vote(member, letter),
        "RequestPreVote" => pre_vote(member, letter),
        "RequestVoteResponse" | "RequestPreVoteResponse" => answer(member, letter),
        "AppendResponse" if member.view.role == Role::Leader => commit(member),
        "TimeoutNow" if member.view.role == Role::Follower && member.votes() => vec![candidate(member)],
        // Its index is what the leader has committed, in its own term.
        "ReadIndexResp" if member.view.role == Role::Follower => {
            let known = letter.index > member.view.commit && member.log.term(letter.index) == Some(letter.term);
            let commit = if known { letter.index } else { member.view.commit };
            vec![Outcome::of(View { commit, ..member.view })]
        }
        "Propose" => propose(member, &letter.entries),
        _ => Vec::new(),
    }
}

/// It keeps to the leader that speaks. A leader of the same term can't hear another: it stays what it is.
fn led(member: &Member, letter: &Letter) -> View {
    let view = member.view;
    if view.role == Role::Leader { view } else { follower(view, view.term, letter.from) }
}

fn append(member: &Member, letter: &Letter) -> Vec<Outcome> {
    let view = led(member, letter);
    if view.role == Role::Leader {
        return Vec::new();
    }
    let taken = |view: View, index: u64| Outcome::of(view).allowing(Permit::Taken(letter.from, letter.term, index));
    if letter.index < view.commit {
        return vec![taken(view, view.commit)];
    }
    if member.log.term(letter.index) != Some(letter.log_term) {
        // It says no, which anybody may.
        return vec![Outcome::of(view)];
    }
    let end = letter.index + letter.entries.len() as u64;
    let commit = view.commit.max(letter.commit.min(end));
    let differs = |(offset, mark): &(usize, &Mark)| member.log.term(letter.index + 1 + *offset as u64) != Some(mark.0);
    let Some((offset, _)) = letter.entries.iter().enumerate().find(differs) else {
        return vec![taken(View { commit, ..view }, end)];
    };
    let from = letter.index + 1 + offset as u64;
    if from <= view.commit {
        // What is committed is never replaced.
        return Vec::new();
    }
    let marks = letter.entries[offset..].to_vec();
    let last = (end, marks.last().map_or(letter.log_term, |mark| mark.0));
    vec![Outcome { log: Change::Put(from, marks), ..taken(View { commit, last, ..view }, end) }]
}

fn snapshot(member: &Member, letter: &Letter) -> Vec<Outcome> {
    let view = led(member, letter);
    let Some((index, term, members)) = &letter.snapshot else { return Vec::new() };
    if view.role == Role::Leader {
        return Vec::new();
    }
    let taken = |view: View| {
        let permit = Permit::Taken(letter.from, letter.term, view.commit);
        Outcome::of(view).allowing(permit)
    };
    if *index < view.commit {
        return vec![taken(view)];
    }
    if member.log.term(*index) == Some(*term) {
        return vec![taken(View { commit: *index, ..view })];
    }
    let restored = View { commit: *index, last: (*index, *term), ..view };
    let log = Change::Restore((*index, *term), members.clone());
    // One that isn't a member of it has no use for it.
    vec![Outcome { log, ..taken(restored) }, taken(view)]
}

/// With a candidate's request, or an answer to it, comes what its sender knows to be committed.
fn told(member: &Member, letter: &Letter, view: View) -> Option<View> {
    let knows = letter.commit > view.commit && member.log.term(letter.commit) == Some(letter.commit_term);
    (view.role != Role::Leader && letter.commit_term != 0 && knows).then_some(View { commit: letter.commit, ..view })
}

fn refused(member: &Member, letter: &Letter) -> Vec<Outcome> {
    let Some(view) = told(member, letter, member.view) else { return Vec::new() };
    let mut outcomes = vec![Outcome::of(view)];
    if matches!(view.role, Role::Candidate | Role::PreCandidate) {
        // What is committed now may change who votes.
        outcomes.push(Outcome::of(follower(view, view.term, 0)));
    }
    outcomes
}

fn vote(member: &Member, letter: &Letter) -> Vec<Outcome> {
    let view = member.view;
    let free = view.vote == letter.from || view.vote == 0 && view.leader == 0;
    if free && member.is_up_to_date(letter) {
        let granted = View { vote: letter.from, ..view };
        return vec![Outcome::of(granted).allowing(Permit::Vote(letter.from, letter.term))];
    }
    refused(member, letter)
}

fn pre_vote(member: &Member, letter: &Letter) -> Vec<Outcome> {
    let mut outcomes = refused(member, letter);
    if letter.term >= member.view.term && member.is_up_to_date(letter) {
        outcomes.push(Outcome::of(member.view).allowing(Permit::PreVote(letter.from, letter.term)));
    }
    outcomes
}

fn answer(member: &Member, letter: &Letter) -> Vec<Outcome> {
    let view = member.view;
    let is_pre = letter.kind == "RequestPreVoteResponse";
    let asked = if is_pre { Role::PreCandidate } else { Role::Candidate };
    // raft-rs also counts a yes that was given to an earlier question, for the term that has come meanwhile. It elects nobody.
    let is_stale = is_pre && !letter.reject && letter.term != view.term + 1 && letter.term != view.term;
    if view.role != asked || is_stale {
        return Vec::new();
    }
    let mut votes = member.votes.clone();
    votes.entry(letter.from).or_insert(!letter.reject);
    let add = Votes::Add(letter.from, !letter.reject);
    let mut outcomes = match member.tally(&votes) {
        Some(true) if is_pre => vec![candidate(member)],
        Some(true) => vec![elected(member, view.term)],
        Some(false) => vec![Outcome { votes: add, ..Outcome::of(follower(view, view.term, 0)) }],
        None => vec![Outcome { votes: add, ..Outcome::of(view) }],
    };
    let told: Vec<Outcome> = outcomes
        .iter()
        .filter_map(|outcome| Some(Outcome { view: told(member, letter, outcome.view)?, ..outcome.clone() }))
        .collect();
    // With what is committed now, who votes may change: it stands down.
    let down =
        told.iter().map(|outcome| Outcome { view: follower(outcome.view, outcome.view.term, 0), ..outcome.clone() });
    let down: Vec<Outcome> = down.collect();
    outcomes.extend(told.into_iter().chain(down));
    outcomes
}
