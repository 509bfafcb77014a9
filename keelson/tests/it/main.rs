//! `keelson up` as a person uses it: real processes, real kubectl, kill -9.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

struct Cluster {
    dir: TempDir,
    port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Cluster {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder"), port: free_port() }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn keelson(&self, command: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_keelson"))
            .arg(command)
            .arg("--data-dir")
            .arg(self.data())
            .args(arguments)
            .output()
            .expect("keelson")
    }

    fn up(&self) -> String {
        let output = self.keelson("up", &["--port", &self.port.to_string(), "--detach"]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", self.data().join("kubeconfig"))
            .env("KUBECACHEDIR", self.dir.path().join("cache"))
            .output()
            .expect("kubectl")
    }

    fn state(&self) -> Value {
        let text = std::fs::read_to_string(self.data().join("state.json")).expect("a state file");
        serde_json::from_str(&text).expect("JSON")
    }

    fn pid(&self, component: &str) -> i64 {
        let state = self.state();
        let all = state["components"].as_array().expect("components").iter();
        all.filter(|c| c["name"] == component).find_map(|c| c["pid"].as_i64()).unwrap_or(0)
    }

    /// The component that leads the store, as `keelson status` says.
    fn leader(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let status = text(&self.keelson("status", &[]));
            let line = status.lines().find(|line| line.split_whitespace().nth(2) == Some("leader"));
            if let Some(name) = line.and_then(|l| l.split_whitespace().next()) {
                return name.to_owned();
            }
        }
        panic!("no leader in 20 s");
    }

    fn maps(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let output = self.kubectl(&["get", "cm", "-o", "jsonpath={.items[*].metadata.name}"]);
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
            }
            assert!(Instant::now() < deadline, "{}", text(&output));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keelson("down", &[]);
    }
}

/// Ends a process of this test's own cluster, as a crash would.
fn kill(pid: i64) {
    assert!(pid > 1, "no such process");
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
    assert!(status.success());
}

/// Applies maps one by one while `disturb` happens; returns those acknowledged and the longest gap.
fn write_through(
    cluster: &Cluster,
    prefix: &str,
    count: usize,
    disturb: impl FnOnce() + Send,
) -> (Vec<String>, Duration) {
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut acknowledged, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
            for n in 0..count {
                let name = format!("{prefix}{n:03}");
                if cluster.kubectl(&["create", "cm", &name, "--from-literal=a=1"]).status.success() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                    acknowledged.push(name);
                }
            }
            (acknowledged, longest)
        });
        std::thread::sleep(Duration::from_millis(500));
        disturb();
        writer.join().expect("no panic")
    })
}

#[test]
fn a_cluster_survives_whatever_is_killed() {
    let cluster = Cluster::new();
    let shown = cluster.up();
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
    cluster.up();
    let there = cluster.maps();
    let lost: Vec<&String> = all.iter().filter(|name| !there.contains(name)).collect();
    assert!(lost.is_empty(), "lost by the power cut: {lost:?}");

    assert!(cluster.keelson("down", &[]).status.success());
    assert!(!cluster.kubectl(&["get", "ns"]).status.success());
    assert!(cluster.keelson("down", &["--purge"]).status.success());
    assert!(!cluster.data().exists());
}

impl Cluster {
    /// Asks until the answer is as wanted.
    fn until(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let shown = text(&self.kubectl(arguments));
            if wanted(shown.trim()) {
                return shown.trim().to_owned();
            }
            assert!(Instant::now() < deadline, "kubectl {arguments:?}: {shown}");
        }
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output));
        text(&output)
    }
}

#[test]
fn controllers_make_keep_and_collect() {
    let cluster = Cluster::new();
    cluster.up();
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
    let nothing = Command::new(env!("CARGO_BIN_EXE_keelson"))
        .args(["down", "--data-dir", "/nonexistent"])
        .output()
        .expect("keelson");
    assert!(text(&nothing).contains("there is no cluster in /nonexistent"), "{}", text(&nothing));
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
