//! Leader election: the requests that `controllers_core::election` asks for, and who acts begun and ended.
//!
//! Invariants
//!   L1  Who acts is ended, with all that it has on its way, before anything else that the election asks for is done.
//!   L2  A [`Reign`] says "may act" only before the time that the election named, by a clock that never goes back.
//! The clock is Linux's CLOCK_MONOTONIC, as client-go's: it stands still while the machine is suspended, and a leader that
//! sleeps so doesn't know for how long. Its writes name versions and uids; nothing else guards then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use controllers_core::election::{Action, Election, Input, Now, Record, Stored, Timing};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Where kube-controller-manager has its lease, by name and place.
const NAME: &str = "kube-controller-manager";
const NAMESPACE: &str = "kube-system";
/// How long the lease's release may hold up an end.
const RELEASE_MAX: Duration = Duration::from_secs(2);

/// Until when who acts may write. Once it is over, it is over for good: the next reign is another.
#[derive(Debug, Clone)]
pub(crate) struct Reign {
    clock: Clock,
    /// Milliseconds of the clock.
    until: Arc<AtomicU64>,
}

impl Reign {
    /// Of one that has no rivals.
    pub(crate) fn without_end() -> Self {
        Self { clock: Clock(Instant::now()), until: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    fn none(clock: Clock) -> Self {
        Self { clock, until: Arc::default() }
    }

    /// L2: asked before each write, as the process may have stood still since anything else was looked at.
    pub(crate) fn may_act(&self) -> bool {
        self.clock.ms() < self.until.load(Ordering::Acquire)
    }
}

/// Takes part in the election until `shutdown`. Whenever it is won, `act` runs until its token is cancelled, which
/// it is when the election is lost; then this is a candidate again.
pub(crate) async fn run<F>(
    client: Client,
    timing: Timing,
    shutdown: CancellationToken,
    act: impl Fn(Reign, CancellationToken) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let identity = identity();
    tracing::debug!(identity, "a candidate for {NAMESPACE}/{NAME}");
    let mut candidate = Candidate {
        election: Election::new(timing, identity),
        clock: Clock(Instant::now()),
        lease: Place { leases: Api::namespaced(client, NAMESPACE), seen: None },
        asked: None,
        acting: None,
    };
    let mut end: Option<tokio::time::Instant> = None;
    let mut input = Input::Wake;
    loop {
        candidate.step(input, &act).await;
        if candidate.election.is_done() {
            return;
        }
        input = tokio::select! {
            () = shutdown.cancelled(), if end.is_none() => {
                end = Some(tokio::time::Instant::now() + RELEASE_MAX);
                Input::Release
            }
            () = until(end), if end.is_some() => return,
            input = candidate.next() => input,
        };
    }
}

async fn until(end: Option<tokio::time::Instant>) {
    if let Some(end) = end {
        tokio::time::sleep_until(end).await;
    }
}

/// A name that no other process ever has, as client-go makes it: the host's and a random one.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), Uuid::new_v4())
}

/// The election's clock.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Who acts, while it does.
struct Acting {
    reign: Reign,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Candidate {
    election: Election,
    clock: Clock,
    lease: Place,
    /// What is on its way.
    asked: Option<JoinHandle<(Input, Option<Lease>)>>,
    acting: Option<Acting>,
}

impl Candidate {
    async fn step<F>(&mut self, input: Input, act: &impl Fn(Reign, CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let now = Now { ms: self.clock.ms(), unix_us: Timestamp::now().as_microsecond() };
        // By chance, as far as it goes: uuids are random, and this is asked for once in seconds.
        let jitter = u16::try_from(Uuid::new_v4().as_u128() % 1000).unwrap_or(0);
        for action in self.election.step(now, jitter, input) {
            match action {
                Action::Lead => {
                    tracing::info!("leading: the controllers begin");
                    let (reign, stop) = (Reign::none(self.clock), CancellationToken::new());
                    let task = tokio::spawn(act(reign.clone(), stop.clone()));
                    self.acting = Some(Acting { reign, stop, task });
                }
                Action::StopLeading => self.stop_leading().await,
                Action::Read => self.ask(None),
                Action::Create(record) => self.ask(Some((record, None))),
                Action::Update { record, version } => self.ask(Some((record, Some(version)))),
            }
        }
        if let (Some(acting), Some(until)) = (&self.acting, self.election.acts_until()) {
            acting.reign.until.store(until, Ordering::Release);
        }
    }

    /// L1.
    async fn stop_leading(&mut self) {
        let Some(acting) = self.acting.take() else { return };
        acting.reign.until.store(0, Ordering::Release);
        acting.stop.cancel();
        end_of(acting.task.await);
        tracing::info!(holder = self.election.holder(), "not leading any more: the controllers have ended");
    }

    fn ask(&mut self, write: Option<(Record, Option<String>)>) {
        let (place, answer_max) = (self.lease.clone(), Duration::from_millis(self.election.answer_max_ms()));
        self.asked = Some(tokio::spawn(async move {
            match tokio::time::timeout(answer_max, place.ask(write)).await {
                Ok(answered) => answered,
                Err(_) => (Input::Failed, None),
            }
        }));
    }

    /// What happens next: an answer, or that a time has come.
    async fn next(&mut self) -> Input {
        let wake = self.election.wake_at().map(|at| Duration::from_millis(at.saturating_sub(self.clock.ms())));
        let answer = async {
            match &mut self.asked {
                Some(asked) => asked.await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            match &mut self.acting {
                Some(acting) => (&mut acting.task).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answered = answer => {
                self.asked = None;
                let (input, seen) = answered.unwrap_or((Input::Failed, None));
                self.lease.seen = seen.or_else(|| self.lease.seen.take());
                input
            }
            // They end by a fault alone: then so does this, as it did without an election.
            result = ended => {
                end_of(result);
                self.acting = None;
                Input::Release
            }
            () = tokio::time::sleep(wake.unwrap_or(Duration::from_secs(3600))) => Input::Wake,
        }
    }
}

/// What panicked goes on to panic.
fn end_of(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// The lease in the API.
#[derive(Clone)]
struct Place {
    leases: Api<Lease>,
    /// As it was last: what else is written on it stays.
    seen: Option<Lease>,
}

impl Place {
    /// Reads the lease, or writes it: over a version, or as a new one.
    async fn ask(self, write: Option<(Record, Option<String>)>) -> (Input, Option<Lease>) {
        let Some((record, version)) = write else {
            return match self.leases.get_opt(NAME).await {
                Ok(found) => (Input::Read(found.as_ref().map(stored)), found),
                Err(error) => failed(&error),
            };
        };
        let is_new = version.is_none();
        let lease = written(self.seen.filter(|_| !is_new), version, record);
        let written = if is_new {
            self.leases.create(&PostParams::default(), &lease).await
        } else {
            self.leases.replace(NAME, &PostParams::default(), &lease).await
        };
        match written {
            Ok(lease) => (Input::Written(stored(&lease)), Some(lease)),
            // Not what it was, or there already.
            Err(kube::Error::Api(status)) if status.code == 409 => (Input::Refused, None),
            // Gone. Where it was to be created, the namespace is missing: that is no matter of who came first.
            Err(kube::Error::Api(status)) if status.code == 404 && !is_new => (Input::Refused, None),
            Err(error) => failed(&error),
        }
    }
}

fn failed(error: &kube::Error) -> (Input, Option<Lease>) {
    tracing::debug!(%error, "the lease of {NAMESPACE}/{NAME} wasn't answered");
    (Input::Failed, None)
}

fn stored(lease: &Lease) -> Stored {
    let spec = lease.spec.clone().unwrap_or_default();
    let time = |time: Option<MicroTime>| time.map_or(0, |time| time.0.as_microsecond());
    let record = Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration_seconds: spec.lease_duration_seconds.unwrap_or(0),
        acquired_us: time(spec.acquire_time),
        renewed_us: time(spec.renew_time),
        transitions: spec.lease_transitions.unwrap_or(0),
    };
    Stored { record, version: lease.metadata.resource_version.clone().unwrap_or_default() }
}

/// The lease as it is to be. The version guards it: without one the API would write over whatever is there.
fn written(seen: Option<Lease>, version: Option<String>, record: Record) -> Lease {
    let mut lease = seen.unwrap_or_default();
    lease.metadata.name = Some(NAME.to_owned());
    lease.metadata.namespace = Some(NAMESPACE.to_owned());
    lease.metadata.resource_version = version;
    let time = |us: i64| Timestamp::from_microsecond(us).ok().map(MicroTime);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(record.holder),
        lease_duration_seconds: Some(record.duration_seconds),
        acquire_time: time(record.acquired_us),
        renew_time: time(record.renewed_us),
        lease_transitions: Some(record.transitions),
        ..lease.spec.unwrap_or_default()
    });
    lease
}

#[cfg(test)]
mod tests;
