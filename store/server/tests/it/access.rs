//! Ways to a member: a socket in the file system, certificates that are renewed while it runs.

use crate::cluster::{Cluster, eventually};
use crate::etcdctl::Member;

/// Runs etcdctl beside the members, which live in this process.
async fn etcdctl(cluster: &Cluster, url: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Member { url, certificates: cluster.dir.path() }.command(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().expect("etcdctl")).await.expect("no panic");
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(shown(&output.stdout)) } else { Err(shown(&output.stderr)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_in_the_file_system_serves_like_a_port() {
    let mut cluster = Cluster::new(1);
    let socket = cluster.dir.path().join("client.sock");
    let url = format!("unix://{}", socket.display());
    cluster.members[0].config.listen_client_urls.push(url.clone());
    // What a killed member left is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    cluster.start(0);
    cluster.wait_for_leader().await;
    assert_eq!(etcdctl(&cluster, &url, &["put", "k", "v"]).await.as_deref(), Ok("OK"));
    assert_eq!(etcdctl(&cluster, &url, &["get", "k"]).await.as_deref(), Ok("k\nv"));
    cluster.stop(0).await;
    assert!(!socket.exists(), "it goes with the member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_are_used_without_a_restart() {
    let cluster = Cluster::started(3).await;
    let url = cluster.secure_url(0);
    assert_eq!(etcdctl(&cluster, &url, &["put", "k", "v"]).await.as_deref(), Ok("OK"));
    cluster.renew_certificates();
    // etcdctl knows the new CA alone from here on.
    let read = eventually("a read", || etcdctl(&cluster, &url, &["get", "k"])).await;
    assert_eq!(read, "k\nv");
    for at in 1..3 {
        let url = cluster.secure_url(at);
        eventually("a write", || etcdctl(&cluster, &url, &["put", "k", "w"])).await;
    }
}
