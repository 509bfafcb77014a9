//! `cargo xtask interop etcd [REGEX]`: etcd's own tests against `keelson store`.
//!
//! The tests are those of etcd's source as Debian packages it, pinned. `store/interop/etcd-3.4` holds what is put
//! over it: a package that starts processes where etcd's starts its servers in the test's own, and the list of
//! tests that are left out, each with its reason. Every test runs in a process of its own, with ports of its own.

mod etcd_client;
mod functional;
mod list;
mod run;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub(crate) use etcd_client::etcd_client;
pub(crate) use functional::{Member, functional};

use crate::install;
use list::Skipped;
use run::{Outcome, Ran};

/// A folder of etcd's tests, which becomes one program.
struct Suite {
    name: &'static str,
    package: &'static str,
}

const SUITES: [Suite; 6] = [
    Suite { name: "integration", package: "integration" },
    Suite { name: "clientv3", package: "clientv3/integration" },
    Suite { name: "examples", package: "clientv3" },
    Suite { name: "concurrency", package: "clientv3/concurrency" },
    Suite { name: "ordering", package: "clientv3/ordering" },
    Suite { name: "e2e", package: "tests/e2e" },
];

/// Where things are.
struct Places {
    /// etcd's source, with ours over it.
    etcd: PathBuf,
    /// Folders in which Go looks for packages.
    gopath: String,
    gocache: PathBuf,
    /// The tests' programs.
    programs: PathBuf,
    /// What each test printed.
    logs: PathBuf,
    /// The members' folders, and their logs where a test failed.
    data: PathBuf,
    keelson: PathBuf,
}

/// Runs those tests whose names match; fails if one fails that isn't listed.
pub(crate) fn etcd(root: &Path, cache: &Path, keelson: &Path, regex: &str) -> Result<()> {
    let begun = Instant::now();
    install::ensure(install::FOR_INTEROP)?;
    let ours = root.join("store/interop/etcd-3.4");
    let listed = list::read(&ours.join("skipped.txt"))?;
    let places = source::prepare(&ours, cache, keelson, &listed)?;
    let (chosen, skipped) = choose(&places, &listed, regex)?;
    println!("== {} of etcd's tests, {} left out", chosen.len(), skipped.len());
    let mut ran = run::all(&places, &chosen, &listed)?;
    // Many of these tests wait for fixed times, which a machine that is busy with others needs more than once.
    for one in ran.iter_mut().filter(|one| one.outcome == Outcome::Failed) {
        let mut again = run::one(&places, one.suite, &one.test, 0, "again.log")?;
        again.forgive(&listed);
        if again.outcome == Outcome::Passed {
            again.outcome = Outcome::SecondTime;
        }
        *one = again;
    }
    tell(&ran, &skipped, begun.elapsed());
    let failed: Vec<&Ran> = ran.iter().filter(|one| one.outcome == Outcome::Failed).collect();
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            bail!("{} of etcd's tests failed; their logs: {}", failed.len(), first.log.with_file_name("").display())
        }
    }
}

/// The program that puts a load by etcd's own Go client.
pub(crate) fn load(root: &Path, cache: &Path) -> Result<PathBuf> {
    install::ensure(install::FOR_INTEROP)?;
    source::build_load(&root.join("store/interop/etcd-3.4"), cache)
}

type Chosen = (&'static Suite, String);
type LeftOut<'a> = (&'static str, &'a Skipped);

/// The tests whose names match: those to run, and those that are listed.
fn choose<'a>(places: &Places, listed: &'a [Skipped], regex: &str) -> Result<(Vec<Chosen>, Vec<LeftOut<'a>>)> {
    let (mut chosen, mut skipped, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for suite in &SUITES {
        let all = run::tests_of(places, suite, ".")?;
        known.extend(all.iter().map(|test| format!("{}/{test}", suite.name)));
        for test in run::tests_of(places, suite, regex)? {
            match listed.iter().find(|entry| entry.is_whole(suite.name, &test)) {
                Some(entry) => skipped.push((suite.name, entry)),
                None => chosen.push((suite, test)),
            }
        }
    }
    list::check_known(listed, &known, &places.etcd)?;
    if chosen.is_empty() {
        bail!("none of etcd's tests that may run matches {regex:?}");
    }
    Ok((chosen, skipped))
}

fn tell(ran: &[Ran], skipped: &[LeftOut<'_>], took: Duration) {
    let mut lines = BTreeMap::<&str, (usize, &str)>::new();
    for (_, entry) in skipped {
        lines.entry(&entry.what).or_insert((0, &entry.reason)).0 += 1;
    }
    for (what, (tests, reason)) in lines {
        let times = if tests == 1 { String::new() } else { format!(" ({tests} tests)") };
        println!("left out  {what}{times}: {reason}");
    }
    for one in ran {
        let (name, seconds) = (format!("{}/{}", one.suite.name, one.test), one.took.as_secs_f64());
        match one.outcome {
            Outcome::Passed => {}
            Outcome::SkipsItself => println!("skipped   {name}: by itself"),
            Outcome::Forgiven => println!("in part   {name}: {}", one.parts.join(", ")),
            Outcome::SecondTime => println!("2nd time  {name}: it failed beside others and passed alone"),
            Outcome::Failed => println!("FAILED    {name} ({seconds:.0} s): {}", one.log.display()),
        }
    }
    println!("{:>12} {:>7} {:>7} {:>7} {:>7} {:>9}", "", "passed", "in part", "failed", "skipped", "left out");
    for suite in &SUITES {
        let count = |wanted: &[Outcome]| {
            ran.iter().filter(|one| one.suite.name == suite.name && wanted.contains(&one.outcome)).count()
        };
        println!(
            "{:>12} {:>7} {:>7} {:>7} {:>7} {:>9}",
            suite.name,
            count(&[Outcome::Passed, Outcome::SecondTime]),
            count(&[Outcome::Forgiven]),
            count(&[Outcome::Failed]),
            count(&[Outcome::SkipsItself]),
            skipped.iter().filter(|(name, _)| *name == suite.name).count(),
        );
    }
    println!("== etcd's tests: {:.0} s", took.as_secs_f64());
}
