//! Servers on loopback, and a gate between one of them and its clients.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn free_url() -> String {
    format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000))
}

/// A program that ends with the value.
struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the program is installed"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Flags of a server that stands alone; its URL for clients.
fn alone() -> (Vec<String>, String) {
    let (client, peer) = (free_url(), free_url());
    let flags = [
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client.clone()),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer.clone()),
        ("--initial-cluster", format!("default={peer}")),
    ];
    (flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(), client)
}

async fn wait_for(url: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let asked = async { etcd_client::Client::connect([url], None).await?.get("a", None).await };
        match tokio::time::timeout_at(deadline, asked).await.expect("a server in 30 s") {
            Ok(_) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Debian's etcd.
pub(super) struct Etcd {
    _program: Program,
    pub(super) url: String,
}

impl Etcd {
    pub(super) async fn start(dir: &Path) -> Self {
        let (flags, url) = alone();
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir.join("etcd")).args(flags);
        command.args(["--unsafe-no-fsync", "--log-level", "error", "--logger", "zap"]);
        let program = Program::start(&mut command);
        wait_for(&url).await;
        Self { _program: program, url }
    }
}

/// A member of ours.
pub(super) struct Store {
    _program: Program,
    pub(super) url: String,
}

impl Store {
    /// One that is restored from a backup.
    pub(super) async fn restored(dir: &Path, backup: &Path) -> Self {
        let (flags, url) = alone();
        let data = dir.join("store");
        let keelson = || Command::new(env!("CARGO_BIN_EXE_keelson"));
        let founding = &flags[6..];
        let output = keelson()
            .args(["store", "snapshot", "restore"])
            .arg(backup)
            .arg("--data-dir")
            .arg(&data)
            .args(founding)
            .output()
            .expect("keelson runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let program = Program::start(keelson().arg("store").arg("--data-dir").arg(&data).args(flags));
        wait_for(&url).await;
        Self { _program: program, url }
    }
}

/// Passes bytes to and from a server, until so many have come from it; then nothing passes any more.
pub(super) struct Gate {
    pub(super) url: String,
    closed: Receiver<()>,
    passing: Arc<Passing>,
}

struct Passing {
    budget: Mutex<usize>,
    closed: Mutex<Sender<()>>,
    streams: Mutex<Option<Vec<TcpStream>>>,
}

impl Gate {
    pub(super) fn open(url: &str, bytes: usize) -> Self {
        let server = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = format!("http://{}", listener.local_addr().expect("an address"));
        let (sender, closed) = channel();
        let passing = Arc::new(Passing {
            budget: Mutex::new(bytes),
            closed: Mutex::new(sender),
            streams: Mutex::new(Some(Vec::new())),
        });
        let shared = passing.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&server).expect("the server");
                let streams = [client, server].map(|s| (s.try_clone().expect("a stream"), s));
                let [(client, a), (server, b)] = streams;
                // A gate that is shut takes nobody in.
                let Some(kept) = &mut *shared.streams.lock().expect("a lock") else { return };
                kept.extend([a.try_clone().expect("a stream"), b.try_clone().expect("a stream")]);
                std::thread::spawn(move || std::io::copy(&mut { client }, &mut { b }));
                let shared = shared.clone();
                std::thread::spawn(move || shared.pass(server, a));
            }
        });
        Self { url: own, closed, passing }
    }

    pub(super) fn wait_until_closed(&self) {
        self.closed.recv_timeout(Duration::from_secs(60)).expect("the gate closes");
    }

    /// Breaks every connection off.
    pub(super) fn shut(&self) {
        for stream in self.passing.streams.lock().expect("a lock").take().into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Passing {
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = [0; 16 << 10];
        while let Ok(count) = from.read(&mut piece) {
            let passes = {
                let mut budget = self.budget.lock().expect("a lock");
                let passes = *budget >= count;
                *budget = budget.saturating_sub(count);
                passes
            };
            if !passes {
                // Whoever waits may have been told.
                let _ = self.closed.lock().expect("a lock").send(());
                return;
            }
            if count == 0 || to.write_all(&piece[..count]).is_err() {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}
