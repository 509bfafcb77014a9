//! Leases: when they expire, by the leader's clock.
//!
//! Deadlines live on the leader alone. Expiry is a command in the log, so a lease ends at the same
//! place of the history everywhere. Now and then the leader notes in the log what is left of
//! long leases: its successor goes on from there, and each change of leader lets a lease outlive its
//! time by a checkpoint's interval at most. Who renews a lease is answered only when
//! the log no longer says that little is left of it, and by a leader that led after it renewed it:
//! who follows on it then gives the lease its time later than that.
//!
//! Invariants
//!   X1  A lease is proposed for expiry only at or after its deadline.
//!   X2  At most [`AT_ONCE_MAX`] leases are in one proposal.
//!   X3  A renewal is answered only if a successor would give the lease its whole time: no
//!       checkpoint that is older than the renewal is in the log, or on its way, without a newer one
//!       that takes it back.
//!   X4  A renewal is answered only if nobody else led when it was made: the reign in which it was
//!       made goes on after a majority was asked.
//! Checked by: models/src/lease.rs (X1, X3, X4).
//! Source: etcd `server/lease/lessor.go`, `EtcdServer.ensureLeadership`.

use std::collections::BTreeMap;

/// Leases that one command ends or notes at most.
pub const AT_ONCE_MAX: usize = 1000;
/// Longest time to live, in seconds, as in etcd.
pub const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// The answer to who renews a lease, or asks for it; seconds are whole ones, as etcd counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// This member doesn't answer for leases.
    NotLeading,
    /// There is no such lease.
    Unknown,
    /// Seconds left; it wasn't renewed.
    Remaining(i64),
    /// Renewed, but not to be told yet.
    Renewed(Promise),
}

/// A renewal that may be told once this member is known to have led after it, by a read of the log or a command in
/// it, and [`Lessor::reigns`] still says so (X4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Promise {
    /// Seconds to live from now on.
    pub seconds: i64,
    /// To be given to [`Lessor::reigns`].
    pub reign: u64,
    /// The command must be one that takes back the lease's last checkpoint (X3).
    pub take_back: bool,
}

/// Times are in milliseconds of a monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held {
    ttl: i64,
    deadline: u64,
    checkpoint_at: u64,
    /// The log says that less than the whole time is left.
    checkpointed: bool,
    /// Checkpoints that were proposed and that the log doesn't say yet: each will, if this member leads on.
    on_their_way: u32,
    /// Its end was proposed.
    ending: bool,
}

/// The leader's view of the leases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lessor {
    checkpoint_ms: u64,
    leads: bool,
    /// How often this member has taken over.
    reign: u64,
    leases: BTreeMap<i64, Held>,
}

fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

impl Lessor {
    /// Of a member that doesn't lead. Leases that live longer than `checkpoint_ms` are noted that often.
    #[must_use]
    pub fn new(checkpoint_ms: u64) -> Self {
        Self { checkpoint_ms, leads: false, reign: 0, leases: BTreeMap::new() }
    }

    /// Whether this member answers for the leases.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// Whether it has done so without a break since a renewal (X4).
    #[must_use]
    pub fn reigns(&self, reign: u64) -> bool {
        self.leads && self.reign == reign
    }

    /// Takes over: numbers, seconds to live, and seconds that the last checkpoint left (0: all).
    ///
    /// To be called when everything is applied that earlier leaders committed. `grace_ms` is added to
    /// what is left: nobody could renew while there was no leader.
    pub fn lead(&mut self, now_ms: u64, grace_ms: u64, leases: impl Iterator<Item = (i64, i64, i64)>) {
        self.leads = true;
        self.reign += 1;
        self.leases = leases
            .map(|(id, ttl, remaining)| {
                let left =
                    if remaining > 0 { milliseconds(remaining).saturating_add(grace_ms) } else { milliseconds(ttl) };
                let deadline = now_ms.saturating_add(left);
                (id, Held { deadline, checkpointed: remaining > 0, ..self.whole(now_ms, ttl) })
            })
            .collect();
    }

    /// Another leads.
    pub fn resign(&mut self) {
        self.leads = false;
        self.leases.clear();
    }

    fn whole(&self, now_ms: u64, ttl: i64) -> Held {
        Held {
            ttl,
            deadline: now_ms.saturating_add(milliseconds(ttl)),
            checkpoint_at: now_ms.saturating_add(self.checkpoint_ms),
            checkpointed: false,
            on_their_way: 0,
            ending: false,
        }
    }

    /// A lease was granted. One that is known already was in the state that this member took over with: its end may
    /// be on its way by now.
    pub fn granted(&mut self, now_ms: u64, id: i64, ttl_seconds: i64) {
        if self.leads {
            let whole = self.whole(now_ms, ttl_seconds);
            self.leases.entry(id).or_insert(whole);
        }
    }

    /// A lease ended.
    pub fn ended(&mut self, id: i64) {
        self.leases.remove(&id);
    }

    /// The log now says that so much is left of a lease; 0: all of it.
    pub fn noted(&mut self, id: i64, remaining: i64) {
        if let Some(held) = self.leases.get_mut(&id) {
            held.checkpointed = remaining > 0;
            if remaining > 0 {
                held.on_their_way = held.on_their_way.saturating_sub(1);
            }
        }
    }

    /// What is left of a lease, after giving it its whole time again if `renew` says so (X3, X4).
    pub fn ask(&mut self, now_ms: u64, id: i64, renew: bool) -> Renewal {
        if !self.leads {
            return Renewal::NotLeading;
        }
        let checkpoint_at = now_ms.saturating_add(self.checkpoint_ms);
        let Some(held) = self.leases.get_mut(&id) else { return Renewal::Unknown };
        // What is about to end can't be saved.
        let renewed = renew && !held.ending;
        if renewed {
            held.deadline = now_ms.saturating_add(milliseconds(held.ttl));
            // No checkpoint follows before this one is taken back.
            held.checkpoint_at = checkpoint_at;
        }
        let seconds = i64::try_from(held.deadline.saturating_sub(now_ms) / 1000).unwrap_or(i64::MAX);
        if !renewed {
            return Renewal::Remaining(seconds);
        }
        let take_back = held.checkpointed || held.on_their_way > 0;
        Renewal::Renewed(Promise { seconds, reign: self.reign, take_back })
    }

    /// What has expired and isn't about to end (X1, X2).
    #[must_use]
    pub fn expired(&self, now_ms: u64) -> Vec<i64> {
        let due = self.leases.iter().filter(|(_, held)| held.deadline <= now_ms && !held.ending);
        due.map(|(id, _)| *id).take(AT_ONCE_MAX).collect()
    }

    /// The end of these was proposed.
    pub fn ending(&mut self, ids: &[i64]) {
        for id in ids {
            if let Some(held) = self.leases.get_mut(id) {
                held.ending = true;
            }
        }
    }

    /// What was proposed to end was refused: it is to be proposed again.
    pub fn nothing_ends(&mut self) {
        self.leases.values_mut().for_each(|held| held.ending = false);
    }

    /// Leases whose remaining time is to be noted, and the seconds, rounded up (X2).
    #[must_use]
    pub fn checkpoints(&self, now_ms: u64) -> Vec<(i64, i64)> {
        let due = self.leases.iter().filter(|(_, held)| {
            let is_long = milliseconds(held.ttl) > self.checkpoint_ms;
            is_long && held.checkpoint_at <= now_ms && held.deadline > now_ms
        });
        let seconds = |held: &Held| i64::try_from((held.deadline - now_ms).div_ceil(1000)).unwrap_or(i64::MAX);
        due.map(|(id, held)| (*id, seconds(held).min(held.ttl))).take(AT_ONCE_MAX).collect()
    }

    /// These checkpoints were proposed.
    pub fn proposed(&mut self, now_ms: u64, checkpoints: &[(i64, i64)]) {
        for (id, _) in checkpoints {
            if let Some(held) = self.leases.get_mut(id) {
                held.on_their_way += 1;
                held.checkpoint_at = now_ms.saturating_add(self.checkpoint_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn leading(checkpoint_ms: u64, leases: &[(i64, i64, i64)]) -> Lessor {
        let mut lessor = Lessor::new(checkpoint_ms);
        lessor.lead(0, 0, leases.iter().copied());
        lessor
    }

    /// In the first reign.
    fn renewed(seconds: i64, take_back: bool) -> Renewal {
        Renewal::Renewed(Promise { seconds, reign: 1, take_back })
    }

    /// X1.
    #[test]
    fn a_lease_ends_at_its_deadline_and_not_before() {
        let mut lessor = leading(MINUTE, &[]);
        lessor.granted(1_000, 7, 5);
        assert_eq!((lessor.expired(5_999), lessor.expired(6_000)), (vec![], vec![7]));
        assert_eq!(lessor.ask(5_000, 7, true), renewed(5, false));
        assert!(lessor.expired(6_000).is_empty());
        assert_eq!(lessor.ask(6_500, 7, false), Renewal::Remaining(3));
    }

    #[test]
    fn what_is_about_to_end_is_neither_proposed_again_nor_renewed() {
        let mut lessor = leading(MINUTE, &[(7, 5, 0)]);
        let expired = lessor.expired(5_000);
        lessor.ending(&expired);
        assert_eq!((expired, lessor.expired(6_000)), (vec![7], vec![]));
        assert_eq!(lessor.ask(6_000, 7, true), Renewal::Remaining(0));
        lessor.nothing_ends();
        assert_eq!(lessor.expired(6_000), [7], "its end was refused");
        lessor.ended(7);
        assert_eq!(lessor.ask(6_000, 7, true), Renewal::Unknown);
    }

    /// The state may be ahead of what the lessor is told of it.
    #[test]
    fn what_ends_is_not_saved_by_a_late_word_of_its_grant() {
        let mut lessor = leading(MINUTE, &[(7, 5, 0)]);
        lessor.ending(&[7]);
        lessor.granted(5_000, 7, 5);
        assert_eq!(lessor.ask(5_500, 7, true), Renewal::Remaining(0));
    }

    #[test]
    fn a_new_leader_goes_on_from_the_last_checkpoint() {
        let mut lessor = Lessor::new(MINUTE);
        assert_eq!(lessor.ask(0, 1, false), Renewal::NotLeading);
        lessor.lead(100_000, 1_000, [(1, 10, 0), (2, 200, 30)].into_iter());
        assert_eq!((lessor.expired(109_999), lessor.expired(110_000)), (vec![], vec![1]));
        assert_eq!((lessor.expired(130_999), lessor.expired(131_000)), (vec![1], vec![1, 2]));
    }

    #[test]
    fn long_leases_are_noted_now_and_then_and_short_ones_never() {
        let mut lessor = leading(MINUTE, &[(1, 60, 0), (2, 3_600, 0)]);
        assert_eq!((lessor.checkpoints(59_999), lessor.checkpoints(60_000)), (vec![], vec![(2, 3_540)]));
        lessor.proposed(60_500, &[(2, 3_540)]);
        assert_eq!(lessor.checkpoints(120_499), []);
        assert_eq!(lessor.checkpoints(120_500), [(2, 3_480)]);
    }

    /// X3: from the moment when it is proposed, until it is taken back.
    #[test]
    fn a_renewal_waits_until_the_checkpoint_is_taken_back() {
        let mut lessor = leading(MINUTE, &[(2, 3_600, 0)]);
        lessor.proposed(60_000, &[(2, 3_540)]);
        assert_eq!(lessor.ask(61_000, 2, false), Renewal::Remaining(3_539));
        assert_eq!(lessor.ask(62_000, 2, true), renewed(3_600, true));
        lessor.noted(2, 3_540);
        assert_eq!(lessor.ask(63_000, 2, true), renewed(3_600, true));
        lessor.noted(2, 0);
        assert_eq!(lessor.ask(64_000, 2, true), renewed(3_600, false));
    }

    /// X3: taking back a checkpoint doesn't take back the next one, which is behind it in the log.
    #[test]
    fn a_checkpoint_on_its_way_is_not_taken_back_by_what_is_before_it() {
        let mut lessor = leading(MINUTE, &[(2, 3_600, 0)]);
        lessor.proposed(60_000, &[(2, 3_540)]);
        lessor.noted(2, 3_540);
        assert_eq!(lessor.ask(61_000, 2, true), renewed(3_600, true));
        assert_eq!(lessor.checkpoints(121_000), [(2, 3_540)], "the log takes its time");
        lessor.proposed(121_000, &[(2, 3_540)]);
        lessor.noted(2, 0);
        assert_eq!(lessor.ask(122_000, 2, true), renewed(3_600, true));
        lessor.noted(2, 3_540);
        lessor.noted(2, 0);
        assert_eq!(lessor.ask(123_000, 2, true), renewed(3_600, false));
    }

    /// X4.
    #[test]
    fn a_renewal_is_of_one_reign() {
        let mut lessor = leading(MINUTE, &[(7, 5, 0)]);
        assert_eq!(lessor.ask(1_000, 7, true), renewed(5, false));
        assert!(lessor.reigns(1));
        lessor.resign();
        assert!(!lessor.reigns(1));
        lessor.lead(2_000, 0, [(7, 5, 0)].into_iter());
        assert!(!lessor.reigns(1) && lessor.reigns(2), "another may have led in between");
    }

    /// X2.
    #[test]
    fn a_proposal_has_a_bounded_number_of_leases() {
        let many: Vec<(i64, i64, i64)> = (0..2 * AT_ONCE_MAX as i64).map(|id| (id, 100, 0)).collect();
        let lessor = leading(MINUTE, &many);
        assert_eq!(lessor.expired(100_000).len(), AT_ONCE_MAX);
        assert_eq!(lessor.checkpoints(MINUTE).len(), AT_ONCE_MAX);
    }
}
