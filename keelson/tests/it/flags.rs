//! etcd's flags and variables, as the binary meets them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::cluster::text;

pub(crate) fn store(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
    command.arg("store").args(arguments).envs(variables.iter().copied());
    command.output().expect("keelson")
}

#[test]
fn a_flag_that_is_not_there_is_named() {
    let table = [
        ("--nonsense", "unexpected argument '--nonsense'"),
        ("-nonsense=1", "unexpected argument '--nonsense'"),
        ("--config-file=/nowhere/etcd.yml", "reading /nowhere/etcd.yml: No such file"),
        ("--discovery=https://x", "--discovery=https://x: the store doesn't have this"),
        ("--pre-vote=false", "--pre-vote=false: the store doesn't have this: elections always ask"),
        ("--auto-compaction-retention=x", "--auto-compaction-retention: \"x\" is no duration"),
        ("--peer-auto-tls", "--peer-auto-tls=true: the store doesn't have this: certificates must be given"),
        ("--client-cert-auth=perhaps", "a switch is true or false"),
        ("--tls-min-version=TLS1.1", "invalid value 'TLS1.1' for '--tls-min-version"),
        ("--tls-max-version=SSL3", "there are TLS1.2 and TLS1.3"),
        ("--peer-cert-allowed-cn=m", "--peer-cert-allowed-* needs a trusted CA"),
        ("--client-crl-file=/crl", "--client-crl-file needs a trusted CA"),
        ("--enable-log-rotation", "--enable-log-rotation=true: the store doesn't have this: let logrotate do it"),
        ("--log-outputs=systemd/journal", "--log-outputs: systemd/journal: the journal takes"),
        ("--log-format=xml", "invalid value 'xml' for '--log-format"),
        ("--log-level=loud", "invalid value 'loud' for '--log-level"),
        ("--max-concurrent-streams=0", "--max-concurrent-streams must be > 0"),
    ];
    for (flag, why) in table {
        let output = store(&[flag], &[]);
        assert!(!output.status.success() && text(&output).contains(why), "{flag}: {}", text(&output));
    }
    let output = store(&[], &[("ETCD_UNSAFE_NO_FSYNC", "true")]);
    let refused = "ETCD_UNSAFE_NO_FSYNC=true: the store doesn't have this";
    assert!(!output.status.success() && text(&output).contains(refused), "{}", text(&output));
}

/// A member that is killed with the test.
pub(crate) struct Member(std::process::Child);

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Member {
    /// One alone, on ports of its own; and its client URL.
    pub(crate) fn start(dir: &Path, flags: &[&str]) -> (Self, String) {
        let url = || format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
        let (client, peer) = (url(), url());
        let data = dir.join("store").display().to_string();
        let urls = [
            ["--data-dir", &data],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
        ];
        (Self::of(&[urls.as_flattened(), flags].concat()), client)
    }

    pub(crate) fn of(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
        command.arg("store").args(flags).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("keelson"))
    }

    fn said(&mut self) -> impl Iterator<Item = String> + Send + use<> {
        let lines = BufReader::new(self.0.stderr.take().expect("stderr")).lines().map_while(Result::ok);
        lines.inspect(|line| println!("{line}"))
    }
}

/// Puts until a line is found about one; lines about slow requests are a second apart.
fn put_until_told(client: &str, mut lines: impl Iterator<Item = String> + Send, told: fn(&str) -> bool) -> String {
    std::thread::scope(|scope| {
        let (found, put_told) = std::sync::mpsc::channel();
        scope.spawn(move || {
            // The test may have failed meanwhile.
            let _ = found.send(lines.find(|line| told(line)).expect("a line about a put"));
        });
        let line = (0..2000).find_map(|n| {
            let put = ["--endpoints", client, "put", "slow/key", &format!("{n}")];
            let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(put).output().expect("etcdctl");
            assert!(output.status.success(), "{}", text(&output));
            put_told.try_recv().ok()
        });
        line.expect("a put is told of")
    })
}

#[test]
fn slow_requests_are_told_with_what_they_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut member, client) =
        Member::start(dir.path(), &["--warning-apply-duration=1ns", "--log-format=console", "--log-outputs=stderr"]);
    let mut lines = member.said();
    // Once it leads, it has told the cluster its name: its own first command.
    let told = |line: &str| line.contains("request took too long");
    assert!(lines.by_ref().any(|line| told(&line) && line.contains("request=\"member\"")));
    let about_put = |line: &str| line.contains("request took too long") && line.contains("request=\"put\"");
    let line = put_until_told(&client, lines, about_put);
    for part in ["key=\"slow/key\"", "request_bytes=", "took=", "cause=", "leader=", "consensus=", "apply="] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// As etcd logs when nothing else is said: every line is an object under zap's names, to every output.
#[test]
fn logs_are_objects_with_the_names_that_etcd_gives() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("member.log");
    let outputs = format!("--log-outputs=stderr,stdout,{}", file.display());
    let flags = ["--warning-apply-duration=1ns", "--snapshot-count=10000", "--logger=zap", &outputs];
    let (mut member, client) = Member::start(dir.path(), &flags);
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect(line);
    let lines = member.said().inspect(move |line| {
        let line = parse(line);
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("{name}: {line}")).to_owned();
        assert!(["debug", "info", "warn", "error"].contains(&text("level").as_str()), "{line}");
        assert!(text("ts").ends_with('Z') && text("caller").contains(".rs:") && !text("msg").is_empty(), "{line}");
    });
    let mut lines = lines.peekable();
    let first = lines.peek().expect("a line");
    assert!(first.contains("--snapshot-count changes nothing here"), "{first}");
    let about_put = |line: &str| line.contains("\"request\":\"put\"");
    let line = parse(&put_until_told(&client, lines, about_put));
    assert_eq!((&line["level"], &line["msg"]), (&"warn".into(), &"apply request took too long".into()));
    assert_eq!((&line["key"], &line["expected-duration"]), (&"slow/key".into(), &"1ns".into()));
    assert!(line["request_bytes"].as_u64().is_some_and(|bytes| bytes > 8) && line["took"].is_string(), "{line}");
    // Once it has ended, each output has the same.
    member.0.kill().expect("killed");
    let mut printed = String::new();
    member.0.stdout.take().expect("stdout").read_to_string(&mut printed).expect("text");
    let kept = std::fs::read_to_string(&file).expect("a log");
    let shared = printed.len().min(kept.len());
    assert!(kept.lines().any(|kept| parse(kept) == line) && printed[..shared] == kept[..shared]);
}

/// Who reads objects is told in one why a member ended.
#[test]
fn the_end_of_a_member_is_an_object_as_well() {
    let dir = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", taken.local_addr().expect("an address"));
    let data = dir.path().join("store").display().to_string();
    let output = store(&["--data-dir", &data, "--listen-client-urls", &url], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect(&said);
    assert!(!output.status.success() && last["level"] == "error", "{said}");
    assert!(last["error"].as_str().is_some_and(|error| error.contains(&format!("listening on {url}"))), "{said}");
}

/// The flags that kubeadm 1.34 gives etcd, but for the certificates' files; one setting that can't work ends it early.
#[test]
fn flags_of_kubeadm_are_understood() {
    let flags = [
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--feature-gates=InitialCorruptCheck=true",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=vm=http://127.0.0.1:2380",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--listen-metrics-urls=http://127.0.0.1:2381",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--client-cert-auth=true",
        "--peer-client-cert-auth=true",
        "--name=vm",
        "--snapshot-count=10000",
        "--watch-progress-notify-interval=5s",
        "--experimental-initial-corrupt-check=true",
        "--bcrypt-cost=3",
    ];
    let said = text(&store(&flags, &[("ETCD_NONSENSE", "1")]));
    assert!(said.contains("--bcrypt-cost must be between"), "{said}");
    assert!(said.contains("--snapshot-count changes nothing here: the log is cut by its size"), "{said}");
    assert!(said.contains("unrecognized environment variable ETCD_NONSENSE=1"), "{said}");
}

/// The sample that comes with etcd 3.6, but for where things are: as a file, most of it left empty or as it comes.
#[test]
fn a_configuration_file_says_everything() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = || format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
    let (client, peer, data) = (url(), url(), dir.path().join("store"));
    let settings = format!(
        "# This is the configuration file.\nname: 'by-file'\ndata-dir: {}\nwal-dir:\nsnapshot-count: 10000\n\
         heartbeat-interval: 100\nelection-timeout: 1000\nquota-backend-bytes: 0\nlisten-peer-urls: {peer}\n\
         listen-client-urls: {client}\nmax-snapshots: 5\nmax-wals: 5\ncors:\n\
         initial-advertise-peer-urls: {peer}\nadvertise-client-urls: {client}\ndiscovery:\n\
         discovery-fallback: 'proxy'\ndiscovery-proxy:\ndiscovery-srv:\ninitial-cluster:\n\
         initial-cluster-token: 'etcd-cluster'\ninitial-cluster-state: 'new'\nstrict-reconfig-check: false\n\
         enable-pprof: true\nproxy: 'off'\nproxy-failure-wait: 5000\nproxy-read-timeout: 0\n\
         client-transport-security:\n  cert-file:\n  client-cert-auth: false\n  auto-tls: false\n\
         peer-transport-security:\n  cert-file:\n  client-cert-auth: false\n  auto-tls: false\n\
         self-signed-cert-validity: 1\nlog-level: debug\nlogger: zap\nlog-outputs: [stderr]\n\
         force-new-cluster: false\nauto-compaction-mode: periodic\nauto-compaction-retention: \"1\"\n\
         tls-min-version: 'TLS1.2'\ntls-max-version: 'TLS1.3'\n",
        data.display()
    );
    let file = dir.path().join("etcd.conf.yml");
    std::fs::write(&file, &settings).expect("written");
    let child = Command::new(env!("CARGO_BIN_EXE_keelson"))
        .args(["store", "--name", "by-flag", "--config-file"])
        .arg(&file)
        .env("ETCD_NAME", "by-variable")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut member = Member(child.expect("keelson"));
    let mut said = member.said();
    assert!(said.any(|line| line.contains("leader changed")), "it leads");
    // Whoever doesn't read holds up who writes.
    let rest = std::thread::spawn(move || said.for_each(drop));
    let listed = ["--endpoints", &client, "member", "list"];
    let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(listed).output().expect("etcdctl");
    assert!(output.status.success() && text(&output).contains(&format!("by-file, {peer}, {client}")), "{output:?}");
    drop(member);
    rest.join().expect("read");
    std::fs::write(&file, format!("{settings}listen-clients: x\n")).expect("written");
    let refused = text(&store(&["--config-file", &file.display().to_string()], &[]));
    assert!(refused.contains("etcd.conf.yml: listen-clients is no setting of the store"), "{refused}");
}

/// A unit of systemd, or a pod, may say everything in variables.
#[test]
fn a_member_runs_by_variables_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = || format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
    let (client, peer) = (url(), url());
    let child = Command::new(env!("CARGO_BIN_EXE_keelson"))
        .arg("store")
        .env("ETCD_NAME", "by-variable")
        .env("ETCD_DATA_DIR", dir.path().join("data"))
        .env("ETCD_LISTEN_CLIENT_URLS", &client)
        .env("ETCD_ADVERTISE_CLIENT_URLS", &client)
        .env("ETCD_LISTEN_PEER_URLS", &peer)
        .env("ETCD_INITIAL_ADVERTISE_PEER_URLS", &peer)
        .env("ETCD_INITIAL_CLUSTER", format!("by-variable={peer}"))
        .env("ETCD_INITIAL_CLUSTER_STATE", "new")
        .env("ETCD_INITIAL_CLUSTER_TOKEN", "token")
        .env("ETCD_MAX_TXN_OPS", "2")
        .env("ETCD_ENABLE_GRPC_GATEWAY", "false")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _member = Member(child.expect("keelson"));
    let etcdctl = |arguments: &[&str], input: &str| etcdctl(&["--endpoints", &client], arguments, input);
    assert_eq!(etcdctl(&["put", "k", "v"], ""), (true, "OK\n".to_owned()));
    let (done, members) = etcdctl(&["member", "list"], "");
    assert!(done && members.contains(&format!("by-variable, {peer}, {client}")), "{members}");
    let (done, refused) = etcdctl(&["txn"], "\nput a 1\nput b 1\nput c 1\n\n\n");
    assert!(!done && refused.contains("etcdserver: too many operations in txn request"), "{refused}");
    assert!(dir.path().join("data").is_dir());
}

/// Whether a command of etcdctl succeeded, and what it said. It waits for a member that starts.
pub(crate) fn etcdctl(access: &[&str], arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--dial-timeout=30s", "--command-timeout=30s"]).args(access).args(arguments);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("etcdctl");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("etcdctl");
    (output.status.success(), text(&output))
}
