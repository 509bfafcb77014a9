//! Scripts of etcdctl commands, run line by line.
//!
//! A line is a command as one would type it; `@NAME:PASSWORD` before it says who asks,
//! what stands behind `<<` is its input, with `|` for line ends. `$LEASE` is the lease that
//! was granted last and `$DIR` a folder.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A member, and with what it is asked.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    /// CA, certificate and key.
    pub(crate) tls: Option<[PathBuf; 3]>,
}

/// A watch or a candidate that hasn't ended by then works.
const SECONDS_MAX: &str = "2";

impl Endpoint {
    pub(crate) fn plain(url: &str) -> Self {
        Self { url: url.to_owned(), tls: None }
    }
}

/// Runs a command; whether it succeeded, and what it said.
pub(crate) fn run(endpoint: &Endpoint, line: &str, lease: &str) -> (bool, String) {
    use std::io::Write as _;
    let dir = tempfile::tempdir().expect("a folder");
    let line = line.replace("$LEASE", lease).replace("$DIR", &dir.path().display().to_string());
    let (line, input) = line.split_once("<<").unwrap_or((&line, ""));
    let mut words = line.split_whitespace().peekable();
    let user = words.next_if(|word| word.starts_with('@')).map(|word| word[1..].to_owned());
    let mut command = Command::new("timeout");
    command.args(["-k", "5"]);
    let patience = match words.peek() {
        Some(&"watch" | &"elect") => SECONDS_MAX,
        // Its load takes a minute.
        Some(&"check") => "150",
        _ => "30",
    };
    command.arg(patience).arg("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint.url]);
    if let Some([ca, cert, key]) = &endpoint.tls {
        command.arg("--cacert").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key);
    }
    if let Some(user) = user {
        command.args(["--user", &user]);
    }
    command.args(words.map(|word| if word == "\"\"" { "" } else { word }));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("etcdctl is installed (Debian's package etcd-client)");
    let input = input.trim_start().replace('|', "\n");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("etcdctl ends");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn lines(script: &str) -> impl Iterator<Item = &str> {
    script.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// What a script says, line by line, without what differs from run to run.
pub(crate) fn transcript(script: &str, endpoint: &Endpoint) -> Vec<String> {
    let mut lease = String::from("none");
    let mut shown = Vec::new();
    for line in lines(script) {
        let (success, text) = run(endpoint, line, &lease);
        if let Some(granted) = text.strip_prefix("lease ").and_then(|rest| rest.split(" granted").next())
            && line.contains("lease grant")
        {
            granted.clone_into(&mut lease);
        }
        let said = text
            .lines()
            // etcdctl's own log, with times in it.
            .filter(|line| !line.starts_with("{\"level\""))
            .map(|line| plain(line, endpoint, &lease))
            .collect::<Vec<_>>();
        shown.push(format!("{line}: {}\n  {}", if success { "done" } else { "failed" }, said.join("\n  ")));
    }
    shown
}

fn plain(line: &str, endpoint: &Endpoint, lease: &str) -> String {
    let line = line.replace(&endpoint.url, "URL").replace(lease, "LEASE");
    // etcd 3.4 forgets the code and text of some refusals, later versions don't.
    let line = line.replace("rpc error: code = Unknown desc = auth: ", "etcdserver: ");
    let line = without_own_numbers(&sorted_keys(&line));
    // Times: `remaining(599s)`, `took = 1.2ms`.
    let line = match line.split_once("remaining(") {
        Some((before, after)) => {
            format!("{before}remaining({}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => line,
    };
    line.split("took = ").next().unwrap_or_default().replace(endpoint.url.trim_start_matches("http://"), "URL")
}

/// Who answered, and when its leader began, is each server's own; so are leases.
fn without_own_numbers(line: &str) -> String {
    const BEFORE: [&str; 9] = [
        "\"cluster_id\":",
        "\"member_id\":",
        "\"raft_term\":",
        "\"lease\":",
        "\"ClusterID\" : ",
        "\"MemberID\" : ",
        "\"RaftTerm\" : ",
        "\"Lease\" : ",
        "boss/",
    ];
    let mut line = line.to_owned();
    for before in BEFORE {
        let Some((head, tail)) = line.split_once(before) else { continue };
        let tail = tail.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        line = format!("{head}{before}N{tail}");
    }
    line
}

/// etcd tells a lease's keys in any order.
fn sorted_keys(line: &str) -> String {
    let Some((before, after)) = line.split_once("attached keys([") else { return line.to_owned() };
    let mut keys: Vec<&str> = after.trim_end_matches("])").split_whitespace().collect();
    keys.sort_unstable();
    format!("{before}attached keys([{}])", keys.join(" "))
}

/// Runs a script against both and points at the first line where they differ.
pub(crate) fn compare(script: &str, ours: &Endpoint, theirs: &Endpoint) {
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| transcript(script, theirs));
        (transcript(script, ours), theirs.join().expect("no panic"))
    });
    let different: Vec<_> = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).collect();
    let shown: String = different.iter().map(|(ours, theirs)| format!("ours   {ours}\ntheirs {theirs}\n\n")).collect();
    assert!(different.is_empty(), "{} of {} lines differ:\n{shown}", different.len(), ours.len());
}
