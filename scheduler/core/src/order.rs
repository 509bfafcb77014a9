//! The order in which nodes are visited: one of each zone in turn.
//!
//! Source: scheduler cache `node_tree.go`, component-helpers `node/topology`.

use crate::labels::Labels;

/// A node's zone: its region and zone labels, the old names first. Nodes without either share one.
fn zone(labels: &Labels) -> (String, String) {
    let either = |old: &str, new: &str| labels.get(old).or_else(|| labels.get(new)).cloned().unwrap_or_default();
    (
        either("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        either("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    )
}

type Zone = ((String, String), Vec<String>);

/// Nodes by zone: zones in the order first seen, nodes in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneTree(Vec<Zone>);

impl ZoneTree {
    /// A node came.
    pub fn add(&mut self, name: &str, labels: &Labels) {
        let key = zone(labels);
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, nodes)) if nodes.iter().any(|node| node == name) => {}
            Some((_, nodes)) => nodes.push(name.to_owned()),
            None => self.0.push((key, vec![name.to_owned()])),
        }
    }

    /// A node went. A zone that is left empty loses its place.
    pub fn remove(&mut self, name: &str, labels: &Labels) {
        let key = zone(labels);
        for (_, nodes) in self.0.iter_mut().filter(|(known, _)| *known == key) {
            nodes.retain(|node| node != name);
        }
        self.0.retain(|(_, nodes)| !nodes.is_empty());
    }

    /// A node's labels changed: one that moves to another zone goes to that one's end.
    pub fn update(&mut self, name: &str, old: &Labels, new: &Labels) {
        if zone(old) != zone(new) {
            self.remove(name, old);
            self.add(name, new);
        }
    }

    /// The first node of each zone, then the second of each, and so on.
    #[must_use]
    pub fn round_robin(&self) -> Vec<String> {
        let longest = self.0.iter().map(|(_, nodes)| nodes.len()).max().unwrap_or(0);
        (0..longest).flat_map(|row| self.0.iter().filter_map(move |(_, nodes)| nodes.get(row).cloned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn labels(zone: &str) -> Labels {
        Labels::from([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())])
    }

    #[test]
    fn zones_take_turns() {
        let mut tree = ZoneTree::default();
        let mut out = String::new();
        let mut show =
            |what: &str, tree: &ZoneTree| out.push_str(&format!("{what}: {}\n", tree.round_robin().join(" ")));
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"), ("c1", "c"), ("b2", "b")] {
            tree.add(name, &labels(zone));
        }
        show("all", &tree);
        tree.update("a2", &labels("a"), &labels("b"));
        show("a2 to b", &tree);
        tree.update("a1", &labels("a"), &labels("a"));
        show("nothing moved", &tree);
        tree.remove("a1", &labels("a"));
        tree.remove("a3", &labels("a"));
        tree.add("a1", &labels("a"));
        show("zone a emptied and back", &tree);
        expect![[r#"
            all: a1 b1 c1 a2 b2 a3
            a2 to b: a1 b1 c1 a3 b2 a2
            nothing moved: a1 b1 c1 a3 b2 a2
            zone a emptied and back: b1 c1 a1 b2 a2
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn old_labels_win() {
        let mut both = labels("new");
        both.insert("failure-domain.beta.kubernetes.io/zone".to_owned(), "old".to_owned());
        assert_eq!(zone(&both).1, "old");
    }
}
