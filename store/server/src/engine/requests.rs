//! Requests under way: each is proposed, waits for its command to be applied, and is answered once (E1).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use store_core::auth::Asker;
use store_core::errors::RequestError;
use store_core::wire::{Command, MemberChange, command::Request};
use store_shared::Refused;
use tokio::sync::oneshot;

use super::{Engine, Input, Outcome};
use crate::slow::Phases;

/// Requests that wait for their command to be applied, and their bytes.
pub(super) const WAITING_MAX: usize = 20_000;
pub(super) const WAITING_BYTES_MAX: usize = 256 << 20;
/// Pause before a dropped proposal is made again.
const PROPOSE_PAUSE: Duration = Duration::from_millis(20);

/// How long a request may take before its outcome counts as unknown: disks may be slow, and a leader may be lost and
/// another elected meanwhile. Source: etcd `ServerConfig.ReqTimeout`.
pub(super) fn patience(election_timeout: Duration) -> Duration {
    Duration::from_secs(5) + 2 * election_timeout
}

/// How somebody who waits for a command is told its outcome, and how long the state took for it.
pub(super) type Answering = oneshot::Sender<(Outcome, Duration)>;

impl Engine {
    /// Commits somebody's request and returns its answer (E1).
    pub(crate) async fn propose(&self, asker: &Asker, request: Request) -> Outcome {
        store_core::mvcc::check::request(&request, usize::MAX)?;
        self.check_space(&request).await?;
        self.commit(asker, Command { request: Some(request), ..Command::default() }).await
    }

    /// Commits a change of members that raft needn't know of.
    pub(crate) async fn propose_member(&self, asker: &Asker, change: MemberChange) -> Outcome {
        self.commit(asker, Command { member: Some(change), ..Command::default() }).await
    }

    pub(super) async fn commit(&self, asker: &Asker, mut command: Command) -> Outcome {
        asker.sign(&mut command);
        let request_id = self.next_request.fetch_add(1, Ordering::Relaxed);
        command.request_id = request_id;
        let encoded = Bytes::from(command.encode_to_vec());
        let bytes = u32::try_from(encoded.len()).map_err(|_| RequestError::TooLarge)?;
        // Who would have to wait is told at once: proposals wait for disks, and more of them help nobody.
        let _bytes = self.waiting_bytes.try_acquire_many(bytes).map_err(|_| RequestError::Busy)?;
        let input = |dropped| Input::Propose { command: encoded.clone(), dropped };
        let (outcome, phases) = self.until_applied(request_id, input).await;
        self.slow.command(&command, &phases);
        outcome
    }

    /// Proposes until it isn't dropped, and waits until it is applied; says what was waited for.
    pub(super) async fn until_applied(
        &self,
        request_id: u64,
        input: impl Fn(oneshot::Sender<()>) -> Input,
    ) -> (Outcome, Phases) {
        let (begun, mut phases) = (Instant::now(), Phases::default());
        let outcome = self.until_told(request_id, input, &mut phases).await;
        phases.consensus = begun.elapsed().saturating_sub(phases.leader + phases.apply);
        (outcome, phases)
    }

    async fn until_told(
        &self,
        request_id: u64,
        input: impl Fn(oneshot::Sender<()>) -> Input,
        phases: &mut Phases,
    ) -> Outcome {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            let leaderless = Instant::now();
            let led = self.wait_for_leader(deadline).await;
            phases.leader += leaderless.elapsed();
            led?;
            let (told, answer) = oneshot::channel();
            let leaders = self.waiting.begin(request_id, told).map_err(refusal)?;
            let _forget = Forget { engine: self, request_id };
            let (dropped, was_dropped) = oneshot::channel();
            if !self.send(input(dropped)) {
                return Err(RequestError::Busy);
            }
            tokio::select! {
                answer = answer => {
                    let (outcome, applying) = answer.unwrap_or((Err(RequestError::Stopped), Duration::ZERO));
                    phases.apply = applying;
                    return outcome;
                }
                Ok(()) = was_dropped => {}
                () = tokio::time::sleep_until(deadline) => {
                    self.metrics.failed_proposals.inc();
                    let is_same = self.waiting.leaders() == leaders;
                    return Err(if is_same { RequestError::Timeout } else { RequestError::LeaderFailed });
                }
            }
            // Dropped for want of a leader: certainly not made, so it may be tried again.
            tokio::time::sleep(PROPOSE_PAUSE).await;
        }
    }

    pub(super) async fn wait_for_leader(&self, deadline: tokio::time::Instant) -> Result<(), RequestError> {
        if self.position_now().leader != 0 {
            return Ok(());
        }
        let mut position = self.position.subscribe();
        let found = tokio::time::timeout_at(deadline, position.wait_for(|p| p.leader != 0)).await;
        match found {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(RequestError::Stopped),
            // In etcd's words: only who asks for it is told that there is no leader.
            Err(_) => Err(RequestError::Timeout),
        }
    }

    /// Waits until a read of the state is linearizable (E2).
    pub(crate) async fn linearize(&self) -> Result<(), RequestError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        self.wait_for_leader(deadline).await?;
        let (sender, ready) = oneshot::channel();
        if !self.send(Input::Read(sender)) {
            return Err(RequestError::Busy);
        }
        match tokio::time::timeout_at(deadline, ready).await {
            Ok(result) => result.unwrap_or(Err(RequestError::Stopped)),
            Err(_) => {
                self.metrics.failed_read_indexes.inc();
                Err(RequestError::Timeout)
            }
        }
    }

    /// Requests that wait for their command to be applied.
    pub(crate) fn pending(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn answer(&self, request_id: u64, outcome: Outcome, applying: Duration) {
        if let Some(told) = self.waiting.take(request_id) {
            // The client may have gone.
            let _ = told.send((outcome, applying));
        }
    }

    /// Another leads, or nobody: what was proposed before may be lost or made.
    pub(super) fn leader_changed(&self) {
        self.waiting.leader_changed();
    }

    /// All that leaders before this one had in their logs is decided: who still waits for them won't learn his outcome.
    /// That it was lost isn't sure: it may be on its way to a leader yet.
    pub(super) fn fail_older(&self) {
        for told in self.waiting.take_older() {
            self.metrics.failed_proposals.inc();
            let _ = told.send((Err(RequestError::LeaderFailed), Duration::ZERO));
        }
    }

    /// Nobody will be answered any more: everybody who waits learns that the outcome is unknown, and nobody begins to wait.
    pub(super) fn fail_waiting(&self, error: RequestError) {
        for told in self.waiting.close() {
            self.metrics.failed_proposals.inc();
            let _ = told.send((Err(error), Duration::ZERO));
        }
    }
}

fn refusal(refused: Refused) -> RequestError {
    match refused {
        Refused::Full => RequestError::Busy,
        Refused::Closed => RequestError::Stopped,
    }
}

/// Takes a request's place back when its client goes.
struct Forget<'a> {
    engine: &'a Engine,
    request_id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        // Gave up, or was told already.
        self.engine.waiting.take(self.request_id);
    }
}
