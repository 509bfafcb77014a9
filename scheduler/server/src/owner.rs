//! The owner: one task that holds the state; bindings and conditions are written beside it.
//!
//! Invariants
//!   O1  Nothing is decided before everything was listed once: pods would go where others are.
//!   O2  At most `binds_max` bindings and [`TELLS_MAX`] conditions are on their way at once.
//!   O3  Of conditions that wait, only the last of each pod is kept.
//!   O4  A pod's binding and a condition that denies it are never on their way together: the condition
//!       could arrive last.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use scheduler_core::state::{Act, BindFailure, State, Tell, place, uid};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::events::Event;
use crate::watch::{KINDS, Told};
use crate::write;

/// Conditions written at once.
const TELLS_MAX: usize = 16;
/// What is taken in before something else gets its turn.
const BATCH_MAX: usize = 64;
/// How often pods that waited for too long are looked for.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// The longest a binding or condition may take: without an answer nobody knows what became of it.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// A binding that was answered.
struct Bound {
    pod: Arc<Pod>,
    node: String,
    /// The revision at which it was made, if that was told.
    result: Result<Option<u64>, BindFailure>,
}

/// Conditions to be written, by pod: O3.
#[derive(Default)]
struct Waiting {
    turns: VecDeque<String>,
    tells: HashMap<String, Tell>,
}

impl Waiting {
    fn put(&mut self, tell: Tell) {
        let uid = uid(&tell.pod).to_owned();
        if self.tells.insert(uid.clone(), tell).is_none() {
            self.turns.push_back(uid);
        }
    }

    fn take(&mut self) -> Option<Tell> {
        let uid = self.turns.pop_front()?;
        self.tells.remove(&uid)
    }
}

pub(crate) struct Owner {
    client: Client,
    config: Config,
    state: State,
    events: mpsc::Sender<Event>,
    waiting: Waiting,
    /// O4: pods whose condition is being written, and the node each is to be bound to afterwards, with what was known.
    telling: HashMap<String, Option<(String, u64)>>,
    unlisted: usize,
    begun: Instant,
}

impl Owner {
    pub(crate) fn new(client: Client, config: Config, events: mpsc::Sender<Event>) -> Self {
        Self {
            state: State::new(config.scheduler_name.clone()),
            client,
            config,
            events,
            waiting: Waiting::default(),
            telling: HashMap::new(),
            unlisted: KINDS,
            begun: Instant::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Works until shutdown.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Told>, shutdown: CancellationToken) {
        let mut binds: JoinSet<Bound> = JoinSet::new();
        let mut tells: JoinSet<(Tell, bool)> = JoinSet::new();
        let mut flush = tokio::time::interval(FLUSH_EVERY);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.write_conditions(&mut tells);
            // Bindings that are held back are fewer than TELLS_MAX.
            let free = self.unlisted == 0 && binds.len() < self.config.binds_max;
            let ready = free && self.state.ready(self.now_ms());
            let due = if free { self.state.next_due() } else { None };
            let wait = due.map_or(FLUSH_EVERY, |due| Duration::from_millis(due.saturating_sub(self.now_ms())));
            // The branches are tried in random order, so that none starves another.
            tokio::select! {
                () = shutdown.cancelled() => return,
                told = inbox.recv() => match told {
                    Some(told) => self.hear(told, &mut inbox),
                    None => return,
                },
                Some(bound) = binds.join_next() => if let Ok(bound) = bound {
                    self.finish(bound);
                },
                Some(told) = tells.join_next() => if let Ok((tell, written)) = told {
                    self.told(&tell, written, &mut binds);
                },
                () = std::future::ready(()), if ready => self.decide(&mut binds),
                () = tokio::time::sleep(wait), if !ready => {}
                _ = flush.tick() => {
                    let now = self.now_ms();
                    self.state.flush(now);
                    let (waiting, assumed) = self.state.counts();
                    tracing::debug!(waiting, assumed, binding = binds.len(), "scheduling");
                }
            }
        }
    }

    /// Takes in what waits, up to a batch.
    fn hear(&mut self, first: Told, inbox: &mut mpsc::Receiver<Told>) {
        self.take_in(first);
        for _ in 1..BATCH_MAX {
            let Ok(told) = inbox.try_recv() else { return };
            self.take_in(told);
        }
    }

    fn take_in(&mut self, told: Told) {
        match told {
            Told::Listed => self.unlisted = self.unlisted.saturating_sub(1),
            Told::Seen(seen) => {
                let now = self.now_ms();
                let act = self.state.see(seen, now);
                self.tell(act);
            }
        }
    }

    fn write_conditions(&mut self, tells: &mut JoinSet<(Tell, bool)>) {
        while tells.len() < TELLS_MAX
            && let Some(tell) = self.waiting.take()
        {
            if !self.state.waits(&tell.pod) {
                // O4: it is being bound.
                self.state.unsaid(&tell.pod);
                continue;
            }
            let client = self.client.clone();
            self.telling.insert(uid(&tell.pod).to_owned(), None);
            tells.spawn(async move { (tell.clone(), written(&client, &tell).await) });
        }
    }

    fn told(&mut self, tell: &Tell, written: bool, binds: &mut JoinSet<Bound>) {
        if !written {
            self.state.unsaid(&tell.pod);
        }
        if let Some(Some((node, known))) = self.telling.remove(uid(&tell.pod)) {
            self.bind(tell.pod.clone(), node, known, binds);
        }
    }

    fn decide(&mut self, binds: &mut JoinSet<Bound>) {
        let now = self.now_ms();
        match self.state.decide(now) {
            Some(Act::Bind { pod, node, known }) => match self.telling.get_mut(uid(&pod)) {
                Some(later) => *later = Some((node, known)),
                None => self.bind(pod, node, known, binds),
            },
            other => self.tell(other),
        }
    }

    fn bind(&self, pod: Arc<Pod>, node: String, known: u64, binds: &mut JoinSet<Bound>) {
        let client = self.client.clone();
        binds.spawn(async move {
            let bind = write::bind(&client, &pod, &node, known);
            let result = match tokio::time::timeout(WRITE_MAX, bind).await {
                Ok(result) => result,
                Err(_) => Err(BindFailure::Unanswered("the binding was not answered".to_owned())),
            };
            Bound { pod, node, result }
        });
    }

    fn finish(&mut self, bound: Bound) {
        let now = self.now_ms();
        if bound.result.is_ok() {
            let message = format!("Successfully assigned {} to {}", place(&bound.pod), bound.node);
            self.event(Event { pod: bound.pod.clone(), kind: "Normal", reason: "Scheduled", message });
        }
        let act = self.state.bound(&bound.pod, &bound.node, bound.result, now);
        self.tell(act);
    }

    fn tell(&mut self, act: Option<Act>) {
        let tell = match act {
            Some(Act::Tell(tell)) => tell,
            Some(Act::Warn(warning)) => {
                tracing::warn!("{warning}");
                return;
            }
            Some(Act::Bind { .. }) | None => return,
        };
        if tell.event {
            let (pod, message) = (tell.pod.clone(), tell.message.clone());
            self.event(Event { pod, kind: "Warning", reason: "FailedScheduling", message });
        }
        if tell.condition {
            self.waiting.put(tell);
        }
    }

    fn event(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            tracing::debug!("too many events wait; one was dropped");
        }
    }
}

async fn written(client: &Client, tell: &Tell) -> bool {
    match tokio::time::timeout(WRITE_MAX, write::tell(client, tell)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(pod = place(&tell.pod), %error, "a condition wasn't written");
            false
        }
        Err(_) => false,
    }
}
