//! Transactions against a model of the kernel's table that is as strict as the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use expect_test::expect;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value, from_value, json};

use super::*;
use crate::build;
use seeded_bugs::assert_noticed;

/// What a transaction may leave out, or do for nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// Rules are added to those that were there.
    ForgetsToFlush,
    /// Chains that nothing leads to stay.
    KeepsChains,
    /// Elements that nobody wants stay.
    KeepsElements,
    /// Remembered clients of an endpoint that is gone stay.
    KeepsClients,
    /// The table is made anew each time.
    BeginsAnew,
}

impl Bug {
    fn leaves_out(self, command: &Command) -> bool {
        match self {
            Self::ForgetsToFlush => matches!(command, Command::Flush(_)),
            Self::KeepsChains => matches!(command, Command::DeleteChain(_)),
            Self::KeepsElements => matches!(command, Command::DeleteElement(_)),
            Self::KeepsClients => matches!(command, Command::DeleteClients(_)),
            Self::BeginsAnew => false,
        }
    }
}

/// The table as the kernel has it; each command is checked as the kernel does.
#[derive(Debug, Default, PartialEq)]
struct Table {
    node: Option<Node>,
    chains: BTreeMap<Name, Vec<Rule>>,
    clients: BTreeMap<Name, u32>,
    elements: BTreeMap<Key, Verdict>,
}

impl Table {
    fn exists(&self, name: &Name) -> bool {
        self.chains.contains_key(name) || self.clients.contains_key(name)
    }

    fn in_use(&self, name: &Name) -> bool {
        self.chains.values().flatten().any(|rule| rule.needs().any(|n| n == name))
            || self.elements.values().any(|verdict| matches!(verdict, Verdict::Goto(chain) if chain == name))
    }

    /// T1: panics where the kernel would refuse.
    fn apply(&mut self, command: &Command) {
        match command {
            Command::Reset(node) => *self = Self { node: Some(node.clone()), ..Self::default() },
            Command::AddClients(name, seconds) => {
                assert_eq!(self.clients.insert(name.clone(), *seconds), None, "set {name} is there already");
            }
            Command::AddChain(name) => {
                assert_eq!(self.chains.insert(name.clone(), Vec::new()), None, "chain {name} is there already");
            }
            Command::Flush(name) => self.chains.get_mut(name).expect("a chain to empty").clear(),
            Command::AddRule(name, rule) => {
                assert!(rule.needs().all(|n| self.exists(n)), "{rule} names what isn't there");
                self.chains.get_mut(name).expect("a chain for the rule").push(rule.clone());
            }
            Command::DeleteElement(key) => assert!(self.elements.remove(key).is_some(), "no element {key}"),
            Command::AddElement(key, verdict) => {
                if let Verdict::Goto(chain) = verdict {
                    assert!(self.chains.contains_key(chain), "{key} leads to {chain}, which isn't there");
                }
                assert_eq!(self.elements.insert(*key, verdict.clone()), None, "element {key} is there already");
            }
            Command::DeleteChain(name) => {
                assert!(!self.in_use(name), "chain {name} is in use");
                assert_eq!(self.chains.remove(name), Some(Vec::new()), "chain {name} isn't there, or has rules");
            }
            Command::DeleteClients(name) => {
                assert!(!self.in_use(name), "set {name} is in use");
                assert!(self.clients.remove(name).is_some(), "no set {name}");
            }
        }
    }

    fn apply_all(&mut self, transaction: &Transaction, bug: Option<Bug>) {
        let is_there = |command: &&Command| !bug.is_some_and(|bug| bug.leaves_out(command));
        transaction.commands().iter().filter(is_there).for_each(|command| self.apply(command));
    }
}

/// One Service, drawn small so that addresses, ports and node ports collide.
#[derive(Debug, Clone)]
struct Drawn {
    address: u8,
    port: u8,
    node_port: Option<u8>,
    external_local: bool,
    internal_local: bool,
    affinity: Option<u8>,
    /// Address, on this node, state.
    endpoints: BTreeSet<(u8, bool, u8)>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let endpoints = prop::collection::btree_set((0..14_u8, any::<bool>(), 0..3_u8), 0..14);
    let options = (prop::option::of(0..3_u8), any::<bool>(), any::<bool>(), prop::option::of(1..3_u8));
    (0..3_u8, 0..2_u8, options, endpoints).prop_map(|(address, port, options, endpoints)| {
        let (node_port, external_local, internal_local, affinity) = options;
        Drawn { address, port, node_port, external_local, internal_local, affinity, endpoints }
    })
}

/// Up to four Services by name, and whether neighbours are masqueraded, which is rare.
type Cluster = (BTreeMap<u8, Drawn>, bool);

fn cluster() -> impl Strategy<Value = Cluster> {
    (prop::collection::btree_map(0..4_u8, drawn(), 0..4), prop::bool::weighted(0.1))
}

fn policy(local: bool) -> &'static str {
    if local { "Local" } else { "Cluster" }
}

fn objects(name: u8, drawn: &Drawn) -> (Service, EndpointSlice) {
    let address = Ipv4Addr::new(10, 96, 0, drawn.address).to_string();
    let service = json!({"metadata": {"namespace": "n", "name": format!("s{name}")},
        "spec": {"type": if drawn.node_port.is_some() { "NodePort" } else { "ClusterIP" }, "clusterIP": address,
            "ports": [{"port": 80 + i32::from(drawn.port), "nodePort": drawn.node_port.map(|n| 30_000 + i32::from(n))}],
            "externalTrafficPolicy": policy(drawn.external_local), "internalTrafficPolicy": policy(drawn.internal_local),
            "sessionAffinity": if drawn.affinity.is_some() { "ClientIP" } else { "None" },
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": drawn.affinity}}}});
    let endpoint = |(number, local, state): &(u8, bool, u8)| {
        json!({"addresses": [format!("10.244.0.{number}")], "nodeName": if *local { "here" } else { "there" },
            "conditions": {"ready": *state == 0, "serving": *state <= 1, "terminating": *state == 1}})
    };
    let endpoints: Vec<Value> = drawn.endpoints.iter().map(endpoint).collect();
    let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "", "port": 8080}],
        "metadata": {"namespace": "n", "name": format!("s{name}-x"),
            "labels": {"kubernetes.io/service-name": format!("s{name}")}}});
    (from_value(service).expect("a Service"), from_value(slice).expect("a slice"))
}

fn ruleset((services, masquerade_neighbours): &Cluster) -> Ruleset {
    let node = Node {
        name: "here".to_owned(),
        addresses: [Ipv4Addr::new(192, 168, 0, 1)].into(),
        pods: "10.244.0.0/16".parse().expect("a range"),
        masquerade_neighbours: *masquerade_neighbours,
    };
    let (services, slices): (Vec<_>, Vec<_>) = services.iter().map(|(name, drawn)| objects(*name, drawn)).unzip();
    let built = build(&node, &services, &slices).ruleset;
    // R3.
    assert_eq!(built, build(&node, services.iter().rev(), slices.iter().rev()).ruleset);
    built
}

/// R2: everything can be reached from an element.
fn check_reachable(ruleset: &Ruleset) {
    let mut reached: BTreeSet<Name> = BTreeSet::new();
    let first = ruleset.elements.values().filter_map(|v| match v {
        Verdict::Goto(chain) => Some(chain.clone()),
        Verdict::Member | Verdict::Drop => None,
    });
    let mut waiting: Vec<Name> = first.collect();
    while let Some(name) = waiting.pop() {
        if reached.insert(name.clone()) {
            let rules = ruleset.chains.get(&name).into_iter().flatten();
            waiting.extend(rules.flat_map(|rule| rule.needs().cloned()));
        }
    }
    let all: BTreeSet<Name> = ruleset.chains.keys().chain(ruleset.clients.keys()).cloned().collect();
    assert_eq!(reached, all);
}

fn ends_like_a_fresh_table(clusters: Vec<Cluster>, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let mut table = Table::default();
    let mut held: Option<Ruleset> = None;
    for cluster in &clusters {
        let wanted = ruleset(cluster);
        check_reachable(&wanted);
        let transaction = match &held {
            Some(held) if bug != Some(Bug::BeginsAnew) => between(held, &wanted),
            _ => afresh(&wanted),
        };
        if let Some(held) = held.as_ref().filter(|held| held.node == wanted.node) {
            check_untouched(held, &wanted, &transaction);
        }
        table.apply_all(&transaction, bug);
        let mut fresh = Table::default();
        fresh.apply_all(&afresh(&wanted), None);
        prop_assert_eq!(&table, &fresh);
        prop_assert!(between(&wanted, &wanted).is_empty());
        held = Some(wanted);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// T1, T2, T3, R1, R2: any way through any clusters ends like a table made afresh.
    #[test]
    fn small_steps_end_where_a_fresh_table_does(clusters in prop::collection::vec(cluster(), 1..6)) {
        ends_like_a_fresh_table(clusters, None)?;
    }
}

/// What is left behind, added twice or done for nothing is found.
#[test]
fn a_wrong_transaction_is_noticed() {
    let bugs = [Bug::ForgetsToFlush, Bug::KeepsChains, Bug::KeepsElements, Bug::KeepsClients, Bug::BeginsAnew];
    assert_noticed(&bugs, &prop::collection::vec(cluster(), 1..6), ends_like_a_fresh_table);
}

/// T2.
fn check_untouched(old: &Ruleset, new: &Ruleset, transaction: &Transaction) {
    for command in transaction.commands() {
        match command {
            Command::Reset(_) => panic!("the table is made anew"),
            Command::Flush(name) | Command::AddRule(name, _) | Command::AddChain(name) | Command::DeleteChain(name) => {
                assert_ne!(old.chains.get(name), new.chains.get(name), "{command}");
            }
            Command::AddElement(key, _) | Command::DeleteElement(key) => {
                assert_ne!(old.elements.get(key), new.elements.get(key), "{command}");
            }
            Command::AddClients(name, _) | Command::DeleteClients(name) => {
                assert_ne!(old.clients.get(name), new.clients.get(name), "{command}");
            }
        }
    }
}

fn one(affinity: Option<u8>, endpoints: &[u8]) -> Ruleset {
    let endpoints = endpoints.iter().map(|number| (*number, true, 0)).collect();
    let drawn = Drawn {
        address: 1,
        port: 0,
        node_port: None,
        external_local: false,
        internal_local: false,
        affinity,
        endpoints,
    };
    ruleset(&([(1, drawn)].into(), false))
}

#[test]
fn the_fixed_parts() {
    expect![[r#"
        add table ip keelson
        delete table ip keelson
        table ip keelson {
        	set cluster-ips { type ipv4_addr; }
        	set node-ips { type ipv4_addr; elements = { 192.168.0.1 }; }
        	map services { type ipv4_addr . inet_proto . inet_service : verdict; }
        	map node-ports { type inet_proto . inet_service : verdict; }
        	set refused-node-ports { type inet_proto . inet_service; }
        	chain services {
        		ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set meta mark or 0x4000
        		ip daddr . meta l4proto . th dport vmap @services
        		ip daddr @node-ips meta l4proto . th dport vmap @node-ports
        	}
        	chain nat-prerouting {
        		type nat hook prerouting priority -100;
        		jump services
        	}
        	chain nat-output {
        		type nat hook output priority -100;
        		jump services
        	}
        	chain nat-postrouting {
        		type nat hook postrouting priority 100;
        		meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random
        	}
        	chain refusals {
        		ip daddr @cluster-ips reject
        		ip daddr @node-ips meta l4proto . th dport @refused-node-ports reject
        	}
        	chain filter-input {
        		type filter hook input priority -90;
        		ct state new jump refusals
        	}
        	chain filter-forward {
        		type filter hook forward priority -90;
        		ct state new jump refusals
        	}
        	chain filter-output {
        		type filter hook output priority -90;
        		ct state new jump refusals
        	}
        }
    "#]]
    .assert_eq(&afresh(&ruleset(&(BTreeMap::new(), false))).to_string());
}

#[test]
fn an_endpoint_comes_and_another_goes() {
    expect![[r#"
        add chain ip keelson endpoint/n/s1/tcp/80/10.244.0.4/8080
        flush chain ip keelson cluster/n/s1/tcp/80
        add rule ip keelson cluster/n/s1/tcp/80 numgen random mod 2 == 0 goto endpoint/n/s1/tcp/80/10.244.0.3/8080
        add rule ip keelson cluster/n/s1/tcp/80 goto endpoint/n/s1/tcp/80/10.244.0.4/8080
        add rule ip keelson endpoint/n/s1/tcp/80/10.244.0.4/8080 ip saddr 10.244.0.4 meta mark set meta mark or 0x4000
        add rule ip keelson endpoint/n/s1/tcp/80/10.244.0.4/8080 meta l4proto tcp dnat to 10.244.0.4:8080
        flush chain ip keelson endpoint/n/s1/tcp/80/10.244.0.2/8080
        delete chain ip keelson endpoint/n/s1/tcp/80/10.244.0.2/8080
    "#]]
    .assert_eq(&between(&one(None, &[2, 3]), &one(None, &[3, 4])).to_string());
}

/// Who is remembered for an endpoint stays so when another endpoint goes.
#[test]
fn clients_outlive_their_neighbours() {
    expect![[r#"
        flush chain ip keelson cluster/n/s1/tcp/80
        add rule ip keelson cluster/n/s1/tcp/80 ip saddr @clients60/n/s1/tcp/80/10.244.0.3/8080 goto endpoint/n/s1/tcp/80/10.244.0.3/8080
        add rule ip keelson cluster/n/s1/tcp/80 goto endpoint/n/s1/tcp/80/10.244.0.3/8080
        flush chain ip keelson endpoint/n/s1/tcp/80/10.244.0.2/8080
        delete chain ip keelson endpoint/n/s1/tcp/80/10.244.0.2/8080
        delete set ip keelson clients60/n/s1/tcp/80/10.244.0.2/8080
    "#]].assert_eq(&between(&one(Some(60), &[2, 3]), &one(Some(60), &[3])).to_string());
}

#[test]
fn the_last_endpoint_goes() {
    expect![[r#"
        delete element ip keelson services { 10.96.0.1 . tcp . 80 }
        flush chain ip keelson cluster/n/s1/tcp/80
        flush chain ip keelson endpoint/n/s1/tcp/80/10.244.0.2/8080
        delete chain ip keelson cluster/n/s1/tcp/80
        delete chain ip keelson endpoint/n/s1/tcp/80/10.244.0.2/8080
    "#]]
    .assert_eq(&between(&one(None, &[2]), &one(None, &[])).to_string());
}
