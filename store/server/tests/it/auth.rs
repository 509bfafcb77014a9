//! Users and roles as Debian's etcdctl 3.4 meets them, side by side with Debian's etcd.

mod certificates;
mod doors;
mod gateway;
mod matrix;
mod restart;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::script::{Endpoint, compare, run};

/// Debian's etcd on a folder and ports of its own; ends with this.
pub(crate) struct Etcd {
    process: Child,
    pub(crate) url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let url = || format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
        let (client, peer) = (url(), url());
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--bcrypt-cost", "4"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (Debian's package etcd-server)");
        let etcd = Self { process, url: client, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !run(&Endpoint::plain(&etcd.url), "endpoint health", "").1.contains("is healthy") {
            assert!(Instant::now() < deadline, "etcd isn't healthy after 20 s");
        }
        etcd
    }
}

/// Runs a script against our own member and against etcd; what they say must be the same.
pub(crate) async fn same_as_etcd(script: &'static str) {
    let cluster = Cluster::started(1).await;
    let url = cluster.url(0);
    let compared = tokio::task::spawn_blocking(move || {
        let etcd = Etcd::start();
        compare(script, &Endpoint::plain(&url), &Endpoint::plain(&etcd.url));
    });
    compared.await.expect("no difference");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_roles_are_managed_as_in_etcd() {
    same_as_etcd(
        r"
        user list
        role list
        auth enable
        user add ann:secret
        user add ann:other
        user add cert --no-password
        user get ann
        user get nobody
        user delete nobody
        user list
        role add reader
        role add reader
        role grant-permission reader read k
        role grant-permission reader read m z
        role grant-permission reader write k
        role grant-permission reader readwrite p/ --prefix=true
        role grant-permission reader read a --from-key=true
        role grant-permission reader wrong k
        role grant-permission nobody read k
        role get reader
        role get nobody
        role list
        role revoke-permission reader k
        role revoke-permission reader k
        role revoke-permission reader nothing
        role revoke-permission nobody k
        role revoke-permission reader p/ --prefix=true
        role get reader
        user grant-role ann reader
        user grant-role ann nothing
        user grant-role nobody reader
        user get ann
        user get ann --detail
        user revoke-role ann nothing
        user revoke-role ann reader
        user revoke-role ann reader
        user passwd ann --interactive=false << changed
        user passwd nobody --interactive=false << changed
        user grant-role ann reader
        role delete reader
        role delete reader
        user get ann
        user add root:rootpw
        user grant-role root root
        auth enable
        auth enable
        user list
        @root:rootpw auth enable
        @root:rootpw user list
        @root:rootpw user get root
        @root:rootpw role add root
        @root:rootpw user delete root
        @root:rootpw user revoke-role root root
        @root:rootpw role delete root
        @root:rootpw user delete cert
        @root:rootpw auth disable
        @root:rootpw auth disable
        auth disable
        user delete root
        ",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_guarded_as_in_etcd() {
    same_as_etcd(
        r#"
        put k before
        user add root:rootpw
        user add ann:secret
        user add bob:secret
        role add r
        role grant-permission r read k
        role grant-permission r write w
        role grant-permission r readwrite p/ --prefix=true
        user grant-role ann r
        auth enable
        get k
        put k 1
        del k
        @ann:wrong get k
        @nobody:secret get k
        @bob:secret get k
        @ann:secret get k
        @ann:secret put k 2
        @ann:secret del k
        @ann:secret put w 1
        @ann:secret put w 2 --prev-kv
        @ann:secret get w
        @ann:secret del w --prev-kv
        @ann:secret del w
        @ann:secret put p/a 1
        @ann:secret put p/b 2 --prev-kv
        @ann:secret get p/ --prefix
        @ann:secret get p/ --from-key
        @ann:secret get p --prefix
        @ann:secret get p/a p/c
        @ann:secret get k --consistency=s
        @ann:secret get w --consistency=s
        @bob:secret get k --consistency=s
        get k --consistency=s
        @ann:secret get p/ --prefix --keys-only
        @ann:secret del p/ --from-key
        @ann:secret del p/b --prev-kv
        @ann:secret txn << value("k") = "before"||put p/t 1|get p/a||get p/a||
        @ann:secret txn << value("w") = "2"||get p/a||get p/a||
        @ann:secret txn << value("k") = "no"||get p/a||put k 1||
        @ann:secret txn << value("k") = "before"||del k||get p/a||
        @root:rootpw txn << value("k") = "before"||put k 2||get k||
        @root:rootpw get "" --prefix
        @ann:secret user get ann
        @ann:secret user get root
        @ann:secret role get r
        @ann:secret role get root
        @ann:secret user list
        @ann:secret user add eve:x
        @ann:secret user grant-role ann root
        @ann:secret role grant-permission r readwrite a z
        @ann:secret auth disable
        @ann:secret user passwd root --interactive=false << owned
        @bob:secret role get r
        user get ann
        role get r
        @root:rootpw user passwd ann --interactive=false << renewed
        @ann:secret get k
        @ann:renewed get k
        @root:rootpw role revoke-permission r k
        @ann:renewed get k
        @root:rootpw user delete ann
        @ann:renewed get p/a
        @root:rootpw auth disable
        get k
        put k 3
        "#,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_watches_are_guarded_as_in_etcd() {
    same_as_etcd(
        r"
        user add root:rootpw
        user add ann:secret
        role add r
        role grant-permission r readwrite p/ --prefix=true
        user grant-role ann r
        auth enable
        @ann:secret lease grant 600
        @ann:secret put p/leased 1 --lease=$LEASE
        @ann:secret lease timetolive $LEASE
        @ann:secret lease keep-alive --once $LEASE
        @ann:secret lease list
        @root:rootpw put other 1 --lease=$LEASE
        @ann:secret put p/second 1 --lease=$LEASE
        @ann:secret lease revoke $LEASE
        @ann:secret get p/leased
        @root:rootpw lease timetolive $LEASE --keys
        @root:rootpw lease revoke $LEASE
        @ann:secret lease timetolive $LEASE
        @ann:secret get p/leased
        @ann:secret lease grant 600
        @ann:secret put p/leased 2 --lease=$LEASE
        @ann:secret lease revoke $LEASE
        @ann:secret lease revoke $LEASE
        @ann:secret watch p/ --prefix --rev=1
        @ann:secret watch other --rev=1
        @ann:secret watch p/ --rev=1 q
        @root:rootpw watch other --rev=1
        watch other --rev=1
        ",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_is_guarded_as_in_etcd() {
    same_as_etcd(
        r"
        user add root:rootpw
        user add ann:secret
        auth enable
        snapshot save $DIR/snapshot
        @ann:secret snapshot save $DIR/snapshot
        @ann:secret defrag
        @ann:secret member add other --peer-urls=http://127.0.0.1:1
        @ann:secret member remove 1234
        member add other --peer-urls=http://127.0.0.1:1
        @root:rootpw defrag
        @ann:secret alarm list
        @ann:secret endpoint health
        @root:rootpw endpoint health
        @root:rootpw alarm list
        ",
    )
    .await;
}
