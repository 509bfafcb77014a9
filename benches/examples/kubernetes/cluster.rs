//! Kubernetes' own programs over the store: the apiserver, the controllers, the scheduler and hollow nodes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::api::Api;
use super::pki::Pki;
use super::process::{Process, Recipe};
use super::store::{MEMBERS, Store};

/// Nobody is there: it only stands in the endpoints of the service `kubernetes`, where no loopback may stand.
const ADVERTISED: &str = "10.0.0.1";
const START_MAX: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(500);

/// What a cluster is started with.
pub(crate) struct Plan<'a> {
    /// Folder of the programs.
    pub(crate) programs: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) port: u16,
    pub(crate) nodes: usize,
    /// How often the apiserver has the store compacted.
    pub(crate) compaction: Duration,
    pub(crate) event_ttl: Duration,
}

/// The running programs.
pub(crate) struct Cluster {
    pub(crate) api: Api,
    pub(crate) kubeconfig: PathBuf,
    apiserver: Mutex<Process>,
    /// Controllers, scheduler and nodes, with how to start them again.
    others: Mutex<Vec<(Recipe, Process)>>,
    /// Starts again, by name: what gives up its leadership ends, and is started again as a kubelet would.
    pub(crate) restarts: Mutex<Vec<String>>,
}

impl Cluster {
    /// Starts everything and waits until every node is ready.
    pub(crate) async fn start(plan: &Plan<'_>, pki: &Pki, store: &Store) -> Result<Self> {
        let server = format!("https://127.0.0.1:{}", plan.port);
        let apiserver = apiserver(plan, pki, store).start()?;
        let kubeconfig = pki.kubeconfig(&server, "admin", &["system:masters"])?;
        let api = Api::new(&kubeconfig).await?;
        let others = Mutex::default();
        let cluster = Self { api, kubeconfig, apiserver: Mutex::new(apiserver), others, restarts: Mutex::default() };
        cluster.wait("the apiserver is ready", || async { cluster.is_ready().await }).await?;
        cluster.add(controller_manager(plan, pki, &server)?)?;
        cluster.add(scheduler(plan, pki, &server)?)?;
        for number in 0..plan.nodes {
            cluster.add(node(plan, pki, &server, number)?)?;
        }
        let ready = || async { cluster.ready_nodes().await.is_ok_and(|ready| ready == plan.nodes) };
        cluster.wait("every node is ready", ready).await?;
        Ok(cluster)
    }

    fn add(&self, recipe: Recipe) -> Result<()> {
        let process = recipe.start()?;
        lock(&self.others).push((recipe, process));
        Ok(())
    }

    async fn wait<F: Future<Output = bool>>(&self, what: &str, is: impl Fn() -> F) -> Result<()> {
        let begun = Instant::now();
        while !is().await {
            if let Some(ended) = self.ended() {
                bail!("{ended}");
            }
            if begun.elapsed() > START_MAX {
                bail!("waiting in vain until {what}");
            }
            tokio::time::sleep(PAUSE).await;
        }
        println!("{what}: {:.0} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Whether `/readyz` says so within two seconds.
    pub(crate) async fn is_ready(&self) -> bool {
        self.api.text("/readyz", Duration::from_secs(2)).await.is_ok()
    }

    /// Nodes whose condition Ready is true.
    pub(crate) async fn ready_nodes(&self) -> Result<usize> {
        let nodes = self.api.read("/api/v1/nodes").await?;
        let nodes = nodes["items"].as_array().context("nodes without items")?;
        let ready = |node: &&serde_json::Value| {
            let conditions = node["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        Ok(nodes.iter().filter(ready).count())
    }

    /// That the apiserver ended, which it never may.
    pub(crate) fn ended(&self) -> Option<String> {
        lock(&self.apiserver).ended().map(|status| format!("kube-apiserver ended by itself: {status}"))
    }

    /// Starts again what ended besides.
    pub(crate) fn restart_ended(&self) -> Result<()> {
        for (recipe, process) in lock(&self.others).iter_mut() {
            if let Some(status) = process.ended() {
                lock(&self.restarts).push(format!("{} ({status})", recipe.name));
                *process = recipe.start()?;
            }
        }
        Ok(())
    }

    /// Ends all but the apiserver, so that nothing changes any more.
    pub(crate) fn quiet(&self) {
        lock(&self.others).clear();
    }

    pub(crate) fn resident(&self) -> u64 {
        lock(&self.apiserver).resident()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn flags(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn apiserver(plan: &Plan<'_>, pki: &Pki, store: &Store) -> Recipe {
    let servers: Vec<String> = (0..MEMBERS).map(|at| store.client_url(at)).collect();
    let arguments = flags(&[
        ("etcd-servers", servers.join(",")),
        ("etcd-cafile", shown(&pki.ca)),
        ("etcd-certfile", shown(&pki.store.cert)),
        ("etcd-keyfile", shown(&pki.store.key)),
        ("etcd-compaction-interval", format!("{}s", plan.compaction.as_secs())),
        ("event-ttl", format!("{}s", plan.event_ttl.as_secs())),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", plan.port.to_string()),
        ("advertise-address", ADVERTISED.into()),
        ("cert-dir", shown(plan.dir)),
        ("client-ca-file", shown(&pki.ca)),
        ("tls-cert-file", shown(&pki.apiserver.cert)),
        ("tls-private-key-file", shown(&pki.apiserver.key)),
        ("service-account-issuer", "https://kubernetes.default.svc".into()),
        ("service-account-signing-key-file", shown(&pki.service_accounts.key)),
        ("service-account-key-file", shown(&pki.service_accounts.cert)),
        ("service-cluster-ip-range", "10.96.0.0/16".into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("anonymous-auth", "false".into()),
        ("profiling", "false".into()),
    ]);
    Recipe::new(plan.dir, "kube-apiserver", plan.programs.join("kube-apiserver"), arguments)
}

fn controller_manager(plan: &Plan<'_>, pki: &Pki, server: &str) -> Result<Recipe> {
    let kubeconfig = pki.kubeconfig(server, "system:kube-controller-manager", &[])?;
    let arguments = flags(&[
        ("kubeconfig", shown(&kubeconfig)),
        ("bind-address", "127.0.0.1".into()),
        ("port", "0".into()),
        ("secure-port", (plan.port + 1).to_string()),
        ("cert-dir", shown(&plan.dir.join("controller-manager"))),
        ("use-service-account-credentials", "true".into()),
        ("service-account-private-key-file", shown(&pki.service_accounts.key)),
        ("root-ca-file", shown(&pki.ca)),
        ("kube-api-qps", "100".into()),
        ("kube-api-burst", "200".into()),
    ]);
    let program = plan.programs.join("kube-controller-manager");
    Ok(Recipe::new(plan.dir, "kube-controller-manager", program, arguments))
}

fn scheduler(plan: &Plan<'_>, pki: &Pki, server: &str) -> Result<Recipe> {
    let kubeconfig = pki.kubeconfig(server, "system:kube-scheduler", &[])?;
    let arguments = flags(&[
        ("kubeconfig", shown(&kubeconfig)),
        ("bind-address", "127.0.0.1".into()),
        ("port", "0".into()),
        ("secure-port", (plan.port + 2).to_string()),
        ("cert-dir", shown(&plan.dir.join("scheduler"))),
        ("kube-api-qps", "100".into()),
        ("kube-api-burst", "200".into()),
    ]);
    Ok(Recipe::new(plan.dir, "kube-scheduler", plan.programs.join("kube-scheduler"), arguments))
}

/// A real kubelet over a runtime that only pretends (kubemark).
fn node(plan: &Plan<'_>, pki: &Pki, server: &str, number: usize) -> Result<Recipe> {
    let name = format!("hollow-{number}");
    let kubeconfig = pki.kubeconfig(server, &format!("system:node:{name}"), &["system:nodes"])?;
    let port = usize::from(plan.port) + 10 + 2 * number;
    let arguments = flags(&[
        ("morph", "kubelet".into()),
        ("name", name.clone()),
        ("kubeconfig", shown(&kubeconfig)),
        ("kubelet-port", port.to_string()),
        ("kubelet-read-only-port", (port + 1).to_string()),
    ]);
    // Its folder and its runtime's socket are made below TMPDIR.
    let folder = plan.dir.join("nodes").join(&name);
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut recipe = Recipe::new(plan.dir, &name, plan.programs.join("kubemark"), arguments);
    recipe.environment.push(("TMPDIR", shown(&folder)));
    Ok(recipe)
}
