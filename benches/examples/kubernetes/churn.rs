//! What users and controllers do: namespaces full of objects that are made, scaled, rolled, changed and deleted.
//!
//! A round works in a namespace of its own and waits for Kubernetes to converge after each step; at its end what the
//! apiserver's watch cache holds must be what the store holds. Beside the rounds, clients raise a counter by
//! compare-and-swap: a lost or doubled update shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::api::{Answer, Api};
use super::check;

/// Kubernetes converges within this, disturbances and a loaded machine included.
const CONVERGE_MAX: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(500);
const CONFIGMAPS: usize = 12;
const SECRETS: usize = 8;
const DEPLOYMENTS: [&str; 3] = ["web", "api", "batch"];

/// Figures of all rounds.
#[derive(Default)]
pub(crate) struct Churn {
    pub(crate) stop: AtomicBool,
    pub(crate) rounds: AtomicU64,
    pub(crate) convergences: AtomicU64,
    pub(crate) longest_ms: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) unknown: AtomicU64,
}

impl Churn {
    /// Rounds one after the other until told to stop; each ends complete.
    pub(crate) async fn rounds(self: Arc<Self>, api: Api, worker: usize, seed: u64) -> Result<()> {
        let mut random = StdRng::seed_from_u64(seed + worker as u64);
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let round = Round { churn: &self, api: &api, namespace: format!("churn-{worker}-{number}") };
            let done = round.run(&mut random).await;
            done.with_context(|| format!("round in {}", round.namespace))?;
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Raises the counter by compare-and-swap until told to stop.
    pub(crate) async fn count(self: Arc<Self>, api: Api) -> Result<()> {
        let path = counter_path();
        while !self.stop.load(Ordering::Relaxed) {
            let mut object = api.read(&path).await?;
            let value = counted(&object)?;
            object["data"]["value"] = json!((value + 1).to_string());
            match api.attempt(&Method::PUT, &path, Some(&object)).await? {
                Answer::Done(_) => self.acknowledged.fetch_add(1, Ordering::Relaxed),
                // Somebody else was first: nothing was written.
                Answer::Refused(409) => 0,
                Answer::Refused(code) => bail!("raising the counter: {code}"),
                Answer::Unknown(why) => {
                    api.again(&why);
                    self.unknown.fetch_add(1, Ordering::Relaxed)
                }
            };
            tokio::time::sleep(PAUSE / 5).await;
        }
        Ok(())
    }

    /// Makes the counter.
    pub(crate) async fn prepare(api: &Api) -> Result<()> {
        let counter = json!({"metadata": {"name": "counter"}, "data": {"value": "0"}});
        api.create("/api/v1/namespaces/default/configmaps", &counter).await
    }

    /// The counter holds every acknowledged step once, and of those of unknown result at most each.
    pub(crate) async fn check_counter(&self, api: &Api) -> Result<String> {
        let value = counted(&api.read(&counter_path()).await?)?;
        let (acknowledged, unknown) = (self.acknowledged.load(Ordering::Relaxed), self.unknown.load(Ordering::Relaxed));
        ensure!(
            (acknowledged..=acknowledged + unknown).contains(&value),
            "the counter is {value}, {acknowledged} steps were acknowledged and {unknown} are unknown"
        );
        Ok(format!("counter {value}: {acknowledged} steps acknowledged, {unknown} of unknown result"))
    }
}

fn counter_path() -> String {
    "/api/v1/namespaces/default/configmaps/counter".into()
}

fn counted(object: &Value) -> Result<u64> {
    Ok(object["data"]["value"].as_str().context("a counter without a value")?.parse()?)
}

struct Round<'a> {
    churn: &'a Churn,
    api: &'a Api,
    namespace: String,
}

impl Round<'_> {
    async fn run(&self, random: &mut StdRng) -> Result<()> {
        self.create(random).await?;
        self.converged().await.context("after creating")?;
        self.scale(random).await?;
        self.converged().await.context("after scaling")?;
        self.roll(random).await?;
        self.change(random).await?;
        self.converged().await.context("after a rolling update")?;
        self.delete_pods().await?;
        self.converged().await.context("after deleting pods")?;
        for resource in ["pods", "configmaps", "secrets", "endpoints"] {
            let path = format!("/api/v1/namespaces/{}/{resource}", self.namespace);
            check::cache_is_current(self.api, &path).await?;
        }
        self.delete().await
    }

    fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    fn apps(&self, rest: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{rest}", self.namespace)
    }

    async fn create(&self, random: &mut StdRng) -> Result<()> {
        self.api.create("/api/v1/namespaces", &json!({"metadata": {"name": self.namespace}})).await?;
        for number in 0..CONFIGMAPS {
            let object = json!({"metadata": {"name": format!("map-{number}")}, "data": {"text": text(random)}});
            self.api.create(&self.core("configmaps"), &object).await?;
        }
        for number in 0..SECRETS {
            let object =
                json!({"metadata": {"name": format!("secret-{number}")}, "stringData": {"text": text(random)}});
            self.api.create(&self.core("secrets"), &object).await?;
        }
        for name in DEPLOYMENTS {
            self.api.create(&self.core("services"), &service(name)).await?;
            self.api.create(&self.apps("deployments"), &deployment(name, random.random_range(1..=4))).await?;
        }
        self.api.create(&self.apps("statefulsets"), &stateful_set("db", 2)).await
    }

    async fn scale(&self, random: &mut StdRng) -> Result<()> {
        for name in DEPLOYMENTS {
            let replicas = random.random_range(0..=8);
            self.patch_deployment(name, &json!({"spec": {"replicas": replicas}})).await?;
        }
        Ok(())
    }

    async fn roll(&self, random: &mut StdRng) -> Result<()> {
        for name in DEPLOYMENTS {
            let mark = random.random::<u64>().to_string();
            let template = json!({"metadata": {"annotations": {"rolled": mark}}});
            self.patch_deployment(name, &json!({"spec": {"replicas": 4, "template": template}})).await?;
        }
        Ok(())
    }

    async fn patch_deployment(&self, name: &str, patch: &Value) -> Result<()> {
        let there = self.api.patch(&self.apps(&format!("deployments/{name}")), patch).await?;
        ensure!(there, "deployment {name} is gone");
        Ok(())
    }

    async fn change(&self, random: &mut StdRng) -> Result<()> {
        for number in 0..CONFIGMAPS {
            let path = self.core(&format!("configmaps/map-{number}"));
            for _ in 0..3 {
                ensure!(self.api.patch(&path, &json!({"data": {"text": text(random)}})).await?, "{path} is gone");
            }
            if number % 2 == 0 {
                self.api.delete(&path).await?;
            }
        }
        Ok(())
    }

    async fn delete_pods(&self) -> Result<()> {
        let pods = self.api.read(&self.core("pods?limit=4")).await?;
        for pod in pods["items"].as_array().context("pods without items")? {
            let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
            self.api.delete(&self.core(&format!("pods/{name}"))).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        self.api.delete(&format!("/api/v1/namespaces/{}", self.namespace)).await?;
        self.until(Wanted::Gone).await
    }

    async fn converged(&self) -> Result<()> {
        self.until(Wanted::Complete).await
    }

    async fn is(&self, wanted: Wanted) -> Result<bool> {
        if matches!(wanted, Wanted::Gone) {
            return Ok(self.api.get(&format!("/api/v1/namespaces/{}", self.namespace)).await?.is_none());
        }
        let deployments = self.api.read(&self.apps("deployments")).await?;
        let sets = self.api.read(&self.apps("statefulsets")).await?;
        let complete = |list: &Value, count: usize| {
            list["items"].as_array().is_some_and(|items| items.len() == count && items.iter().all(is_complete))
        };
        Ok(complete(&deployments, DEPLOYMENTS.len()) && complete(&sets, 1))
    }

    async fn until(&self, wanted: Wanted) -> Result<()> {
        let begun = Instant::now();
        while !self.is(wanted).await? {
            ensure!(begun.elapsed() < CONVERGE_MAX, "not {wanted:?} after {} s", CONVERGE_MAX.as_secs());
            tokio::time::sleep(PAUSE).await;
        }
        self.churn.convergences.fetch_add(1, Ordering::Relaxed);
        self.churn.longest_ms.fetch_max(u64::try_from(begun.elapsed().as_millis())?, Ordering::Relaxed);
        Ok(())
    }
}

/// What a round waits for.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// Every workload has the pods that it wants, and nothing else.
    Complete,
    /// The namespace isn't there any more.
    Gone,
}

/// Whether a deployment or stateful set has just what it wants.
fn is_complete(object: &Value) -> bool {
    let (status, wanted) = (&object["status"], object["spec"]["replicas"].as_i64().unwrap_or(1));
    let is = |field: &str| status[field].as_i64().unwrap_or(0) == wanted;
    let seen = status["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64();
    seen && is("replicas") && is("readyReplicas") && (wanted == 0 || is("updatedReplicas"))
}

/// Up to 4 KiB.
fn text(random: &mut StdRng) -> String {
    let length = random.random_range(16..4096);
    random.sample_iter(rand::distr::Alphanumeric).take(length).map(char::from).collect()
}

fn template(name: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "example/none:1",
                "ports": [{"containerPort": 80}],
                "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
            }],
        },
    })
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
}

fn deployment(name: &str, replicas: u32) -> Value {
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)});
    json!({"metadata": {"name": name}, "spec": spec})
}

fn stateful_set(name: &str, replicas: u32) -> Value {
    let mut set = deployment(name, replicas);
    set["spec"]["serviceName"] = json!(name);
    set
}
