//! What an operator sees beside requests: health, metrics on a port of their own, compaction by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use etcd_client::{CompactionOptions, DeleteOptions, GetOptions};
use store_core::wire::{StatusRequest, StatusResponse};
use store_server::parse_retention;

use crate::cluster::{Cluster, eventually};
use crate::differential::server::Server;

/// Status and body of a page.
pub(crate) async fn page(url: &str, path: &str) -> (u16, String) {
    let (address, request) = (
        url.trim_start_matches("http://").to_owned(),
        format!("GET {path} HTTP/1.1\r\nHost: keelson\r\nConnection: close\r\n\r\n"),
    );
    let answered = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    });
    let answer = answered.await.expect("no panic").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"), body.to_owned())
}

fn ok(body: &str) -> (u16, String) {
    (200, body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_what_works_and_what_does_not() {
    let mut cluster = Cluster::started(3).await;
    let url = cluster.url(0);
    for path in ["/livez", "/readyz", "/livez/serializable_read", "/readyz/data_corruption", "/readyz/non_learner"] {
        assert_eq!(page(&url, path).await, ok("ok\n"), "{path}");
    }
    assert_eq!(page(&url, "/livez?verbose").await, ok("[+]serializable_read ok\nok\n"));
    let all = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    assert_eq!(page(&url, "/readyz?verbose").await, ok(all));
    let some = "[+]data_corruption ok\n[+]serializable_read ok\n[+]non_learner ok\nok\n";
    assert_eq!(page(&url, "/readyz?verbose&exclude=linearizable_read&exclude=nonsense").await, ok(some));

    // Without a majority a member lives, and isn't ready.
    cluster.stop(1).await;
    cluster.stop(2).await;
    assert_eq!(page(&url, "/livez").await, ok("ok\n"));
    let (status, body) = page(&url, "/readyz").await;
    assert!(status == 503 && body.contains("[+]serializable_read ok\n[-]linearizable_read failed: "), "{body}");
    assert_eq!(page(&url, "/readyz/linearizable_read").await.0, 503);
    assert_eq!(page(&url, "/readyz?exclude=linearizable_read").await, ok("ok\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_have_a_port_of_their_own() {
    let mut cluster = Cluster::new(1);
    let url = format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
    cluster.members[0].config.listen_metrics_urls = vec![url.clone()];
    cluster.start(0);
    cluster.wait_for_leader().await;
    assert!(page(&url, "/metrics").await.1.contains("etcd_server_has_leader 1"));
    assert_eq!(page(&url, "/readyz").await, ok("ok\n"));
    assert!(page(&url, "/health").await.1.contains("true"));
    // The rest isn't served there.
    for path in ["/etcdserverpb.KV/Range", "/livez/nonsense"] {
        assert_eq!(page(&url, path).await.0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_compacts_by_itself() {
    let mut cluster = Cluster::new(1);
    cluster.members[0].config.auto_compaction = parse_retention("periodic", "500ms").expect("a retention");
    cluster.start(0);
    cluster.wait_for_leader().await;
    let mut client = cluster.client(0).await;
    let first = client.put("k", "1", None).await.expect("a put").header().expect("a header").revision();
    client.put("k", "2", None).await.expect("a put");
    eventually("a compaction", || async {
        let options = GetOptions::new().with_revision(first);
        match cluster.client(0).await.get("k", Some(options)).await {
            Err(error) if error.to_string().contains("has been compacted") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(client.get("k", None).await.expect("a read").kvs()[0].value(), b"2", "the newest stays");
}

/// Values that can't be made smaller: a kind of random bytes.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(step).collect()
}

/// What counts against the quota goes with the compaction, at once and without anybody defragmenting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_counts_until_it_is_compacted() {
    const KEYS: u64 = 64;
    const VALUE_BYTES: i64 = 256 << 10;
    let cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    for n in 0..KEYS {
        client.put(format!("k{n}"), noise(n, VALUE_BYTES as usize), None).await.expect("a put");
    }
    let server = Server::connect(&cluster.url(0)).await;
    let status = async || {
        let path = "/etcdserverpb.Maintenance/Status";
        server.unary::<_, StatusResponse>(path, StatusRequest {}).await.expect("a status")
    };
    let (full, all) = (status().await, KEYS as i64 * VALUE_BYTES);
    assert!(full.db_size >= all && full.db_size_in_use >= all, "{full:?}");
    let deleted = client.delete("k", Some(DeleteOptions::new().with_prefix())).await.expect("deleted");
    let revision = deleted.header().expect("a header").revision();
    assert!(status().await.db_size_in_use >= all, "history still counts");
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await.expect("compacted");
    let in_use = status().await.db_size_in_use;
    assert!(in_use < VALUE_BYTES, "{in_use} bytes of what was deleted");
}
