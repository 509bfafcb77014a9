//! ImageLocality: nodes that have a pod's images already.
//!
//! Source: scheduler plugin `imagelocality`, scheduler cache `addNodeImageStates`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodSpec;

const MIB: i64 = 1024 * 1024;
/// Less than this isn't worth a difference.
const LEAST: i64 = 23 * MIB;
/// More than this, for each container, makes no more difference.
const MOST_EACH: i64 = 1000 * MIB;

/// Images of a pod's containers, as nodes name them.
#[must_use]
pub fn names(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.map(|container| with_tag(container.image.as_deref().unwrap_or_default())).collect()
}

fn with_tag(name: &str) -> String {
    // `None` is before every position: a name without both has no tag.
    if name.rfind(':') <= name.rfind('/') { format!("{name}:latest") } else { name.to_owned() }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Image {
    /// As the first node that had it said; the others may differ.
    bytes: i64,
    nodes: BTreeSet<String>,
}

/// Which nodes have which images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images(BTreeMap<String, Image>);

impl Images {
    /// Notes a node's images: names and bytes.
    pub fn add<'a>(&mut self, node: &str, images: impl IntoIterator<Item = (&'a str, i64)>) {
        for (name, bytes) in images {
            let image = self.0.entry(name.to_owned()).or_insert_with(|| Image { bytes, nodes: BTreeSet::new() });
            image.nodes.insert(node.to_owned());
        }
    }

    /// Forgets a node's images.
    pub fn remove<'a>(&mut self, node: &str, images: impl IntoIterator<Item = &'a str>) {
        for name in images {
            if let Some(image) = self.0.get_mut(name) {
                image.nodes.remove(node);
                if image.nodes.is_empty() {
                    self.0.remove(name);
                }
            }
        }
    }

    /// The score of a node, 0..=100. An image counts by its size, less if few nodes have it, so
    /// that not all pods go where the first one went.
    #[must_use]
    pub fn score(&self, node: &str, wanted: &[String], nodes: usize) -> i64 {
        let scaled = |image: &Image| (image.bytes as f64 * (image.nodes.len() as f64 / nodes as f64)) as i64;
        let present = wanted.iter().filter_map(|name| self.0.get(name)).filter(|image| image.nodes.contains(node));
        let sum = present.map(scaled).fold(0, i64::saturating_add);
        let containers = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        let most = MOST_EACH.saturating_mul(containers).max(LEAST + 1);
        100 * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tag_is_latest() {
        let cases =
            [("a", "a:latest"), ("r:5000/a", "r:5000/a:latest"), ("r/a:1", "r/a:1"), ("a@sha256:b", "a@sha256:b")];
        for (name, expected) in cases {
            assert_eq!(with_tag(name), expected);
        }
    }

    #[test]
    fn size_and_spread_make_the_score() {
        let mut images = Images::default();
        images.add("a", [("big:latest", 1000 * MIB), ("small:latest", 10 * MIB)]);
        images.add("b", [("big:latest", 1000 * MIB)]);
        let score = |node: &str, name: &str, nodes: usize| images.score(node, &[name.to_owned()], nodes);
        assert_eq!(score("a", "big:latest", 2), 100);
        assert_eq!(score("a", "big:latest", 4), 100 * (500 - 23) / (1000 - 23));
        assert_eq!(score("a", "small:latest", 2), 0);
        assert_eq!(score("c", "big:latest", 4), 0);
        images.remove("b", ["big:latest"]);
        assert_eq!(images.score("a", &["big:latest".to_owned()], 4), 100 * (250 - 23) / (1000 - 23));
    }
}
