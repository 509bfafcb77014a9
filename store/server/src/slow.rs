//! Says which requests were slow, and what they waited for.
//!
//! etcd's "apply request took too long", with the time of each phase: a slow disk, a slow network and a large
//! request look different. One line a second at most: when everything is slow, logging isn't to make it slower.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message as _;
use store_core::wire::command::Request;
use store_core::wire::request_op::Request as Op;
use store_core::wire::{Command, RangeRequest, TxnRequest, TxnResponse};

/// Time between lines.
const EVERY: Duration = Duration::from_secs(1);
/// Of a key so much is shown.
const KEY_BYTES_MAX: usize = 96;

/// What a request waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    /// For somebody to lead.
    pub(crate) leader: Duration,
    /// For a majority: of disks for a write, of answers for a read.
    pub(crate) consensus: Duration,
    /// For its turn at the state, and the state itself; what it had to read from disk included.
    pub(crate) apply: Duration,
}

impl Phases {
    fn total(&self) -> Duration {
        self.leader + self.consensus + self.apply
    }

    /// The phase that took longest.
    fn cause(&self) -> &'static str {
        let phases = [
            (self.leader, "no leader"),
            (self.consensus, "majority or its disks"),
            (self.apply, "reading or applying"),
        ];
        phases.into_iter().max_by_key(|(time, _)| *time).map_or("", |(_, cause)| cause)
    }
}

/// Lines are let through one at a time.
#[derive(Debug, Default)]
struct Gate {
    last: Option<Instant>,
    held: u64,
}

impl Gate {
    /// Whether a line may be written; how many weren't since the last.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            self.held += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held))
    }
}

/// Tells of slow requests.
pub(crate) struct Slow {
    threshold: Duration,
    gate: Mutex<Gate>,
}

/// A request in few words.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    kind: &'static str,
    key: String,
    /// Operations and conditions in it.
    parts: usize,
    bytes: usize,
}

fn shown(key: &[u8]) -> String {
    let cut = &key[..key.len().min(KEY_BYTES_MAX)];
    let more = if cut.len() < key.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_ascii())
}

/// The first key that a transaction speaks of, and how many parts it has.
fn of_txn(txn: &TxnRequest) -> (String, usize) {
    let of_op = |op: &store_core::wire::RequestOp| match &op.request {
        Some(Op::RequestPut(put)) => put.key.clone(),
        Some(Op::RequestRange(range)) => range.key.clone(),
        Some(Op::RequestDeleteRange(delete)) => delete.key.clone(),
        Some(Op::RequestTxn(_)) | None => bytes::Bytes::new(),
    };
    let compared = txn.compare.iter().map(|compare| compare.key.clone());
    let first = compared.chain(txn.success.iter().chain(&txn.failure).map(of_op)).next();
    let parts = txn.compare.len() + txn.success.len() + txn.failure.len();
    (shown(&first.unwrap_or_default()), parts)
}

fn described(command: &Command) -> Described {
    let bytes = command.encoded_len();
    let (kind, key, parts) = match &command.request {
        Some(Request::Put(put)) => ("put", shown(&put.key), 1),
        Some(Request::DeleteRange(delete)) => ("delete", shown(&delete.key), 1),
        Some(Request::Txn(txn)) => {
            let (key, parts) = of_txn(txn);
            ("txn", key, parts)
        }
        Some(Request::Compact(compact)) => ("compact", compact.revision.to_string(), 1),
        Some(Request::LeaseGrant(_)) => ("lease grant", String::new(), 1),
        Some(Request::LeaseRevoke(revoke)) => ("lease revoke", String::new(), revoke.ids.len()),
        Some(Request::LeaseCheckpoint(noted)) => ("lease checkpoint", String::new(), noted.checkpoints.len()),
        // Users and roles: no word of them.
        Some(Request::Auth(_)) => ("auth", String::new(), 1),
        Some(Request::Alarm(_)) => ("alarm", String::new(), 1),
        Some(Request::Vote(_)) => ("vote", String::new(), 1),
        None => ("member", String::new(), 1),
    };
    Described { kind, key, parts, bytes }
}

impl Slow {
    /// Tells of requests that take longer; zero for nobody's.
    pub(crate) fn new(threshold: Duration) -> Self {
        Self { threshold, gate: Mutex::default() }
    }

    fn passes(&self, phases: &Phases) -> Option<u64> {
        if self.threshold.is_zero() || phases.total() < self.threshold {
            return None;
        }
        self.gate.lock().pass(Instant::now())
    }

    /// A command was applied.
    pub(crate) fn command(&self, command: &Command, phases: &Phases) {
        if let Some(held) = self.passes(phases) {
            self.tell(&described(command), 0, phases, held);
        }
    }

    /// A range was read.
    pub(crate) fn range(&self, request: &RangeRequest, answer_bytes: impl FnOnce() -> usize, phases: &Phases) {
        if let Some(held) = self.passes(phases) {
            let kind = if request.serializable { "serializable range" } else { "range" };
            let described = Described { kind, key: shown(&request.key), parts: 1, bytes: request.encoded_len() };
            self.tell(&described, answer_bytes(), phases, held);
        }
    }

    /// A transaction that only reads was read.
    pub(crate) fn read_txn(&self, request: &TxnRequest, answer: &TxnResponse, phases: &Phases) {
        if let Some(held) = self.passes(phases) {
            let (key, parts) = of_txn(request);
            let described = Described { kind: "read-only txn", key, parts, bytes: request.encoded_len() };
            self.tell(&described, answer.encoded_len(), phases, held);
        }
    }

    fn tell(&self, request: &Described, answer_bytes: usize, phases: &Phases, held: u64) {
        tracing::warn!(
            request = request.kind,
            key = request.key,
            parts = request.parts,
            request_bytes = request.bytes,
            answer_bytes,
            took = ?phases.total(),
            "expected-duration" = ?self.threshold,
            cause = phases.cause(),
            leader = ?phases.leader,
            consensus = ?phases.consensus,
            apply = ?phases.apply,
            others_not_shown = held,
            "apply request took too long"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store_core::wire::compare::CompareTarget;
    use store_core::wire::{Compare, PutRequest, RequestOp};

    fn milliseconds(leader: u64, consensus: u64, apply: u64) -> Phases {
        let [leader, consensus, apply] = [leader, consensus, apply].map(Duration::from_millis);
        Phases { leader, consensus, apply }
    }

    #[test]
    fn the_longest_phase_is_the_cause() {
        assert_eq!(milliseconds(500, 20, 30).cause(), "no leader");
        assert_eq!(milliseconds(0, 120, 30).cause(), "majority or its disks");
        assert_eq!(milliseconds(0, 20, 300).cause(), "reading or applying");
        let slow = Slow::new(Duration::from_millis(100));
        assert_eq!(slow.passes(&milliseconds(30, 30, 30)), None);
        assert_eq!(slow.passes(&milliseconds(40, 30, 30)), Some(0));
        assert_eq!(Slow::new(Duration::ZERO).passes(&milliseconds(900, 0, 0)), None);
    }

    #[test]
    fn lines_are_few() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let passed = [0, 1, 999, 1000, 1500, 2100].map(|ms| gate.pass(now + Duration::from_millis(ms)));
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn what_is_shown_is_bounded_and_no_value() {
        let key = [b"\x00key".to_vec(), vec![b'x'; 5000]].concat();
        let put = PutRequest { key: key.into(), value: "secret".into(), ..PutRequest::default() };
        let command = |request| Command { request: Some(request), ..Command::default() };
        let said = described(&command(Request::Put(put.clone())));
        assert!(said.key.starts_with("\\x00keyxxx") && said.key.len() < 110 && said.bytes > 5000, "{said:?}");
        assert!(!format!("{said:?}").contains("secret"));
        let compare = Compare { key: "first".into(), target: CompareTarget::Mod as i32, ..Compare::default() };
        let success = vec![RequestOp { request: Some(Op::RequestPut(put)) }];
        let txn = TxnRequest { compare: vec![compare], success, failure: Vec::new() };
        let said = described(&command(Request::Txn(txn)));
        assert_eq!((said.kind, said.key.as_str(), said.parts), ("txn", "first", 2));
    }
}
