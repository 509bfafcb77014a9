//! Members of one program on localhost, which end with their owner.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::{Client, ConnectOptions, ResponseHeader};

/// A member that answers later than this doesn't count as one that answers.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// All members answer this long after their start; a gigabyte may have to be read.
const START_MAX: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes that a member may keep: more than any row writes.
const QUOTA: u64 = 64 << 30;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    Etcd(PathBuf),
    Keelson(PathBuf),
}

impl Program {
    /// How tables call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Keelson(_) => "ours",
        }
    }

    /// The command of a member, flags to follow.
    fn member(&self) -> Command {
        match self {
            Self::Etcd(path) => Command::new(path),
            Self::Keelson(path) => {
                let mut command = Command::new(path);
                command.arg("store");
                command
            }
        }
    }

    /// The first line that it says of its version.
    pub(crate) fn version(&self) -> Result<String> {
        let (Self::Etcd(path) | Self::Keelson(path)) = self;
        let output = Command::new(path).arg("--version").output();
        let output = output.with_context(|| format!("running {}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or("unknown").to_owned())
    }
}

struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The members, and the folder that is theirs until they end.
pub(crate) struct Cluster {
    program: Program,
    dir: PathBuf,
    members: Vec<Member>,
}

impl Cluster {
    /// Starts so many members in an empty folder, and waits until each answers.
    pub(crate) async fn start(program: &Program, dir: &Path, count: usize) -> Result<Self> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let ports = free_ports(2 * count)?;
        let member = |(at, ports): (usize, &[u16])| Member {
            name: format!("m{at}"),
            client_port: ports[0],
            peer_port: ports[1],
            process: None,
        };
        let members = ports.chunks(2).enumerate().map(member).collect();
        let mut cluster = Self { program: program.clone(), dir: dir.to_owned(), members };
        cluster.run_all()?;
        cluster.answering().await?;
        Ok(cluster)
    }

    /// Starts every member that doesn't run.
    pub(crate) fn run_all(&mut self) -> Result<()> {
        let peer = |member: &Member| format!("{}=http://127.0.0.1:{}", member.name, member.peer_port);
        let all = self.members.iter().map(peer).collect::<Vec<_>>().join(",");
        for member in self.members.iter_mut().filter(|member| member.process.is_none()) {
            let path = self.dir.join(format!("{}.log", member.name));
            let log = OpenOptions::new().create(true).append(true).open(&path);
            let log = log.with_context(|| format!("opening {}", path.display()))?;
            let client = format!("http://127.0.0.1:{}", member.client_port);
            let peer = format!("http://127.0.0.1:{}", member.peer_port);
            let mut command = self.program.member();
            command
                .args(["--name", &member.name, "--data-dir"])
                .arg(self.dir.join(&member.name))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &all, "--quota-backend-bytes", &QUOTA.to_string()])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            member.process = Some(command.spawn().with_context(|| format!("starting {command:?}"))?);
        }
        Ok(())
    }

    /// `kill -9` to every member, or one.
    pub(crate) fn kill(&mut self, at: Option<usize>) -> Result<()> {
        for (number, member) in self.members.iter_mut().enumerate() {
            if at.is_none_or(|at| at == number)
                && let Some(mut process) = member.process.take()
            {
                process.kill()?;
                process.wait()?;
            }
        }
        Ok(())
    }

    /// Waits until each member answers a linearizable read.
    pub(crate) async fn answering(&mut self) -> Result<()> {
        let begun = Instant::now();
        for at in 0..self.members.len() {
            while let Err(error) = self.read(at).await {
                self.all_run()?;
                ensure!(begun.elapsed() < START_MAX, "m{at} of {}: {error:#}", self.dir.display());
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn read(&self, at: usize) -> Result<()> {
        let mut client = self.client(at).await?;
        tokio::time::timeout(ANSWER_MAX, client.get("a", None)).await.context("no answer")??;
        Ok(())
    }

    /// That nobody ended without being asked to.
    pub(crate) fn all_run(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(process) = &mut member.process
                && let Some(status) = process.try_wait()?
            {
                bail!("{} ended by itself ({status}); its log is in {}", member.name, self.dir.display());
            }
        }
        Ok(())
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://127.0.0.1:{}", member.client_port)).collect()
    }

    /// A client of one member alone.
    pub(crate) async fn client(&self, at: usize) -> Result<Client> {
        let options = ConnectOptions::new().with_connect_timeout(ANSWER_MAX);
        Ok(Client::connect([format!("http://127.0.0.1:{}", self.members[at].client_port)], Some(options)).await?)
    }

    pub(crate) fn data_dir(&self, at: usize) -> PathBuf {
        self.dir.join(&self.members[at].name)
    }

    /// Client ports and process numbers of members that run.
    pub(crate) fn running(&self) -> Vec<(u16, u32)> {
        let running = |member: &Member| Some((member.client_port, member.process.as_ref()?.id()));
        self.members.iter().filter_map(running).collect()
    }

    /// The leader's place.
    pub(crate) async fn leader(&self) -> Result<usize> {
        for at in 0..self.members.len() {
            let status = self.client(at).await?.status().await?;
            if status.leader() == status.header().map_or(0, ResponseHeader::member_id) {
                return Ok(at);
            }
        }
        bail!("nobody leads")
    }

    /// Ends all members and throws their folder away.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.kill(None)?;
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("removing {}", self.dir.display()))
    }
}

/// Ports that nobody listened on a moment ago.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().context("looking for ports")?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
