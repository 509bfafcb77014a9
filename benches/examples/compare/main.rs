//! Keelson's store beside etcd's: the same machine, the same client, the same run.
//!
//! Starts fresh members of one program, then of the other, for each repetition of each row, puts the row's load on
//! them, and throws them away. Medians with their spread, the ratio, and whether it is what it must be, go to
//! `store.md`; throughput and times over clients, keys, watchers and members to `store.svg`. Exit code 1 if a run failed
//! or an acknowledged write was missing; with `--must` also if a ratio wasn't reached.
//! `cargo xtask bench store` builds what it needs and runs it.
//!
//! Back of the envelope: a row takes ≈ 15 s for each program and repetition; the rows that aren't long, five times
//! each, two hours.

mod chart;
mod cluster;
mod go;
mod observe;
mod perform;
mod report;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use regex::Regex;
use tokio::signal::unix::{SignalKind, signal};

use cluster::Program;
use perform::{Readings, Scale};
use report::{Compared, Report};
use rows::{Scenario, Work};

/// As in `keelson bench`: what the load spends on memory, the members lack.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares stores, row by row.
#[derive(Parser, Debug)]
struct Cli {
    /// Keelson's program, whose `store` command is a member.
    #[arg(long)]
    keelson: PathBuf,
    /// Etcd's program.
    #[arg(long, default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// Program that puts a load by etcd's own Go client; without it there are no rows of it.
    #[arg(long)]
    go_load: Option<PathBuf>,
    /// Folder for the members; each is thrown away after its row.
    #[arg(long)]
    dir: PathBuf,
    /// Folder for the report and the chart.
    #[arg(long, default_value = "benches/results")]
    out: PathBuf,
    /// Repetitions of each row and program; medians count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    repeat: u16,
    /// Rows whose names match; without it all that don't take tens of minutes.
    #[arg(long)]
    rows: Option<Regex>,
    /// Tiny loads, once: whether it works, not what it measures.
    #[arg(long)]
    quick: bool,
    /// Seconds of loads that end with their time [default: what the row says].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
    /// Threads of the load; they share the cores with the members.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Fail if a ratio isn't what it must be.
    #[arg(long)]
    must: bool,
    /// Only name the rows.
    #[arg(long)]
    list: bool,
}

impl Cli {
    fn chosen(&self) -> Vec<Scenario> {
        let wanted = |row: &Scenario| self.rows.as_ref().map_or(!row.long, |rows| rows.is_match(&row.name));
        let possible = |row: &Scenario| self.go_load.is_some() || !matches!(row.work, Work::Go { .. });
        rows::scenarios().into_iter().filter(possible).filter(wanted).collect()
    }
}

fn progress(scenario: &Scenario, program: &Program, repetition: u16, readings: &Readings) {
    let figures: Vec<String> = scenario
        .figures
        .iter()
        .map(|figure| format!("{} {} {}", figure.what, report::number((figure.of)(readings)), figure.unit))
        .collect();
    let cost = &readings.cost;
    println!(
        "{:24} {:4} {repetition}: {}; CPU/op: members {} µs ({:.2} cores), client {} µs; {:.1} writes/sync, sync {:.2} ms",
        scenario.name,
        program.name(),
        figures.join(", "),
        report::number(cost.members_cpu),
        cost.cores,
        report::number(readings.client_cpu),
        cost.writes_per_sync,
        cost.sync,
    );
}

/// All repetitions of a row, the programs by turns.
async fn compare(cli: &Cli, scenario: Scenario, programs: &[Program; 2]) -> (Compared, Vec<String>) {
    let (mut readings, mut failures) = ([Vec::new(), Vec::new()], Vec::new());
    let scale = Scale { quick: cli.quick, seconds: cli.seconds };
    let repetitions = if cli.quick { 1 } else { cli.repeat };
    for repetition in 1..=repetitions {
        for (program, readings) in programs.iter().zip(&mut readings) {
            let dir = cli.dir.join(program.name());
            match perform::perform(&scenario, program, &dir, scale, cli.go_load.as_deref()).await {
                Ok(read) => {
                    progress(&scenario, program, repetition, &read);
                    readings.push(read);
                }
                Err(error) => {
                    let failure = format!("{} of {}: {error:#}", scenario.name, program.name());
                    eprintln!("FAILED {failure}");
                    failures.push(failure);
                }
            }
        }
    }
    let [etcd, ours] = readings;
    (Compared { scenario, etcd, ours }, failures)
}

async fn run(cli: &Cli) -> Result<bool> {
    let programs = [Program::Etcd(cli.etcd.clone()), Program::Keelson(cli.keelson.clone())];
    let scenarios = cli.chosen();
    ensure!(!scenarios.is_empty(), "no row matches");
    std::fs::create_dir_all(&cli.dir).with_context(|| format!("making {}", cli.dir.display()))?;
    std::fs::create_dir_all(&cli.out).with_context(|| format!("making {}", cli.out.display()))?;
    let mut report = Report { facts: observe::machine(&cli.dir)?, ..Report::default() };
    for program in &programs {
        report.facts.push(format!("{}: {}", program.name(), program.version()?));
    }
    report.facts.push(if cli.quick {
        "a smoke test: the figures mean nothing".to_owned()
    } else {
        format!("{} repetitions each, by turns", cli.repeat)
    });
    for scenario in scenarios {
        let (compared, failures) = compare(cli, scenario, &programs).await;
        report.rows.push(compared);
        report.failures.extend(failures);
        // After each row: what was measured isn't lost with what comes after.
        std::fs::write(cli.out.join("store.md"), report.markdown()?).context("writing the report")?;
        chart::draw(&report, &cli.out.join("store.svg"))?;
    }
    println!("{}", report.markdown()?);
    if !report.failures.is_empty() {
        bail!("{} runs failed", report.failures.len());
    }
    Ok(!cli.must || report.all_reached())
}

async fn run_until_signal(cli: &Cli) -> Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    // Members end with what owns them, so with this future, however it ends.
    tokio::select! {
        reached = run(cli) => reached,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    if cli.list {
        cli.chosen().iter().for_each(|row| println!("{}", row.name));
        return Ok(ExitCode::SUCCESS);
    }
    let mut builder = match cli.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(usize::from(cli.threads)).enable_all().build()?;
    let reached = runtime.block_on(run_until_signal(&cli))?;
    Ok(if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
