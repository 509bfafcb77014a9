//! The resources Kubernetes 1.36 serves: what discovery tells and paths are resolved by.
//!
//! Always holds: group versions come in the order kube-apiserver lists them, and the first version
//! of a group is its preferred one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::OnceLock;

use crate::schema::{TypeId, kind_type};

/// A resource or a subresource.
#[derive(Debug)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural name, without the subresource.
    pub name: &'static str,
    /// Singular name; empty for a subresource.
    pub singular: &'static str,
    /// Kind of the body.
    pub kind: &'static str,
    /// Whether it lives in a namespace.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<&'static str>,
    /// Short names for command lines.
    pub short_names: Vec<&'static str>,
    /// Sets of resources it belongs to, such as `all`.
    pub categories: Vec<&'static str>,
    /// Tells clients when the stored form changes; may be empty.
    pub storage_version_hash: &'static str,
    /// Name of the subresource, such as `status`.
    pub subresource: Option<&'static str>,
    /// Group of the kind, if it isn't the resource's own (`scale`, `token`, `eviction`).
    pub kind_group: Option<&'static str>,
    /// Version of the kind, if it isn't the resource's own.
    pub kind_version: Option<&'static str>,
    /// Type of the body.
    pub ty: Option<TypeId>,
}

impl Resource {
    /// Whether it can be used with `verb`.
    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// `apps/v1`, `v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        crate::gvk::api_version(self.group, self.version)
    }

    /// `apiVersion` of the body.
    #[must_use]
    pub fn kind_api_version(&self) -> String {
        let group = self.kind_group.unwrap_or(self.group);
        crate::gvk::api_version(group, self.kind_version.unwrap_or(self.version))
    }
}

/// A group version, with the versions' rank in their group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupVersion {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// The version clients should take.
    pub preferred: bool,
}

/// kube-apiserver's order of groups; those not named follow by name.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
];

type Key = (&'static str, &'static str, &'static str, &'static str);

struct Index {
    all: Vec<Resource>,
    by_name: HashMap<Key, usize>,
    by_kind: HashMap<[&'static str; 3], usize>,
    group_versions: Vec<GroupVersion>,
}

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| Index::new(crate::schema::TEXT.lines().filter_map(parse).collect()))
}

impl Index {
    fn new(all: Vec<Resource>) -> Self {
        let mut by_name = HashMap::new();
        let mut by_kind = HashMap::new();
        let mut group_versions: Vec<GroupVersion> = Vec::new();
        for (at, resource) in all.iter().enumerate() {
            let Resource { group, version, name, kind, .. } = *resource;
            by_name.insert((group, version, name, resource.subresource.unwrap_or("")), at);
            if resource.subresource.is_none() {
                by_kind.entry([group, version, kind]).or_insert(at);
            }
            if !group_versions.iter().any(|known| (known.group, known.version) == (group, version)) {
                group_versions.push(GroupVersion { group, version, preferred: false });
            }
        }
        group_versions.sort_by_key(|gv| {
            let rank = GROUP_ORDER.iter().position(|group| *group == gv.group);
            (rank.unwrap_or(GROUP_ORDER.len()), gv.group, Reverse(version_rank(gv.version)))
        });
        let mut last = None;
        for gv in &mut group_versions {
            gv.preferred = last.replace(gv.group) != Some(gv.group);
        }
        Self { all, by_name, by_kind, group_versions }
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, then the greater number.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let rest = version.strip_prefix('v').unwrap_or(version);
    if let Some((major, minor)) = rest.split_once("beta") {
        (1, number(major), number(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (0, number(major), number(minor))
    } else {
        (2, number(rest), 0)
    }
}

fn parse(line: &'static str) -> Option<Resource> {
    let mut parts = line.strip_prefix("R ")?.split(' ').map(|part| if part == "-" { "" } else { part });
    let mut next = || parts.next().unwrap_or("");
    let list = |text: &'static str| text.split(',').filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let (group, version, path) = (next(), next(), next());
    let (name, subresource) = match path.split_once('/') {
        Some((name, subresource)) => (name, Some(subresource)),
        None => (path, None),
    };
    let (singular, kind, scope) = (next(), next(), next());
    let (verbs, short_names, categories) = (list(next()), list(next()), list(next()));
    let storage_version_hash = next();
    let own = |part: &'static str| (!part.is_empty()).then_some(part);
    let (kind_group, kind_version) = (own(next()), own(next()));
    let ty = kind_type(kind_group.unwrap_or(group), kind_version.unwrap_or(version), kind);
    Some(Resource {
        group,
        version,
        name,
        singular,
        kind,
        namespaced: scope == "n",
        verbs,
        short_names,
        categories,
        storage_version_hash,
        subresource,
        kind_group,
        kind_version,
        ty,
    })
}

/// Every resource and subresource, in discovery's order within a group version.
#[must_use]
pub fn all() -> &'static [Resource] {
    &index().all
}

/// The resource of a plural name.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    find_at(group, version, plural, "")
}

/// A subresource of the resource of a plural name.
#[must_use]
pub fn find_subresource(group: &str, version: &str, plural: &str, subresource: &str) -> Option<&'static Resource> {
    if subresource.is_empty() { None } else { find_at(group, version, plural, subresource) }
}

fn find_at(group: &str, version: &str, plural: &str, subresource: &str) -> Option<&'static Resource> {
    let index = index();
    index.by_name.get(&(group, version, plural, subresource)).map(|at| &index.all[*at])
}

/// The resource whose objects are of a kind.
#[must_use]
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    let index = index();
    index.by_kind.get(&[group, version, kind]).map(|at| &index.all[*at])
}

/// Every group version, in discovery's order; versions of a group stand together, preferred first.
#[must_use]
pub fn group_versions() -> &'static [GroupVersion] {
    &index().group_versions
}

/// The resources and subresources of one group version, in discovery's order.
pub fn of_group_version(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    all().iter().filter(move |resource| resource.group == group && resource.version == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_resolve() {
        assert_eq!(find("apps", "v1", "deployments").unwrap().kind, "Deployment");
        let scale = find_subresource("apps", "v1", "deployments", "scale").unwrap();
        assert_eq!((scale.kind, scale.kind_api_version().as_str()), ("Scale", "autoscaling/v1"));
        assert_eq!(by_kind("", "v1", "Pod").unwrap().short_names, ["po"]);
        assert!(find("", "v1", "pods/status").is_none());
    }

    #[test]
    fn every_resource_has_a_type() {
        let without: Vec<_> = all().iter().filter(|r| r.ty.is_none()).map(|r| (r.name, r.subresource)).collect();
        assert!(without.is_empty(), "{without:?}");
    }

    #[test]
    fn versions_are_ranked() {
        let gvs = group_versions();
        assert_eq!((gvs.len(), gvs[0].group, gvs[0].version), (36, "", "v1"));
        let resource: Vec<_> = gvs.iter().filter(|gv| gv.group == "resource.k8s.io").map(|gv| gv.version).collect();
        assert_eq!(resource, ["v1", "v1beta2", "v1beta1", "v1alpha3"]);
    }
}
