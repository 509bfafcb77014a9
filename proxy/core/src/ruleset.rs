//! The ruleset: all that the table holds for the Services observed.
//!
//! Invariants
//!   R1  Every chain and set that a rule or an element names is in the ruleset.
//!   R2  Nothing is in it that no element leads to.
//!   R3  The same objects give the same ruleset, in whatever order they come.
//! Checked by: ruleset/tests.rs, transaction/tests.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::node::Node;
use crate::observed::{self, Endpoint, Endpoints, Port, Protocol, Reason, ServiceName};
use crate::rule::{Action, Name, PortPath, Rule, Source};

#[cfg(test)]
mod tests;

/// What one element of a set or map is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A Service's address: whatever isn't translated is refused.
    ClusterIp(Ipv4Addr),
    /// A Service's address and port.
    Service(Ipv4Addr, Protocol, u16),
    /// A port of the node.
    NodePort(Protocol, u16),
    /// A port of the node whose Service has no endpoints.
    RefusedNodePort(Protocol, u16),
}

impl Key {
    /// The set or map that it belongs to.
    pub fn set(&self) -> &'static str {
        match self {
            Self::ClusterIp(_) => "cluster-ips",
            Self::Service(..) => "services",
            Self::NodePort(..) => "node-ports",
            Self::RefusedNodePort(..) => "refused-node-ports",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterIp(address) => write!(f, "{address}"),
            Self::Service(address, protocol, port) => write!(f, "{address} . {protocol} . {port}"),
            Self::NodePort(protocol, port) | Self::RefusedNodePort(protocol, port) => write!(f, "{protocol} . {port}"),
        }
    }
}

/// Up to so many endpoints are chosen from by a rule each, more by one rule with a map of its own.
///
/// The kernel looks through all maps of a table when it makes one: 10 000 services of two endpoints take 30 s with
/// maps and 3 s with rules. A rule costs the first packet of a connection some nanoseconds.
const CHANCES_MAX: usize = 8;

/// Where an element leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nowhere: being in the set is enough.
    Member,
    /// To a chain.
    Goto(Name),
    /// Lost: the Service is for local endpoints only and has none here.
    Drop,
}

/// What the table holds beside its fixed parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The node, on which the fixed parts depend.
    pub node: Node,
    /// Chains by name.
    pub chains: BTreeMap<Name, Vec<Rule>>,
    /// Sets of clients that stay with an endpoint, and for how many seconds.
    pub clients: BTreeMap<Name, u32>,
    /// The elements of the fixed sets and maps.
    pub elements: BTreeMap<Key, Verdict>,
}

/// A ruleset and what isn't in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The rules.
    pub ruleset: Ruleset,
    /// Services of which something isn't served, and why.
    pub skipped: BTreeSet<(ServiceName, Reason)>,
}

/// The ruleset for all Services and EndpointSlices of the cluster, on one node.
///
/// O(services + endpoints), sorted.
pub fn build<'a>(
    node: &Node,
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Built {
    let mut by_service: BTreeMap<ServiceName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(service) = observed::service_of(slice) {
            by_service.entry(service).or_default().push(slice);
        }
    }
    let mut ports: Vec<Port> = Vec::new();
    let mut skipped = BTreeSet::new();
    for service in services {
        match observed::ports(service) {
            Ok(found) => ports.extend(found),
            Err(reason) => {
                let metadata = &service.metadata;
                let name = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
                skipped.insert((name, reason));
            }
        }
    }
    // R3: of two that claim one address, the first by name gets it.
    ports.sort_by(|a, b| (&a.service, a.protocol, a.port).cmp(&(&b.service, b.protocol, b.port)));
    let ruleset =
        Ruleset { node: node.clone(), chains: BTreeMap::new(), clients: BTreeMap::new(), elements: BTreeMap::new() };
    let mut builder = Builder { ruleset, owners: BTreeMap::new(), skipped };
    for port in &ports {
        let slices = by_service.get(&port.service).map(Vec::as_slice).unwrap_or_default();
        builder.add(port, &observed::endpoints(port, slices, &node.name));
    }
    Built { ruleset: builder.ruleset, skipped: builder.skipped }
}

/// Rules that give each chain the same share.
fn shares(chains: Vec<Name>) -> Vec<Rule> {
    let count = chains.len();
    if count > CHANCES_MAX {
        return vec![Rule::new(Source::Any, Action::Spread(chains))];
    }
    // The last takes what the others leave.
    let source = |index| if index + 1 == count { Source::Any } else { Source::OneIn(count - index) };
    chains.into_iter().enumerate().map(|(index, chain)| Rule::new(source(index), Action::Goto(chain))).collect()
}

struct Builder<'a> {
    ruleset: Ruleset,
    owners: BTreeMap<Key, &'a ServiceName>,
    skipped: BTreeSet<(ServiceName, Reason)>,
}

/// Which endpoints get traffic: the ready ones; without any, those that end but still answer.
///
/// Source: `CategorizeEndpoints` in `pkg/proxy/topology.go`.
fn usable(endpoints: &Endpoints, wanted: impl Fn(&Endpoint) -> bool) -> Vec<(Ipv4Addr, u16)> {
    let those = |state: fn(&Endpoint) -> bool| -> Vec<(Ipv4Addr, u16)> {
        endpoints.iter().filter(|(_, e)| wanted(e) && state(e)).map(|(place, _)| *place).collect()
    };
    let ready = those(|e| e.ready);
    if ready.is_empty() { those(|e| e.draining) } else { ready }
}

impl<'a> Builder<'a> {
    fn add(&mut self, port: &'a Port, endpoints: &Endpoints) {
        let path = PortPath::new(&port.service, port.protocol, port.port);
        let all = usable(endpoints, |_| true);
        let local = usable(endpoints, |e| e.local);
        let key = Key::Service(port.address, port.protocol, port.port);
        let serves_address = self.claim(key, port);
        if serves_address {
            self.ruleset.elements.insert(Key::ClusterIp(port.address), Verdict::Member);
            let verdict = match (port.internal_local, all.is_empty(), local.is_empty()) {
                // Refused, as the address is still that of the Service when it comes to the filter.
                (_, true, _) => None,
                (false, false, _) => Some(Verdict::Goto(path.cluster())),
                (true, false, false) => Some(Verdict::Goto(path.local())),
                (true, false, true) => Some(Verdict::Drop),
            };
            self.ruleset.elements.extend(verdict.map(|v| (key, v)));
        }
        let node_port = port.node_port.filter(|n| self.claim(Key::NodePort(port.protocol, *n), port));
        if let Some(number) = node_port {
            self.node_port(port, number, &path, all.is_empty(), local.is_empty());
        }
        let to_address = serves_address && !all.is_empty();
        let to_node = node_port.is_some() && !all.is_empty();
        // Even with the policy Local, what comes from pods and the node itself goes to all endpoints.
        let cluster_used = (to_address && !port.internal_local) || to_node;
        let local_used = (to_address && port.internal_local) || (to_node && port.external_local);
        if cluster_used {
            self.spread(port, &path, path.cluster(), &all, endpoints);
        }
        if local_used && !local.is_empty() {
            self.spread(port, &path, path.local(), &local, endpoints);
        }
    }

    /// Whether the port may have that key; notes the conflict if another port has it.
    fn claim(&mut self, key: Key, port: &'a Port) -> bool {
        let Some(owner) = self.owners.insert(key, &port.service) else { return true };
        self.owners.insert(key, owner);
        let what = match key {
            Key::Service(address, protocol, number) => format!("{address}:{number}/{protocol}"),
            Key::NodePort(protocol, number) | Key::RefusedNodePort(protocol, number) => {
                format!("node port {number}/{protocol}")
            }
            Key::ClusterIp(address) => address.to_string(),
        };
        let owner = format!("{}/{}", owner.0, owner.1);
        self.skipped.insert((port.service.clone(), Reason::Taken { what, owner }));
        false
    }

    fn node_port(&mut self, port: &Port, number: u16, path: &PortPath, none: bool, none_local: bool) {
        if none {
            self.ruleset.elements.insert(Key::RefusedNodePort(port.protocol, number), Verdict::Member);
            return;
        }
        let to = |source, action| Rule::new(source, action);
        let rules = if port.external_local {
            // Source: kube-proxy, "short-circuit pod traffic" and "short-circuit local traffic".
            vec![
                to(Source::Pods(self.ruleset.node.pods), Action::Goto(path.cluster())),
                to(Source::Node, Action::Masquerade),
                to(Source::Node, Action::Goto(path.cluster())),
                to(Source::Any, if none_local { Action::Drop } else { Action::Goto(path.local()) }),
            ]
        } else {
            vec![to(Source::Any, Action::Masquerade), to(Source::Any, Action::Goto(path.cluster()))]
        };
        self.ruleset.chains.insert(path.external(), rules);
        self.ruleset.elements.insert(Key::NodePort(port.protocol, number), Verdict::Goto(path.external()));
    }

    /// A chain that spreads over `places`, and theirs.
    fn spread(&mut self, port: &Port, path: &PortPath, chain: Name, places: &[(Ipv4Addr, u16)], endpoints: &Endpoints) {
        let name = |(address, number): &(Ipv4Addr, u16)| path.endpoint(*address, *number);
        let mut rules = Vec::new();
        for place in places {
            let clients = port.affinity.map(|seconds| (path.clients(place.0, place.1, seconds), seconds));
            if let Some((set, seconds)) = &clients {
                rules.push(Rule::new(Source::Client(set.clone()), Action::Goto(name(place))));
                self.ruleset.clients.insert(set.clone(), *seconds);
            }
            let is_local = endpoints.get(place).is_some_and(|e| e.local);
            let to_endpoint = self.to_endpoint(port.protocol, *place, is_local, clients.map(|(set, _)| set));
            self.ruleset.chains.insert(name(place), to_endpoint);
        }
        rules.extend(shares(places.iter().map(name).collect()));
        self.ruleset.chains.insert(chain, rules);
    }

    fn to_endpoint(
        &self,
        protocol: Protocol,
        (address, port): (Ipv4Addr, u16),
        is_local: bool,
        clients: Option<Name>,
    ) -> Vec<Rule> {
        let node = &self.ruleset.node;
        // Hairpin: an endpoint that reaches itself would otherwise answer itself directly.
        let mut rules = vec![Rule::new(Source::Address(address), Action::Masquerade)];
        if is_local && node.masquerade_neighbours {
            rules.push(Rule::new(Source::Pods(node.pods), Action::Masquerade));
        }
        // A rule of its own: if the set is full, only remembering fails.
        rules.extend(clients.map(|set| Rule::new(Source::Any, Action::Remember(set))));
        rules.push(Rule::new(Source::Any, Action::Dnat(protocol, address, port)));
        rules
    }
}
