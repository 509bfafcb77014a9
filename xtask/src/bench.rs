//! `cargo xtask bench store`: Keelson's store beside Debian's etcd, by the example `compare` of the benches.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cache_dir, cargo, install, interop, root, target_dir};

/// Builds what is needed and runs the comparison; `--keelson FILE` names a program that was built already, `--go` adds
/// the rows of etcd's Go client, everything else is the example's.
pub(crate) fn store(arguments: &[&str]) -> Result<()> {
    install::ensure(install::FOR_COMPARISON)?;
    let (keelson, rest) = program(arguments)?;
    let keelson = match keelson {
        Some(built) => built,
        None => {
            install::ensure(install::FOR_UP)?;
            cargo("building", &["build", "--release", "--locked", "-p", "keelson"])?;
            target_dir().join("release/keelson")
        }
    };
    cargo("building the driver", &["build", "--release", "--locked", "-p", "benches", "--example", "compare"])?;
    // Beside what is built: folders for temporary files are often in memory, where a sync costs nothing.
    let dir = target_dir().join(format!("bench-store-{}", std::process::id()));
    let mut run = Command::new(target_dir().join("release/examples/compare"));
    run.arg("--keelson").arg(&keelson).arg("--dir").arg(&dir);
    if !rest.iter().any(|a| *a == "--out" || a.starts_with("--out=")) {
        run.arg("--out").arg(root().join("benches/results"));
    }
    if rest.contains(&"--go") {
        run.arg("--go-load").arg(interop::load(&root(), &cache_dir())?);
    }
    let status = run.args(rest.iter().filter(|a| **a != "--go")).status().context("running the driver")?;
    if !status.success() {
        bail!("the comparison ended with {status}; logs of what failed are in {}", dir.display());
    }
    remove(&dir)
}

/// The program named by `--keelson`, and the other arguments.
fn program<'a>(arguments: &[&'a str]) -> Result<(Option<PathBuf>, Vec<&'a str>)> {
    let (mut program, mut rest) = (None, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let file = match word.strip_prefix("--keelson") {
            Some("") => *words.next().context("--keelson asks for a file")?,
            Some(file) if file.starts_with('=') => &file[1..],
            _ => {
                rest.push(*word);
                continue;
            }
        };
        program = Some(std::path::absolute(file).with_context(|| format!("finding {file}"))?);
    }
    Ok((program, rest))
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_named_is_taken_out_of_the_arguments() {
        for words in [["--quick", "--keelson", "/a/keelson"].as_slice(), &["--keelson=/a/keelson", "--quick"]] {
            let found = program(words).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(found, (Some(PathBuf::from("/a/keelson")), vec!["--quick"]));
        }
        assert!(program(&["--keelson"]).is_err());
    }
}
