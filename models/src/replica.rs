//! The store's consensus driver, explored: `store_core::replica` with raft-rs inside.
//!
//! Problem. A crash between saving and sending, an answer before its sync, a log whose
//!          end is torn: bugs there need a rare order of events that tests don't hit.
//! Idea.    Three members run the production driver. The model chooses every order of
//!          messages, time, proposals, stalling disks and power cuts within bounds,
//!          and checks each state it comes to.
//!
//! What is the model's: the disk (`disk`), the threads around the driver (`shell`), the
//! network (`cluster`: FIFO on a link unless messages overtake; what arrives at a member that is down is lost).
//! What is production code: everything that decides.
//! Source: Raft (Ongaro, Ousterhout 2014) figure 3 for the first four properties.

mod cluster;
mod disk;
mod entry;
mod member;
mod memo;
mod packet;
mod properties;
mod shell;
mod symmetry;
#[cfg(test)]
mod tests;
mod trace;

use std::io::Write;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use cluster::Cluster;
use shell::Mutant;

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// Members that begin the cluster, out of three; the others join it by changes.
    #[arg(long, default_value_t = 3)]
    pub(crate) founders: usize,
    /// Terms in which members campaign.
    #[arg(long, default_value_t = 2)]
    pub(crate) terms: u64,
    /// Proposals.
    #[arg(long, default_value_t = 1)]
    pub(crate) proposals: u8,
    /// Power cuts.
    #[arg(long, default_value_t = 1)]
    pub(crate) crashes: u8,
    /// Times that a member waits in vain for a leader and campaigns.
    #[arg(long, default_value_t = 2)]
    pub(crate) timeouts: u8,
    /// Times that a member stops to keep to a silent leader without campaigning.
    #[arg(long, default_value_t = 0)]
    pub(crate) waits: u8,
    /// Ticks that leaders live through: heartbeats, and looking for their peers.
    #[arg(long, default_value_t = 0)]
    pub(crate) beats: u8,
    /// Inputs taken while the disk doesn't keep up.
    #[arg(long, default_value_t = 0)]
    pub(crate) stalls: u8,
    /// Messages that the network loses, besides those to members that are down.
    #[arg(long, default_value_t = 0)]
    pub(crate) drops: u8,
    /// Messages that arrive twice.
    #[arg(long, default_value_t = 0)]
    pub(crate) duplicates: u8,
    /// Messages that overtake others on their link.
    #[arg(long, default_value_t = 0)]
    pub(crate) overtakings: u8,
    /// Linearizable reads that members are asked for.
    #[arg(long, default_value_t = 0)]
    pub(crate) reads: u8,
    /// Times that a leader is asked to hand over to another member.
    #[arg(long, default_value_t = 0)]
    pub(crate) transfers: u8,
    /// Changes of members: adding a learner, promoting it, removing a member.
    #[arg(long, default_value_t = 0)]
    pub(crate) changes: u8,
    /// Times that a member cuts its log, so that others may need a snapshot.
    #[arg(long, default_value_t = 0)]
    pub(crate) compactions: u8,
    /// Messages on their way; states with more are not followed.
    #[arg(long, default_value_t = 6)]
    pub(crate) in_flight: usize,
    /// A bug to seed into the model's shell: the check must find it.
    #[arg(long)]
    pub(crate) mutant: Option<Mutant>,
    /// Afterwards, compares what was remembered with running the code another way.
    #[arg(long)]
    pub(crate) audit: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

/// What a check found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Distinct states, up to who is who.
    pub(crate) states: usize,
    /// Steps of the longest path.
    pub(crate) depth: usize,
    /// Property that doesn't hold, and how it came about.
    pub(crate) violations: Vec<(&'static str, Vec<String>)>,
    /// Properties of which there is an example.
    pub(crate) seen: Vec<&'static str>,
    /// Properties of which there is none within the bounds.
    pub(crate) unseen: Vec<&'static str>,
    /// Runs compared by the audit, and those that differed.
    pub(crate) audit: (usize, usize),
    /// Times that production code ran.
    pub(crate) executions: u64,
    /// Distinct states of single members.
    pub(crate) members: usize,
    pub(crate) took: Duration,
}

/// Explores everything within the bounds; tells of its progress each second.
pub(crate) fn check(bounds: &Bounds, progress: &mut dyn Write) -> Report {
    let begun = Instant::now();
    let checker = Cluster::new(bounds.clone())
        .checker()
        .threads(bounds.threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs();
    let mut told = Instant::now();
    while !checker.is_done() {
        std::thread::sleep(Duration::from_millis(20));
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            // A closed pipe is no reason to stop checking.
            let _ = writeln!(
                progress,
                "{:5.0} s  {:>11} states  depth {}",
                begun.elapsed().as_secs_f64(),
                checker.unique_state_count(),
                checker.max_depth()
            );
        }
    }
    let checker = checker.join();
    let took = begun.elapsed();
    let cluster = checker.model();
    let (executions, members) = cluster.memo.sizes();
    let mut discoveries = checker.discoveries();
    let (mut violations, mut seen, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    for property in cluster.properties() {
        let found = discoveries.remove(property.name);
        match (property.expectation, found) {
            (Expectation::Sometimes, Some(_)) => seen.push(property.name),
            (Expectation::Sometimes, None) => unseen.push(property.name),
            (_, Some(path)) => violations.push((property.name, trace::lines(cluster, &path.into_vec()))),
            (_, None) => {}
        }
    }
    let audit = cluster.memo.audit();
    Report {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        violations,
        seen,
        unseen,
        audit,
        executions,
        members,
        took,
    }
}

impl Report {
    /// Whether everything holds.
    pub(crate) fn holds(&self) -> bool {
        self.violations.is_empty() && self.audit.1 == 0
    }

    /// Tells what was found.
    pub(crate) fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for (property, path) in &self.violations {
            writeln!(out, "VIOLATED: {property}")?;
            for line in path {
                writeln!(out, "{line}")?;
            }
        }
        writeln!(
            out,
            "{} states in {:.1} s, at most {} steps deep; {} states of a member from {} runs of the driver",
            self.states,
            self.took.as_secs_f64(),
            self.depth,
            self.members,
            self.executions
        )?;
        if self.audit.0 > 0 {
            writeln!(out, "audit: {} runs compared, {} differ", self.audit.0, self.audit.1)?;
        }
        for property in &self.seen {
            writeln!(out, "seen:  {property}")?;
        }
        if self.violations.is_empty() {
            for property in &self.unseen {
                writeln!(out, "never: {property} (the bounds are too narrow for it)")?;
            }
            writeln!(out, "every property holds within the bounds")?;
        }
        Ok(())
    }
}
