//! How much of everything is explored.

use clap::ValueEnum as _;

use super::entry::Slot;
use super::shell::Mutant;
use super::symmetry::MEMBERS_MAX;

/// Proposals at most: an entry's code has room for so many.
const PROPOSALS_MAX: i64 = 0x3f;
/// Terms at most: an entry's code has a byte for its own.
const TERMS_MAX: u64 = 200;

/// How much of everything is explored.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Bounds {
    /// Members.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=MEMBERS_MAX as i64))]
    pub(crate) nodes: u8,
    /// Members that begin the cluster, all unless said otherwise; the others join it by changes.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=MEMBERS_MAX as i64))]
    pub(crate) founders: Option<u8>,
    /// Terms in which members campaign.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(..=TERMS_MAX))]
    pub(crate) terms: u64,
    /// Proposals.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(..=PROPOSALS_MAX))]
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

impl Bounds {
    /// Members that begin the cluster.
    pub(super) fn founders(&self) -> u8 {
        self.founders.unwrap_or(self.nodes).min(self.nodes)
    }

    /// What the members that belong to the cluster have applied when it starts.
    pub(super) fn start(&self) -> Vec<Slot> {
        vec![Slot::founding(self.founders())]
    }

    /// The flags of everything that decides what happens; without the number of threads and the like.
    pub(super) fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = vec![("nodes", self.nodes.to_string()), ("founders", self.founders().to_string())];
        flags.extend([("terms", self.terms.to_string()), ("in-flight", self.in_flight.to_string())]);
        let counts = [
            ("proposals", self.proposals),
            ("crashes", self.crashes),
            ("timeouts", self.timeouts),
            ("waits", self.waits),
            ("beats", self.beats),
            ("stalls", self.stalls),
            ("drops", self.drops),
            ("duplicates", self.duplicates),
            ("overtakings", self.overtakings),
            ("reads", self.reads),
            ("transfers", self.transfers),
            ("changes", self.changes),
            ("compactions", self.compactions),
        ];
        flags.extend(counts.map(|(name, count)| (name, count.to_string())));
        let mutant = self.mutant.and_then(|mutant| mutant.to_possible_value());
        flags.push(("mutant", mutant.map_or_else(String::new, |mutant| mutant.get_name().to_owned())));
        flags
    }
}
