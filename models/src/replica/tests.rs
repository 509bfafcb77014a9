//! What the check finds, and that it finds what it should.

use super::disk::{Disk, Record};
use super::entry::{Change, Slot, Value};
use super::memo::Memo;
use super::properties as p;
use super::shell::Mutant;
use super::*;

use expect_test::{Expect, expect};

/// Bounds of a check that takes seconds.
pub(super) fn small() -> Bounds {
    Bounds {
        nodes: 3,
        founders: None,
        terms: 2,
        proposals: 1,
        crashes: 1,
        timeouts: 2,
        waits: 0,
        beats: 0,
        stalls: 0,
        drops: 0,
        duplicates: 0,
        overtakings: 0,
        reads: 0,
        transfers: 0,
        changes: 0,
        compactions: 0,
        forwards: 0,
        in_flight: 6,
        lag: false,
        scenario: None,
        mutant: None,
        audit: false,
        threads: 2,
    }
}

fn holds(bounds: &Bounds, states: usize) -> Report {
    check(bounds, &mut std::io::sink()).holds_in(states)
}

#[test]
fn it_holds_with_a_power_cut_between_any_two_effects() {
    let report = holds(&Bounds { audit: true, ..small() }, 1_063_058);
    assert_eq!(report.seen, [p::COMMITS, p::ALL_APPLY, p::SUCCESSION, p::REPLACED]);
    assert!(report.audit.0 > 5_000, "{:?}", report.audit);
}

/// Inputs come while steps wait for the disk: the order in which production works under load.
#[test]
fn it_holds_while_disks_stall() {
    let report = holds(&Bounds { crashes: 0, stalls: 2, ..small() }, 507_763);
    assert_eq!(report.unseen, [""; 0]);
    holds(&Bounds { terms: 1, timeouts: 1, proposals: 2, stalls: 2, ..small() }, 388_324);
}

/// Heartbeats pass, a leader looks for its peers and steps down without them.
#[test]
fn it_holds_while_a_leader_s_time_passes() {
    holds(&Bounds { terms: 1, timeouts: 1, beats: 2, ..small() }, 527_063);
}

/// Each member is asked for reads, whoever leads, and the power is cut meanwhile.
#[test]
fn reads_see_what_was_committed_before_them() {
    let report = holds(&Bounds { crashes: 0, reads: 1, audit: true, ..small() }, 992_758);
    assert_eq!(report.unseen, [""; 0]);
    holds(&Bounds { terms: 1, timeouts: 1, reads: 1, ..small() }, 233_042);
}

#[test]
fn it_holds_while_messages_come_twice_and_overtake() {
    holds(&Bounds { crashes: 0, duplicates: 1, overtakings: 1, ..small() }, 1_372_911);
}

/// Nobody waits in vain for the second leader: the first hands over to it.
#[test]
fn a_leader_hands_over() {
    let report = holds(&Bounds { terms: 3, timeouts: 1, crashes: 0, transfers: 1, ..small() }, 6_708);
    assert!(report.seen.contains(&p::SUCCESSION));
    holds(&Bounds { crashes: 0, transfers: 1, audit: true, ..small() }, 379_434);
}

/// A lone member takes a learner in, which needs a snapshot, and makes it a voter; or removes it, or takes in another.
#[test]
fn it_holds_while_a_cluster_grows() {
    let growing = Bounds { founders: Some(1), changes: 2, beats: 1, ..small() };
    let report = holds(&growing, 1_422_886);
    assert_eq!(report.unseen, [""; 0]);
}

/// The single voter that a power cut sends back into a term in which its learner may know it: raft-rs lets it send
/// before that term is durable, the replica doesn't (A1).
#[test]
fn it_holds_while_a_single_voter_with_a_learner_loses_power() {
    let bounds = Bounds { founders: Some(1), changes: 1, beats: 1, crashes: 2, timeouts: 3, audit: true, ..small() };
    holds(&bounds, 32_615);
    finds(
        Mutant::LeadBeforeDurable,
        bounds,
        &expect![[r#"
        a term has one leader, 3 steps
           3.  member 1 waited in vain for a leader
               leads term 2
               writes 2=-@2, term 2 vote 1 commit 1
               syncs
               applies -@2
               writes term 2 vote 1 commit 2
    "#]],
    );
}

/// The hazard of one voter with a learner that has joined, by its name (A1).
#[test]
fn a_single_voter_with_a_learner_survives_its_hazard() {
    let named = Bounds { scenario: Some(bounds::Scenario::SingleVoterLearner), ..small() };
    let report = holds(&named, 821_422);
    assert_eq!(report.unseen, [""; 0]);
    finds(
        Mutant::LeadBeforeDurable,
        named,
        &expect![[r#"
        a term has one leader, 3 steps
           3.  member 1 waited in vain for a leader
               leads term 2
               sends to 2: Append term 2 after 2@1 [-@2] commit 2
               writes 3=-@2, term 2 vote 1 commit 2
               syncs
               applies -@2
               writes term 2 vote 1 commit 3
    "#]],
    );
}

/// A follower sends on what it is asked for, to whoever leads by then.
#[test]
fn followers_send_proposals_on() {
    let report = holds(&Bounds { proposals: 0, forwards: 1, crashes: 0, audit: true, ..small() }, 35_118);
    assert!(report.seen.contains(&p::FORWARDS));
    holds(&Bounds { terms: 1, timeouts: 1, forwards: 1, ..small() }, 69_879);
}

#[test]
fn a_proposal_sent_on_twice_is_found() {
    finds(
        Mutant::ProposeAgain,
        Bounds { proposals: 0, forwards: 1, crashes: 0, ..small() },
        &expect![[r#"
        a proposal is committed once, 20 steps
          20.  member 1 receives from 2: AppendResponse term 2 index 4
               sends to 2: Append term 2 after 4@2 [] commit 4
               applies f1@2
               writes term 2 vote 1 commit 4
    "#]],
    );
}

/// Whoever leads may be removed, with writes behind its removal.
#[test]
fn it_holds_while_members_leave() {
    let report = holds(&Bounds { changes: 1, crashes: 0, audit: true, ..small() }, 646_165);
    assert_eq!(report.unseen, [""; 0]);
    holds(&Bounds { founders: Some(2), changes: 1, beats: 1, crashes: 0, ..small() }, 40_203);
}

/// States apply at their own pace, and reads wait for them.
#[test]
fn it_holds_while_states_lag() {
    let report = holds(&Bounds { lag: true, crashes: 0, audit: true, ..small() }, 408_800);
    assert_eq!(report.seen, [p::COMMITS, p::ALL_APPLY, p::SUCCESSION, p::REPLACED]);
    holds(&Bounds { lag: true, terms: 1, timeouts: 1, audit: true, ..small() }, 28_236);
    let reads = Bounds { lag: true, terms: 1, timeouts: 1, reads: 1, crashes: 0, ..small() };
    let report = holds(&reads, 126_091);
    assert!(report.seen.contains(&p::READ_ELSEWHERE));
    finds(
        Mutant::ReadBehind,
        reads,
        &expect![[r#"
            a read sees all that was committed before it, 12 steps
              12.  member 1 receives from 2: HeartbeatResponse term 2
                   answers the read from index 1 on
        "#]],
    );
}

/// A message is lost, and the log behind it cut.
#[test]
fn it_holds_while_a_member_needs_a_snapshot() {
    let bounds =
        Bounds { compactions: 1, drops: 1, terms: 1, timeouts: 1, beats: 1, crashes: 0, audit: true, ..small() };
    let report = holds(&bounds, 59_664);
    assert!(report.seen.contains(&p::INSTALLED));
}

/// The seeded bug is found: the property, the steps, and what the last of them say.
fn finds(mutant: Mutant, bounds: Bounds, expected: &Expect) {
    // One thread finds a shortest way.
    let report = check(&Bounds { mutant: Some(mutant), threads: 1, ..bounds }, &mut std::io::sink());
    expected.assert_eq(&report.short().expect("the seeded bug is found"));
}

#[test]
fn an_answer_before_its_sync_is_found() {
    finds(
        Mutant::ReplyBeforeDurable,
        small(),
        &expect![[r#"
            what a message says is durable, 3 steps
               3.  member 1 receives from 2: RequestPreVoteResponse term 2
                   sends to 2: RequestVote term 2 log 1@1
                   sends to 3: RequestVote term 2 log 1@1
                   writes term 2 vote 1 commit 1
                   syncs
        "#]],
    );
}

#[test]
fn a_lost_vote_is_found() {
    finds(
        Mutant::LoseVote,
        small(),
        &expect![[r#"
            what a message says is durable, 3 steps
               3.  member 1 receives from 2: RequestPreVoteResponse term 2
                   writes term 2 vote 0 commit 1
                   syncs
                   sends to 2: RequestVote term 2 log 1@1
                   sends to 3: RequestVote term 2 log 1@1
        "#]],
    );
}

#[test]
fn an_entry_counted_before_it_is_durable_is_found() {
    let bounds = Bounds { terms: 1, timeouts: 1, stalls: 1, ..small() };
    finds(
        Mutant::CountBeforeDurable,
        bounds,
        &expect![[r#"
            what is committed is durable on a majority, 7 steps
               7.  member 1 receives from 2: AppendResponse term 2 index 2
                   sends to 2: Append term 2 after 2@2 [] commit 2
                   applies -@2
                   the power is cut; its disk holds 1@1 [] term 2 vote 1 commit 1, its state applied 1
        "#]],
    );
}

#[test]
fn replaced_entries_left_in_place_are_found() {
    finds(
        Mutant::KeepReplaced,
        small(),
        &expect![[r#"
            terms never decrease along a log, 14 steps
              14.  member 1 receives from 2: Append term 3 after 1@1 [-@3] commit 1
                   writes 2=-@3, term 3 vote 0 commit 1
                   syncs
                   sends to 2: AppendResponse term 3 index 2
        "#]],
    );
}

#[test]
fn a_commit_behind_the_state_is_found() {
    finds(
        Mutant::CommitBehind,
        Bounds { terms: 1, timeouts: 1, ..small() },
        &expect![[r#"
            no member panics, 8 steps
               8.  member 1 starts
                   it panics: applied(2) is out of range [prev_applied(1), min(committed(1), persisted(2))], raft_id: 1
        "#]],
    );
}

#[test]
fn a_read_without_asking_is_found() {
    finds(
        Mutant::ReadAlone,
        Bounds { crashes: 0, reads: 1, ..small() },
        &expect![[r#"
            a read sees all that was committed before it, 14 steps
              14.  member 1 is asked for a read
                   answers the read from index 1 on
        "#]],
    );
}

/// The answer to a read of the run before comes late, and is taken for that to a new one.
#[test]
fn a_read_taken_for_an_earlier_one_is_found() {
    finds(
        Mutant::SameBoot,
        Bounds { terms: 1, timeouts: 1, reads: 2, ..small() },
        &expect![[r#"
            a read sees all that was committed before it, 20 steps
              20.  member 2 receives from 1: ReadIndexResp term 2
                   answers the read from index 2 on
        "#]],
    );
}

#[test]
fn a_start_with_the_founders_alone_is_found() {
    finds(
        Mutant::OldMembers,
        Bounds { founders: Some(1), changes: 1, terms: 1, timeouts: 1, ..small() },
        &expect![[r#"
        who votes is who the state says, 3 steps
           3.  member 1 starts
    "#]],
    );
}

#[test]
fn a_log_begun_behind_a_state_that_is_lost_is_found() {
    finds(
        Mutant::InstallUnsynced,
        Bounds { founders: Some(1), changes: 1, beats: 1, terms: 1, timeouts: 1, ..small() },
        &expect![[r#"
            no member panics, 7 steps
               7.  member 2 starts
                   it panics: the log begins behind what the state holds
        "#]],
    );
}

#[test]
fn it_holds_with_two_power_cuts() {
    holds(&Bounds { terms: 1, crashes: 2, ..small() }, 2_358_937);
}

/// What was synced stays; the frame behind it does as a whole or not at all.
#[test]
fn a_power_cut_leaves_whole_frames() {
    let proposal = |term, number| Slot { term, value: Value::Proposal(number) };
    let state = |commit| Record::State { term: 1, vote: 2, commit };
    let mut disk = Disk::default();
    disk.write(&[Record::Entry(1, proposal(1, 1)), state(0)]);
    disk.sync();
    disk.write(&[Record::Entry(2, proposal(1, 2)), state(1)]);
    disk.write(&[Record::Entry(2, proposal(2, 3))]);
    let left: Vec<(Vec<Slot>, u64)> = disk.survivors().into_iter().map(|c| (c.log.slots, c.commit)).collect();
    assert_eq!(left, [(vec![proposal(1, 1)], 0), (vec![proposal(1, 1), proposal(2, 3)], 1)]);
}

/// A state survives being sent, and what a member is called makes no difference to what it says.
#[test]
fn states_travel() {
    let state = [
        Slot::founding(2),
        Slot { term: 2, value: Value::Nothing },
        Slot { term: 2, value: Value::Change(Change::AddLearner, 3) },
        Slot { term: 3, value: Value::Proposal(7) },
        Slot { term: 3, value: Value::Change(Change::Promote, 3) },
        Slot { term: 3, value: Value::Change(Change::Remove, 1) },
    ];
    assert_eq!(entry::unpack(&entry::pack(&state)), state);
    let entries = state.iter().skip(1).zip(2..).map(|(slot, index)| slot.entry(index));
    assert_eq!(entries.map(|entry| Slot::of(&entry)).collect::<Vec<_>>(), state[1..]);
    assert_eq!(entry::conf_state(&state).voters, [2, 3]);
    let exchanged = entry::unpack(&entry::repack(&state, &[2, 0, 1, 3, 4]));
    let mut voters = entry::conf_state(&exchanged).voters;
    voters.sort_unstable();
    assert_eq!(voters, [1, 2]);
}

/// Who is who makes no difference to a digest, what a member knows does.
#[test]
fn digests_follow_the_exchange_of_members() {
    let memo = Memo::new(&small());
    let born: Vec<_> = (1..=3).map(|id| memo.newborn(id, &small().start())).collect();
    assert_eq!(born[0].digests, born[2].digests, "newborn members are alike");
    let waited = |at: usize| memo.outcomes(&born[at], shell::Input::Timeout)[0].member.clone();
    assert_ne!(waited(0).digests[0], born[0].digests[0]);
    // Exchanging members 1 and 3 makes of what one became what the other became.
    let exchange = symmetry::exchanges(3).iter().position(|p| p[..3] == [2, 1, 0]).expect("an exchange");
    assert_eq!(waited(0).digests[exchange], waited(2).digests[0]);
    assert_ne!(waited(0).digests[0], waited(2).digests[0]);
}

/// Of five members there are as many exchanges as orders, none twice, and those of fewer leave the rest alone.
#[test]
fn exchanges_are_all_orders() {
    for (nodes, count) in [(1, 1), (2, 2), (3, 6), (4, 24), (5, 120)] {
        let exchanges = symmetry::exchanges(nodes);
        assert_eq!(exchanges.iter().collect::<std::collections::BTreeSet<_>>().len(), count);
        assert_eq!(exchanges[0], symmetry::IDENTITY);
        assert!(exchanges.iter().all(|exchange| exchange[nodes..] == symmetry::IDENTITY[nodes..]));
    }
}

/// Whoever of five waits in vain first and whoever next: it is one state.
#[test]
fn states_of_five_are_the_same_whoever_is_who() {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use cluster::{Action, State};
    use stateright::Model as _;

    let cluster = Cluster::new(Bounds { nodes: 5, crashes: 0, ..small() });
    let waited = |state: &State, who: usize| {
        let mut actions = Vec::new();
        cluster.actions(state, &mut actions);
        let waits =
            |action: &Action| matches!(action, Action::Take { at, input: shell::Input::Timeout, .. } if *at == who);
        let action = actions.into_iter().find(waits).expect("a timeout");
        cluster.next_state(state, action).expect("a state")
    };
    let mut fingerprints = std::collections::BTreeSet::new();
    let start = &cluster.init_states()[0];
    for (first, second) in (0..5).flat_map(|first| (0..5).map(move |second| (first, second))) {
        let mut hasher = DefaultHasher::new();
        waited(&waited(start, first), second).hash(&mut hasher);
        fingerprints.insert((first == second, hasher.finish()));
    }
    assert_eq!(fingerprints.len(), 2);
}

/// A term of five members.
#[test]
fn it_holds_with_five_members() {
    let bounds = Bounds { nodes: 5, terms: 1, timeouts: 1, crashes: 0, audit: true, in_flight: 8, ..small() };
    let report = holds(&bounds, 8_995);
    assert!(report.seen.contains(&p::ALL_APPLY));
}
