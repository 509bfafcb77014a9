//! Nodes that run nothing, as somebody without root uses them.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::cluster::{free_port, text};

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// A folder and a program that everybody may use: the build folder is often root's alone.
struct Unprivileged {
    dir: tempfile::TempDir,
}

impl Unprivileged {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path, bits: u32| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(bits)).expect("permissions");
        };
        mode(dir.path(), 0o755);
        std::fs::copy(env!("CARGO_BIN_EXE_keelson"), dir.path().join("keelson")).expect("a copy");
        mode(&dir.path().join("keelson"), 0o755);
        let home = dir.path().join("home");
        std::fs::create_dir(&home).expect("a folder");
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).expect("given away");
        Self { dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("home/data")
    }

    fn keelson(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.dir.path().join("keelson"));
        command.args(arguments).arg("--data-dir").arg(self.data());
        command.uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent").output().expect("keelson")
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", self.data().join("kubeconfig"))
            .env("KUBECACHEDIR", self.dir.path().join("cache"))
            .output()
            .expect("kubectl");
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output));
        text(&output)
    }
}

impl Unprivileged {
    /// Waits for a node to be there.
    fn comes(&self, node: &str) {
        let looks = 120;
        for _ in 0..looks {
            if self.kubectl(&["get", "nodes", "-o", "name"]).lines().any(|line| line == format!("node/{node}")) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        panic!("no node {node} after {looks} looks, one each half second");
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        self.keelson(&["down"]);
    }
}

#[test]
fn without_root_nodes_are_hollow_and_it_says_so() {
    let user = Unprivileged::new();
    let refused = text(&user.keelson(&["up", "--runtime", "containerd"]));
    assert!(refused.contains("--runtime containerd can't work here: containers need root"), "{refused}");
    let port = free_port().to_string();
    let shown = user.keelson(&["up", "--port", &port, "--detach", "--nodes", "1"]);
    let said = text(&shown);
    assert!(shown.status.success(), "{said}");
    assert!(said.contains("runtime: hollow") && said.contains("because containers need root"), "{said}");
    user.kubectl(&["create", "deployment", "web", "--image=web:1", "--replicas=4"]);
    user.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=30s"]);
    let pods =
        user.kubectl(&["get", "pods", "-o", "jsonpath={range .items[*]}{.status.phase} {.status.podIP}{'\\n'}{end}"]);
    let mut addresses: Vec<&str> = pods.lines().filter_map(|line| line.strip_prefix("Running ")).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 4, "{pods}");
    user.kubectl(&["delete", "deployment", "web", "--cascade=foreground", "--timeout=30s"]);
    assert!(user.kubectl(&["get", "pods"]).contains("No resources found"));
    assert!(user.keelson(&["down", "--purge"]).status.success());
}

#[test]
fn many_hollow_nodes_share_the_pods() {
    let user = Unprivileged::new();
    let port = free_port().to_string();
    let shown = user.keelson(&["up", "--port", &port, "--detach", "--runtime", "hollow", "--nodes", "20"]);
    assert!(shown.status.success(), "{}", text(&shown));
    // A node that somebody deletes comes back while its agent lives.
    user.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=30s"]);
    user.kubectl(&["delete", "node", "hollow-3"]);
    user.comes("hollow-3");
    user.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=30s"]);
    user.kubectl(&["create", "deployment", "web", "--image=web:1", "--replicas=40"]);
    user.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let nodes = user.kubectl(&["get", "pods", "-o", "jsonpath={range .items[*]}{.spec.nodeName}{'\\n'}{end}"]);
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    nodes.lines().for_each(|node| *counts.entry(node).or_default() += 1);
    // LeastAllocated and the default spread leave no node with more than three.
    assert_eq!(counts.values().sum::<usize>(), 40, "{counts:?}");
    assert!(counts.len() >= 18 && counts.values().all(|n| *n <= 3), "{counts:?}");
}
