//! Leader election over a Lease object: of several alike, one acts.
//!
//! Problem. Several control planes over one store each run the same controllers; two that act at once undo each
//!          other's work. None of them knows whether another one is dead or slow, and no two clocks agree.
//! Idea.    Who holds the lease acts, and renews it. The others never compare the holder's clock with their own: they
//!          count, each by its own clock, since when the lease hasn't changed. Every write names the version that its
//!          decision saw, so that of several that decide at once one comes through.
//!
//! Invariants
//!   E1  Who acts stops [`Timing::renew_deadline_ms`] after *sending* the last write of the lease that came through, by its
//!       own clock, whatever else it waits for.
//!   E2  Nobody takes a lease over before it has seen the same version of it for as long as its holder asked for.
//!   E3  A lease is written only at the version that was seen last, and renewed only by who holds it in that version.
//!   E4  `leaseTransitions` grows with each new holder, and with nothing else.
//! E1 to E3 leave no two acting at once while clocks run at rates whose ratio is below that of the lease's duration to the renew
//! deadline (3/2 by default): the lease was changed after the write was sent, and seen after it was changed.
//! Checked by: models/src/election (E1–E4), election/tests.rs.
//! Source: client-go `tools/leaderelection` (tryAcquireOrRenew, renew, release). There the deadline counts from the
//! answer to the last renewal, so that one that was on its way for long can outlive the lease; and a holder that
//! reads another's name in the lease goes on until that deadline.
//!
//! A holder is asked with [`Election::may_act`] before each write of its own, so that a process that stood still doesn't
//! go on where it stopped. What it has let go by then is its remaining risk: a write that is on its way for longer than the
//! lease's duration without the renew deadline (5 s by default) may arrive under the next leader. Only what such a write says
//! itself (resourceVersion, uid) guards against that.

/// How patient everybody is, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How long a lease lasts that isn't renewed; whole seconds.
    pub lease_duration_ms: u64,
    /// How long a holder acts after the last renewal that it sent and that came through.
    pub renew_deadline_ms: u64,
    /// How long it waits between two attempts; candidates up to 2.2 times as long.
    pub retry_period_ms: u64,
}

impl Default for Timing {
    /// As kube-controller-manager and kube-scheduler.
    fn default() -> Self {
        Self { lease_duration_ms: 15_000, renew_deadline_ms: 10_000, retry_period_ms: 2_000 }
    }
}

/// Candidates' pauses are longer by up to this, in thousandths of the retry period. Source: client-go JitterFactor.
const JITTER_PERMILLE: u64 = 1_200;
/// What a lease that was released lasts, in seconds: nobody waits for it, and none may be without.
const RELEASED_SECONDS: i32 = 1;

/// What a Lease says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Who holds it; empty for nobody.
    pub holder: String,
    /// For how long after each renewal, in seconds.
    pub duration_seconds: i32,
    /// Since when, by the holder's clock: microseconds since the epoch.
    pub acquired_us: i64,
    /// When it was renewed last, by the holder's clock.
    pub renewed_us: i64,
    /// How often another one became the holder.
    pub transitions: i32,
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stored {
    /// What it says.
    pub record: Record,
    /// The object's resourceVersion.
    pub version: String,
}

/// The time, twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Of a clock that never goes back, in milliseconds. What is decided is decided by this one.
    pub ms: u64,
    /// Microseconds since the epoch, to be written and never compared.
    pub unix_us: i64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The time has come that [`Election::wake_at`] named.
    Wake,
    /// The lease was read; `None`: there is none.
    Read(Option<Stored>),
    /// The lease was written, and is stored so.
    Written(Stored),
    /// It wasn't written: it isn't what it was, or is there already.
    Refused,
    /// There was no answer, or another failure. It may have been written, or be written yet.
    Failed,
    /// This process is about to end: whoever holds the lease gives it up.
    Release,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Begin to act.
    Lead,
    /// End to act: nothing more is written. What follows is done once that is so.
    StopLeading,
    /// Read the lease. At most one request is on its way; the next input of the four above is its answer.
    Read,
    /// Create the lease.
    Create(Record),
    /// Write the lease if it is at this version.
    Update {
        /// What it is to say.
        record: Record,
        /// The version that was seen.
        version: String,
    },
}

/// What was seen of the lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Observed {
    stored: Stored,
    /// Since when it hasn't changed, by this clock.
    since: u64,
}

/// A request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Request {
    Read,
    /// Decided upon what was just read.
    Write {
        sent: u64,
    },
    /// A holder's renewal of what it wrote last, without reading it again.
    Renewal {
        sent: u64,
    },
    Release,
}

/// Where this one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Candidate,
    /// Acts until then.
    Leader {
        until: u64,
    },
}

/// One of those who would act.
///
/// [`Election::step`] takes in what happened; [`Election::wake_at`] says when to come again if nothing does;
/// [`Election::may_act`] is asked before each write that only a leader may make.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Election {
    timing: Timing,
    identity: String,
    observed: Option<Observed>,
    role: Role,
    request: Option<Request>,
    /// When to try again.
    next: u64,
    /// Whether this process is about to end.
    releasing: bool,
}

impl Election {
    /// A candidate that has seen nothing. No other may ever be called as it is, not even one that is dead.
    ///
    /// # Panics
    /// If the timing can't work: a holder would act beyond its lease, or have no time to renew it.
    pub fn new(timing: Timing, identity: String) -> Self {
        assert!(timing.lease_duration_ms.is_multiple_of(1000), "a lease lasts whole seconds");
        assert!(timing.renew_deadline_ms < timing.lease_duration_ms, "a holder stops before its lease ends");
        assert!(timing.retry_period_ms < timing.renew_deadline_ms, "a holder can renew before it stops");
        assert!(timing.retry_period_ms > 0 && !identity.is_empty(), "pauses last, and holders have names");
        Self { timing, identity, observed: None, role: Role::Candidate, request: None, next: 0, releasing: false }
    }

    /// Until when it may act; `None` if it doesn't lead.
    pub fn acts_until(&self) -> Option<u64> {
        match self.role {
            Role::Leader { until } => Some(until),
            Role::Candidate => None,
        }
    }

    /// Whether it may act now (E1).
    pub fn may_act(&self, now_ms: u64) -> bool {
        self.acts_until().is_some_and(|until| now_ms < until)
    }

    /// When to wake it; `None`: it only waits for an answer, or is done.
    pub fn wake_at(&self) -> Option<u64> {
        let next = (self.request.is_none() && !self.releasing).then_some(self.next);
        [next, self.acts_until()].into_iter().flatten().min()
    }

    /// Whether it was released and waits for nothing more.
    pub fn is_done(&self) -> bool {
        self.releasing && self.request.is_none()
    }

    /// How long an answer is waited for, in milliseconds. Source: client-go's RenewDeadline / 2.
    pub fn answer_max_ms(&self) -> u64 {
        self.timing.renew_deadline_ms / 2
    }

    /// Who holds the lease, as far as is known; empty for nobody.
    pub fn holder(&self) -> &str {
        self.observed.as_ref().map_or("", |observed| &observed.stored.record.holder)
    }

    /// Takes in what happened; `jitter_permille` (0 to 999) is drawn by chance each time.
    pub fn step(&mut self, now: Now, jitter_permille: u16, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        let answered = match input {
            Input::Wake => None,
            Input::Release => {
                self.releasing = true;
                None
            }
            _ => self.request.take(),
        };
        match (input, answered) {
            (Input::Read(found), Some(Request::Read)) => self.on_read(now, found, &mut actions),
            (Input::Written(stored), Some(request)) => self.on_written(now, stored, request, &mut actions),
            // What was seen last isn't what is there.
            (Input::Refused | Input::Failed, Some(Request::Renewal { .. })) => self.send(Request::Read, &mut actions),
            _ => {}
        }
        // E1: before anything else is asked for, and whatever is on its way.
        if self.releasing || self.acts_until().is_some_and(|until| now.ms >= until) {
            self.stop(&mut actions);
        }
        if self.releasing {
            self.release(now, &mut actions);
        } else if answered.is_some() && self.request.is_none() {
            self.next = now.ms + self.pause(jitter_permille);
        } else if self.request.is_none() && now.ms >= self.next {
            self.attempt(now, &mut actions);
        }
        actions
    }

    /// Candidates don't come all at once.
    fn pause(&self, jitter_permille: u16) -> u64 {
        let period = self.timing.retry_period_ms;
        let jitter = u64::from(jitter_permille.min(999)) * JITTER_PERMILLE / 1000;
        if self.acts_until().is_some() { period } else { period + period * jitter / 1000 }
    }

    fn stop(&mut self, actions: &mut Vec<Action>) {
        if self.acts_until().is_some() {
            self.role = Role::Candidate;
            actions.insert(0, Action::StopLeading);
        }
    }

    fn send(&mut self, request: Request, actions: &mut Vec<Action>) {
        self.request = Some(request);
        if matches!(request, Request::Read) {
            actions.push(Action::Read);
        }
    }

    fn attempt(&mut self, now: Now, actions: &mut Vec<Action>) {
        match &self.observed {
            Some(observed) if self.acts_until().is_some() => {
                let (record, version) = (self.renewed(&observed.stored.record, now), observed.stored.version.clone());
                self.send(Request::Renewal { sent: now.ms }, actions);
                actions.push(Action::Update { record, version });
            }
            _ => self.send(Request::Read, actions),
        }
    }

    fn on_read(&mut self, now: Now, found: Option<Stored>, actions: &mut Vec<Action>) {
        self.note(now, found);
        if self.releasing {
            return;
        }
        let Some(observed) = &self.observed else {
            self.stop(actions);
            let record = self.first(now);
            self.send(Request::Write { sent: now.ms }, actions);
            actions.push(Action::Create(record));
            return;
        };
        let (seen, version) = (&observed.stored.record, observed.stored.version.clone());
        let is_own = seen.holder == self.identity;
        // E2.
        let is_free = seen.holder.is_empty() || now.ms >= observed.since.saturating_add(self.lasts(seen));
        let record = if is_own {
            Some(self.renewed(seen, now))
        } else {
            let transitions = seen.transitions.saturating_add(1);
            is_free.then(|| Record { transitions, ..self.first(now) })
        };
        if !is_own {
            // Another one took it: the deadline has passed, or somebody wrote it by hand.
            self.stop(actions);
        }
        if let Some(record) = record {
            self.send(Request::Write { sent: now.ms }, actions);
            actions.push(Action::Update { record, version });
        }
    }

    /// E2: a lease counts as unchanged since its present version was seen first.
    fn note(&mut self, now: Now, found: Option<Stored>) {
        let known = self.observed.as_ref().map(|observed| &observed.stored.version);
        if known != found.as_ref().map(|stored| &stored.version) {
            self.observed = found.map(|stored| Observed { stored, since: now.ms });
        }
    }

    fn on_written(&mut self, now: Now, stored: Stored, request: Request, actions: &mut Vec<Action>) {
        let is_own = stored.record.holder == self.identity;
        self.note(now, Some(stored));
        let (Request::Write { sent } | Request::Renewal { sent }) = request else { return };
        // E1: from when it was sent; the lease may be old when the answer comes.
        let until = sent + self.timing.renew_deadline_ms;
        if !is_own || now.ms >= until || self.releasing {
            return;
        }
        if self.acts_until().is_none() {
            actions.push(Action::Lead);
        }
        self.role = Role::Leader { until };
    }

    /// Gives the lease up, once nothing is on its way any more that could change it.
    fn release(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Some(observed) = self.observed.as_ref().filter(|_| self.request.is_none()) else { return };
        let Stored { record, version } = &observed.stored;
        if record.holder != self.identity {
            return;
        }
        let record = Record {
            holder: String::new(),
            duration_seconds: RELEASED_SECONDS,
            acquired_us: now.unix_us,
            renewed_us: now.unix_us,
            transitions: record.transitions,
        };
        let version = version.clone();
        // It isn't tried twice: others wait for the lease's end then.
        self.observed = None;
        self.send(Request::Release, actions);
        actions.push(Action::Update { record, version });
    }

    /// How long a holder asked for its lease to be left alone.
    fn lasts(&self, record: &Record) -> u64 {
        match u64::try_from(record.duration_seconds) {
            Ok(seconds) if seconds > 0 => seconds.saturating_mul(1000),
            _ => self.timing.lease_duration_ms,
        }
    }

    fn first(&self, now: Now) -> Record {
        Record {
            holder: self.identity.clone(),
            // Asserted to be whole seconds; what doesn't fit lasts as long as can be.
            duration_seconds: i32::try_from(self.timing.lease_duration_ms / 1000).unwrap_or(i32::MAX),
            acquired_us: now.unix_us,
            renewed_us: now.unix_us,
            transitions: 0,
        }
    }

    /// A renewal is a change, or it would be none to those who watch for one: also by a clock that stands still.
    fn renewed(&self, old: &Record, now: Now) -> Record {
        let renewed_us = if now.unix_us == old.renewed_us { now.unix_us + 1 } else { now.unix_us };
        Record { acquired_us: old.acquired_us, transitions: old.transitions, renewed_us, ..self.first(now) }
    }
}

#[cfg(test)]
mod tests;
