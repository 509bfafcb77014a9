//! Model checks: production code explored exhaustively within bounds.
//!
//! `models check replica` runs one; it exits with 1 and tells the steps if a property is violated.

mod exploration;
mod lease;
mod replica;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Explores production code within bounds.
#[derive(Parser)]
#[command(name = "models")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks a model.
    #[command(subcommand)]
    Check(Subject),
}

#[derive(Subcommand)]
enum Subject {
    /// The store's consensus driver: three members, power cuts between any two effects.
    Replica(replica::Bounds),
    /// The store's leases: clocks that differ, changes of leader, checkpoints.
    Lease(lease::Bounds),
    /// The store's watches: compaction, snapshots, members that are behind, clients that go on elsewhere.
    Watch(watch::Bounds),
}

fn main() -> anyhow::Result<ExitCode> {
    let Command::Check(subject) = Cli::parse().command;
    let mut out = std::io::stdout();
    let report = match subject {
        Subject::Replica(bounds) => replica::check(&bounds, &mut out),
        Subject::Lease(bounds) => lease::check(&bounds, &mut out),
        Subject::Watch(bounds) => watch::check(&bounds, &mut out),
    };
    report.print(&mut out)?;
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
