//! Locks and elections as services.

use etcd_client::{GetOptions, LockOptions, ProclaimOptions, ResignOptions};

use crate::cluster::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_held_by_one_and_goes_to_the_next() {
    let cluster = Cluster::started(3).await;
    let mut client = cluster.client(0).await;
    let lease = client.lease_grant(100, None).await.expect("a lease").id();
    let first = client.lock("l", Some(LockOptions::new().with_lease(lease))).await.expect("the lock");
    assert_eq!(first.key(), format!("l/{lease:x}").as_bytes());
    let again = client.lock("l", Some(LockOptions::new().with_lease(lease))).await.expect("the same lock");
    assert_eq!(again.key(), first.key(), "locking twice with a lease is once");

    let mut second = cluster.client(1).await;
    let waiting = tokio::spawn(async move { second.lock("l", None).await });
    // One that gives up while it waits leaves no place behind.
    let mut third = cluster.client(2).await;
    places(&cluster, 2).await;
    let giving_up = tokio::spawn(async move { third.lock("l", None).await });
    places(&cluster, 3).await;
    giving_up.abort();
    places(&cluster, 2).await;
    assert!(!waiting.is_finished());
    client.unlock(first.key()).await.expect("unlocked");
    let held = waiting.await.expect("no panic").expect("the lock");
    assert_eq!(places(&cluster, 1).await, [held.key()]);
}

/// The keys of the lock's queue, once there are so many.
async fn places(cluster: &Cluster, wanted: usize) -> Vec<Vec<u8>> {
    eventually("places", || async {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let found = cluster.client(0).await.get("l/", Some(options)).await.map_err(|error| error.to_string())?;
        let keys: Vec<Vec<u8>> = found.kvs().iter().map(|kv| kv.key().to_vec()).collect();
        if keys.len() == wanted { Ok(keys) } else { Err(format!("{} instead of {wanted}", keys.len())) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_follow_each_other_and_are_observed() {
    let cluster = Cluster::started(3).await;
    let (mut one, mut two) = (cluster.client(0).await, cluster.client(1).await);
    assert!(one.leader("e").await.expect_err("nobody").to_string().contains("election: no leader"));
    let mut observed = cluster.client(2).await.observe("e").await.expect("a stream");
    let lease = one.lease_grant(100, None).await.expect("a lease").id();
    let won = one.campaign("e", "first", lease).await.expect("elected");
    let leader = won.leader().expect("a leader").clone();
    let mut seen = Vec::new();
    let other = two.lease_grant(100, None).await.expect("a lease").id();
    let next = tokio::spawn(async move { two.campaign("e", "second", other).await.map(|won| (two, won)) });
    let mut values = async || {
        let response = observed.message().await.expect("no error").expect("a leader");
        seen.push(response.kv().expect("a key").value_str().expect("text").to_owned());
        seen.clone()
    };
    assert_eq!(values().await, ["first"]);
    let options = ProclaimOptions::new().with_leader(leader.clone());
    one.proclaim("news", Some(options.clone())).await.expect("proclaimed");
    assert_eq!(values().await, ["first", "news"]);
    one.resign(Some(ResignOptions::new().with_leader(leader))).await.expect("resigned");
    let (mut two, won) = next.await.expect("no panic").expect("elected");
    assert_eq!(values().await, ["first", "news", "second"]);
    assert_eq!(two.leader("e").await.expect("a leader").kv().expect("a key").value(), b"second");
    let refused = one.proclaim("late", Some(options)).await.expect_err("resigned");
    assert!(refused.to_string().contains("election: not leader"), "{refused}");
    assert_eq!(won.leader().expect("a leader").lease(), other);
}
