//! What members did in consensus is a behaviour of Raft: their traces say so.

use std::fs::File;
use std::io::BufReader;

use models::traces::{self, Trace};
use tokio::task::JoinSet;

use super::members::{Members, client_url};
use super::network::MEMBERS;
use super::{among_clients, leader};

/// Clients that put at once, and how often each does.
const CLIENTS: usize = 32;
const PUTS: usize = 150;

/// Ends the members and judges their traces; keeps them if they are none of Raft's.
pub(super) fn validate(members: &mut Members) {
    // A trace that is still written to has messages that nobody has sent yet.
    members.kill_all();
    let traces: Vec<Trace> = (0..MEMBERS).map(|member| read(members, member)).collect();
    let verdict = traces::validate(&traces).expect("a trace of each member");
    verdict.print(&mut std::io::stdout()).expect("printed");
    if !verdict.holds() {
        let kept = std::env::temp_dir().join(format!("keelson-traces-{}", std::process::id()));
        std::fs::create_dir_all(&kept).expect("a folder");
        for member in 0..MEMBERS {
            std::fs::copy(members.trace(member), kept.join(format!("m{member}.trace"))).expect("a copy");
        }
        panic!("check them again: cargo run -p models --release -- validate trace {}/*", kept.display());
    }
    let seen = verdict.seen;
    assert!(seen.leaders > 0 && seen.messages > 1_000 && seen.committed > 100, "little happened: {seen:?}");
}

fn read(members: &Members, member: usize) -> Trace {
    let file = File::open(members.trace(member)).expect("a trace");
    Trace::read(&format!("m{member}.trace"), &mut BufReader::new(file)).expect("lines of a trace")
}

/// Many clients put while one member after the other is asked to lead.
#[test]
fn what_a_busy_cluster_does_is_raft() {
    let folder = tempfile::tempdir().expect("a folder");
    among_clients(Members::start(folder.path()), |mut members| async move {
        leader().await;
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(puts(client));
        }
        for _ in 0..4 {
            hand_over().await;
        }
        let acknowledged: usize = clients.join_all().await.into_iter().sum();
        println!("{acknowledged} puts acknowledged");
        assert!(acknowledged > CLIENTS * PUTS / 2, "{acknowledged} puts were acknowledged");
        validate(&mut members);
    });
}

/// How many of them were acknowledged: leaders change meanwhile.
async fn puts(client: usize) -> usize {
    let mut store = etcd_client::Client::connect([client_url(client % MEMBERS)], None).await.expect("a client");
    let mut acknowledged = 0;
    for number in 0..PUTS {
        acknowledged += usize::from(store.put(format!("k{client}"), number.to_string(), None).await.is_ok());
    }
    acknowledged
}

/// Asks the next member to lead; it may have become so, or another, by the end.
async fn hand_over() {
    let from = leader().await;
    let mut next = etcd_client::Client::connect([client_url((from + 1) % MEMBERS)], None).await.expect("a client");
    let target = next.status().await.expect("a status").header().map_or(0, etcd_client::ResponseHeader::member_id);
    let mut leads = etcd_client::Client::connect([client_url(from)], None).await.expect("a client");
    // Refused if another leads by now.
    let _ = leads.move_leader(target).await;
}
