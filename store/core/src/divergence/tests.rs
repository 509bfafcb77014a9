//! Votes: who is blamed, and who isn't.

use super::*;
use crate::machine::Machine;
use crate::mvcc::{Revision, Values};
use crate::wire::command::Request;
use crate::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::request_op::Request as Op;
use crate::wire::{AlarmType, Command, Compare, Member, PutRequest, RequestOp, TxnRequest};
use bytes::Bytes;
use proptest::prelude::*;
use seeded_bugs::assert_noticed;

/// A disk on which every value reads the same.
struct Constant(&'static str);

impl Values for Constant {
    fn value(&self, _: Revision) -> Result<Bytes, RequestError> {
        Ok(self.0.into())
    }
}

fn members(voters: u64, learners: u64) -> Members {
    let member = |id| Member {
        id,
        is_learner: id > voters,
        peer_ur_ls: vec![format!("http://m{id}:2380")],
        ..Member::default()
    };
    Members::new(1, (1..=voters + learners).map(member))
}

fn put(key: &'static str, value: &'static str) -> Request {
    Request::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
}

/// Writes `b` if `a` is `1`.
fn if_one() -> Request {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Value as i32,
        key: "a".into(),
        target_union: Some(TargetUnion::Value("1".into())),
        ..Compare::default()
    };
    let put = PutRequest { key: "b".into(), ..PutRequest::default() };
    let success = vec![RequestOp { request: Some(Op::RequestPut(put)) }];
    Request::Txn(TxnRequest { compare: vec![compare], success, failure: vec![] })
}

fn run(machine: &mut Machine, index: u64, request: Request, disk: &Constant) {
    let command = Command { request: Some(request), by_member: true, ..Command::default() };
    // Refusals count like anything else.
    let _ = machine.apply(index, &command, disk);
}

/// D1: the odd one stays odd, whatever comes after.
#[test]
fn a_member_that_did_something_else_once_differs_for_ever() {
    let (mut right, mut wrong) = (Machine::default(), Machine::default());
    run(&mut right, 1, put("a", "1"), &Constant("1"));
    run(&mut wrong, 1, put("a", "1"), &Constant("1"));
    assert_eq!(right.chain, wrong.chain);
    // What lies on its disk isn't what was written.
    run(&mut right, 2, if_one(), &Constant("1"));
    run(&mut wrong, 2, if_one(), &Constant("2"));
    assert_ne!(right.chain, wrong.chain);
    for index in 3..20 {
        run(&mut right, index, put("b", "same"), &Constant("1"));
        run(&mut wrong, index, put("b", "same"), &Constant("1"));
        assert_ne!(right.chain, wrong.chain);
    }
}

/// What a hash may leave out, or not.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    ForgetsValues,
    /// Key and value aren't told apart.
    ForgetsLengths,
    /// What was to be written counts though it was refused.
    HashesWhatIsRefused,
}

/// Puts, by the numbers of key and value.
type History = Vec<(usize, usize)>;

const KEYS: [&str; 3] = ["", "a", "ab"];
const VALUES: [&str; 3] = ["", "b", "bc"];

fn history() -> impl Strategy<Value = History> {
    prop::collection::vec((0..3usize, 0..3usize), 1..12)
}

/// Any two, or two that differ in one place at most.
fn histories() -> impl Strategy<Value = (History, History)> {
    let change = |(one, at, put): (History, prop::sample::Index, (usize, usize))| {
        let mut other = one.clone();
        other[at.index(one.len())] = put;
        (one, other)
    };
    let alike = (history(), any::<prop::sample::Index>(), (0..3usize, 0..3usize)).prop_map(change);
    prop_oneof![(history(), history()), alike]
}

/// What came of a history.
fn done(history: &History, bug: Option<Bug>) -> Vec<(&'static str, &'static str)> {
    let put = |(key, value): &(usize, usize)| match bug {
        // A put without a key is refused, whatever its value.
        _ if *key == 0 && bug != Some(Bug::HashesWhatIsRefused) => ("", ""),
        Some(Bug::ForgetsValues) => (KEYS[*key], ""),
        Some(Bug::ForgetsLengths) if (*key, *value) == (1, 1) => ("ab", ""),
        _ => (KEYS[*key], VALUES[*value]),
    };
    history.iter().map(put).collect()
}

fn hash(history: &History) -> Hash {
    let mut machine = Machine::default();
    for (index, (key, value)) in history.iter().enumerate() {
        run(&mut machine, index as u64, put(KEYS[*key], VALUES[*value]), &Constant(""));
    }
    machine.chain.hash()
}

fn hashes_tell_apart((one, other): (History, History), bug: Option<Bug>) -> Result<(), TestCaseError> {
    prop_assert_eq!(hash(&one), hash(&one));
    prop_assert_eq!(hash(&one) == hash(&other), done(&one, bug) == done(&other, bug));
    Ok(())
}

proptest! {
    /// D1: histories have the same hash exactly if they are the same.
    #[test]
    fn equal_hashes_mean_equal_histories(histories in histories()) {
        hashes_tell_apart(histories, None)?;
    }
}

/// Histories that a worse hash would take for the same, or for others, are found.
#[test]
fn a_wrong_hash_is_noticed() {
    let bugs = [Bug::ForgetsValues, Bug::ForgetsLengths, Bug::HashesWhatIsRefused];
    assert_noticed(&bugs, &histories(), hashes_tell_apart);
}

/// Votes as `member:letter`, in order; the verdict after each.
fn verdicts(members: &Members, votes: &str) -> Vec<Vec<u64>> {
    let mut table = Votes::default();
    let verdict = |vote: &str| {
        let (member, letter) = vote.split_once(':').expect("a vote");
        let hash = Bytes::copy_from_slice(&[letter.as_bytes()[0]; 16]);
        table.apply(
            &HashVote { index: CHECK_ENTRIES, member: member.parse().expect("a number"), hash, at_rest: false },
            members,
        )
    };
    votes.split(' ').map(verdict).collect()
}

/// D3.
#[test]
fn the_majority_is_right() {
    let none = Vec::<u64>::new;
    assert_eq!(verdicts(&members(3, 0), "1:a 2:a 3:a"), [none(), none(), none()]);
    assert_eq!(verdicts(&members(3, 0), "1:a 2:b 3:b"), [none(), none(), vec![1]]);
    assert_eq!(verdicts(&members(3, 0), "1:a 3:a 2:b"), [none(), none(), vec![2]]);
    assert_eq!(verdicts(&members(3, 0), "1:a 2:b 3:c"), [none(), none(), vec![NOBODY_KNOWS]]);
    assert_eq!(verdicts(&members(2, 0), "1:a 2:b"), [none(), vec![NOBODY_KNOWS]]);
    assert_eq!(verdicts(&members(5, 0), "1:a 2:b 3:a 4:b 5:b")[4], [1, 3]);
    assert_eq!(verdicts(&members(1, 0), "1:a"), [none()]);
    // A learner has no say, and can be wrong.
    assert_eq!(verdicts(&members(2, 1), "3:b 1:a 2:b")[2], [NOBODY_KNOWS]);
    assert_eq!(verdicts(&members(2, 1), "1:a 2:a 3:b"), [none(), none(), vec![3]]);
    // Who isn't a member, or corrects himself.
    assert_eq!(verdicts(&members(3, 0), "9:b 8:b 1:a 2:a 3:a")[4], none());
    assert_eq!(verdicts(&members(3, 0), "1:b 2:a 1:a 3:a")[3], none());
}

/// D2.
#[test]
fn old_votes_are_forgotten_and_the_rest_is_stored() {
    let members = members(3, 0);
    let mut votes = Votes::default();
    for check in 0..3 * CHECKS_MAX as u64 {
        for member in 1..=2 {
            votes.apply(&HashVote { index: check, member, hash: vec![7; 16].into(), at_rest: false }, &members);
        }
    }
    // Compactions count by themselves.
    for at in 1..3 * CHECKS_MAX as u64 {
        votes.apply(&HashVote { index: at, member: 1, hash: vec![7; 16].into(), at_rest: true }, &members);
    }
    assert_eq!(votes.to_wire().votes.len(), 3 * CHECKS_MAX);
    assert_eq!(Votes::from_wire(&votes.to_wire()), votes);
    let late = HashVote { index: 0, member: 3, hash: vec![8; 16].into(), at_rest: false };
    assert_eq!(votes.apply(&late, &members), Vec::<u64>::new());
    let short = HashVote { index: u64::MAX, member: 3, hash: vec![8; 15].into(), at_rest: false };
    assert_eq!(votes.apply(&short, &members), Vec::<u64>::new());
    assert_eq!(votes.to_wire().votes.len(), 3 * CHECKS_MAX);
}

/// A verdict is an alarm, on every member at the same place.
#[test]
fn who_is_found_wrong_gets_an_alarm() {
    let mut machine = Machine { members: members(3, 0), ..Machine::default() };
    for (member, letter) in [(1, 7), (2, 8), (3, 7)] {
        let vote = HashVote { index: CHECK_ENTRIES, member, hash: vec![letter; 16].into(), at_rest: false };
        run(&mut machine, CHECK_ENTRIES + member, Request::Vote(vote), &Constant(""));
    }
    assert!(machine.alarms.is_raised_for(2, AlarmType::Corrupt));
    assert_eq!(machine.alarms.list(AlarmType::None).len(), 1);
}
