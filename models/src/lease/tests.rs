//! What the check finds, and that it finds what it should.

use super::properties as p;
use super::*;

use expect_test::{Expect, expect};

/// The bounds of the command.
fn small() -> Bounds {
    Bounds {
        members: 3,
        leases: 1,
        ttl: 2,
        seconds: 3,
        skew: 25,
        checkpoint: 1,
        elections: 2,
        renewals: 1,
        lag: false,
        in_flight: 3,
        mutant: None,
        threads: 2,
    }
}

fn holds(bounds: &Bounds, states: usize) -> Report {
    check(bounds, &mut std::io::sink()).holds_in(states)
}

#[test]
fn it_holds_while_leaders_change() {
    let report = holds(&small(), 557_852);
    assert_eq!(report.unseen, [""; 0]);
    assert_eq!(report.seen, [p::EXPIRES, p::RENEWED, p::FROM_CHECKPOINT, p::TAKEN_BACK, p::IN_VAIN]);
}

/// A renewal may wait while a checkpoint follows on the one that it takes back.
#[test]
fn it_holds_with_two_renewals() {
    holds(&Bounds { members: 2, elections: 1, renewals: 2, seconds: 4, ..small() }, 318_682);
}

/// The state is ahead of what the lessor is told of it.
#[test]
fn it_holds_while_lessors_are_told_late() {
    holds(&Bounds { members: 2, elections: 1, lag: true, seconds: 4, ..small() }, 176_339);
}

/// One command ends both, or one of them.
#[test]
fn it_holds_with_two_leases() {
    let bounds = Bounds { members: 2, leases: 2, elections: 1, renewals: 0, in_flight: 4, ..small() };
    let report = holds(&bounds, 50_183);
    assert!(report.seen.contains(&p::EXPIRES));
}

/// The seeded bug is found: the property, the steps, and what the last of them say.
fn finds(mutant: Mutant, expected: &Expect) {
    // One thread finds a shortest way.
    let bounds = Bounds { members: 2, elections: 1, mutant: Some(mutant), threads: 1, ..small() };
    let report = check(&bounds, &mut std::io::sink());
    expected.assert_eq(&report.short().expect("the seeded bug is found"));
}

/// Another leads, and has given the lease its time before.
#[test]
fn a_renewal_answered_from_memory_is_found() {
    finds(
        Mutant::AnswerAtOnce,
        &expect![[r#"
        who answers for leases gives each as long as its holder was told, 7 steps
           7.  member 1 (slow) has waited, and answers
    "#]],
    );
}

#[test]
fn a_renewal_of_an_earlier_reign_is_found() {
    finds(
        Mutant::ForgetReign,
        &expect![[r#"
        who answers for leases gives each as long as its holder was told, 8 steps
           8.  member 1 (slow) has waited, and answers
    "#]],
    );
}

#[test]
fn a_checkpoint_that_the_lessor_forgets_is_found() {
    finds(
        Mutant::ForgetProposed,
        &expect![[r#"
        who answers for leases gives each as long as its holder was told, 10 steps
          10.  the term's first entry@2 is committed
    "#]],
    );
}

#[test]
fn an_end_that_is_proposed_twice_is_found() {
    finds(
        Mutant::ForgetEnding,
        &expect![[r#"
        a lease lives as long as its holder was told, 9 steps
           9.  member 1 (fast) has waited, and answers
    "#]],
    );
}

#[test]
fn a_lessor_that_takes_over_too_early_is_found() {
    finds(
        Mutant::LeadEarly,
        &expect![[r#"
        a lease lives as long as its holder was told, 10 steps
          10.  member 1 (fast) has waited, and answers
    "#]],
    );
}

#[test]
fn an_end_decided_by_a_deposed_leader_is_found() {
    finds(
        Mutant::ForwardExpiry,
        &expect![[r#"
        a lease is ended by the leader of the entry's term, 8 steps
           8.  the end of lease 1@2 is committed
    "#]],
    );
}
