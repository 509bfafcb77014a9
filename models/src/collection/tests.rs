//! What the check finds, and that it finds what it should.

use super::properties as p;
use super::*;

use expect_test::{Expect, expect};

/// The bounds of the command.
fn small() -> Bounds {
    Bounds { sets: 2, shared: false, deletions: 1, recreations: 1, unlinks: 0, relabels: 0, mutant: None, threads: 2 }
}

fn holds(bounds: &Bounds, states: usize) -> Report {
    check(bounds, &mut std::io::sink()).holds_in(states)
}

#[test]
fn it_holds_while_a_set_is_deleted_and_made_anew() {
    let report = holds(&small(), 43_733);
    assert_eq!(report.unseen, [""; 0]);
    assert_eq!(report.seen, [p::FREED, p::COLLECTS, p::WAITED, p::READOPTED, p::UNCONFIRMED]);
}

#[test]
fn it_holds_while_somebody_takes_owners_off() {
    let report = holds(&Bounds { unlinks: 1, recreations: 0, ..small() }, 349_649);
    assert_eq!(report.unseen, [""; 0]);
}

/// Of two owners one is deleted: the pod stays, whichever way.
#[test]
fn it_holds_while_one_of_two_owners_goes() {
    let report = holds(&Bounds { shared: true, recreations: 0, ..small() }, 7_478);
    assert_eq!(report.seen, [p::WAITED, p::UNCONFIRMED, p::TAKEN_OFF]);
}

/// A set is deleted, and the one that was made in its place.
#[test]
fn it_holds_while_two_sets_are_deleted() {
    let report = holds(&Bounds { sets: 1, deletions: 2, ..small() }, 105_586);
    assert_eq!(report.seen, [p::FREED, p::COLLECTS, p::WAITED, p::READOPTED, p::UNCONFIRMED]);
}

/// A set lets its pod go, and takes it back.
#[test]
fn it_holds_while_labels_change() {
    holds(&Bounds { relabels: 1, recreations: 0, ..small() }, 63_219);
}

/// The seeded bug is found: the property, the steps, and what the last of them say.
fn finds(mutant: Mutant, bounds: Bounds, expected: &Expect) {
    // One thread finds a shortest way.
    let report = check(&Bounds { mutant: Some(mutant), threads: 1, ..bounds }, &mut std::io::sink());
    expected.assert_eq(&report.short().expect("the seeded bug is found"));
}

fn by_hand() -> Bounds {
    Bounds { unlinks: 1, ..small() }
}

#[test]
fn a_deletion_whatever_the_object_became_is_found() {
    finds(
        Mutant::UnguardedDelete,
        by_hand(),
        &expect![[r#"
        what is collected has owners, and each is gone or waits for it to go, 5 steps
           5.  the collector, about p1, deletes p (p1) at version 3, Foreground
               version 6: pod p (p1), being deleted: foregroundDeletion
    "#]],
    );
}

#[test]
fn a_list_written_over_another_is_found() {
    finds(
        Mutant::UnguardedPatch,
        by_hand(),
        &expect![[r#"
        nobody takes off an owner that lives, but that owner's controller, 8 steps
           8.  the controller of s (s1) patches p: {"uid":"p1","resourceVersion":"4","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"s","uid":"s1"}]}
               version 6: pod p (p1), owned by s1 as its controller
    "#]],
    );
}

#[test]
fn an_adoption_by_a_set_that_is_gone_is_found() {
    finds(
        Mutant::NoConfirm,
        small(),
        &expect![[r#"
        an owner that leaves its dependents goes after all of them are free, 9 steps
           9.  the collector, about r1, patches r: {"uid":"r1","resourceVersion":"4","finalizers":null}
               version 7: r1 is gone
    "#]],
    );
}

#[test]
fn an_owner_known_by_its_name_is_found() {
    finds(
        Mutant::ByName,
        small(),
        &expect![[r#"
        when nothing is left to be done, nothing is left whose owners are all gone, 9 steps
           9.  the collector, about p1, asks whether r1 is there
    "#]],
    );
}

#[test]
fn an_owner_that_nobody_asked_for_is_found() {
    finds(
        Mutant::NoCheck,
        small(),
        &expect![[r#"
        what is collected has owners, and each is gone or waits for it to go, 18 steps
          18.  the collector, about p1, deletes p (p1) at version 8, Background
               version 9: p1 is gone
    "#]],
    );
}

#[test]
fn a_collector_that_begins_before_all_is_listed_is_found() {
    finds(
        Mutant::LookEarly,
        small(),
        &expect![[r#"
        an owner that leaves its dependents goes after all of them are free, 4 steps
           4.  the collector, about r1, patches r: {"uid":"r1","resourceVersion":"4","finalizers":null}
               version 5: r1 is gone
    "#]],
    );
}

#[test]
fn an_owner_let_go_before_its_dependents_is_found() {
    finds(
        Mutant::FinalizerFirst,
        small(),
        &expect![[r#"
        an owner that leaves its dependents goes after all of them are free, 4 steps
           4.  the collector, about r1, patches r: {"uid":"r1","resourceVersion":"4","finalizers":null}
               version 5: r1 is gone
    "#]],
    );
}

#[test]
fn a_pod_that_nobody_is_told_of_is_found() {
    finds(
        Mutant::DeafController,
        Bounds { sets: 1, ..by_hand() },
        &expect![[r#"
        when nothing is left to be done, no pod is alone that a set selects, 4 steps
           4.  the collector looks at r1
    "#]],
    );
}
