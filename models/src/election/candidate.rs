//! A process: the production election, and around it what `controllers/server/src/elect.rs` does.

use controllers_core::election::{Action, Election, Input, Now, Record, Stored, Timing};

use super::store::{Answer, Ask, Request};
use super::{Bounds, Mutant};

/// In seconds, what production has in fives; the ratio of lease to deadline is the same.
pub(super) const TIMING: Timing = Timing { lease_duration_ms: 3000, renew_deadline_ms: 2000, retry_period_ms: 1000 };

/// Milliseconds by which wall clocks differ, where they matter.
const APART: i64 = 10_000;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    pub(super) core: Election,
    pub(super) name: String,
    pub(super) is_fast: bool,
    /// Which of its lives this is.
    pub(super) life: u8,
    /// The reign: until when its controllers may act, by its clock.
    pub(super) until: Option<u64>,
    /// It has ended, and doesn't come back.
    pub(super) ended: bool,
    pub(super) requests: Vec<Request>,
    /// When a write of its controllers was let go, by the true clock.
    pub(super) write: Option<u8>,
}

impl Candidate {
    pub(super) fn new(at: usize, is_fast: bool, life: u8, mutant: Option<Mutant>) -> Self {
        let name = match mutant {
            Some(Mutant::SameName) => "host".to_owned(),
            _ => format!("{}{life}", ["a", "b", "c"][at]),
        };
        let core = Election::new(TIMING, name.clone());
        Self { core, name, is_fast, life, until: None, ended: false, requests: Vec::new(), write: None }
    }

    /// Its clock: milliseconds since it started or before, which doesn't matter.
    pub(super) fn clock(&self, bounds: &Bounds, now: u8) -> u64 {
        let percent = if self.is_fast { 100 + u64::from(bounds.skew) } else { 100 - u64::from(bounds.skew) };
        u64::from(now) * 10 * percent
    }

    /// Whether its controllers may act.
    pub(super) fn may_act(&self, bounds: &Bounds, now: u8) -> bool {
        let looks = bounds.mutant != Some(Mutant::NeverStop);
        self.until.is_some_and(|until| !looks || self.clock(bounds, now) < until)
    }

    /// What it waits for.
    pub(super) fn awaited(&self) -> Option<usize> {
        self.requests.iter().position(|request| request.awaited)
    }

    /// The wall clock, in the lease's microseconds. Nobody reads it: it stands still.
    fn wall(&self, bounds: &Bounds, now: u8) -> i64 {
        match bounds.mutant {
            Some(Mutant::RemoteClock) => i64::from(now) * 1000 + if self.is_fast { APART } else { 0 },
            _ => 0,
        }
    }

    /// Tells the election something, and does what it says. Returns whether it was told to stop.
    pub(super) fn tell(&mut self, bounds: &Bounds, now: u8, input: Input) -> bool {
        let (ms, unix_us) = (self.clock(bounds, now), self.wall(bounds, now));
        let input = self.shown(bounds, now, input);
        let is_written = matches!(input, Input::Written(_));
        let mut stopped = false;
        for action in self.core.step(Now { ms, unix_us }, 0, input) {
            let ask = match action {
                Action::Lead => continue,
                Action::StopLeading => {
                    stopped = true;
                    continue;
                }
                Action::Read => Ask::Read,
                Action::Create(record) => Ask::Create(record),
                Action::Update { record, version } => Ask::Update { record, version },
            };
            self.requests.push(Request { ask, answer: None, awaited: true, author: self.name.clone() });
        }
        let goes_on = bounds.mutant == Some(Mutant::ReleaseFirst) && self.awaited().is_some();
        self.until = match self.core.acts_until() {
            Some(_) if bounds.mutant == Some(Mutant::FromAnswer) && is_written => Some(ms + TIMING.renew_deadline_ms),
            Some(_) if bounds.mutant == Some(Mutant::FromAnswer) => self.until,
            None if goes_on => self.until,
            until => until,
        };
        self.ended |= self.core.is_done();
        stopped
    }

    /// What the shell makes of what it was told.
    fn shown(&self, bounds: &Bounds, now: u8, input: Input) -> Input {
        let Input::Read(Some(Stored { record, version })) = &input else { return input };
        let seconds = match bounds.mutant {
            Some(Mutant::RemoteClock) => {
                let age = (self.wall(bounds, now) - record.renewed_us) / 1000;
                i32::try_from((i64::from(record.duration_seconds) - age).clamp(1, 100)).unwrap_or(1)
            }
            Some(Mutant::StealEarly) => 1,
            _ => return input,
        };
        let record = Record { duration_seconds: seconds, ..record.clone() };
        Input::Read(Some(Stored { record, version: version.clone() }))
    }

    /// What the shell makes of an answer.
    pub(super) fn answered(answer: Answer, latest: Option<&Stored>, mutant: Option<Mutant>) -> Input {
        let version = latest.map(|stored| stored.version.clone()).unwrap_or_default();
        match answer {
            Answer::Read(found) => Input::Read(found),
            Answer::Written(stored) if mutant == Some(Mutant::AnswerLater) => {
                Input::Written(Stored { version, ..stored })
            }
            Answer::Written(stored) => Input::Written(stored),
            Answer::Refused(record) if mutant == Some(Mutant::RefusedIsWritten) => {
                Input::Written(Stored { record, version })
            }
            Answer::Refused(_) => Input::Refused,
        }
    }
}
