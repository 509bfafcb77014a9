//! What must hold: the apiserver's cache is the store's contents, the members' contents are each other's, and no log
//! holds a message that a working store can't cause.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::api::Api;
use super::store::{MEMBERS, Store};

/// A cache that is behind for longer is stuck.
const CURRENT_MAX: Duration = Duration::from_secs(60);
/// After everything that writes has ended but the apiserver, whose own leases change now and then.
const QUIET_MAX: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(500);
/// Keys under `/registry/` that aren't objects of the API.
const NO_OBJECTS: [&str; 3] = ["/registry/ranges/", "/registry/masterleases/", "/registry/health"];

/// `namespace/name` → resource version.
type Versions = BTreeMap<String, String>;

fn versions(list: &Value) -> Result<Versions> {
    let items = list["items"].as_array().context("a list without items")?;
    let version = |item: &Value| {
        let field = |name: &str| item["metadata"][name].as_str().unwrap_or("").to_owned();
        (format!("{}/{}", field("namespace"), field("name")), field("resourceVersion"))
    };
    Ok(items.iter().map(version).collect())
}

/// Waits until a list from the watch cache is the list from the store.
pub(crate) async fn cache_is_current(api: &Api, path: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let stored = versions(&api.read(path).await?)?;
        let cached = versions(&api.read(&format!("{path}?resourceVersion=0")).await?)?;
        if stored == cached {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < CURRENT_MAX,
            "the watch cache of {path} is stuck: {}",
            difference(&stored, &cached).join(", ")
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// The first few entries that differ.
fn difference(stored: &Versions, cached: &Versions) -> Vec<String> {
    let names: BTreeSet<&String> = stored.keys().chain(cached.keys()).collect();
    let differing = names.into_iter().filter(|name| stored.get(*name) != cached.get(*name));
    differing.take(5).map(|name| format!("{name} is {:?}, cached {:?}", stored.get(name), cached.get(name))).collect()
}

/// Every path of the API under which objects can be listed.
async fn listable(api: &Api) -> Result<Vec<String>> {
    let mut bases = vec!["/api/v1".to_owned()];
    let groups = api.read("/apis").await?;
    for group in groups["groups"].as_array().context("groups")? {
        for version in group["versions"].as_array().context("versions")? {
            bases.push(format!("/apis/{}", version["groupVersion"].as_str().context("a version's name")?));
        }
    }
    let mut paths = Vec::new();
    for base in bases {
        let resources = api.read(&base).await?;
        for resource in resources["resources"].as_array().context("resources")? {
            let name = resource["name"].as_str().context("a resource's name")?;
            let can_list = resource["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|v| v == "list"));
            // Component statuses are asked for when they are read, and stored nowhere.
            if can_list && !name.contains('/') && name != "componentstatuses" {
                paths.push(format!("{base}/{name}"));
            }
        }
    }
    Ok(paths)
}

/// The revisions of all objects that the apiserver lists, from its caches or from the store.
async fn listed(api: &Api, paths: &[String], cached: bool) -> Result<BTreeSet<i64>> {
    let mut revisions = BTreeSet::new();
    for path in paths {
        let path = if cached { format!("{path}?resourceVersion=0") } else { path.clone() };
        for version in versions(&api.read(&path).await?)?.into_values() {
            revisions.insert(version.parse().with_context(|| format!("{path}: a resource version {version:?}"))?);
        }
    }
    Ok(revisions)
}

/// What the members hold, and what the apiserver says about it.
pub(crate) struct Equal {
    pub(crate) objects: usize,
    pub(crate) keys: usize,
    pub(crate) revision: i64,
    pub(crate) hash: u32,
}

/// All objects that the apiserver lists, from the store and from its caches, are the keys that each member holds at
/// the same revisions, and the members' hashes agree. Nothing but the apiserver may write meanwhile.
pub(crate) async fn all_equal(api: &Api, store: &Store) -> Result<Equal> {
    let paths = listable(api).await?;
    let begun = Instant::now();
    loop {
        match equal_now(api, store, &paths).await {
            Ok(equal) => return Ok(equal),
            Err(error) if begun.elapsed() > QUIET_MAX => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn equal_now(api: &Api, store: &Store, paths: &[String]) -> Result<Equal> {
    let stored = listed(api, paths, false).await?;
    let cached = listed(api, paths, true).await?;
    ensure!(stored == cached, "caches and store differ in revisions {:?}", apart(&stored, &cached));
    let mut equal = Equal { objects: stored.len(), keys: 0, revision: 0, hash: 0 };
    let mut first: Option<Vec<(String, i64)>> = None;
    for at in 0..MEMBERS {
        let (revision, keys) = store.keys(at).await?;
        let is_object = |key: &str| !NO_OBJECTS.iter().any(|prefix| key.starts_with(prefix));
        let held: BTreeSet<i64> =
            keys.iter().filter(|(key, _)| is_object(key)).map(|(_, revision)| *revision).collect();
        ensure!(held == stored, "m{} and the apiserver differ in revisions {:?}", at + 1, apart(&held, &stored));
        equal.revision = equal.revision.max(revision);
        equal.keys = keys.len();
        match &first {
            None => first = Some(keys),
            Some(first) => ensure!(*first == keys, "m1 and m{} hold different keys", at + 1),
        }
    }
    let hash = store.hash(0, equal.revision).await?;
    for at in 1..MEMBERS {
        let other = store.hash(at, equal.revision).await?;
        ensure!(hash == other, "hash and compaction of m1 are {hash:?}, of m{} {other:?}", at + 1);
    }
    equal.hash = hash.0;
    Ok(equal)
}

/// The first few that only one of them has.
fn apart(one: &BTreeSet<i64>, other: &BTreeSet<i64>) -> Vec<i64> {
    one.symmetric_difference(other).copied().take(8).collect()
}

/// Messages that mean a defect, wherever they stand in a log.
const NEVER: [&str; 11] = [
    "panic",
    "Observed a panic",
    "fatal error:",
    "required revision is a future revision",
    "out-of-order",
    "data inconsistency",
    "corrupt",
    "Unexpected watch",
    "watch chan error: etcdserver: mvcc: database space exceeded",
    "unknown field",
    "Timeout: Too large resource version",
];

/// Scans a log: its warnings and errors by kind with their counts, or the first line that means a defect.
pub(crate) fn log(path: &Path) -> Result<BTreeMap<String, u64>> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut kinds = BTreeMap::new();
    for line in text.lines() {
        if let Some(never) = NEVER.iter().find(|never| line.contains(*never)) {
            bail!("{} holds {never:?}: {line}", path.display());
        }
        // klog: a letter for the level, month and day, time, process, file and line, then the text.
        let is_message = line.starts_with(['E', 'W', 'F']) && line.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        if is_message && let Some((head, message)) = line.split_once("] ") {
            let place = head.rsplit(' ').next().unwrap_or("");
            let message = kind(message);
            *kinds.entry(format!("{} {place} {message}", &line[..1])).or_default() += 1;
        }
    }
    Ok(kinds)
}

/// A message without what differs in each: names of types and objects, numbers.
fn kind(message: &str) -> String {
    let words = message.split_whitespace().filter(|word| !word.starts_with('*') && !word.contains('/'));
    let words: Vec<String> = words.map(|word| word.chars().filter(|c| !c.is_ascii_digit()).collect()).collect();
    words.join(" ").chars().take(90).collect()
}
