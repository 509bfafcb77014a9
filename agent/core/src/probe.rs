//! When a probe is due, and what its results mean.
//!
//! Invariants
//!   P1  Liveness and readiness are not run before the startup probe succeeded.
//!   P2  A verdict changes only after `threshold` results in a row.
//! Source: kubelet `prober/worker.go`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Probe};

use crate::runtime::ProbeKind;

/// One probe of one running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeState {
    kind: ProbeKind,
    verdict: bool,
    last: Option<bool>,
    run: u32,
    next: Timestamp,
    settled: bool,
}

/// What a result led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changed.
    Same,
    /// It now succeeds.
    Succeeds,
    /// It now fails (or, for liveness and startup, has failed for good).
    Fails,
}

/// The probe of `kind` in a container's spec.
pub fn spec(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// Seconds a probe may take.
pub fn timeout_seconds(probe: &Probe) -> i32 {
    probe.timeout_seconds.unwrap_or(1).max(1)
}

fn period(probe: &Probe) -> SignedDuration {
    SignedDuration::from_secs(probe.period_seconds.unwrap_or(10).max(1).into())
}

impl ProbeState {
    /// A probe of a container that started at `started_at`.
    pub fn new(kind: ProbeKind, probe: &Probe, started_at: Timestamp) -> Self {
        let delay = SignedDuration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0).into());
        Self {
            kind,
            // Until it says otherwise a container is alive, but neither started nor ready.
            verdict: kind == ProbeKind::Liveness,
            last: None,
            run: 0,
            next: started_at.checked_add(delay).unwrap_or(started_at),
            settled: false,
        }
    }

    /// Whether the probe stands at success.
    pub fn succeeds(&self) -> bool {
        self.verdict
    }

    /// When it is to run next; `None` once nothing more is to be learnt.
    pub fn next(&self) -> Option<Timestamp> {
        (!self.settled).then_some(self.next)
    }

    /// Takes one result in.
    pub fn handle(&mut self, now: Timestamp, probe: &Probe, ok: bool) -> Verdict {
        self.next = now.checked_add(period(probe)).unwrap_or(now);
        if self.last == Some(ok) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(ok);
            self.run = 1;
        }
        let threshold = if ok { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        if self.run < u32::try_from(threshold.max(1)).unwrap_or(1) {
            return Verdict::Same;
        }
        self.settle(ok)
    }

    fn settle(&mut self, ok: bool) -> Verdict {
        if self.kind == ProbeKind::Startup && ok {
            self.settled = true;
        }
        // A failed startup probe is a change even though it never succeeded.
        let fatal = self.kind != ProbeKind::Readiness && !ok;
        if fatal {
            self.settled = true;
            self.verdict = false;
            return Verdict::Fails;
        }
        if self.verdict == ok {
            return Verdict::Same;
        }
        self.verdict = ok;
        if ok { Verdict::Succeeds } else { Verdict::Fails }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(failure: i32, success: i32) -> Probe {
        Probe {
            period_seconds: Some(5),
            failure_threshold: Some(failure),
            success_threshold: Some(success),
            initial_delay_seconds: Some(2),
            ..Probe::default()
        }
    }

    fn script(kind: ProbeKind, probe: &Probe, results: &str) -> String {
        let mut state = ProbeState::new(kind, probe, Timestamp::UNIX_EPOCH);
        let mut out = String::new();
        for c in results.chars() {
            let Some(at) = state.next() else {
                out.push('|');
                break;
            };
            out.push(match state.handle(at, probe, c == '+') {
                Verdict::Same => '.',
                Verdict::Succeeds => 'S',
                Verdict::Fails => 'F',
            });
        }
        out
    }

    /// P2: thresholds, for each kind.
    #[test]
    fn verdicts_need_their_threshold() {
        let p = probe(3, 2);
        assert_eq!(script(ProbeKind::Readiness, &p, "-+++--+---++"), "..S......F.S");
        let p = probe(3, 1);
        assert_eq!(script(ProbeKind::Liveness, &p, "+-+--+---+"), "........F|");
        assert_eq!(script(ProbeKind::Startup, &p, "--+-"), "..S|");
        assert_eq!(script(ProbeKind::Startup, &p, "----"), "..F|");
    }

    #[test]
    fn waits_the_initial_delay_and_then_a_period() {
        let p = probe(3, 1);
        let mut state = ProbeState::new(ProbeKind::Readiness, &p, Timestamp::UNIX_EPOCH);
        let first = state.next().expect("due");
        assert_eq!(first.as_second(), 2);
        state.handle(first, &p, true);
        assert_eq!(state.next().expect("due").as_second(), 7);
    }
}
