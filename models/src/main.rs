//! Checks: production code explored exhaustively within bounds, and histories of real clusters.
//!
//! `models check replica`, `models check history FILE`, `models validate trace FILE…`: the exit code is 1 if something is
//! violated, and 2 if a check came to its bound; what was found is told.

mod agent;
mod collection;
mod election;
mod exploration;
mod lease;
mod replica;
mod scheduler;
mod watch;

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use models::history::{self, History};
use models::traces::{self, Trace};

use crate::exploration::Report;

/// Explores production code within bounds; judges what clients of real clusters recorded.
#[derive(Parser)]
#[command(name = "models")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks a model or a history.
    #[command(subcommand)]
    Check(Subject),
    /// Walks through a model by chance, within bounds that are too wide to check.
    #[command(subcommand)]
    Walk(Way),
    /// Decides whether what members of real clusters did is what the specification allows.
    #[command(subcommand)]
    Validate(Judged),
    /// Shows a model's states in a browser.
    #[command(subcommand)]
    Explore(Shown),
}

#[derive(Subcommand)]
enum Shown {
    /// The store's consensus driver.
    Replica(replica::Explorer),
}

#[derive(Subcommand)]
enum Judged {
    /// The steps of consensus that members wrote down (`keelson store --trace-raft FILE`): whether they are Raft's.
    Trace {
        /// Each member's file, of all members.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Way {
    /// The store's consensus driver: five members, many terms and every kind of fault.
    Replica(replica::Walk),
}

#[derive(Subcommand)]
enum Subject {
    /// The store's consensus driver: up to five members, power cuts between any two effects.
    Replica(replica::Bounds),
    /// The store's leases: clocks that differ, changes of leader, checkpoints.
    Lease(lease::Bounds),
    /// The store's watches: compaction, snapshots, members that are behind, clients that go on elsewhere.
    Watch(watch::Bounds),
    /// Several schedulers and the API between them: what each knows lags, bindings go unanswered or come late.
    Scheduler(scheduler::Bounds),
    /// The node agent: killed anywhere, with calls to the runtime that take effect later, or not at all.
    Agent(agent::Bounds),
    /// Garbage collection against adoption: watches that lag, owners deleted in every way and made anew.
    Collection(collection::Bounds),
    /// Leader election: clocks that differ, processes that stand still, requests that come late.
    Election(election::Bounds),
    /// Whether a recorded history of a store's clients is linearizable.
    History {
        /// JSON lines, as `models::history` writes them.
        file: PathBuf,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    match Cli::parse().command {
        Command::Check(subject) => check(subject, &mut out),
        Command::Walk(Way::Replica(walk)) => {
            let walked = replica::walk(&walk, &mut out);
            walked.print(&mut out)?;
            Ok(code(walked.holds()))
        }
        Command::Validate(Judged::Trace { files }) => validate_traces(&files, &mut out),
        Command::Explore(Shown::Replica(explorer)) => {
            replica::serve(&explorer, &mut out)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(subject: Subject, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match subject {
        Subject::Replica(bounds) => tell(&replica::check(&bounds, out), out),
        Subject::Lease(bounds) => tell(&lease::check(&bounds, out), out),
        Subject::Watch(bounds) => tell(&watch::check(&bounds, out), out),
        Subject::Scheduler(bounds) => tell(&scheduler::check(&bounds, out), out),
        Subject::Agent(bounds) => tell(&agent::check(&bounds, out), out),
        Subject::Collection(bounds) => tell(&collection::check(&bounds, out), out),
        Subject::Election(bounds) => tell(&election::check(&bounds, out), out),
        Subject::History { file } => check_history(&file, out),
    }
}

fn tell(report: &Report, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    report.print(out)?;
    Ok(code(report.holds()))
}

fn code(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn check_history(file: &Path, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let input = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let history = History::read(&mut BufReader::new(input)).with_context(|| format!("reading {}", file.display()))?;
    let report = history::check(&history);
    report.print(&history, out)?;
    Ok(match (report.holds(), report.is_violated()) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::from(1),
        (false, false) => ExitCode::from(2),
    })
}

fn validate_traces(files: &[PathBuf], out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut traces = Vec::new();
    for file in files {
        let input = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        traces.push(Trace::read(&file.display().to_string(), &mut BufReader::new(input))?);
    }
    let verdict = traces::validate(&traces)?;
    verdict.print(out)?;
    Ok(code(verdict.holds()))
}
