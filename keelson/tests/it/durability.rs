//! Nothing is acknowledged before a majority's disks hold it, and many writes share a sync: as the kernel sees it.
//!
//! Three real members run under strace, which tells when each write to their logs and each `fdatasync` began and ended, and
//! what was written: the value that the client sent is looked for in that. So nothing is taken from the members
//! themselves, neither metrics nor formats.

mod trace;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use etcd_client::{Client, ConnectOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use trace::Trace;

/// Writers side by side, and what each writes.
const WRITERS: usize = 64;
const WRITES_EACH: usize = 20;
/// Writes one after the other.
const ALONE: usize = 20;
/// Beyond this, what was to come doesn't come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Member {
    url: String,
    trace: PathBuf,
    /// strace, which ends with the member.
    tracer: Child,
}

impl Member {
    fn kill(&mut self) {
        let (tracer, deadline) = (self.tracer.id(), Instant::now() + PATIENCE);
        while !matches!(self.tracer.try_wait(), Ok(Some(_))) {
            let children = format!("/proc/{tracer}/task/{tracer}/children");
            let children = std::fs::read_to_string(children).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                // It may have ended by itself. One that strace hasn't started yet is met the next time.
                let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
            }
            if Instant::now() > deadline {
                // What it traced ends up alone, but the test doesn't hang.
                let _ = self.tracer.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three members under strace with more of its arguments, and their folder.
struct Members {
    all: Vec<Member>,
    _folder: TempDir,
}

impl Members {
    fn start(more: &[&str]) -> Self {
        // Beside what is built: folders for temporary files are often in memory, where a sync takes no time.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let url = |_| format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
        let (clients, peers): (Vec<_>, Vec<_>) = (0..3).map(|at| (url(at), url(at))).unzip();
        let cluster: Vec<String> = peers.iter().enumerate().map(|(at, url)| format!("m{at}={url}")).collect();
        let member = |at: usize| {
            let name = format!("m{at}");
            let (data, trace) = (folder.path().join(&name), folder.path().join(format!("{name}.trace")));
            let said = std::fs::File::create(folder.path().join(format!("{name}.log"))).expect("a file");
            let tracer = Command::new("strace")
                .args(["-f", "--seccomp-bpf", "-y", "-ttt", "-T", "-e", "trace=write,pwrite64,fdatasync"])
                // More than the log writes at once here.
                .args(["-s", "4194304", "-o"])
                .arg(&trace)
                .args(more)
                .args([env!("CARGO_BIN_EXE_keelson"), "store", "--name", &name, "--data-dir"])
                .arg(&data)
                .args(["--listen-client-urls", &clients[at], "--advertise-client-urls", &clients[at]])
                .args(["--listen-peer-urls", &peers[at], "--initial-advertise-peer-urls", &peers[at]])
                .args(["--initial-cluster", &cluster.join(",")])
                .stdin(Stdio::null())
                .stdout(said.try_clone().expect("a file"))
                .stderr(said)
                .spawn()
                .expect("strace");
            Member { url: clients[at].clone(), trace, tracer }
        };
        Self { all: (0..3).map(member).collect(), _folder: folder }
    }

    /// A client of one member, once that answers.
    async fn client(&self, at: usize) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
            let mut client = Client::connect([&self.all[at].url], Some(options)).await.expect("a client");
            match tokio::time::timeout(Duration::from_secs(5), client.get("ready", None)).await {
                Ok(Ok(_)) => return client,
                other => assert!(Instant::now() < deadline, "member {at} doesn't answer: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends them; what each wrote when.
    fn ended(mut self) -> Vec<Trace> {
        let look = |member: &mut Member| {
            member.kill();
            Trace::parse(&std::fs::read_to_string(&member.trace).expect("a trace"))
        };
        self.all.iter_mut().map(look).collect()
    }
}

/// Microseconds, by the clock that strace reads.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    u64::try_from(since.as_micros()).expect("this century")
}

/// A write that was acknowledged: its value, and when it was sent and answered.
struct Acknowledged {
    value: String,
    sent: u64,
    answered: u64,
}

async fn write(client: &mut Client, writer: usize, number: usize) -> Acknowledged {
    let value = format!("durability-{writer:04}-{number:04}");
    let sent = now();
    client.put(format!("{writer}"), value.as_str(), None).await.expect("written");
    Acknowledged { value, sent, answered: now() }
}

/// Many writers at once, then one alone.
async fn load(members: &Members) -> (Vec<Acknowledged>, Vec<Acknowledged>) {
    let mut clients = Vec::new();
    for at in 0..members.all.len() {
        clients.push(members.client(at).await);
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let mut client = clients[writer % clients.len()].clone();
            tokio::spawn(async move {
                let mut all = Vec::new();
                for number in 0..WRITES_EACH {
                    all.push(write(&mut client, writer, number).await);
                }
                all
            })
        })
        .collect();
    let (mut many, mut alone) = (Vec::new(), Vec::new());
    for writer in writers {
        many.extend(writer.await.expect("no panic"));
    }
    for number in 0..ALONE {
        alone.push(write(&mut clients[0], WRITERS, number).await);
    }
    (many, alone)
}

/// The writes that were acknowledged before two of three had synced them.
fn too_early<'a>(acknowledged: impl IntoIterator<Item = &'a Acknowledged>, members: &[Trace]) -> Vec<&'a str> {
    let is_early = |write: &&Acknowledged| {
        let synced = |trace: &&Trace| trace.durable(&write.value).is_some_and(|at| at <= write.answered);
        members.iter().filter(synced).count() < 2
    };
    acknowledged.into_iter().filter(is_early).map(|write| write.value.as_str()).collect()
}

/// When the first was sent, and the last answered.
fn span(writes: &[Acknowledged]) -> (u64, u64) {
    let begin = writes.iter().map(|write| write.sent).min();
    let end = writes.iter().map(|write| write.answered).max();
    begin.zip(end).expect("a write")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_acknowledged_after_a_majority_synced_them_and_share_syncs() {
    let members = Members::start(&[]);
    let (many, alone) = load(&members).await;
    let members = members.ended();
    let early = too_early(many.iter().chain(&alone), &members);
    assert!(early.is_empty(), "{} writes weren't on a majority's disks, {} among them", early.len(), early[0]);
    let syncs = |writes| members.iter().map(|trace| trace.syncs_within(span(writes))).collect::<Vec<_>>();
    let (under_load, one_by_one) = (syncs(&many), syncs(&alone));
    println!("{} writes at once: {under_load:?} syncs; {ALONE} one by one: {one_by_one:?}", many.len());
    for syncs in under_load {
        assert!(syncs > 0 && 2 * syncs < many.len(), "{syncs} syncs of a member for {} writes", many.len());
    }
    // Of those nothing can be shared: two members sync each.
    assert!(one_by_one.iter().sum::<usize>() >= 2 * ALONE, "{one_by_one:?} syncs for {ALONE} writes one by one");
}

/// The same with an `fdatasync` that does nothing: all is noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_were_not_synced_are_noticed() {
    let members = Members::start(&["-e", "inject=fdatasync:retval=0"]);
    let (many, alone) = load(&members).await;
    let members = members.ended();
    let early = too_early(many.iter().chain(&alone), &members);
    assert_eq!(early.len(), many.len() + alone.len());
}
