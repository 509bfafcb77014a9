//! Who takes part after changes of members.

use store_core::trace::{Change, Members};

/// Who takes part after a change. Source: raft-rs `confchange/changer.rs`.
pub(super) fn after(members: &Members, change: Change) -> Members {
    let (Change::Voter(id) | Change::Learner(id) | Change::Remove(id)) = change;
    let mut after = members.clone();
    after.voters.retain(|member| *member != id);
    after.learners.retain(|member| *member != id);
    match change {
        Change::Voter(_) => after.voters.push(id),
        Change::Learner(_) => after.learners.push(id),
        Change::Remove(_) => {}
    }
    after.voters.sort_unstable();
    after.learners.sort_unstable();
    after
}

/// Which of the changes that are committed, and of which nobody told whether it was made or refused, lead from who is
/// `known` to take part to who is `found` to: each with its index and who took part from there on. `None`: none do.
pub(super) fn members_made(
    known: &Members,
    untold: impl Iterator<Item = (u64, Change)>,
    found: &Members,
) -> Option<Vec<(u64, Members)>> {
    // All that may have come about, each once; members are few, so are these.
    let mut reached = vec![(known.clone(), Vec::new())];
    for (index, change) in untold {
        for at in 0..reached.len() {
            let (members, made) = &reached[at];
            let next = after(members, change);
            if !reached.iter().any(|(other, _)| *other == next) {
                let made = made.iter().cloned().chain([(index, next.clone())]).collect();
                reached.push((next, made));
            }
        }
    }
    reached.into_iter().find_map(|(members, made)| (members == *found).then_some(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(voters: &[u64], learners: &[u64]) -> Members {
        Members { voters: voters.to_vec(), learners: learners.to_vec() }
    }

    #[test]
    fn what_was_made_untold_is_what_leads_there() {
        let known = members(&[1, 2], &[]);
        let untold = [(5, Change::Learner(3)), (6, Change::Voter(4)), (7, Change::Voter(3))];
        let made = |found: &Members| members_made(&known, untold.into_iter(), found);
        assert_eq!(made(&known), Some(vec![]), "all of them were refused");
        let learning = members(&[1, 2], &[3]);
        assert_eq!(made(&learning), Some(vec![(5, learning)]));
        let voting = members(&[1, 2, 3], &[]);
        assert_eq!(made(&voting), Some(vec![(7, voting)]), "the fewest changes that lead there");
        assert_eq!(made(&members(&[1], &[])), None, "nobody removed member 2");
        assert_eq!(made(&members(&[1, 2], &[4])), None, "member 4 was to vote");
    }
}
