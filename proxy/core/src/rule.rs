//! Chains' and sets' names, and the rules in the chains of services.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::node::Cidr;
use crate::observed::{Protocol, ServiceName};

/// The table; nothing outside it is ever touched.
pub const TABLE: &str = "ip keelson";
/// The bit of a packet's mark that asks for masquerading, the one that kube-proxy uses.
pub const MASQUERADE_MARK: &str = "0x4000";

/// The name of a chain or set: made of checked parts, cheap to copy.
///
/// The longest has 180 bytes; the kernel takes 255.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The port of a Service as names have it: `default/web/tcp/80`.
///
/// The API lets a Service have each protocol and port once.
#[derive(Debug, Clone)]
pub(crate) struct PortPath(String);

impl PortPath {
    pub(crate) fn new((namespace, name): &ServiceName, protocol: Protocol, port: u16) -> Self {
        Self(format!("{namespace}/{name}/{protocol}/{port}"))
    }

    /// The chain that spreads connections over all endpoints.
    pub(crate) fn cluster(&self) -> Name {
        Name(format!("cluster/{}", self.0).into())
    }

    /// The chain that spreads connections over this node's endpoints.
    pub(crate) fn local(&self) -> Name {
        Name(format!("local/{}", self.0).into())
    }

    /// The chain for what comes by a node port.
    pub(crate) fn external(&self) -> Name {
        Name(format!("external/{}", self.0).into())
    }

    /// The chain that sends a connection to one endpoint.
    pub(crate) fn endpoint(&self, address: Ipv4Addr, port: u16) -> Name {
        Name(format!("endpoint/{}/{address}/{port}", self.0).into())
    }

    /// The set of clients that stay with one endpoint.
    ///
    /// The time is part of the name, since a set's time can't be changed.
    pub(crate) fn clients(&self, address: Ipv4Addr, port: u16, seconds: u32) -> Name {
        Name(format!("clients{seconds}/{}/{address}/{port}", self.0).into())
    }
}

/// Which packets a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Anywhere.
    Any,
    /// One address.
    Address(Ipv4Addr),
    /// A pod.
    Pods(Cidr),
    /// This node.
    Node,
    /// A client in the set.
    Client(Name),
    /// Anywhere, but by chance only one in so many.
    OneIn(usize),
}

/// What happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It will appear as the node; goes on to the next rule.
    Masquerade,
    /// The client is put in the set, or stays there for another period; goes on.
    Remember(Name),
    /// Goes on in that chain.
    Goto(Name),
    /// Goes on in one of these chains, any with the same chance.
    Spread(Vec<Name>),
    /// Its connection goes to this endpoint.
    Dnat(Protocol, Ipv4Addr, u16),
    /// It is lost.
    Drop,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// For which packets.
    pub source: Source,
    /// What to do.
    pub action: Action,
}

impl Rule {
    pub(crate) fn new(source: Source, action: Action) -> Self {
        Self { source, action }
    }

    /// The chains and sets that must exist as long as the rule does.
    pub fn needs(&self) -> impl Iterator<Item = &Name> {
        let set = match &self.source {
            Source::Client(set) => Some(set),
            Source::Any | Source::Address(_) | Source::Pods(_) | Source::Node | Source::OneIn(_) => None,
        };
        let others = match &self.action {
            Action::Remember(name) | Action::Goto(name) => std::slice::from_ref(name),
            Action::Spread(names) => names,
            Action::Masquerade | Action::Dnat(..) | Action::Drop => &[],
        };
        set.into_iter().chain(others)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Any => {}
            Source::Address(address) => write!(f, "ip saddr {address} ")?,
            Source::Pods(range) => write!(f, "ip saddr {range} ")?,
            Source::Node => f.write_str("fib saddr type local ")?,
            Source::Client(set) => write!(f, "ip saddr @{set} ")?,
            Source::OneIn(count) => write!(f, "numgen random mod {count} == 0 ")?,
        }
        match &self.action {
            Action::Masquerade => write!(f, "meta mark set meta mark or {MASQUERADE_MARK}"),
            Action::Remember(set) => write!(f, "update @{set} {{ ip saddr }}"),
            Action::Goto(chain) => write!(f, "goto {chain}"),
            Action::Spread(chains) => {
                write!(f, "numgen random mod {} vmap {{ ", chains.len())?;
                for (index, chain) in chains.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{index} : goto {chain}")?;
                }
                f.write_str(" }")
            }
            Action::Dnat(protocol, address, port) => write!(f, "meta l4proto {protocol} dnat to {address}:{port}"),
            Action::Drop => f.write_str("drop"),
        }
    }
}
