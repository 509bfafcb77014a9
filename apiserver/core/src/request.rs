//! What a request path names: a resource, an object, a subresource.
//!
//! Kubernetes' paths have one shape, `/{api/v1|apis/GROUP/VERSION}[/namespaces/NS]/RESOURCE[/NAME[/SUB[/REST]]]`,
//! with one irregularity: `/api/v1/namespaces/NAME[/SUB]` names a namespace itself.
//! Source: apiserver `pkg/endpoints/request/requestinfo.go`.

/// A path that names API resources. Strings are percent-decoded by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group; empty for core.
    pub group: String,
    /// API version, such as `v1`.
    pub version: String,
    /// Namespace, if the path names one.
    pub namespace: Option<String>,
    /// Plural resource name.
    pub resource: String,
    /// Object name; absent for collections.
    pub name: Option<String>,
    /// Subresource, such as `status`.
    pub subresource: Option<String>,
}

/// Subresources that stand directly under `/namespaces/NAME`.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads a path; `None` if it doesn't name a resource.
pub fn parse(path: &str) -> Option<ResourcePath> {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    let (group, version) = match *parts.first()? {
        "api" if parts.len() >= 3 => {
            let version = parts[1];
            parts.drain(..2);
            (String::new(), version.to_owned())
        }
        "apis" if parts.len() >= 4 => {
            let (group, version) = (parts[1].to_owned(), parts[2].to_owned());
            parts.drain(..3);
            (group, version)
        }
        _ => return None,
    };
    let mut namespace = None;
    if parts[0] == "namespaces" && parts.len() >= 3 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
        namespace = Some(parts[1].to_owned());
        parts.drain(..2);
    }
    if parts.len() > 3 {
        return None;
    }
    Some(ResourcePath {
        group,
        version,
        namespace,
        resource: parts[0].to_owned(),
        name: parts.get(1).map(|s| (*s).to_owned()),
        subresource: parts.get(2).map(|s| (*s).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;
    use expect_test::expect;

    #[test]
    fn paths_name_what_kubernetes_says() {
        let mut out = String::new();
        for path in [
            "/api/v1/pods",
            "/api/v1/namespaces",
            "/api/v1/namespaces/a",
            "/api/v1/namespaces/a/finalize",
            "/api/v1/namespaces/a/pods",
            "/api/v1/namespaces/a/pods/p",
            "/api/v1/namespaces/a/pods/p/log",
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/x",
            "/api/v1",
            "/apis/apps/v1",
            "/api/v1//pods",
            "/api/v1/namespaces/a/pods/p/exec/more",
        ] {
            let shown = match parse(path) {
                None => "-".to_owned(),
                Some(p) => format!(
                    "{}/{} ns={} {} {} {}",
                    p.group,
                    p.version,
                    p.namespace.unwrap_or_default(),
                    p.resource,
                    p.name.unwrap_or_default(),
                    p.subresource.unwrap_or_default()
                ),
            };
            out.push_str(&format!("{path}: {}\n", shown.trim_end()));
        }
        expect![[r#"
            /api/v1/pods: /v1 ns= pods
            /api/v1/namespaces: /v1 ns= namespaces
            /api/v1/namespaces/a: /v1 ns= namespaces a
            /api/v1/namespaces/a/finalize: /v1 ns= namespaces a finalize
            /api/v1/namespaces/a/pods: /v1 ns=a pods
            /api/v1/namespaces/a/pods/p: /v1 ns=a pods p
            /api/v1/namespaces/a/pods/p/log: /v1 ns=a pods p log
            /apis/apps/v1/namespaces/a/deployments/d/scale: apps/v1 ns=a deployments d scale
            /apis/rbac.authorization.k8s.io/v1/clusterroles/x: rbac.authorization.k8s.io/v1 ns= clusterroles x
            /api/v1: -
            /apis/apps/v1: -
            /api/v1//pods: -
            /api/v1/namespaces/a/pods/p/exec/more: -
        "#]]
        .assert_eq(&out);
    }
}
