//! A cluster of a test's own, and kubectl on it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A cluster in a folder that goes with it; it is stopped at the end.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    /// Program of `kubectl`.
    kubectl: PathBuf,
}

/// As many lines of each log's end are shown if a test fails.
const LINES_TOLD: usize = 30;

/// Between the ports that `up` chooses for itself and those that the kernel gives to clients.
pub(crate) fn free_port() -> u16 {
    crate::ports::free_port(30_000..32_700)
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir, port: free_port(), kubectl: PathBuf::from("kubectl") }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn keelson_command(&self, command: &str) -> Command {
        let mut keelson = Command::new(env!("CARGO_BIN_EXE_keelson"));
        keelson.arg(command).arg("--data-dir").arg(self.data());
        keelson
    }

    pub(crate) fn keelson(&self, command: &str, arguments: &[&str]) -> Output {
        self.keelson_command(command).args(arguments).output().expect("keelson")
    }

    /// `keelson` without a data folder's flag.
    pub(crate) fn keelson_plain(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_keelson")).args(arguments).output().expect("keelson")
    }

    pub(crate) fn up(&self, runtime: &str) -> String {
        let output = self.keelson("up", &["--port", &self.port.to_string(), "--runtime", runtime, "--detach"]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// The same cluster's kubectl, of another version.
    pub(crate) fn use_kubectl(&mut self, program: &Path) {
        self.kubectl = program.to_path_buf();
    }

    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments);
        command.env("KUBECONFIG", self.data().join("kubeconfig")).env("KUBECACHEDIR", self.dir.path().join("cache"));
        command
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments).output().expect("kubectl")
    }

    /// Runs kubectl with this on its standard input; it must succeed.
    pub(crate) fn feed(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.kubectl_command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("kubectl ends");
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn state(&self) -> Value {
        let text = std::fs::read_to_string(self.data().join("state.json")).expect("a state file");
        serde_json::from_str(&text).expect("JSON")
    }

    pub(crate) fn pid(&self, component: &str) -> i64 {
        let state = self.state();
        let all = state["components"].as_array().expect("components").iter();
        all.filter(|c| c["name"] == component).find_map(|c| c["pid"].as_i64()).unwrap_or(0)
    }

    /// The component that leads the store, as `keelson status` says.
    pub(crate) fn leader(&self) -> String {
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

    pub(crate) fn maps(&self) -> Vec<String> {
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
        if std::thread::panicking() {
            self.tell();
        }
        self.keelson("down", &[]);
    }
}

/// Ends a process of this test's own cluster, as a crash would.
pub(crate) fn kill(pid: i64) {
    signal("-KILL", pid);
}

pub(crate) fn signal(name: &str, pid: i64) {
    assert!(pid > 1, "no such process");
    let status = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill");
    assert!(status.success());
}

impl Cluster {
    /// containerd's own client, on what Kubernetes has there.
    pub(crate) fn ctr(&self, arguments: &[&str]) {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.data().join("containerd/containerd.sock")).args(["--namespace", "k8s.io"]);
        let output = command.args(arguments).output().expect("ctr");
        assert!(output.status.success(), "ctr {arguments:?}: {}", text(&output));
    }

    /// Asks until the answer is as wanted.
    pub(crate) fn until(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let shown = text(&self.kubectl(arguments));
            if wanted(shown.trim()) {
                return shown.trim().to_owned();
            }
            assert!(Instant::now() < deadline, "kubectl {arguments:?}: {shown}");
        }
    }

    /// Shows what a person would look at first when a test has failed.
    fn tell(&self) {
        let timeout = "--request-timeout=5s";
        println!("{}", text(&self.kubectl(&["get", "pods", "-A", "-o", "wide", timeout])));
        println!("{}", text(&self.kubectl(&["get", "events", "-A", timeout])));
        let Ok(logs) = std::fs::read_dir(self.data().join("logs")) else { return };
        for log in logs.flatten().map(|entry| entry.path()) {
            let words = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = words.lines().collect();
            println!("== the end of {}", log.display());
            println!("{}", lines[lines.len().saturating_sub(LINES_TOLD)..].join("\n"));
        }
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output));
        text(&output)
    }
}

/// A kubectl of this machine.
pub(crate) struct Kubectl {
    pub(crate) program: PathBuf,
    /// 30 of version 1.30.
    pub(crate) minor: u32,
}

impl Kubectl {
    fn of(program: PathBuf) -> Self {
        let shown = Command::new(&program).args(["version", "--client", "-o", "json"]).output().expect("kubectl");
        let version: Value = serde_json::from_slice(&shown.stdout).expect("a version");
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        let minor = minor.split(|c: char| !c.is_ascii_digit()).next().and_then(|m| m.parse().ok());
        Self { minor: minor.unwrap_or_else(|| panic!("{}: version {version}", program.display())), program }
    }

    /// Whether its `exec` speaks WebSocket.
    pub(crate) fn can_exec(&self) -> bool {
        self.minor >= 30
    }
}

/// Every kubectl on this machine, the newest last.
pub(crate) fn kubectls() -> Vec<Kubectl> {
    let mut found: Vec<Kubectl> = crate::programs::kubectls().into_iter().map(Kubectl::of).collect();
    found.sort_by_key(|kubectl| kubectl.minor);
    found
}
