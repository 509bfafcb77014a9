//! Certificates of a cluster: two CAs, and what they sign.
//!
//! The store has a CA of its own: a client of the API must not pass for a member
//! of the store. CAs are made once and kept; leaves are made anew at every start,
//! so they never run out while the machine is in use.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    fn at(dir: &Path, name: &str) -> Self {
        Self { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }
}

/// Every certificate of a cluster on one machine.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    pub(crate) cluster_ca: PathBuf,
    pub(crate) store_ca: PathBuf,
    pub(crate) apiserver: Pair,
    pub(crate) admin: Pair,
    pub(crate) store_member: Pair,
    pub(crate) store_client: Pair,
    /// What the apiserver shows to agents.
    pub(crate) kubelet_client: Pair,
    /// The node's user.
    pub(crate) node: Pair,
    /// What the agent serves logs and exec with.
    pub(crate) agent: Pair,
}

/// What the certificates are made out to.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) node: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) service_ip: IpAddr,
}

enum Use<'a> {
    Client {
        user: &'a str,
        groups: &'a [&'a str],
    },
    Server {
        name: &'a str,
        hosts: Vec<SanType>,
    },
    /// Members of the store are both to each other.
    Both {
        name: &'a str,
        hosts: Vec<SanType>,
    },
}

/// Makes the CAs if missing, and all leaves anew.
pub(crate) fn ensure(dir: &Path, names: &Names) -> Result<Pki> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let cluster = Authority::ensure(dir, "cluster-ca")?;
    let store = Authority::ensure(dir, "store-ca")?;
    let local = |dns: &[&str]| -> Result<Vec<SanType>> {
        let mut hosts = Vec::new();
        for name in dns {
            hosts.push(SanType::DnsName((*name).try_into()?));
        }
        hosts.extend(names.addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        Ok(hosts)
    };
    let mut api_hosts = local(&[
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        &names.node,
    ])?;
    api_hosts.push(SanType::IpAddress(names.service_ip));
    let user = format!("system:node:{}", names.node);
    fn client<'a>(user: &'a str, groups: &'a [&'a str]) -> Use<'a> {
        Use::Client { user, groups }
    }
    Ok(Pki {
        apiserver: cluster.issue(dir, "apiserver", Use::Server { name: "kube-apiserver", hosts: api_hosts })?,
        admin: cluster.issue(dir, "admin", client("kubernetes-admin", &["system:masters"]))?,
        kubelet_client: cluster.issue(dir, "kubelet-client", client(agent_node::CLIENT_NAME, &["system:masters"]))?,
        node: cluster.issue(dir, "node", client(&user, &["system:nodes"]))?,
        agent: cluster.issue(dir, "agent", Use::Server { name: &user, hosts: local(&["localhost", &names.node])? })?,
        store_member: store.issue(dir, "store", Use::Both { name: "keelson-store", hosts: local(&["localhost"])? })?,
        store_client: store.issue(dir, "store-client", client("keelson-apiserver", &[]))?,
        cluster_ca: cluster.path,
        store_ca: store.path,
    })
}

struct Authority {
    path: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn ensure(dir: &Path, name: &str) -> Result<Self> {
        let Pair { cert, key } = Pair::at(dir, name);
        if !cert.exists() || !key.exists() {
            let pair = KeyPair::generate()?;
            let mut params = parameters(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            write_private(&key, &pair.serialize_pem())?;
            write(&cert, &params.self_signed(&pair)?.pem())?;
        }
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
        let pair = KeyPair::from_pem(&read(&key)?).with_context(|| format!("{} is damaged", key.display()))?;
        let issuer =
            Issuer::from_ca_cert_pem(&read(&cert)?, pair).with_context(|| format!("{} is damaged", cert.display()))?;
        Ok(Self { path: cert, issuer })
    }

    fn issue(&self, dir: &Path, file: &str, purpose: Use<'_>) -> Result<Pair> {
        let out = Pair::at(dir, file);
        let (name, groups, hosts, usages) = match purpose {
            Use::Client { user, groups } => (user, groups, Vec::new(), vec![ExtendedKeyUsagePurpose::ClientAuth]),
            Use::Server { name, hosts } => (name, &[][..], hosts, vec![ExtendedKeyUsagePurpose::ServerAuth]),
            Use::Both { name, hosts } => {
                (name, &[][..], hosts, vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
            }
        };
        let mut params = parameters(name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.subject_alt_names = hosts;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::generate()?;
        let cert = params.signed_by(&pair, &self.issuer)?;
        write_private(&out.key, &pair.serialize_pem())?;
        write(&out.cert, &cert.pem())?;
        Ok(out)
    }
}

fn parameters(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Wide on purpose: a laptop's clock may be years off; leaves are replaced at every start.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    // A file that exists keeps its mode: it goes first.
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// A kubeconfig with everything inlined, for one user.
pub(crate) fn kubeconfig(server: &str, ca: &Path, user: &str, pair: &Pair) -> Result<String> {
    use base64::Engine as _;
    let inline = |path: &Path| -> Result<String> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    Ok(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: keelson\nclusters:\n- name: keelson\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\ncontexts:\n- name: keelson\n  context:\n    cluster: keelson\n    user: {user}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        inline(ca)?,
        inline(&pair.cert)?,
        inline(&pair.key)?
    ))
}
