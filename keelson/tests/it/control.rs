//! The control plane and the store, killed and controlled: no containers run.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, kill, text};

/// Applies maps one by one; once a few are acknowledged `disturb` happens. Returns those acknowledged and the longest gap.
fn write_through(
    cluster: &Cluster,
    prefix: &str,
    count: usize,
    disturb: impl FnOnce() + Send,
) -> (Vec<String>, Duration) {
    let (under_way, begun) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let (mut acknowledged, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
            for n in 0..count {
                let name = format!("{prefix}{n:03}");
                if cluster.kubectl(&["create", "cm", &name, "--from-literal=a=1"]).status.success() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                    acknowledged.push(name);
                    if acknowledged.len() == 5 {
                        under_way.send(()).expect("a waiting test");
                    }
                }
            }
            (acknowledged, longest)
        });
        begun.recv().expect("five acknowledged writes");
        disturb();
        writer.join().expect("no panic")
    })
}

#[test]
fn a_cluster_survives_whatever_is_killed() {
    let cluster = Cluster::new();
    let shown = cluster.up("none");
    assert!(shown.contains("ready in ") && shown.contains("export KUBECONFIG="), "{shown}");
    assert!(cluster.kubectl(&["get", "ns", "default"]).status.success());

    let leader = cluster.leader();
    let (mut all, gap) = write_through(&cluster, "leader-", 200, || kill(cluster.pid(&leader)));
    println!("the store's leader killed: {} of 200 acknowledged, longest gap {gap:?}", all.len());
    assert!(all.len() > 150, "writes resumed: {}", all.len());

    let (more, gap) = write_through(&cluster, "plane-", 30, || kill(cluster.pid("control-plane")));
    println!("the control plane killed: {} of 30 acknowledged, longest gap {gap:?}", more.len());
    all.extend(more);
    let there = cluster.maps();
    let lost: Vec<&String> = all.iter().filter(|name| !there.contains(name)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");

    // Power cut: the supervisor takes every process with it.
    kill(cluster.state()["pid"].as_i64().expect("a pid"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpListener::bind((Ipv4Addr::UNSPECIFIED, cluster.port)).is_err() {
        assert!(Instant::now() < deadline, "children outlived their supervisor");
    }
    cluster.up("none");
    let there = cluster.maps();
    let lost: Vec<&String> = all.iter().filter(|name| !there.contains(name)).collect();
    assert!(lost.is_empty(), "lost by the power cut: {lost:?}");

    assert!(cluster.keelson("down", &[]).status.success());
    assert!(!cluster.kubectl(&["get", "ns"]).status.success());
    assert!(cluster.keelson("down", &["--purge"]).status.success());
    assert!(!cluster.data().exists());
}

#[test]
fn controllers_make_keep_and_collect() {
    let cluster = Cluster::new();
    cluster.up("none");
    let pods = ["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"];
    let count = |n: usize| move |shown: &str| shown.split_whitespace().count() == n;
    cluster.ok(&["create", "deployment", "web", "--image=web:1", "--replicas=3"]);
    let first = cluster.until(&pods, count(3));
    // A deleted pod is replaced by another.
    let victim = first.split_whitespace().next().expect("a pod");
    cluster.ok(&["delete", "pod", victim]);
    cluster.until(&pods, |shown| shown.split_whitespace().count() == 3 && !shown.contains(victim));
    cluster.ok(&["scale", "deployment", "web", "--replicas=1"]);
    cluster.until(&pods, count(1));
    cluster.ok(&["set", "image", "deployment/web", "web=web:2"]);
    cluster.until(&["rollout", "history", "deployment/web"], |shown| shown.contains("\n2 "));
    cluster.ok(&["expose", "deployment", "web", "--port=80"]);
    let slices = ["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "name"];
    cluster.until(&slices, count(1));
    cluster.ok(&["delete", "service", "web"]);
    cluster.until(&slices, count(0));
    // In the foreground the Deployment waits for its pods; kubectl waits for the Deployment.
    cluster.ok(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=30s"]);
    assert_eq!(cluster.ok(&["get", "rs,pods", "-o", "name"]).trim(), "");
    cluster.ok(&["create", "namespace", "x"]);
    cluster.until(&["-n", "x", "get", "sa,cm", "-o", "name"], count(2));
    cluster.ok(&["-n", "x", "create", "deployment", "y", "--image=z"]);
    cluster.ok(&["delete", "namespace", "x", "--timeout=30s"]);
    assert!(text(&cluster.kubectl(&["get", "namespace", "x"])).contains("not found"));
}

#[test]
fn what_cannot_work_is_one_clear_line() {
    let cluster = Cluster::new();
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = cluster.keelson("up", &["--port", &port]);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && shown.contains(&format!("port {port} (the Kubernetes API) is not free")),
        "{shown}"
    );
    assert!(shown.contains("--port"), "{shown}");
    let even = text(&cluster.keelson("up", &["--store-members", "2"]));
    assert!(even.contains("choose 1, 3, 5 or 7"), "{even}");
    let file = cluster.dir.path().join("file");
    std::fs::write(&file, "").expect("write");
    let output =
        Command::new(env!("CARGO_BIN_EXE_keelson")).arg("up").arg("--data-dir").arg(&file).output().expect("keelson");
    assert!(text(&output).contains("choose another with --data-dir"), "{}", text(&output));
    let bare = Command::new(env!("CARGO_BIN_EXE_keelson"))
        .args(["up", "--runtime", "containerd", "--data-dir"])
        .arg(cluster.data())
        .env("PATH", "/nonexistent")
        .output()
        .expect("keelson");
    let said = text(&bare);
    assert!(
        !bare.status.success()
            && said.contains("containerd")
            && said.contains("missing; on Debian: apt-get install containerd"),
        "{said}"
    );
    let nothing = Command::new(env!("CARGO_BIN_EXE_keelson"))
        .args(["down", "--data-dir", "/nonexistent"])
        .output()
        .expect("keelson");
    assert!(text(&nothing).contains("there is no cluster in /nonexistent"), "{}", text(&nothing));
}

#[test]
fn ctrl_c_stops_everything() {
    let cluster = Cluster::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
    command.arg("up").arg("--data-dir").arg(cluster.data()).args(["--port", &cluster.port.to_string()]);
    let mut up = command.args(["--runtime", "none"]).stdout(Stdio::piped()).spawn().expect("keelson");
    let mut lines = BufReader::new(up.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("ready in ")));
    let components = cluster.state()["components"].as_array().cloned().expect("components");
    let pids: Vec<String> = components.iter().map(|c| c["pid"].to_string()).collect();
    assert!(pids.len() == 4 && pids.iter().all(|pid| Path::new("/proc").join(pid).exists()), "{pids:?}");
    let sent = Command::new("kill").args(["-INT", &up.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    assert_eq!(lines.last().as_deref(), Some("stopped"));
    assert!(up.wait().expect("ended").success());
    assert!(pids.iter().all(|pid| !Path::new("/proc").join(pid).exists()), "{pids:?}");
}

#[test]
fn a_damaged_store_says_what_is_damaged() {
    let cluster = Cluster::new();
    cluster.up("none");
    assert!(cluster.keelson("down", &[]).status.success());
    let five = text(&cluster.keelson("up", &["--store-members", "5"]));
    assert!(five.contains("belongs to 3 store member(s), not 5"), "{five}");
    for member in ["store-1", "store-2"] {
        let log = cluster.data().join("store").join(member).join("log/0000000000000001.log");
        let mut bytes = std::fs::read(&log).expect("a log");
        bytes[60] ^= 0xff;
        std::fs::write(&log, bytes).expect("written");
    }
    let port = cluster.port.to_string();
    let output = cluster.keelson("up", &["--port", &port, "--runtime", "none"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.lines().count() == 1, "{said}");
    assert!(said.contains("log/0000000000000001.log is damaged at byte"), "{said}");
    assert!(said.contains("restore this member's folder from a copy"), "{said}");
}

#[test]
fn under_the_name_etcd_it_is_the_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let link = dir.path().join("etcd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_keelson"), &link).expect("a link");
    let help = Command::new(&link).arg("--help").output().expect("etcd");
    assert!(text(&help).contains("--initial-cluster-token"), "{}", text(&help));
    let unknown = Command::new(&link).arg("--no-such-flag").output().expect("etcd");
    assert!(!unknown.status.success() && text(&unknown).contains("--no-such-flag"), "{}", text(&unknown));
}
