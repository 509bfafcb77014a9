//! What is counted of what watchers are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Measured, read, watch_all};
use crate::store::rpc::watching::tests::{channel, member};

fn ranges(keys: &[&str]) -> Vec<(Vec<u8>, Vec<u8>)> {
    keys.iter().map(|key| (key.as_bytes().to_vec(), b"\0".to_vec())).collect()
}

/// Reads what such keys are answered with until that ends, or for a while; events seen.
async fn counted(keys: &[&str]) -> (u64, Measured) {
    let channel = channel(&[member().await.0]);
    let stream = watch_all(&channel, 0, ranges(keys)).await.expect("watchers");
    let (stop, stopped) = watch::channel(false);
    let seen = Arc::new(AtomicU64::new(0));
    let reading = tokio::spawn(read(stream, Some(Instant::now()), Arc::clone(&seen), stopped));
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.send_replace(true);
    let measured = reading.await.expect("it stops when told");
    (seen.load(Ordering::Relaxed), measured)
}

#[tokio::test]
async fn each_event_and_each_watcher_that_is_cancelled_counts() {
    let (seen, measured) = counted(&["overtaken"]).await;
    // Of the two events one has a time.
    assert_eq!((seen, measured.done()), (2, 1));
    let failures: Vec<_> = measured.errors.into_iter().collect();
    assert_eq!(failures, [("a watcher was cancelled: compacted".to_owned(), 2)]);
}

#[tokio::test]
async fn what_came_before_an_end_counts() {
    let (seen, measured) = counted(&["nonsense"]).await;
    assert_eq!((seen, measured.done(), measured.failed()), (1, 1, 1));
    let (seen, measured) = counted(&["end"]).await;
    assert_eq!((seen, measured.done(), measured.errors.get("a watch ended")), (0, 0, Some(&1)));
}

#[tokio::test]
async fn no_watcher_is_missing_at_the_beginning() {
    let endpoints = [member().await.0, member().await.0];
    let channel = channel(&endpoints);
    for (keys, why) in [
        (&["cancel"][..], "watch 0 isn't established: compacted"),
        (&["overtaken", "cancel"], "watch 1 isn't established: compacted"),
        (&["fail", "a"], "watch 1 isn't established: ResourceExhausted: too many"),
        (&["end", "a"], "watch 1 isn't established: the stream ended"),
    ] {
        let error = watch_all(&channel, 0, ranges(keys)).await.err().expect(why);
        assert_eq!(format!("{error:#}"), why);
    }
}

#[tokio::test]
async fn streams_begin_with_the_member_whose_turn_it_is() {
    let ((a, at_a), (b, at_b)) = (member().await, member().await);
    let channel = channel(&[a, b]);
    let mut streams = Vec::new();
    for (turn, expected) in [(0, (1, 0)), (2, (1, 0)), (1, (1, 1)), (3, (1, 1))] {
        streams.push(watch_all(&channel, turn, ranges(&["a"])).await.expect("a watcher"));
        assert_eq!((at_a.load(Ordering::Relaxed), at_b.load(Ordering::Relaxed)), expected, "turn {turn}");
    }
}
