//! What the check finds, and that it finds what it should.

use super::properties as p;
use super::*;

use expect_test::{Expect, expect};

/// The bounds of the command.
fn small() -> Bounds {
    Bounds {
        members: 2,
        watchers: 1,
        writes: 3,
        compactions: 1,
        snapshots: 0,
        connections: 2,
        progress: 1,
        ring: 2,
        room: 1,
        mutant: None,
        threads: 2,
    }
}

fn holds(bounds: &Bounds, states: usize) -> Report {
    check(bounds, &mut std::io::sink()).holds_in(states)
}

#[test]
fn it_holds_while_a_client_goes_on_elsewhere() {
    let report = holds(&small(), 848_650);
    assert_eq!(report.unseen, [""; 0]);
    assert_eq!(report.seen, [p::FROM_DISK, p::TOGETHER, p::FULL, p::ELSEWHERE, p::OVERTAKEN, p::TOLD, p::TOLD_ALL]);
}

/// The state is another's before the ring begins anew.
#[test]
fn it_holds_while_snapshots_replace_the_state() {
    holds(&Bounds { writes: 2, snapshots: 1, ..small() }, 387_329);
}

/// Progress is told to both, or to each.
#[test]
fn it_holds_with_two_watchers() {
    holds(&Bounds { writes: 2, watchers: 2, connections: 1, ..small() }, 231_970);
}

/// A change falls out of the ring with the next one, and the client has room for two answers.
#[test]
fn it_holds_with_a_ring_of_one() {
    holds(&Bounds { members: 1, connections: 1, ring: 1, room: 2, writes: 4, ..small() }, 280_696);
}

/// The seeded bug is found: the property, the steps, and what the last of them say.
fn finds(mutant: Mutant, bounds: Bounds, expected: &Expect) {
    // One thread finds a shortest way.
    let report = check(&Bounds { mutant: Some(mutant), threads: 1, ..bounds }, &mut std::io::sink());
    expected.assert_eq(&report.short().expect("the seeded bug is found"));
}

/// One member, one stream, nothing of progress.
fn smaller() -> Bounds {
    Bounds { members: 1, connections: 1, progress: 0, ..small() }
}

#[test]
fn compaction_that_nobody_looks_for_again_is_found() {
    finds(
        Mutant::CheckOnce,
        smaller(),
        &expect![[r#"
        a watcher is given what the log has next for it, whole revisions, 12 steps
          12.  the client receives to watcher 1 from disk: a@3.0 b@3.1
    "#]],
    );
}

#[test]
fn a_revision_published_before_its_changes_is_found() {
    finds(
        Mutant::PublishFirst,
        smaller(),
        &expect![[r#"
        when nothing is left to be done, watchers have what is published, 10 steps
          10.  the client receives watcher 1 created at 2
    "#]],
    );
}

#[test]
fn a_ring_that_goes_on_over_a_snapshot_is_found() {
    finds(
        Mutant::KeepRing,
        Bounds { members: 2, snapshots: 1, ..smaller() },
        &expect![[r#"
        when nothing is left to be done, watchers have what is published, 10 steps
          10.  the client receives watcher 1 created at 2
    "#]],
    );
}

#[test]
fn a_split_revision_is_found() {
    finds(
        Mutant::SplitRevision,
        Bounds { ring: 1, ..smaller() },
        &expect![[r#"
        a watcher is given what the log has next for it, whole revisions, 11 steps
          11.  the client receives to watcher 1 from disk: a@3.0
    "#]],
    );
}

#[test]
fn progress_ahead_of_events_is_found() {
    finds(
        Mutant::ProgressNow,
        Bounds { progress: 1, ..smaller() },
        &expect![[r#"
        progress is told when everything up to it was given, 14 steps
          14.  the client receives to watcher 1: progress to 3
    "#]],
    );
}

/// Of a client that saw more elsewhere.
#[test]
fn progress_behind_what_was_seen_is_found() {
    finds(
        Mutant::ProgressBack,
        Bounds { progress: 1, ..smaller() },
        &expect![[r#"
        progress isn't told of less than a client has seen, 6 steps
           6.  the client receives to watcher 1: progress to 1
    "#]],
    );
}

#[test]
fn a_watcher_that_begins_later_than_it_is_told_is_found() {
    finds(
        Mutant::HeaderFirst,
        smaller(),
        &expect![[r#"
        when nothing is left to be done, watchers have what is published, 7 steps
           7.  the client receives watcher 1 created at 1
    "#]],
    );
}

#[test]
fn a_wake_up_that_is_lost_is_found() {
    finds(
        Mutant::LoseWake,
        smaller(),
        &expect![[r#"
        when nothing is left to be done, watchers have what is published, 11 steps
          11.  the client receives to watcher 1 from disk: a@2.0
    "#]],
    );
}

/// Two watchers at one place, and room for one answer.
#[test]
fn who_counts_as_told_without_room_is_found() {
    finds(
        Mutant::SkipFull,
        Bounds { watchers: 2, compactions: 0, ..smaller() },
        &expect![[r#"
        when nothing is left to be done, watchers have what is published, 20 steps
          20.  the client receives to watcher 1 with others: a@3.0 b@3.1
    "#]],
    );
}

#[test]
fn who_counts_as_told_of_more_than_there_was_room_for_is_found() {
    finds(
        Mutant::CountAll,
        Bounds { compactions: 0, ring: 4, ..smaller() },
        &expect![[r#"
        when nothing is left to be done, watchers have what is published, 15 steps
          15.  the client receives to watcher 1 with others: a@3.0 b@3.1
    "#]],
    );
}
