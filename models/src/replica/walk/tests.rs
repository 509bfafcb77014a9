//! Walks that their seeds decide: none is bounded by time.

use super::super::properties as p;
use super::super::shell::Mutant;
use super::*;

fn walked(seed: u64, episodes: u64, mutant: Option<Mutant>) -> Walked {
    let usual = Walk::usual();
    let bounds = Bounds { mutant, ..usual.bounds.clone() };
    walk(&Walk { seed: Some(seed), episodes: Some(episodes), bounds, ..usual }, &mut std::io::sink())
}

/// Everything holds, and all that may come about does: the walk isn't held up by its own bounds.
#[test]
fn a_walk_of_five_members_holds_and_comes_past_everything() {
    let walked = walked(1, 1500, None);
    assert!(walked.holds(), "{:#?}", walked.violation);
    let never: Vec<_> = walked.seen.iter().filter(|(_, count)| **count == 0).collect();
    assert!(never.is_empty(), "{never:?} in {} steps", walked.steps);
}

#[test]
fn a_seed_decides_every_step() {
    let (one, same, other) = (walked(7, 3, None), walked(7, 3, None), walked(8, 3, None));
    assert_eq!((one.steps, one.trail), (same.steps, same.trail));
    assert_ne!(one.trail, other.trail);
}

/// Seeded bugs are found: the property, and the episode in which it is. The same again by the command that is told.
#[test]
fn seeded_bugs_are_found_on_the_way() {
    for (mutant, property) in [
        (Mutant::ReplyBeforeDurable, p::BACKED),
        (Mutant::LoseVote, p::BACKED),
        (Mutant::CountBeforeDurable, p::DURABLE),
        (Mutant::KeepReplaced, p::TERMS_ASCEND),
        (Mutant::CommitBehind, p::NO_PANIC),
        (Mutant::ReadAlone, p::READS),
        (Mutant::SameBoot, p::READS),
        (Mutant::OldMembers, p::CONFIGURED),
        (Mutant::InstallUnsynced, p::DURABLE),
        (Mutant::ProposeAgain, p::ONCE),
        (Mutant::ReadBehind, p::READS),
        (Mutant::ChangeOvertaken, p::CONFIGURED),
    ] {
        let walked = walked(1, 1000, Some(mutant));
        let violation = walked.violation.unwrap_or_else(|| panic!("{mutant:?} isn't found in {} steps", walked.steps));
        println!("{mutant:?}: {} after {} episodes, {} steps", violation.property, walked.episodes, walked.steps);
        assert_eq!(violation.property, property);
        let name = violation.command.split(" --mutant ").nth(1).expect("the mutant is told");
        assert_eq!(<Mutant as clap::ValueEnum>::from_str(name, false), Ok(mutant));
        let again = self::walked(violation.seed, 1, Some(mutant)).violation.expect("the same again");
        assert_eq!((again.property, again.lines), (violation.property, violation.lines));
    }
}

/// What is left out of a command is as usual.
#[test]
fn a_command_tells_what_is_unusual() {
    let usual = Walk::usual();
    let bounds = Bounds { nodes: 3, crashes: 0, ..usual.bounds.clone() };
    let command = Walk { bounds, steps: 9, ..usual }.command(5, "--seconds 3");
    let expected = "cargo run -p models --release -- walk replica --seed 5 --seconds 3 --steps 9 --nodes 3 --crashes 0";
    assert_eq!(command, expected);
}
