//! `cargo xtask instructions`: that what a put passes doesn't grow.
//!
//! Times on shared machines vary by more than what a change costs. Instructions don't: the example `stages` of the benches
//! does the same work each time, valgrind counts what it executes, and the counts are compared with those that are kept.
//!
//! What differs between machines is kept away: the C library copies with the instructions that every x86-64 has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cargo, install, root, target_dir};

/// The counts that are kept: a line for each stage, its name and its instructions for each operation.
const KEPT: &str = "benches/results/instructions.txt";
/// So many more, in percent, are too many.
const GROWTH_MAX: u64 = 10;
/// So many fewer should be kept, lest later growth hide below them.
const SHRINKING_MAX: u64 = 10;
/// What the C library doesn't use, wherever it could.
const NOT_USED: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-ERMS,-FSRM,-SSSE3,-Fast_Unaligned_Copy";

/// Instructions for each operation, by stage.
type Counts = BTreeMap<String, u64>;

/// Counts, and compares with what is kept, or keeps it.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let renew = match arguments {
        [] => false,
        ["--renew"] => true,
        _ => bail!("only --renew may follow"),
    };
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("left out: instructions are counted on x86-64 alone");
        return Ok(());
    }
    install::ensure(install::FOR_COUNTING)?;
    cargo("building the stages", &["build", "--release", "--locked", "-p", "benches", "--example", "stages"])?;
    let counted = count(&target_dir().join("release/examples/stages"))?;
    let path = root().join(KEPT);
    if renew {
        return keep(&path, &counted);
    }
    let kept = std::fs::read_to_string(&path).with_context(|| format!("reading {KEPT}"))?;
    let verdict = judge(&parse(&kept)?, &counted);
    verdict.lines.iter().for_each(|line| println!("{line}"));
    if verdict.faults > 0 {
        bail!(
            "instructions: {} stages aren't as {KEPT} says. If that is meant: cargo xtask instructions --renew, and say \
             why in the commit",
            verdict.faults
        );
    }
    Ok(())
}

/// Runs each stage under valgrind.
fn count(program: &Path) -> Result<Counts> {
    let listed = Command::new(program).output().with_context(|| format!("running {}", program.display()))?;
    ensure!(listed.status.success(), "{} doesn't name its stages", program.display());
    let mut counts = Counts::new();
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let (name, operations) = line.split_once(' ').context("a stage without operations")?;
        let operations: u64 = operations.parse().with_context(|| format!("operations of {name}"))?;
        counts.insert(name.to_owned(), instructions(program, name)? / operations);
    }
    ensure!(!counts.is_empty(), "{} has no stages", program.display());
    Ok(counts)
}

/// The instructions inside the program's `measured`.
fn instructions(program: &Path, stage: &str) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*stages*measured*"])
        .args([program.as_os_str(), stage.as_ref()])
        // The same on the stack, whoever calls.
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GLIBC_TUNABLES", NOT_USED)
        .output()
        .context("running valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "stage {stage} under valgrind: {said}");
    collected(&said).with_context(|| format!("valgrind doesn't tell what it counted: {said}"))
}

/// The figure behind valgrind's `Collected :`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

fn parse(text: &str) -> Result<Counts> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let counts = lines.map(|line| {
        let mut words = line.split_whitespace();
        let (name, count) = words.next().zip(words.next()).with_context(|| format!("{line:?} is no count"))?;
        Ok((name.to_owned(), count.parse().with_context(|| format!("{line:?} is no count"))?))
    });
    counts.collect()
}

fn keep(path: &PathBuf, counts: &Counts) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let lines: Vec<String> = counts.iter().map(|(name, count)| format!("{name:<18}{count:>8}\n")).collect();
    let head = "# Instructions for each operation, by stage: cargo xtask instructions --renew\n";
    std::fs::write(path, [head, &lines.concat()].concat()).with_context(|| format!("writing {}", path.display()))?;
    lines.iter().for_each(|line| print!("{line}"));
    Ok(())
}

/// What came of comparing.
struct Verdict {
    lines: Vec<String>,
    faults: usize,
}

fn judge(kept: &Counts, counted: &Counts) -> Verdict {
    let mut verdict = Verdict { lines: Vec::new(), faults: 0 };
    let names: std::collections::BTreeSet<&String> = kept.keys().chain(counted.keys()).collect();
    for name in names {
        let (told, is_fault) = match (kept.get(name), counted.get(name)) {
            (Some(kept), Some(counted)) => compare(*kept, *counted),
            (None, _) => ("isn't kept".to_owned(), true),
            (_, None) => ("isn't counted any more".to_owned(), true),
        };
        verdict.lines.push(format!("{name:<18}{told}"));
        verdict.faults += usize::from(is_fault);
    }
    verdict
}

fn compare(kept: u64, counted: u64) -> (String, bool) {
    let figures = format!("{counted:>8} instructions, {kept} kept");
    if counted * 100 > kept * (100 + GROWTH_MAX) {
        (format!("{figures}: more than {GROWTH_MAX} % too many"), true)
    } else if counted * 100 < kept * (100 - SHRINKING_MAX) {
        (format!("{figures}: better; keep it by --renew"), false)
    } else {
        (figures, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(kept: &str, counted: &str) -> usize {
        let counts = |text: &str| parse(text).unwrap_or_else(|e| panic!("{e}"));
        judge(&counts(kept), &counts(counted)).faults
    }

    #[test]
    fn a_stage_may_grow_by_a_tenth() {
        assert_eq!(faults("a 1000\nb 2000", "a 1100\nb 1000"), 0);
        assert_eq!(faults("a 1000\nb 2000", "a 1101\nb 2000"), 1);
        assert_eq!(faults("a 1000\nb 2000", "a 2000\nb 9000"), 2);
    }

    #[test]
    fn stages_that_come_or_go_are_told() {
        assert_eq!(faults("a 1000", "a 1000\nb 1"), 1);
        assert_eq!(faults("a 1000\nb 1", "a 1000"), 1);
        assert_eq!(faults("# nothing\n", "a 1"), 1);
    }

    #[test]
    fn what_valgrind_says_is_understood() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n==7== I   refs:      123,456\n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("valgrind: no such tool"), None);
        assert!(parse("a many").is_err());
    }
}
