//! The program runs, waits, ends when told, and buries. Needs root for a process namespace.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::image::sha256;

fn here() -> Architecture {
    Architecture::here().expect("a machine that the program is for")
}

/// The program in a file that this process never had open for writing: else a neighbouring test that forks just then
/// would make it busy.
fn installed(folder: &Path) -> PathBuf {
    let (bytes, file) = (folder.join("bytes"), folder.join("pause"));
    std::fs::write(&bytes, program(here())).expect("a file");
    let copied = Command::new("cp").args([&bytes, &file]).status().expect("cp");
    assert!(copied.success());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    file
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{what} doesn't happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program that ends with its test, however that ends, and holds none of the test's pipes.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().expect("the program starts; unshare is of util-linux and needs root"))
    }

    fn ended(&mut self) -> Option<i32> {
        eventually("the end", || self.0.try_wait().expect("a child")).code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Until it waits for its signals it is as mortal as any. The mask doesn't tell: it is lifted while waiting.
fn wait_until_ready(process: u32) {
    let wait = match here() {
        Architecture::Amd64 => "128 ",
        Architecture::Arm64 => "137 ",
    };
    let file = format!("/proc/{process}/syscall");
    eventually("rt_sigtimedwait", || std::fs::read_to_string(&file).ok().filter(|call| call.starts_with(wait)));
}

fn send(process: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(process).expect("a process")), signal).expect("a signal");
}

#[test]
fn it_waits_and_ends_when_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = installed(folder.path());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = Running::start(&mut Command::new(&file));
        let process = running.0.id();
        wait_until_ready(process);
        send(process, Signal::SIGCHLD);
        std::thread::sleep(Duration::from_millis(50));
        assert!(running.0.try_wait().expect("a child").is_none(), "it waits on");
        let used: Vec<String> = std::fs::read_to_string(format!("/proc/{process}/stat"))
            .map(|stat| stat.split(' ').skip(13).take(2).map(str::to_owned).collect())
            .expect("its times");
        assert_eq!(used, ["0", "0"], "it doesn't burn the processor");
        send(process, signal);
        assert_eq!(running.ended(), Some(0), "{signal}");
    }
}

/// As process 1 of a namespace, from which the kernel withholds deadly signals without a handler.
#[test]
fn as_process_one_it_ends_and_buries_orphans() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = installed(folder.path());
    let mut running = Running::start(Command::new("unshare").args(["--pid", "--fork", "--kill-child"]).arg(&file));
    let children = format!("/proc/{0}/task/{0}/children", running.0.id());
    let first: u32 = eventually("a child", || std::fs::read_to_string(&children).ok()?.trim().parse().ok());
    wait_until_ready(first);
    // Three orphans that die at about the same time.
    let script = "for i in 1 2 3; do sleep 0.2 & done";
    let target = first.to_string();
    let made = Command::new("nsenter").args(["--target", &target, "--pid", "sh", "-c", script]).status();
    assert!(made.expect("nsenter").success());
    let theirs = format!("/proc/{first}/task/{first}/children");
    eventually("the orphans", || Some(()).filter(|()| std::fs::read_to_string(&theirs).is_ok_and(|c| !c.is_empty())));
    eventually("burials", || Some(()).filter(|()| std::fs::read_to_string(&theirs).is_ok_and(|c| c.is_empty())));
    send(first, Signal::SIGTERM);
    assert_eq!(running.ended(), Some(0));
}

/// What was assembled, compared and run on both machines once; a changed byte is a changed program.
#[test]
fn the_bytes_are_those_that_were_checked() {
    expect_bytes(Architecture::Amd64, 258, "a5ae6194311553bf3a922bf9c667507ae8334825d39c34b8e78f876c7d3ade2c");
    expect_bytes(Architecture::Arm64, 308, "f68af38ee1085d4c19ecc617d252af801b66fbacf825854feb6a801bbe9ccae5");
}

fn expect_bytes(architecture: Architecture, length: usize, digest: &str) {
    let bytes = program(architecture);
    assert_eq!((bytes.len(), sha256(&bytes).as_str()), (length, digest), "{architecture:?}");
}

#[test]
fn the_image_can_be_imported() {
    for architecture in [Architecture::Amd64, Architecture::Arm64] {
        let bytes = image(REFERENCE, architecture).expect("an image");
        assert_eq!(agent_core::archive::check(bytes.as_slice()).expect("a good archive"), [REFERENCE]);
    }
}
