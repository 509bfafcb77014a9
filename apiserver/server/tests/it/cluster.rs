//! An apiserver over Debian's etcd, in a folder that goes with the test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use apiserver_server::{Apiserver, Config, StoreConfig, start};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::relay::Relay;

/// A running apiserver and its store; both end with it.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) runtime: Runtime,
    pub(crate) address: SocketAddr,
    /// Where etcd listens.
    pub(crate) store: String,
    shutdown: CancellationToken,
    apiserver: Option<Apiserver>,
    etcd: Child,
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

fn issue(issuer: &Issuer<'_, KeyPair>, dir: &Path, name: &str, user: &str, group: &str, server: bool) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let usage = if server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth };
    params.extended_key_usages = vec![usage];
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    let key = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&key, issuer).expect("a certificate");
    std::fs::write(dir.join(format!("{name}.crt")), cert.pem()).expect("write");
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("write");
}

fn certificates(dir: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test-ca");
    let ca = params.self_signed(&key).expect("a CA");
    std::fs::write(dir.join("ca.crt"), ca.pem()).expect("write");
    let issuer = Issuer::from_ca_cert_pem(&ca.pem(), key).expect("an issuer");
    issue(&issuer, dir, "server", "kube-apiserver", "", true);
    issue(&issuer, dir, "admin", "admin", "system:masters", false);
}

fn start_etcd(dir: &Path) -> (Child, String) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (client, peer) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let mut child = Command::new("etcd")
            .arg("--data-dir")
            .arg(dir.join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (Debian's package etcd-server)");
        while child.try_wait().expect("a child").is_none() && Instant::now() < deadline {
            if std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, client)).is_ok() {
                return (child, url);
            }
            std::thread::yield_now();
        }
        // Another test took the port in between: choose again.
        let _ = child.kill();
        let _ = child.wait();
        assert!(Instant::now() < deadline, "etcd did not start");
    }
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (etcd, url) = start_etcd(dir.path());
        Self::over(dir, etcd, url.clone(), url)
    }

    /// One that reaches its store through a relay.
    pub(crate) fn behind_a_relay() -> (Self, Relay) {
        let dir = tempfile::tempdir().expect("a folder");
        let (etcd, url) = start_etcd(dir.path());
        let relay = Relay::start(&url);
        (Self::over(dir, etcd, url, relay.url.clone()), relay)
    }

    /// An apiserver that finds the etcd at `store` under `endpoint`.
    fn over(dir: TempDir, etcd: Child, store: String, endpoint: String) -> Self {
        certificates(dir.path());
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("tokens"), "s3cret,alice,u1,\"dev\"\n").expect("write");
        let config = Config {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            advertise: Ipv4Addr::LOCALHOST.into(),
            tls_cert: path("server.crt"),
            tls_key: path("server.key"),
            client_ca: path("ca.crt"),
            token_file: Some(path("tokens")),
            kubelet: None,
            store: StoreConfig { endpoints: vec![endpoint], tls: None },
            service_network: Ipv4Addr::new(10, 96, 0, 0),
            service_prefix: 16,
            node_ports: (30000, 32767),
            event_ttl: 3600,
        };
        let runtime = Runtime::new().expect("a runtime");
        let shutdown = CancellationToken::new();
        let apiserver = runtime.block_on(start(config, shutdown.clone())).expect("an apiserver");
        let address = apiserver.address();
        let cluster = Self { dir, runtime, address, store, shutdown, apiserver: Some(apiserver), etcd };
        cluster.write_kubeconfig();
        cluster
    }

    fn write_kubeconfig(&self) {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters:\n- name: t\n  cluster: {{server: 'https://{}', certificate-authority: {}}}\ncontexts:\n- name: t\n  context: {{cluster: t, user: t}}\nusers:\n- name: t\n  user: {{client-certificate: {}, client-key: {}}}\n",
            self.address,
            file("ca.crt"),
            file("admin.crt"),
            file("admin.key")
        );
        std::fs::write(self.kubeconfig(), text).expect("write");
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A client within the process.
    pub(crate) fn client(&self) -> kube::Client {
        // kube's client spawns its buffer on the runtime it is made in.
        let _guard = self.runtime.enter();
        self.apiserver.as_ref().expect("running").client("test")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(apiserver) = self.apiserver.take() {
            self.runtime.block_on(apiserver.join());
        }
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}
