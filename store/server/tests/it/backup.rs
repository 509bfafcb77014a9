//! Backups: saved by etcdctl, restored into a new cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use etcd_client::{Client, GetOptions, PutOptions};
use store_server::{BackupError, RestoreOptions, backup_status, restore};

use crate::cluster::{Cluster, eventually};

/// Keys with a history, a deletion, a compaction and a lease.
async fn fill(client: &mut Client) {
    for n in 0..200 {
        client.put(format!("k{:02}", n % 20), format!("value {n}"), None).await.expect("a put");
    }
    client.delete("k07", None).await.expect("a delete");
    client.compact(100, None).await.expect("compacted");
    let lease = client.lease_grant(1000, None).await.expect("a lease").id();
    client.put("leased", "v", Some(PutOptions::new().with_lease(lease))).await.expect("a put");
}

/// All keys with their numbers, as of a revision.
async fn everything(client: &mut Client, revision: i64) -> Vec<String> {
    let options = GetOptions::new().with_all_keys().with_revision(revision);
    let found = client.get("", Some(options)).await.expect("a read");
    found.kvs().iter().map(|kv| format!("{kv:?}")).collect()
}

async fn save(cluster: &Cluster) -> PathBuf {
    let (url, file) = (cluster.url(1), cluster.dir.path().join("backup"));
    let saved = file.clone();
    let etcdctl = move || {
        let arguments = ["--endpoints", &url, "snapshot", "save"];
        Command::new("etcdctl").env("ETCDCTL_API", "3").args(arguments).arg(&saved).output().expect("etcdctl")
    };
    let output = tokio::task::spawn_blocking(etcdctl).await.expect("no panic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

fn restore_all(cluster: &Cluster, file: &Path, options: &RestoreOptions) {
    for member in &cluster.members {
        restore(file, &member.config, options).expect("restored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_becomes_a_new_cluster() {
    let cluster = Cluster::started(3).await;
    let mut client = cluster.client(0).await;
    fill(&mut client).await;
    let revision = client.get("k01", None).await.expect("a read").header().expect("a header").revision();
    let (now, before) = (everything(&mut client, 0).await, everything(&mut client, 150).await);
    let mut hashes = std::collections::BTreeSet::new();
    for at in 0..3 {
        let hash = eventually("a hash", || async { cluster.client(at).await.hash_kv(revision).await }).await;
        hashes.insert(hash.hash());
    }
    assert_eq!(hashes.len(), 1, "members agree");
    let file = save(&cluster).await;
    let status = backup_status(&file).expect("a status");
    assert_eq!((status.revision, status.keys), (revision, 20));
    assert_eq!(Some(&status.hash), hashes.first(), "the backup is what the members had");

    let mut restored = Cluster::new(3);
    restore_all(&restored, &file, &RestoreOptions::default());
    let again = restore(&file, &restored.members[0].config, &RestoreOptions::default());
    assert!(matches!(again, Err(BackupError::Occupied(_))), "{again:?}");
    (0..3).for_each(|at| restored.start(at));
    restored.wait_for_leader().await;
    let mut client = restored.client(2).await;
    assert_eq!(everything(&mut client, 0).await, now);
    assert_eq!(everything(&mut client, 150).await, before);
    assert_eq!(client.leases().await.expect("leases").leases().len(), 1);
    let put = client.put("k01", "after", None).await.expect("a put");
    assert_eq!(put.header().expect("a header").revision(), revision + 1);
    assert_eq!(client.member_list().await.expect("members").members().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_fails_costs_nothing_else() {
    let cluster = Cluster::started(1).await;
    let copies = cluster.members[0].config.data_dir.join("copies");
    std::fs::remove_dir(&copies).expect("an empty folder");
    std::fs::write(&copies, "in the way").expect("written");
    let mut client = cluster.client(0).await;
    let refused = client.snapshot().await.map(|_| ()).expect_err("no room for a copy");
    assert!(refused.to_string().contains("can't be copied"), "{refused}");
    client.put("k", "v", None).await.expect("the member goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_revision_is_never_seen_to_go_back() {
    let cluster = Cluster::started(3).await;
    let mut client = cluster.client(0).await;
    fill(&mut client).await;
    let now = everything(&mut client, 0).await;
    let file = save(&cluster).await;
    let mut restored = Cluster::new(1);
    restore_all(&restored, &file, &RestoreOptions { bump_revision: 1_000_000 });
    restored.start(0);
    restored.wait_for_leader().await;
    let mut client = restored.client(0).await;
    assert_eq!(everything(&mut client, 0).await, now);
    let put = client.put("k01", "after", None).await.expect("a put");
    assert!(put.header().expect("a header").revision() > 1_000_000);
    let old = client.get("k01", Some(GetOptions::new().with_revision(200))).await.expect_err("compacted");
    assert!(old.to_string().contains("has been compacted"), "{old}");
}
