//! `keelson store import`: what a running etcd holds becomes a backup, out of which `snapshot restore` makes members.
//!
//! Keys are read in pages at one revision, then changes from there on; [`store_server::Import`] keeps both with how
//! far it is, so that it goes on after whatever ended it.

mod shown;
mod source;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use store_server::{Import, KeyValue};
use tokio_util::sync::CancellationToken;

use crate::store_snapshot::Credentials;
use shown::Shown;
use source::{Changes, Source, Trouble};

/// How often keys are read from the beginning because the source compacted the revision being read.
const STARTS_MAX: usize = 3;
/// Keys asked for at once, at first and at most.
const PAGE_KEYS: i64 = 500;
const PAGE_KEYS_MAX: i64 = 10_000;
/// Pages are made about as large.
const PAGE_BYTES: u64 = 4 << 20;
/// How long changes that the source has made may take to come.
const CHANGES_MAX: Duration = Duration::from_secs(30);
/// How long deletions at the pinned revision are waited for where nothing was written since: there may be none.
const PIN_MAX: Duration = Duration::from_secs(2);

/// The source, and the backup to be made of it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportArgs {
    /// URLs of the etcd (3.4 to 3.6) to read; the others are asked if one is gone
    #[arg(long, env = "ETCDCTL_ENDPOINTS", value_delimiter = ',', required = true)]
    from: Vec<String>,
    /// The backup to make, for `keelson store snapshot restore FILE`. Until it is whole, FILE.import holds what came:
    /// the same command goes on with it
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Go on with changes as they are made, until Ctrl-C: stop who writes, press it, and nothing is missing
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    credentials: Credentials,
}

/// Imports.
pub(crate) async fn run(args: &ImportArgs, until: CancellationToken) -> Result<()> {
    let mut import = Import::open(&args.to)?;
    let mut source = Source::new(&args.from, &args.credentials)?;
    let mut work = Work { import: &mut import, source: &mut source, until: &until, shown: Shown::new() };
    let leases_and_keys = match work.all(args.follow).await {
        Ok(done) => done,
        Err(error) => return Err(interrupted(import, &error)),
    };
    let users = source.users().await;
    let (leases, keys) = leases_and_keys;
    let header = import.finish(&leases, keys)?;
    println!(
        "imported {} keys and {} leases at revision {} to {}",
        header.keys,
        leases.len(),
        header.revision,
        args.to.display()
    );
    match users {
        Ok(names) if names.is_empty() => {}
        Ok(names) => println!("{names} aren't imported: etcd tells nobody its password hashes. Make them anew."),
        Err(error) => println!("users and roles aren't imported, nor could they be listed: {error:#}"),
    }
    println!("on each machine: keelson store snapshot restore {} --name NAME --initial-cluster ...", args.to.display());
    Ok(())
}

/// Keeps what came, if anything did.
fn interrupted(mut import: Import, error: &anyhow::Error) -> anyhow::Error {
    let folder = import.folder().to_owned();
    let kept = if import.progress().pinned == 0 {
        drop(import);
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
    } else {
        import.flush().with_context(|| format!("keeping what came in {}", folder.display()))
    };
    match kept {
        Err(worse) => anyhow!("{error:#}; {worse:#}"),
        Ok(()) if folder.exists() => {
            anyhow!("{error:#}; what came is kept in {}: the same command goes on with it", folder.display())
        }
        Ok(()) => anyhow!("{error:#}"),
    }
}

struct Work<'a> {
    import: &'a mut Import,
    source: &'a mut Source,
    until: &'a CancellationToken,
    shown: Shown,
}

impl Work<'_> {
    /// Brings everything; returns the leases, and how many keys the source has at the revision of the last change.
    async fn all(&mut self, follow: bool) -> Result<(BTreeSet<i64>, u64)> {
        for start in 1..=STARTS_MAX {
            match self.once(follow).await {
                Ok(done) => return Ok(done),
                Err(Trouble::Compacted) => {
                    let pinned = self.import.progress().pinned;
                    eprintln!(
                        "the source has compacted revision {pinned}, which was being read: beginning anew ({start})"
                    );
                    self.import.begin(0, 0)?;
                }
                Err(Trouble::TooLarge(what)) => bail!("{what}: the source sends more at once than is taken"),
                Err(Trouble::Failed(error)) => return Err(error),
            }
        }
        bail!(
            "the source compacts faster than it can be read: let it compact less often meanwhile \
             (kube-apiserver: --etcd-compaction-interval=0; etcd: --auto-compaction-retention), or read it from nearby"
        )
    }

    async fn once(&mut self, follow: bool) -> Result<(BTreeSet<i64>, u64), Trouble> {
        self.begin().await?;
        self.pages().await?;
        let mut changes = self.watch().await?;
        if follow {
            self.follow(&mut changes).await?;
        }
        self.settle(&mut changes).await
    }

    async fn begin(&mut self) -> Result<(), Trouble> {
        let now = self.source.count(0).await?;
        self.import.check_source(now.cluster_id)?;
        let progress = self.import.progress();
        if progress.pinned == 0 {
            self.import.begin(now.cluster_id, now.revision)?;
            eprintln!("reading {} keys at revision {}", now.keys, now.revision);
        } else {
            eprintln!("going on at {} keys of revision {}", progress.keys, progress.pinned);
        }
        self.shown.begin(self.import.progress());
        Ok(())
    }

    async fn pages(&mut self) -> Result<(), Trouble> {
        let mut limit = PAGE_KEYS;
        while !self.import.progress().paged {
            if self.until.is_cancelled() {
                return Err(anyhow!("interrupted").into());
            }
            let progress = self.import.progress();
            let page = match self.source.page(&progress.next_key, progress.pinned, limit).await {
                Err(Trouble::TooLarge(_)) if limit > 1 => {
                    limit /= 2;
                    continue;
                }
                page => page?,
            };
            let total = progress.keys + page.remaining;
            limit = next_limit(limit, &page.kvs);
            self.import.page(page.kvs, page.more)?;
            self.shown.page(self.import.progress(), total);
        }
        Ok(())
    }

    /// Changes behind those that are there.
    async fn watch(&mut self) -> Result<Changes, Trouble> {
        let progress = self.import.progress();
        let from = if progress.pin_watched { progress.watched + 1 } else { progress.pinned };
        self.source.watch(from).await
    }

    async fn take(&mut self, next: Result<Vec<KeyValue>, Trouble>, changes: &mut Changes) -> Result<(), Trouble> {
        match next {
            Ok(kvs) => self.import.changes(kvs)?,
            Err(Trouble::Failed(error)) => {
                eprintln!("watching the source ended ({error:#}): asking again");
                *changes = self.watch().await?;
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(())
    }

    /// Takes changes as they are made, until somebody says that it is enough.
    async fn follow(&mut self, changes: &mut Changes) -> Result<(), Trouble> {
        self.bring_leases().await?;
        let target = self.source.count(0).await?.revision;
        self.catch_up(changes, target).await?;
        eprintln!("all is there up to revision {target}, and changes follow: stop who writes, then press Ctrl-C");
        let until = self.until.clone();
        loop {
            let next = tokio::select! {
                () = until.cancelled() => return Ok(()),
                next = changes.next() => next,
            };
            self.take(next, changes).await?;
            self.shown.follow(self.import.progress());
        }
    }

    /// Takes changes up to a revision.
    async fn catch_up(&mut self, changes: &mut Changes, target: i64) -> Result<(), Trouble> {
        let deadline = tokio::time::Instant::now() + CHANGES_MAX;
        loop {
            let progress = self.import.progress();
            let (reached, deadline) = match (progress.watched >= target, progress.pin_watched) {
                (true, true) => return Ok(()),
                (true, false) => (true, tokio::time::Instant::now() + PIN_MAX),
                (false, _) => (false, deadline),
            };
            match tokio::time::timeout_at(deadline, changes.next()).await {
                Ok(next) => self.take(next, changes).await?,
                Err(_) if reached => return Ok(()),
                Err(_) => return Err(anyhow!("changes up to revision {target} don't come from the source").into()),
            }
        }
    }

    /// Brings what is still missing, so that all is there at one revision.
    async fn settle(&mut self, changes: &mut Changes) -> Result<(BTreeSet<i64>, u64), Trouble> {
        let mut leases = self.bring_leases().await?;
        let target = self.source.count(0).await?.revision;
        self.catch_up(changes, target).await?;
        // Those that keys of meanwhile may have, and those that ended when their keys were still there.
        leases.extend(self.bring_leases().await?);
        let there = self.source.count(self.import.progress().watched).await?;
        Ok((leases, there.keys))
    }

    /// Brings leases that aren't known yet; returns all.
    async fn bring_leases(&mut self) -> Result<BTreeSet<i64>, Trouble> {
        let ids = self.source.leases().await?;
        let mut found = Vec::new();
        for id in self.import.unknown_leases(&ids)? {
            found.push((id, self.source.granted_ttl(id).await?));
        }
        self.import.leases(&found)?;
        Ok(ids)
    }
}

/// How many keys to ask for so that a page is about as large as it should be.
fn next_limit(limit: i64, kvs: &[KeyValue]) -> i64 {
    let bytes: usize = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
    let each = (bytes as u64 / (kvs.len() as u64).max(1)).max(1);
    let fitting = i64::try_from(PAGE_BYTES / each).unwrap_or(i64::MAX);
    fitting.clamp(1, limit.saturating_mul(2)).min(PAGE_KEYS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_slowly_and_shrink_at_once() {
        let page = |count, bytes: usize| vec![KeyValue { value: vec![0; bytes].into(), ..KeyValue::default() }; count];
        assert_eq!(next_limit(500, &page(500, 100)), 1000);
        assert_eq!(next_limit(8000, &page(8000, 1)), PAGE_KEYS_MAX);
        assert_eq!(next_limit(500, &page(50, 1 << 20)), 4);
        assert_eq!(next_limit(4, &page(1, 8 << 20)), 1);
        assert_eq!(next_limit(500, &page(0, 0)), 1000);
    }
}
