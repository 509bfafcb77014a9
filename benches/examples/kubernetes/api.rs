//! The apiserver's clients: requests that are made again while the store is between leaders, and are counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

/// An answer that takes longer is given up; the apiserver's own limit is a minute.
const ANSWER_MAX: Duration = Duration::from_secs(75);
/// A request succeeds within this, whatever happens to the store.
const PERSIST_MAX: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(250);
/// Different reasons for trying again that are told apart.
const REASONS_MAX: usize = 40;

/// What an answer meant.
#[derive(Debug)]
pub(crate) enum Answer {
    Done(Value),
    /// A refusal for a reason of the object's: not found, conflict, already there.
    Refused(u16),
    /// Nobody knows whether it was done.
    Unknown(String),
}

#[derive(Default)]
struct Counted {
    requests: AtomicU64,
    longest_ms: AtomicU64,
    again: Mutex<BTreeMap<String, u64>>,
}

/// A client of the apiserver, shared by all who churn.
#[derive(Clone)]
pub(crate) struct Api {
    client: kube::Client,
    counted: Arc<Counted>,
}

impl Api {
    pub(crate) async fn new(kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self { client: config.try_into()?, counted: Arc::default() })
    }

    /// For watches.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Text of an endpoint that isn't of the API, such as `/metrics`.
    pub(crate) async fn text(&self, path: &str, limit: Duration) -> Result<String> {
        let request = Request::get(path).body(Vec::new())?;
        let answer = tokio::time::timeout(limit, self.client.request_text(request)).await;
        answer.with_context(|| format!("{path}: no answer"))?.with_context(|| format!("asking {path}"))
    }

    /// One attempt.
    pub(crate) async fn attempt(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let content = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, content);
        let request = request.body(body.map_or_else(Vec::new, |body| body.to_string().into_bytes()))?;
        self.counted.requests.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let answer = tokio::time::timeout(ANSWER_MAX, self.client.request::<Value>(request)).await;
        let took = u64::try_from(asked.elapsed().as_millis())?;
        self.counted.longest_ms.fetch_max(took, Ordering::Relaxed);
        Ok(match answer {
            Ok(Ok(value)) => Answer::Done(value),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 410) => Answer::Refused(status.code),
            Ok(Err(kube::Error::Api(status))) if status.code >= 500 || status.code == 429 => {
                Answer::Unknown(format!("{} {}", status.code, status.message))
            }
            Ok(Err(kube::Error::Api(status))) => bail!("{method} {path}: {} {}", status.code, status.message),
            Ok(Err(error)) => Answer::Unknown(error.to_string()),
            Err(_) => Answer::Unknown(format!("no answer in {} s", ANSWER_MAX.as_secs())),
        })
    }

    /// Until it is done or refused for the object's own reason: then `None`, with the code.
    async fn persist(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(Option<Value>, u16)> {
        let begun = Instant::now();
        loop {
            match self.attempt(&method, path, body).await? {
                Answer::Done(value) => return Ok((Some(value), 200)),
                Answer::Refused(code) => return Ok((None, code)),
                Answer::Unknown(why) if begun.elapsed() > PERSIST_MAX => {
                    bail!("{method} {path} didn't succeed in {} s: {why}", PERSIST_MAX.as_secs())
                }
                Answer::Unknown(why) => self.again(&why),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Counts a reason for trying again.
    pub(crate) fn again(&self, why: &str) {
        // Names and numbers differ in each message.
        let reason: String = why.chars().filter(|c| !c.is_ascii_digit()).take(120).collect();
        let mut again = self.counted.again.lock().unwrap_or_else(PoisonError::into_inner);
        if again.len() < REASONS_MAX || again.contains_key(&reason) {
            *again.entry(reason).or_default() += 1;
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Option<Value>> {
        Ok(self.persist(Method::GET, path, None).await?.0)
    }

    /// What must be there.
    pub(crate) async fn read(&self, path: &str) -> Result<Value> {
        self.get(path).await?.with_context(|| format!("{path} isn't there"))
    }

    /// Creates; that it is there already is what an attempt of unknown result leaves.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<()> {
        match self.persist(Method::POST, path, Some(object)).await? {
            (Some(_), _) | (None, 409) => Ok(()),
            (None, code) => bail!("POST {path}: {code}"),
        }
    }

    /// A merge patch; `false` if the object is gone.
    pub(crate) async fn patch(&self, path: &str, patch: &Value) -> Result<bool> {
        match self.persist(Method::PATCH, path, Some(patch)).await? {
            (Some(_), _) => Ok(true),
            (None, 404) => Ok(false),
            (None, code) => bail!("PATCH {path}: {code}"),
        }
    }

    /// Deletes; that it is gone is fine.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        // 409: it is on its way out.
        self.persist(Method::DELETE, path, None).await.map(drop)
    }

    /// Requests, the longest of them in milliseconds, and why attempts were made again.
    pub(crate) fn counted(&self) -> (u64, u64, BTreeMap<String, u64>) {
        let again = self.counted.again.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.counted.requests.load(Ordering::Relaxed), self.counted.longest_ms.load(Ordering::Relaxed), again)
    }
}
