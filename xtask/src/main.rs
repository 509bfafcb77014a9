//! The project's chores: `cargo xtask up | test | bench | instructions | interop | fuzz | tidy | facts`.

mod bench;
mod facts;
mod fuzz;
mod install;
mod instructions;
mod interop;
mod kubernetes;
mod stages;
mod tidy;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use interop::Member;

const HELP: &str = "cargo xtask up [ARGUMENTS]    install what is missing, build, run `keelson up ARGUMENTS`
cargo xtask test              everything that CI checks
cargo xtask bench store [ARGUMENTS]  the store beside Debian's etcd, row by row: --rows RE, --repeat N, --quick, --list,
                              --go for rows of etcd's Go client
cargo xtask bench stages [--keep]  what a write passes, stage by stage, beside the baselines that are kept
cargo xtask instructions [--renew]  that what a write passes takes no more instructions than it did
cargo xtask interop etcd [RE]  etcd's own tests against `keelson store`, those whose names match
cargo xtask interop etcd-client  the tests of Rust's client against `keelson store`
cargo xtask interop functional [--etcd] [RE]  etcd's functional tester, 15 minutes of disasters, cases whose names match
cargo xtask interop kubernetes [ARGUMENTS]  Kubernetes' control plane on `keelson store`, 15 minutes of churn
cargo xtask fuzz [--seconds N] [--mutant] [TARGET]  decoders of bytes from outside, a minute each
cargo xtask tidy              what compilers don't check: edges, headers, marks
cargo xtask facts --data DIR  derive the schema table from the facts about Kubernetes";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["up", rest @ ..] => up(rest),
        ["test"] => test(),
        ["bench", "store", rest @ ..] => bench::store(rest),
        ["bench", "stages", rest @ ..] => stages::run(rest),
        ["instructions", rest @ ..] => instructions::run(rest),
        ["interop", "etcd"] => interop_etcd("."),
        ["interop", "etcd", regex] => interop_etcd(regex),
        ["interop", "etcd-client"] => interop_etcd_client(),
        ["interop", "functional", rest @ ..] => interop_functional(rest),
        ["interop", "kubernetes", rest @ ..] => interop_kubernetes(rest),
        ["fuzz", rest @ ..] => fuzz(rest),
        ["tidy"] => tidy::check(&root()),
        ["facts", "--data", dir] => facts::run(Path::new(dir), &root().join("api/src/table")),
        _ => bail!("what to do?\n{HELP}"),
    }
}

/// The checkout: the one that cargo runs this program for. The path it was compiled
/// under would be another's when checkouts share a build folder.
fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR");
    let crate_dir = manifest.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    crate_dir.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where builds go: shared by all checkouts, because RocksDB takes ten minutes of two cores.
fn target_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return PathBuf::from(dir);
    }
    cache_dir().join("target")
}

/// What is fetched and built once for all checkouts.
fn cache_dir() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/keelson")
}

/// Runs a program that must succeed.
fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{command:?} ended with {status}") }
}

fn cargo(what: &str, arguments: &[&str]) -> Result<()> {
    cargo_with(what, arguments, &[])
}

/// Runs cargo on the workspace; shows what and how long.
fn cargo_with(what: &str, arguments: &[&str], environment: &[(&str, &OsStr)]) -> Result<()> {
    println!("== {what}");
    let begun = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo told this program of itself would reach the build scripts below. Some (ring's) watch it, and would run
    // anew, with all above them, each time builds from here and by hand follow each other.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    let status = command
        .args(arguments)
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target_dir())
        .envs(environment.iter().copied())
        .status()
        .context("running cargo")?;
    if !status.success() {
        bail!("{what} failed: cargo {}", arguments.join(" "));
    }
    println!("== {what}: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn up(arguments: &[&str]) -> Result<()> {
    install::ensure(install::FOR_UP)?;
    // As somebody else than root, or if asked so, nodes are hollow and need none of it.
    let hollow = arguments.iter().any(|a| matches!(a.trim_start_matches("--runtime="), "hollow" | "none"));
    let containers = install::is_root() && !hollow;
    if containers {
        install::ensure(install::FOR_CONTAINERS)?;
    }
    cargo("building", &["build", "--release", "--locked", "-p", "keelson"])?;
    let keelson = target_dir().join("release/keelson");
    let run = |arguments: &[&str]| -> Result<()> {
        let status = Command::new(&keelson).args(arguments).status();
        let status = status.with_context(|| format!("running {}", keelson.display()))?;
        if status.success() { Ok(()) } else { bail!("keelson {} ended with {status}", arguments.join(" ")) }
    };
    if containers {
        // The image that examples/web.yaml runs; it waits in the data folder for the start.
        let archive = target_dir().join("keelson-demo.tar").display().to_string();
        run(&["image", "demo", &archive])?;
        let import: Vec<&str> = ["image", "import", &archive].into_iter().chain(data_dir(arguments)).collect();
        run(&import)?;
    }
    run(&[&["up"], arguments].concat())
}

/// The flag `--data-dir`, if it is given.
fn data_dir<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let Some(at) = arguments.iter().position(|a| *a == "--data-dir" || a.starts_with("--data-dir=")) else {
        return Vec::new();
    };
    let words = if arguments[at] == "--data-dir" { 2 } else { 1 };
    arguments[at..].iter().take(words).copied().collect()
}

fn interop_etcd(regex: &str) -> Result<()> {
    install::ensure(install::FOR_UP)?;
    cargo("building", &["build", "--release", "--locked", "-p", "keelson"])?;
    etcds_tests(regex)
}

/// Runs them against the program that was built last.
fn etcds_tests(regex: &str) -> Result<()> {
    interop::etcd(&root(), &cache_dir(), &target_dir().join("release/keelson"), regex)
}

fn interop_etcd_client() -> Result<()> {
    install::ensure(install::FOR_UP)?;
    cargo("building", &["build", "--release", "--locked", "-p", "keelson"])?;
    rust_clients_tests()
}

/// Runs them against the program that was built last.
fn rust_clients_tests() -> Result<()> {
    interop::etcd_client(&root(), &cache_dir(), &target_dir().join("release/keelson"))
}

/// `--etcd` runs the same on Debian's etcd, and `--keelson FILE` on a program that was built already.
fn interop_functional(arguments: &[&str]) -> Result<()> {
    let run = |member: &Member<'_>, rest: &[&str]| match rest {
        [] => interop::functional(&root(), &cache_dir(), member, "."),
        [regex] if !regex.starts_with('-') => interop::functional(&root(), &cache_dir(), member, regex),
        _ => bail!("what to run?\n{HELP}"),
    };
    match arguments {
        ["--etcd", rest @ ..] => {
            install::ensure(install::FOR_TESTS)?;
            run(&Member::Etcd, rest)
        }
        ["--keelson", file, rest @ ..] => {
            let file = std::path::absolute(file).with_context(|| format!("finding {file}"))?;
            run(&Member::Keelson(&file), rest)
        }
        rest => {
            install::ensure(install::FOR_UP)?;
            cargo("building", &["build", "--release", "--locked", "-p", "keelson"])?;
            run(&Member::Keelson(&target_dir().join("release/keelson")), rest)
        }
    }
}

/// `--etcd` runs the same on Debian's etcd; everything else is the example's.
fn interop_kubernetes(arguments: &[&str]) -> Result<()> {
    let etcd = arguments.contains(&"--etcd");
    install::ensure(if etcd { install::FOR_TESTS } else { install::FOR_UP })?;
    install::ensure(install::FOR_KUBERNETES)?;
    cargo("building", &["build", "--release", "--locked", "-p", "keelson"])?;
    cargo("building the driver", &["build", "--release", "--locked", "-p", "benches", "--example", "kubernetes"])?;
    let programs = kubernetes::programs(&cache_dir())?;
    let dir = std::env::temp_dir().join(format!("keelson-kubernetes-{}", std::process::id()));
    let mut run = Command::new(target_dir().join("release/examples/kubernetes"));
    run.arg("--kubernetes").arg(programs).arg("--dir").arg(&dir);
    if !etcd {
        run.arg("--keelson").arg(target_dir().join("release/keelson"));
    }
    let status = run.args(arguments.iter().filter(|a| **a != "--etcd")).status().context("running the driver")?;
    println!("== report, chart and logs: {}", dir.display());
    if status.success() { Ok(()) } else { bail!("Kubernetes' control plane on the store: {status}") }
}

/// Five minutes of seeds that nobody tried before, on a core each: whole clusters, and the replica's model. A failure tells the
/// command that comes to it again.
fn by_chance() -> Result<()> {
    println!("== by chance");
    let begun = Instant::now();
    let mut running = Vec::new();
    for (program, arguments) in [("sim", "--seconds 300"), ("models", "walk replica --seconds 300")] {
        let path = target_dir().join("release").join(program);
        let mut command = Command::new(&path);
        command.args(arguments.split(' ')).stdout(Stdio::piped());
        running.push((program, command.spawn().with_context(|| format!("running {}", path.display()))?));
    }
    let mut failed = Vec::new();
    for (program, child) in running {
        let ended = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
        let said = String::from_utf8_lossy(&ended.stdout);
        // All of a failure; of what holds the seed and the end.
        let lines: Vec<&str> = said.lines().collect();
        let shown = if ended.status.success() { 12 } else { lines.len() };
        let from = lines.len().saturating_sub(shown);
        lines.iter().take(1).chain(&lines[from..]).for_each(|line| println!("{program}: {line}"));
        if !ended.status.success() {
            failed.push(program);
        }
    }
    println!("== by chance: {:.0} s", begun.elapsed().as_secs_f64());
    if failed.is_empty() { Ok(()) } else { bail!("by chance, {} failed", failed.join(" and ")) }
}

/// `--mutant` damages what is compared: then each target must fail.
fn fuzz(arguments: &[&str]) -> Result<()> {
    let mut plan = fuzz::Plan { seconds: 60, target: None, mutant: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--seconds" => {
                let seconds = rest.next().context("--seconds asks for a number")?;
                plan.seconds = seconds.parse().with_context(|| format!("--seconds {seconds} is no number"))?;
            }
            "--mutant" => plan.mutant = true,
            target if !target.starts_with('-') => plan.target = Some(target),
            other => bail!("{other}? What to do?\n{HELP}"),
        }
    }
    fuzz::run(&root(), &cache_dir(), &plan)
}

fn test() -> Result<()> {
    install::ensure(install::FOR_TESTS)?;
    cargo("formatting", &["fmt", "--all", "--check"])?;
    println!("== tidy");
    tidy::check(&root())?;
    cargo("lints", &["clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // Beside the kubectls that are installed, the tests use Debian's.
    let old = install::debian_kubectl(&target_dir().join("kubectl-debian"))?.unwrap_or_default();
    let tests = ["test", "--release", "--locked", "--workspace"];
    cargo_with("tests", &tests, &[("KEELSON_KUBECTLS", old.as_os_str())])?;
    println!("== instructions");
    instructions::run(&[])?;
    // What threads share, on loom's locks: in every order of their steps.
    cargo("loom", &["test", "--release", "--locked", "-p", "store-shared", "--features", "loom"])?;
    // The tests' build made the program; built alone it would have other features, and take minutes again.
    rust_clients_tests()?;
    etcds_tests(".")?;
    by_chance()?;
    // First that each target can fail.
    for mutant in [true, false] {
        fuzz::run(&root(), &cache_dir(), &fuzz::Plan { seconds: 60, target: None, mutant })?;
    }
    Ok(())
}
