//! What requests do, through the etcd-client crate.

use etcd_client::{Compare, CompareOp, EventType, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use store_core::wire::downgrade_request::DowngradeAction;
use store_core::wire::{DowngradeRequest, DowngradeResponse};
use tonic::Code;

use crate::cluster::Cluster;
use crate::differential::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_reads_its_writes_through_any_other() {
    let cluster = Cluster::started(3).await;
    for at in 0..3 {
        cluster.client(at).await.put(format!("k{at}"), "v", None).await.expect("a put");
        let mut other = cluster.client((at + 1) % 3).await;
        let found = other.get("k", Some(GetOptions::new().with_prefix())).await.expect("a read");
        assert_eq!(found.count(), at as i64 + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_survive_a_restart_of_everything() {
    let mut cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    for n in 0..50 {
        client.put(format!("k{n:02}"), n.to_string(), None).await.expect("a put");
    }
    client.delete("k00", None).await.expect("a delete");
    client.compact(20, None).await.expect("compacted");
    let before = client.get("", Some(GetOptions::new().with_all_keys())).await.expect("a read");
    cluster.stop(0).await;
    cluster.start(0);
    cluster.wait_for_leader().await;
    let mut client = cluster.client(0).await;
    let after = client.get("", Some(GetOptions::new().with_all_keys())).await.expect("a read");
    assert_eq!(before.kvs().len(), 49);
    let pairs = |r: &etcd_client::GetResponse| {
        r.kvs().iter().map(|kv| (kv.key().to_vec(), kv.value().to_vec(), kv.mod_revision())).collect::<Vec<_>>()
    };
    assert_eq!(pairs(&before), pairs(&after));
    let gone = client.get("k01", Some(GetOptions::new().with_revision(5))).await.expect_err("compacted");
    assert!(gone.to_string().contains("required revision has been compacted"), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_takes_one_branch() {
    let cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    let create = |value: &str| {
        Txn::new()
            .when([Compare::mod_revision("k", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("k", value, None)])
            .or_else([TxnOp::get("k", None)])
    };
    assert!(client.txn(create("1")).await.expect("a txn").succeeded());
    let refused = client.txn(create("2")).await.expect("a txn");
    assert!(!refused.succeeded());
    assert_eq!(refused.op_responses().len(), 1);
    let twice = Txn::new().and_then([TxnOp::put("a", "1", None), TxnOp::put("a", "2", None)]);
    let error = client.txn(twice).await.expect_err("a key written twice");
    assert!(error.to_string().contains("duplicate key given in txn request"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_from_the_past_and_is_told_of_compaction() {
    let cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    for n in 1..=5 {
        client.put("k", n.to_string(), None).await.expect("a put");
    }
    let options = WatchOptions::new().with_start_revision(3).with_prev_key();
    let mut stream = client.watch("k", Some(options)).await.expect("a watch");
    let mut seen = Vec::new();
    client.delete("k", None).await.expect("a delete");
    while seen.len() < 5 {
        let response = stream.message().await.expect("no error").expect("a message");
        for event in response.events() {
            let kv = event.kv().expect("a key");
            let prev = event.prev_kv().map(|p| String::from_utf8_lossy(p.value()).into_owned());
            seen.push((event.event_type() == EventType::Put, kv.mod_revision(), prev));
        }
    }
    let expected: Vec<(bool, i64, Option<String>)> =
        (3..=7).map(|revision| (revision < 7, revision, Some((revision - 2).to_string()))).collect();
    assert_eq!(seen, expected);
    client.compact(6, None).await.expect("compacted");
    let mut late = client.watch("k", Some(WatchOptions::new().with_start_revision(2))).await.expect("a watch");
    let cancelled = loop {
        let response = late.message().await.expect("no error").expect("a message");
        if response.canceled() {
            break response;
        }
    };
    assert_eq!(cancelled.compact_revision(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_ends_and_takes_its_key_along() {
    let cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    let lease = client.lease_grant(1, None).await.expect("granted").id();
    client.put("k", "v", Some(PutOptions::new().with_lease(lease))).await.expect("a put");
    let mut stream = client.watch("k", None).await.expect("a watch");
    let event = loop {
        let response = stream.message().await.expect("no error").expect("a message");
        if let Some(event) = response.events().first() {
            break event.clone();
        }
    };
    assert_eq!(event.event_type(), EventType::Delete);
    assert_eq!(client.lease_time_to_live(lease, None).await.expect("an answer").ttl(), -1);
}

/// Nothing can be downgraded, and what is only asked about it is answered as by etcd 3.6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downgrade_is_answered_and_not_begun() {
    let cluster = Cluster::started(1).await;
    let server = Server::connect(&cluster.url(0)).await;
    let ask = async |action: i32, version: &str| {
        let request = DowngradeRequest { action, version: version.to_owned() };
        let answer: Result<DowngradeResponse, _> = server.unary("/etcdserverpb.Maintenance/Downgrade", request).await;
        answer.map(|answer| answer.version).map_err(|status| (status.code(), status.message().to_owned()))
    };
    let (validate, enable, cancel) =
        (DowngradeAction::Validate as i32, DowngradeAction::Enable as i32, DowngradeAction::Cancel as i32);
    let refused = |code: Code, text: &str| Err((code, text.to_owned()));
    let wrong_target = refused(Code::InvalidArgument, "etcdserver: invalid downgrade target version");
    let wrong_format = refused(Code::InvalidArgument, "etcdserver: wrong downgrade target version format");
    assert_eq!(ask(validate, "3.5").await, Ok("3.6".to_owned()));
    assert_eq!(ask(validate, "3.4.0").await, wrong_target);
    assert_eq!(ask(enable, "3.6.0").await, wrong_target);
    assert_eq!(ask(enable, "new").await, wrong_format);
    let (code, text) = ask(enable, "3.5.0").await.expect_err("there is no older format");
    assert!(code == Code::Unimplemented && text.contains("no older format"), "{text}");
    assert_eq!(ask(cancel, "anything").await, Ok("3.6".to_owned()));
    assert_eq!(ask(9, "3.5").await, refused(Code::Unknown, "etcdserver: unknown method"));
}
