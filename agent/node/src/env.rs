//! A container's environment: services, `envFrom`, `env`, in the order in which later ones win.
//!
//! Source: kubelet `kubelet_pods.go` makeEnvironmentVariables, `envvars/envvars.go`.

use std::collections::BTreeMap;

use agent_core::env::expand;
use agent_core::resources;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret, Service,
};
use kube::{Api, Client};

/// Why an environment can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{0}")]
    Wrong(String),
    #[error("asking the API")]
    Api(#[from] Box<kube::Error>),
}

impl From<kube::Error> for EnvError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// What fields of the pod may say beyond the object itself.
pub(crate) struct Facts<'a> {
    pub(crate) host_ip: &'a str,
    pub(crate) pod_ip: &'a str,
    /// Of the node: (millicores, bytes), the limit of a container without one.
    pub(crate) node_capacity: (i64, i64),
}

/// The variables of `container`, sorted by name.
pub(crate) async fn resolve(
    client: &Client,
    pod: &Pod,
    container: &Container,
    facts: &Facts<'_>,
) -> Result<BTreeMap<String, String>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let services = services(client, namespace, links).await?;
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let map = config_map(client, namespace, &reference.name, reference.optional).await?;
            env.extend(
                map.and_then(|m| m.data).unwrap_or_default().into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)),
            );
        }
        if let Some(reference) = &source.secret_ref {
            let secret = secret(client, namespace, &reference.name, reference.optional).await?;
            for (key, value) in secret.and_then(|s| s.data).unwrap_or_default() {
                env.insert(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => {
                let lookup = |name: &str| env.get(name).or_else(|| services.get(name)).map(String::as_str);
                Some(expand(text, lookup))
            }
            (_, Some(source)) => value_from(client, pod, container, source, facts).await?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        env.entry(name).or_insert(value);
    }
    Ok(env)
}

async fn value_from(
    client: &Client,
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    facts: &Facts<'_>,
) -> Result<Option<String>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return pod_field(pod, field, facts).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return resource_field(pod, container, field, facts.node_capacity).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let map = config_map(client, namespace, &key.name, key.optional).await?;
        let value = map.and_then(|m| m.data).and_then(|mut d| d.remove(&key.key));
        return present(value, key.optional, &key.key, "ConfigMap", namespace, &key.name);
    }
    if let Some(key) = &source.secret_key_ref {
        let secret = secret(client, namespace, &key.name, key.optional).await?;
        let value = secret.and_then(|s| s.data).and_then(|mut d| d.remove(&key.key));
        let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
        return present(value, key.optional, &key.key, "Secret", namespace, &key.name);
    }
    Err(EnvError::Wrong("a variable's valueFrom names a source that this node doesn't know".to_owned()))
}

fn present(
    value: Option<String>,
    optional: Option<bool>,
    key: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<String>, EnvError> {
    match value {
        None if optional != Some(true) => {
            Err(EnvError::Wrong(format!("couldn't find key {key} in {kind} {namespace}/{name}")))
        }
        value => Ok(value),
    }
}

/// A ConfigMap; `None` if it isn't there and needn't be.
pub(crate) async fn config_map(
    client: &Client,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<ConfigMap>, EnvError> {
    let found = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await?;
    match found {
        None if optional != Some(true) => Err(EnvError::Wrong(format!("configmap {name:?} not found"))),
        found => Ok(found),
    }
}

/// A Secret; `None` if it isn't there and needn't be.
pub(crate) async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<Secret>, EnvError> {
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await?;
    match found {
        None if optional != Some(true) => Err(EnvError::Wrong(format!("secret {name:?} not found"))),
        found => Ok(found),
    }
}

/// A field of the pod, as the downward API names it.
pub(crate) fn pod_field(pod: &Pod, field: &ObjectFieldSelector, facts: &Facts<'_>) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let path = field.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(EnvError::Wrong(format!("fieldPath {path:?} is not supported"))),
        };
        return Ok(text(map.and_then(|m| m.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_owned(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.to_owned(),
        _ => return Err(EnvError::Wrong(format!("fieldPath {path:?} is not supported"))),
    })
}

/// `key="value"` lines, as in a downward API file.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// A container's request or limit, divided and rounded up.
pub(crate) fn resource_field(
    pod: &Pod,
    container: &Container,
    field: &ResourceFieldSelector,
    node_capacity: (i64, i64),
) -> Result<String, EnvError> {
    let wrong = |what: String| EnvError::Wrong(what);
    let named = field.container_name.as_deref().filter(|n| !n.is_empty());
    let all = || pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let container = match named {
        None => container,
        Some(name) => all().find(|c| c.name == name).ok_or_else(|| wrong(format!("container {name:?} not found")))?,
    };
    let (kind, name) = field.resource.split_once('.').unwrap_or(("", ""));
    let whole = match name {
        "cpu" => node_capacity.0,
        "memory" => node_capacity.1,
        _ => 0,
    };
    let value = match kind {
        "limits" => resources::limit(container, name).filter(|v| *v > 0).unwrap_or(whole),
        "requests" => resources::request(container, name).unwrap_or(0),
        _ => return Err(wrong(format!("resource {:?} is not supported", field.resource))),
    };
    let divisor = field.divisor.as_ref().filter(|d| d.0 != "0" && !d.0.is_empty());
    let thousandths = |default: i128| divisor.map_or(Some(default), resources::milli);
    let divisor =
        thousandths(1000).filter(|d| *d > 0).ok_or_else(|| wrong("the divisor is not a quantity".to_owned()))?;
    // CPU counts in thousandths already.
    let value = if name == "cpu" { i128::from(value) } else { i128::from(value) * 1000 };
    Ok((value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0)).to_string())
}

/// Variables that lead to services: those of the namespace if linked, and always the API's own.
async fn services(client: &Client, namespace: &str, links: bool) -> Result<BTreeMap<String, String>, EnvError> {
    let mut env = BTreeMap::new();
    let api = Api::<Service>::namespaced(client.clone(), "default").get_opt("kubernetes").await?;
    env.extend(api.iter().flat_map(service_variables));
    if links {
        let all = Api::<Service>::namespaced(client.clone(), namespace).list(&kube::api::ListParams::default()).await?;
        env.extend(all.items.iter().flat_map(service_variables));
    }
    Ok(env)
}

fn service_variables(service: &Service) -> Vec<(String, String)> {
    let name = service.metadata.name.as_deref().unwrap_or_default().to_uppercase().replace('-', "_");
    let spec = service.spec.as_ref();
    let ip = spec.and_then(|s| s.cluster_ip.as_deref()).filter(|ip| !ip.is_empty() && *ip != "None");
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let (Some(ip), Some(first)) = (ip, ports.first()) else { return Vec::new() };
    let mut env =
        vec![(format!("{name}_SERVICE_HOST"), ip.to_owned()), (format!("{name}_SERVICE_PORT"), first.port.to_string())];
    let url = |protocol: &str, port: i32| format!("{}://{ip}:{port}", protocol.to_lowercase());
    env.push((format!("{name}_PORT"), url(first.protocol.as_deref().unwrap_or("TCP"), first.port)));
    for port in ports {
        if let Some(named) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let named = named.to_uppercase().replace('-', "_");
            env.push((format!("{name}_SERVICE_PORT_{named}"), port.port.to_string()));
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.push((prefix.clone(), url(protocol, port.port)));
        env.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        env.push((format!("{prefix}_PORT"), port.port.to_string()));
        env.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_shown_as_docker_links_were() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "my-web"},
            "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        }))
        .expect("a service");
        let text: Vec<String> = service_variables(&service).into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text.join("\n"),
            "MY_WEB_SERVICE_HOST=10.96.0.7\nMY_WEB_SERVICE_PORT=80\nMY_WEB_PORT=tcp://10.96.0.7:80\n\
             MY_WEB_SERVICE_PORT_HTTP=80\nMY_WEB_PORT_80_TCP=tcp://10.96.0.7:80\nMY_WEB_PORT_80_TCP_PROTO=tcp\n\
             MY_WEB_PORT_80_TCP_PORT=80\nMY_WEB_PORT_80_TCP_ADDR=10.96.0.7"
        );
    }

    #[test]
    fn resource_fields_are_divided_and_rounded_up() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}}]},
        }))
        .expect("a pod");
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let ask = |resource: &str, divisor: &str| {
            let field = ResourceFieldSelector {
                resource: resource.to_owned(),
                divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.to_owned())),
                container_name: None,
            };
            resource_field(&pod, container, &field, (2000, 1 << 30)).expect("a value")
        };
        assert_eq!(ask("limits.cpu", "1"), "1");
        assert_eq!(ask("limits.cpu", "1m"), "250");
        assert_eq!(ask("limits.memory", "1Mi"), "64");
        assert_eq!(ask("requests.memory", "0"), (64 << 20).to_string());
    }
}
