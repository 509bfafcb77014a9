//! Maintenance: status, alarms, who leads.

use store_core::errors::RequestError;
use store_core::mvcc::Answer;
use store_core::wire::command::Request as Command;
use store_core::wire::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, ResponseHeader, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
    alarm_request::AlarmAction,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::services::maintenance_server::Maintenance;
use super::{Service, VERSION, status};
use crate::backup::Plan;
use crate::state::Hashed;

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Maintenance for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Reply<StatusResponse> {
        let position = *self.engine.position().borrow();
        let live = self.engine.state.read().live_bytes();
        let mut errors = Vec::new();
        if position.leader == 0 {
            errors.push(RequestError::NoLeader.to_string());
        }
        errors.extend(self.engine.state.alarms().list(AlarmType::None).iter().map(text));
        Ok(Response::new(StatusResponse {
            header: self.header_now(),
            version: VERSION.to_owned(),
            db_size: self.engine.state.size(),
            leader: position.leader,
            raft_index: position.committed,
            raft_term: position.term,
            raft_applied_index: self.engine.applied(),
            errors,
            db_size_in_use: i64::try_from(live).unwrap_or(i64::MAX),
            db_size_quota: self.config.quota().map_or(self.config.quota_backend_bytes, u64::cast_signed),
            is_learner: self.is_learner(),
            storage_version: VERSION.to_owned(),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn alarm(&self, request: Request<AlarmRequest>) -> Reply<AlarmResponse> {
        let asker = self.asker(&request);
        let request = request.into_inner();
        if let (Ok(AlarmAction::Get), Ok(kind)) = (AlarmAction::try_from(request.action), request.alarm.try_into()) {
            // Whoever looks at health asks for them often: that needn't grow the log, as it does in etcd.
            self.engine.linearize().await.map_err(status)?;
            let alarms = self.engine.state.alarms().list(kind);
            return Ok(Response::new(AlarmResponse { header: self.header_now(), alarms }));
        }
        let (answer, revision) = self.engine.propose(&asker, Command::Alarm(request)).await.map_err(status)?;
        let Answer::Alarms(alarms) = answer else {
            return Err(Status::internal("the answer doesn't fit its command"));
        };
        Ok(Response::new(AlarmResponse { header: self.header(revision), alarms }))
    }

    /// Space is reclaimed as it is freed: there is nothing to defragment, now or ever.
    async fn defragment(&self, _: Request<DefragmentRequest>) -> Reply<DefragmentResponse> {
        // As in etcd, this answer and that of a move have no header.
        Ok(Response::new(DefragmentResponse { header: None }))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Reply<MoveLeaderResponse> {
        // As in etcd, only the leader itself is asked for this.
        if self.engine.position().borrow().leader != self.engine.id {
            return Err(status(RequestError::NotLeader));
        }
        self.engine.move_leader(&self.peers, request.into_inner().target_id).await.map_err(status)?;
        Ok(Response::new(MoveLeaderResponse { header: None }))
    }

    async fn downgrade(&self, request: Request<DowngradeRequest>) -> Reply<DowngradeResponse> {
        self.answer_downgrade(&request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn hash(&self, _: Request<HashRequest>) -> Reply<HashResponse> {
        let Hashed { hash, compacted, revision } = self.hash_kv_at(0).await?;
        // An empty store has one, too, as in etcd.
        let all = [i64::from(hash), compacted, revision].map(i64::to_be_bytes).concat();
        Ok(Response::new(HashResponse { header: self.header_now(), hash: crc32fast::hash(&all) }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Reply<HashKvResponse> {
        let hashed = self.hash_kv_at(request.into_inner().revision).await?;
        Ok(Response::new(HashKvResponse {
            header: self.header_now(),
            hash: hashed.hash,
            // As etcd says that nothing was compacted yet.
            compact_revision: if hashed.compacted == 0 { -1 } else { hashed.compacted },
            hash_revision: hashed.revision,
        }))
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Reply<Self::SnapshotStream> {
        let slot = self.engine.backups.clone().try_acquire_owned().map_err(|_| status(RequestError::Busy))?;
        let copied = self.engine.copy().await.map_err(status)?;
        let header = self.header(copied.header.revision);
        let (sender, answers) = mpsc::channel(PIECES_MAX);
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let read = engine.state.read_values();
            // The member may close while the rest is on its way.
            drop(engine);
            if read.is_err() {
                // Nobody is to find out when he needs it.
                let _ = sender.blocking_send(Err(status(RequestError::Disk)));
                return;
            }
            let failed = |error: std::io::Error| Status::internal(format!("reading the copy of the state: {error}"));
            let sent = Plan::of(&copied.path, &copied.header).and_then(|plan| {
                let pieces = Pieces { sender: sender.clone(), header, left: plan.size() };
                plan.write(std::io::BufWriter::with_capacity(PIECE_BYTES, pieces))
            });
            // A client that went needs no answer.
            let _ = sent.map_err(|error| sender.blocking_send(Err(failed(error))));
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// An alarm the way Go's protobuf writes it, space at the end included.
fn text(alarm: &AlarmMember) -> String {
    let kind = AlarmType::try_from(alarm.alarm).unwrap_or_default().as_str_name();
    format!("memberID:{} alarm:{kind} ", alarm.member_id)
}

/// Bytes of a backup in one message, and messages that wait for the client.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 8;

/// Makes messages of what is written.
struct Pieces {
    sender: mpsc::Sender<Result<SnapshotResponse, Status>>,
    header: Option<ResponseHeader>,
    left: u64,
}

impl std::io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        let piece = SnapshotResponse {
            header: self.header,
            remaining_bytes: self.left,
            blob: bytes.to_vec().into(),
            version: VERSION.to_owned(),
        };
        self.sender.blocking_send(Ok(piece)).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Service {
    async fn hash_kv_at(&self, revision: i64) -> Result<Hashed, Status> {
        let engine = self.engine.clone();
        // Every value is read.
        let hashed = tokio::task::spawn_blocking(move || engine.state.hash_kv(revision)).await;
        hashed.map_err(|_| Status::internal("the hash was abandoned"))?.map_err(status)
    }
}
