//! Model checks: production code explored exhaustively within bounds.
//!
//! `models check replica` runs one; it exits with 1 and tells the steps if a property is violated.

mod exploration;
mod replica;

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
}

fn main() -> anyhow::Result<ExitCode> {
    let Command::Check(Subject::Replica(bounds)) = Cli::parse().command;
    let mut out = std::io::stdout();
    let report = replica::check(&bounds, &mut out);
    report.print(&mut out)?;
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
