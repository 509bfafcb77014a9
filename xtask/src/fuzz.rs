//! Fuzzing: every decoder that reads bytes from outside, a minute each.
//!
//! The targets stand in `fuzz/fuzz_targets`, what they begin with in `fuzz/corpus`: an example of each form, and each input
//! that ever failed. What runs find beside it stays in the cache, and is there for the next one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::must;

/// The version of cargo-fuzz that is installed if there is none.
const CARGO_FUZZ: &str = "0.13.2";
/// Targets that run at once.
const AT_ONCE: usize = 2;
/// An input that takes so many seconds is a failure, and so is so much memory.
const LIMITS: [&str; 4] = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=4096", "-print_final_stats=1"];

/// What to do with the targets.
pub(crate) struct Plan<'a> {
    /// For each target.
    pub(crate) seconds: u32,
    /// Only this one.
    pub(crate) target: Option<&'a str>,
    /// Whether what is compared is damaged: then each target must fail.
    pub(crate) mutant: bool,
}

/// Folders of a run.
struct Places {
    /// Of the fuzzing crate.
    fuzz: PathBuf,
    /// Where it is built, and finds are kept.
    cache: PathBuf,
    cargo: std::ffi::OsString,
}

/// Builds the targets and runs them.
///
/// # Errors
/// If one fails: its input and the command that repeats it are told.
pub(crate) fn run(root: &Path, cache: &Path, plan: &Plan<'_>) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let places = Places { fuzz: root.join("fuzz"), cache: cache.join("fuzz"), cargo };
    let targets = targets(&places, plan)?;
    let begun = Instant::now();
    println!("== fuzzing: building {} targets", targets.len());
    let programs = build(&places, plan)?;
    println!("== fuzzing: built after {:.0} s", begun.elapsed().as_secs_f64());
    let mut failed = Vec::new();
    for some in targets.chunks(AT_ONCE) {
        let mut running = Vec::new();
        for target in some {
            running.push((target, start(&places, &programs, target, plan)?));
        }
        for (target, (child, log)) in running {
            let passed = end(child, &log, target, plan)?;
            if !passed {
                failed.push(target.clone());
            }
        }
    }
    if !failed.is_empty() {
        bail!("fuzzing failed: {}", failed.join(", "));
    }
    println!("== fuzzing: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn targets(places: &Places, plan: &Plan<'_>) -> Result<Vec<String>> {
    let folder = places.fuzz.join("fuzz_targets");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()?;
    let mut names: Vec<String> =
        paths.iter().filter_map(|path| path.file_stem()?.to_str().map(str::to_owned)).collect();
    names.retain(|name| plan.target.is_none_or(|wanted| wanted == name));
    names.sort();
    if names.is_empty() {
        bail!("no target {:?} in {}", plan.target.unwrap_or_default(), folder.display());
    }
    Ok(names)
}

/// Builds by cargo-fuzz, without a sanitizer: there is no unsafe code to look at, and stable Rust has none.
fn build(places: &Places, plan: &Plan<'_>) -> Result<PathBuf> {
    let tools = places.cache.join("tools");
    let built = places.cache.join("target");
    if !tools.join("bin/cargo-fuzz").exists() {
        let mut install = Command::new(&places.cargo);
        install.args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--root"]).arg(&tools);
        must(install.env("CARGO_TARGET_DIR", places.cache.join("tools-target")))?;
    }
    let mut build = Command::new(tools.join("bin/cargo-fuzz"));
    build.args(["fuzz", "build", "--sanitizer=none", "--fuzz-dir"]).arg(&places.fuzz).arg("--target-dir").arg(&built);
    if plan.mutant {
        build.args(["--features", "mutant"]);
    }
    must(build.current_dir(&places.fuzz).env_remove("CARGO_TARGET_DIR"))?;
    let triple = std::fs::read_dir(&built)?.filter_map(Result::ok).map(|entry| entry.path().join("release"));
    let found = triple.into_iter().find(|folder| folder.join("peers").exists());
    found.with_context(|| format!("cargo-fuzz built nothing in {}", built.display()))
}

fn start(places: &Places, programs: &Path, target: &str, plan: &Plan<'_>) -> Result<(Child, PathBuf)> {
    let corpus = places.fuzz.join("corpus").join(target);
    let finds = places.cache.join("corpus").join(target);
    let failures = places.cache.join(if plan.mutant { "mutants" } else { "failures" }).join(target);
    for folder in [&corpus, &finds, &failures] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let log = places.cache.join(format!("{target}.log"));
    let output = std::fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let mut command = Command::new(programs.join(target));
    command.args(LIMITS).arg(format!("-artifact_prefix={}/", failures.display()));
    command.arg(format!("-max_total_time={}", plan.seconds)).args([&finds, &corpus]);
    let child = command.stdout(Stdio::null()).stderr(output).spawn();
    Ok((child.with_context(|| format!("starting {target}"))?, log))
}

/// Waits for a target; whether it did what it should.
fn end(mut child: Child, log: &Path, target: &str, plan: &Plan<'_>) -> Result<bool> {
    let status = child.wait().with_context(|| format!("waiting for {target}"))?;
    let said = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    let find = |what: &str| said.lines().rev().find_map(|line| line.strip_prefix(what)).unwrap_or("?").trim();
    let (runs, inputs) = (find("stat::number_of_executed_units:"), find("stat::new_units_added:"));
    match (status.success(), plan.mutant) {
        (true, false) => println!("passed  {target}: {runs} runs, {inputs} new inputs"),
        (false, true) => println!("found   {target}: what was damaged was noticed"),
        (true, true) => println!("MISSED  {target}: what was damaged wasn't noticed in {runs} runs"),
        (false, false) => {
            println!("FAILED  {target}: {status}; the end of {}:", log.display());
            let lines: Vec<&str> = said.lines().collect();
            lines[lines.len().saturating_sub(40)..].iter().for_each(|line| println!("        {line}"));
        }
    }
    Ok(status.success() != plan.mutant)
}
