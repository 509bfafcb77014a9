//! The service proxy's pure half: services and endpoints in, an nftables ruleset out.
//!
//! Getters: everything in [`ruleset::Ruleset`]. Order of use: [`build`] a ruleset from all that is observed, then
//! [`transaction::between`] the one that the kernel has and the new one; its `Display` is a script for `nft -f -`,
//! which the kernel takes as a whole or not at all. [`transaction::afresh`] is for a kernel of which nothing is known.
//!
//! What a packet meets (table `ip keelson`, and nothing outside it):
//! ```text
//! prerouting, output ─► services ─┬─ clusterIP . protocol . port ──► cluster/… or local/… ─► endpoint/… ─► dnat
//!                                 └─ node's address, node port ────► external/… ─┘
//! input, forward, output: whatever still has a clusterIP as its destination is refused
//! postrouting: what carries the mark 0x4000 is masqueraded
//! ```
//!
//! Not done: IPv6 (services and slices of that family are skipped and named in [`ruleset::Built::skipped`]); external
//! IPs, load balancers' addresses and source ranges; topology hints and traffic distribution; node ports on loopback;
//! forgetting UDP connections of an endpoint that is gone (they end with their conntrack entry, 30 to 120 s after the
//! last packet).
//!
//! Source: KEP-3866 (nftables proxy), `pkg/proxy/nftables/proxier.go` and `pkg/proxy/topology.go`.

pub mod node;
pub mod observed;
pub mod rule;
pub mod ruleset;
pub mod transaction;

pub use ruleset::build;
