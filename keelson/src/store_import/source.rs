//! The etcd that is read: one of its members at a time, others if that one goes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use etcd_client::{Client, ConnectOptions, Error, EventType, GetOptions, WatchOptions, WatchStream};
use store_server::KeyValue;

use crate::store_snapshot::Credentials;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Times that a question is asked of every member before the source counts as gone.
const ROUNDS_MAX: usize = 3;
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// The largest page taken: a request of one key and the largest value that etcd can be told to take are far less.
const PAGE_BYTES_MAX: usize = 64 << 20;
/// The largest answer of a watch: etcd puts up to a thousand revisions into one.
const CHANGES_BYTES_MAX: usize = 512 << 20;
/// The least key.
const FIRST: &[u8] = b"\0";

/// Why the source doesn't answer as it should.
pub(super) enum Trouble {
    /// It doesn't have the revision any more.
    Compacted,
    /// More than is taken at once.
    TooLarge(String),
    /// What only a person can mend.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<store_server::ImportError> for Trouble {
    fn from(error: store_server::ImportError) -> Self {
        Self::Failed(error.into())
    }
}

/// What etcd says of a failed call. Its codes are gRPC's.
enum Verdict {
    Compacted,
    TooLarge,
    /// Another member, or the same one later, may know better.
    AskAgain,
    Refused,
}

fn verdict(error: &Error) -> Verdict {
    let Error::GRpcStatus(status) = error else { return Verdict::AskAgain };
    match status.code() as i32 {
        11 if status.message().contains("required revision has been compacted") => Verdict::Compacted,
        11 if status.message().contains("message length too large") => Verdict::TooLarge,
        // Cancelled, unknown and internal (broken connections), deadline exceeded, resource exhausted, unavailable;
        // a token that ran out.
        1 | 2 | 4 | 8 | 13 | 14 | 16 => Verdict::AskAgain,
        _ => Verdict::Refused,
    }
}

/// A page of keys.
pub(super) struct Page {
    pub(super) kvs: Vec<KeyValue>,
    pub(super) more: bool,
    /// Keys from this page's first on.
    pub(super) remaining: u64,
}

/// What the source has at a revision.
pub(super) struct Counted {
    pub(super) cluster_id: u64,
    pub(super) revision: i64,
    pub(super) keys: u64,
}

/// The source.
pub(super) struct Source {
    urls: Vec<String>,
    options: ConnectOptions,
    /// The member that is asked.
    at: usize,
    client: Option<Client>,
}

fn key_value(kv: &etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key().to_vec().into(),
        value: kv.value().to_vec().into(),
        create_revision: kv.create_revision(),
        mod_revision: kv.mod_revision(),
        version: kv.version(),
        lease: kv.lease(),
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Source {
    pub(super) fn new(urls: &[String], credentials: &Credentials) -> anyhow::Result<Self> {
        let is_url = |url: &&String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(wrong) = urls.iter().find(|url| !is_url(url)) {
            anyhow::bail!("--from: {wrong:?} is not a URL of http:// or https://");
        }
        let options = credentials.options(urls)?.with_connect_timeout(CONNECT_MAX);
        Ok(Self { urls: urls.to_vec(), options, at: 0, client: None })
    }

    async fn client(&mut self) -> Result<Client, Error> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        // A token is asked for here, if users matter.
        let client = Client::connect([&self.urls[self.at]], Some(self.options.clone())).await?;
        Ok(self.client.insert(client).clone())
    }

    /// Asks until a member answers, each a few times.
    async fn ask<T, F>(&mut self, what: &str, call: impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tries = 0;
        loop {
            let answer = tokio::time::timeout(ANSWER_MAX, async { call(self.client().await?).await }).await;
            let url = self.urls[self.at].clone();
            let why = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Err(_) => anyhow!("no answer in {} s", ANSWER_MAX.as_secs()),
                Ok(Err(error)) => match verdict(&error) {
                    Verdict::Compacted => return Err(Trouble::Compacted),
                    Verdict::TooLarge => return Err(Trouble::TooLarge(what.to_owned())),
                    Verdict::Refused => return Err(Trouble::Failed(refused(error, what, &url))),
                    Verdict::AskAgain => plain(error),
                },
            };
            self.client = None;
            self.at = (self.at + 1) % self.urls.len();
            tries += 1;
            if tries >= ROUNDS_MAX * self.urls.len() {
                return Err(Trouble::Failed(why.context(format!("{what}: {url} doesn't answer"))));
            }
            if self.at == 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }

    /// How many keys there are at a revision; 0 for the newest.
    pub(super) async fn count(&mut self, revision: i64) -> Result<Counted, Trouble> {
        let options = GetOptions::new().with_from_key().with_count_only().with_revision(revision);
        let ask = |mut client: Client| {
            let options = options.clone();
            async move { client.get(FIRST, Some(options)).await }
        };
        let answer = self.ask("counting keys", ask).await?;
        let header = answer.header().context("an answer of the source has no header")?;
        let (cluster_id, revision) = (header.cluster_id(), header.revision());
        Ok(Counted { cluster_id, revision, keys: unsigned(answer.count()) })
    }

    /// Keys from one on, at a revision.
    pub(super) async fn page(&mut self, from: &[u8], revision: i64, limit: i64) -> Result<Page, Trouble> {
        let from = if from.is_empty() { FIRST } else { from };
        let options = GetOptions::new().with_from_key().with_limit(limit).with_revision(revision);
        let ask = |client: Client| {
            let options = options.clone();
            async move { client.kv_client().max_decoding_message_size(PAGE_BYTES_MAX).get(from, Some(options)).await }
        };
        let answer = self.ask("reading keys", ask).await?;
        let kvs = answer.kvs().iter().map(key_value).collect();
        Ok(Page { kvs, more: answer.more(), remaining: unsigned(answer.count()) })
    }

    /// The leases' numbers.
    pub(super) async fn leases(&mut self) -> Result<BTreeSet<i64>, Trouble> {
        let answer = self.ask("listing leases", |mut client| async move { client.leases().await }).await?;
        Ok(answer.leases().iter().map(etcd_client::LeaseStatus::id).collect())
    }

    /// The seconds that a lease was granted. One that has ended since gets the least: its keys, if they are still
    /// there, are to go.
    pub(super) async fn granted_ttl(&mut self, id: i64) -> Result<i64, Trouble> {
        let ask = |mut client: Client| async move { client.lease_time_to_live(id, None).await };
        Ok(self.ask("asking for a lease", ask).await?.granted_ttl().max(1))
    }

    /// Watches all keys from a revision on.
    pub(super) async fn watch(&mut self, from: i64) -> Result<Changes, Trouble> {
        let ask = |client: Client| async move {
            let options = WatchOptions::new().with_from_key().with_start_revision(from);
            client.watch_client().max_decoding_message_size(CHANGES_BYTES_MAX).watch(FIRST, Some(options)).await
        };
        Ok(Changes(self.ask("watching", ask).await?))
    }

    /// Who there is to be made anew; empty if nobody.
    pub(super) async fn users(&mut self) -> anyhow::Result<String> {
        let as_error = |trouble| match trouble {
            Trouble::Failed(error) => error,
            _ => anyhow!("an answer that wasn't expected"),
        };
        let users = self.ask("listing users", |mut c| async move { c.user_list().await }).await.map_err(as_error)?;
        let roles = self.ask("listing roles", |mut c| async move { c.role_list().await }).await.map_err(as_error)?;
        let named = |what: &str, names: &[String]| match names {
            [] => None,
            names => Some(format!("{what} {}", names.join(", "))),
        };
        let both = [named("users", users.users()), named("roles", roles.roles())];
        Ok(both.into_iter().flatten().collect::<Vec<_>>().join(" and "))
    }
}

/// The error in etcd's words, where it has some.
fn plain(error: Error) -> anyhow::Error {
    match error {
        Error::GRpcStatus(status) => anyhow!("{}", status.message()),
        error => anyhow!(error),
    }
}

fn refused(error: Error, what: &str, url: &str) -> anyhow::Error {
    let hint = match &error {
        Error::GRpcStatus(status) if status.code() as i32 == 7 => "; --user must name one who may read every key",
        Error::GRpcStatus(status) if status.message().contains("user name is empty") => "; give --user NAME:PASSWORD",
        _ => "",
    };
    plain(error).context(format!("{what}: {url} refuses{hint}"))
}

/// Changes as they come.
pub(super) struct Changes(WatchStream);

impl Changes {
    /// The next ones, whole revisions; may be none. [`Trouble::Failed`] if another watch is needed.
    pub(super) async fn next(&mut self) -> Result<Vec<KeyValue>, Trouble> {
        let answer = match self.0.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(anyhow!("the stream ended").into()),
            Err(error) => {
                return Err(match verdict(&error) {
                    Verdict::TooLarge => Trouble::TooLarge("changes".to_owned()),
                    _ => Trouble::Failed(plain(error)),
                });
            }
        };
        if answer.compact_revision() != 0 {
            return Err(Trouble::Compacted);
        }
        if answer.canceled() {
            return Err(anyhow!("{}", answer.cancel_reason()).into());
        }
        let change = |event: &etcd_client::Event| {
            let kv = event.kv().map(key_value);
            // A deletion is a key and where it was deleted.
            let bare = |kv: KeyValue| KeyValue { key: kv.key, mod_revision: kv.mod_revision, ..KeyValue::default() };
            if event.event_type() == EventType::Delete { kv.map(bare) } else { kv }
        };
        Ok(answer.events().iter().filter_map(change).collect())
    }
}
