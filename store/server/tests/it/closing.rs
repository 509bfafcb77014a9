//! A member is told to stop while clients use it.

use etcd_client::{Error, LockOptions, WatchOptions};
use tonic::Code;

use crate::cluster::Cluster;

const WRITERS: usize = 32;

/// Puts until the member has gone: what it acknowledged, and what it didn't.
async fn write(
    mut client: etcd_client::Client,
    writer: usize,
    begun: tokio::sync::mpsc::Sender<()>,
) -> (Vec<String>, String) {
    let mut acknowledged = Vec::new();
    loop {
        let key = format!("k{writer:02}-{}", acknowledged.len());
        if client.put(key.as_str(), "v", None).await.is_err() {
            return (acknowledged, key);
        }
        acknowledged.push(key);
        if acknowledged.len() == 10 {
            begun.send(()).await.expect("a waiting test");
        }
    }
}

/// Stops the leader, or one that follows, under writers.
async fn nobody_is_left_in_doubt(stops_leader: bool) {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let stopped = if stops_leader { leader } else { (leader + 1) % 3 };
    let client = cluster.client(stopped).await;
    let (begun, mut all_begun) = tokio::sync::mpsc::channel(WRITERS);
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(client.clone(), writer, begun.clone()))).collect();
    for _ in 0..WRITERS {
        all_begun.recv().await.expect("ten acknowledged writes of each");
    }
    cluster.stop(stopped).await;
    let mut reader = cluster.client((stopped + 1) % 3).await;
    for writer in writers {
        let (acknowledged, refused) = writer.await.expect("no panic");
        for key in acknowledged {
            assert_eq!(reader.get(key.as_str(), None).await.expect("a read").count(), 1, "{key} was acknowledged");
        }
        assert_eq!(reader.get(refused.as_str(), None).await.expect("a read").count(), 0, "{refused} was refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_lets_in_is_answered_before_it_goes() {
    nobody_is_left_in_doubt(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_follower_lets_in_is_answered_before_it_goes() {
    nobody_is_left_in_doubt(false).await;
}

fn code(error: &Error) -> (Code, &str) {
    match error {
        Error::GRpcStatus(status) => (status.code(), status.message()),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_all_that_happened_before() {
    let mut cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    let mut watch = client.watch("k", Some(WatchOptions::new().with_prefix())).await.expect("a watcher");
    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    let (_keeper, mut kept) = client.lease_keep_alive(lease).await.expect("a stream");
    for n in 0..100 {
        client.put(format!("k{n}"), "v", None).await.expect("a put");
    }
    cluster.stop(0).await;
    let (mut events, stopped) = (0, (Code::Unavailable, "etcdserver: server stopped"));
    let end = loop {
        match watch.message().await {
            Ok(answer) => events += answer.expect("an end with a reason").events().len(),
            Err(error) => break error,
        }
    };
    assert_eq!((events, code(&end)), (100, stopped));
    let end = loop {
        match kept.message().await {
            Ok(answer) => assert!(answer.is_some(), "an end with a reason"),
            Err(error) => break error,
        }
    };
    assert_eq!(code(&end), stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_ever_is_broken_off() {
    let mut cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    client.lock("l", Some(LockOptions::new())).await.expect("the lock");
    let mut waiting = client.clone();
    let waits = tokio::spawn(async move { waiting.lock("l", Some(LockOptions::new())).await });
    // The lock's own key, and the one of who waits.
    let prefix = etcd_client::GetOptions::new().with_prefix();
    while client.get("l", Some(prefix.clone())).await.expect("a read").count() < 2 {
        tokio::task::yield_now().await;
    }
    cluster.stop(0).await;
    assert!(waits.await.expect("no panic").is_err());
}
