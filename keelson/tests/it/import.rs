//! Moving from Debian's etcd: `keelson store import`, killed and cut off on its way.

mod servers;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use etcd_client::{Client, Compare, CompareOp, EventType, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};

use servers::{Etcd, Gate, Store};

const KEYS: u32 = 5_000;
/// Values that don't shrink, so that pages are many.
const VALUE_BYTES: u32 = 6_000;

/// Numbers that look random and are the same on each run.
fn noise(seed: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(seed | 1), |x| {
        let x = x ^ (x << 13);
        let x = x ^ (x >> 7);
        Some(x ^ (x << 17))
    })
}

fn value(seed: u64) -> Vec<u8> {
    noise(seed).take(VALUE_BYTES as usize / 8).flat_map(u64::to_le_bytes).collect()
}

async fn client(url: &str) -> Client {
    Client::connect([url], None).await.expect("a client")
}

/// Keys in no order, some several times, some deleted, some of one transaction, some with leases.
async fn fill(url: &str) {
    let mut client = client(url).await;
    let lease = client.lease_grant(4_000, None).await.expect("a lease").id();
    client.lease_grant(500, None).await.expect("a lease without keys");
    let mut order: Vec<u32> = (0..KEYS).collect();
    for (at, random) in noise(7).take(KEYS as usize).enumerate() {
        order.swap(at, usize::try_from(random % u64::from(KEYS)).expect("small"));
    }
    for chunk in order.chunks(50) {
        let put = |n: &u32| {
            let options = n.is_multiple_of(10).then(|| PutOptions::new().with_lease(lease));
            TxnOp::put(format!("key{n:05}"), value(u64::from(*n) + 1), options)
        };
        client.txn(Txn::new().and_then(chunk.iter().map(put).collect::<Vec<_>>())).await.expect("a transaction");
    }
    for n in (0..KEYS).step_by(7) {
        client.put(format!("key{n:05}"), format!("changed {n}"), None).await.expect("a put");
    }
    for n in (0..KEYS).step_by(31) {
        client.delete(format!("key{n:05}"), None).await.expect("a deletion");
    }
    client.put("key00031", "again", None).await.expect("a put");
}

/// Every key with all its numbers, and the revision.
async fn everything(url: &str) -> (Vec<String>, i64) {
    let mut kv = client(url).await.kv_client().max_decoding_message_size(usize::MAX);
    let answer = kv.get("\0", Some(GetOptions::new().with_from_key())).await.expect("a read");
    let shown = |kv: &etcd_client::KeyValue| format!("{kv:?}");
    (answer.kvs().iter().map(shown).collect(), answer.header().expect("a header").revision())
}

/// Every lease with the seconds that it was granted and its keys.
async fn leases(url: &str) -> BTreeSet<(i64, i64, Vec<Vec<u8>>)> {
    let mut client = client(url).await;
    let mut found = BTreeSet::new();
    for lease in client.leases().await.expect("leases").leases() {
        let options = etcd_client::LeaseTimeToLiveOptions::new().with_keys();
        let told = client.lease_time_to_live(lease.id(), Some(options)).await.expect("a lease");
        let mut keys = told.keys().to_vec();
        keys.sort();
        found.insert((lease.id(), told.granted_ttl(), keys));
    }
    found
}

fn import(from: &str, to: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
    command.args(["store", "import", "--from", from, "--to"]).arg(to);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn done(mut command: Command) -> String {
    let output = command.output().expect("keelson runs");
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// What the store has is what etcd has, whoever asks.
async fn check_same(etcd: &str, store: &str) {
    let (theirs, ours) = (everything(etcd).await, everything(store).await);
    assert_eq!(ours.1, theirs.1, "the revision");
    assert_eq!(ours.0.len(), theirs.0.len());
    for (ours, theirs) in ours.0.iter().zip(&theirs.0) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(leases(store).await, leases(etcd).await);
    let read = |url: &str| {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", url, "get", "key0003", "--prefix", "-w", "fields"])
            .output()
            .expect("etcdctl is installed (Debian's package etcd-client)");
        let text = said(&output);
        let own = ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""];
        text.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(read(store), read(etcd), "etcdctl");
}

/// Clients that go on from a revision miss nothing and write on behind it.
async fn check_goes_on(store: &str, revision: i64) {
    let mut client = client(store).await;
    let options = WatchOptions::new().with_from_key().with_start_revision(revision + 1);
    let mut watch = client.watch("\0", Some(options)).await.expect("a watch");
    let unchanged = Compare::version("key00001", CompareOp::Equal, 1);
    let txn = Txn::new().when([unchanged]).and_then([TxnOp::put("key00001", "after", None)]);
    assert!(client.txn(txn).await.expect("a transaction").succeeded());
    loop {
        let answer = watch.message().await.expect("an answer").expect("a stream");
        if let Some(event) = answer.events().first() {
            let kv = event.kv().expect("a key");
            assert_eq!(
                (event.event_type(), kv.key(), kv.mod_revision()),
                (EventType::Put, &b"key00001"[..], revision + 1)
            );
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_is_killed_cut_off_and_whole_in_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let etcd = Etcd::start(dir.path()).await;
    fill(&etcd.url).await;
    let file = dir.path().join("moved");

    let mut kept = 0;
    // Pages are about 4 MiB and made durable after 16.
    for mebibytes in [1, 20, 1] {
        let gate = Gate::open(&etcd.url, mebibytes << 20);
        let mut child = import(&gate.url, &file).spawn().expect("keelson runs");
        gate.wait_until_closed();
        child.kill().expect("killed");
        let output = child.wait_with_output().expect("ended");
        kept = kept.max(going_on(&said(&output)));
        assert!(!file.exists());
    }
    assert!(kept > 1_000, "it goes on where it was: {kept}");

    let gate = Gate::open(&etcd.url, 5 << 20);
    let mut child = import(&gate.url, &file).spawn().expect("keelson runs");
    gate.wait_until_closed();
    gate.shut();
    let status = child.wait().expect("ended");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("stderr"), &mut text).expect("text");
    assert!(
        !status.success() && text.contains("doesn't answer") && text.contains("the same command goes on"),
        "{text}"
    );

    let text = done(import(&etcd.url, &file));
    assert!(going_on(&text) > kept, "what came before the source went is kept: {text}");
    assert!(text.contains("imported ") && text.contains("(100 %)"), "{text}");
    let again = import(&etcd.url, &file).output().expect("keelson runs");
    assert!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));

    let store = Store::restored(dir.path(), &file).await;
    check_same(&etcd.url, &store.url).await;
    check_goes_on(&store.url, everything(&etcd.url).await.1).await;
}

/// How many keys were there when an import went on.
fn going_on(text: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix("going on at ")?.split(' ').next()?.parse().ok());
    found.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_followed_until_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let etcd = Etcd::start(dir.path()).await;
    let mut writer = client(&etcd.url).await;
    writer.put("gone", "x", None).await.expect("a put");
    writer.put("key00001", "first", None).await.expect("a put");
    // The pinned revision is a deletion: no page shows it.
    writer.delete("gone", None).await.expect("a deletion");
    let pinned = everything(&etcd.url).await.1;
    let file = dir.path().join("moved");
    let mut command = import(&etcd.url, &file);
    let mut child = command.arg("--follow").spawn().expect("keelson runs");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("then press Ctrl-C")), "it follows");
    let lease = writer.lease_grant(900, None).await.expect("a lease").id();
    for n in 0..300 {
        let key = format!("key{:05}", n % 40);
        match n % 7 {
            0 => drop(writer.delete(key, None).await.expect("a deletion")),
            1 => drop(writer.put(key, "leased", Some(PutOptions::new().with_lease(lease))).await.expect("a put")),
            _ => drop(writer.put(key, format!("{n}"), None).await.expect("a put")),
        }
    }
    let pid = i32::try_from(child.id()).expect("a pid");
    interrupt(pid);
    assert!(child.wait().expect("ended").success(), "{:?}", lines.collect::<Vec<_>>());
    let store = Store::restored(dir.path(), &file).await;
    check_same(&etcd.url, &store.url).await;

    // The history since the pinned revision came along, that one's deletion included; what was before didn't.
    let mut client = client(&store.url).await;
    let options = WatchOptions::new().with_from_key().with_start_revision(pinned);
    let mut watch = client.watch("\0", Some(options)).await.expect("a watch");
    let first = loop {
        let answer = watch.message().await.expect("an answer").expect("a stream");
        if let Some(event) = answer.events().first() {
            break (event.event_type(), event.kv().map(|kv| (kv.key().to_vec(), kv.mod_revision())));
        }
    };
    assert_eq!(first, (EventType::Delete, Some((b"gone".to_vec(), pinned))));
    let old = client.get("gone", Some(GetOptions::new().with_revision(pinned - 1))).await.expect_err("compacted");
    assert!(old.to_string().contains("has been compacted"), "{old}");
}

fn interrupt(pid: i32) {
    let status = Command::new("kill").args(["-INT", &pid.to_string()]).status().expect("kill runs");
    assert!(status.success());
}

/// A revision that is compacted while it is read is given up, and the import begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_meanwhile_begins_it_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let etcd = Etcd::start(dir.path()).await;
    fill(&etcd.url).await;
    let file = dir.path().join("moved");
    let gate = Gate::open(&etcd.url, 1 << 20);
    let mut child = import(&gate.url, &file).spawn().expect("keelson runs");
    gate.wait_until_closed();
    child.kill().expect("killed");
    child.wait().expect("ended");
    let mut writer = client(&etcd.url).await;
    let put = writer.put("key00001", "later", None).await.expect("a put");
    let now = put.header().expect("a header").revision();
    writer.compact(now, None).await.expect("compacted");
    let text = done(import(&etcd.url, &file));
    assert!(text.contains("has compacted revision"), "{text}");
    let store = Store::restored(dir.path(), &file).await;
    check_same(&etcd.url, &store.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_etcd_and_one_with_users_are_imported() {
    let dir = tempfile::tempdir().expect("a folder");
    let etcd = Etcd::start(dir.path()).await;
    let file = dir.path().join("empty");
    assert!(done(import(&etcd.url, &file)).contains("imported 0 keys and 0 leases at revision 1"));

    let mut root = client(&etcd.url).await;
    root.put("key00001", "v", None).await.expect("a put");
    root.user_add("root", "secret", None).await.expect("a user");
    root.role_add("root").await.expect("a role");
    root.user_grant_role("root", "root").await.expect("granted");
    root.user_add("reader", "secret", None).await.expect("a user");
    root.auth_enable().await.expect("enabled");
    let file = dir.path().join("users");
    let fails = |arguments: &[&str], why: &str| {
        let output = import(&etcd.url, &file).args(arguments).output().expect("keelson runs");
        assert!(!output.status.success() && said(&output).contains(why), "{}", said(&output));
    };
    fails(&[], "give --user NAME:PASSWORD");
    fails(&["--user", "root:wrong"], "authentication failed");
    fails(&["--user", "reader:secret"], "one who may read every key");
    let mut command = import(&etcd.url, &file);
    command.args(["--user", "root:secret"]);
    let text = done(command);
    assert!(text.contains("imported 1 keys") && text.contains("users reader, root and roles root"), "{text}");
}

#[test]
fn a_wrong_url_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let port = crate::ports::free_port(20_000..32_000);
    for (url, why) in
        [(format!("http://127.0.0.1:{port}"), "doesn't answer"), ("127.0.0.1:1".to_owned(), "is not a URL")]
    {
        let output = import(&url, &dir.path().join("moved")).output().expect("keelson runs");
        let text = said(&output);
        assert!(!output.status.success() && text.contains(why) && text.contains(&url), "{text}");
    }
}
