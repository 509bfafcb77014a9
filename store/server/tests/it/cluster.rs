//! Members in this process, each on threads, ports and a folder of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use store_server::{Config, ServeError, Tls};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Below those that the kernel gives to clients.
fn free_port() -> u16 {
    crate::ports::free_port(20_000..32_000)
}

fn peer_url() -> String {
    format!("https://127.0.0.1:{}", free_port())
}

/// The way of the others to a member's peer port: it can be closed, and be cut off once after some bytes.
pub(crate) struct Link {
    is_open: tokio::sync::watch::Sender<bool>,
    /// Bytes of one connection after which it ends, the next one that has so many; 0 if none does.
    cut_after: Arc<AtomicU64>,
}

impl Link {
    /// Forwards what comes to `from`.
    async fn open(from: u16, to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, from)).await.expect("a free port");
        let (is_open, mut opened) = tokio::sync::watch::channel(true);
        let cut_after = Arc::new(AtomicU64::new(0));
        let cut = cut_after.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (cut, mut closed) = (cut.clone(), opened.clone());
                if !*opened.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else { return };
                    tokio::select! {
                        _ = closed.wait_for(|is_open| !is_open) => {}
                        () = forward(near, far, &cut) => {}
                    }
                });
            }
        });
        Self { is_open, cut_after }
    }

    pub(crate) fn close(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn reopen(&self) {
        self.is_open.send_replace(true);
    }

    pub(crate) fn cut_once_after(&self, bytes: u64) {
        self.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// Whether a connection was cut off since it was asked for.
    pub(crate) fn was_cut(&self) -> bool {
        self.cut_after.load(Ordering::SeqCst) == 0
    }
}

/// Forwards both ways until one side ends, or enough has gone there.
async fn forward(near: TcpStream, far: TcpStream, cut_after: &AtomicU64) {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let there = async {
        let (mut piece, mut bytes) = (vec![0; 64 << 10], 0);
        loop {
            let Ok(read @ 1..) = near_in.read(&mut piece).await else { return };
            bytes += read as u64;
            let limit = cut_after.load(Ordering::SeqCst);
            let is_cut = limit > 0 && bytes >= limit;
            if is_cut && cut_after.compare_exchange(limit, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return;
            }
            if far_out.write_all(&piece[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        _ = tokio::io::copy(&mut far_in, &mut near_out) => {}
    }
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

    /// Founders of whom the others reach one by a link alone.
    pub(crate) async fn started_with_link(size: usize, at: usize) -> (Self, Link) {
        let mut cluster = Self::new(size);
        let (name, near) = (cluster.members[at].config.name.clone(), free_port());
        let far = cluster.peer_url(at);
        let port = far.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let link = Link::open(near, port).await;
        for member in &mut cluster.members {
            member.config.initial_cluster.insert(name.clone(), vec![format!("https://127.0.0.1:{near}")]);
        }
        (0..size).for_each(|at| cluster.start(at));
        cluster.wait_for_leader().await;
        (cluster, link)
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
