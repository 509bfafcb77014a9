//! What the check finds, and that it finds what it should.

use super::properties as p;
use super::*;

use expect_test::{Expect, expect};

/// The bounds of the command.
fn small() -> Bounds {
    Bounds {
        schedulers: 2,
        pods: 2,
        nodes: 2,
        room: 1,
        losses: 1,
        deletions: 0,
        departures: 0,
        plain: 0,
        early: 1,
        foreign: false,
        mutant: None,
        threads: 2,
    }
}

fn holds(bounds: &Bounds, states: usize) -> Report {
    check(bounds, &mut std::io::sink()).holds_in(states)
}

#[test]
fn it_holds_while_a_request_goes_unanswered() {
    let report = holds(&small(), 605_387);
    assert_eq!(report.unseen, [""; 0]);
    assert_eq!(report.seen, [p::ALL_PLACED, p::FENCED, p::REFUSED, p::LATE, p::ASKED_AGAIN]);
}

/// One has to wait.
#[test]
fn it_holds_with_more_pods_than_room() {
    let report = holds(&Bounds { pods: 3, losses: 0, ..small() }, 230_221);
    assert_eq!(report.unseen, [""; 0]);
    assert_eq!(report.seen, [p::ALL_PLACED, p::FENCED, p::REFUSED]);
}

/// A scheduler has several bindings for one node.
#[test]
fn it_holds_on_a_node_with_room_for_two() {
    holds(&Bounds { pods: 3, nodes: 1, room: 2, losses: 0, ..small() }, 40_065);
}

#[test]
fn it_holds_while_pods_are_deleted() {
    holds(&Bounds { losses: 0, deletions: 1, ..small() }, 355_205);
}

#[test]
fn it_holds_while_a_node_goes() {
    holds(&Bounds { pods: 1, departures: 1, ..small() }, 55_360);
}

/// By kubectl, or kube-scheduler.
#[test]
fn it_holds_while_somebody_binds_who_tells_nothing() {
    holds(&Bounds { losses: 0, plain: 1, ..small() }, 457_091);
}

/// Without fences one scheduler does no harm, whatever goes unanswered.
#[test]
fn it_holds_for_one_scheduler_on_any_apiserver() {
    holds(&Bounds { schedulers: 1, pods: 3, losses: 2, foreign: true, ..small() }, 8_337);
    holds(&Bounds { schedulers: 1, pods: 3, losses: 1, departures: 1, foreign: true, ..small() }, 22_761);
    holds(&Bounds { schedulers: 1, losses: 2, deletions: 1, foreign: true, ..small() }, 81_552);
}

/// Two do: that is what the fence is for.
#[test]
fn two_schedulers_need_the_fence() {
    let bounds = Bounds { losses: 0, foreign: true, threads: 1, ..small() };
    let report = check(&bounds, &mut std::io::sink());
    expect![[r#"
        no scheduler's binding gives a node more than it has room for, 6 steps
           6.  an apiserver writes p2 to a, knowing all up to 1
               revision 3: p2 is on a
    "#]]
    .assert_eq(&report.short().expect("nothing keeps them apart"));
}

/// The seeded bug is found: the property, the steps, and what the last of them say.
fn finds(mutant: Mutant, bounds: Bounds, expected: &Expect) {
    // One thread finds a shortest way.
    let report = check(&Bounds { mutant: Some(mutant), threads: 1, ..bounds }, &mut std::io::sink());
    expected.assert_eq(&report.short().expect("the seeded bug is found"));
}

/// Nothing goes unanswered.
fn answered() -> Bounds {
    Bounds { losses: 0, ..small() }
}

/// One scheduler, and somebody beside it.
fn beside() -> Bounds {
    Bounds { schedulers: 1, plain: 1, ..answered() }
}

#[test]
fn a_fence_that_is_not_asked_is_found() {
    finds(
        Mutant::NoFence,
        answered(),
        &expect![[r#"
            no scheduler's binding gives a node more than it has room for, 6 steps
               6.  an apiserver writes p2 to a, knowing all up to 1
                   revision 3: p2 is on a
        "#]],
    );
}

#[test]
fn a_plain_binding_that_moves_no_fence_is_found() {
    finds(
        Mutant::PlainUnseen,
        beside(),
        &expect![[r#"
            no scheduler's binding gives a node more than it has room for, 6 steps
               6.  an apiserver writes p1 to a, knowing all up to 1
                   revision 3: p1 is on a
        "#]],
    );
}

#[test]
fn a_transaction_that_does_not_compare_the_pod_is_found() {
    finds(
        Mutant::NoCompare,
        answered(),
        &expect![[r#"
            no pod is bound twice, 7 steps
               7.  an apiserver writes p2 to a, knowing all up to 1
                   revision 3: p2 is on a
        "#]],
    );
}

/// Where there is no fence.
#[test]
fn a_binding_that_counts_as_failed_without_an_answer_is_found() {
    finds(
        Mutant::ForgetUnanswered,
        Bounds { schedulers: 1, foreign: true, ..small() },
        &expect![[r#"
            no scheduler's binding gives a node more than it has room for, 7 steps
               7.  an apiserver writes p2 to a, knowing all up to 1
                   revision 3: p2 is on a
        "#]],
    );
}

#[test]
fn a_watch_that_says_it_is_further_is_found() {
    finds(
        Mutant::ReachEarly,
        Bounds { pods: 3, ..answered() },
        &expect![[r#"
            no scheduler's binding gives a node more than it has room for, 10 steps
              10.  an apiserver writes p3 to b, knowing all up to 3
                   revision 4: p3 is on b
        "#]],
    );
}

/// The decision was another's, so to say: it knew less.
#[test]
fn a_binding_that_tells_what_its_decision_did_not_know_is_found() {
    finds(
        Mutant::KnownWhenSent,
        Bounds { nodes: 1, ..small() },
        &expect![[r#"
            no scheduler's binding gives a node more than it has room for, 10 steps
              10.  an apiserver writes p2 to a, knowing all up to 2
                   revision 3: p2 is on a
        "#]],
    );
}

#[test]
fn an_answer_with_a_later_revision_is_found() {
    finds(
        Mutant::AnswerLater,
        Bounds { pods: 3, nodes: 1, room: 2, ..answered() },
        &expect![[r#"
            no scheduler's binding gives a node more than it has room for, 11 steps
              11.  an apiserver writes p2 to a, knowing all up to 3
                   revision 4: p2 is on a
        "#]],
    );
}

#[test]
fn a_refusal_that_nobody_hears_of_is_found() {
    finds(
        Mutant::LoseRefusal,
        beside(),
        &expect![[r#"
            when nothing is left to be done, no node has room for a pod that waits, 7 steps
               7.  an apiserver writes p1 to a, knowing all up to 1
        "#]],
    );
}

#[test]
fn a_watch_that_does_not_say_how_far_it_is_is_found() {
    finds(
        Mutant::NeverReach,
        beside(),
        &expect![[r#"
            when nothing is left to be done, no node has room for a pod that waits, 8 steps
               8.  scheduler 1 is told that the node was given a pod at 2
        "#]],
    );
}

#[test]
fn a_watch_that_leaves_out_a_binding_is_found() {
    finds(
        Mutant::SkipBound,
        Bounds { pods: 1, schedulers: 1, ..answered() },
        &expect![[r#"
            when nothing is left to be done, no room is kept for a pod that isn't there, 5 steps
               5.  scheduler 1 is told that it is bound
        "#]],
    );
}
