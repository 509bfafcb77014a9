//! Runs tests, a few at a time, each in a process of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::list::Skipped;
use super::source::remove;
use super::{Places, Suite};

/// What a test may take; the slowest waits for its members' timeouts.
const TEST_MAX: &str = "150s";
/// A test's ports begin here, apart from those that the system hands out itself, and each runner has a thousand.
const FIRST_PORT: usize = 20_000;
const PORTS: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// It decided by itself that it has nothing to do.
    SkipsItself,
    /// Only listed parts of it failed.
    Forgiven,
    /// It failed beside others and passed alone.
    SecondTime,
    Failed,
}

/// A test that ran.
pub(super) struct Ran {
    pub(super) suite: &'static Suite,
    pub(super) test: String,
    pub(super) outcome: Outcome,
    /// Parts that failed; without parts, the test itself.
    pub(super) parts: Vec<String>,
    pub(super) took: Duration,
    pub(super) log: PathBuf,
}

impl Ran {
    /// Makes a failure of listed parts alone no failure.
    pub(super) fn forgive(&mut self, listed: &[Skipped]) {
        let name = |part: &String| format!("{}/{part}", self.suite.name);
        let is_listed = |part: &String| listed.iter().any(|entry| entry.is(&name(part)));
        if self.outcome == Outcome::Failed && !self.parts.is_empty() && self.parts.iter().all(is_listed) {
            self.outcome = Outcome::Forgiven;
        }
    }
}

fn program(places: &Places, suite: &Suite) -> Command {
    let mut command = Command::new(places.programs.join(suite.name));
    command.current_dir(places.etcd.join(suite.package)).env("KEELSON", &places.keelson).env("TMPDIR", &places.data);
    command
}

/// The suite's tests whose names match.
pub(super) fn tests_of(places: &Places, suite: &Suite, regex: &str) -> Result<Vec<String>> {
    let output = program(places, suite).args(["-test.list", regex]).output().context("listing etcd's tests")?;
    if !output.status.success() {
        bail!("{} -test.list {regex}: {}", suite.name, String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|line| line.starts_with("Test") || line.starts_with("Example")).map(str::to_owned).collect())
}

/// What a test that ended failed at: of nested parts, the innermost.
fn failures(text: &str) -> Vec<String> {
    let failed = text.lines().filter_map(|line| line.trim_start().strip_prefix("--- FAIL: "));
    let names: Vec<&str> = failed.filter_map(|rest| rest.split(' ').next()).collect();
    let has_parts = |name: &str| names.iter().any(|other| other.strip_prefix(name).is_some_and(|r| r.starts_with('/')));
    names.iter().filter(|name| !has_parts(name)).map(|name| (*name).to_owned()).collect()
}

/// Runs a test with the ports of a runner; `log` is the end of its log's name.
pub(super) fn one(places: &Places, suite: &'static Suite, test: &str, runner: usize, log: &str) -> Result<Ran> {
    let log = places.logs.join(format!("{}.{test}.{log}", suite.name));
    let output = File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let begun = Instant::now();
    let status = program(places, suite)
        // In one word, by which etcd's examples see that they need a cluster.
        .args(["-test.v", "-test.timeout", TEST_MAX, &format!("-test.run=^{test}$")])
        // etcd's own clusters hash passwords as cheaply.
        .env("ETCD_BCRYPT_COST", "4")
        .env("KEELSON_INTEROP_PORTS", (FIRST_PORT + runner * PORTS).to_string())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .with_context(|| format!("running {test}"))?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let outcome = match () {
        () if !status.success() => Outcome::Failed,
        () if text.contains("--- SKIP: ") => Outcome::SkipsItself,
        () if text.contains(&format!("--- PASS: {test} ")) => Outcome::Passed,
        // It ran no test: that is no success.
        () => Outcome::Failed,
    };
    Ok(Ran { suite, test: test.to_owned(), outcome, parts: failures(&text), took: begun.elapsed(), log })
}

/// Runs tests, as many at once as there are processors and one more: they wait a lot.
pub(super) fn all(places: &Places, tests: &[(&'static Suite, String)], listed: &[Skipped]) -> Result<Vec<Ran>> {
    for dir in [&places.logs, &places.data] {
        remove(dir)?;
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let runners = std::thread::available_parallelism().map_or(1, usize::from).min(7) + 1;
    let (next, ran) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = |runner: usize| -> Result<()> {
        while let Some((suite, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut one = one(places, suite, test, runner, "log")?;
            one.forgive(listed);
            if one.outcome == Outcome::Failed {
                println!("failed: {}/{test} ({:.0} s)", suite.name, one.took.as_secs_f64());
            }
            ran.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..runners).map(|runner| scope.spawn(move || work(runner))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let mut ran = ran.into_inner().unwrap_or_else(PoisonError::into_inner);
    ran.sort_by(|a, b| (a.suite.name, &a.test).cmp(&(b.suite.name, &b.test)));
    Ok(ran)
}

#[cfg(test)]
mod tests {
    use super::failures;

    #[test]
    fn of_nested_parts_the_innermost_failed() {
        let text =
            "=== RUN TestA\n--- FAIL: TestA (1.0s)\n    --- PASS: TestA/one (0.5s)\n    --- FAIL: TestA/two (0.5s)\n";
        assert_eq!(failures(text), ["TestA/two"]);
        assert_eq!(failures("--- FAIL: TestA (1.0s)\n--- FAIL: TestAB (1.0s)\n"), ["TestA", "TestAB"]);
        assert!(failures("panic: test timed out\n").is_empty());
    }
}
