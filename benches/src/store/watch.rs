//! Watchers, and one writer whose writes they wait for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etcd_client::{Client, WatchOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::load::{Load, kind};
use super::report::Measured;
use super::{CONNECT_MAX, OPERATION_MAX};

/// Watchers may lag so far behind the last write before what is missing counts as lost.
const LAG_MAX: Duration = Duration::from_secs(5);

/// Runs watchers until they have seen every write.
pub(super) async fn run(load: &Arc<Load>, connections: &[Client], watchers: u16) -> Result<Measured> {
    let origin = Instant::now();
    // How many writes there were, once that is known.
    let (written, _) = watch::channel(None);
    let mut tasks = JoinSet::new();
    for client in connections.iter().cycle().take(usize::from(watchers)).cloned() {
        let stream = open(load, client).await?;
        tasks.spawn(watcher(Arc::clone(load), stream, origin, written.subscribe()));
    }
    let (count, mut all) = writer(load, connections[0].clone(), origin).await;
    written.send_replace(Some(count));
    while let Some(result) = tasks.join_next().await {
        all.add(&result?);
    }
    Ok(all)
}

async fn open(load: &Load, mut client: Client) -> Result<etcd_client::WatchStream> {
    let opening = client.watch(load.prefix(), Some(WatchOptions::new().with_prefix()));
    let mut stream = tokio::time::timeout(CONNECT_MAX, opening).await.context("no answer to a watch")??;
    // The first message says that it is established; a write before it would be missed.
    tokio::time::timeout(CONNECT_MAX, stream.message()).await.context("a watch isn't established")??;
    Ok(stream)
}

/// Writes one after the other; each value begins with the time at which it was sent.
async fn writer(load: &Load, mut client: Client, origin: Instant) -> (u64, Measured) {
    let (mut rng, mut measured, mut count) = (load.rng(0), Measured::new(), 0);
    let deadline = Instant::now() + load.time;
    while Instant::now() < deadline && load.take() {
        let (key, mut value) = (load.random_key(&mut rng), load.value(&mut rng));
        value[..8].copy_from_slice(&since(origin).to_le_bytes());
        match tokio::time::timeout(OPERATION_MAX, client.put(key, value, None)).await {
            Ok(Ok(_)) => count += 1,
            // Made or not: nobody can say how many events to wait for, so the run ends here.
            Ok(Err(error)) => {
                measured.fail(format!("writing: {}", kind(&error)));
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
    mut stream: etcd_client::WatchStream,
    origin: Instant,
    mut written: watch::Receiver<Option<u64>>,
) -> Measured {
    let (mut measured, mut seen) = (Measured::new(), 0u64);
    let mut goal = None;
    while goal.is_none_or(|goal| seen < goal) {
        let message = tokio::select! {
            message = stream.message() => message,
            changed = written.changed(), if goal.is_none() => {
                goal = changed.ok().and(*written.borrow()).or(Some(seen));
                continue;
            }
            () = tokio::time::sleep(LAG_MAX), if goal.is_some() => {
                measured.fail(format!("{} events missing after {LAG_MAX:?}", goal.unwrap_or(0) - seen));
                break;
            }
        };
        let Ok(Some(response)) = message else {
            measured.fail("a watch ended".to_owned());
            break;
        };
        let now = since(origin);
        for event in response.events() {
            let sent = event.kv().and_then(|kv| kv.value().get(..8)?.try_into().ok()).map(u64::from_le_bytes);
            if let Some(sent) = sent {
                seen += 1;
                measured.record(Duration::from_nanos(now.saturating_sub(sent)));
                load.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    measured
}

fn since(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
