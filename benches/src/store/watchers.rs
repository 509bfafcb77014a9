//! Many watchers on few streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use etcd_client::{Client, WatchOptions, WatchStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::load::Load;
use super::operation::after_prefix;
use super::report::Measured;
use super::{Args, CONNECT_MAX, OPERATION_MAX};

/// Watchers may lag so far behind the last write before what is missing counts as lost.
pub(super) const LAG_MAX: Duration = Duration::from_secs(5);
/// Between two looks at how far they are.
const PAUSE: Duration = Duration::from_millis(5);

/// Watchers that read until they are told to stop.
pub(super) struct Watchers {
    seen: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    reading: JoinSet<Measured>,
}

impl Watchers {
    /// Each watches its share of the keys, so that each write is an event for one of them.
    pub(super) async fn of_shares(load: &Load, clients: &[Client], args: &Args) -> Result<Self> {
        let (keys, watchers) = (u64::from(load.keys.count()), u64::from(args.watchers));
        if watchers > keys {
            bail!("{watchers} watchers can't share {keys} keys");
        }
        let share = |number: u64| {
            let bound = |number: u64| load.keys.key((number * keys / watchers) as u32);
            let end = if number + 1 == watchers { after_prefix(load.keys.prefix()) } else { bound(number + 1) };
            (bound(number), end)
        };
        Self::open(clients, args, None, share).await
    }

    /// Each watches all keys. Values begin with the time since `origin` at which they were sent.
    pub(super) async fn of_all(load: &Load, clients: &[Client], args: &Args, origin: Instant) -> Result<Self> {
        let all = |_| (load.keys.prefix().to_vec(), after_prefix(load.keys.prefix()));
        Self::open(clients, args, Some(origin), all).await
    }

    async fn open(
        clients: &[Client],
        args: &Args,
        origin: Option<Instant>,
        range: impl Fn(u64) -> (Vec<u8>, Vec<u8>),
    ) -> Result<Self> {
        let (stop, _) = watch::channel(false);
        let (seen, mut reading) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let mut first = 0;
        for client in clients.iter().cycle() {
            let last = (first + args.watchers_per_stream).min(args.watchers);
            if first == last {
                break;
            }
            let ranges: Vec<_> = (first..last).map(|number| range(u64::from(number))).collect();
            let stream = tokio::time::timeout(OPERATION_MAX, watch_all(client.clone(), ranges)).await;
            let stream = stream.context("watches aren't established")??;
            reading.spawn(read(stream, origin, Arc::clone(&seen), stop.subscribe()));
            first = last;
        }
        Ok(Self { seen, stop, reading })
    }

    /// Events that arrived up to now.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Waits for so many events, no longer than told, and stops; what arrived, and times or failures.
    pub(super) async fn finish(mut self, goal: u64, patience: Duration) -> Result<(u64, Measured)> {
        let deadline = Instant::now() + patience;
        while self.seen() < goal && Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
        let seen = self.seen();
        self.stop.send_replace(true);
        let mut all = Measured::new();
        while let Some(one) = self.reading.join_next().await {
            all.add(&one?);
        }
        if seen < goal && !patience.is_zero() {
            all.fail(format!("{} events missing after {patience:?}", goal - seen));
        }
        Ok((seen, all))
    }
}

/// Opens a stream and watches each range on it.
async fn watch_all(mut client: Client, ranges: Vec<(Vec<u8>, Vec<u8>)>) -> Result<WatchStream> {
    let count = ranges.len();
    let mut ranges = ranges.into_iter().map(|(from, end)| (from, WatchOptions::new().with_range(end)));
    let (from, options) = ranges.next().context("no range to watch")?;
    let opening = client.watch(from, Some(options));
    let mut stream = tokio::time::timeout(CONNECT_MAX, opening).await.context("no answer to a watch")??;
    // Each is answered before the next is asked for: no write may come before all are there.
    for number in 0..count {
        let answer = stream.message().await?.context("a stream ended")?;
        if !answer.created() || answer.canceled() {
            bail!("watch {number} isn't established: {}", answer.cancel_reason());
        }
        if let Some((from, options)) = ranges.next() {
            stream.watch(from, Some(options)).await?;
        }
    }
    Ok(stream)
}

async fn read(
    mut stream: WatchStream,
    origin: Option<Instant>,
    seen: Arc<AtomicU64>,
    mut stop: watch::Receiver<bool>,
) -> Measured {
    let mut measured = Measured::new();
    loop {
        let message = tokio::select! {
            biased;
            _ = stop.changed() => return measured,
            message = stream.message() => message,
        };
        let Ok(Some(response)) = message else {
            measured.fail("a watch ended".to_owned());
            return measured;
        };
        if response.canceled() {
            measured.fail(format!("a watcher was cancelled: {}", response.cancel_reason()));
        }
        seen.fetch_add(response.events().len() as u64, Ordering::Relaxed);
        let Some(origin) = origin else { continue };
        let now = since(origin);
        for event in response.events() {
            if let Some(sent) = event.kv().and_then(|kv| sent_at(kv.value())) {
                measured.record(Duration::from_nanos(now.saturating_sub(sent)));
            }
        }
    }
}

/// Nanoseconds.
pub(super) fn since(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Notes in a value that it is sent now.
pub(super) fn stamp(value: &mut [u8], origin: Instant) {
    value[..8].copy_from_slice(&since(origin).to_le_bytes());
}

/// When the value was sent.
pub(super) fn sent_at(value: &[u8]) -> Option<u64> {
    value.get(..8)?.try_into().ok().map(u64::from_le_bytes)
}
