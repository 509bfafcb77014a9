//! Debian's etcdctl 3.4 on each member.

mod forms;
mod same;

use std::path::Path;
use std::process::Command;

use crate::cluster::Cluster;

/// A member, and the folder with the certificate that it is shown.
pub(crate) struct Member<'a> {
    pub(crate) url: &'a str,
    pub(crate) certificates: &'a Path,
}

impl Member<'_> {
    /// What etcdctl says, on either channel, and whether it was content.
    pub(crate) fn says(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.command(arguments).output().expect("etcdctl is installed (Debian's package etcd-client)");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", self.url]);
        if self.url.starts_with("https") {
            for (flag, file) in [("--cacert", "ca.crt"), ("--cert", "peer.crt"), ("--key", "peer.key")] {
                command.arg(flag).arg(self.certificates.join(file));
            }
        }
        command.args(arguments);
        command
    }
}

fn etcdctl(member: &Member<'_>, arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let mut child = member
        .command(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("etcdctl is installed (Debian's package etcd-client)");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("etcdctl ends");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "etcdctl {arguments:?}: {text}");
    text
}

/// The first lines of a watch from the beginning; the watch itself would never end.
fn first_watched(member: &Member<'_>, key: &str) -> Vec<String> {
    use std::io::BufRead as _;
    let mut child =
        member.command(&["watch", key, "--rev=1"]).stdout(std::process::Stdio::piped()).spawn().expect("etcdctl");
    let lines = std::io::BufReader::new(child.stdout.take().expect("stdout")).lines();
    let first = lines.map_while(Result::ok).take(3).collect();
    child.kill().expect("killed");
    child.wait().expect("ended");
    first
}

fn walk_through(member: &Member<'_>, prefix: &str) {
    let key = format!("{prefix}a");
    let ctl = |arguments: &[&str]| etcdctl(member, arguments, "");
    assert_eq!(ctl(&["put", &key, "1"]).trim(), "OK");
    assert_eq!(ctl(&["put", "--prev-kv", &key, "2"]).lines().nth(2), Some("1"));
    assert_eq!(ctl(&["get", &key]).trim(), format!("{key}\n2"));
    assert_eq!(ctl(&["get", "--prefix", prefix, "--keys-only"]).trim(), key);
    let txn = etcdctl(member, &["txn"], &format!("value(\"{key}\") = \"2\"\n\nput {key} 3\n\nget {key}\n\n"));
    assert!(txn.contains("SUCCESS"), "{txn}");
    let watched = first_watched(member, &key);
    assert_eq!(watched, ["PUT", &key, "1"]);
    let granted = ctl(&["lease", "grant", "100"]);
    let id = granted.split_whitespace().nth(1).expect("a lease").to_owned();
    ctl(&["put", "--lease", &id, &format!("{prefix}leased"), "x"]);
    assert!(ctl(&["lease", "timetolive", &id, "--keys"]).contains(&format!("{prefix}leased")));
    assert!(ctl(&["lease", "keep-alive", "--once", &id]).contains("keepalived with TTL(100)"));
    assert!(ctl(&["lease", "list"]).contains(&id));
    ctl(&["lease", "revoke", &id]);
    assert_eq!(ctl(&["get", &format!("{prefix}leased")]).trim(), "");
    assert_eq!(ctl(&["del", &key]).trim(), "1");
    assert!(ctl(&["endpoint", "health"]).contains("is healthy"));
    // This call sends the whole URL as authority.
    let status = ctl(&["endpoint", "status"]);
    assert!(status.starts_with(&format!("{}, ", member.url)) && status.contains("3.6.0"), "{status}");
    assert!(ctl(&["defrag"]).contains("Finished defragmenting"));
    assert_eq!(ctl(&["member", "list"]).lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_works_on_each_member() {
    let cluster = Cluster::started(3).await;
    for at in 0..3 {
        for url in [cluster.url(at), cluster.secure_url(at)] {
            let certificates = cluster.dir.path().to_path_buf();
            let walk = move || {
                let prefix = format!("m{at}-{}-", url.starts_with("https"));
                walk_through(&Member { url: &url, certificates: &certificates }, &prefix);
            };
            tokio::task::spawn_blocking(walk).await.expect("no panic");
        }
    }
    let url = cluster.url(0);
    let health = tokio::task::spawn_blocking(move || {
        ["/health", "/readyz", "/version", "/metrics"].map(|path| {
            let output = Command::new("curl").args(["-s", &format!("{url}{path}")]).output().expect("curl");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    });
    let [health, ready, version, metrics] = health.await.expect("no panic");
    assert!(health.contains("\"health\":\"true\""), "{health}");
    assert_eq!(ready, "ok\n");
    assert!(version.contains("3.6.0"));
    for line in [
        "etcd_server_has_leader 1",
        r#"etcd_server_version{server_version="3.6.0"} 1"#,
        r#"etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"}"#,
        r#"grpc_server_handled_total{grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Put",grpc_code="OK"}"#,
        r#"etcd_network_peer_sent_bytes_total{To=""#,
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line} isn't in {metrics}");
    }
}
