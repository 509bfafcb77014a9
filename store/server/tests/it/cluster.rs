//! Members in this process, each on threads, ports and a folder of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use store_server::{Config, ServeError, Tls};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Below those that the kernel gives to clients.
fn free_port() -> u16 {
    crate::ports::free_port(20_000..32_000)
}

fn peer_url() -> String {
    format!("https://127.0.0.1:{}", free_port())
}

pub(crate) struct Member {
    pub(crate) config: Config,
    running: Option<(CancellationToken, JoinHandle<Result<(), ServeError>>)>,
}

/// A cluster; everything ends with it.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) dir: TempDir,
    tls: Tls,
}

/// Tries until it works: members that start, connect or catch up refuse for a while.
pub(crate) async fn eventually<T, E, F>(what: &str, attempt: impl Fn() -> F) -> T
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A certificate for mutual TLS, of members and of clients.
fn mutual_tls(dir: &TempDir) -> Tls {
    let key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "store-ca");
    let ca = ca.self_signed(&key).expect("a CA");
    std::fs::write(dir.path().join("ca.key"), key.serialize_pem()).expect("write");
    let issuer = Issuer::from_ca_cert_pem(&ca.pem(), key).expect("an issuer");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&key, &issuer).expect("a certificate");
    let write = |name: &str, text: String| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("write");
        path
    };
    Tls {
        cert_file: Some(write("peer.crt", cert.pem())),
        key_file: Some(write("peer.key", key.serialize_pem())),
        trusted_ca_file: Some(write("ca.crt", ca.pem())),
        client_cert_auth: true,
        ..Tls::default()
    }
}

impl Cluster {
    /// New certificates of a new CA take the old ones' places.
    pub(crate) fn renew_certificates(&self) {
        mutual_tls(&self.dir);
    }

    pub(crate) fn new(size: usize) -> Self {
        Self::new_in(tempfile::tempdir().expect("a folder"), size)
    }

    fn new_in(dir: TempDir, size: usize) -> Self {
        let tls = mutual_tls(&dir);
        let peers: BTreeMap<String, Vec<String>> = (0..size).map(|i| (format!("m{i}"), vec![peer_url()])).collect();
        let mut cluster = Self { members: Vec::new(), dir, tls };
        cluster.members = peers.keys().map(|name| cluster.member(name, &peers)).collect();
        cluster
    }

    fn member(&self, name: &str, peers: &BTreeMap<String, Vec<String>>) -> Member {
        let client = format!("http://127.0.0.1:{}", free_port());
        let secure = format!("https://127.0.0.1:{}", free_port());
        let config = Config {
            name: name.to_owned(),
            data_dir: self.dir.path().join(name),
            listen_client_urls: vec![client.clone(), secure],
            advertise_client_urls: vec![client],
            client_tls: self.tls.clone(),
            listen_peer_urls: peers[name].clone(),
            initial_cluster: peers.clone(),
            peer_tls: self.tls.clone(),
            // Passwords of tests may be hashed fast.
            bcrypt_cost: 4,
            ..Config::default()
        };
        Member { config, running: None }
    }

    /// A member to join those there are, not started; returns its place.
    pub(crate) fn joiner(&mut self) -> usize {
        let at = self.members.len();
        let mut peers = self.members[0].config.initial_cluster.clone();
        peers.insert(format!("m{at}"), vec![peer_url()]);
        let mut member = self.member(&format!("m{at}"), &peers);
        member.config.joins_existing = true;
        self.members.push(member);
        at
    }

    pub(crate) fn peer_url(&self, at: usize) -> String {
        self.members[at].config.listen_peer_urls[0].clone()
    }

    /// Who signs certificates that members trust.
    pub(crate) fn issuer(&self) -> Issuer<'static, KeyPair> {
        let read = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).expect("read");
        let key = KeyPair::from_pem(&read("ca.key")).expect("a key");
        Issuer::from_ca_cert_pem(&read("ca.crt"), key).expect("an issuer")
    }

    pub(crate) async fn started(size: usize) -> Self {
        Self::started_in(tempfile::tempdir().expect("a folder"), size).await
    }

    pub(crate) async fn started_in(dir: TempDir, size: usize) -> Self {
        let mut cluster = Self::new_in(dir, size);
        (0..size).for_each(|at| cluster.start(at));
        cluster.wait_for_leader().await;
        cluster
    }

    pub(crate) fn start(&mut self, at: usize) {
        let token = CancellationToken::new();
        let (config, until) = (self.members[at].config.clone(), token.clone());
        let task = tokio::spawn(async move {
            let name = config.name.clone();
            let ended = store_server::run(config, until).await;
            if let Err(error) = &ended {
                eprintln!("{name} ended: {error:?}");
            }
            ended
        });
        self.members[at].running = Some((token, task));
    }

    /// How a member ended that ends by itself.
    pub(crate) async fn end(&mut self, at: usize) -> Result<(), ServeError> {
        let (_, task) = self.members[at].running.take().expect("a running member");
        tokio::time::timeout(Duration::from_secs(20), task).await.expect("an end in 20 s").expect("no panic")
    }

    pub(crate) async fn stop(&mut self, at: usize) {
        if let Some((token, task)) = self.members[at].running.take() {
            token.cancel();
            task.await.expect("no panic").expect("a clean end");
        }
    }

    pub(crate) fn url(&self, at: usize) -> String {
        self.members[at].config.listen_client_urls[0].clone()
    }

    /// Where the member asks clients for certificates.
    pub(crate) fn secure_url(&self, at: usize) -> String {
        self.members[at].config.listen_client_urls[1].clone()
    }

    pub(crate) async fn client(&self, at: usize) -> etcd_client::Client {
        let options = etcd_client::ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
        etcd_client::Client::connect([self.url(at)], Some(options)).await.expect("a client")
    }

    /// The place of the leader, as the running members say; waits until they know.
    pub(crate) async fn wait_for_leader(&self) -> usize {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while tokio::time::Instant::now() < deadline {
            for (at, member) in self.members.iter().enumerate() {
                let ended = member.running.as_ref().is_some_and(|(_, task)| task.is_finished());
                assert!(!ended, "member {at} ended instead of running");
            }
            for at in (0..self.members.len()).filter(|at| self.members[*at].running.is_some()) {
                let Ok(status) = self.client(at).await.status().await else { continue };
                let id = status.header().map_or(0, etcd_client::ResponseHeader::member_id);
                if status.leader() == id && id != 0 {
                    return at;
                }
            }
            tokio::task::yield_now().await;
        }
        panic!("no leader in 20 s");
    }
}
