//! A leader goes; what it acknowledged stays.

use etcd_client::GetOptions;

use crate::cluster::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_the_leader() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let follower = (leader + 1) % 3;
    let mut client = cluster.client(follower).await;
    let (under_way, begun) = tokio::sync::oneshot::channel();
    let mut under_way = Some(under_way);
    let writer = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for n in 0..200 {
            // An unknown outcome is not an acknowledgement; the next write goes on.
            if client.put(format!("k{n:03}"), "v", None).await.is_ok() {
                acknowledged.push(format!("k{n:03}"));
            }
            if acknowledged.len() == 20
                && let Some(under_way) = under_way.take()
            {
                under_way.send(()).expect("a waiting test");
            }
        }
        acknowledged
    });
    begun.await.expect("twenty acknowledged writes");
    cluster.stop(leader).await;
    let acknowledged = writer.await.expect("no panic");
    assert!(acknowledged.len() > 100, "writes resumed: {}", acknowledged.len());
    let mut reader = cluster.client((leader + 2) % 3).await;
    for key in &acknowledged {
        assert_eq!(reader.get(key.as_str(), None).await.expect("a read").count(), 1, "{key} was acknowledged");
    }
    // The old leader comes back and catches up.
    cluster.start(leader);
    cluster.wait_for_leader().await;
    let mut back = cluster.client(leader).await;
    let last = acknowledged.last().expect("some").as_str();
    assert_eq!(back.get(last, None).await.expect("a read").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_acknowledged() {
    let mut cluster = Cluster::started(3).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    let mut client = cluster.client(0).await;
    assert!(client.put("k", "v", None).await.is_err());
    assert!(client.get("k", None).await.is_err(), "a linearizable read needs a majority too");
    cluster.start(1);
    cluster.wait_for_leader().await;
    client.put("k", "w", None).await.expect("a majority is back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_long_is_sent_the_state() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let away = (leader + 1) % 3;
    cluster.stop(away).await;
    // The leader keeps its log for who answered within the last election timeout.
    tokio::time::sleep(3 * cluster.members[leader].config.election_timeout).await;
    // More than it keeps for anybody.
    let mut client = cluster.client(leader).await;
    let value = vec![7; 1 << 20];
    for n in 0..100 {
        client.put(format!("k{:02}", n % 50), value.clone(), None).await.expect("a put");
    }
    cluster.start(away);
    let mut client = cluster.client(away).await;
    let options = GetOptions::new().with_prefix().with_keys_only();
    let found = eventually("a read", || async { cluster.client(away).await.get("k", Some(options.clone())).await });
    assert_eq!(found.await.count(), 50);
    // Its disk holds it, too, and the log goes on behind it.
    client.put("after", "v", None).await.expect("a put");
    cluster.stop(away).await;
    assert!(!cluster.dir.path().join(format!("m{away}/state/1")).exists(), "a snapshot took the first state's place");
    cluster.start(away);
    let found = eventually("a read", || async { cluster.client(away).await.get("k07", None).await }).await;
    assert_eq!(found.kvs()[0].value(), value);
    assert_eq!(cluster.client(away).await.get("after", None).await.expect("a read").count(), 1);
}

/// Raft hands over only to who has all that is in the leader's log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_under_way_outlive_a_hand_over() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let next = cluster.client((leader + 1) % 3).await.status().await.expect("a status");
    let next = next.header().expect("a header").member_id();
    let client = cluster.client(leader).await;
    let (begun, mut all_begun) = tokio::sync::mpsc::channel(16);
    let stop = tokio_util::sync::CancellationToken::new();
    let write = |writer: usize| {
        let (mut client, begun, stop) = (client.clone(), begun.clone(), stop.clone());
        tokio::spawn(async move {
            for n in 0.. {
                client.put(format!("k{writer}"), format!("{n}"), None).await.expect("a put");
                if n == 10 {
                    begun.send(()).await.expect("a waiting test");
                }
                if stop.is_cancelled() {
                    return;
                }
            }
        })
    };
    let writers: Vec<_> = (0..16).map(write).collect();
    for _ in 0..16 {
        all_begun.recv().await.expect("ten writes of each");
    }
    client.clone().move_leader(next).await.expect("handed over");
    stop.cancel();
    for writer in writers {
        writer.await.expect("no write failed");
    }
}
