//! Three members of the store under the apiserver: Keelson's or etcd's, with the same flags and the same TLS.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, MemberAddOptions, ResponseHeader, StatusResponse,
    TlsOptions,
};
use nix::sys::signal::Signal;

use super::pki::Pki;
use super::process::{Process, Recipe};

pub(crate) const MEMBERS: usize = 3;
/// A member that answers later than this doesn't count as one that answers.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// All members answer, and have what the leader has, this long after a disturbance.
const SETTLE_MAX: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);
/// Entries that a member which keeps up may be behind in a glance at all of them.
const BEHIND_MAX: u64 = 500;

/// The program that is a member.
#[derive(Clone)]
pub(crate) enum Program {
    Keelson(PathBuf),
    Etcd,
}

impl Program {
    fn path(&self) -> PathBuf {
        match self {
            Self::Keelson(path) => path.clone(),
            Self::Etcd => "etcd".into(),
        }
    }

    /// The command that looks at a backup.
    fn snapshot_status(&self, file: &Path) -> Command {
        let mut command = match self {
            Self::Keelson(path) => {
                let mut command = Command::new(path);
                command.arg("store");
                command
            }
            Self::Etcd => Command::new("etcdctl"),
        };
        command.args(["snapshot", "status"]).arg(file).env("ETCDCTL_API", "3");
        command
    }
}

/// What one member says of itself.
pub(crate) struct Glance {
    pub(crate) id: u64,
    pub(crate) leader: u64,
    pub(crate) applied: u64,
    pub(crate) revision: i64,
    pub(crate) db_size: u64,
    pub(crate) db_used: u64,
    pub(crate) errors: Vec<String>,
}

impl Glance {
    fn of(status: &StatusResponse) -> Result<Self> {
        let header = status.header().context("a status without a header")?;
        Ok(Self {
            id: header.member_id(),
            leader: status.leader(),
            applied: status.raft_index(),
            revision: header.revision(),
            db_size: status.db_size().try_into()?,
            db_used: status.raft_used_db_size().try_into()?,
            errors: status.errors().to_vec(),
        })
    }
}

/// The members; places are 0, 1 and 2.
pub(crate) struct Store {
    program: Program,
    dir: PathBuf,
    port: u16,
    tls: TlsOptions,
    recipe: Recipe,
    running: Mutex<Running>,
}

/// The members' processes.
struct Running {
    processes: [Option<Process>; MEMBERS],
    /// Whether the member was added to a cluster that ran already.
    joined: [bool; MEMBERS],
}

impl Store {
    /// Starts three members in `dir`, on six ports from `port`.
    pub(crate) fn start(program: Program, dir: &Path, port: u16, pki: &Pki) -> Result<Self> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(&pki.ca)?))
            .identity(Identity::from_pem(read(&pki.store.cert)?, read(&pki.store.key)?));
        let (ca, cert, key) =
            (pki.ca.display().to_string(), pki.store.cert.display().to_string(), pki.store.key.display().to_string());
        let mut arguments: Vec<String> =
            if matches!(program, Program::Keelson(_)) { vec!["store".into()] } else { vec![] };
        for prefix in ["", "peer-"] {
            arguments.extend([
                format!("--{prefix}cert-file={cert}"),
                format!("--{prefix}key-file={key}"),
                format!("--{prefix}trusted-ca-file={ca}"),
                format!("--{prefix}client-cert-auth"),
            ]);
        }
        let recipe = Recipe::new(dir, "store", program.path(), arguments);
        let store = Self {
            program,
            dir: dir.to_owned(),
            port,
            tls,
            recipe,
            running: Mutex::new(Running { processes: [const { None }; MEMBERS], joined: [false; MEMBERS] }),
        };
        for at in 0..MEMBERS {
            store.run(at)?;
        }
        Ok(store)
    }

    pub(crate) fn client_url(&self, at: usize) -> String {
        format!("https://127.0.0.1:{}", self.port + 2 * at as u16)
    }

    fn peer_url(&self, at: usize) -> String {
        format!("https://127.0.0.1:{}", self.port + 2 * at as u16 + 1)
    }

    pub(crate) fn data_dir(&self, at: usize) -> PathBuf {
        self.dir.join(format!("m{}", at + 1))
    }

    /// Where the member's log is.
    pub(crate) fn log(&self, at: usize) -> PathBuf {
        self.dir.join(format!("m{}.log", at + 1))
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a member that doesn't run.
    pub(crate) fn run(&self, at: usize) -> Result<()> {
        let mut running = self.running();
        let cluster: Vec<String> = (0..MEMBERS).map(|m| format!("m{}={}", m + 1, self.peer_url(m))).collect();
        let mut recipe = self.recipe.clone();
        recipe.name = format!("m{}", at + 1);
        recipe.log = self.log(at);
        recipe.arguments.extend([
            format!("--name=m{}", at + 1),
            format!("--data-dir={}", self.data_dir(at).display()),
            format!("--listen-client-urls={}", self.client_url(at)),
            format!("--advertise-client-urls={}", self.client_url(at)),
            format!("--listen-peer-urls={}", self.peer_url(at)),
            format!("--initial-advertise-peer-urls={}", self.peer_url(at)),
            format!("--initial-cluster={}", cluster.join(",")),
            format!("--initial-cluster-state={}", if running.joined[at] { "existing" } else { "new" }),
        ]);
        running.processes[at] = Some(recipe.start()?);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&self, at: usize) -> Result<()> {
        self.running().processes[at].take().context("the member doesn't run")?.kill()
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        self.running().processes[at].as_ref().context("the member doesn't run")?.signal(signal)
    }

    /// Resident memory of each member in bytes.
    pub(crate) fn resident(&self) -> [u64; MEMBERS] {
        let running = self.running();
        [0, 1, 2].map(|at| running.processes[at].as_ref().map_or(0, Process::resident))
    }

    /// A member that ended without being asked to, and how.
    pub(crate) fn ended(&self) -> Option<String> {
        self.running().processes.iter_mut().enumerate().find_map(|(at, process)| {
            let status = process.as_mut()?.ended()?;
            Some(format!("m{} ended by itself: {status}", at + 1))
        })
    }

    /// A client of one member alone.
    pub(crate) async fn client(&self, at: usize) -> Result<Client> {
        let options = ConnectOptions::new().with_tls(self.tls.clone()).with_connect_timeout(ANSWER_MAX);
        let client = tokio::time::timeout(ANSWER_MAX, Client::connect([self.client_url(at)], Some(options))).await;
        client.with_context(|| format!("m{} doesn't answer", at + 1))?.with_context(|| format!("asking m{}", at + 1))
    }

    /// What the member says of itself.
    pub(crate) async fn glance(&self, at: usize) -> Result<Glance> {
        let mut client = self.client(at).await?;
        let status = tokio::time::timeout(ANSWER_MAX, client.status()).await;
        Glance::of(&status.with_context(|| format!("m{} doesn't answer", at + 1))??)
    }

    /// The leader's place and number.
    pub(crate) async fn leader(&self) -> Result<(usize, u64)> {
        for at in 0..MEMBERS {
            if let Ok(glance) = self.glance(at).await
                && glance.leader == glance.id
                && glance.id != 0
            {
                return Ok((at, glance.id));
            }
        }
        bail!("nobody leads")
    }

    /// Whether all members follow one leader, keep up with it and answer linearizable reads.
    async fn is_settled(&self) -> Result<()> {
        let mut glances = Vec::new();
        for at in 0..MEMBERS {
            let mut client = self.client(at).await?;
            // Linearizable: the member has heard from the leader.
            let read = tokio::time::timeout(ANSWER_MAX, client.get("/registry/health", None)).await;
            read.with_context(|| format!("m{} doesn't answer reads", at + 1))??;
            glances.push(self.glance(at).await?);
        }
        let (leader, newest) = (glances[0].leader, glances.iter().map(|g| g.applied).max().unwrap_or(0));
        ensure!(leader != 0 && glances.iter().all(|g| g.leader == leader), "members follow different leaders");
        for (at, glance) in glances.iter().enumerate() {
            ensure!(glance.applied + BEHIND_MAX >= newest, "m{} is at {} of {newest}", at + 1, glance.applied);
            ensure!(glance.errors.is_empty(), "m{} says {}", at + 1, glance.errors.join("; "));
        }
        Ok(())
    }

    /// Waits until all members follow one leader and keep up; how long it took.
    pub(crate) async fn settled(&self) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            if let Some(ended) = self.ended() {
                bail!("{ended}");
            }
            match self.is_settled().await {
                Ok(()) => return Ok(begun.elapsed()),
                Err(error) if begun.elapsed() > SETTLE_MAX => return Err(error.context("the store doesn't settle")),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Reads a backup from one member to a file and has it looked at; its size in bytes.
    pub(crate) async fn snapshot(&self, at: usize) -> Result<u64> {
        let file = self.dir.join("backup.snap");
        let mut client = self.client(at).await?;
        let mut stream = client.snapshot().await?;
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await? {
            bytes.extend_from_slice(part.blob());
        }
        // etcd's: blocks of 512 bytes, then their SHA-256.
        ensure!(bytes.len() % 512 == 32, "a backup of {} bytes was cut off", bytes.len());
        std::fs::write(&file, &bytes).with_context(|| format!("writing {}", file.display()))?;
        let looked = self.program.snapshot_status(&file).output().context("looking at the backup")?;
        ensure!(looked.status.success(), "the backup is bad: {}", String::from_utf8_lossy(&looked.stderr));
        Ok(bytes.len() as u64)
    }

    /// Removes a member, throws its folder away, adds it as a learner under a new number and promotes it.
    pub(crate) async fn replace(&self, at: usize, id: u64) -> Result<()> {
        let mut other = self.client((at + 1) % MEMBERS).await?;
        other.member_remove(id).await.context("removing the member")?;
        self.kill(at)?;
        let dir = self.data_dir(at);
        std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        let begun = Instant::now();
        let learner = || MemberAddOptions::new().with_is_learner();
        let added = loop {
            match other.member_add([self.peer_url(at)], Some(learner())).await {
                Ok(added) => break added,
                // `unhealthy cluster` until the others have been connected for a while.
                Err(error) => ensure!(begun.elapsed() < SETTLE_MAX, "adding the learner: {error}"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        let id = added.member().context("an answer without the member")?.id();
        self.running().joined[at] = true;
        self.run(at)?;
        while let Err(error) = other.member_promote(id).await {
            ensure!(begun.elapsed() < SETTLE_MAX, "promoting the learner: {error}");
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The newest revision of every key under `/registry/` as one member has it, read without asking the others.
    pub(crate) async fn keys(&self, at: usize) -> Result<(i64, Vec<(String, i64)>)> {
        let options = GetOptions::new().with_prefix().with_keys_only().with_serializable();
        let read = self.client(at).await?.get("/registry/", Some(options)).await?;
        let revision = read.header().map_or(0, ResponseHeader::revision);
        let key = |kv: &etcd_client::KeyValue| (String::from_utf8_lossy(kv.key()).into_owned(), kv.mod_revision());
        Ok((revision, read.kvs().iter().map(key).collect()))
    }

    /// Hash of everything up to `revision` as one member has it, with the revision of its last compaction.
    pub(crate) async fn hash(&self, at: usize, revision: i64) -> Result<(u32, i64)> {
        let hashed = self.client(at).await?.hash_kv(revision).await?;
        Ok((hashed.hash(), hashed.compact_version()))
    }
}

/// Bytes of all files under `dir`.
pub(crate) fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |path: PathBuf| if path.is_dir() { size(&path) } else { path.metadata().map_or(0, |m| m.len()) };
    entries.flatten().map(|entry| of(entry.path())).sum()
}
