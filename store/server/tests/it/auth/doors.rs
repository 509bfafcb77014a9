//! What etcd learnt after 3.4: doors that were open then.

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, LeaseTimeToLiveOptions, Permission, PutOptions, Txn,
    TxnOp, WatchOptions,
};

use crate::cluster::Cluster;

async fn as_user(cluster: &Cluster, name: &str) -> Client {
    let options = ConnectOptions::new().with_user(name, "secret");
    Client::connect([cluster.url(0)], Some(options)).await.expect("a client")
}

/// `root`, `ann` who may read and write `p/…`, read `r`, write `w`; auth is on.
pub(super) async fn peopled(cluster: &Cluster) -> Client {
    let mut client = cluster.client(0).await;
    for name in ["root", "ann", "bob"] {
        client.user_add(name, "secret", None).await.expect("a user");
        client.role_add(name).await.expect("a role");
        client.user_grant_role(name, name).await.expect("granted");
    }
    let permissions = [Permission::read_write("p/").with_prefix(), Permission::read("r"), Permission::write("w")];
    for permission in permissions {
        client.role_grant_permission("ann", permission).await.expect("granted");
    }
    client.auth_enable().await.expect("enabled");
    as_user(cluster, "root").await
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result.expect_err("a refusal") {
        Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
        other => other.to_string(),
    }
}

pub(super) const DENIED: &str = "PermissionDenied: etcdserver: permission denied";
pub(super) const EMPTY: &str = "InvalidArgument: etcdserver: user name is empty";

/// CVE-2026-33343, CVE-2026-44283: what a transaction does counts at any depth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_transactions_open_nothing() {
    let cluster = Cluster::started(1).await;
    let mut root = peopled(&cluster).await;
    root.put("other", "1", None).await.expect("a put");
    let lease = root.lease_grant(600, None).await.expect("granted").id();
    root.put("leased", "1", Some(PutOptions::new().with_lease(lease))).await.expect("a put");
    let mut ann = as_user(&cluster, "ann").await;
    let compare = |key: &str| Compare::version(key, CompareOp::Greater, 0);
    let leased = PutOptions::new().with_lease(lease);
    let prev = PutOptions::new().with_prev_key();
    let forbidden = [
        Txn::new().and_then([TxnOp::get("other", None)]),
        Txn::new().or_else([TxnOp::put("other", "2", None)]),
        Txn::new().and_then([TxnOp::delete("other", None)]),
        Txn::new().when([compare("other")]),
        Txn::new().and_then([TxnOp::put("w", "2", Some(prev))]),
        Txn::new().and_then([TxnOp::put("p/a", "2", Some(leased))]),
        Txn::new().and_then([TxnOp::get("p/", Some(GetOptions::new().with_from_key()))]),
    ];
    for inner in forbidden {
        for depth in 0..5 {
            let nest = |inner: Txn, at: usize| {
                let ops = [TxnOp::get("r", None), TxnOp::txn(inner)];
                if at.is_multiple_of(2) { Txn::new().and_then(ops) } else { Txn::new().or_else(ops) }
            };
            let txn = (0..depth).fold(inner.clone(), nest);
            assert_eq!(refusal(ann.txn(txn.clone()).await), DENIED, "{txn:?}");
            root.txn(txn).await.expect("root may");
        }
    }
    let allowed = Txn::new().when([compare("r")]).and_then([TxnOp::put("p/a", "1", None)]);
    ann.txn(Txn::new().and_then([TxnOp::txn(allowed)])).await.expect("within her keys");
}

/// GHSA-q8m4-xhhv-38mg.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_nothing_and_users_no_more_than_theirs() {
    let cluster = Cluster::started(1).await;
    let mut root = peopled(&cluster).await;
    let lease = root.lease_grant(600, None).await.expect("granted").id();
    root.put("leased", "1", Some(PutOptions::new().with_lease(lease))).await.expect("a put");
    let mut nobody = cluster.client(0).await;
    let mut ann = as_user(&cluster, "ann").await;
    assert_eq!(refusal(nobody.member_list().await), EMPTY);
    assert_eq!(refusal(nobody.status().await), EMPTY);
    assert_eq!(refusal(nobody.lease_grant(9, None).await), EMPTY);
    assert_eq!(refusal(nobody.lease_revoke(lease).await), EMPTY);
    assert_eq!(refusal(nobody.lease_time_to_live(lease, None).await), EMPTY);
    assert_eq!(refusal(nobody.leases().await), EMPTY);
    assert_eq!(refusal(nobody.compact(1, None).await), EMPTY);
    assert_eq!(refusal(nobody.txn(Txn::new()).await), EMPTY);
    assert_eq!(refusal(nobody.defragment().await), EMPTY);
    assert_eq!(refusal(nobody.lock("p/lock", None).await), EMPTY);
    assert_eq!(refusal(ann.lock("other", None).await), DENIED);
    let lock = ann.lock("p/lock", None).await.expect("hers");
    ann.unlock(lock.key()).await.expect("hers");
    ann.member_list().await.expect("any user may");
    ann.status().await.expect("any user may");
    let own = ann.lease_grant(600, None).await.expect("any user may").id();
    let keys = Some(LeaseTimeToLiveOptions::new().with_keys());
    assert_eq!(ann.lease_time_to_live(lease, None).await.expect("any user may").granted_ttl(), 600);
    assert_eq!(refusal(ann.lease_time_to_live(lease, keys.clone()).await), DENIED);
    assert_eq!(ann.lease_time_to_live(own, keys).await.expect("hers").keys().len(), 0);
    assert_eq!(refusal(ann.leases().await), DENIED);
    assert_eq!(refusal(ann.compact(1, None).await), DENIED);
    assert_eq!(refusal(ann.defragment().await), DENIED);
    let renewed = ann.lease_keep_alive(lease).await;
    assert_eq!(refusal(renewed.map(|_| ())), DENIED);
    ann.lease_keep_alive(own).await.expect("hers");
    root.compact(1, None).await.expect("root may");
}

/// GHSA-xg4h-6gfc-h4m8: a range without an end isn't its first key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_without_an_end_needs_all_keys() {
    let cluster = Cluster::started(1).await;
    peopled(&cluster).await;
    let mut ann = as_user(&cluster, "ann").await;
    let from = WatchOptions::new().with_from_key();
    let mut stream = ann.watch("r", Some(from)).await;
    let message = match &mut stream {
        Ok(stream) => stream.message().await.expect("no error").expect("an answer"),
        Err(error) => panic!("etcd says it in the stream, not {error}"),
    };
    assert!(message.created() && message.canceled(), "{message:?}");
    assert!(message.cancel_reason().contains("etcdserver: permission denied"), "{message:?}");
}

/// Beyond etcd, which lets a watch go on for ever: it ends with the permission.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_with_its_permission() {
    let cluster = Cluster::started(1).await;
    let mut early = cluster.client(0).await.watch("p/a", None).await.expect("auth is off");
    assert!(early.message().await.expect("no error").expect("an answer").created());
    let mut root = peopled(&cluster).await;
    let mut ann = as_user(&cluster, "ann").await.watch("p/a", None).await.expect("hers");
    assert!(ann.message().await.expect("no error").expect("an answer").created());
    root.put("p/a", "1", None).await.expect("a put");
    assert_eq!(ann.message().await.expect("no error").expect("an answer").events().len(), 1);
    let cancelled = early.message().await.expect("no error").expect("an answer");
    assert!(cancelled.canceled() && cancelled.events().is_empty(), "{cancelled:?}");
    assert!(cancelled.cancel_reason().contains("etcdserver: user name is empty"), "{cancelled:?}");
    root.user_add("eve", "secret", None).await.expect("nothing to do with ann");
    root.put("p/a", "2", None).await.expect("a put");
    assert_eq!(ann.message().await.expect("no error").expect("an answer").events().len(), 1);
    root.user_revoke_role("ann", "ann").await.expect("revoked");
    root.put("p/a", "3", None).await.expect("a put");
    let cancelled = ann.message().await.expect("no error").expect("an answer");
    assert!(cancelled.canceled() && cancelled.events().is_empty(), "{cancelled:?}");
    assert!(cancelled.cancel_reason().contains("etcdserver: permission denied"), "{cancelled:?}");
}
