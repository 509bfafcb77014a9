//! etcd's flags and variables, as the binary meets them.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output};

use crate::cluster::text;

fn store(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
    command.arg("store").args(arguments).envs(variables.iter().copied());
    command.output().expect("keelson")
}

#[test]
fn a_flag_that_is_not_there_is_named() {
    let table = [
        ("--nonsense", "unexpected argument '--nonsense'"),
        ("-nonsense=1", "unexpected argument '--nonsense'"),
        ("--config-file=/etc/etcd.yaml", "--config-file=/etc/etcd.yaml: the store doesn't have this"),
        ("--discovery=https://x", "--discovery=https://x: the store doesn't have this"),
        ("--pre-vote=false", "--pre-vote=false: the store doesn't have this: elections always ask"),
        ("--auto-compaction-retention=x", "--auto-compaction-retention: \"x\" is no duration"),
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
struct Member(std::process::Child);

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn slow_requests_are_told_with_what_they_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = || format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
    let (client, peer) = (url(), url());
    let child = Command::new(env!("CARGO_BIN_EXE_keelson"))
        .args(["store", "--warning-apply-duration=1ns", "--data-dir"])
        .arg(dir.path().join("store"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("keelson");
    let mut member = Member(child);
    let lines = BufReader::new(member.0.stderr.take().expect("stderr")).lines().map_while(Result::ok);
    let mut lines = lines.inspect(|line| println!("{line}"));
    // Once it leads, it has told the cluster its name: its own first command.
    let told = |line: &String| line.contains("request took too long");
    assert!(lines.by_ref().any(|line| told(&line) && line.contains("request=\"member\"")));
    let (found, put_told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let line = lines.find(|line| line.contains("request took too long") && line.contains("request=\"put\""));
        // The test may have failed meanwhile.
        let _ = found.send(line.expect("a line about a put"));
    });
    // Lines are a second apart: of so many puts some are told.
    let line = (0..2000).find_map(|n| {
        let put = ["--endpoints", &client, "put", "slow/key", &format!("{n}")];
        let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(put).output().expect("etcdctl");
        assert!(output.status.success(), "{}", text(&output));
        put_told.try_recv().ok()
    });
    let line = line.expect("a put is told of");
    for part in ["key=\"slow/key\"", "request_bytes=", "took=", "cause=", "leader=", "consensus=", "apply="] {
        assert!(line.contains(part), "{part}: {line}");
    }
    reader.join().expect("no panic");
}

/// The flags that kubeadm 1.34 gives etcd, but for certificates; one setting that can't work ends it early.
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
