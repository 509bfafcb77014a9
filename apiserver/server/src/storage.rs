//! Objects in an etcd v3 store: get, paged list, guarded writes, watch.
//!
//! Every write is one transaction guarded by the object's mod revision, so an
//! attempt whose outcome is unknown (a timeout, a lost connection) may be
//! repeated: if the object now holds exactly our bytes, the first attempt won.
//!
//! Invariants
//!   A1  A write that returns Ok is committed; its revision is the object's.
//!   A2  No change of an object is applied twice: each repetition carries the same guard, a revision that never comes
//!       again.
//!   A3  No creation makes the same object twice. Its guard, that nothing is there, comes true again when somebody deletes
//!       what the first attempt made; so each attempt makes another object ([`Storage::create`]).

use std::time::Duration;

use apiserver_core::fence::Fence;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error as EtcdError, GetOptions, Identity,
    PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};
use tokio::time::{Instant, sleep};

use crate::config::StoreConfig;

/// How long an operation is retried while the store has no leader or can't be reached.
const RETRY_FOR: Duration = Duration::from_secs(15);
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_millis(500);
/// One attempt; longer than a leader election, shorter than the patience of a client.
const ATTEMPT: Duration = Duration::from_secs(6);
/// Largest answer taken from the store: a page of 500 objects of the largest size fits.
const ANSWER_BYTES_MAX: usize = 2 << 30;

/// An object's bytes as stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) value: Bytes,
    pub(crate) revision: i64,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Stored>,
    /// Revision at which the page was read (the store's own at that time, or the one asked for).
    pub(crate) revision: i64,
    /// Objects in the range, from the page's start, regardless of the limit.
    pub(crate) count: i64,
    pub(crate) more: bool,
}

/// Why the store didn't do it. Variants are what the caller does next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// The object is not as expected; here is what is stored now.
    #[error("the object was changed by another writer")]
    Conflict(Option<Stored>),
    /// The object is as expected, but its node was given another at this revision.
    #[error("the node was given another pod at revision {0}")]
    Fenced(i64),
    /// The revision asked for is gone: list anew.
    #[error("the revision asked for has been compacted")]
    Compacted,
    /// The revision asked for has not been reached.
    #[error("the revision asked for is in the future")]
    Future,
    /// The store refuses so large a request.
    #[error("the object is too large for the store")]
    TooLarge,
    /// Outcome unknown or store out of reach; try again later.
    #[error("store: {0}")]
    Unavailable(String),
    /// Anything else the store said.
    #[error("store: {0}")]
    Other(String),
}

impl From<EtcdError> for StorageError {
    fn from(error: EtcdError) -> Self {
        let EtcdError::GRpcStatus(status) = &error else {
            return StorageError::Unavailable(error.to_string());
        };
        let message = status.message();
        if message.contains("required revision has been compacted") {
            StorageError::Compacted
        } else if message.contains("required revision is a future revision") {
            StorageError::Future
        } else if message.contains("request is too large") {
            StorageError::TooLarge
        } else if is_passing(status) {
            StorageError::Unavailable(message.to_owned())
        } else {
            StorageError::Other(message.to_owned())
        }
    }
}

/// Whether waiting may help: a change of leader, a lost connection, overload.
fn is_passing(status: &tonic::Status) -> bool {
    use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable, Unknown};
    let message = status.message();
    match status.code() {
        Unavailable | DeadlineExceeded | Aborted | Cancelled => true,
        ResourceExhausted => message.contains("too many requests"),
        // Transport faults arrive as Unknown with hyper's or h2's text.
        Unknown => message.contains("transport") || message.contains("h2") || message.contains("connection"),
        _ => false,
    }
}

/// A key that is written or removed together with an object, such as a claimed cluster IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SideKey {
    pub(crate) key: String,
    pub(crate) owner: String,
}

/// What a write puts in the object's place.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put { value: Bytes, lease: i64 },
    Delete,
}

/// A guarded write of one object and of the keys claimed by it.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) key: String,
    /// Mod revision the object must have; 0: it must not exist.
    pub(crate) expected: i64,
    pub(crate) change: Change,
    /// Must not exist yet; claimed by the write.
    pub(crate) claim: Vec<SideKey>,
    /// Released by the write.
    pub(crate) release: Vec<SideKey>,
    /// Written together with the object, if it lets it through.
    pub(crate) fence: Option<Fence>,
}

/// What is stored in place of what a guard wanted.
struct Refused {
    found: Option<Stored>,
    /// The fence's revision, 0 without one.
    fence: i64,
}

/// Client of an etcd v3 store. Clones share connections.
#[derive(Clone)]
pub(crate) struct Storage {
    client: Client,
}

impl Storage {
    /// Sets up connections; does not wait for the store to answer.
    pub(crate) async fn connect(config: &StoreConfig) -> Result<Self, StorageError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(1))
            .with_keep_alive(Duration::from_secs(5), Duration::from_secs(3));
        if let Some(tls) = &config.tls {
            let mut tls_options = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
            if let Some((cert, key)) = &tls.identity_pem {
                tls_options = tls_options.identity(Identity::from_pem(cert, key));
            }
            options = options.with_tls(tls_options);
        }
        let client = Client::connect(&config.endpoints, Some(options)).await?;
        Ok(Self { client })
    }

    fn kv(&self) -> etcd_client::KvClient {
        self.client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Reads one object, linearizably.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        let page = self.range(key, None).await?;
        Ok(page.items.into_iter().next())
    }

    /// The store's current revision.
    pub(crate) async fn revision(&self) -> Result<i64, StorageError> {
        Ok(self.range("/registry/revision", Some(GetOptions::new().with_count_only())).await?.revision)
    }

    /// Reads `[start, end)` in key order, at most `limit` objects (0: all).
    ///
    /// `revision` 0 reads linearizably at the newest revision.
    pub(crate) async fn list(&self, start: &str, end: &str, limit: i64, revision: i64) -> Result<Page, StorageError> {
        let options = GetOptions::new().with_range(end.as_bytes()).with_limit(limit).with_revision(revision);
        let mut page = self.range(start, Some(options)).await?;
        if revision != 0 {
            page.revision = revision;
        }
        Ok(page)
    }

    async fn range(&self, key: &str, options: Option<GetOptions>) -> Result<Page, StorageError> {
        let mut response = retry(|| {
            let (mut kv, key, options) = (self.kv(), key.to_owned(), options.clone());
            async move { kv.get(key, options).await }
        })
        .await?;
        let revision = response.header().map_or(0, |h| h.revision());
        let (count, more) = (response.count(), response.more());
        let items = response.take_kvs().into_iter().map(stored).collect();
        Ok(Page { items, revision, count, more })
    }

    /// Commits a change of an object; returns its new revision.
    pub(crate) async fn write(&self, write: Write) -> Result<i64, StorageError> {
        self.commit(write, |_| {}).await
    }

    /// Commits a creation; returns the new object's revision. `another` makes another object of it (A3), before each
    /// attempt that follows one without an answer. What any of them made is found in [`StorageError::Conflict`].
    pub(crate) async fn create(&self, write: Write, another: impl FnMut(&mut Change)) -> Result<i64, StorageError> {
        self.commit(write, another).await
    }

    async fn commit(&self, mut write: Write, mut again: impl FnMut(&mut Change)) -> Result<i64, StorageError> {
        let deadline = Instant::now() + RETRY_FOR;
        let mut pause = RETRY_FIRST;
        let mut repeated = false;
        loop {
            let error = match self.attempt(&write).await {
                Ok(Ok(revision)) => return Ok(revision),
                Ok(Err(refused)) => return settle(&write, refused, repeated),
                Err(error) => error,
            };
            if !matches!(error, StorageError::Unavailable(_)) || Instant::now() + pause > deadline {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
            repeated = true;
            again(&mut write.change);
        }
    }

    /// One transaction: `Ok(Ok(revision))` committed, `Ok(Err(refused))` a guard failed.
    async fn attempt(&self, write: &Write) -> Result<Result<i64, Refused>, StorageError> {
        let txn = transaction(write);
        let mut kv = self.kv();
        let response = match tokio::time::timeout(ATTEMPT, kv.txn(txn)).await {
            Ok(response) => response?,
            Err(_) => return Err(StorageError::Unavailable("a write got no answer".into())),
        };
        let revision = response.header().map_or(0, |h| h.revision());
        if response.succeeded() {
            return Ok(Ok(revision));
        }
        let mut found = response.op_responses().into_iter().filter_map(|op| match op {
            TxnOpResponse::Get(mut get) => Some(get.take_kvs().into_iter().next().map(stored)),
            _ => None,
        });
        let (object, fence) = (found.next().flatten(), found.next().flatten());
        Ok(Err(Refused { found: object, fence: fence.map_or(0, |fence| fence.revision) }))
    }

    /// Grants a lease of `seconds`.
    pub(crate) async fn grant_lease(&self, seconds: i64) -> Result<i64, StorageError> {
        let response = retry(|| {
            let mut leases = self.client.lease_client();
            async move { leases.grant(seconds, None).await }
        })
        .await?;
        Ok(response.id())
    }

    /// Drops history before `revision`. Compacting twice is no error.
    pub(crate) async fn compact(&self, revision: i64) -> Result<(), StorageError> {
        match self.kv().compact(revision, None).await.map_err(StorageError::from) {
            Ok(_) | Err(StorageError::Compacted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Watches all keys under `prefix` from `revision` on (inclusive).
    pub(crate) async fn watch(&self, prefix: &str, revision: i64) -> Result<WatchStream, StorageError> {
        let options =
            WatchOptions::new().with_prefix().with_start_revision(revision).with_prev_key().with_progress_notify();
        Ok(self.client.watch_client().max_decoding_message_size(ANSWER_BYTES_MAX).watch(prefix, Some(options)).await?)
    }
}

fn stored(kv: etcd_client::KeyValue) -> Stored {
    let revision = kv.mod_revision();
    let (key, value) = kv.into_key_value();
    Stored { key: String::from_utf8_lossy(&key).into_owned(), value: Bytes::from(value), revision }
}

fn transaction(write: &Write) -> Txn {
    let mut guards = vec![Compare::mod_revision(write.key.as_str(), CompareOp::Equal, write.expected)];
    let mut then = Vec::with_capacity(1 + write.claim.len() + write.release.len());
    match &write.change {
        Change::Put { value, lease } => {
            let options = PutOptions::new().with_lease(*lease);
            then.push(TxnOp::put(write.key.as_str(), value.as_ref(), Some(options)));
        }
        Change::Delete => then.push(TxnOp::delete(write.key.as_str(), None::<DeleteOptions>)),
    }
    for side in &write.claim {
        guards.push(Compare::mod_revision(side.key.as_str(), CompareOp::Equal, 0));
        then.push(TxnOp::put(side.key.as_str(), side.owner.as_str(), None));
    }
    then.extend(write.release.iter().map(|side| TxnOp::delete(side.key.as_str(), None)));
    let mut found = vec![TxnOp::get(write.key.as_str(), None)];
    if let Some(fence) = &write.fence {
        let key = fence.key();
        if let Some(known) = fence.known {
            // What `Fence::admits` says.
            guards.push(Compare::mod_revision(key.as_str(), CompareOp::Less, known + 1));
        }
        found.push(TxnOp::get(key.as_str(), None));
        then.push(TxnOp::put(key, write.key.as_str(), None));
    }
    Txn::new().when(guards).and_then(then).or_else(found)
}

/// Decides what a failed guard means: somebody else's write, or our own earlier attempt.
fn settle(write: &Write, Refused { found, fence }: Refused, repeated: bool) -> Result<i64, StorageError> {
    if repeated {
        match (&write.change, &found) {
            (Change::Put { value, .. }, Some(now)) if now.value == *value => return Ok(now.revision),
            // A deletion's revision is no object's: any value after `expected` serves.
            (Change::Delete, None) => return Ok(write.expected + 1),
            _ => {}
        }
    }
    let is_as_expected = found.as_ref().is_some_and(|found| found.revision == write.expected);
    if is_as_expected && write.fence.as_ref().is_some_and(|asked| !asked.admits(fence)) {
        return Err(StorageError::Fenced(fence));
    }
    Err(StorageError::Conflict(found))
}

/// Repeats a read-only or idempotent call while the store can't be reached.
async fn retry<T, F, Fut>(call: F) -> Result<T, StorageError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<T, EtcdError>>,
{
    let deadline = Instant::now() + RETRY_FOR;
    let mut pause = RETRY_FIRST;
    loop {
        let error = match tokio::time::timeout(ATTEMPT, call()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => StorageError::from(error),
            Err(_) => StorageError::Unavailable("a request got no answer".into()),
        };
        if !matches!(error, StorageError::Unavailable(_)) || Instant::now() + pause > deadline {
            return Err(error);
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MOST);
    }
}
