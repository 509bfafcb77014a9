//! The engine with its threads and a disk, without sockets.

use futures::future::join_all;
use store_core::auth::Asker;
use store_core::wire::{CompactionRequest, PutRequest, command::Request};

use super::threads::Running;
use super::*;
use crate::peers::Peers;

/// Keys enough for several slices.
const KEYS: usize = 2_500;

/// A member alone, with its threads.
struct Alone {
    engine: Arc<Engine>,
    running: Running,
    _dir: tempfile::TempDir,
}

impl Alone {
    async fn started() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let config = Config { data_dir: dir.path().to_path_buf(), ..Config::default() };
        let state = open_state(config.data_dir.clone()).await.expect("a state");
        let identity = crate::identity::find(&config, &state, None).await.expect("a founder");
        let opened = open(config, state, identity, 1).await.expect("opened");
        let (engine, stop) = (opened.engine.clone(), CancellationToken::new());
        let peers = Peers::new(&engine, 1, String::new(), None, opened.runtime(), &stop);
        let running = run(opened, peers, stop).expect("threads");
        Self { engine, running, _dir: dir }
    }

    async fn put(&self, key: String, value: &'static str) -> Outcome {
        let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        self.engine.propose(&Asker::Nobody, Request::Put(put)).await
    }

    async fn stop(self) {
        self.engine.send(Input::Stop);
        tokio::task::spawn_blocking(move || self.running.join()).await.expect("ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collection_is_told_when_nothing_is_left_of_what_was_compacted() {
    let alone = Alone::started().await;
    for value in ["old", "new"] {
        let answers = join_all((0..KEYS).map(|n| alone.put(format!("k{n}"), value))).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    let engine = &alone.engine;
    let revision = engine.state.read().revision();
    let compact = CompactionRequest { revision, physical: true };
    engine.propose(&Asker::Nobody, Request::Compact(compact)).await.expect("compacted");
    engine.collected(revision).await.expect("collected");
    let mut left = 0;
    let all = engine.state.each_change(1, revision, |_, _, value| {
        left += 1;
        assert_eq!(value().expect("a value"), "new");
        Ok(true)
    });
    assert_eq!((all, left), (Ok(true), KEYS), "the newest version of each key, and nothing else");
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_are_bounded_in_bytes() {
    let alone = Alone::started().await;
    let all =
        alone.engine.waiting_bytes.clone().try_acquire_many_owned(WAITING_BYTES_MAX as u32).expect("nobody waits");
    assert_eq!(alone.put("k".to_owned(), "v").await, Err(RequestError::Busy));
    drop(all);
    assert!(alone.put("k".to_owned(), "v").await.is_ok());
    assert_eq!(alone.engine.waiting_bytes.available_permits(), WAITING_BYTES_MAX);
    alone.stop().await;
}

/// raft refuses to lose its last voter, which a state never lets happen: the panic ends the member, and nobody waits for ever.
#[tokio::test]
async fn a_member_ends_when_a_thread_panics() {
    let alone = Alone::started().await;
    assert!(alone.put("a".to_owned(), "1").await.is_ok());
    let mut ended = alone.engine.ended.subscribe();
    let mut change = ConfChange { node_id: alone.engine.id, ..ConfChange::default() };
    change.set_change_type(raft::eraftpb::ConfChangeType::RemoveNode);
    let members = alone.engine.members().borrow().clone();
    let change = Some((u64::MAX, Box::new(change)));
    alone.engine.tell(Input::Members { change, members: Box::new(members) });
    let why = ended.wait_for(Option::is_some).await.expect("an end").clone();
    assert!(matches!(why, Some(End::Panicked("store-raft"))), "{why:?}");
    assert!(alone.put("b".to_owned(), "2").await.is_err());
    alone.stop().await;
}
