//! What CRI is told of pods.

use super::*;
use serde_json::json;

fn node() -> NodeFacts {
    NodeFacts {
        name: "n1".to_owned(),
        address: "192.0.2.1".parse().expect("an address"),
        data_dir: PathBuf::from("/data"),
        dns_servers: Vec::new(),
        memory_bytes: 1 << 30,
        milli_cpus: 2000,
    }
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}))
        .expect("a pod")
}

fn build(pod: &Pod, env: &[(&str, &str)]) -> cri::ContainerConfig {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let made = Made {
        attempt: 2,
        image_id: "sha256:1",
        env: &env,
        volumes: &[("v".to_owned(), PathBuf::from("/data/v"))].into(),
        sub_paths: &BTreeMap::new(),
        hosts_file: Some(Path::new("/data/hosts")),
    };
    container(pod, &pod.spec.as_ref().expect("a spec").containers[0], &node(), &made)
}

#[test]
fn commands_are_expanded_and_mounts_named() {
    let pod = pod(json!({"containers": [{
        "name": "c", "image": "img:1", "command": ["echo", "$(A)-$(B)"],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}],
    }]}));
    let config = build(&pod, &[("A", "x")]);
    assert_eq!(config.command, ["echo", "x-$(B)"]);
    let mounts: Vec<String> =
        config.mounts.iter().map(|m| format!("{} <- {}", m.container_path, m.host_path)).collect();
    assert_eq!(
        mounts,
        ["/v <- /data/v", "/etc/hosts <- /data/hosts", "/dev/termination-log <- /data/pods/u/containers/c/2"]
    );
    assert_eq!(config.log_path, "c/2.log");
    assert_eq!(config.annotations.get(IMAGE).map(String::as_str), Some("img:1"));
}

#[test]
fn a_containers_own_security_outranks_the_pods() {
    let pod = pod(json!({
        "securityContext": {"runAsUser": 1000, "fsGroup": 7, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {"runAsUser": 5, "allowPrivilegeEscalation": false}}],
    }));
    let security = build(&pod, &[]).linux.and_then(|l| l.security_context).expect("a context");
    assert_eq!(security.run_as_user.map(|u| u.value), Some(5));
    assert_eq!(security.supplemental_groups, [7]);
    assert!(security.no_new_privs);
    assert_eq!(security.seccomp.map(|s| s.profile_type), Some(0));
    assert!(!security.masked_paths.is_empty());
}

#[test]
fn the_host_network_brings_the_hosts_name() {
    let pod = pod(json!({"hostNetwork": true, "containers": [{"name": "c"}]}));
    let config = sandbox(&pod, 0, &node());
    assert_eq!(config.hostname, "n1");
    let options = config.linux.and_then(|l| l.security_context).and_then(|s| s.namespace_options).expect("options");
    assert_eq!(options.network, cri::NamespaceMode::Node as i32);
}
