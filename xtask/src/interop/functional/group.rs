//! Runs cases on one cluster: starts agents and tester, follows the tester's log, leaves no process behind.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::config::Group;
use super::events::{Event, event};
use super::{Places, Programs};

/// What the slowest cases take on a busy machine is a third of it.
const CASE_MAX: Duration = Duration::from_secs(300);
/// As in the configuration.
const AGENTS: [&str; 3] = ["127.0.0.1:29110", "127.0.0.1:29120", "127.0.0.1:29130"];
/// Characters of each end of a long reason.
const BRIEF: usize = 200;
/// Lines of the tester's log that may wait here; then it waits.
const LINES: usize = 64;
/// What a member that sent another its whole state logs.
const SENT: &str = "\"msg\":\"sent a snapshot\"";

/// A case that ran.
pub(super) struct Ran {
    pub(super) group: String,
    pub(super) failure: Option<String>,
    /// It failed on another cluster before.
    pub(super) is_second: bool,
    pub(super) took: Duration,
    /// How often members sent each other their whole state. Logs of members that were wiped since are gone with them,
    /// but for the last of each.
    pub(super) snapshots: usize,
    /// The logs of its cluster.
    pub(super) dir: PathBuf,
}

/// Kills all processes of its group when it is dropped, or when this process dies, however it does.
struct Leash(Child);

impl Leash {
    fn new() -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read _; kill -KILL 0"]).stdin(Stdio::piped()).process_group(0);
        Ok(Self(shell.spawn().context("running sh")?))
    }

    fn start(&self, command: &mut Command) -> Result<Child> {
        let group = i32::try_from(self.0.id()).context("a process id")?;
        command.process_group(group).stdin(Stdio::null());
        command.spawn().with_context(|| format!("running {command:?}"))
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It kills itself as well.
        let _ = self.0.wait();
    }
}

/// Runs these cases of a group up to the first that fails.
pub(super) fn run(
    places: &Places,
    programs: &Programs,
    dir: &Path,
    group: &Group,
    cases: &[String],
) -> Result<Vec<Ran>> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let config = dir.join("config.yaml");
    let text = group.with(cases, dir, &programs.etcd, &places.programs.join("etcd-runner"));
    std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
    let leash = Leash::new()?;
    let mut agents = start_agents(&leash, places, programs, dir)?;
    let mut command = Command::new(places.programs.join("etcd-tester"));
    let mut tester = leash.start(command.arg("--config").arg(&config).stderr(Stdio::piped()).stdout(Stdio::null()))?;
    let lines = follow(&mut tester, &dir.join("tester.log"))?;
    let mut cluster = Cluster { group, dir, case: None, ran: Vec::new() };
    let failure = cluster.watch(&lines);
    let status = match &failure {
        // It may hang.
        Some(_) => None,
        None => Some(tester.wait().context("waiting for etcd's tester")?),
    };
    drop(leash);
    for child in agents.iter_mut().chain([&mut tester]) {
        let _ = child.wait();
    }
    cluster.end(failure, status)
}

fn start_agents(leash: &Leash, places: &Places, programs: &Programs, dir: &Path) -> Result<Vec<Child>> {
    let start = |(number, address): (usize, &&str)| {
        let path = dir.join(format!("agent-{}.log", number + 1));
        let log = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        let mut agent = Command::new(places.programs.join("etcd-agent"));
        agent.args(["--network", "tcp", "--address", address]).current_dir(dir);
        agent.env("SNAPSHOT_PROGRAM", &programs.snapshot).env("ETCDCTL_API", "3");
        leash.start(agent.stdout(log.try_clone()?).stderr(log))
    };
    AGENTS.iter().enumerate().map(start).collect()
}

/// The lines that the tester writes, which go to a file too.
fn follow(tester: &mut Child, path: &Path) -> Result<Receiver<String>> {
    let mut log = File::create(path).with_context(|| format!("making {}", path.display()))?;
    let stderr = BufReader::new(tester.stderr.take().context("the tester's log")?);
    let (sender, lines) = sync_channel(LINES);
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            // Without a log there are the events still.
            let _ = writeln!(log, "{line}");
            if event(&line).is_some() && sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

/// Cases as they run.
struct Cluster<'a> {
    group: &'a Group,
    dir: &'a Path,
    /// The one under way.
    case: Option<(String, Instant)>,
    ran: Vec<Ran>,
}

impl Cluster<'_> {
    /// Follows the tester to its end, or to the first failure, which is returned.
    fn watch(&mut self, lines: &Receiver<String>) -> Option<String> {
        loop {
            let line = match lines.recv_timeout(CASE_MAX) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => return Some(format!("no end after {} s", CASE_MAX.as_secs())),
            };
            match event(&line) {
                Some(Event::Started(case)) => self.case = Some((case, Instant::now())),
                Some(Event::Passed) => self.finish(None),
                Some(Event::Failed(why)) => return Some(why),
                None => {}
            }
        }
    }

    fn finish(&mut self, failure: Option<String>) {
        let (case, begun) = self.case.take().unwrap_or_else(|| ("(outside the cases)".to_owned(), Instant::now()));
        let (name, took) = (format!("{}/{case}", self.group.name), begun.elapsed());
        match &failure {
            None => println!("passed  {name} ({:.0} s)", took.as_secs_f64()),
            Some(why) => println!("FAILED  {name} ({:.0} s): {}", took.as_secs_f64(), brief(why)),
        }
        let before: usize = self.ran.iter().map(|one| one.snapshots).sum();
        let snapshots = sent(self.dir).saturating_sub(before);
        let (group, dir) = (self.group.name.clone(), self.dir.to_owned());
        self.ran.push(Ran { group, failure, is_second: false, took, snapshots, dir });
    }
}

impl Cluster<'_> {
    /// What ran, once no process is left; `status` is the tester's if it ended by itself.
    fn end(mut self, failure: Option<String>, status: Option<ExitStatus>) -> Result<Vec<Ran>> {
        let failure = failure.or_else(|| match status {
            Some(status) if !status.success() => Some(format!("etcd's tester ended with {status}")),
            _ if self.case.is_some() => Some("etcd's tester ended before the case did".to_owned()),
            _ => None,
        });
        let Some(why) = failure else { return Ok(self.ran) };
        if self.case.is_none() && self.ran.is_empty() {
            bail!("the cluster didn't come up: {why}; its logs: {}", self.dir.display());
        }
        self.finish(Some(why));
        Ok(self.ran)
    }
}

/// How many snapshots members' logs tell of: each has its own, and the one of before it was wiped.
fn sent(dir: &Path) -> usize {
    let members = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let logs = members.filter_map(|member| std::fs::read_to_string(member.path().join("etcd.log")).ok());
    logs.map(|log| log.matches(SENT).count()).sum()
}

/// A reason on one line: of what a program printed, the begin and the end.
fn brief(why: &str) -> String {
    let words: Vec<char> = why.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    if words.len() <= 2 * BRIEF {
        return words.into_iter().collect();
    }
    let (start, end) = (&words[..BRIEF], &words[words.len() - BRIEF..]);
    start.iter().chain(&[' ', '.', '.', '.', ' ']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_a_line() {
        assert_eq!(brief("why:\n  so\n"), "why: so");
        let told = brief(&format!("begin {} end", "ä".repeat(1000)));
        assert!(told.starts_with("begin ä") && told.contains(" ... ") && told.ends_with("ä end"), "{told}");
        assert_eq!(told.chars().count(), 2 * BRIEF + 5);
    }

    #[test]
    fn nothing_outlives_the_leash() {
        let leash = Leash::new().expect("a shell");
        // With a child of its own, as agents have.
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo started; wait"]).stdout(Stdio::piped());
        let mut child = leash.start(&mut command).expect("a child");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, "started\n");
        drop(leash);
        // The output ends when the last who may write to it has ended.
        assert_eq!(output.read_line(&mut line).expect("the end"), 0);
        assert!(!child.wait().expect("its end").success());
    }

    #[test]
    fn the_first_failure_ends_a_cluster() {
        let group = Group { name: "data".to_owned(), config: String::new(), cases: Vec::new() };
        let run = |lines: &[&str], status: Option<i32>| {
            let (sender, receiver) = sync_channel(LINES);
            lines.iter().for_each(|line| sender.send((*line).to_owned()).expect("a receiver"));
            drop(sender);
            let mut cluster = Cluster { group: &group, dir: Path::new("/nonexistent"), case: None, ran: Vec::new() };
            let failure = cluster.watch(&receiver);
            let status = status.map(std::os::unix::process::ExitStatusExt::from_raw);
            let ran = cluster.end(failure, status).map_err(|error| error.to_string())?;
            Ok::<_, String>(ran.into_iter().map(|one| one.failure).collect::<Vec<_>>())
        };
        let start = r#"{"msg":"case START","desc":"A"}"#;
        let passed = r#"{"msg":"consistency check PASS"}"#;
        let failed = r#"{"msg":"round FAIL","error":"why"}"#;
        assert_eq!(run(&[start, passed, start, passed], Some(0)), Ok(vec![None, None]));
        assert_eq!(run(&[start, passed, start, failed], None), Ok(vec![None, Some("round FAIL: why".to_owned())]));
        let ended = "etcd's tester ended before the case did".to_owned();
        assert_eq!(run(&[start], Some(0)), Ok(vec![Some(ended)]));
        // Exit code 2, behind the last case.
        let after = run(&[start, passed], Some(2 << 8)).expect("cases");
        assert!(after.len() == 2 && after[1].as_ref().is_some_and(|why| why.contains("exit status: 2")), "{after:?}");
        assert!(run(&[r#"{"level":"fatal","msg":"Bootstrap failed","error":"why"}"#], None).is_err());
    }
}
