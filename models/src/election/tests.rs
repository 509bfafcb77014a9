//! What the check finds, and that it finds what it should.

use super::properties as p;
use super::*;

use expect_test::{Expect, expect};

/// The bounds of the command.
fn small() -> Bounds {
    Bounds {
        candidates: 2,
        seconds: 4,
        skew: 20,
        losses: 0,
        crashes: 1,
        releases: 1,
        stale: 0,
        writes: 0,
        write_max: 0,
        mutant: None,
        threads: 2,
    }
}

/// Nothing but time and delays.
fn calm() -> Bounds {
    Bounds { crashes: 0, releases: 0, ..small() }
}

fn holds(bounds: &Bounds, states: usize) -> Report {
    check(bounds, &mut std::io::sink()).holds_in(states)
}

#[test]
fn it_holds_while_one_is_killed_and_one_ends() {
    let report = holds(&small(), 875_546);
    assert_eq!(report.unseen, [""; 0]);
    assert_eq!(report.seen, [p::UNAWARE, p::TAKEN_OVER, p::HANDED_OVER]);
}

#[test]
fn it_holds_while_a_request_goes_unanswered() {
    let report = holds(&Bounds { losses: 1, ..calm() }, 204_929);
    assert_eq!(report.unseen, [""; 0]);
    assert_eq!(report.seen, [p::UNAWARE, p::STOPPED, p::LATE_REFUSED, p::LATE_WRITTEN]);
}

/// Whatever is read counts only if it is still so.
#[test]
fn it_holds_while_the_lease_is_read_as_it_was() {
    holds(&Bounds { stale: 2, ..calm() }, 107_526);
}

#[test]
fn it_holds_for_three() {
    holds(&Bounds { candidates: 3, seconds: 3, ..calm() }, 424_585);
}

/// Clocks that agree leave a second between a reign's end and the next: so long may a write be on its way.
#[test]
fn what_is_written_in_a_reign_arrives_in_it_or_between() {
    holds(&Bounds { skew: 0, seconds: 5, writes: 1, write_max: 1, ..calm() }, 203_859);
}

/// What the election can't help: a write that is on its way for longer.
#[test]
fn a_write_that_takes_longer_arrives_under_the_next() {
    let bounds = Bounds { skew: 0, seconds: 5, writes: 1, write_max: 5, threads: 1, ..calm() };
    let report = check(&bounds, &mut std::io::sink());
    expect![[r#"
        what one wrote while it led doesn't arrive while another may act, 15 steps
          15.  a write of a1 (slow) arrives
    "#]]
    .assert_eq(&report.short().expect("nothing calls it back"));
}

/// The ratio of the fastest clock to the slowest is above that of the lease to the deadline.
#[test]
fn clocks_that_differ_by_more_are_too_much() {
    let report = check(&Bounds { skew: 40, threads: 1, ..calm() }, &mut std::io::sink());
    expect![[r#"
        who may act holds the lease, 12 steps
          12.  b1 (slow) is answered: written, version 1: held by b1, after 0 changes
    "#]]
    .assert_eq(&report.short().expect("two act"));
}

/// The seeded bug is found: the property, the steps, and what the last of them say.
fn finds(mutant: Mutant, bounds: Bounds, expected: &Expect) {
    // One thread finds a shortest way.
    let report = check(&Bounds { mutant: Some(mutant), threads: 1, ..bounds }, &mut std::io::sink());
    expected.assert_eq(&report.short().expect("the seeded bug is found"));
}

#[test]
fn a_lease_written_whatever_it_says_is_found() {
    finds(
        Mutant::NoCompare,
        calm(),
        &expect![[r#"
        each new holder counts, and nothing else, 14 steps
          14.  carried out for a1: for the lease held by a1, after 0 changes, if it is at version 1
    "#]],
    );
}

#[test]
fn a_clock_compared_with_another_is_found() {
    finds(
        Mutant::RemoteClock,
        calm(),
        &expect![[r#"
        who may act holds the lease, 10 steps
          10.  b1 (slow) is answered: written, version 1: held by b1, after 0 changes
    "#]],
    );
}

#[test]
fn a_lease_taken_over_too_early_is_found() {
    finds(
        Mutant::StealEarly,
        calm(),
        &expect![[r#"
        who may act holds the lease, 10 steps
          10.  carried out for b1: for the lease held by b1, after 1 changes, if it is at version 1
    "#]],
    );
}

#[test]
fn a_reign_that_counts_from_the_answer_is_found() {
    finds(
        Mutant::FromAnswer,
        calm(),
        &expect![[r#"
        who may act holds the lease, 12 steps
          12.  carried out for a1: for the lease held by a1, after 1 changes, if it is at version 1
    "#]],
    );
}

#[test]
fn a_process_that_looks_at_no_clock_is_found() {
    finds(
        Mutant::NeverStop,
        calm(),
        &expect![[r#"
        who may act holds the lease, 12 steps
          12.  carried out for b1: for the lease held by b1, after 1 changes, if it is at version 1
    "#]],
    );
}

#[test]
fn two_of_the_same_name_are_found() {
    finds(
        Mutant::SameName,
        calm(),
        &expect![[r#"
        at most one may act, 8 steps
           8.  host (fast) is answered: written, version 2: held by host, after 0 changes
    "#]],
    );
}

#[test]
fn a_refusal_that_is_taken_for_a_lease_is_found() {
    finds(
        Mutant::RefusedIsWritten,
        calm(),
        &expect![[r#"
        at most one may act, 8 steps
           8.  b1 (fast) is answered: refused
    "#]],
    );
}

#[test]
fn an_answer_with_a_later_version_is_found() {
    finds(
        Mutant::AnswerLater,
        calm(),
        &expect![[r#"
        each new holder counts, and nothing else, 16 steps
          16.  carried out for a1: for the lease held by a1, after 0 changes, if it is at version 2
    "#]],
    );
}

#[test]
fn a_release_before_the_end_is_found() {
    finds(
        Mutant::ReleaseFirst,
        Bounds { releases: 1, ..calm() },
        &expect![[r#"
        who may act holds the lease, 6 steps
           6.  carried out for a1: for the lease held by nobody, after 0 changes, if it is at version 1
    "#]],
    );
}
