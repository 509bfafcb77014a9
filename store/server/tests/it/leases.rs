//! Leases and changes of leader.

use std::time::Duration;

use etcd_client::{LeaseTimeToLiveOptions, PutOptions};

use crate::cluster::{Cluster, eventually};

const LEASE: i64 = 7;
const TTL: i64 = 600;

/// What is left of the lease, as member `at` is told.
async fn left(cluster: &Cluster, at: usize) -> i64 {
    let options = LeaseTimeToLiveOptions::new();
    eventually("a lease's time", || async {
        cluster.client(at).await.lease_time_to_live(LEASE, Some(options.clone())).await
    })
    .await
    .ttl()
}

async fn hand_over(cluster: &Cluster) -> usize {
    let leader = cluster.wait_for_leader().await;
    let next = (leader + 1) % 3;
    let id = cluster.client(next).await.status().await.expect("a status").header().expect("a header").member_id();
    cluster.client(leader).await.move_leader(id).await.expect("moved");
    cluster.wait_for_leader().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_goes_on_from_its_checkpoint_and_a_renewal_counts() {
    let mut cluster = Cluster::new(3);
    for at in 0..3 {
        cluster.members[at].config.lease_checkpoint_interval = Duration::from_secs(1);
        cluster.start(at);
    }
    let leader = cluster.wait_for_leader().await;
    let mut client = cluster.client(leader).await;
    client.lease_grant(TTL, Some(etcd_client::LeaseGrantOptions::new().with_id(LEASE))).await.expect("a lease");
    client.put("k", "v", Some(PutOptions::new().with_lease(LEASE))).await.expect("a put");
    // Each checkpoint is a command in the log, and nothing else is: four of them stand for four seconds.
    let before = client.status().await.expect("a status").raft_applied_index();
    eventually("checkpoints", || async {
        let applied = cluster.client(leader).await.status().await.map_err(|e| e.to_string())?.raft_applied_index();
        if applied >= before + 4 { Ok(()) } else { Err(format!("{applied} after {before}")) }
    })
    .await;
    let leader = hand_over(&cluster).await;
    // One second is given for the change itself.
    assert!((1..TTL - 2).contains(&left(&cluster, leader).await), "a new leader goes on from the checkpoint");
    let (mut keeper, mut answers) = client.lease_keep_alive(LEASE).await.expect("a stream");
    keeper.keep_alive().await.expect("asked");
    assert_eq!(answers.message().await.expect("an answer").expect("not the end").ttl(), TTL);
    // The renewal took the checkpoint back; at most a newer one is there.
    let renewed = std::time::Instant::now();
    let leader = hand_over(&cluster).await;
    let least = TTL - i64::try_from(renewed.elapsed().as_secs()).expect("a short test") - 1;
    assert!(left(&cluster, leader).await >= least, "a renewal isn't forgotten");
}
