//! How much of everything is explored.

use clap::{Args as _, FromArgMatches as _, ValueEnum};

use super::entry::{Change, FOUNDING_TERM, PROPOSALS_MAX, Slot, Value};
use super::shell::{Manner, Mutant};
use super::symmetry::MEMBERS_MAX;

/// Terms at most: an entry's code has a byte for its own.
const TERMS_MAX: u64 = 200;

/// What a scenario decides.
const COUNTED: [&str; 19] = [
    "nodes",
    "founders",
    "terms",
    "proposals",
    "crashes",
    "timeouts",
    "waits",
    "beats",
    "stalls",
    "drops",
    "duplicates",
    "overtakings",
    "reads",
    "transfers",
    "changes",
    "compactions",
    "forwards",
    "in_flight",
    "lag",
];

/// A start and bounds that bring a known hazard about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// One voter, and a learner that has joined it. raft-rs lets the voter stand, win and send entries in one step: if
    /// the power is cut before its term is durable, it gives the same term and index to other entries.
    SingleVoterLearner,
}

impl Scenario {
    /// The bounds, as they would be given.
    fn flags(self) -> &'static str {
        match self {
            Self::SingleVoterLearner => {
                "--nodes 2 --founders 1 --terms 3 --timeouts 3 --proposals 2 --crashes 2 --beats 1 --stalls 1"
            }
        }
    }

    /// What everybody has applied besides the founding.
    fn applied(self) -> Value {
        match self {
            Self::SingleVoterLearner => Value::Change(Change::AddLearner, 2),
        }
    }
}

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
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(..=PROPOSALS_MAX as i64))]
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
    /// Proposals that followers are asked for and send on to their leader.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=PROPOSALS_MAX as i64))]
    pub(crate) forwards: u8,
    /// Messages on their way; states with more are not followed.
    #[arg(long, default_value_t = 6)]
    pub(crate) in_flight: usize,
    /// The state applies at its own pace, not all at once when it is handed out; on walks in every other episode anyway.
    #[arg(long)]
    pub(crate) lag: bool,
    /// A known hazard's start and bounds, instead of all those above.
    #[arg(long, conflicts_with_all = COUNTED)]
    pub(crate) scenario: Option<Scenario>,
    /// A bug to seed into the model's shell: the check must find it.
    #[arg(long)]
    pub(crate) mutant: Option<Mutant>,
    /// Afterwards, compares what was remembered with running the code another way. Not with `--stalls`: whatever else
    /// arrives then lets a waiting disk go on, also what has no effect of its own.
    #[arg(long, conflicts_with = "stalls")]
    pub(crate) audit: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

impl Bounds {
    /// How its members are run.
    pub(super) fn manner(&self) -> Manner {
        Manner { mutant: self.mutant, lag: self.lag }
    }

    /// Members that begin the cluster.
    pub(super) fn founders(&self) -> u8 {
        self.founders.unwrap_or(self.nodes).min(self.nodes)
    }

    /// What the members that belong to the cluster have applied when it starts.
    pub(super) fn start(&self) -> Vec<Slot> {
        let applied = self.scenario.map(|scenario| Slot { term: FOUNDING_TERM, value: scenario.applied() });
        std::iter::once(Slot::founding(self.founders())).chain(applied).collect()
    }

    /// The bounds that hold: the scenario's, if there is one.
    pub(super) fn resolved(&self) -> Self {
        let Self { scenario, mutant, audit, threads, .. } = *self;
        let Some(flags) = scenario.map(Scenario::flags) else { return self.clone() };
        let command = Self::augment_args(clap::Command::new("bounds").no_binary_name(true));
        // Its flags parse; a test has parsed them.
        let bounds = Self::from_arg_matches(&command.get_matches_from(flags.split(' ')));
        Self { scenario, mutant, audit, threads, ..bounds.unwrap_or_else(|error| error.exit()) }
    }

    /// The flags of everything that decides what happens; without the number of threads and the like.
    pub(super) fn flags(&self) -> Vec<(&'static str, String)> {
        if let Some(scenario) = self.scenario {
            return vec![("scenario", named(scenario)), ("mutant", self.mutant.map_or_else(String::new, named))];
        }
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
            ("forwards", self.forwards),
        ];
        flags.extend(counts.map(|(name, count)| (name, count.to_string())));
        // It has no value.
        flags.extend(self.lag.then(|| ("lag", String::new())));
        flags.push(("mutant", self.mutant.map_or_else(String::new, named)));
        flags
    }
}

/// As a flag's value is written.
fn named(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
