//! `cargo xtask interop functional [REGEX]`: etcd's functional tester against `keelson store`.
//!
//! Three agents run a member each, behind a proxy in front of its peer port. The tester has them killed, wiped, cut off
//! and slowed down while it writes, and compares members and leases after every case. All are etcd's own, built from
//! the source that etcd's other tests come from. `store/interop/etcd-3.4/functional` holds their configuration.
//!
//! `changes.patch` changes in them that backups are made and restored by the members' own program, that members aren't told
//! `--wal-dir`, which is the default's value there, that a case UNTIL_TRIGGER_SNAPSHOT waits longer for its revisions, that
//! each case slows the network down as its name says (the tester's latency is that of the last case in its list), and that a
//! round of the watchers waits for its writer, whom its end would otherwise break off and so fail.
//!
//! The tester ends at the first case that fails: that one, once more, and the cases behind it run on a new cluster.

mod config;
mod events;
mod group;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Places, list, source};
use crate::install;
use config::Group;
use group::Ran;

/// Debian's, of etcd 3.4.
const ETCD: &str = "/usr/bin/etcd";

/// What its cases are run against.
pub(crate) enum Member<'a> {
    Keelson(&'a Path),
    /// Debian's etcd, for comparison.
    Etcd,
}

/// The programs that the agents run.
struct Programs {
    /// One member.
    etcd: PathBuf,
    /// Saves and restores its backups; like etcdctl, but for the name.
    snapshot: PathBuf,
}

/// Runs those cases whose names match; fails if one fails.
pub(crate) fn functional(root: &Path, cache: &Path, member: &Member<'_>, regex: &str) -> Result<()> {
    let begun = Instant::now();
    install::ensure(install::FOR_INTEROP)?;
    let ours = root.join("store/interop/etcd-3.4");
    let listed = list::read(&ours.join("skipped.txt"))?;
    // Under etcd's name ours is the store, whose backups are below `snapshot` as etcdctl's are.
    let (program, snapshot) = match member {
        Member::Keelson(path) => (*path, "etcd"),
        Member::Etcd => (Path::new(ETCD), "etcdctl"),
    };
    let places = source::prepare(&ours, cache, program, &listed)?;
    let bin = places.etcd.join("bin");
    let programs = Programs { etcd: bin.join("etcd"), snapshot: bin.join(snapshot) };
    let groups = choose(config::read(&ours.join("functional"))?, regex)?;
    let cases: usize = groups.iter().map(|group| group.cases.len()).sum();
    println!("== {cases} cases of etcd's functional tester");
    let dir = places.data.join("functional");
    source::remove(&dir)?;
    let mut ran = Vec::new();
    for group in &groups {
        ran.extend(all_of(&places, &programs, &dir, group)?);
    }
    tell(&groups, &ran, begun.elapsed());
    match ran.iter().find(|one| one.failure.is_some()) {
        None => Ok(()),
        Some(first) => {
            let failed = ran.iter().filter(|one| one.failure.is_some()).count();
            bail!("{failed} cases of etcd's functional tester failed; the first one's logs: {}", first.dir.display())
        }
    }
}

/// Keeps the cases whose names match, as `group/CASE`.
fn choose(mut groups: Vec<Group>, regex: &str) -> Result<Vec<Group>> {
    let all: Vec<String> = groups.iter().flat_map(Group::names).collect();
    let chosen = matching(&all, regex)?;
    for group in &mut groups {
        let name = group.name.clone();
        group.cases.retain(|case| chosen.contains(&format!("{name}/{case}")));
    }
    groups.retain(|group| !group.cases.is_empty());
    if groups.is_empty() {
        bail!("no case of etcd's functional tester matches {regex:?}; there are\n{}", all.join("\n"));
    }
    Ok(groups)
}

/// The names that match an extended regular expression.
fn matching(names: &[String], regex: &str) -> Result<Vec<String>> {
    let mut chosen = Vec::new();
    for name in names {
        let mut grep = Command::new("sh");
        grep.args(["-c", "printf '%s\\n' \"$1\" | grep -qE -e \"$2\"", "sh", name, regex]);
        match grep.status().context("running grep")?.code() {
            Some(0) => chosen.push(name.clone()),
            Some(1) => {}
            _ => bail!("{regex:?} is no regular expression"),
        }
    }
    Ok(chosen)
}

/// Runs a group's cases, on a new cluster after each failure. A case that fails is run once more there: the tester waits
/// for fixed times, which a machine that is busy with others needs more than once.
fn all_of(places: &Places, programs: &Programs, dir: &Path, group: &Group) -> Result<Vec<Ran>> {
    let mut settled = Settled { cases: group.cases.len(), ran: Vec::new(), is_again: false };
    let mut clusters = 0;
    while settled.ran.len() < settled.cases {
        clusters += 1;
        let dir = dir.join(format!("{}-{clusters}", group.name));
        let ran = group::run(places, programs, &dir, group, &group.cases[settled.ran.len()..])?;
        if ran.is_empty() {
            bail!("etcd's tester ran no case; its log: {}", dir.join("tester.log").display());
        }
        ran.into_iter().for_each(|one| settled.add(one));
    }
    Ok(settled.ran)
}

/// A group's cases that need not be run any more, in their order.
struct Settled {
    /// How many there are.
    cases: usize,
    ran: Vec<Ran>,
    /// The next one failed already.
    is_again: bool,
}

impl Settled {
    fn add(&mut self, mut one: Ran) {
        // What fails behind the last case can't be run alone.
        if one.failure.is_some() && !self.is_again && self.ran.len() < self.cases {
            self.is_again = true;
            return;
        }
        one.is_second = std::mem::take(&mut self.is_again);
        self.ran.push(one);
    }
}

fn tell(groups: &[Group], ran: &[Ran], took: Duration) {
    println!("{:>12} {:>7} {:>8} {:>7} {:>8} {:>10}", "", "passed", "2nd time", "failed", "seconds", "snapshots");
    for group in groups {
        let of_group = || ran.iter().filter(|one| one.group == group.name);
        println!(
            "{:>12} {:>7} {:>8} {:>7} {:>8.0} {:>10}",
            group.name,
            of_group().filter(|one| one.failure.is_none() && !one.is_second).count(),
            of_group().filter(|one| one.failure.is_none() && one.is_second).count(),
            of_group().filter(|one| one.failure.is_some()).count(),
            of_group().map(|one| one.took.as_secs_f64()).sum::<f64>(),
            of_group().map(|one| one.snapshots).sum::<usize>(),
        );
    }
    println!("== etcd's functional tester: {:.0} s", took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> Vec<Group> {
        let group = |name: &str, cases: &[&str]| Group {
            name: name.to_owned(),
            config: String::new(),
            cases: cases.iter().map(|case| (*case).to_owned()).collect(),
        };
        vec![group("data", &["SIGTERM_ALL", "SIGTERM_LEADER"]), group("runners", &["SIGTERM_ALL"])]
    }

    #[test]
    fn cases_are_chosen_by_name() {
        let chosen = |regex| {
            let groups = choose(groups(), regex).expect("some match");
            groups.iter().flat_map(Group::names).collect::<Vec<_>>()
        };
        assert_eq!(chosen("ALL$"), ["data/SIGTERM_ALL", "runners/SIGTERM_ALL"]);
        assert_eq!(chosen("^data/.*(LEADER|QUORUM)"), ["data/SIGTERM_LEADER"]);
        assert_eq!(chosen(".").len(), 3);
    }

    #[test]
    fn a_case_may_fail_once() {
        let settle = |cases, outcomes: &[bool]| {
            let mut settled = Settled { cases, ran: Vec::new(), is_again: false };
            for passed in outcomes {
                let failure = (!passed).then(|| "why".to_owned());
                let (group, took, dir) = ("data".to_owned(), Duration::ZERO, PathBuf::new());
                settled.add(Ran { group, failure, is_second: false, took, snapshots: 0, dir });
            }
            settled.ran.iter().map(|one| (one.failure.is_none(), one.is_second)).collect::<Vec<_>>()
        };
        assert_eq!(settle(3, &[true, false, true, true]), [(true, false), (true, true), (true, false)]);
        assert_eq!(settle(2, &[false, false, true]), [(false, true), (true, false)]);
        assert_eq!(settle(1, &[false]), []);
        // Behind the last case.
        assert_eq!(settle(1, &[true, false]), [(true, false), (false, false)]);
    }

    #[test]
    fn what_names_no_case_is_refused() {
        let told = choose(groups(), "SIGHUP").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains("data/SIGTERM_LEADER"), "{told}");
        assert!(choose(groups(), "(").is_err());
    }
}
