use super::*;
use crate::wire::Describe;

fn member(id: u64, name: &str) -> Member {
    let peer_ur_ls = vec![format!("http://host-{id}:2380")];
    Member { id, name: name.to_owned(), peer_ur_ls, ..Member::default() }
}

fn learner(id: u64) -> Member {
    Member { is_learner: true, ..member(id, "") }
}

fn describe(member: Member, folder: u64) -> Change {
    Change::Describe(Describe { member: Some(member), folder })
}

fn three() -> Members {
    Members::new(9, [member(1, "a"), member(2, "b"), member(3, "c")])
}

#[test]
fn a_learner_joins_and_is_promoted() {
    let mut members = three();
    members.apply(&Change::Add(learner(4))).expect("added");
    assert_eq!(members.conf_state(), ConfState::from((vec![1, 2, 3], vec![4])));
    assert_eq!(members.apply(&Change::Add(learner(5))), Err(RequestError::TooManyLearners));
    assert_eq!(members.apply(&Change::Promote(1)), Err(RequestError::MemberNotLearner));
    members.apply(&Change::Promote(4)).expect("promoted");
    assert_eq!(members.conf_state(), ConfState::from((vec![1, 2, 3, 4], vec![])));
}

/// N1, N2.
#[test]
fn neither_numbers_nor_urls_are_used_twice() {
    let mut members = three();
    assert_eq!(members.apply(&Change::Add(member(1, ""))), Err(RequestError::MemberExists));
    let twin = Member { id: 7, ..member(2, "") };
    assert_eq!(members.apply(&Change::Add(twin.clone())), Err(RequestError::PeerUrlExists));
    assert_eq!(members.apply(&Change::Update(Member { id: 1, ..twin.clone() })), Err(RequestError::PeerUrlExists));
    members.apply(&Change::Remove(2)).expect("removed");
    assert_eq!(members.apply(&Change::Add(member(2, ""))), Err(RequestError::MemberExists));
    members.apply(&Change::Add(twin)).expect("the URL is free again");
    assert!(members.was_removed(2) && members.get(7).is_some());
}

#[test]
fn what_is_not_there_cannot_change() {
    let before = three();
    let mut members = before.clone();
    for change in [Change::Remove(8), Change::Promote(8), Change::Update(member(8, "")), describe(member(8, ""), 1)] {
        assert_eq!(members.apply(&change), Err(RequestError::MemberNotFound));
    }
    assert_eq!(members, before, "N3");
}

#[test]
fn a_change_leaves_a_quorum_of_started_members() {
    let enough = Ok(());
    let refused = Err(RequestError::NotEnoughStarted);
    let alone = Members::new(9, [member(1, "a")]);
    assert_eq!(alone.check_quorum_with_one_more(), enough, "a restored cluster grows from one");
    assert_eq!(alone.check_quorum_without(1), refused, "the last one stays");
    assert_eq!(alone.check(&Change::Remove(1)), refused);
    let starting = Members::new(9, [member(1, "a"), member(2, "")]);
    assert_eq!(starting.check_quorum_with_one_more(), refused);
    assert_eq!(starting.check_quorum_without(2), enough);
    assert_eq!(starting.check_quorum_without(1), refused);
    assert_eq!(three().check_quorum_with_one_more(), enough);
    let one_down = Members::new(9, [member(1, "a"), member(2, "b"), member(3, "")]);
    assert_eq!(one_down.check_quorum_with_one_more(), refused);
    assert_eq!(one_down.check_quorum_with_promoted(), enough);
    assert_eq!(one_down.check_quorum_without(3), enough);
}

#[test]
fn they_are_stored_and_read_back() {
    let mut members = three();
    members.apply(&Change::Remove(3)).expect("removed");
    members
        .apply(&describe(Member { client_ur_ls: vec!["http://x:1".to_owned()], ..member(1, "z") }, 5))
        .expect("told");
    assert_eq!(Members::from_wire(members.to_wire()), members);
    assert_eq!(members.get(1).map(|m| (m.name.as_str(), m.client_ur_ls.len())), Some(("z", 1)));
}

#[test]
fn raft_is_told_of_voters_and_learners_alone() {
    let kind = |change: &Change| conf_change(change).map(|c| (c.get_change_type(), c.node_id));
    assert_eq!(kind(&Change::Add(learner(4))), Some((ConfChangeType::AddLearnerNode, 4)));
    assert_eq!(kind(&Change::Promote(4)), Some((ConfChangeType::AddNode, 4)));
    assert_eq!(kind(&Change::Remove(4)), Some((ConfChangeType::RemoveNode, 4)));
    assert_eq!(kind(&describe(member(4, ""), 1)), None);
}

/// N4.
#[test]
fn a_member_has_one_folder_in_its_life() {
    let mut members = Members::new(1, [member(1, "a"), member(2, "b")]);
    members.apply(&describe(member(1, "a"), 9)).expect("told");
    members.apply(&describe(member(1, "a"), 9)).expect("told again");
    assert_eq!(members.apply(&describe(member(1, "a"), 8)), Err(RequestError::MemberExists));
    assert_eq!((members.folder(1), members.folder(2)), (Some(9), None));
    assert_eq!(Members::from_wire(members.to_wire()), members);
    members.apply(&Change::Remove(1)).expect("removed");
    assert_eq!(members.folder(1), None);
}

#[test]
fn a_change_that_was_made_shows_also_after_others() {
    let mut members = three();
    let (added, promoted) = (Change::Add(learner(4)), Change::Promote(4));
    assert!(!members.show(&added) && members.show(&Change::Remove(4)));
    members.apply(&added).expect("added");
    assert!(members.show(&added) && !members.show(&promoted) && !members.show(&Change::Remove(4)));
    members.apply(&promoted).expect("promoted");
    assert!(members.show(&promoted));
    members.apply(&Change::Remove(4)).expect("removed");
    assert!([added, promoted, Change::Remove(4)].iter().all(|change| members.show(change)));
}
