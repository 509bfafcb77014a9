//! What servers tell of themselves, in each form that Debian's etcdctl 3.4 writes: its parts are those that a real
//! etcd gives it, whatever their values; and mirrors, which need one of each.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::auth::Etcd;
use crate::cluster::Cluster;
use crate::script::{Endpoint, run};

/// The names of all parts of a value.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(parts) => parts.iter().for_each(|(name, part)| paths(part, &format!("{at}.{name}"), found)),
        Value::Array(parts) => parts.iter().for_each(|part| paths(part, &format!("{at}[]"), found)),
        _ => {
            found.insert(at.to_owned());
        }
    }
}

/// What is left of an output without its values.
fn shape(form: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match form {
        "json" => paths(&serde_json::from_str(text.trim()).expect(text), "", &mut found),
        "fields" => {
            found.extend(text.lines().filter_map(|line| line.split_once(" : ")).map(|(name, _)| name.to_owned()))
        }
        "table" => found.extend(text.lines().find(|line| line.starts_with('|')).map(str::to_owned).map(|row| {
            // Columns are as wide as what stands in them.
            row.split_whitespace().collect::<Vec<_>>().join(" ")
        })),
        _ => found.extend(text.lines().map(|line| line.matches(", ").count().to_string())),
    }
    assert!(!found.is_empty(), "{form}: {text}");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_servers_tell_of_themselves_has_etcds_parts_in_every_form() {
    let cluster = Cluster::started(1).await;
    let url = cluster.url(0);
    let compared = tokio::task::spawn_blocking(move || {
        let etcd = Etcd::start();
        let (ours, theirs) = (Endpoint::plain(&url), Endpoint::plain(&etcd.url));
        for endpoint in [&ours, &theirs] {
            assert!(run(endpoint, "put k v", "").0);
        }
        let mut different = Vec::new();
        for command in
            ["endpoint status", "endpoint status --cluster", "endpoint health", "endpoint hashkv", "member list"]
        {
            for form in ["simple", "json", "fields", "table"] {
                let line = format!("{command} -w {form}");
                let [ours, theirs] = [&ours, &theirs].map(|endpoint| {
                    let (success, text) = run(endpoint, &line, "");
                    assert!(success, "{line}: {text}");
                    shape(form, &text)
                });
                if ours != theirs {
                    different.push(format!("{line}\nours   {ours:?}\ntheirs {theirs:?}"));
                }
            }
        }
        assert!(different.is_empty(), "{}", different.join("\n\n"));
    });
    compared.await.expect("no difference");
}

/// Mirrors one server's keys to another: those that are there, and what happens to them then.
fn mirror(from: &Endpoint, to: &Endpoint, prefix: &str) {
    let key = |name: &str| format!("{prefix}/{name}");
    let ask = |endpoint: &Endpoint, line: String| {
        let (success, text) = run(endpoint, &line, "");
        assert!(success, "{line}: {text}");
        text
    };
    ask(from, format!("put {} before", key("a")));
    let mut mirroring = std::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &from.url, "make-mirror", "--prefix", prefix])
        .arg(to.url.trim_start_matches("http://"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcdctl is installed (Debian's package etcd-client)");
    let deadline = Instant::now() + Duration::from_secs(30);
    let until = |wanted: String| {
        while ask(to, format!("get --prefix {prefix}/")).lines().collect::<Vec<_>>().join(" ") != wanted {
            assert!(Instant::now() < deadline, "{wanted:?} isn't mirrored");
        }
    };
    until(format!("{} before", key("a")));
    ask(from, format!("put {} later", key("b")));
    until(format!("{} before {} later", key("a"), key("b")));
    ask(from, format!("del {}", key("a")));
    until(format!("{} later", key("b")));
    mirroring.kill().expect("killed");
    mirroring.wait().expect("ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_are_made_of_etcd_and_in_etcd() {
    let cluster = Cluster::started(1).await;
    let url = cluster.url(0);
    let mirrored = tokio::task::spawn_blocking(move || {
        let etcd = Etcd::start();
        let (ours, theirs) = (Endpoint::plain(&url), Endpoint::plain(&etcd.url));
        mirror(&ours, &theirs, "out");
        mirror(&theirs, &ours, "in");
    });
    mirrored.await.expect("mirrored");
}

/// Small: as many keys as it takes for etcdctl to judge the memory that they need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_memory_reads_what_it_needs() {
    let cluster = Cluster::started(1).await;
    let endpoint = Endpoint::plain(&cluster.url(0));
    let checked = tokio::task::spawn_blocking(move || run(&endpoint, "check datascale --load=s", ""));
    let (success, text) = checked.await.expect("no panic");
    assert!(success && text.contains("PASS: Approximate system memory used"), "{text}");
}

/// A minute of small load: what is judged is the machine, that a judgement is made is the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_of_speed_runs_to_its_end() {
    let cluster = Cluster::started(1).await;
    let endpoint = Endpoint::plain(&cluster.url(0));
    let checked = tokio::task::spawn_blocking(move || run(&endpoint, "check perf --load=s", ""));
    let (_, text) = checked.await.expect("no panic");
    for judged in ["Throughput", "Slowest request", "Stddev"] {
        assert!(text.contains(judged), "{judged} isn't in {text}");
    }
    assert!(!text.contains("context deadline exceeded"), "{text}");
}

/// What somebody sees who watches by hand: what was, what happens, and how far he has seen.
fn watch_by_hand(endpoint: &Endpoint) -> Vec<String> {
    assert!(run(endpoint, "put k was", "").0);
    let mut watching = std::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &endpoint.url, "watch", "--interactive"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("etcdctl is installed (Debian's package etcd-client)");
    let (mut keyboard, screen) = (watching.stdin.take().expect("piped"), watching.stdout.take().expect("piped"));
    let mut screen = BufReader::new(screen).lines();
    let mut seen: Vec<String> = Vec::new();
    let mut see = |number: usize| seen.extend(screen.by_ref().take(number).map(|line| line.expect("a line")));
    keyboard.write_all(b"watch k --rev=2\n").expect("typed");
    see(3);
    assert!(run(endpoint, "put k is", "").0);
    see(3);
    keyboard.write_all(b"progress\n").expect("typed");
    see(1);
    keyboard.write_all(b"watch k --rev=2 --prev-kv\n").expect("typed");
    see(8);
    watching.kill().expect("killed");
    watching.wait().expect("ended");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_by_hand_sees_what_etcd_shows() {
    let cluster = Cluster::started(1).await;
    let ours = Endpoint::plain(&cluster.url(0));
    let watched = tokio::task::spawn_blocking(move || {
        let etcd = Etcd::start();
        assert_eq!(watch_by_hand(&ours), watch_by_hand(&Endpoint::plain(&etcd.url)));
    });
    tokio::time::timeout(Duration::from_secs(60), watched).await.expect("all is shown").expect("the same is shown");
}
