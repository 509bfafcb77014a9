//! Tidy: what compilers don't check.
//!
//! - Dependencies between crates go along the edges that ARCHITECTURE.md lists.
//! - Every source file begins with a header that says what it is for.
//! - No unfinished marks, no test that is switched off, no file beyond 800 lines.
//! - Dependencies come in the versions and under the licences that `deny.toml` allows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A file beyond this holds more than one thought.
const LINES_MAX: usize = 800;

/// Checks everything; tells all faults at once.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    let metadata = metadata(root)?;
    edges(root, &metadata, &mut faults)?;
    licences(root, &metadata, &mut faults)?;
    for file in sources(root)? {
        source(root, &file, &mut faults)?;
    }
    if faults.is_empty() {
        println!("tidy");
        return Ok(());
    }
    bail!("{} faults:\n{}", faults.len(), faults.join("\n"))
}

fn metadata(root: &Path) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(["metadata", "--format-version=1", "--locked"]).current_dir(root).output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The lines `- crate: dependency, dependency` of ARCHITECTURE.md.
fn allowed(root: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let edge = |line: &str| {
        let (from, to) = line.strip_prefix("- `")?.split_once("` → ")?;
        let names =
            to.split(',').map(|n| n.trim().trim_matches('`').to_owned()).filter(|n| !n.is_empty() && n != "nothing");
        Some((from.to_owned(), names.collect()))
    };
    Ok(text.lines().filter_map(edge).collect())
}

fn edges(root: &Path, metadata: &Value, faults: &mut Vec<String>) -> Result<()> {
    let allowed = allowed(root)?;
    let ours: Vec<&Value> = list(metadata, "packages").iter().filter(|p| p["source"].is_null()).collect();
    let names: BTreeSet<&str> = ours.iter().filter_map(|p| p["name"].as_str()).collect();
    for package in &ours {
        let name = package["name"].as_str().unwrap_or("");
        let Some(may) = allowed.get(name) else {
            faults.push(format!("ARCHITECTURE.md doesn't list the crate {name}"));
            continue;
        };
        // Tests may reach across; what ships may not.
        let real = list(package, "dependencies").iter().filter(|d| d["kind"].as_str() != Some("dev"));
        for dependency in real.filter_map(|d| d["name"].as_str()).filter(|d| names.contains(d)) {
            if !may.contains(dependency) {
                faults.push(format!("{name} → {dependency} isn't an edge of ARCHITECTURE.md"));
            }
        }
    }
    for name in allowed.keys().filter(|name| !names.contains(name.as_str())) {
        faults.push(format!("ARCHITECTURE.md lists {name}, which isn't a crate"));
    }
    Ok(())
}

/// The strings of a list in `deny.toml`, which is written one to a line.
fn policy(text: &str, name: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != format!("{name} = ["));
    lines.next();
    lines.take_while(|line| line.trim() != "]").filter_map(|line| line.split('"').nth(1).map(str::to_owned)).collect()
}

fn licences(root: &Path, metadata: &Value, faults: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("reading deny.toml")?;
    let (allow, deny) = (policy(&text, "allow"), policy(&text, "deny"));
    for package in list(metadata, "packages") {
        let name = package["name"].as_str().unwrap_or("");
        let licence = package["license"].as_str().unwrap_or("");
        // `A OR B` needs one that is allowed, `A AND B` all.
        let fits = licence.replace('/', " OR ").split(" OR ").any(|choice| {
            choice.split(" AND ").all(|part| allow.iter().any(|a| a == part.trim().trim_matches(['(', ')'])))
        });
        if !fits {
            faults.push(format!("{name} is under {licence:?}, which deny.toml doesn't allow"));
        }
        if deny.iter().any(|d| d == name) {
            faults.push(format!("deny.toml doesn't allow {name}"));
        }
    }
    Ok(())
}

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root).output().context("running git")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect())
}

fn source(root: &Path, file: &Path, faults: &mut Vec<String>) -> Result<()> {
    let shown = file.display();
    let text = std::fs::read_to_string(root.join(file)).with_context(|| format!("reading {shown}"))?;
    let is_test = file.ends_with("tests.rs") || file.components().any(|c| c.as_os_str() == "tests");
    if !text.starts_with("//! ") && !is_test {
        faults.push(format!("{shown} has no header"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{shown} has {lines} lines"));
    }
    // Put together here, so that this file doesn't find itself.
    let marks = [["FIX", "ME"], ["XX", "X"], ["todo", "!("], ["unimplemented", "!("], ["dbg", "!("], ["#[ign", "ore"]]
        .map(|m| m.concat());
    for (number, line) in text.lines().enumerate() {
        if let Some(mark) = marks.iter().find(|mark| line.contains(mark.as_str())) {
            faults.push(format!("{shown}:{} holds {mark:?}", number + 1));
        }
    }
    Ok(())
}
