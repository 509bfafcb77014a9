//! Clients that read and write a handful of keys through all members, and write down what came of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, GetResponse, Txn, TxnOp, TxnOpResponse,
};
use models::history::{Answer, Given, History, Operation, Outcome, Request};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant as Deadline, timeout_at};

use super::members::client_url;
use super::network::MEMBERS;

const KEYS: u64 = 5;
/// At each member.
const CLIENTS: usize = 2;
/// A call that takes longer is given up; its outcome stays unknown.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two calls of a client.
const PAUSE: Duration = Duration::from_millis(10);
/// More isn't recorded: clients stop.
const OPERATIONS_MAX: usize = 1_000_000;

/// What is refused with these words didn't happen and won't (etcd's clients try such writes again).
const REFUSED: [&str; 5] = [
    "etcdserver: leader changed",
    "etcdserver: no leader",
    "raft proposal dropped",
    "etcdserver: too many requests",
    "etcdserver: mvcc: database space exceeded",
];

/// Numbers that follow from a seed (splitmix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

/// Everything that clients did, each operation with the member that was asked.
pub(super) struct Record {
    begun: Instant,
    done: Mutex<Vec<(usize, Operation)>>,
    /// How many there are.
    count: watch::Sender<usize>,
}

impl Record {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), done: Mutex::new(Vec::new()), count: watch::Sender::new(0) })
    }

    /// Nanoseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("less than centuries")
    }

    /// Answered operations, asked of one of these members behind `since`: reads that tell of the present, and writes.
    pub(super) fn answered(&self, since: u64, members: &[usize]) -> (usize, usize) {
        let done = self.done.lock().expect("no panic");
        let fits = |(member, operation): &&(usize, Operation)| {
            operation.called > since
                && members.contains(member)
                && !operation.request.serializable
                && matches!(operation.outcome, Outcome::Ok(_))
        };
        let (writes, reads): (Vec<_>, Vec<_>) = done.iter().filter(fits).partition(|(_, o)| o.request.can_write());
        (reads.len(), writes.len())
    }

    /// Waits until `holds`, which is asked whenever an operation is added; whether it did before the deadline.
    pub(super) async fn wait(&self, deadline: Deadline, mut holds: impl FnMut() -> bool) -> bool {
        let mut count = self.count.subscribe();
        timeout_at(deadline, count.wait_for(|_| holds())).await.is_ok()
    }

    /// What was recorded so far.
    pub(super) fn history(&self, begins_at: u64) -> History {
        let done = self.done.lock().expect("no panic");
        let operations = done.iter().map(|(_, operation)| operation.clone()).collect();
        History { begins_at, operations, changes: Vec::new() }
    }

    fn add(&self, member: usize, operation: Operation) -> bool {
        let mut done = self.done.lock().expect("no panic");
        done.push((member, operation));
        let count = done.len();
        drop(done);
        self.count.send_replace(count);
        count < OPERATIONS_MAX
    }
}

/// A client of one member alone. It connects when it is first used, and again when it must.
pub(super) async fn client(member: usize) -> Client {
    let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1)).with_timeout(PATIENCE);
    Client::connect([client_url(member)], Some(options)).await.expect("a client")
}

/// Clients at work.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(super) fn start(record: &Arc<Record>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |number: usize| {
            let worker = Worker {
                number: u32::try_from(number).expect("few"),
                member: number % MEMBERS,
                dice: Dice(seed ^ ((number as u64 + 1) << 32)),
                known: HashMap::new(),
                written: 0,
            };
            tokio::spawn(worker.work(Arc::clone(record), Arc::clone(&stop)))
        };
        Self { tasks: (0..MEMBERS * CLIENTS).map(begin).collect(), stop }
    }

    /// Lets them finish what they are at.
    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no panic");
        }
    }
}

struct Worker {
    number: u32,
    member: usize,
    dice: Dice,
    /// The revision of each key, as it was last told.
    known: HashMap<String, u64>,
    written: u64,
}

impl Worker {
    async fn work(mut self, record: Arc<Record>, stop: Arc<AtomicBool>) {
        let mut client = client(self.member).await;
        while !stop.load(Ordering::Relaxed) {
            let request = self.request();
            let called = record.now();
            let answer = tokio::time::timeout(PATIENCE, ask(&mut client, &request)).await;
            let returned = record.now();
            let outcome = match answer {
                Ok(Ok(answer)) => {
                    self.learn(&request, &answer);
                    Outcome::Ok(answer)
                }
                Ok(Err(error)) => failed(&error),
                Err(_) => Outcome::Unknown(format!("no answer in {PATIENCE:?}")),
            };
            let operation = Operation { client: self.number, called, returned, request, outcome };
            if !record.add(self.member, operation) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn request(&mut self) -> Request {
        let key = format!("k{}", self.dice.below(KEYS));
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        match self.dice.below(20) {
            0..=6 => Request::get(&key),
            7 => Request { serializable: true, ..Request::get(&key) },
            8..=13 => Request::put(&key, &value),
            14..=15 => Request::delete(&key),
            _ => Request::swap(&key, self.known.get(&key).copied().unwrap_or_default(), &value),
        }
    }

    fn learn(&mut self, request: &Request, answer: &Answer) {
        for (step, given) in request.branch(answer.succeeded).iter().zip(&answer.steps) {
            let revision = match given {
                Given::Found(_, revision) => *revision,
                Given::Put => answer.revision,
                Given::Absent | Given::Deleted(_) => 0,
            };
            self.known.insert(step.key().to_owned(), revision);
        }
    }
}

fn failed(error: &Error) -> Outcome {
    let text = error.to_string();
    match error {
        Error::GRpcStatus(status) if REFUSED.iter().any(|refused| status.message().ends_with(refused)) => {
            Outcome::Failed(text)
        }
        _ => Outcome::Unknown(text),
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> u64 {
    header.map_or(0, etcd_client::ResponseHeader::revision).unsigned_abs()
}

fn read(answer: &GetResponse) -> Given {
    answer.kvs().first().map_or(Given::Absent, |kv| {
        Given::Found(String::from_utf8_lossy(kv.value()).into_owned(), kv.mod_revision().unsigned_abs())
    })
}

/// Asks a member; single gets, puts and deletes by their own calls.
async fn ask(client: &mut Client, request: &Request) -> Result<Answer, Error> {
    use models::history::{Step, Target};
    let single = |revision, given| Answer { revision, succeeded: true, steps: vec![given] };
    if let ([], [step]) = (request.compares.as_slice(), request.success.as_slice()) {
        return Ok(match step {
            Step::Get(key) => {
                let options = request.serializable.then(|| GetOptions::new().with_serializable());
                let answer = client.get(key.as_str(), options).await?;
                single(revision(answer.header()), read(&answer))
            }
            Step::Put(key, value) => {
                let answer = client.put(key.as_str(), value.as_str(), None).await?;
                single(revision(answer.header()), Given::Put)
            }
            Step::Delete(key) => {
                let answer = client.delete(key.as_str(), None).await?;
                single(revision(answer.header()), Given::Deleted(answer.deleted().unsigned_abs()))
            }
        });
    }
    let compare = |compare: &models::history::Compare| match &compare.equals {
        Target::ModRevision(revision) => {
            Compare::mod_revision(compare.key.as_str(), CompareOp::Equal, i64::try_from(*revision).expect("a revision"))
        }
        Target::Value(value) => Compare::value(compare.key.as_str(), CompareOp::Equal, value.as_str()),
    };
    let step = |step: &Step| match step {
        Step::Get(key) => TxnOp::get(key.as_str(), None),
        Step::Put(key, value) => TxnOp::put(key.as_str(), value.as_str(), None),
        Step::Delete(key) => TxnOp::delete(key.as_str(), None),
    };
    let txn = Txn::new()
        .when(request.compares.iter().map(compare).collect::<Vec<_>>())
        .and_then(request.success.iter().map(step).collect::<Vec<_>>())
        .or_else(request.failure.iter().map(step).collect::<Vec<_>>());
    let answer = client.txn(txn).await?;
    let given = |response: TxnOpResponse| match response {
        TxnOpResponse::Get(found) => read(&found),
        TxnOpResponse::Put(_) => Given::Put,
        TxnOpResponse::Delete(deleted) => Given::Deleted(deleted.deleted().unsigned_abs()),
        TxnOpResponse::Txn(_) => unreachable!("nothing nested was asked for"),
    };
    let steps = answer.op_responses().into_iter().map(given).collect();
    Ok(Answer { revision: revision(answer.header()), succeeded: answer.succeeded(), steps })
}
