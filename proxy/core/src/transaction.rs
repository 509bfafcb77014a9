//! Transactions: what takes the kernel's table from one ruleset to the next, at once.
//!
//! Problem. The kernel refuses to delete what is in use and to name what isn't there, and takes a script's commands in
//!          order; one command refused is the whole script refused.
//! Idea.    Four steps: make what is new, change rules, change elements, then empty and delete what is left over.
//!
//! Invariants
//!   T1  No command names a chain or set that isn't there at that point; none is deleted while something names it.
//!   T2  Chains and elements that don't differ aren't touched: their packets never miss a rule, clients stay remembered.
//!   T3  Applied to the old ruleset's table it gives exactly the new one's.
//! Checked by: transaction/tests.rs against a model of the kernel's table; proxy/node/tests against the kernel.

use std::collections::BTreeMap;
use std::fmt;

use crate::node::Node;
use crate::rule::{MASQUERADE_MARK, Name, Rule, TABLE};
use crate::ruleset::{Key, Ruleset, Verdict};

#[cfg(test)]
mod tests;

/// One change of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The table goes, with everything in it, and is made anew with its fixed parts only.
    Reset(Node),
    /// A new set of clients, each forgotten after so many seconds.
    AddClients(Name, u32),
    /// A new chain without rules.
    AddChain(Name),
    /// A chain loses its rules.
    Flush(Name),
    /// A rule at the end of a chain.
    AddRule(Name, Rule),
    /// An element goes.
    DeleteElement(Key),
    /// A new element.
    AddElement(Key, Verdict),
    /// A chain goes.
    DeleteChain(Name),
    /// A set of clients goes.
    DeleteClients(Name),
}

/// Commands that take effect together. `Display` is the script for `nft -f -`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    commands: Vec<Command>,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The commands, in their order.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }
}

/// What makes the table `new`, whatever it holds, or if there is none.
pub fn afresh(new: &Ruleset) -> Transaction {
    let nothing = Ruleset {
        node: new.node.clone(),
        chains: BTreeMap::new(),
        clients: BTreeMap::new(),
        elements: BTreeMap::new(),
    };
    let mut transaction = between(&nothing, new);
    transaction.commands.insert(0, Command::Reset(new.node.clone()));
    transaction
}

/// What takes a table that holds `old` to `new`; nothing if they are the same.
///
/// O(old + new) comparisons; the script is as long as what differs.
pub fn between(old: &Ruleset, new: &Ruleset) -> Transaction {
    if old.node != new.node {
        return afresh(new);
    }
    let mut commands = Vec::new();
    let added = |name: &&Name| !old.chains.contains_key(*name);
    let made_sets = new.clients.iter().filter(|(name, _)| !old.clients.contains_key(*name));
    commands.extend(made_sets.map(|(name, seconds)| Command::AddClients(name.clone(), *seconds)));
    commands.extend(new.chains.keys().filter(added).cloned().map(Command::AddChain));

    for (name, rules) in &new.chains {
        match old.chains.get(name) {
            Some(before) if before == rules => continue,
            Some(_) => commands.push(Command::Flush(name.clone())),
            None => {}
        }
        commands.extend(rules.iter().map(|rule| Command::AddRule(name.clone(), rule.clone())));
    }

    let gone = old.elements.iter().filter(|(key, verdict)| new.elements.get(key) != Some(*verdict));
    commands.extend(gone.map(|(key, _)| Command::DeleteElement(*key)));
    let come = new.elements.iter().filter(|(key, verdict)| old.elements.get(key) != Some(*verdict));
    commands.extend(come.map(|(key, verdict)| Command::AddElement(*key, verdict.clone())));

    // All are emptied before any is deleted: they name each other.
    let removed = || old.chains.keys().filter(|name| !new.chains.contains_key(*name)).cloned();
    commands.extend(removed().map(Command::Flush));
    commands.extend(removed().map(Command::DeleteChain));
    let unused = old.clients.keys().filter(|name| !new.clients.contains_key(*name)).cloned();
    commands.extend(unused.map(Command::DeleteClients));
    Transaction { commands }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for command in &self.commands {
            writeln!(f, "{command}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(node) => reset(f, node),
            Self::AddClients(name, seconds) => write!(
                f,
                "add set {TABLE} {name} {{ type ipv4_addr; size {CLIENTS_MAX}; flags dynamic, timeout; timeout {seconds}s; }}"
            ),
            Self::AddChain(name) => write!(f, "add chain {TABLE} {name}"),
            Self::Flush(name) => write!(f, "flush chain {TABLE} {name}"),
            Self::AddRule(name, rule) => write!(f, "add rule {TABLE} {name} {rule}"),
            Self::DeleteElement(key) => write!(f, "delete element {TABLE} {} {{ {key} }}", key.set()),
            Self::AddElement(key, verdict) => {
                let set = key.set();
                match verdict {
                    Verdict::Member => write!(f, "add element {TABLE} {set} {{ {key} }}"),
                    Verdict::Goto(chain) => write!(f, "add element {TABLE} {set} {{ {key} : goto {chain} }}"),
                    Verdict::Drop => write!(f, "add element {TABLE} {set} {{ {key} : drop }}"),
                }
            }
            Self::DeleteChain(name) => write!(f, "delete chain {TABLE} {name}"),
            Self::DeleteClients(name) => write!(f, "delete set {TABLE} {name}"),
        }
    }
}

/// Clients remembered for one endpoint; those beyond are spread like new ones each time.
const CLIENTS_MAX: u32 = 65_535;

/// The script that removes the table, whether or not it is there.
pub fn removal() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// The table's fixed parts.
///
/// The filters stand after the translation of destinations (priority -100): what still has a clusterIP then belongs to
/// no port, or to one without endpoints. Only a connection's first packet passes the `nat` chains.
fn reset(f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    let addresses =
        if addresses.is_empty() { String::new() } else { format!(" elements = {{ {} }};", addresses.join(", ")) };
    let (pods, mark) = (node.pods, MASQUERADE_MARK);
    write!(
        f,
        "{removal}table {TABLE} {{
	set cluster-ips {{ type ipv4_addr; }}
	set node-ips {{ type ipv4_addr;{addresses} }}
	map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
	map node-ports {{ type inet_proto . inet_service : verdict; }}
	set refused-node-ports {{ type inet_proto . inet_service; }}
	chain services {{
		ip daddr @cluster-ips ip saddr != {pods} meta mark set meta mark or {mark}
		ip daddr . meta l4proto . th dport vmap @services
		ip daddr @node-ips meta l4proto . th dport vmap @node-ports
	}}
	chain nat-prerouting {{
		type nat hook prerouting priority -100;
		jump services
	}}
	chain nat-output {{
		type nat hook output priority -100;
		jump services
	}}
	chain nat-postrouting {{
		type nat hook postrouting priority 100;
		meta mark and {mark} != 0 meta mark set meta mark xor {mark} masquerade fully-random
	}}
	chain refusals {{
		ip daddr @cluster-ips reject
		ip daddr @node-ips meta l4proto . th dport @refused-node-ports reject
	}}
	chain filter-input {{
		type filter hook input priority -90;
		ct state new jump refusals
	}}
	chain filter-forward {{
		type filter hook forward priority -90;
		ct state new jump refusals
	}}
	chain filter-output {{
		type filter hook output priority -90;
		ct state new jump refusals
	}}
}}",
        removal = removal()
    )
}
