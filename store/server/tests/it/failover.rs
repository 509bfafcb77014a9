//! A leader goes; what it acknowledged stays.

use etcd_client::{GetOptions, WatchOptions, WatchStream};

use crate::cluster::{Cluster, Link, eventually};
use crate::differential::server::PATIENCE;
use crate::operating::{noise, page};

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

/// More than the leader keeps of its log for anybody.
const PUTS: i64 = 100;

/// The next so many revisions, each once and in order; or where compaction ended the watcher.
async fn watched(stream: &mut WatchStream, mut next: i64, count: i64) -> Option<i64> {
    let end = next + count;
    while next < end {
        let answer = tokio::time::timeout(2 * PATIENCE, stream.message()).await.expect("in time");
        let answer = answer.expect("a response").expect("one");
        if answer.canceled() {
            assert!(answer.events().is_empty(), "{answer:?}");
            return Some(answer.compact_revision());
        }
        for event in answer.events() {
            assert_eq!(event.kv().expect("a key").mod_revision(), next);
            next += 1;
        }
    }
    None
}

/// Cuts the member off and writes so much that it can only go on from a snapshot; returns the newest revision.
async fn leave_behind(cluster: &Cluster, link: &Link, leader: usize) -> i64 {
    link.close();
    // The leader keeps its log for who answered within the last election timeout.
    tokio::time::sleep(3 * cluster.members[leader].config.election_timeout).await;
    let mut client = cluster.client(leader).await;
    let mut revision = 0;
    for n in 0..PUTS {
        let put = client.put(format!("k{}", n % 50), noise(n as u64, 1 << 20), None).await.expect("a put");
        revision = put.header().expect("a header").revision();
    }
    revision
}

async fn snapshots_received(cluster: &Cluster, at: usize) -> u64 {
    let (_, metrics) = page(&cluster.url(at), "/metrics").await;
    let name = "etcd_snap_db_save_total_duration_seconds_count ";
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).expect("a metric")
}

/// A member that falls behind while it serves, and is sent the state on a connection that breaks in the middle: its
/// watchers go on without a gap, or are told that compaction overtook them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_a_member_that_is_sent_the_state_miss_nothing() {
    let behind = 2;
    let (cluster, link) = Cluster::started_with_link(3, behind).await;
    let leader = eventually("a leader that stays", || async {
        let leader = cluster.wait_for_leader().await;
        if leader != behind {
            return Ok(leader);
        }
        let next = crate::membership::id_of(&cluster, 0).await;
        cluster.client(behind).await.move_leader(next).await.map_err(|error| error.to_string())?;
        Err("it moves".to_owned())
    })
    .await;
    let start = cluster.client(leader).await.put("first", "v", None).await.expect("a put");
    let start = start.header().expect("a header").revision() + 1;
    let mut client = cluster.client(behind).await;
    eventually("a read", || async { cluster.client(behind).await.get("first", None).await }).await;
    let options = || WatchOptions::new().with_all_keys();
    let mut stream = client.watch("", Some(options())).await.expect("a watcher");
    assert!(stream.message().await.expect("a response").expect("one").created());

    let newest = leave_behind(&cluster, &link, leader).await;
    assert_eq!(newest, start + PUTS - 1);
    link.cut_once_after(8 << 20);
    link.reopen();
    assert_eq!(watched(&mut stream, start, PUTS).await, None);
    assert!(link.was_cut(), "a snapshot broke off");
    assert_eq!(snapshots_received(&cluster, behind).await, 1);
    // It follows as before.
    client.put("after", "v", None).await.expect("a put");
    assert_eq!(watched(&mut stream, newest + 1, 1).await, None);

    let newest = leave_behind(&cluster, &link, leader).await;
    cluster.client(leader).await.compact(newest, None).await.expect("compacted");
    link.reopen();
    assert_eq!(watched(&mut stream, newest - PUTS + 1, PUTS).await, Some(newest));
    assert_eq!(snapshots_received(&cluster, behind).await, 2);
    let mut anew = client.watch("", Some(options().with_start_revision(newest))).await.expect("a watcher");
    assert!(anew.message().await.expect("a response").expect("one").created());
    assert_eq!(watched(&mut anew, newest, 1).await, None);
}
