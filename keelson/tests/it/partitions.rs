//! Three real members under kill -9, pauses, partitions and full disks; what their clients saw is linearizable, and what
//! they did is Raft.
//!
//! The seed that chooses faults and victims is printed. `KEELSON_FAULTS_SEED` sets it, `KEELSON_FAULTS_ROUNDS` lets it run
//! for longer. If something is wrong, the clients' history is kept in a file, and it is told how to check it again.

mod clients;
mod members;
mod network;
mod traces;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions};
use models::history::{Change, History, check};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use clients::{Clients, Dice, Record, client};
use members::Members;
use network::MEMBERS;

/// How long a fault lasts at least: some elections.
const FAULT: Duration = Duration::from_secs(4);
/// Beyond this, what was to come doesn't come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answered reads and writes that show that the cluster works.
const WORKS: usize = 20;
/// Of each run: every fault once.
const ROUNDS: usize = FAULTS.len();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    KillLeader,
    Pause,
    CutOff,
    CutOffLeader,
    /// What it sends doesn't arrive anywhere.
    Mute,
    /// What is sent to it doesn't arrive.
    Deaf,
    DiskFull,
}

const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::KillLeader,
    Fault::Pause,
    Fault::CutOff,
    Fault::CutOffLeader,
    Fault::Mute,
    Fault::Deaf,
    Fault::DiskFull,
];

impl Fault {
    /// Whether the leader is the victim.
    fn is_leader_s(self) -> bool {
        matches!(self, Self::KillLeader | Self::CutOffLeader)
    }

    /// Whether the victim can't answer for the cluster while it lasts.
    fn silences(self) -> bool {
        self != Self::DiskFull
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, and must be a number")))
}

fn any_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    u64::from(now.subsec_nanos()) ^ (now.as_secs() << 30)
}

#[test]
fn clients_see_one_store_whatever_fails() {
    let seed = number("KEELSON_FAULTS_SEED").unwrap_or_else(any_seed);
    let rounds = number("KEELSON_FAULTS_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).expect("rounds"));
    println!("KEELSON_FAULTS_SEED={seed} KEELSON_FAULTS_ROUNDS={rounds}");
    let folder = tempfile::tempdir().expect("a folder");
    let members = Members::start(folder.path());
    among_clients(members, move |members| run(members, seed, rounds));
}

/// Runs a scenario where the clients are.
fn among_clients<F: Future<Output = ()>>(members: Members, scenario: impl FnOnce(Members) -> F + Send + 'static) {
    let hub = members.network.name("hub");
    let scenario = move || {
        // Its threads are in the clients' namespace as well.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(scenario(members));
    };
    if let Err(panic) = network::inside(hub, scenario).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Keeps the history if the test fails.
struct Keeper {
    record: Arc<Record>,
    begins_at: u64,
    changes: Vec<Change>,
    seed: u64,
}

impl Keeper {
    fn history(&self) -> History {
        History { changes: self.changes.clone(), ..self.record.history(self.begins_at) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let path: PathBuf =
            std::env::temp_dir().join(format!("keelson-history-{}-{}.jsonl", std::process::id(), self.seed));
        let mut text = Vec::new();
        let written = self.history().write(&mut text).and_then(|()| std::fs::write(&path, text));
        match written {
            Ok(()) => eprintln!("check it again: cargo run -p models --release -- check history {}", path.display()),
            Err(error) => eprintln!("the history can't be written to {}: {error}", path.display()),
        }
        eprintln!("the same faults again: KEELSON_FAULTS_SEED={}", self.seed);
    }
}

async fn run(mut members: Members, seed: u64, rounds: usize) {
    let all: Vec<usize> = (0..MEMBERS).collect();
    let record = Record::new();
    let (begins_at, _) = agreement().await;
    let mut keeper = Keeper { record: Arc::clone(&record), begins_at, changes: Vec::new(), seed };
    let clients = Clients::start(&record, seed);
    let mut dice = Dice(seed);
    let mut order = Vec::new();
    for round in 0..rounds {
        if order.is_empty() {
            order = FAULTS.to_vec();
            (1..order.len()).for_each(|at| order.swap(at, usize::try_from(dice.below(at as u64 + 1)).expect("small")));
        }
        let fault = order.pop().expect("faults");
        for member in &all {
            works(&record, record.now(), &[*member], &format!("round {round}, all quiet")).await;
        }
        let leader = leader().await;
        let other = usize::try_from(1 + dice.below(MEMBERS as u64 - 1)).expect("small");
        let victim = if fault.is_leader_s() { leader } else { (leader + other) % MEMBERS };
        println!("{:7.3} s: {fault:?}, m{victim} (m{leader} leads)", record.now() as f64 / 1e9);
        suffer(&mut members, &record, fault, victim).await;
    }
    for member in &all {
        works(&record, record.now(), &[*member], "at the end").await;
    }
    clients.stop().await;
    let (last, hash) = agreement().await;
    println!("revision {last}, hash {hash:08x}");
    keeper.changes = changes(begins_at, last).await;
    let history = keeper.history();
    let report = check(&history);
    report.print(&history, &mut std::io::stdout()).expect("printed");
    assert!(report.holds(), "the clients' history isn't linearizable");
    traces::validate(&mut members);
}

/// One fault from its beginning to its end.
async fn suffer(members: &mut Members, record: &Arc<Record>, fault: Fault, victim: usize) {
    let others: Vec<usize> = (0..MEMBERS).filter(|member| *member != victim).collect();
    match fault {
        Fault::Kill | Fault::KillLeader => members.kill(victim),
        Fault::Pause => members.signal(victim, Signal::SIGSTOP),
        Fault::CutOff | Fault::CutOffLeader => others.iter().for_each(|other| {
            members.network.cut(*other, victim);
            members.network.cut(victim, *other);
        }),
        Fault::Mute => others.iter().for_each(|other| members.network.cut(victim, *other)),
        Fault::Deaf => others.iter().for_each(|other| members.network.cut(*other, victim)),
        Fault::DiskFull => members.fill(victim),
    }
    let (since, over) = (record.now(), Instant::now() + FAULT);
    works(record, since, &others, &format!("while m{victim} has {fault:?}")).await;
    tokio::time::sleep_until(over).await;
    if fault.silences() {
        let answered = record.answered(since, &[victim]);
        assert_eq!(answered, (0, 0), "reads and writes that m{victim} answered alone, with {fault:?}");
    }
    match fault {
        Fault::Kill | Fault::KillLeader => members.start_one(victim),
        Fault::Pause => members.signal(victim, Signal::SIGCONT),
        Fault::CutOff | Fault::CutOffLeader | Fault::Mute | Fault::Deaf => members.network.heal(),
        Fault::DiskFull => {
            members.free(victim);
            recover(members, record, victim).await;
        }
    }
}

/// A member whose disk was full either goes on, or has ended, said why, and comes back when it is started again.
async fn recover(members: &mut Members, record: &Record, victim: usize) {
    let since = record.now();
    let answers = |members: &mut Members| {
        if let Some(status) = members.ended(victim) {
            let said = members.said(victim);
            println!("          m{victim} ended with {status}: {}", said.lines().last().unwrap_or_default());
            assert!(
                said.contains("No space left on device"),
                "m{victim} ended with {status} and didn't say why:\n{said}"
            );
            members.start_one(victim);
        }
        record.answered(since, &[victim]) != (0, 0)
    };
    assert!(
        record.wait(Instant::now() + PATIENCE, || answers(members)).await,
        "m{victim}, whose disk was full, answers nothing:\n{}",
        members.said(victim)
    );
}

/// Waits until these members answered some reads and writes that were asked behind `since`.
async fn works(record: &Record, since: u64, members: &[usize], when: &str) {
    let work = || {
        let (reads, writes) = record.answered(since, members);
        reads.min(writes) >= WORKS
    };
    assert!(
        record.wait(Instant::now() + PATIENCE, work).await,
        "{when}: members {members:?} answered {:?} reads and writes",
        record.answered(since, members)
    );
}

/// The member that leads, as it says itself, and the others too.
async fn leader() -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut says = Vec::new();
        for member in 0..MEMBERS {
            if let Ok(status) = client(member).await.status().await {
                says.push((status.header().map_or(0, etcd_client::ResponseHeader::member_id), status.leader()));
            }
        }
        let leads = says.iter().position(|(id, leader)| id == leader && *id != 0);
        if let Some(at) = leads
            && says.len() == MEMBERS
            && says.iter().all(|(_, leader)| *leader == says[at].0)
        {
            return at;
        }
        assert!(Instant::now() < deadline, "no leader that all know: {says:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until all members say the same of the same revision: revision and hash.
async fn agreement() -> (u64, u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut says = Vec::new();
        for member in 0..MEMBERS {
            let mut client = client(member).await;
            let hash = async {
                // Sees to it that the member has all that there is.
                client.get("k", None).await?;
                client.hash_kv(0).await
            };
            says.push(
                hash.await
                    .map(|answer| (answer.header().map_or(0, etcd_client::ResponseHeader::revision), answer.hash())),
            );
        }
        let all: Result<Vec<_>, _> = says.iter().map(|says| says.as_ref().copied()).collect();
        if let Ok(all) = all {
            assert!(all.iter().all(|one| one.0 != all[0].0 || one == &all[0]), "members differ: {all:?}");
            if all.iter().all(|one| one == &all[0]) {
                return (all[0].0.unsigned_abs(), all[0].1);
            }
        }
        assert!(Instant::now() < deadline, "members don't come to agree: {says:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// What the store tells of everything that changed behind `begins_at`.
async fn changes(begins_at: u64, last: u64) -> Vec<Change> {
    let from = i64::try_from(begins_at + 1).expect("a revision");
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let mut client = etcd_client::Client::connect([members::client_url(0)], None).await.expect("a client");
    let mut watch = client.watch("k", Some(options)).await.expect("a watch");
    let mut changes: Vec<Change> = Vec::new();
    while changes.last().map_or(begins_at, |change| change.revision) < last {
        let message = tokio::time::timeout(PATIENCE, watch.message()).await.expect("events in time");
        for event in message.expect("no error").expect("no end").events() {
            let kv = event.kv().expect("a key");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let value = (event.event_type() == EventType::Put).then(|| text(kv.value()));
            let (revision, event) = (kv.mod_revision().unsigned_abs(), (text(kv.key()), value));
            match changes.last_mut().filter(|change| change.revision == revision) {
                Some(change) => change.events.push(event),
                None => changes.push(Change { revision, events: vec![event] }),
            }
        }
    }
    changes
}
