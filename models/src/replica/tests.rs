//! What the check finds, and that it finds what it should.

use super::disk::{Disk, Record, Slot};
use super::memo::Memo;
use super::properties as p;
use super::*;

use expect_test::{Expect, expect};

/// Bounds of a check that takes seconds.
fn small() -> Bounds {
    Bounds {
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
        in_flight: 6,
        mutant: None,
        audit: false,
        threads: 2,
    }
}

/// Everything holds, in so many states; a changed number means that the driver, raft-rs or the
/// model behaves otherwise than before.
fn holds(bounds: &Bounds, states: usize) -> Report {
    let report = check(bounds, &mut std::io::sink());
    assert!(report.holds(), "{:#?}", report.violations);
    assert_eq!(report.states, states);
    report
}

#[test]
fn it_holds_with_a_power_cut_between_any_two_effects() {
    let report = holds(&Bounds { audit: true, ..small() }, 1_152_691);
    assert_eq!(report.seen, [p::COMMITS, p::ALL_APPLY, p::SUCCESSION, p::REPLACED]);
    assert!(report.audit.0 > 5_000, "{:?}", report.audit);
}

/// Inputs come while steps wait for the disk: the order in which production works under load.
#[test]
fn it_holds_while_disks_stall() {
    let report = holds(&Bounds { crashes: 0, stalls: 2, ..small() }, 507_763);
    assert_eq!(report.unseen, [""; 0]);
    holds(&Bounds { terms: 1, timeouts: 1, proposals: 2, stalls: 2, ..small() }, 435_909);
}

/// Heartbeats pass, a leader looks for its peers and steps down without them.
#[test]
fn it_holds_while_a_leader_s_time_passes() {
    holds(&Bounds { terms: 1, timeouts: 1, beats: 2, ..small() }, 586_318);
}

/// Each member is asked for reads, whoever leads, and the power is cut meanwhile.
#[test]
fn reads_see_what_was_committed_before_them() {
    let report = holds(&Bounds { crashes: 0, reads: 1, audit: true, ..small() }, 992_758);
    assert_eq!(report.unseen, [""; 0]);
    holds(&Bounds { terms: 1, timeouts: 1, reads: 1, ..small() }, 258_815);
}

#[test]
fn it_holds_while_messages_come_twice_and_overtake() {
    holds(&Bounds { crashes: 0, duplicates: 1, overtakings: 1, ..small() }, 1_372_530);
}

/// Nobody waits in vain for the second leader: the first hands over to it.
#[test]
fn a_leader_hands_over() {
    let report = holds(&Bounds { terms: 3, timeouts: 1, crashes: 0, transfers: 1, ..small() }, 6_708);
    assert!(report.seen.contains(&p::SUCCESSION));
    holds(&Bounds { crashes: 0, transfers: 1, audit: true, ..small() }, 379_434);
}

/// The seeded bug is found: the property, the steps, and what the last of them say.
fn finds(mutant: Mutant, bounds: Bounds, expected: &Expect) {
    // One thread finds a shortest way.
    let report = check(&Bounds { mutant: Some(mutant), threads: 1, ..bounds }, &mut std::io::sink());
    let (property, path) = report.violations.first().expect("the seeded bug is found");
    let is_step = |line: &&String| line.as_bytes().get(4) == Some(&b'.');
    let steps = path.iter().filter(is_step).count();
    let last = path.iter().rposition(|line| is_step(&line)).unwrap_or(0);
    let end = path.iter().position(|line| line == "in the end").unwrap_or(path.len());
    expected.assert_eq(&format!("{property}, {steps} steps\n{}\n", path[last..end].join("\n")));
}

#[test]
fn an_answer_before_its_sync_is_found() {
    finds(
        Mutant::ReplyBeforeDurable,
        small(),
        &expect![[r#"
            what is committed is durable on a majority, 7 steps
               7.  member 1 receives from 2: AppendResponse term 1 index 1
                   sends to 2: Append term 1 after 1@1 [] commit 1
                   applies 1=-@1
                   writes term 1 vote 1 commit 1
        "#]],
    );
}

#[test]
fn a_lost_vote_is_found() {
    finds(
        Mutant::LoseVote,
        small(),
        &expect![[r#"
            a term has one leader, 13 steps
              13.  member 1 receives from 2: RequestVoteResponse term 1
                   leads term 1
                   sends to 2: Append term 1 after 0@0 [-@1] commit 0
                   sends to 3: Append term 1 after 0@0 [-@1] commit 0
                   writes 1=-@1
                   syncs
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
               7.  member 1 receives from 2: AppendResponse term 1 index 1
                   sends to 2: Append term 1 after 1@1 [] commit 1
                   applies 1=-@1
                   the power is cut; its disk holds [] term 1 vote 1 commit 0, its state applied 0
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
              14.  member 1 receives from 2: Append term 2 after 0@0 [-@2] commit 0
                   writes 1=-@2, term 2 vote 0 commit 0
                   syncs
                   sends to 2: AppendResponse term 2 index 1
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
                   it panics: applied(1) is out of range [prev_applied(0), min(committed(0), persisted(1))], raft_id: 1
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
                   answers the read from index 0 on
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
              20.  member 2 receives from 1: ReadIndexResp term 1
                   answers the read from index 1 on
        "#]],
    );
}

/// Not seeded but found once: a member that has never written anything gets its first entries, and
/// the power cut keeps them without the record behind them that says their term. The member
/// starts in term 0 with entries of term 1, and raft-rs can't refuse a vote in term 0.
#[test]
fn torn_frames_are_found() {
    let bounds = Bounds { terms: 1, crashes: 2, threads: 1, mutant: Some(Mutant::TearFrames), ..small() };
    let report = check(&bounds, &mut std::io::sink());
    let (property, path) = report.violations.first().expect("the seeded bug is found");
    assert_eq!(*property, p::NO_PANIC);
    assert!(path.iter().any(|line| line.contains("term should be set when sending")), "{path:#?}");
}

#[test]
fn it_holds_with_two_power_cuts() {
    holds(&Bounds { terms: 1, crashes: 2, ..small() }, 2_836_696);
}

/// What was synced stays; the frame behind it does as a whole or not at all.
#[test]
fn a_power_cut_leaves_whole_frames() {
    let slot = |term, value| Slot { term, value };
    let mut disk = Disk::default();
    disk.write(&[Record::Entry(1, slot(1, 0)), Record::State { term: 1, vote: 2, commit: 0 }]);
    disk.sync();
    disk.write(&[Record::Entry(2, slot(1, 1)), Record::State { term: 1, vote: 2, commit: 1 }]);
    disk.write(&[Record::Entry(2, slot(2, 0))]);
    let left = |record_by_record| -> Vec<(Vec<Slot>, u64)> {
        disk.survivors(record_by_record).into_iter().map(|c| (c.slots, c.commit)).collect()
    };
    let one = vec![slot(1, 0)];
    let two = vec![slot(1, 0), slot(1, 1)];
    let replaced = vec![slot(1, 0), slot(2, 0)];
    assert_eq!(left(false), [(one.clone(), 0), (replaced.clone(), 1)]);
    assert_eq!(left(true), [(one, 0), (two.clone(), 0), (two, 1), (replaced, 1)]);
}

/// Who is who makes no difference to a digest, what a member knows does.
#[test]
fn digests_follow_the_exchange_of_members() {
    let memo = Memo::new(None, false, false);
    let born: Vec<_> = (1..=3).map(|id| memo.newborn(id)).collect();
    assert_eq!(born[0].digests, born[2].digests, "newborn members are alike");
    let waited = |at: usize| memo.outcomes(born[at], shell::Input::Timeout)[0].member;
    assert_ne!(waited(0).digests[0], born[0].digests[0]);
    // Exchanging members 1 and 3 makes of what one became what the other became.
    let exchange = symmetry::PERMUTATIONS.iter().position(|p| *p == [2, 1, 0]).expect("an exchange");
    assert_eq!(waited(0).digests[exchange], waited(2).digests[0]);
    assert_ne!(waited(0).digests[0], waited(2).digests[0]);
}
