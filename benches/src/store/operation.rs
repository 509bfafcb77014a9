//! One operation of each kind: what is asked, and what must be answered.

use std::sync::Arc;

use etcd_client::{Client, Compare, CompareOp, Error, GetOptions, KvClient, ResponseHeader, Txn, TxnOp, TxnOpResponse};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::Workload;
use super::load::Load;

/// Of so many operations of the mixed workload one is a write.
const MIXED_WRITE_OF: u32 = 5;
/// A list at once may be as large as this.
const ANSWER_MAX: usize = 1 << 30;

/// A client, with what it asks.
pub(super) struct Operator {
    load: Arc<Load>,
    client: KvClient,
    number: u32,
    rng: StdRng,
}

impl Operator {
    pub(super) fn new(load: Arc<Load>, client: &Client, number: u32) -> Self {
        let rng = load.keys.rng(u64::from(number));
        Self { load, client: client.kv_client().max_decoding_message_size(ANSWER_MAX), number, rng }
    }

    /// Does the load's `taken`th operation.
    pub(super) async fn operate(&mut self, taken: u64) -> Result<(), Error> {
        match self.load.workload {
            Workload::Put => self.put().await,
            Workload::Mixed if self.rng.random_ratio(1, MIXED_WRITE_OF) => self.put().await,
            Workload::Mixed | Workload::Range => self.get().await,
            Workload::Create => self.create(taken).await,
            Workload::Update => self.update().await,
            Workload::List => self.list().await,
            Workload::Watch | Workload::FanOut => Err(Error::InvalidArgs("not a closed loop".to_owned())),
        }
    }

    pub(super) async fn put(&mut self) -> Result<(), Error> {
        let number = self.load.keys.random(&mut self.rng);
        let value = self.load.keys.value(&mut self.rng);
        self.put_value(number, value).await
    }

    pub(super) async fn put_value(&mut self, number: u32, value: Vec<u8>) -> Result<(), Error> {
        let answer = self.client.put(self.load.keys.key(number), value, None).await?;
        self.load.acknowledge(number, revision(answer.header()));
        Ok(())
    }

    /// A value for [`Self::put_value`].
    pub(super) fn value(&mut self) -> Vec<u8> {
        self.load.keys.value(&mut self.rng)
    }

    /// A key for [`Self::put_value`].
    pub(super) fn random_key(&mut self) -> u32 {
        self.load.keys.random(&mut self.rng)
    }

    async fn get(&mut self) -> Result<(), Error> {
        let number = self.load.keys.random(&mut self.rng);
        let options = self.load.serializable.then(|| GetOptions::new().with_serializable());
        let found = self.client.get(self.load.keys.key(number), options).await?;
        // Every key was written: a store that lost one didn't do the work.
        if found.count() == 1 { Ok(()) } else { Err(wrong("a key is missing")) }
    }

    /// If nobody made the key before, make it.
    async fn create(&mut self, taken: u64) -> Result<(), Error> {
        let number = u32::try_from(taken).map_err(|_| wrong("more keys than there can be"))?;
        let (key, value) = (self.load.keys.key(number), self.load.keys.value(&mut self.rng));
        let txn = Txn::new()
            .when([Compare::mod_revision(key.as_slice(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, value, None)]);
        let answer = self.client.txn(txn).await?;
        if !answer.succeeded() {
            return Err(wrong("a key is there already"));
        }
        self.load.acknowledge(number, revision(answer.header()));
        Ok(())
    }

    /// If nobody changed the key since, change it; else read it.
    async fn update(&mut self) -> Result<(), Error> {
        // Each client has keys of its own, as long as there are enough.
        let (all, clients) = (self.load.keys.count(), self.load.clients.max(1));
        let first = self.number % all;
        let share = (all - first - 1) / clients + 1;
        let number = first + clients * self.rng.random_range(0..share);
        let (key, value) = (self.load.keys.key(number), self.load.keys.value(&mut self.rng));
        let known = self.load.keys.acknowledged(number);
        let txn = Txn::new()
            .when([Compare::mod_revision(key.as_slice(), CompareOp::Equal, known)])
            .and_then([TxnOp::put(key.as_slice(), value, None)])
            .or_else([TxnOp::get(key, None)]);
        let answer = self.client.txn(txn).await?;
        if answer.succeeded() {
            self.load.acknowledge(number, revision(answer.header()));
            return Ok(());
        }
        // Somebody wrote it: a write of ours that failed, or a client with the same keys.
        let newer = answer.op_responses().iter().find_map(|read| match read {
            TxnOpResponse::Get(read) => read.kvs().first().map(etcd_client::KeyValue::mod_revision),
            _ => None,
        });
        self.load.keys.acknowledge(number, newer.unwrap_or(0));
        Err(wrong("somebody else changed a key"))
    }

    /// All keys and values, as kube-apiserver reads a collection.
    async fn list(&mut self) -> Result<(), Error> {
        let limit = self.load.page.map_or(0, i64::from);
        let (mut from, mut at, mut seen) = (self.load.keys.prefix().to_vec(), 0, 0);
        let end = after_prefix(self.load.keys.prefix());
        loop {
            let mut options = GetOptions::new().with_range(end.as_slice()).with_limit(limit).with_revision(at);
            if self.load.serializable {
                options = options.with_serializable();
            }
            let page = self.client.get(from, Some(options)).await?;
            seen += page.kvs().len();
            let Some(last) = page.kvs().last().filter(|_| page.more()) else { break };
            from = [last.key(), &[0]].concat();
            if at == 0 {
                at = revision(page.header());
            }
        }
        if seen == self.load.keys.count() as usize { Ok(()) } else { Err(wrong("a list lacks keys")) }
    }
}

/// The end of the range of all keys that begin so.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    // Prefixes end with a slash.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn wrong(what: &str) -> Error {
    Error::Internal(what.to_owned())
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

/// Errors that mean the same, in the same words.
pub(super) fn kind(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
        other => other.to_string(),
    }
}
