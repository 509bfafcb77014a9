//! Members come and go under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{GetOptions, MemberAddOptions};
use store_core::wire::{MemberListRequest, MemberListResponse};
use store_server::{IdentityError, JoinError, ServeError};
use tonic::Code;

use crate::cluster::{Cluster, eventually};
use crate::differential::server::Server;

pub(crate) async fn id_of(cluster: &Cluster, at: usize) -> u64 {
    let status = cluster.client(at).await.status().await.expect("a status");
    status.header().expect("a header").member_id()
}

async fn add_learner(cluster: &Cluster, through: usize, joiner: usize) -> u64 {
    let added = eventually("adding a learner", || async {
        let options = MemberAddOptions::new().with_is_learner();
        cluster.client(through).await.member_add([cluster.peer_url(joiner)], Some(options)).await
    });
    added.await.member().expect("the new member").id()
}

/// Writes until it is told to stop; returns what was acknowledged.
fn writer(cluster: &Cluster, at: &[usize], stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<String>> {
    let urls: Vec<String> = at.iter().map(|at| cluster.url(*at)).collect();
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut client = etcd_client::Client::connect(urls, None).await.expect("a client");
        let mut acknowledged = Vec::new();
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("k{n:06}");
            if client.put(key.as_str(), "v", None).await.is_ok() {
                acknowledged.push(key);
            }
        }
        acknowledged
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_joins_and_votes_and_the_leader_goes() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let stay: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writing = writer(&cluster, &stay, &stop);

    let joiner = cluster.joiner();
    let id = add_learner(&cluster, stay[0], joiner).await;
    cluster.start(joiner);
    // A learner answers for itself alone.
    eventually("the learner's status", || async { cluster.client(joiner).await.status().await }).await;
    let refused = cluster.client(joiner).await.get("k", None).await.expect_err("a learner");
    assert!(refused.to_string().contains("rpc not supported for learner"), "{refused}");

    let promoted = eventually("promoting", || async { cluster.client(stay[1]).await.member_promote(id).await }).await;
    assert!(promoted.members().iter().all(|m| !m.is_learner()));
    let old = id_of(&cluster, leader).await;
    eventually("removing the leader", || async { cluster.client(stay[0]).await.member_remove(old).await }).await;
    let ended = cluster.end(leader).await;
    assert!(matches!(ended, Err(ServeError::Removed)), "{ended:?}");

    stop.store(true, Ordering::Relaxed);
    let acknowledged = writing.await.expect("no panic");
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    let mut client = cluster.client(joiner).await;
    let found = client.get("k", Some(GetOptions::new().with_prefix())).await.expect("a read of the new member");
    let keys: std::collections::BTreeSet<&str> = found.kvs().iter().map(|kv| kv.key_str().expect("text")).collect();
    for key in &acknowledged {
        assert!(keys.contains(key.as_str()), "{key} was acknowledged");
    }
    let named = client.member_list().await.expect("members");
    let names: std::collections::BTreeSet<&str> = named.members().iter().map(|m| m.name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.contains("m3") && named.members().iter().all(|m| m.client_urls().len() == 1));

    // Who was removed is told so when it comes back, and everybody else remembers the members.
    cluster.start(leader);
    let ended = cluster.end(leader).await;
    assert!(matches!(ended, Err(ServeError::Removed)), "{ended:?}");
    for at in [stay[0], stay[1], joiner] {
        cluster.stop(at).await;
        cluster.start(at);
        eventually("a read after a restart", || async { cluster.client(at).await.get("k000001", None).await }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_member_grows() {
    let mut cluster = Cluster::started(1).await;
    cluster.client(0).await.put("before", "v", None).await.expect("a put");
    let unexpected = cluster.joiner();
    cluster.start(unexpected);
    let ended = cluster.end(unexpected).await;
    assert!(
        matches!(ended, Err(ServeError::Identity(IdentityError::Join(JoinError::NotExpected(_))))),
        "nobody added it: {ended:?}"
    );
    cluster.client(0).await.member_add([cluster.peer_url(unexpected)], None).await.expect("added");
    cluster.start(unexpected);
    let mut client = cluster.client(unexpected).await;
    let read = eventually("a read", || async { cluster.client(unexpected).await.get("before", None).await }).await;
    assert_eq!(read.count(), 1);
    client.put("after", "v", None).await.expect("a put");
    assert_eq!(cluster.client(0).await.get("after", None).await.expect("a read").count(), 1);
}

/// What it had acknowledged is gone: with its old number it could undo what others count on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_comes_back_only_as_a_new_one() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let (wiped, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.client(leader).await.put("k", "v", None).await.expect("a put");
    let id = id_of(&cluster, wiped).await;
    for joins_existing in [false, true] {
        cluster.stop(wiped).await;
        std::fs::remove_dir_all(&cluster.members[wiped].config.data_dir).expect("wiped");
        cluster.members[wiped].config.joins_existing = joins_existing;
        cluster.start(wiped);
        let ended = cluster.end(wiped).await.expect_err("refused");
        assert!(matches!(ended, ServeError::Wiped(own) if own == id), "{ended:?}");
        cluster.client(other).await.put("k", "w", None).await.expect("the others go on");
    }
    // As its last line told.
    cluster.client(leader).await.member_remove(id).await.expect("removed");
    let url = cluster.peer_url(wiped);
    eventually("adding it", || async { cluster.client(leader).await.member_add([url.clone()], None).await }).await;
    std::fs::remove_dir_all(&cluster.members[wiped].config.data_dir).expect("emptied");
    cluster.start(wiped);
    let read = eventually("a read", || async { cluster.client(wiped).await.get("k", None).await }).await;
    assert_eq!(read.kvs()[0].value(), b"w");
    assert_ne!(id_of(&cluster, wiped).await, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cluster_cannot_bear_is_refused() {
    let cluster = Cluster::started(1).await;
    let mut client = cluster.client(0).await;
    let own = id_of(&cluster, 0).await;
    let peer = cluster.peer_url(0);
    let refused = |result: Result<(), etcd_client::Error>| result.expect_err("refused").to_string();
    let text = refused(client.member_add([peer], None).await.map(|_| ()));
    assert!(text.contains("Peer URLs already exists"), "{text}");
    let text = refused(client.member_add(["nowhere"], None).await.map(|_| ()));
    assert!(text.contains("given member URLs are invalid"), "{text}");
    let text = refused(client.member_remove(own).await.map(|_| ()));
    assert!(text.contains("not enough started members"), "{text}");
    let text = refused(client.member_remove(1).await.map(|_| ()));
    assert!(text.contains("member not found"), "{text}");
    let text = refused(client.member_promote(own).await.map(|_| ()));
    assert!(text.contains("can only promote a learner member"), "{text}");
    let text = refused(client.move_leader(1).await.map(|_| ()));
    assert!(text.contains("bad leader transferee"), "{text}");
    let options = MemberAddOptions::new().with_is_learner();
    client.member_add(["http://127.0.0.1:1"], Some(options.clone())).await.expect("a learner");
    let text = refused(client.member_add(["http://127.0.0.1:2"], Some(options)).await.map(|_| ()));
    assert!(text.contains("too many learner members in cluster"), "{text}");
    let learner =
        client.member_list().await.expect("members").members().iter().find(|m| m.is_learner()).map(|m| m.id());
    let text = refused(client.member_promote(learner.expect("the learner")).await.map(|_| ()));
    assert!(text.contains("in sync with leader"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let next = (leader + 1) % 3;
    let target = id_of(&cluster, next).await;
    let not_leader = cluster.client(next).await.move_leader(target).await.expect_err("not the leader");
    assert!(not_leader.to_string().contains("not leader"), "{not_leader}");
    cluster.client(leader).await.move_leader(target).await.expect("moved");
    assert_eq!(cluster.wait_for_leader().await, next);
}

/// Who asks for what holds for the whole cluster isn't told what this member remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_listed_as_all_know_them_or_as_this_one_does() {
    let mut cluster = Cluster::started(3).await;
    let server = Server::connect(&cluster.url(0)).await;
    let list = async |linearizable: bool| {
        let path = "/etcdserverpb.Cluster/MemberList";
        let answer = server.unary::<_, MemberListResponse>(path, MemberListRequest { linearizable }).await;
        answer.map(|answer| answer.members.len()).map_err(|status| (status.code(), status.message().to_owned()))
    };
    assert_eq!((list(true).await, list(false).await), (Ok(3), Ok(3)));
    cluster.stop(1).await;
    cluster.stop(2).await;
    let nobody_can_say = (Code::Unavailable, "etcdserver: request timed out".to_owned());
    assert_eq!((list(true).await, list(false).await), (Err(nobody_can_say), Ok(3)));
}

/// etcd's rules for a cluster that isn't whole: nobody is added until everybody has been there for five seconds, and
/// nobody goes who is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unhealthy_cluster_keeps_its_members() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (away_id, other_id) = (id_of(&cluster, away).await, id_of(&cluster, other).await);
    cluster.stop(away).await;
    let mut client = cluster.client(leader).await;
    let unhealthy = |result: Result<(), etcd_client::Error>| match result.expect_err("refused") {
        etcd_client::Error::GRpcStatus(status) => {
            assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: unhealthy cluster"));
        }
        error => panic!("{error}"),
    };
    // Once the leader has noticed: there were two.
    eventually("one peer", || async {
        let (_, metrics) = crate::operating::page(&cluster.url(leader), "/metrics").await;
        let lines = metrics.lines().filter(|line| line.starts_with("etcd_network_active_peers{"));
        let active = lines.filter(|line| line.ends_with(" 1")).count();
        if active == 1 { Ok(()) } else { Err(format!("{active} peers")) }
    })
    .await;
    unhealthy(client.member_remove(other_id).await.map(drop));
    let learner = || Some(MemberAddOptions::new().with_is_learner());
    unhealthy(client.member_add(["http://127.0.0.1:1"], learner()).await.map(drop));
    let begun = Instant::now();
    cluster.start(away);
    eventually("adding somebody", || async {
        cluster.client(leader).await.member_add(["http://127.0.0.1:1"], learner()).await
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(5), "the one who was away may go again at once");
    // Who doesn't answer isn't needed.
    cluster.stop(away).await;
    eventually("removing who is away", || async { cluster.client(leader).await.member_remove(away_id).await }).await;
}
