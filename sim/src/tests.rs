use super::*;

#[test]
fn what_a_seed_does_it_does_again() {
    let both = [3, 17, 40].map(|seed| [0; 2].map(|_| run(Workload::Kv, seed, None, None)));
    for [first, second] in both {
        assert_eq!((first.hash, first.events, first.operations), (second.hash, second.events, second.operations));
    }
}

#[test]
fn what_a_seed_does_to_pods_it_does_again() {
    let both = [1, 16].map(|seed| [0; 2].map(|_| run(Workload::Pods, seed, None, None)));
    for [first, second] in both {
        assert_eq!((first.hash, first.events, first.objects), (second.hash, second.events, second.objects));
    }
}

#[test]
fn seeds_of_the_corpus_hold() {
    for line in include_str!("../corpus.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let seed = words.next().and_then(|seed| seed.parse().ok()).expect("a seed");
        let members = words.next().and_then(|members| members.parse().ok());
        let workload = if words.next() == Some("pods") { Workload::Pods } else { Workload::Kv };
        let report = run(workload, seed, members, None);
        assert_eq!(report.violations, [""; 0], "{line}");
    }
}

/// The same of a cluster that runs pods.
#[test]
fn other_seeds_of_pods_hold() {
    let reports: Vec<Report> = (5000..5030).map(|seed| run(Workload::Pods, seed, None, None)).collect();
    for (seed, report) in (5000..).zip(&reports) {
        assert_eq!(report.violations, [""; 0], "cargo run -p sim --release -- --seed {seed} --workload pods");
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (objects, containers) = (sum(|report| report.objects), sum(|report| report.containers));
    assert!(objects > 3_000 && containers > 200, "little happens in a run");
}

/// A few from the beginning; more by the program.
#[test]
fn other_seeds_hold() {
    let reports: Vec<Report> = (5000..5040).map(|seed| run(Workload::Kv, seed, None, None)).collect();
    for (seed, report) in (5000..).zip(&reports) {
        assert_eq!(report.violations, [""; 0], "cargo run -p sim --release -- --seed {seed}");
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let changes = sum(|report| report.disturbed.3);
    let (crashes, reigns) = (sum(|report| report.disturbed.0), sum(|report| report.disturbed.1));
    let (watched, renewed) = (sum(|report| report.watched), sum(|report| report.renewed));
    assert!(sum(|report| report.ruined) > 3, "hardly a disk is damaged");
    assert!(crashes > 50 && reigns > 50 && watched > 5_000 && renewed > 100 && changes > 10, "little happens in a run");
}

/// Each with the seeds within which it is found.
#[test]
fn mutants_are_found() {
    let bounds = [
        (Mutant::ReplyBeforeSync, 200),
        (Mutant::LoseVote, 200),
        (Mutant::ReadAlone, 50),
        (Mutant::KeepReplaced, 200),
        (Mutant::SkipEvent, 20),
        (Mutant::ResumeNow, 20),
        (Mutant::KeepRing, 200),
        (Mutant::ProgressNow, 20),
        (Mutant::ExpireEarly, 20),
        (Mutant::RenewAtOnce, 100),
        (Mutant::ForgetReign, 400),
        (Mutant::SameBoot, 100),
        (Mutant::LeadLeasesEarly, 300),
        (Mutant::OldMembers, 50),
        (Mutant::DropDamaged, 100),
        (Mutant::BelieveDamaged, 200),
    ];
    for (mutant, seeds) in bounds {
        let found = (1..=seeds).find(|seed| !run(Workload::Kv, *seed, None, Some(mutant)).violations.is_empty());
        assert!(found.is_some(), "{mutant:?} isn't found within {seeds} seeds");
    }
}

/// Rare, so a seed that has it: it takes a snapshot of one whom nobody has asked for the damaged value.
#[test]
fn a_damaged_value_that_is_handed_on_is_found() {
    assert!(!run(Workload::Kv, 141, None, Some(Mutant::SendUnread)).violations.is_empty());
}

/// Rare, so seeds that have it: an answer is lost, and what it was about is deleted before the next attempt; what
/// changes while nobody watches is never changed again.
#[test]
fn rare_mutants_of_pods_are_found() {
    for (mutant, seed) in [(Mutant::SameUid, 127), (Mutant::ForgetVanished, 347), (Mutant::ForgetOrphans, 134)] {
        assert!(!run(Workload::Pods, seed, None, Some(mutant)).violations.is_empty(), "{mutant:?}");
    }
}

/// The same of those that only a cluster that runs pods shows.
#[test]
fn mutants_of_pods_are_found() {
    let bounds = [
        (Mutant::NoFence, 100),
        (Mutant::KeepDecision, 20),
        (Mutant::SkipLagging, 40),
        (Mutant::SkipRelist, 20),
        (Mutant::KeepOrphans, 20),
        (Mutant::AdoptEarly, 20),
        (Mutant::StaleLook, 100),
        (Mutant::StatusWithoutUid, 20),
        (Mutant::DeleteWithoutUid, 200),
        (Mutant::NeverDoubt, 60),
        (Mutant::LookedAlready, 250),
    ];
    for (mutant, seeds) in bounds {
        let found = (1..=seeds).find(|seed| !run(Workload::Pods, *seed, None, Some(mutant)).violations.is_empty());
        assert!(found.is_some(), "{mutant:?} isn't found within {seeds} seeds");
    }
}
