//! `sim`: runs clusters by seeds until something is violated, and says how to see it again. Each seed is run with each workload,
//! unless one is chosen.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use models::traces::Trace;
use sim::{Mutant, Report, Workload, run};

/// A third of the time would go to the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs whole clusters of stores under virtual time, with faults, and checks what clients see.
#[derive(Parser)]
#[command(name = "sim")]
struct Cli {
    /// The first seed; without it, another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs, with a seed each; with `--seed` alone it is one, without it 100.
    #[arg(long)]
    runs: Option<u64>,
    /// Seconds of real time instead.
    #[arg(long, conflicts_with = "runs")]
    seconds: Option<u64>,
    /// Members, 1 to 5; without it as the seed says.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5))]
    members: Option<u64>,
    /// What is run; without it both, by each seed.
    #[arg(long)]
    workload: Option<Workload>,
    /// A seeded bug.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// A folder for what the members of the last run did, to be judged by `models validate trace`.
    #[arg(long)]
    trace: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let first = cli.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("seed {first}");
    let runs = match (cli.seconds, cli.runs, cli.seed) {
        (Some(_), ..) => u64::MAX,
        (None, Some(runs), _) => runs,
        (None, None, Some(_)) => 1,
        (None, None, None) => 100,
    };
    let limit = cli.seconds.map_or(Duration::MAX, Duration::from_secs);
    let begun = Instant::now();
    let workloads: &[Workload] = match &cli.workload {
        Some(workload) => std::slice::from_ref(workload),
        None => &[Workload::Kv, Workload::Pods],
    };
    let mut tallies: Vec<Tally> = workloads.iter().map(|workload| Tally::new(*workload)).collect();
    let mut failed = false;
    for (number, seed) in (first..).enumerate() {
        if failed || number as u64 == runs || begun.elapsed() >= limit {
            break;
        }
        for tally in &mut tallies {
            failed |= tally.run(seed, &cli)?;
        }
    }
    tallies.iter().for_each(Tally::tell);
    Ok(ExitCode::from(u8::from(failed)))
}

fn write_traces(folder: &Path, traces: &[Trace]) -> anyhow::Result<()> {
    for trace in traces {
        let path = folder.join(format!("{}.jsonl", trace.name));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let mut out = BufWriter::new(file);
        trace.write(&mut out).and_then(|()| out.flush()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The runs of a workload.
struct Tally {
    workload: Workload,
    reports: Vec<Report>,
    /// Of one core: what others do meanwhile doesn't count.
    took: Duration,
}

impl Tally {
    fn new(workload: Workload) -> Self {
        Self { workload, reports: Vec::new(), took: Duration::ZERO }
    }

    /// One more; whether it fails.
    fn run(&mut self, seed: u64, cli: &Cli) -> anyhow::Result<bool> {
        let (begun, worked) = (Instant::now(), core_time());
        let mut report = run(self.workload, seed, cli.members, cli.mutant);
        self.took += core_time().zip(worked).map_or(begun.elapsed(), |(now, then)| now.saturating_sub(then));
        let failed = !report.violations.is_empty();
        if failed {
            println!("seed {seed} fails:");
            report.violations.iter().for_each(|what| println!("  {what}"));
            println!("again: {}", again(self.workload, seed, cli));
        }
        let traces = std::mem::take(&mut report.traces);
        if let Some(folder) = &cli.trace {
            write_traces(folder, &traces)?;
        }
        self.reports.push(report);
        Ok(failed)
    }

    fn tell(&self) {
        let sum = |of: fn(&Report) -> u64| self.reports.iter().map(of).sum::<u64>();
        let what = match self.workload {
            Workload::Pods => format!(
                "{} changes of objects, {} containers started",
                sum(|report| report.objects),
                sum(|report| report.containers)
            ),
            Workload::Kv => format!(
                "{} operations, {} events watched, {} renewals",
                sum(|report| report.operations as u64),
                sum(|report| report.watched),
                sum(|report| report.renewed)
            ),
        };
        println!(
            "{} runs of {}: {what}; {} crashes, {} reigns, {} snapshots taken, {} changes of members, {} disks damaged",
            self.reports.len(),
            name(&self.workload),
            sum(|report| report.disturbed.0),
            sum(|report| report.disturbed.1),
            sum(|report| report.disturbed.2),
            sum(|report| report.disturbed.3),
            sum(|report| report.ruined),
        );
        let (steps, took) = (sum(|report| report.events), self.took.as_secs_f64());
        let seconds = sum(|report| report.time) as f64 / 1e6;
        let speed = seconds / took;
        println!("{steps} steps, {seconds:.0} s of clusters in {took:.2} s of one core: {speed:.0} a second");
    }
}

/// As the command line has it.
fn name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// For how long this thread has had a core; `None` where the system doesn't say.
fn core_time() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn again(workload: Workload, seed: u64, cli: &Cli) -> String {
    let members = cli.members.map(|members| format!(" --members {members}")).unwrap_or_default();
    let mutant = cli.mutant.map(|mutant| format!(" --mutant {}", name(&mutant))).unwrap_or_default();
    format!("cargo run -p sim --release -- --seed {seed} --workload {}{members}{mutant}", name(&workload))
}
