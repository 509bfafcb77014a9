//! Many watchers on few streams.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::load::Load;
use super::operation::after_prefix;
use super::report::Measured;
use super::rpc::Channel;
use super::rpc::messages::Create;
use super::rpc::watching::{Said, Stream};
use super::{Args, OPERATION_MAX};

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
    pub(super) async fn of_shares(load: &Load, channels: &[Channel], args: &Args) -> Result<Self> {
        let (keys, watchers) = (u64::from(load.keys.count()), u64::from(args.watchers));
        if watchers > keys {
            bail!("{watchers} watchers can't share {keys} keys");
        }
        let share = |number: u64| {
            let bound = |number: u64| load.keys.key((number * keys / watchers) as u32);
            let end = if number + 1 == watchers { after_prefix(load.keys.prefix()) } else { bound(number + 1) };
            (bound(number), end)
        };
        Self::open(channels, args, None, share).await
    }

    /// Each watches all keys. Values begin with the time since `origin` at which they were sent.
    pub(super) async fn of_all(load: &Load, channels: &[Channel], args: &Args, origin: Instant) -> Result<Self> {
        let all = |_| (load.keys.prefix().to_vec(), after_prefix(load.keys.prefix()));
        Self::open(channels, args, Some(origin), all).await
    }

    async fn open(
        channels: &[Channel],
        args: &Args,
        origin: Option<Instant>,
        range: impl Fn(u64) -> (Vec<u8>, Vec<u8>),
    ) -> Result<Self> {
        let (stop, _) = watch::channel(false);
        let (seen, mut reading) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        let mut first = 0;
        for (turn, channel) in channels.iter().cycle().enumerate() {
            let last = (first + args.watchers_per_stream).min(args.watchers);
            if first == last {
                break;
            }
            let ranges = (first..last).map(|number| range(u64::from(number)));
            let stream = tokio::time::timeout(OPERATION_MAX, watch_all(channel, turn, ranges.collect())).await;
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

/// Opens a stream, at the member whose turn it is if it is there, and watches each range on it.
pub(super) async fn watch_all(channel: &Channel, turn: usize, ranges: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Stream> {
    let count = ranges.len();
    let mut ranges = ranges.into_iter().map(|(key, end)| Create { key, end });
    let first = ranges.next().context("no range to watch")?;
    let mut stream = channel.caller(turn).watch(first).await?;
    // Each is answered before the next is asked for: no write may come before all are there.
    for number in 0..count {
        established(&mut stream).await.with_context(|| format!("watch {number} isn't established"))?;
        if let Some(next) = ranges.next() {
            stream.ask(next)?;
        }
    }
    Ok(stream)
}

/// Waits until the store says that the watcher is there that was asked for last.
async fn established(stream: &mut Stream) -> Result<()> {
    let (mut created, mut canceled) = (false, None);
    while !created && canceled.is_none() {
        let said = |said: Said| {
            created |= said.created;
            canceled = canceled.take().or(said.canceled);
        };
        if !stream.read(|_| {}, said).await? {
            bail!("the stream ended");
        }
    }
    // A cancellation may be said together with the creation, or right behind it.
    canceled.map_or(Ok(()), |why| bail!("{why}"))
}

async fn read(
    mut stream: Stream,
    origin: Option<Instant>,
    seen: Arc<AtomicU64>,
    mut stop: watch::Receiver<bool>,
) -> Measured {
    let mut measured = Measured::new();
    loop {
        let (mut events, mut now, mut canceled) = (0, None, Vec::new());
        let event = |value: &[u8]| {
            events += 1;
            let Some(origin) = origin else { return };
            let now = *now.get_or_insert_with(|| since(origin));
            if let Some(sent) = sent_at(value) {
                measured.record(Duration::from_nanos(now.saturating_sub(sent)));
            }
        };
        let read = tokio::select! {
            biased;
            _ = stop.changed() => return measured,
            read = stream.read(event, |said| canceled.extend(said.canceled)) => read,
        };
        seen.fetch_add(events, Ordering::Relaxed);
        for why in canceled {
            measured.fail(format!("a watcher was cancelled: {why}"));
        }
        match read {
            Ok(true) => {}
            Ok(false) => {
                measured.fail("a watch ended".to_owned());
                return measured;
            }
            Err(error) => {
                measured.fail(format!("a watch ended: {error}"));
                return measured;
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
