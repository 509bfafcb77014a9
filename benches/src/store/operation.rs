//! One operation of each kind: what is asked, and what must be answered.

use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::Workload;
use super::load::Load;
use super::rpc::messages::{Compare, Counted, Decided, Put, Range, Step, Txn, Written};
use super::rpc::page::Page;
use super::rpc::{Caller, Channel, Error, Rpc};

/// Of so many operations of the mixed workload one is a write.
const MIXED_WRITE_OF: u32 = 5;

/// A client, with what it asks.
pub(super) struct Operator {
    load: Arc<Load>,
    caller: Caller,
    number: u32,
    rng: StdRng,
}

impl Operator {
    pub(super) fn new(load: Arc<Load>, channel: &Channel, number: u32) -> Self {
        let rng = load.keys.rng(u64::from(number));
        Self { load, caller: channel.caller(number as usize), number, rng }
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
            Workload::Watch | Workload::FanOut => Err(Error::Wrong("not a closed loop")),
        }
    }

    pub(super) async fn put(&mut self) -> Result<(), Error> {
        let number = self.load.keys.random(&mut self.rng);
        let value = self.load.keys.value(&mut self.rng);
        self.put_value(number, value).await
    }

    pub(super) async fn put_value(&mut self, number: u32, value: Vec<u8>) -> Result<(), Error> {
        let put = Put { key: self.load.keys.key(number), value };
        let answer: Written = self.caller.ask(Rpc::Put, &put).await?;
        self.load.acknowledge(number, answer.revision());
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
        let serializable = self.load.serializable;
        let read = Range { key: self.load.keys.key(number), serializable, ..Range::default() };
        let found: Counted = self.caller.ask(Rpc::Range, &read).await?;
        // Every key was written: a store that lost one didn't do the work.
        if found.count == 1 { Ok(()) } else { Err(Error::Wrong("a key is missing")) }
    }

    /// If nobody made the key before, make it.
    async fn create(&mut self, taken: u64) -> Result<(), Error> {
        let number = u32::try_from(taken).map_err(|_| Error::Wrong("more keys than there can be"))?;
        let (key, value) = (self.load.keys.key(number), self.load.keys.value(&mut self.rng));
        let compare = vec![Compare::revision_is(key.clone(), 0)];
        let txn = Txn { compare, success: vec![Step::put(Put { key, value })], ..Txn::default() };
        let answer: Decided = self.caller.ask(Rpc::Txn, &txn).await?;
        if !answer.succeeded {
            return Err(Error::Wrong("a key is there already"));
        }
        self.load.acknowledge(number, answer.revision());
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
        let read = Range { key: key.clone(), ..Range::default() };
        let txn = Txn {
            compare: vec![Compare::revision_is(key.clone(), known)],
            success: vec![Step::put(Put { key, value })],
            failure: vec![Step::range(read)],
        };
        let answer: Decided = self.caller.ask(Rpc::Txn, &txn).await?;
        if answer.succeeded {
            self.load.acknowledge(number, answer.revision());
            return Ok(());
        }
        // Somebody wrote it: a write of ours that failed, or a client with the same keys.
        self.load.keys.acknowledge(number, answer.found().unwrap_or(0));
        Err(Error::Wrong("somebody else changed a key"))
    }

    /// All keys and values, as kube-apiserver reads a collection.
    async fn list(&mut self) -> Result<(), Error> {
        let keys = &self.load.keys;
        let mut read = Range {
            key: keys.prefix().to_vec(),
            end: after_prefix(keys.prefix()),
            limit: self.load.page.map_or(0, i64::from),
            serializable: self.load.serializable,
            ..Range::default()
        };
        // Keys are in the order of their numbers: each is the one that is expected next, and has its value.
        let (mut next, mut is_whole) = (0, true);
        loop {
            let mut page = Page::new(|found| {
                is_whole &= keys.number(found.key) == Some(next) && found.value == keys.value_size();
                next += 1;
            });
            self.caller.look(Rpc::Range, &read, &mut page).await?;
            page.end()?;
            if !page.more || page.last.is_empty() {
                break;
            }
            read.key = [page.last.as_slice(), &[0]].concat();
            if read.revision == 0 {
                read.revision = page.revision;
            }
        }
        if is_whole && next == keys.count() { Ok(()) } else { Err(Error::Wrong("a list lacks keys")) }
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
