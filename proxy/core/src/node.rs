//! What the rules must know of the node they are for.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The node whose kernel gets the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, as endpoints give it.
    pub name: String,
    /// Its own addresses, on which node ports are served.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Where pods' addresses come from: the whole cluster's range, or this node's.
    pub pods: Cidr,
    /// Whether a pod that reaches a pod of the same node through a service must appear as the node.
    ///
    /// Two pods on one bridge answer each other without the kernel's connection tracking seeing it, unless
    /// `net.bridge.bridge-nf-call-iptables` is 1; the answer would come from an address the client never called.
    /// Where that setting can't be had, this makes the answer return through the node. The price: the server sees
    /// the node's address.
    pub masquerade_neighbours: bool,
}

/// A range of IPv4 addresses, such as `10.244.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The first address; the bits after `prefix` are zero.
    address: Ipv4Addr,
    prefix: u8,
}

/// What isn't a range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of IPv4 addresses such as 10.244.0.0/16")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let mask = match prefix {
            // Everything: then nothing would be outside, and nft doesn't take it.
            0 => return Err(bad()),
            1..=32 => u32::MAX << (32 - u32::from(prefix)),
            _ => return Err(bad()),
        };
        Ok(Self { address: Ipv4Addr::from(u32::from(address) & mask), prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_cut_to_their_prefix() {
        let read = |text: &str| text.parse::<Cidr>().map(|c| c.to_string()).map_err(|e| e.to_string());
        assert_eq!(read("10.244.3.9/16"), Ok("10.244.0.0/16".to_owned()));
        assert_eq!(read("1.2.3.4/32"), Ok("1.2.3.4/32".to_owned()));
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "0.0.0.0/0", "fd00::/8", "10.0.0/8", "10.0.0.0/-1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
