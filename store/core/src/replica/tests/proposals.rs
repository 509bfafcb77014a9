//! What comes together goes together.

use std::time::Duration;

use bytes::Bytes;

use super::*;

const NOW: Duration = Duration::from_secs(1);

fn appends(cluster: &Cluster) -> Vec<(u64, usize)> {
    let appends = cluster.wire.iter().filter(|message| message.msg_type == MessageType::MsgAppend);
    appends.map(|message| (message.to, message.entries.len())).collect()
}

fn elected() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign();
    cluster.settle();
    cluster
}

#[test]
fn a_leader_sends_each_follower_one_message_with_its_own_and_its_peers_proposals() {
    let mut cluster = elected();
    let mut forwarded = Proposals::default();
    forwarded.add(Bytes::from_static(b"c"), ());
    forwarded.add(Bytes::from_static(b"d"), ());
    assert_eq!(forwarded.propose(cluster.replica(2), NOW), []);
    cluster.act(2, true);
    let [message] = cluster.wire.make_contiguous() else { panic!("one message to the leader: {:?}", cluster.wire) };
    assert_eq!((message.to, message.entries.len()), (1, 2));
    let message = cluster.wire.pop_front().expect("just looked at");

    let mut gathered = Proposals::default();
    gathered.add(Bytes::from_static(b"a"), ());
    gathered.add(Bytes::from_static(b"b"), ());
    assert_eq!(gathered.take(cluster.replica(1), message), None);
    assert_eq!(gathered.propose(cluster.replica(1), NOW), []);
    cluster.act(1, false);
    assert_eq!(appends(&cluster), [(2, 4), (3, 4)]);
    cluster.settle();
    for id in 1..=3 {
        assert_eq!(cluster.commands(id), ["a", "b", "c", "d"], "member {id}");
    }
}

#[test]
fn who_waits_is_told_that_nobody_leads() {
    let mut cluster = Cluster::new(3);
    let mut gathered = Proposals::default();
    gathered.add(Bytes::from_static(b"a"), "first");
    gathered.add(Bytes::from_static(b"b"), "second");
    assert_eq!(gathered.propose(cluster.replica(1), NOW), ["first", "second"]);
    // Each is told once.
    assert_eq!(gathered.propose(cluster.replica(1), NOW), [""; 0]);
}

#[test]
fn what_is_not_for_a_leader_to_propose_is_given_back() {
    let mut cluster = elected();
    let mut gathered: Proposals<()> = Proposals::default();
    let of_kind = |msg_type| Message { msg_type, ..Message::default() };
    let beat = of_kind(MessageType::MsgHeartbeat);
    assert_eq!(gathered.take(cluster.replica(1), beat.clone()), Some(beat));
    // A follower doesn't pass on what another member sends it as to a leader.
    let proposal = Message {
        entries: vec![Entry { data: Bytes::from_static(b"a"), ..Entry::default() }].into(),
        ..of_kind(MessageType::MsgPropose)
    };
    assert_eq!(gathered.take(cluster.replica(2), proposal.clone()), Some(proposal));
    // Nor are changes of members proposed by anybody but the leader itself, nor empty entries.
    let change = Entry { entry_type: EntryType::EntryConfChange, data: vec![1].into(), ..Entry::default() };
    let forged = Message { entries: vec![change, Entry::default()].into(), ..of_kind(MessageType::MsgPropose) };
    assert_eq!(gathered.take(cluster.replica(1), forged), None);
    let last = cluster.replica(1).view().last;
    assert_eq!(gathered.propose(cluster.replica(1), NOW), []);
    assert_eq!(cluster.replica(1).view().last, last);
}

#[test]
fn no_more_goes_together_than_fits() {
    let mut gathered = Proposals::default();
    assert!(!gathered.is_full());
    gathered.add(vec![0; 2 << 20].into(), ());
    assert!(gathered.is_full());
    let mut gathered = Proposals::default();
    let mut count = 0;
    while !gathered.is_full() {
        gathered.add(Bytes::from_static(b"a"), ());
        count += 1;
    }
    assert_eq!(count, 1024);
}

#[test]
fn behind_many_that_are_not_decided_others_are_held_but_not_for_long() {
    let mut cluster = elected();
    let mut gathered = Proposals::default();
    let later = NOW + Duration::from_millis(3);
    for (many, is_held) in [(7, false), (8, true)] {
        (0..many).for_each(|_| gathered.add(Bytes::from_static(b"a"), ()));
        assert_eq!(gathered.held_until(cluster.replica(1), NOW), None, "nothing is before them");
        assert_eq!(gathered.propose(cluster.replica(1), NOW), []);
        assert_eq!(gathered.held_until(cluster.replica(1), later), None, "nothing has come");
        gathered.add(Bytes::from_static(b"b"), ());
        let until = gathered.held_until(cluster.replica(1), later);
        assert_eq!(until.is_some(), is_held, "behind {many}");
        assert!(until.is_none_or(|until| gathered.held_until(cluster.replica(1), until).is_none()));
        assert_eq!(gathered.held_until(cluster.replica(2), later), None, "who follows hands on what comes");
        cluster.settle();
        assert_eq!(gathered.held_until(cluster.replica(1), later), None, "decided");
        assert_eq!(gathered.propose(cluster.replica(1), later), []);
        cluster.settle();
    }
}
