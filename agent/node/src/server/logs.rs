//! A container's log: the last lines, since a moment, followed.
//!
//! How the runtime writes it is `agent_core::logs`'s matter.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_core::logs::{Tail, parse};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Place, Refusal, Shared, locate, not_running};
use crate::spec;

/// Bytes of a line that are read; the runtime splits at 16 KiB.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Pieces on their way to a slow reader.
const PIECES_MAX: usize = 16;
/// Bytes of a piece, at least, unless there is no more to send.
const PIECE_BYTES: usize = 16 << 10;
/// How often a followed log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// Lines a tail may ask to hold in memory.
const TAIL_MAX: usize = 1_000_000;

/// What is asked. Source: `PodLogOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Options {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    limit_bytes: Option<u64>,
}

fn is_on(flag: Option<&str>) -> bool {
    matches!(flag, Some("true" | "1" | ""))
}

/// `GET /containerLogs/…`.
pub(super) async fn serve(
    State(shared): State<Shared>,
    place: Place,
    options: Result<Query<Options>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(options) = options.map_err(|e| Refusal(StatusCode::BAD_REQUEST, e.body_text()))?;
    let containers = locate(&shared, &place).await?;
    let index = usize::from(is_on(options.previous.as_deref()));
    let Some(container) = containers.get(index) else {
        let (_, pod, container) = &place.0;
        if index == 0 {
            return Err(not_running(&place));
        }
        let text = format!("previous terminated container {container:?} in pod {pod:?} not found");
        return Err(Refusal(StatusCode::BAD_REQUEST, text));
    };
    let (namespace, pod, name) = &place.0;
    let dir = spec::log_dir(&shared.data_dir, namespace, pod, &container.uid);
    let path = dir.join(spec::log_file(name, container.attempt));
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let id = container.id.clone();
    tokio::spawn(async move {
        let mut reader = Reader::new(&shared, path, id, &options, sender);
        if let Err(error) = reader.run().await {
            tracing::debug!(%error, "a log could not be read on");
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

struct Reader<'a> {
    shared: &'a Shared,
    path: PathBuf,
    id: String,
    follow: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<usize>,
    left: u64,
    piece: Vec<u8>,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    /// Whether the line before was only part of one.
    inside: bool,
}

impl<'a> Reader<'a> {
    fn new(
        shared: &'a Shared,
        path: PathBuf,
        id: String,
        options: &Options,
        sender: mpsc::Sender<std::io::Result<Bytes>>,
    ) -> Self {
        let ago =
            options.since_seconds.map(|s| Timestamp::now() - SignedDuration::from_secs(s.clamp(0, i32::MAX.into())));
        Self {
            shared,
            path,
            id,
            follow: is_on(options.follow.as_deref()),
            timestamps: is_on(options.timestamps.as_deref()),
            since: options.since_time.or(ago),
            tail: options.tail_lines.and_then(|n| usize::try_from(n).ok()).map(|n| n.min(TAIL_MAX)),
            left: options.limit_bytes.unwrap_or(u64::MAX),
            piece: Vec::new(),
            sender,
            inside: false,
        }
    }

    async fn run(&mut self) -> std::io::Result<()> {
        let mut file = self.open().await?;
        let mut pending = Vec::new();
        if let Some(tail) = self.tail {
            self.send_tail(&mut file, tail).await?;
        }
        loop {
            if !self.send_lines(&mut file, &mut pending).await? || !self.flush().await {
                return Ok(());
            }
            if !self.follow {
                return Ok(());
            }
            // Asked before the last look, so that nothing written before the end is missed.
            let running = self.is_running().await;
            if !running {
                self.send_lines(&mut file, &mut pending).await?;
                self.flush().await;
                return Ok(());
            }
            tokio::select! {
                () = self.shared.shutdown.cancelled() => return Ok(()),
                () = self.sender.closed() => return Ok(()),
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
            if self.was_rotated(&file).await {
                self.send_lines(&mut file, &mut pending).await?;
                file = self.open().await?;
            }
        }
    }

    async fn open(&self) -> std::io::Result<BufReader<File>> {
        File::open(&self.path).await.map(BufReader::new)
    }

    async fn is_running(&self) -> bool {
        let status = self.shared.cri.container_status(&self.id).await;
        status.is_ok_and(|s| s.state == k8s_cri::v1::ContainerState::ContainerRunning as i32)
    }

    /// Whether the path leads to another file than the one that is read.
    async fn was_rotated(&self, file: &BufReader<File>) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let (Ok(ours), Ok(named)) = (file.get_ref().metadata().await, tokio::fs::metadata(&self.path).await) else {
            return false;
        };
        ours.ino() != named.ino()
    }

    /// Reads all there is and keeps the last lines; the file is then at its end.
    async fn send_tail(&mut self, file: &mut BufReader<File>, tail: usize) -> std::io::Result<()> {
        let mut last = Tail::new(tail);
        let mut line = Vec::new();
        while read_line(file, &mut line).await? {
            last.push(std::mem::take(&mut line));
        }
        for line in last.into_lines() {
            if !self.send_line(&line).await {
                break;
            }
        }
        Ok(())
    }

    /// Sends whole lines up to the end of the file; `false` if no more is wanted.
    async fn send_lines(&mut self, file: &mut BufReader<File>, pending: &mut Vec<u8>) -> std::io::Result<bool> {
        while read_line(file, pending).await? {
            let line = std::mem::take(pending);
            if !self.send_line(&line).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn send_line(&mut self, line: &[u8]) -> bool {
        let Some(parsed) = parse(line) else { return true };
        if self.since.is_some_and(|since| parsed.time.parse::<Timestamp>().is_ok_and(|at| at < since)) {
            return true;
        }
        let mut out = Vec::with_capacity(line.len() + 1);
        if self.timestamps && !self.inside {
            out.extend_from_slice(parsed.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(parsed.text);
        if !parsed.partial {
            out.push(b'\n');
        }
        self.inside = parsed.partial;
        out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= out.len() as u64;
        self.piece.extend_from_slice(&out);
        if self.left == 0 {
            self.flush().await;
            return false;
        }
        self.piece.len() < PIECE_BYTES || self.flush().await
    }

    /// `false` if nobody reads any more.
    async fn flush(&mut self) -> bool {
        if self.piece.is_empty() {
            return true;
        }
        self.sender.send(Ok(Bytes::from(std::mem::take(&mut self.piece)))).await.is_ok()
    }
}

/// Reads a line without its end into `line`, which may hold its beginning; `false` if its end isn't there yet.
async fn read_line(file: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        let available = file.fill_buf().await?;
        if available.is_empty() {
            return Ok(false);
        }
        let (used, ended) = match available.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (available.len(), false),
        };
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&available[..(used - usize::from(ended)).min(room)]);
        file.consume(used);
        if ended {
            return Ok(true);
        }
    }
}

/// Log files above this many bytes are put aside, one old file kept.
pub(crate) const LOG_BYTES_MAX: u64 = 10 << 20;

/// The file to put a full log aside to.
pub(crate) fn aside(path: &Path) -> PathBuf {
    path.with_extension("log.old")
}
