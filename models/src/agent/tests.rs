//! What the check finds, and that it finds what it should.

use super::properties as p;
use super::*;

use expect_test::{Expect, expect};

/// The bounds of the command.
fn small() -> Bounds {
    Bounds {
        pods: 2,
        containers: 1,
        policy: Policy::Always,
        crashes: 1,
        reboots: 0,
        losses: 0,
        failures: 0,
        exits: 1,
        deletions: 1,
        forced: 0,
        looks: 0,
        mutant: None,
        threads: 2,
    }
}

/// Nothing ends by itself.
fn calm() -> Bounds {
    Bounds { crashes: 0, exits: 0, ..small() }
}

/// Everything holds, in so many states; a changed number means that the machine or the model behave otherwise than before.
fn holds(bounds: &Bounds, states: usize) -> Report {
    let report = check(bounds, &mut std::io::sink());
    assert!(report.holds(), "{:#?}", report.violations);
    assert_eq!(report.states, states);
    assert_eq!(report.unseen, [""; 0]);
    report
}

#[test]
fn it_holds_while_the_agent_is_killed() {
    let report = holds(&small(), 960_325);
    assert_eq!(report.seen, [p::RUNS, p::NEXT_RUNS, p::KEPT, p::LATE, p::AGAIN]);
}

#[test]
fn it_holds_for_pods_that_end() {
    let report = holds(&Bounds { policy: Policy::Never, ..small() }, 538_640);
    assert_eq!(report.seen, [p::RUNS, p::NEXT_RUNS, p::KEPT, p::LATE, p::ENDED]);
}

#[test]
fn it_holds_while_pods_go_without_grace() {
    let report = holds(&Bounds { forced: 1, deletions: 0, exits: 0, ..small() }, 505_326);
    assert_eq!(report.seen, [p::RUNS, p::NEXT_RUNS, p::KEPT, p::LATE, p::ADOPTED]);
}

#[test]
fn it_holds_while_calls_fail_or_go_unanswered() {
    holds(&Bounds { failures: 1, ..calm() }, 15_134);
    holds(&Bounds { losses: 1, ..calm() }, 151_987);
}

#[test]
fn it_holds_while_observations_come_late() {
    holds(&Bounds { looks: 1, ..calm() }, 46_086);
}

#[test]
fn it_holds_while_the_machine_starts_anew() {
    holds(&Bounds { reboots: 1, crashes: 0, ..small() }, 191_134);
    holds(&Bounds { reboots: 1, crashes: 0, policy: Policy::OnFailure, ..small() }, 149_361);
    holds(&Bounds { reboots: 1, crashes: 0, policy: Policy::Never, ..small() }, 71_164);
    holds(&Bounds { reboots: 1, exits: 0, pods: 1, ..small() }, 51_225);
}

/// A creation that nobody waits for takes effect when its attempt's record was removed, so its name is free again.
#[test]
fn it_holds_while_a_name_is_free_again() {
    holds(&Bounds { pods: 1, deletions: 0, exits: 2, ..small() }, 8_012);
}

#[test]
fn it_holds_with_two_containers() {
    holds(&Bounds { containers: 2, pods: 1, exits: 0, ..small() }, 102_898);
}

/// The seeded bug is found: the property, the steps, and what the last of them say.
fn finds(mutant: Mutant, bounds: Bounds, expected: &Expect) {
    // One thread finds a shortest way.
    let report = check(&Bounds { mutant: Some(mutant), threads: 1, ..bounds }, &mut std::io::sink());
    expected.assert_eq(&report.short().expect("the seeded bug is found"));
}

#[test]
fn an_agent_that_acts_before_it_knows_what_runs_is_found() {
    finds(
        Mutant::ActEarly,
        small(),
        &expect![[r#"
            no container loses its sandbox, its volumes or its record while it runs, 12 steps
              12.  takes effect: clean up of A
        "#]],
    );
}

#[test]
fn an_agent_that_takes_unlisted_pods_for_nobodys_is_found() {
    finds(
        Mutant::AdoptEarly,
        small(),
        &expect![[r#"
            when nothing is left to be done, every wanted pod runs or has ended, and says so, 14 steps
              14.  answered: clean up of A
        "#]],
    );
}

#[test]
fn an_agent_that_leaves_unknown_pods_alone_is_found() {
    finds(
        Mutant::NeverAdopt,
        Bounds { forced: 1, deletions: 0, pods: 1, ..small() },
        &expect![[r#"
            when nothing is left to be done, nothing is left of pods that aren't wanted, 9 steps
               9.  the API's list reaches the agent
        "#]],
    );
}

#[test]
fn an_observation_from_before_an_action_is_found() {
    finds(
        Mutant::StaleLook,
        Bounds { looks: 1, ..calm() },
        &expect![[r#"
            no container of a pod runs twice, or could, 13 steps
              13.  takes effect: create c 1 in sandbox 0 of A
        "#]],
    );
}

#[test]
fn a_runtime_that_gives_a_name_twice_is_found() {
    finds(
        Mutant::Unreserved,
        Bounds { pods: 1, exits: 0, deletions: 0, ..small() },
        &expect![[r#"
            no container of a pod runs twice, or could, 11 steps
              11.  takes effect, though nobody waits for it: create c 0 in sandbox 0 of A
        "#]],
    );
}

#[test]
fn a_deletion_that_names_no_uid_is_found() {
    finds(
        Mutant::DeleteByName,
        Bounds { exits: 0, ..small() },
        &expect![[r#"
            no object is deleted that isn't to be, 15 steps
              15.  takes effect, though nobody waits for it: delete the object of A
        "#]],
    );
}

#[test]
fn a_status_that_names_no_uid_is_found() {
    finds(
        Mutant::StatusByName,
        Bounds { policy: Policy::Never, crashes: 0, forced: 1, deletions: 0, ..small() },
        &expect![[r#"
            when nothing is left to be done, every wanted pod runs or has ended, and says so, 23 steps
              23.  answered: clean up of A
        "#]],
    );
}

#[test]
fn an_agent_that_nobody_wakes_is_found() {
    finds(
        Mutant::NeverWake,
        Bounds { pods: 1, crashes: 0, exits: 2, deletions: 0, ..small() },
        &expect![[r#"
            when nothing is left to be done, every wanted pod runs or has ended, and says so, 16 steps
              16.  the status of A is written
        "#]],
    );
}

#[test]
fn a_watch_that_leaves_out_a_deletion_is_found() {
    finds(
        Mutant::LoseMark,
        Bounds { pods: 1, ..calm() },
        &expect![[r#"
            when nothing is left to be done, nothing is left of pods that aren't wanted, 11 steps
              11.  somebody deletes A
        "#]],
    );
}
