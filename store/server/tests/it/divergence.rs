//! A member whose state was changed behind its back: found by what it does differently, ended, kept out.

use std::path::Path;

use etcd_client::{AlarmAction, AlarmType, Compare, CompareOp, ResponseHeader, Txn, TxnOp};
use futures::future::join_all;
use store_server::{OpenError, ServeError, StateError};

use crate::cluster::{Cluster, eventually};

/// More entries than lie between two comparisons.
const PUTS: usize = 1_200;
const AT_ONCE: usize = 100;

/// Writes another value over each one of a member that is down.
fn change_values(data_dir: &Path) {
    let state = data_dir.join("state");
    let current = std::fs::read_to_string(state.join("CURRENT"));
    let generation = state.join(current.as_deref().map_or("1", str::trim));
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, &generation).expect("families");
    let db = rocksdb::DB::open_cf(&options, &generation, families).expect("opened");
    let values = db.cf_handle("values").expect("the values");
    let keys: Vec<Box<[u8]>> =
        db.iterator_cf(values, rocksdb::IteratorMode::Start).map(|item| item.expect("a value").0).collect();
    assert!(!keys.is_empty(), "nothing to change");
    keys.iter().for_each(|key| db.put_cf(values, key, "changed").expect("written"));
    db.flush_cf(values).expect("flushed");
}

async fn id(cluster: &Cluster, at: usize) -> u64 {
    let status = cluster.client(at).await.status().await.expect("a status");
    status.header().map_or(0, ResponseHeader::member_id)
}

/// Until a member knows that another is wrong, and nobody else.
async fn wait_for_alarm(cluster: &Cluster, at: usize, odd: u64) {
    eventually("the alarm", async || {
        let mut client = cluster.client(at).await;
        let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await.map_err(|e| e.to_string())?;
        let found: Vec<_> = alarms.alarms().iter().map(|alarm| (alarm.member_id(), alarm.alarm())).collect();
        if found == [(odd, AlarmType::Corrupt)] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn put_many(cluster: &Cluster, at: usize) -> Result<(), etcd_client::Error> {
    let client = cluster.client(at).await;
    for begin in (0..PUTS).step_by(AT_ONCE) {
        let puts = (begin..begin + AT_ONCE).map(|n| {
            let mut client = client.clone();
            async move { client.put(format!("n{n}"), "x", None).await }
        });
        join_all(puts).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

/// The odd one leads, so that it isn't the leader's word that counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_differs_ends_and_the_majority_says_why() {
    let mut cluster = Cluster::started(3).await;
    let odd = cluster.wait_for_leader().await;
    let (other, odd_id) = ((odd + 1) % 3, id(&cluster, odd).await);
    cluster.client(other).await.put("a", "1", None).await.expect("a put");
    cluster.client(odd).await.get("a", None).await.expect("applied there, too");
    cluster.stop(odd).await;
    change_values(&cluster.members[odd].config.data_dir);
    cluster.start(odd);
    // It leads again, once it has caught up.
    eventually("the odd one leads", async || {
        let leader = cluster.wait_for_leader().await;
        if leader == odd { Ok(()) } else { cluster.client(leader).await.move_leader(odd_id).await.map(drop) }
    })
    .await;
    // What is different does no harm until a command reads it.
    let txn = Txn::new()
        .when([Compare::value("a", CompareOp::Equal, "1")])
        .and_then([TxnOp::put("b", "right", None)])
        .or_else([TxnOp::put("b", "wrong", None)]);
    assert!(cluster.client(other).await.txn(txn).await.expect("a txn").succeeded());
    // The comparison may come in between; the rest is refused then.
    let _ = put_many(&cluster, other).await;
    let ended = cluster.end(odd).await;
    assert!(matches!(ended, Err(ServeError::Diverged)), "{ended:?}");
    let third = (odd + 2) % 3;
    for at in [other, third] {
        wait_for_alarm(&cluster, at, odd_id).await;
        let mut client = cluster.client(at).await;
        assert_eq!(client.get("b", None).await.expect("a read").kvs()[0].value(), b"right");
        let refused = client.put("c", "x", None).await.expect_err("corrupt");
        assert!(refused.to_string().contains("etcdserver: corrupt cluster"), "{refused}");
    }
    // Started again, it doesn't serve.
    cluster.start(odd);
    let ended = cluster.end(odd).await;
    assert!(matches!(ended, Err(ServeError::Open(OpenError::State(StateError::Diverged)))), "{ended:?}");
    // The way out: without it, and the alarm ended.
    let mut client = cluster.client(other).await;
    client.member_remove(odd_id).await.expect("removed");
    let mut ended = etcd_client::AlarmOptions::new();
    ended.with_member(odd_id);
    client.alarm(AlarmAction::Deactivate, AlarmType::Corrupt, Some(ended)).await.expect("ended");
    put_many(&cluster, third).await.expect("puts");
    client.put("c", "x", None).await.expect("a put");
}

/// What no command reads is compared at the next compaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_on_disk_is_found_by_compaction() {
    let mut cluster = Cluster::started(3).await;
    let odd = (cluster.wait_for_leader().await + 1) % 3;
    let (other, odd_id) = ((odd + 1) % 3, id(&cluster, odd).await);
    cluster.client(other).await.put("a", "1", None).await.expect("a put");
    cluster.client(odd).await.get("a", None).await.expect("applied there, too");
    cluster.stop(odd).await;
    change_values(&cluster.members[odd].config.data_dir);
    cluster.start(odd);
    let found = eventually("it is back", async || cluster.client(odd).await.get("a", None).await).await;
    assert_eq!(found.kvs()[0].value(), b"changed", "nothing has found it yet");
    let mut client = cluster.client(other).await;
    let revision = client.put("b", "2", None).await.expect("a put").header().map_or(0, ResponseHeader::revision);
    client.compact(revision, None).await.expect("compacted");
    let ended = cluster.end(odd).await;
    assert!(matches!(ended, Err(ServeError::Diverged)), "{ended:?}");
    wait_for_alarm(&cluster, other, odd_id).await;
}

/// Restarts, snapshots and many entries make no difference where there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_agree_go_on() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let away = (leader + 1) % 3;
    put_many(&cluster, leader).await.expect("puts");
    cluster.stop(away).await;
    put_many(&cluster, leader).await.expect("puts");
    cluster.start(away);
    let joined = cluster.joiner();
    let url = cluster.peer_url(joined);
    eventually("added", async || cluster.client(leader).await.member_add([url.clone()], None).await).await;
    cluster.start(joined);
    eventually("joined", async || cluster.client(joined).await.get("n0", None).await).await;
    for at in [away, joined, leader] {
        put_many(&cluster, at).await.expect("puts");
        let mut client = cluster.client(at).await;
        let revision = client.get("n0", None).await.expect("a read").header().map_or(0, ResponseHeader::revision);
        client.compact(revision, None).await.expect("compacted");
        put_many(&cluster, at).await.expect("puts");
        let alarms = cluster.client(at).await.alarm(AlarmAction::Get, AlarmType::None, None).await.expect("alarms");
        assert_eq!(alarms.alarms().len(), 0);
    }
}
