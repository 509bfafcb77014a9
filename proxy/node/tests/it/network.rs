//! A node with pods on a bridge and somebody outside, each in a network namespace of its own.
//!
//! ```text
//! pod1, pod2, pod3: 10.244.0.11-13 ── br0 10.244.0.1 [node] 192.168.77.1 ── 192.168.77.2 [outside]
//! ```

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

/// The port on which pods answer, by TCP and UDP.
pub(crate) const POD_PORT: u16 = 8080;
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
pub(crate) const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub(crate) const PODS: [&str; 3] = ["pod1", "pod2", "pod3"];
const PREFIX: &str = "kpx";
/// A call that takes longer is lost.
const PATIENCE: Duration = Duration::from_millis(1500);

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Network {
    prefix: String,
    stop: Option<PipeWriter>,
    stopped: PipeReader,
    servers: Vec<JoinHandle<()>>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// Who answered, and whom it saw calling.
    From(String, Ipv4Addr),
    Refused,
    Lost,
}

pub(crate) fn pod_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, 11 + u8::try_from(index).expect("few pods"))
}

/// Runs a command that must succeed.
pub(crate) fn must(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} can't be run ({error}): install nftables and iproute2 (apt-get install nftables iproute2)")
    });
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {complaint}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ip(arguments: &str) -> String {
    must("ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// What a killed run left: namespaces named by a process that is no more.
fn sweep() {
    for line in ip("netns list").lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|p| !p.is_empty() && !Path::new("/proc").join(p).exists()) {
            // Another run may sweep at the same time.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

impl Network {
    pub(crate) fn new() -> Self {
        must("nft", &["--version"]);
        sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{count}-", std::process::id());
        let (stopped, stop) = std::io::pipe().expect("a pipe");
        let mut network = Self { prefix, stop: Some(stop), stopped, servers: Vec::new() };
        network.lay();
        for (index, pod) in PODS.iter().enumerate() {
            network.serve(pod, pod_address(index));
        }
        network
    }

    /// The full name of a namespace.
    pub(crate) fn name(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    fn lay(&self) {
        let node = self.name("node");
        for host in ["node", "outside"].iter().chain(&PODS) {
            ip(&format!("netns add {}", self.name(host)));
            ip(&format!("-n {} link set lo up", self.name(host)));
            // A new namespace takes this over from the machine: the proxy must turn it on, and only where it is.
            let off = self.inside(host, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "0"));
            off.join().expect("a thread").expect("a setting");
        }
        ip(&format!("-n {node} link add br0 type bridge"));
        ip(&format!("-n {node} address add {BRIDGE}/24 dev br0"));
        ip(&format!("-n {node} link set br0 up"));
        for (index, pod) in PODS.iter().enumerate() {
            let name = self.name(pod);
            ip(&format!("-n {node} link add {pod} type veth peer name eth0 netns {name}"));
            ip(&format!("-n {node} link set {pod} master br0 up"));
            // A port may send back what came by it: a pod that calls itself through a service.
            ip(&format!("-n {node} link set {pod} type bridge_slave hairpin on"));
            ip(&format!("-n {name} address add {}/24 dev eth0", pod_address(index)));
            ip(&format!("-n {name} link set eth0 up"));
            ip(&format!("-n {name} route add default via {BRIDGE}"));
        }
        let outside = self.name("outside");
        ip(&format!("-n {node} link add uplink type veth peer name eth0 netns {outside}"));
        ip(&format!("-n {node} address add {NODE}/24 dev uplink"));
        ip(&format!("-n {node} link set uplink up"));
        ip(&format!("-n {outside} address add {OUTSIDE}/24 dev eth0"));
        ip(&format!("-n {outside} link set eth0 up"));
        ip(&format!("-n {node} route add default via {OUTSIDE}"));
    }

    /// Answers every caller with the server's name and the caller's address.
    fn serve(&mut self, pod: &'static str, address: Ipv4Addr) {
        let stop = self.stopped.try_clone().expect("a pipe");
        let (ready, listening) = std::sync::mpsc::channel();
        self.servers.push(self.inside(pod, move || {
            let tcp = TcpListener::bind((address, POD_PORT)).expect("a listener");
            let udp = UdpSocket::bind((address, POD_PORT)).expect("a socket");
            tcp.set_nonblocking(true).expect("non-blocking");
            udp.set_nonblocking(true).expect("non-blocking");
            ready.send(()).expect("a waiting test");
            let mut buffer = [0; 16];
            loop {
                let mut waiting = [tcp.as_fd(), udp.as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                poll(&mut waiting, PollTimeout::NONE).expect("three descriptors");
                if waiting[2].any() == Some(true) {
                    return;
                }
                // The caller may be gone; that is its test's matter.
                if let Ok((mut stream, from)) = tcp.accept() {
                    let _ = stream.write_all(format!("{pod} {}", from.ip()).as_bytes());
                }
                if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(format!("{pod} {}", from.ip()).as_bytes(), from);
                }
            }
        }));
        listening.recv().expect("a server");
    }

    /// Runs something on a thread of its own in a host's namespace.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.name(host));
        std::thread::spawn(move || {
            let namespace = File::open(&path).expect("a namespace");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering a namespace needs root");
            work()
        })
    }

    /// Calls a TCP address from a host.
    pub(crate) fn call(&self, host: &str, to: (Ipv4Addr, u16)) -> Answer {
        self.inside(host, move || call(SocketAddr::from(to))).join().expect("a caller")
    }

    /// Calls a UDP address from a host.
    pub(crate) fn call_udp(&self, host: &str, to: (Ipv4Addr, u16)) -> Answer {
        let called = self.inside(host, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket.connect(SocketAddr::from(to)).expect("a route");
            let mut buffer = [0; 64];
            socket.send(b"who").and_then(|_| socket.recv(&mut buffer)).map(|n| buffer[..n].to_vec())
        });
        read(called.join().expect("a caller"))
    }

    /// Everybody who answers within many calls.
    pub(crate) fn callees(&self, host: &str, to: (Ipv4Addr, u16)) -> Vec<Answer> {
        let calls = self.inside(host, move || (0..40).map(|_| call(SocketAddr::from(to))).collect::<Vec<_>>());
        let mut answers = calls.join().expect("a caller");
        answers.sort();
        answers.dedup();
        answers
    }

    /// Runs nft on the node.
    pub(crate) fn nft(&self, arguments: &[&str]) -> String {
        let node = self.name("node");
        must("ip", &[&["netns", "exec", node.as_str(), "nft"], arguments].concat())
    }
}

fn call(to: SocketAddr) -> Answer {
    let called = connect(to).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).map(|_| text)
    });
    read(called)
}

/// Once in thousands of calls, while rules change, the kernel ends one without saying why (poll tells of the end, `SO_ERROR`
/// of nothing): it has learnt nothing and is made again, once.
fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let connected = TcpStream::connect_timeout(&to, PATIENCE);
    match &connected {
        Err(error) if error.raw_os_error().is_none() && error.kind() != std::io::ErrorKind::TimedOut => {
            TcpStream::connect_timeout(&to, PATIENCE)
        }
        _ => connected,
    }
}

fn read(called: std::io::Result<Vec<u8>>) -> Answer {
    match called {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).expect("text");
            let (server, caller) = text.split_once(' ').expect("two words");
            Answer::From(server.to_owned(), caller.parse().expect("an address"))
        }
        Err(error) => match error.kind() {
            // A sender on the node itself is told by its own call that a datagram was rejected.
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::PermissionDenied => Answer::Refused,
            std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => Answer::Lost,
            other => panic!("{other:?}: {error}"),
        },
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its end closes the pipe that all servers watch.
        self.stop.take();
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
        for host in ["node", "outside"].iter().chain(&PODS) {
            let _ = Command::new("ip").args(["netns", "del", &self.name(host)]).output();
        }
    }
}
