//! Watchers, and one writer whose writes they wait for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::OPERATION_MAX;
use super::load::Load;
use super::operation::{Operator, after_prefix};
use super::report::Measured;
use super::rpc::Channel;
use super::rpc::watching::Stream;
use super::watchers::{LAG_MAX, sent_at, since, stamp, watch_all};

/// Runs watchers until they have seen every write.
pub(super) async fn run(load: &Arc<Load>, channel: &Channel, watched: &[Channel], watchers: u16) -> Result<Measured> {
    let origin = Instant::now();
    // How many writes there were, once that is known.
    let (written, _) = watch::channel(None);
    let mut tasks = JoinSet::new();
    for (turn, channel) in watched.iter().cycle().enumerate().take(usize::from(watchers)) {
        let all = (load.keys.prefix().to_vec(), after_prefix(load.keys.prefix()));
        let stream = tokio::time::timeout(OPERATION_MAX, watch_all(channel, turn, vec![all])).await;
        let stream = stream.context("a watch isn't established")??;
        tasks.spawn(watcher(Arc::clone(load), stream, origin, written.subscribe()));
    }
    let (count, mut all) = writer(load, Operator::new(Arc::clone(load), channel, 0), origin).await;
    written.send_replace(Some(count));
    while let Some(result) = tasks.join_next().await {
        all.add(&result?);
    }
    Ok(all)
}

/// Writes one after the other; each value begins with the time at which it was sent.
async fn writer(load: &Load, mut operator: Operator, origin: Instant) -> (u64, Measured) {
    let (mut measured, mut count) = (Measured::new(), 0);
    let deadline = Instant::now() + load.time;
    while Instant::now() < deadline && load.take().is_some() {
        let (number, mut value) = (operator.random_key(), operator.value());
        stamp(&mut value, origin);
        match tokio::time::timeout(OPERATION_MAX, operator.put_value(number, value)).await {
            Ok(Ok(())) => count += 1,
            // Made or not: nobody can say how many events to wait for, so the run ends here.
            Ok(Err(error)) => {
                measured.fail(format!("writing: {error}"));
                break;
            }
            Err(_) => {
                measured.fail(format!("writing: no answer within {OPERATION_MAX:?}"));
                break;
            }
        }
    }
    (count, measured)
}

async fn watcher(
    load: Arc<Load>,
    mut stream: Stream,
    origin: Instant,
    mut written: watch::Receiver<Option<u64>>,
) -> Measured {
    let (mut measured, mut seen) = (Measured::new(), 0u64);
    let mut goal = None;
    while goal.is_none_or(|goal| seen < goal) {
        let (mut events, mut now) = (0, None);
        let event = |value: &[u8]| {
            let now = *now.get_or_insert_with(|| since(origin));
            if let Some(sent) = sent_at(value) {
                events += 1;
                measured.record(Duration::from_nanos(now.saturating_sub(sent)));
            }
        };
        let read = tokio::select! {
            read = stream.read(event, |_| {}) => read,
            changed = written.changed(), if goal.is_none() => {
                goal = changed.ok().and(*written.borrow()).or(Some(seen));
                continue;
            }
            () = tokio::time::sleep(LAG_MAX), if goal.is_some() => {
                measured.fail(format!("{} events missing after {LAG_MAX:?}", goal.unwrap_or(0) - seen));
                break;
            }
        };
        seen += events;
        load.done.fetch_add(events, Ordering::Relaxed);
        match read {
            Ok(true) => {}
            Ok(false) => {
                measured.fail("a watch ended".to_owned());
                break;
            }
            Err(error) => {
                measured.fail(format!("a watch ended: {error}"));
                break;
            }
        }
    }
    measured
}
