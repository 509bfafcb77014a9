//! A leader that is killed is followed at once, whatever the election timeout.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::Client;

/// As long as one can be told to wait; who gets an answer earlier hasn't waited for it.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(50);
/// Beyond this, what was to come doesn't come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Three members; they end with the value.
struct Members(Vec<(String, Child)>);

impl Members {
    fn start(folder: &std::path::Path) -> Self {
        let url = |_| format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
        let (clients, peers): (Vec<_>, Vec<_>) = (0..3).map(|at| (url(at), url(at))).unzip();
        let founders: Vec<String> = peers.iter().enumerate().map(|(at, url)| format!("m{at}={url}")).collect();
        let member = |at: usize| {
            let said = std::fs::File::create(folder.join(format!("m{at}.log"))).expect("a file");
            let child = Command::new(env!("CARGO_BIN_EXE_keelson"))
                .args(["store", "--name", &format!("m{at}"), "--data-dir"])
                .arg(folder.join(format!("m{at}")))
                .args(["--listen-client-urls", &clients[at], "--advertise-client-urls", &clients[at]])
                .args(["--listen-peer-urls", &peers[at], "--initial-advertise-peer-urls", &peers[at]])
                .args(["--initial-cluster", &founders.join(",")])
                .args(["--election-timeout", &ELECTION_TIMEOUT.as_millis().to_string()])
                .stdin(Stdio::null())
                .stdout(said.try_clone().expect("a file"))
                .stderr(said)
                .spawn()
                .expect("keelson runs");
            (clients[at].clone(), child)
        };
        Self((0..3).map(member).collect())
    }

    /// A client of each.
    async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for (url, _) in &self.0 {
            clients.push(Client::connect([url], None).await.expect("a client"));
        }
        clients
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            // One of them was killed before.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes until it is acknowledged.
async fn put(client: &mut Client, key: &str) {
    let begun = Instant::now();
    while let Err(error) = client.put(key, "value", None).await {
        assert!(begun.elapsed() < PATIENCE, "{key} isn't written: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_leader_that_is_killed_is_followed_before_the_election_timeout() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut members = Members::start(folder.path());
    let mut clients = members.clients().await;
    put(&mut clients[0], "before").await;
    let status = clients[0].status().await.expect("a status");
    let mut is_leader = Vec::new();
    for client in &mut clients {
        let id = client.status().await.expect("a status").header().expect("a header").member_id();
        is_leader.push(id == status.leader());
    }
    let leader = is_leader.iter().position(|is| *is).expect("a leader");
    // All follow it, and are connected.
    for client in &mut clients {
        client.get("before", None).await.expect("a linearizable read");
    }
    members.0[leader].1.kill().expect("killed");
    let another = (leader + 1) % 3;
    put(&mut clients[another], "after").await;
    let status = clients[another].status().await.expect("a status");
    assert_ne!(status.leader(), 0);
    assert!(clients[another].get("before", None).await.expect("a read").count() == 1, "nothing is lost");
}
