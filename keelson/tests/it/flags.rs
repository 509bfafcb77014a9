//! etcd's flags and variables, as the binary meets them.

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
