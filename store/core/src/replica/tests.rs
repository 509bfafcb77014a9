//! Clusters of replicas in one thread, over disks that forget what wasn't synced.

use super::*;
use protobuf::Message as _;
use raft::Storage as _;
use raft::eraftpb::{ConfChangeType, ConfState, EntryType};
use std::collections::VecDeque;

mod proposals;
mod raft_rs;

struct Member {
    replica: Option<Replica>,
    /// What survives a crash.
    disk: Log,
    applied: Vec<Vec<u8>>,
    /// Steps handed out and not yet durable.
    pending: VecDeque<Step>,
    /// Contexts of reads that got their index.
    answered: Vec<Vec<u8>>,
}

struct Cluster {
    members: Vec<Member>,
    wire: VecDeque<Message>,
    boots: u64,
}

/// Nothing is left to chance: who waits for a leader campaigns in the order of numbers.
fn timing(id: u64) -> Timing {
    Timing::fixed(10, 1, 10 + 2 * id as usize)
}

impl Cluster {
    fn new(size: u64) -> Self {
        let voters: Vec<u64> = (1..=size).collect();
        let conf = ConfState::from((voters, vec![]));
        let member = |_| Member {
            replica: None,
            disk: Log::new(0, 0, conf.clone()),
            applied: Vec::new(),
            pending: VecDeque::new(),
            answered: Vec::new(),
        };
        let mut cluster = Self { members: (0..size).map(member).collect(), wire: VecDeque::new(), boots: 0 };
        (1..=size).for_each(|id| cluster.start(id));
        cluster
    }

    fn member(&mut self, id: u64) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    fn replica(&mut self, id: u64) -> &mut Replica {
        self.member(id).replica.as_mut().expect("running")
    }

    fn start(&mut self, id: u64) {
        self.boots += 1;
        let boot = self.boots;
        let member = self.member(id);
        // The state machine of this test is volatile: it is rebuilt from the log.
        member.applied.clear();
        member.replica = Some(Replica::new(id, boot, timing(id), 0, member.disk.clone()));
    }

    fn crash(&mut self, id: u64) {
        let member = self.member(id);
        member.replica = None;
        member.pending.clear();
    }

    /// Lets the member act; with `sync` its disk keeps up, else it stalls.
    fn act(&mut self, id: u64, sync: bool) {
        let Some(mut replica) = self.member(id).replica.take() else { return };
        loop {
            while let Some(mut step) = replica.poll() {
                // A peer takes only what its sender says in its own name.
                assert!(step.now.iter().chain(&step.after).all(|message| message.from == id), "in another's name");
                self.wire.extend(std::mem::take(&mut step.now));
                let reads = std::mem::take(&mut step.reads);
                self.member(id).answered.extend(reads.into_iter().map(|read| read.request_ctx));
                let applied: Vec<Entry> = std::mem::take(&mut step.apply);
                for entry in &applied {
                    if entry.get_entry_type() == EntryType::EntryConfChange {
                        let change = ConfChange::parse_from_bytes(&entry.data).expect("a change");
                        replica.members_changed(entry.index, &change);
                    } else {
                        self.member(id).applied.push(entry.data.to_vec());
                    }
                }
                if let Some(last) = applied.last() {
                    replica.applied(last.index);
                }
                self.member(id).pending.push_back(step);
            }
            if !sync {
                break;
            }
            let Some(mut step) = self.member(id).pending.pop_front() else { break };
            let disk = &mut self.member(id).disk;
            disk.append(&step.persist.entries);
            if let Some(hard_state) = &step.persist.hard_state {
                disk.set_hard_state(hard_state);
            }
            replica.persisted(step.number);
            self.wire.extend(std::mem::take(&mut step.after));
        }
        self.member(id).replica = Some(replica);
    }

    /// Delivers everything until nothing moves.
    fn settle(&mut self) {
        let size = self.members.len() as u64;
        for _ in 0..1000 {
            (1..=size).for_each(|id| self.act(id, true));
            let Some(message) = self.wire.pop_front() else { return };
            if let Some(replica) = self.member(message.to).replica.as_mut() {
                replica.receive(message);
            }
        }
        panic!("no rest after 1000 messages");
    }

    fn commands(&mut self, id: u64) -> Vec<String> {
        let applied = &self.member(id).applied;
        applied.iter().filter(|d| !d.is_empty()).map(|d| String::from_utf8_lossy(d).into_owned()).collect()
    }
}

#[test]
fn commands_reach_every_member_in_one_order() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    assert!(cluster.replica(1).is_leader());
    cluster.replica(1).propose(b"a".to_vec()).expect("a leader");
    // A follower's proposal goes to the leader.
    cluster.replica(2).propose(b"b".to_vec()).expect("a leader is known");
    cluster.settle();
    for id in 1..=3 {
        assert_eq!(cluster.commands(id), ["a", "b"], "member {id}");
    }
}

#[test]
fn what_was_committed_survives_the_leader_and_a_power_cut() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    cluster.replica(1).propose(b"a".to_vec()).expect("a leader");
    cluster.settle();
    cluster.crash(1);
    // Member 2 is the first to lose patience, member 3 no longer keeps to the old leader by then.
    for _ in 0..14 {
        assert!(!cluster.replica(2).is_leader());
        (2..=3).for_each(|id| cluster.replica(id).tick());
        cluster.settle();
    }
    assert!(cluster.replica(2).is_leader());
    cluster.replica(2).propose(b"b".to_vec()).expect("a leader");
    cluster.settle();
    (2..=3).for_each(|id| cluster.crash(id));
    (1..=3).for_each(|id| cluster.start(id));
    cluster.replica(2).campaign();
    cluster.settle();
    for id in 1..=3 {
        assert_eq!(cluster.commands(id), ["a", "b"], "member {id}");
    }
}

/// A1: whoever votes says so only when the vote is durable.
#[test]
fn a_vote_is_not_sent_before_it_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    for _ in 0..20 {
        cluster.act(1, true);
        let Some(message) = cluster.wire.pop_front() else { break };
        if message.to != 2 {
            cluster.replica(message.to).receive(message);
            continue;
        }
        cluster.replica(2).receive(message);
        cluster.act(2, false);
        let early: Vec<_> =
            cluster.wire.iter().filter(|m| m.from == 2 && m.msg_type == MessageType::MsgRequestVoteResponse).collect();
        assert!(early.is_empty(), "{early:?}");
        cluster.act(2, true);
    }
    assert_eq!(cluster.member(2).disk.hard_state().vote, 1);
}

/// A1, the single voter: it elects itself and may not act on the term before it is durable.
#[test]
fn a_single_voter_holds_its_messages_until_its_term_is_durable() {
    let conf = ConfState::from((vec![1], vec![2]));
    let mut replica = Replica::new(1, 1, timing(1), 0, Log::new(0, 0, conf));
    replica.campaign();
    let step = replica.poll().expect("effects");
    assert!(step.now.is_empty(), "{:?}", step.now);
    assert!(step.persist.sync);
    // Nor what comes after: the learner would take entries of a term that may come again.
    replica.tick();
    replica.propose(b"a".to_vec()).expect("a leader");
    let next = replica.poll().expect("effects");
    assert!(next.now.is_empty(), "{:?}", next.now);
    assert!(next.after.iter().any(|message| message.to == 2), "{:?}", next.after);
    replica.persisted(step.number);
    replica.tick();
    assert!(replica.poll().is_some_and(|step| step.now.iter().any(|message| message.to == 2)), "its term is durable");
}

#[test]
fn a_read_waits_for_a_majority() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    cluster.replica(1).propose(b"a".to_vec()).expect("a leader");
    cluster.settle();
    let first = cluster.replica(1).read_index();
    assert!(cluster.replica(1).poll().is_some_and(|step| step.reads.is_empty()), "alone it can't know");
    let second = cluster.replica(1).read_index();
    assert_ne!(first, second, "A4");
}

/// A new leader drops the reads that come before it has committed an entry of its term; whoever asks as soon as he
/// knows of one is answered without waiting for any tick.
#[test]
fn reads_are_asked_for_once_a_new_leader_can_answer() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    cluster.replica(1).transfer_to(2);
    let (mut early, mut late) = ([const { None }; 3], [const { None }; 3]);
    for _ in 0..1000 {
        for id in 1..=3 {
            let replica = cluster.replica(id);
            let (at, elected) = (id as usize - 1, replica.term() == 2 && replica.leader() == 2);
            let asked = if replica.indexes_reads() { &mut late[at] } else { &mut early[at] };
            if elected && asked.is_none() {
                *asked = Some(replica.read_index());
            }
            cluster.act(id, true);
        }
        let Some(message) = cluster.wire.pop_front() else { break };
        cluster.replica(message.to).receive(message);
    }
    let answered = |cluster: &Cluster, at: usize, read: &Option<Vec<u8>>| {
        read.as_ref().map(|context| cluster.members[at].answered.contains(context))
    };
    assert_eq!(answered(&cluster, 1, &early[1]), Some(false), "the new leader's own");
    for (at, read) in late.iter().enumerate() {
        assert_eq!(answered(&cluster, at, read), Some(true), "member {}", at + 1);
    }
}

/// Who waits for what it sent to a leader must hear that this leader began anew, even if it never saw it gone.
#[test]
fn a_leader_that_is_elected_again_is_a_new_one() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    let replica = cluster.replica(2);
    for (term, told) in [(1, None), (2, Some((1, false))), (2, None)] {
        replica.receive(Message { msg_type: MessageType::MsgHeartbeat, from: 1, to: 2, term, ..Message::default() });
        let steps: Vec<Step> = std::iter::from_fn(|| replica.poll()).collect();
        assert_eq!(steps.iter().rev().find_map(|step| step.leader), told, "term {term}");
    }
}

/// A leader's end is told: another leads within few ticks, not after an election timeout.
#[test]
fn a_leader_whose_process_ended_is_followed_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    let hear = |cluster: &mut Cluster, told: &[u64]| {
        told.iter().for_each(|id| cluster.replica(*id).gone(1));
        for tick in 100..104 {
            for id in 2..=3 {
                cluster.replica(id).tick();
                cluster.replica(id).stand_early(tick);
            }
            cluster.settle();
        }
    };
    // One alone may be wrong: who still keeps to the leader refuses it, and so does the leader.
    hear(&mut cluster, &[2]);
    assert!(cluster.replica(1).is_leader() && cluster.replica(3).leader() == 1 && cluster.replica(2).term() == 1);
    cluster.replica(1).tick();
    cluster.settle();
    assert_eq!(cluster.replica(2).leader(), 1, "it keeps to the leader that it hears from again");
    cluster.crash(1);
    hear(&mut cluster, &[2, 3]);
    assert!(cluster.replica(2).is_leader() && cluster.replica(3).leader() == 2);
}

/// What a member sent to a leader that has stopped leading meanwhile goes no further: it would go in another's name,
/// and whoever receives it would end the connection, with all that was on its way.
#[test]
fn what_was_meant_for_a_deposed_leader_is_dropped() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    cluster.replica(2).propose(b"late".to_vec()).expect("a leader");
    cluster.replica(2).read_index();
    cluster.act(2, true);
    let late = std::mem::take(&mut cluster.wire);
    assert!(late.len() == 2 && late.iter().all(|message| message.to == 1), "both are on their way");
    cluster.replica(1).transfer_to(3);
    cluster.settle();
    late.into_iter().for_each(|message| cluster.replica(1).receive(message));
    // Only a leader hands over; raft would send this on to it in the name of the one who shall lead.
    cluster.replica(1).transfer_to(2);
    cluster.settle();
    assert_eq!(cluster.replica(1).leader(), 3);
    assert!((1..=3).all(|id| cluster.commands(id).is_empty()));
}

#[test]
fn a_member_too_far_behind_asks_for_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    cluster.crash(3);
    for n in 0..20 {
        cluster.replica(1).propose(vec![n]).expect("a leader");
        cluster.settle();
    }
    let committed = cluster.replica(1).committed();
    cluster.replica(1).compact_log(committed - 1);
    cluster.start(3);
    for _ in 0..5 {
        cluster.replica(1).tick();
        cluster.settle();
    }
    assert!(cluster.replica(1).wanted_snapshot().is_some());
}

/// A copy made for one member is of no use to another that was added since: it would refuse it for ever.
#[test]
fn a_new_member_needs_a_snapshot_in_which_it_is_one() {
    let conf = ConfState::from((vec![1, 2], vec![3]));
    let mut log = Log::new(10, 1, conf.clone());
    let mut snapshot = Snapshot::default();
    (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (10, 1);
    snapshot.mut_metadata().set_conf_state(conf);
    log.offer_snapshot(snapshot);
    assert!(log.snapshot(0, 2).is_ok() && log.snapshot(0, 3).is_ok() && log.wanted_snapshot().is_none());
    assert!(log.snapshot(0, 4).is_err());
    assert_eq!(log.wanted_snapshot(), Some(10), "another one is made");
}

/// A member of three that has just received a snapshot up to index 10.
fn receives_a_snapshot() -> Replica {
    let conf = ConfState::from((vec![1, 2, 3], vec![]));
    let mut replica = Replica::new(3, 1, timing(3), 0, Log::new(0, 0, conf.clone()));
    let mut message = Message { msg_type: MessageType::MsgSnapshot, from: 1, to: 3, term: 1, ..Message::default() };
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (10, 1);
    metadata.set_conf_state(conf);
    replica.receive(message);
    replica
}

/// It, and the step that installs the snapshot.
fn given_a_snapshot() -> (Replica, Step) {
    let mut replica = receives_a_snapshot();
    let step = std::iter::from_fn(|| replica.poll()).find(|step| step.persist.snapshot.is_some());
    (replica, step.expect("a step with the snapshot"))
}

fn asks_for_votes(replica: &mut Replica) -> bool {
    // All that it does, not only up to the first such message.
    let steps: Vec<Step> = std::iter::from_fn(|| replica.poll()).collect();
    let mut sent = steps.iter().flat_map(|step| step.now.iter().chain(&step.after));
    sent.any(|message| message.msg_type == MessageType::MsgRequestPreVote)
}

/// Everything that the snapshot holds is applied: there are no entries before it to look at.
#[test]
fn who_took_a_snapshot_can_stand() {
    let (mut replica, step) = given_a_snapshot();
    replica.persisted(step.number);
    assert_eq!(replica.image().applied, 10);
    replica.campaign();
    assert!(asks_for_votes(&mut replica));
}

/// The state applies at its own pace: a change of members that was handed out before the snapshot came may be applied
/// after it. Who votes is then what the snapshot says, in which the change and all that followed are.
#[test]
fn a_change_that_a_snapshot_overtakes_changes_nothing() {
    let mut change = ConfChange { node_id: 4, ..ConfChange::default() };
    change.set_change_type(ConfChangeType::AddNode);
    let (mut replica, step) = given_a_snapshot();
    replica.members_changed(5, &change);
    assert_eq!(replica.conf_state().voters, [1, 2, 3], "while it is installed");
    replica.persisted(step.number);
    replica.members_changed(6, &change);
    assert_eq!(replica.conf_state().voters, [1, 2, 3], "and behind it");
    replica.members_changed(11, &change);
    assert!(replica.conf_state().voters.contains(&4), "what comes after it counts");

    let mut replica = receives_a_snapshot();
    replica.members_changed(5, &change);
    assert_eq!(replica.conf_state().voters, [1, 2, 3], "before the step that installs it");
}

/// A5, however it would come to stand.
#[test]
fn who_installs_a_snapshot_does_not_stand() {
    let (mut replica, step) = given_a_snapshot();
    (0..100).for_each(|_| replica.tick());
    replica.campaign();
    replica.receive(Message { msg_type: MessageType::MsgTimeoutNow, from: 1, to: 3, term: 1, ..Message::default() });
    assert!(!asks_for_votes(&mut replica));
    replica.persisted(step.number);
    (0..100).for_each(|_| replica.tick());
    assert!(asks_for_votes(&mut replica));
}

/// A6: what was proposed behind its removal goes on with its successor.
#[test]
fn a_leader_that_is_removed_leads_no_more() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    let mut change = ConfChange { node_id: 1, ..ConfChange::default() };
    change.set_change_type(ConfChangeType::RemoveNode);
    cluster.replica(1).propose_members(&change).expect("a leader");
    cluster.replica(1).propose(b"a".to_vec()).expect("a leader");
    cluster.settle();
    assert!(!cluster.replica(1).is_leader());
    let leader = if cluster.replica(2).is_leader() { 2 } else { 3 };
    assert!(cluster.replica(leader).is_leader(), "nobody had to wait in vain");
    cluster.replica(leader).propose(b"b".to_vec()).expect("a leader");
    cluster.settle();
    for id in 2..=3 {
        assert_eq!(cluster.commands(id), ["a", "b"], "member {id}");
        assert_eq!(cluster.replica(id).conf_state().voters.len(), 2);
    }
}

/// A7: two members become one, and the log of who is left is on its way to the disk.
#[test]
fn who_is_left_alone_does_not_stand_before_its_log_is_durable() {
    let mut replica = Replica::new(1, 1, timing(1), 0, Log::new(0, 0, ConfState::from((vec![1], vec![]))));
    let from_2 = |msg_type| Message { msg_type, from: 2, to: 1, term: 1, ..Message::default() };
    let mut append = from_2(MessageType::MsgAppend);
    append.set_entries(vec![Entry { index: 1, term: 1, ..Entry::default() }].into());
    replica.receive(append);
    let step = replica.poll().expect("an entry to write");
    assert_eq!(step.persist.entries.len(), 1);
    (0..100).for_each(|_| replica.tick());
    replica.campaign();
    replica.receive(from_2(MessageType::MsgTimeoutNow));
    assert!(!replica.is_leader());
    replica.persisted(step.number);
    (0..100).for_each(|_| replica.tick());
    assert!(replica.is_leader());
}
