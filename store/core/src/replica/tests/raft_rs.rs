//! What raft-rs 0.7 does by itself where the replica keeps it from it: each as small as it gets, on raft-rs alone.
//!
//! A test that fails here says that another version mended it; then the guard may go.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

/// Member 1.
fn node(voters: Vec<u64>, learners: Vec<u64>) -> RawNode<MemStorage> {
    configured(&Config { id: 1, ..Config::default() }, voters, learners)
}

fn configured(config: &Config, voters: Vec<u64>, learners: Vec<u64>) -> RawNode<MemStorage> {
    let storage = MemStorage::new_with_conf_state(ConfState::from((voters, learners)));
    RawNode::new(config, storage, &slog::Logger::root(slog::Discard, slog::o!())).expect("a node")
}

fn message(msg_type: MessageType, term: u64, index: u64) -> Message {
    Message { msg_type, from: 2, to: 1, term, index, ..Message::default() }
}

/// Takes what is to be written; nothing of it is durable before `on_persist_ready`. Gives back its number.
fn hand_out(node: &mut RawNode<MemStorage>) -> u64 {
    let ready = node.ready();
    let store = node.raft.raft_log.store.clone();
    if !ready.snapshot().is_empty() {
        store.wl().apply_snapshot(ready.snapshot().clone()).expect("a newer snapshot");
    }
    store.wl().append(ready.entries()).expect("entries that follow");
    let number = ready.number();
    node.advance_append_async(ready);
    number
}

fn panics(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

/// A1: the term that a single voter leads in isn't durable when its messages leave.
#[test]
fn a_single_voter_tells_of_a_term_before_it_is_durable() {
    let mut node = node(vec![1], vec![2]);
    node.campaign().expect("a stand");
    let first = node.ready();
    assert!(first.must_sync() && first.hs().is_some_and(|state| state.term == 1));
    assert!(first.messages().iter().any(|message| message.to == 2 && message.term == 1), "{:?}", first.messages());
}

/// A5: what a snapshot holds doesn't count as applied, and entries that it replaced are looked through.
#[test]
fn who_took_a_snapshot_and_stands_panics() {
    let mut node = node(vec![1, 2], vec![]);
    let mut message = message(MessageType::MsgSnapshot, 2, 0);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (10, 2);
    metadata.set_conf_state(ConfState::from((vec![1, 2], vec![])));
    node.step(message).expect("a snapshot");
    let number = hand_out(&mut node);
    node.on_persist_ready(number);
    assert!(panics(|| drop(node.campaign())));
}

/// A6: a leader that applies its own removal goes on leading, and misses its own progress with the next entry.
#[test]
fn a_leader_that_is_removed_panics() {
    let mut node = node(vec![1, 2], vec![]);
    node.campaign().expect("a stand");
    let number = hand_out(&mut node);
    node.on_persist_ready(number);
    node.step(message(MessageType::MsgRequestVoteResponse, 1, 0)).expect("a vote");
    assert_eq!(node.raft.state, StateRole::Leader);
    let mut change = ConfChange { node_id: 1, ..ConfChange::default() };
    change.set_change_type(ConfChangeType::RemoveNode);
    node.apply_conf_change(&change).expect("another is left");
    assert_eq!(node.raft.state, StateRole::Leader);
    let number = hand_out(&mut node);
    assert!(panics(|| node.on_persist_ready(number)));
}

/// A7: the only voter wins at once, whatever of its log is durable.
#[test]
fn who_votes_alone_and_stands_before_its_log_is_durable_panics() {
    let mut node = node(vec![1], vec![]);
    let mut append = message(MessageType::MsgAppend, 1, 0);
    append.set_entries(vec![Entry { index: 1, term: 1, ..Entry::default() }].into());
    node.step(append).expect("an entry");
    assert_eq!(node.raft.raft_log.last_index(), 1, "it has taken it");
    hand_out(&mut node);
    assert!(panics(|| drop(node.campaign())));
}

/// Why `batch_append` stays off: entries that are sent again are put into an empty message that waits and stands behind
/// them. Who takes it acknowledges an entry that nobody has yet, and the leader counts it once it is there.
#[test]
fn an_entry_that_is_sent_again_in_a_batch_acknowledges_the_next() {
    let batched = |id: u64| Config { id, batch_append: true, ..Config::default() };
    let mut leader = configured(&batched(1), vec![1, 2, 3], vec![]);
    leader.campaign().expect("a stand");
    let number = hand_out(&mut leader);
    leader.on_persist_ready(number);
    leader.step(message(MessageType::MsgRequestVoteResponse, 1, 0)).expect("a vote");
    let from = |from: u64, index: u64| Message { from, ..message(MessageType::MsgAppendResponse, 1, index) };
    let number = hand_out(&mut leader);
    leader.on_persist_ready(number);
    leader.step(from(2, 1)).expect("an answer");
    leader.propose(Vec::new(), vec![1]).expect("the second entry");
    let number = hand_out(&mut leader);
    leader.on_persist_ready(number);
    // Member 3 has it, so it is committed: all are told, without entries. A message that overtook it was refused by member 2.
    leader.step(from(3, 2)).expect("an answer");
    let refused = Message { reject: true, reject_hint: 1, log_term: 1, ..from(2, 2) };
    leader.step(refused).expect("an answer");
    let messages = leader.ready().take_messages();
    let again =
        messages.into_iter().find(|message| message.to == 2 && !message.entries.is_empty()).expect("sent again");
    assert_eq!((again.index, again.entries[0].index), (2, 2), "{again:?}");

    // By then the second entry has come to member 2.
    let mut follower = configured(&batched(2), vec![1, 2, 3], vec![]);
    let entry = |index| Entry { index, term: 1, ..Entry::default() };
    let mut append = Message { to: 2, from: 1, ..message(MessageType::MsgAppend, 1, 0) };
    append.set_entries(vec![entry(1), entry(2)].into());
    follower.step(append).expect("entries");
    hand_out(&mut follower);
    follower.step(again).expect("entries");
    let answer = follower.ready().take_persisted_messages().pop().expect("an answer");
    assert_eq!((answer.reject, answer.index, follower.raft.raft_log.last_index()), (false, 3, 2), "{answer:?}");
}
