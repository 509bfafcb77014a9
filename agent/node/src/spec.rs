//! From a pod's spec to what CRI is told: pure but for the folders it names.
//!
//! Source: kubelet `kuberuntime_sandbox.go`, `kuberuntime_container.go`, `security_context.go`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use agent_core::env::expand;
use agent_core::resources;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, Pod, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};

use crate::cri::{CONTAINER_NAME, IMAGE, MESSAGE_FILE, POD_NAME, POD_NAMESPACE, POD_UID};
use crate::volumes::VolumePaths;

/// Paths of `/proc` and `/sys` that containers don't see, and see read-only.
/// Source: kubelet's `defaultMaskedPaths`, `defaultReadonlyPaths`.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A Linux host name has at most this many characters.
const HOST_NAME_MAX: usize = 63;

/// What a node gives to all its pods.
#[derive(Debug, Clone)]
pub(crate) struct NodeFacts {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) dns_servers: Vec<String>,
    pub(crate) memory_bytes: i64,
    pub(crate) milli_cpus: i64,
}

/// Folder of a pod's logs.
pub(crate) fn log_dir(data_dir: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    data_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
}

/// A container's log, below its pod's folder.
pub(crate) fn log_file(container: &str, attempt: u32) -> PathBuf {
    Path::new(container).join(format!("{attempt}.log"))
}

/// Where a container's termination message is written, on the node.
pub(crate) fn message_file(data_dir: &Path, uid: &str, container: &str, attempt: u32) -> PathBuf {
    crate::volumes::pod_dir(data_dir, uid).join("containers").join(container).join(attempt.to_string())
}

fn name_of(pod: &Pod) -> (&str, &str, &str) {
    let meta = &pod.metadata;
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
    )
}

pub(crate) fn host_network(spec: &PodSpec) -> bool {
    spec.host_network == Some(true)
}

/// The host name inside the pod.
pub(crate) fn host_name(pod: &Pod, node: &NodeFacts) -> String {
    let spec = pod.spec.as_ref();
    if spec.is_some_and(host_network) {
        return node.name.clone();
    }
    let asked = spec.and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty());
    let name = asked.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    let cut: String = name.chars().take(HOST_NAME_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The sandbox numbered `attempt`.
pub(crate) fn sandbox(pod: &Pod, attempt: u32, node: &NodeFacts) -> cri::PodSandboxConfig {
    let (namespace, name, uid) = name_of(pod);
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    for (key, value) in [(POD_NAME, name), (POD_NAMESPACE, namespace), (POD_UID, uid)] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt,
        }),
        hostname: host_name(pod, node),
        log_directory: log_dir(&node.data_dir, namespace, name, uid).display().to_string(),
        dns_config: dns(spec, namespace, node),
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: format!("/keelson/pod{uid}"),
            security_context: Some(sandbox_security(spec)),
            sysctls: sysctls(spec),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn sysctls(spec: &PodSpec) -> HashMap<String, String> {
    let asked = spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    asked.map(|s| (s.name.clone(), s.value.clone())).collect()
}

fn dns(spec: &PodSpec, namespace: &str, node: &NodeFacts) -> Option<cri::DnsConfig> {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let extra = spec.dns_config.clone().unwrap_or_default();
    let for_cluster = policy == "ClusterFirstWithHostNet" || policy == "ClusterFirst" && !host_network(spec);
    let mut config = match policy {
        "None" => cri::DnsConfig::default(),
        _ if for_cluster && !node.dns_servers.is_empty() => cri::DnsConfig {
            servers: node.dns_servers.clone(),
            searches: vec![
                format!("{namespace}.svc.cluster.local"),
                "svc.cluster.local".to_owned(),
                "cluster.local".to_owned(),
            ],
            options: vec!["ndots:5".to_owned()],
        },
        // The runtime copies the node's resolv.conf.
        _ if spec.dns_config.is_none() => return None,
        _ => cri::DnsConfig::default(),
    };
    config.servers.extend(extra.nameservers.unwrap_or_default());
    config.searches.extend(extra.searches.unwrap_or_default());
    let options = extra.options.unwrap_or_default();
    config.options.extend(options.into_iter().filter_map(|o| {
        let name = o.name?;
        Some(o.value.map_or(name.clone(), |value| format!("{name}:{value}")))
    }));
    Some(config)
}

fn namespaces(spec: &PodSpec) -> cri::NamespaceOption {
    let mode = |host: Option<bool>, own: cri::NamespaceMode| {
        if host == Some(true) { cri::NamespaceMode::Node as i32 } else { own as i32 }
    };
    let shared = spec.share_process_namespace == Some(true);
    let pid = if shared { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Container };
    cri::NamespaceOption {
        network: mode(spec.host_network, cri::NamespaceMode::Pod),
        pid: mode(spec.host_pid, pid),
        ipc: mode(spec.host_ipc, cri::NamespaceMode::Pod),
        ..Default::default()
    }
}

fn int(value: Option<i64>) -> Option<cri::Int64Value> {
    value.map(|value| cri::Int64Value { value })
}

fn sandbox_security(spec: &PodSpec) -> cri::LinuxSandboxSecurityContext {
    let context = spec.security_context.clone().unwrap_or_default();
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let privileged = containers.filter_map(|c| c.security_context.as_ref()).any(|c| c.privileged == Some(true));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        run_as_user: int(context.run_as_user),
        run_as_group: int(context.run_as_group.filter(|_| context.run_as_user.is_some())),
        supplemental_groups: groups(&context),
        privileged,
        seccomp: Some(profile(context.seccomp_profile.as_ref())),
        ..Default::default()
    }
}

fn groups(context: &PodSecurityContext) -> Vec<i64> {
    context.fs_group.into_iter().chain(context.supplemental_groups.clone().unwrap_or_default()).collect()
}

fn profile(asked: Option<&SeccompProfile>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost_ref) = match asked {
        Some(p) if p.type_ == "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        Some(p) if p.type_ == "Localhost" => (ProfileType::Localhost, p.localhost_profile.clone().unwrap_or_default()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

/// What a container is made with beyond its spec.
pub(crate) struct Made<'a> {
    pub(crate) attempt: u32,
    /// The image's id in the runtime.
    pub(crate) image_id: &'a str,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) volumes: &'a VolumePaths,
    /// Sources of mounts with a `subPath`, by index in `volumeMounts`.
    pub(crate) sub_paths: &'a BTreeMap<usize, PathBuf>,
    /// The pod's hosts file on the node, if it has one of its own.
    pub(crate) hosts_file: Option<&'a Path>,
}

/// A container.
pub(crate) fn container(pod: &Pod, spec: &Container, node: &NodeFacts, made: &Made<'_>) -> cri::ContainerConfig {
    let (namespace, name, uid) = name_of(pod);
    let expanded = |texts: Option<&Vec<String>>| -> Vec<String> {
        let lookup = |name: &str| made.env.get(name).map(String::as_str);
        texts.into_iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    let labels = [(POD_NAME, name), (POD_NAMESPACE, namespace), (POD_UID, uid), (CONTAINER_NAME, spec.name.as_str())];
    let message = message_file(&node.data_dir, uid, &spec.name, made.attempt);
    let image = spec.image.clone().unwrap_or_default();
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: spec.name.clone(), attempt: made.attempt }),
        image: Some(cri::ImageSpec { image: made.image_id.to_owned(), ..Default::default() }),
        command: expanded(spec.command.as_ref()),
        args: expanded(spec.args.as_ref()),
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        envs: made.env.iter().map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: mounts(spec, made, &message),
        labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        annotations: [(IMAGE.to_owned(), image), (MESSAGE_FILE.to_owned(), message.display().to_string())].into(),
        log_path: log_file(&spec.name, made.attempt).display().to_string(),
        stdin: spec.stdin == Some(true),
        stdin_once: spec.stdin_once == Some(true),
        tty: spec.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(limits(pod, spec, node)),
            security_context: Some(container_security(pod, spec)),
        }),
        ..Default::default()
    }
}

fn limits(pod: &Pod, spec: &Container, node: &NodeFacts) -> cri::LinuxContainerResources {
    let limits = resources::linux(pod, spec, node.memory_bytes);
    cri::LinuxContainerResources {
        cpu_period: resources::CPU_PERIOD_MICROSECONDS,
        cpu_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory_limit,
        oom_score_adj: limits.oom_score_adj,
        ..Default::default()
    }
}

fn mounts(spec: &Container, made: &Made<'_>, message: &Path) -> Vec<cri::Mount> {
    let mut mounts = Vec::new();
    for (index, mount) in spec.volume_mounts.iter().flatten().enumerate() {
        let Some(source) = made.sub_paths.get(&index).or_else(|| made.volumes.get(&mount.name)) else { continue };
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        };
        mounts.push(cri::Mount {
            container_path: mount.mount_path.clone(),
            host_path: source.display().to_string(),
            readonly: mount.read_only == Some(true),
            propagation: propagation as i32,
            ..Default::default()
        });
    }
    let mut file = |inside: &str, outside: &Path| {
        let taken = spec.volume_mounts.iter().flatten().any(|m| m.mount_path == inside);
        if !taken {
            let (container_path, host_path) = (inside.to_owned(), outside.display().to_string());
            mounts.push(cri::Mount { container_path, host_path, ..Default::default() });
        }
    };
    if let Some(hosts) = made.hosts_file {
        file("/etc/hosts", hosts);
    }
    file(spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log"), message);
    mounts
}

fn container_security(pod: &Pod, container: &Container) -> cri::LinuxContainerSecurityContext {
    let default_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default_spec);
    let whole = spec.security_context.clone().unwrap_or_default();
    let own: SecurityContext = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let user = own.run_as_user.or(whole.run_as_user);
    let paths = |list: &[&str]| -> Vec<String> {
        let open = privileged || own.proc_mount.as_deref() == Some("Unmasked");
        if open { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() }
    };
    cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(capabilities),
        privileged,
        namespace_options: Some(namespaces(spec)),
        run_as_user: int(user),
        run_as_group: int(own.run_as_group.or(whole.run_as_group).filter(|_| user.is_some())),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(&whole),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(profile(own.seccomp_profile.as_ref().or(whole.seccomp_profile.as_ref()))),
        ..Default::default()
    }
}

fn capabilities(asked: &Capabilities) -> cri::Capability {
    let list = |names: Option<&Vec<String>>| names.cloned().unwrap_or_default();
    cri::Capability {
        add_capabilities: list(asked.add.as_ref()),
        drop_capabilities: list(asked.drop.as_ref()),
        ..Default::default()
    }
}

/// The pod's `/etc/hosts`. Source: kubelet `kubelet_pods.go` managedHostsFileContent.
pub(crate) fn hosts(pod: &Pod, ip: &str, host_name: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut text =
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let subdomain = spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty());
    let full = subdomain.map(|s| format!("{host_name}.{s}.{namespace}.svc.cluster.local\t")).unwrap_or_default();
    text.push_str(&format!("{ip}\t{full}{host_name}\n"));
    for alias in spec.iter().flat_map(|s| s.host_aliases.iter().flatten()) {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests;
