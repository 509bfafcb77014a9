//! What the check finds, and that it finds what it should.

use super::disk::{Disk, Record, Slot};
use super::properties as p;
use super::*;

/// Bounds of a check that takes seconds.
fn small() -> Bounds {
    Bounds {
        terms: 2,
        proposals: 1,
        crashes: 1,
        timeouts: 3,
        waits: 0,
        beats: 0,
        stalls: 0,
        in_flight: 6,
        mutant: None,
        audit: false,
        threads: 2,
    }
}

/// Checks; returns the broken property and the steps to it.
fn violation(bounds: &Bounds) -> (&'static str, Vec<String>) {
    let mut report = check(bounds, &mut std::io::sink());
    assert!(!report.violations.is_empty(), "the seeded bug wasn't found in {} states", report.states);
    report.violations.swap_remove(0)
}

fn mutant(mutant: Mutant) -> Bounds {
    // One thread finds a shortest path.
    Bounds { mutant: Some(mutant), threads: 1, ..small() }
}

#[test]
fn the_driver_holds_with_a_crash_between_any_two_effects() {
    let report = check(&Bounds { audit: true, ..small() }, &mut std::io::sink());
    assert!(report.holds(), "{report:#?}");
    assert_eq!(report.states, 0);
    assert_eq!(report.seen, [p::COMMITS, p::ALL_APPLY, p::SUCCESSION, p::REPLACED]);
    assert!(report.audit.0 > 0);
}

#[test]
fn answers_before_the_sync_are_found() {
    let (property, path) = violation(&mutant(Mutant::ReplyBeforeDurable));
    assert_eq!((property, path.len()), ("", 0), "{path:#?}");
}

/// What was synced stays; of what follows some first part may.
#[test]
fn a_power_cut_leaves_a_first_part_of_what_was_not_synced() {
    let slot = |term, value| Slot { term, value };
    let mut disk = Disk::default();
    disk.write(&[Record::Entry(1, slot(1, 0)), Record::State { term: 1, vote: 2, commit: 0 }]);
    disk.sync();
    disk.write(&[Record::Entry(2, slot(1, 1)), Record::State { term: 1, vote: 2, commit: 1 }]);
    disk.write(&[Record::Entry(2, slot(2, 0))]);
    let survivors: Vec<(Vec<Slot>, u64)> = disk.survivors().into_iter().map(|c| (c.slots, c.commit)).collect();
    let one = vec![slot(1, 0)];
    let two = vec![slot(1, 0), slot(1, 1)];
    let replaced = vec![slot(1, 0), slot(2, 0)];
    assert_eq!(survivors, [(one, 0), (two.clone(), 0), (two, 1), (replaced, 1)]);
}
