//! A walk: episode after episode through bounds that are too wide to explore.
//!
//! Problem. Five members, many terms and all kinds of faults at once have more states than any machine visits.
//! Idea.    Chance picks what happens next, of all that an exploration would try, and each state on the way is
//!          checked in full. An episode is decided by its seed alone, so whatever is found comes again.
//!
//! A pass proves nothing. What a walk came past is counted, so that it is known whether it came far.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args as _, FromArgMatches as _};
use stateright::{Expectation, Model as _};

use super::Bounds;
use super::cluster::Cluster;
use super::episode::Episode;
use super::symmetry::mix;

/// How far a walk goes. Its bounds are those of an episode, and wider than an exploration's.
#[derive(Debug, Clone, clap::Args)]
#[command(
    mut_arg("nodes", |arg| arg.default_value("5")),
    mut_arg("founders", |arg| arg.default_value("3")),
    mut_arg("terms", |arg| arg.default_value("100")),
    mut_arg("proposals", |arg| arg.default_value("31")),
    mut_arg("forwards", |arg| arg.default_value("31")),
    mut_arg("crashes", |arg| arg.default_value("16")),
    mut_arg("timeouts", |arg| arg.default_value("100")),
    mut_arg("waits", |arg| arg.default_value("60")),
    mut_arg("beats", |arg| arg.default_value("200")),
    mut_arg("stalls", |arg| arg.default_value("60")),
    mut_arg("drops", |arg| arg.default_value("60")),
    mut_arg("duplicates", |arg| arg.default_value("40")),
    mut_arg("overtakings", |arg| arg.default_value("40")),
    mut_arg("reads", |arg| arg.default_value("40")),
    mut_arg("transfers", |arg| arg.default_value("10")),
    mut_arg("changes", |arg| arg.default_value("8")),
    mut_arg("compactions", |arg| arg.default_value("16")),
    mut_arg("in_flight", |arg| arg.default_value("40")),
    mut_arg("audit", |arg| arg.hide(true)),
    mut_arg("threads", |arg| arg.hide(true))
)]
pub(crate) struct Walk {
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    /// The seed of the first episode; those that follow count on from it. By the clock unless it is given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Seconds after which no further episode begins.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Episodes, however long they take.
    #[arg(long)]
    pub(crate) episodes: Option<u64>,
    /// Steps of an episode at most.
    #[arg(long, default_value_t = 2000)]
    pub(crate) steps: u32,
}

/// What a walk came past.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) episodes: u64,
    pub(crate) steps: u64,
    /// Differs if any step did.
    pub(crate) trail: u64,
    /// In how many episodes each "sometimes" came about.
    pub(crate) seen: BTreeMap<&'static str, u64>,
    pub(crate) violation: Option<Violation>,
    took: Duration,
}

/// What isn't as it must be.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) property: &'static str,
    /// The seed of the episode.
    pub(crate) seed: u64,
    /// What comes to it again.
    pub(crate) command: String,
    /// The steps to it.
    pub(crate) lines: Vec<String>,
}

/// Walks until the time is over, the episodes are done or something is violated; tells of its progress each second.
pub(crate) fn walk(walk: &Walk, progress: &mut dyn Write) -> Walked {
    // What the clock says is printed, so that it can be given again.
    let seed = walk.seed.unwrap_or_else(by_the_clock);
    let mut say = |line: String| {
        // A closed pipe is no reason to stop walking.
        let _ = writeln!(progress, "{line}");
    };
    let end = walk.episodes.map_or_else(|| format!("--seconds {}", walk.seconds), |n| format!("--episodes {n}"));
    say(format!("seed {seed}: {}", walk.command(seed, &end)));
    let walk = &Walk { bounds: walk.bounds.resolved(), ..walk.clone() };
    let begun = Instant::now();
    let mut told = begun;
    let mut walked = Walked::new(walk);
    while walked.violation.is_none() && walk.goes_on(walked.episodes, begun) {
        walked.episode(walk, seed.wrapping_add(walked.episodes));
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let Walked { episodes, steps, .. } = walked;
            say(format!("{:5.0} s  {episodes:>8} episodes  {steps:>11} steps", begun.elapsed().as_secs_f64()));
        }
    }
    walked.took = begun.elapsed();
    walked
}

fn by_the_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // A clock before 1970 is as good as any.
    now.map_or(0, |since| since.as_millis() as u64)
}

impl Walk {
    /// A walk within the usual bounds.
    pub(crate) fn usual() -> Self {
        let command = Self::augment_args(clap::Command::new("walk"));
        // The defaults parse.
        Self::from_arg_matches(&command.get_matches_from(["walk"])).unwrap_or_else(|error| error.exit())
    }

    /// What an episode walks through. States lag in those of even seeds.
    fn cluster(&self, seed: u64) -> Cluster {
        let lag = self.bounds.lag || seed.is_multiple_of(2);
        Cluster::to_walk(Bounds { lag, ..self.bounds.clone() })
    }

    fn goes_on(&self, episodes: u64, begun: Instant) -> bool {
        match self.episodes {
            Some(count) => episodes < count,
            None => begun.elapsed() < Duration::from_secs(self.seconds),
        }
    }

    /// The command that walks the same way.
    fn command(&self, seed: u64, end: &str) -> String {
        let mut command = format!("cargo run -p models --release -- walk replica --seed {seed} {end}");
        let usual = Self::usual();
        if self.steps != usual.steps {
            command += &format!(" --steps {}", self.steps);
        }
        let usual = usual.bounds.flags();
        for (name, value) in self.bounds.flags().into_iter().filter(|flag| !usual.contains(flag)) {
            command += &format!(" --{name}");
            if !value.is_empty() {
                command += &format!(" {value}");
            }
        }
        command
    }
}

impl Walked {
    fn new(walk: &Walk) -> Self {
        // Of an even seed, which can come past more.
        let properties = walk.cluster(0).properties();
        let sometimes = properties.iter().filter(|property| property.expectation == Expectation::Sometimes);
        Self {
            episodes: 0,
            steps: 0,
            trail: 0,
            seen: sometimes.map(|property| (property.name, 0)).collect(),
            violation: None,
            took: Duration::ZERO,
        }
    }

    fn episode(&mut self, walk: &Walk, seed: u64) {
        let cluster = walk.cluster(seed);
        let mut episode = Episode::new(&cluster, seed, false);
        let violated = episode.walk(walk.steps);
        self.episodes += 1;
        self.steps += u64::from(episode.steps);
        self.trail = mix(self.trail, episode.trail);
        for property in &episode.seen {
            *self.seen.entry(property).or_default() += 1;
        }
        self.violation = violated.map(|property| Violation {
            property,
            seed,
            command: walk.command(seed, "--episodes 1"),
            lines: lines(walk, seed),
        });
    }

    /// Whether nothing was violated.
    pub(crate) fn holds(&self) -> bool {
        self.violation.is_none()
    }

    /// Tells what the walk came past.
    pub(crate) fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        if let Some(Violation { property, seed, command, lines }) = &self.violation {
            writeln!(out, "VIOLATED with seed {seed}: {property}")?;
            for line in lines {
                writeln!(out, "{line}")?;
            }
            writeln!(out, "again: {command}")?;
        }
        let (seconds, Self { episodes, steps, .. }) = (self.took.as_secs_f64(), self);
        let rate = *steps as f64 / seconds.max(f64::MIN_POSITIVE);
        writeln!(out, "{steps} steps in {episodes} episodes and {seconds:.1} s, {rate:.0} a second")?;
        for (property, count) in &self.seen {
            match count {
                0 => writeln!(out, "never: {property}")?,
                _ => writeln!(out, "seen in {count} of {episodes}: {property}")?,
            }
        }
        if self.holds() {
            writeln!(out, "every property held on the way")?;
        }
        Ok(())
    }
}

/// Walks an episode again and tells its steps.
fn lines(walk: &Walk, seed: u64) -> Vec<String> {
    let cluster = walk.cluster(seed);
    let mut episode = Episode::new(&cluster, seed, true);
    episode.walk(walk.steps);
    episode.into_lines()
}

#[cfg(test)]
mod tests;
