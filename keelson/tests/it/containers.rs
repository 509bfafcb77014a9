//! Pods that really run: the README's example, with kubectl of every version.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Kubectl, kill, kubectls, signal, text};

/// One cluster at a time runs containers on a machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// Whoever holds it has the machine's bridge and rules.
pub(crate) struct Machine {
    _turn: MutexGuard<'static, ()>,
}

impl Machine {
    pub(crate) fn take() -> Self {
        // A test that failed has stopped its cluster all the same.
        Self { _turn: MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) }
    }
}

/// The demo image's archive, in the cluster's folder.
pub(crate) fn demo_archive(cluster: &Cluster) -> String {
    let file = cluster.dir.path().join("demo.tar").display().to_string();
    let output = cluster.keelson_plain(&["image", "demo", &file]);
    assert!(output.status.success(), "{}", text(&output));
    file
}

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name).display().to_string()
}

/// What an HTTP server at the address answers; empty if it doesn't.
fn curl(url: &str) -> String {
    let output = Command::new("curl").args(["-s", "--max-time", "2", url]).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The names of pods' networks on this machine.
fn pod_networks() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/var/run/netns").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| name.starts_with("cni-")).collect()
}

/// Waits until a stopped process has been sent SIGTERM, which is bit 14 of what is pending.
fn await_pending_term(pid: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let pending = status.lines().find_map(|l| l.strip_prefix("ShdPnd:")).expect("a mask of signals").trim();
        if u64::from_str_radix(pending, 16).expect("a mask") & (1 << 14) != 0 {
            return;
        }
        assert!(Instant::now() < deadline, "not sent: {pending}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks until each of the pods has answered.
fn answered_by_all(pods: &BTreeSet<String>, ask: impl Fn() -> String) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut seen = BTreeSet::new();
    while seen.len() < pods.len() {
        let answer = ask();
        if let Some(pod) = answer.lines().filter_map(|l| l.strip_prefix("hello from ")).find(|p| pods.contains(*p)) {
            seen.insert(pod.to_owned());
        }
        assert!(Instant::now() < deadline, "answered: {seen:?} of {pods:?}; last: {answer:?}");
    }
}

impl Cluster {
    fn web(&self, arguments: &[&str]) -> String {
        self.ok(&[&["-n", "web"], arguments].concat())
    }

    fn web_until(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        self.until(&[&["-n", "web"], arguments].concat(), wanted)
    }

    fn web_pods(&self) -> BTreeSet<String> {
        let names = self.web(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// Container ids and restart counts: what must not change when something else is killed.
    fn running(&self) -> String {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{'\\n'}{end}";
        self.web_until(&["get", "pods", "--sort-by=.metadata.name", "-o", path], |shown| {
            shown.lines().count() == 3 && shown.contains("containerd://")
        })
    }
}

fn cluster_with_web() -> Cluster {
    let cluster = Cluster::new();
    let archive = demo_archive(&cluster);
    let imported =
        cluster.keelson_plain(&["image", "import", &archive, "--data-dir", &cluster.data().display().to_string()]);
    assert!(text(&imported).contains("will be imported at the next start"), "{}", text(&imported));
    let shown = cluster.up("auto");
    assert!(shown.contains("runtime: containerd, because this machine has it"), "{shown}");
    let begun = Instant::now();
    cluster.ok(&["apply", "-f", &example("web.yaml")]);
    cluster.web(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]);
    println!("apply to three pods ready: {:?}", begun.elapsed());
    cluster
}

#[test]
fn the_example_runs_and_serves() {
    let _machine = Machine::take();
    let mut cluster = cluster_with_web();
    let wide = cluster.web(&["get", "pods", "-o", "wide"]);
    assert_eq!(wide.lines().filter(|l| l.contains(" Running ") && l.contains(" 10.244.0.")).count(), 3, "{wide}");
    let pods = cluster.web_pods();
    let ip = cluster.web(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let url = format!("http://{ip}/");
    answered_by_all(&pods, || curl(&url));
    // From a pod as from the node.
    let ask = format!("while sleep 0.1; do wget -q -O - {url}; done");
    cluster.web(&["run", "asker", "--image=keelson.local/demo:1", "--restart=Never", "--", "sh", "-c", &ask]);
    cluster.web(&["wait", "--for=condition=Ready", "pod/asker", "--timeout=30s"]);
    answered_by_all(&pods, || cluster.web(&["logs", "asker", "--tail=1"]));
    cluster.web(&["delete", "pod", "asker", "--grace-period=1"]);

    cluster.web(&["patch", "service", "web", "-p", r#"{"spec": {"type": "NodePort"}}"#]);
    let port = cluster.web(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let node = cluster.ok(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"]);
    answered_by_all(&pods, || curl(&format!("http://{node}:{port}/")));

    let one = pods.first().expect("a pod").clone();
    let all = kubectls();
    for kubectl in &all {
        cluster.use_kubectl(&kubectl.program);
        look_around(&cluster, &one, kubectl);
    }
    // The newest, then the oldest.
    for kubectl in all.iter().rev().step_by((all.len() - 1).max(1)) {
        cluster.use_kubectl(&kubectl.program);
        change_things(&cluster);
    }
    cluster.ok(&["delete", "namespace", "web", "--timeout=60s"]);
    assert!(cluster.ok(&["get", "pods", "-A"]).contains("No resources found"));
    goes_without_a_trace(&cluster);
}

/// What one kubectl shows of a running pod, and runs in it.
fn look_around(cluster: &Cluster, pod: &str, kubectl: &Kubectl) {
    let all = cluster.web(&["get", "deploy,rs,svc,events"]);
    assert!(all.contains("3/3") && all.contains("Started container"), "{all}");
    assert!(cluster.ok(&["get", "nodes"]).contains(" Ready "));
    let described = cluster.web(&["describe", "pod", pod]);
    assert!(described.contains("Successfully assigned") && described.contains("keelson.local/demo:1"), "{described}");
    let logs = cluster.web(&["logs", pod]);
    assert!(logs.contains("serving on port 8080"), "{logs}");
    let tail = cluster.web(&["logs", pod, "--tail=1", "--timestamps"]);
    assert!(tail.lines().count() == 1 && tail.starts_with("20"), "{tail}");
    if kubectl.can_exec() {
        run_inside(cluster, pod);
        attach(cluster);
    } else {
        println!("{}: exec isn't tested, it needs 1.30 or later", kubectl.program.display());
    }
}

/// Exec with input, with an exit code, and on a terminal.
fn run_inside(cluster: &Cluster, pod: &str) {
    assert_eq!(cluster.feed(&["-n", "web", "exec", "-i", pod, "--", "cat"], "over\nand out\n"), "over\nand out\n");
    let failed = cluster.kubectl(&["-n", "web", "exec", pod, "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(failed.status.code(), Some(3), "{}", text(&failed));
    assert_eq!(failed.stdout, b"out\n");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("err"), "{}", text(&failed));
    // script(1) gives kubectl a terminal.
    let inner = cluster.kubectl_command(&[
        "-n",
        "web",
        "exec",
        "-it",
        pod,
        "--",
        "sh",
        "-c",
        "test -t 0 && echo a terminal: $TERM",
    ]);
    let line =
        std::iter::once(inner.get_program()).chain(inner.get_args()).map(|w| format!("'{}'", w.to_string_lossy()));
    let mut script = Command::new("script");
    script.args(["-qec", &line.collect::<Vec<_>>().join(" "), "/dev/null"]).stdin(Stdio::null());
    script.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let shown = text(&script.output().expect("script"));
    assert!(shown.contains("a terminal: xterm"), "{shown}");
}

/// A pod of one's own, spoken to: `run -i --rm` brings its output and its exit code.
fn attach(cluster: &Cluster) {
    let run = ["-n", "web", "run", "guest", "--image=keelson.local/demo:1", "-i", "--rm", "--quiet", "--restart=Never"];
    let script = ["--", "sh", "-c", "read line; echo heard: $line; exit 4"];
    let mut command = cluster.kubectl_command(&[&run[..], &script].concat());
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("kubectl");
    child.stdin.take().expect("piped").write_all(b"knock\n").expect("taken");
    let output = child.wait_with_output().expect("kubectl");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "heard: knock\n", "{}", text(&output));
    assert!(!cluster.web_pods().contains("guest"));
}

/// What people change while it runs.
fn change_things(cluster: &Cluster) {
    follow_logs(cluster);
    let mut watch = cluster.kubectl_command(&["-n", "web", "get", "deployment", "web", "-w", "--request-timeout=90s"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("kubectl");
    let mut watched = BufReader::new(watch.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(watched.any(|line| line.contains("3/3")), "the deployment as it is");
    cluster.web(&["scale", "deployment", "web", "--replicas=5"]);
    assert!(watched.any(|line| line.contains("5/5")), "and as it becomes");
    watch.kill().expect("ended");
    watch.wait().expect("ended");
    cluster.web(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.web(&["scale", "deployment", "web", "--replicas=3"]);
    cluster.web_until(&["get", "pods", "-o", "name"], |shown| shown.lines().count() == 3);
    cluster.web(&["label", "deployment", "web", "tier=front"]);
    cluster.web(&["annotate", "deployment", "web", "note=changed"]);
    cluster.web(&["patch", "cm", "page", "--type=json", "-p", r#"[{"op": "add", "path": "/data/a", "value": "1"}]"#]);
    cluster.web(&["patch", "cm", "page", "--type=merge", "-p", r#"{"data": {"greeting": "hello from"}}"#]);
    cluster.web(&[
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec": {"template": {"metadata": {"labels": {"v": "2"}}}}}"#,
    ]);
    cluster.web(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    edit(cluster);
    cluster.web(&["rollout", "undo", "deployment/web"]);
    cluster.web(&["rollout", "restart", "deployment/web"]);
    cluster.web(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.web_until(&["get", "pods", "-o", "name"], |shown| shown.lines().count() == 3);
    cluster.web(&["label", "deployment", "web", "tier-"]);
    cluster.web(&["annotate", "deployment", "web", "note-"]);

    // A deleted pod is replaced, a killed container restarts and keeps its last log.
    let victim = cluster.web_pods().first().expect("a pod").clone();
    cluster.web(&["delete", "pod", &victim]);
    cluster.web(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]);
    assert!(!cluster.web_pods().contains(&victim));
    let ready = ["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"];
    cluster.web_until(&ready, |n| n == "3");
    let pod = cluster.web_pods().first().expect("a pod").clone();
    let restarts = ["get", "pod", &pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"];
    kill_container(cluster, &pod);
    cluster.web_until(&restarts, |n| n != "0");
    assert!(cluster.web(&["logs", &pod, "--previous"]).contains("serving on port 8080"));
    cluster.web_until(&ready, |n| n == "3");
}

/// Kills a pod's container behind the cluster's back.
fn kill_container(cluster: &Cluster, pod: &str) {
    let id = cluster.web(&["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}"]);
    cluster.ctr(&["task", "kill", "--signal", "SIGKILL", id.trim_start_matches("containerd://")]);
}

/// A followed log shows a request that is made afterwards.
fn follow_logs(cluster: &Cluster) {
    let pod = cluster.web_pods().first().expect("a pod").clone();
    let ip = cluster.web(&["get", "pod", &pod, "-o", "jsonpath={.status.podIP}"]);
    let mut command = cluster.kubectl_command(&["-n", "web", "logs", "-f", "--tail=0", &pod]);
    let mut follower = command.stdout(Stdio::piped()).spawn().expect("kubectl");
    let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    // A probe's line shows that it follows; the next one looked for is ours.
    let first = lines.next().expect("a line").expect("readable");
    assert!(first.contains("response:200"), "{first}");
    assert!(curl(&format!("http://{ip}:8080/no-such-page")).contains("404"));
    let found = lines.by_ref().take(100).map_while(Result::ok).any(|line| line.contains("404"));
    follower.kill().expect("ended");
    follower.wait().expect("ended");
    assert!(found, "the request is in the log");
}

/// `kubectl edit` with an editor that isn't a person.
fn edit(cluster: &Cluster) {
    let mut command = cluster.kubectl_command(&["-n", "web", "edit", "configmap", "page"]);
    let output =
        command.env("EDITOR", "sed -i s/greeting:.hello.from/greeting:\\ greetings/").output().expect("kubectl");
    assert!(output.status.success(), "{}", text(&output));
    let data = cluster.web(&["get", "configmap", "page", "-o", "jsonpath={.data.greeting}"]);
    assert_eq!(data, "greetings");
}

/// Nothing of a stopped cluster stays: no process, rule, bridge or mount.
fn goes_without_a_trace(cluster: &Cluster) {
    let data = cluster.data().display().to_string();
    assert!(cluster.keelson("down", &[]).status.success());
    let processes = Command::new("pgrep").args(["-fa", &data]).output().expect("pgrep");
    assert_eq!(String::from_utf8_lossy(&processes.stdout).trim(), "");
    let tables =
        Command::new("nft").args(["list", "tables"]).env("PATH", "/usr/sbin:/sbin:/usr/bin").output().expect("nft");
    assert!(!text(&tables).contains("keelson"), "{}", text(&tables));
    let links = Command::new("ip").args(["-o", "link"]).env("PATH", "/usr/sbin:/sbin:/usr/bin").output().expect("ip");
    assert!(!text(&links).contains("keelson0"), "{}", text(&links));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&data), "{mounts}");
    assert!(cluster.keelson("down", &["--purge"]).status.success());
    assert!(!cluster.data().exists());
}

#[test]
fn containers_never_notice_what_is_killed_around_them() {
    let _machine = Machine::take();
    let networks_before = pod_networks();
    let cluster = cluster_with_web();
    let before = cluster.running();
    let pods = cluster.web_pods();
    let ip = cluster.web(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let url = format!("http://{ip}/");
    for component in ["control-plane", "agent", "containerd", &cluster.leader()] {
        kill(cluster.pid(component));
        assert!(curl(&url).starts_with("hello from"), "while {component} is down");
    }
    // All of it comes back by itself: a new pod is taken, placed, run and heard.
    cluster.until(&["get", "namespaces"], |shown| shown.contains("web"));
    cluster.ok(&["run", "back", "--image=keelson.local/demo:1", "--restart=Never", "--", "echo", "back"]);
    cluster.until(&["logs", "back"], |shown| shown == "back");
    cluster.ok(&["delete", "pod", "back", "--grace-period=1"]);
    assert_eq!(cluster.running(), before);

    // Everything at once: a cluster that is started again finds its containers running.
    kill(cluster.state()["pid"].as_i64().expect("a pid"));
    assert!(curl(&url).starts_with("hello from"), "while nothing runs but containers");
    cluster.up("auto");
    assert_eq!(cluster.running(), before);
    answered_by_all(&pods, || curl(&url));

    // A cluster that was cut off leaves containers; `down` ends them.
    kill(cluster.state()["pid"].as_i64().expect("a pid"));
    let down = cluster.keelson("down", &[]);
    assert!(text(&down).contains("stopped 3 pods"), "{}", text(&down));
    assert_eq!(curl(&url), "");

    // So it does if the cluster is cut off while `down` waits for it.
    cluster.up("auto");
    answered_by_all(&pods, || curl(&url));
    let pid = cluster.state()["pid"].as_i64().expect("a pid");
    signal("-STOP", pid);
    let down = cluster.keelson_command("down").stdout(Stdio::piped()).spawn().expect("keelson");
    await_pending_term(pid);
    kill(pid);
    let down = down.wait_with_output().expect("down ends");
    assert!(text(&down).contains("stopped 3 pods"), "{}", text(&down));
    assert_eq!(pod_networks().difference(&networks_before).collect::<Vec<_>>(), Vec::<&String>::new());
    goes_without_a_trace(&cluster);
}
