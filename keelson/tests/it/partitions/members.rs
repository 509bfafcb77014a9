//! The processes of three members, and what is done to them.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::network::{MEMBERS, Network, address};

/// A member's disk: log, state and what is left of both.
const DISK_BYTES: u64 = 512 << 20;

/// Three members; they end with the value.
pub(super) struct Members {
    pub(super) network: Network,
    folder: PathBuf,
    processes: Vec<Option<Child>>,
}

fn url(member: usize, port: u16) -> String {
    format!("http://{}:{port}", address(member))
}

pub(super) fn client_url(member: usize) -> String {
    url(member, 2379)
}

impl Members {
    /// Starts them; `folder` holds their disks and what they say.
    pub(super) fn start(folder: &Path) -> Self {
        let mut network = Network::new();
        // Named so that a later run finds the mounts of one that was killed.
        let folder = folder.join(network.name("disks"));
        (0..MEMBERS).for_each(|member| network.mount(&folder.join(format!("m{member}")), DISK_BYTES));
        let mut members = Self { network, folder, processes: (0..MEMBERS).map(|_| None).collect() };
        (0..MEMBERS).for_each(|member| members.start_one(member));
        members
    }

    pub(super) fn start_one(&mut self, member: usize) {
        assert!(self.processes[member].is_none(), "member {member} runs");
        let log = File::options().create(true).append(true).open(self.log(member)).expect("a log");
        let founders: Vec<String> = (0..MEMBERS).map(|m| format!("m{m}={}", url(m, 2380))).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
        command.arg("store").arg(format!("--name=m{member}")).arg("--data-dir").arg(self.disk(member).join("data"));
        command.arg(format!("--listen-client-urls={}", client_url(member)));
        command.arg(format!("--advertise-client-urls={}", client_url(member)));
        command.arg(format!("--listen-peer-urls={}", url(member, 2380)));
        command.arg(format!("--initial-advertise-peer-urls={}", url(member, 2380)));
        command.arg(format!("--initial-cluster={}", founders.join(",")));
        command.arg("--trace-raft").arg(self.trace(member));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let started = self.network.at(member, move || command.spawn().expect("keelson runs"));
        self.processes[member] = Some(started.join().expect("a started member"));
    }

    fn disk(&self, member: usize) -> PathBuf {
        self.folder.join(format!("m{member}"))
    }

    fn log(&self, member: usize) -> PathBuf {
        self.folder.join(format!("m{member}.log"))
    }

    /// What a member did in consensus, in all its lives.
    pub(super) fn trace(&self, member: usize) -> PathBuf {
        self.folder.join(format!("m{member}.trace"))
    }

    /// Ends them all.
    pub(super) fn kill_all(&mut self) {
        for mut child in self.processes.iter_mut().filter_map(Option::take) {
            // It may have ended already; one that is stopped dies of this, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What a member said, from its start on.
    pub(super) fn said(&self, member: usize) -> String {
        std::fs::read_to_string(self.log(member)).unwrap_or_default()
    }

    pub(super) fn signal(&self, member: usize, signal: Signal) {
        let child = self.processes[member].as_ref().expect("a running member");
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a process's number")), signal).expect("a signal");
    }

    pub(super) fn kill(&mut self, member: usize) {
        self.signal(member, Signal::SIGKILL);
        self.processes[member].take().expect("a running member").wait().expect("an end");
    }

    /// How a member ended by itself, if it did.
    pub(super) fn ended(&mut self, member: usize) -> Option<ExitStatus> {
        let ended = self.processes[member].as_mut().and_then(|child| child.try_wait().expect("a child"));
        if ended.is_some() {
            self.processes[member] = None;
        }
        ended
    }

    fn filler(&self, member: usize) -> PathBuf {
        self.disk(member).join("filler")
    }

    /// Takes all that is left of a member's disk.
    pub(super) fn fill(&self, member: usize) {
        let mut file = File::create(self.filler(member)).expect("a file");
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![7; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// Gives it back.
    pub(super) fn free(&self, member: usize) {
        std::fs::remove_file(self.filler(member)).expect("the filler");
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.kill_all();
    }
}
