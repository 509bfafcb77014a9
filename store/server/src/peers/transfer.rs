//! Snapshots on their way: the files of a copy of the state, over a connection of their own.
//!
//! First the raft message, then the files as `store_core::transfer` says. The receiver answers with
//! one byte when the snapshot is loaded and raft has decided on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::Message;
use store_core::peers::{Frame, Purpose, Reception};
use store_core::replica::is_snapshot;
use store_core::transfer::{Arrived, CHUNK_BYTES_MAX, END, Incoming, length, sum};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Peers;
use super::dial::{GREET_MAX, greet};
use super::frame::{read_exactly, read_frame, write_frame};
use crate::engine::{Copied, Input};
use crate::metrics::Metrics;

/// How long the other side may keep this one waiting: who hangs must not hold up the next snapshot for ever.
#[derive(Clone, Copy)]
struct Patience {
    /// For a chunk, a name, an end.
    step: Duration,
    /// For the receiver's loading.
    load: Duration,
}

const PATIENCE: Patience = Patience { step: Duration::from_secs(30), load: Duration::from_secs(600) };

async fn within<T>(limit: Duration, step: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(limit, step).await?
}

fn wrong(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

/// Sends a snapshot beside everything else, and tells the engine how it went.
pub(super) fn start(peers: &Peers, message: Message) {
    let peer = message.to;
    let urls = peers.peers.lock().get(&peer).map(|peer| peer.urls.clone()).unwrap_or_default();
    let copied = peers.engine.copied(message.get_snapshot().get_metadata());
    let (engine, sending, tls) = (peers.engine.clone(), peers.sending.clone(), peers.tls.clone());
    let greeting = peers.greeting(Purpose::Snapshot, peer);
    let shutdown = peers.shutdown.clone();
    peers.runtime.spawn(async move {
        let send = async {
            let copied = copied.ok_or_else(|| wrong("the copy was taken back"))?;
            let _slot = sending.acquire().await.map_err(wrong)?;
            // Chunks carry checksums of what is on disk, be it damaged: only the database knows.
            let (read, begun) = (engine.clone(), tokio::time::Instant::now());
            tokio::task::spawn_blocking(move || read.state.read_values()).await.map_err(wrong)?.map_err(wrong)?;
            tracing::info!(peer = format!("{peer:x}"), took = ?begun.elapsed(), "read what a snapshot will hold");
            let mut last = wrong("the peer has no URL");
            for url in &urls {
                match tokio::time::timeout(GREET_MAX, greet(url, tls.clone(), &greeting)).await? {
                    Ok((mut stream, Reception::Welcome)) => {
                        return send(&mut stream, &engine.metrics, message, &copied, PATIENCE).await;
                    }
                    Ok((_, other)) => last = wrong(format!("refused: {other:?}")),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let sent = tokio::select! {
            () = shutdown.cancelled() => return,
            sent = send => sent,
        };
        if let Err(error) = &sent {
            tracing::warn!(peer = format!("{peer:x}"), %error, "sending a snapshot");
        }
        engine.send(Input::SnapshotSent { peer, delivered: sent.is_ok() });
    });
}

async fn send(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    metrics: &Metrics,
    message: Message,
    copied: &Copied,
    patience: Patience,
) -> std::io::Result<()> {
    let begun = tokio::time::Instant::now();
    let peer = message.to;
    within(patience.step, write_frame(stream, &Frame::Raft(Box::new(message)))).await?;
    let bytes = send_files(stream, &copied.path, patience).await?;
    within(patience.load, stream.read_u8()).await?;
    metrics.peers.sent(peer).inc_by(bytes);
    let peer = format!("{peer:x}");
    tracing::info!(peer, index = copied.metadata.index, bytes, took = ?begun.elapsed(), "sent a snapshot");
    Ok(())
}

async fn send_files(stream: &mut (impl AsyncWrite + Unpin), from: &Path, patience: Patience) -> std::io::Result<u64> {
    let mut bytes = 0;
    let mut files = tokio::fs::read_dir(from).await?;
    while let Some(file) = files.next_entry().await? {
        let name = file.file_name();
        let name = name.as_encoded_bytes();
        within(patience.step, write_all(stream, [&length(name), name])).await?;
        bytes += send_file(stream, &file.path(), patience).await?;
    }
    let end = async {
        stream.write_all(&END).await?;
        stream.flush().await
    };
    within(patience.step, end).await?;
    Ok(bytes)
}

async fn send_file(stream: &mut (impl AsyncWrite + Unpin), path: &Path, patience: Patience) -> std::io::Result<u64> {
    let mut file = File::open(path).await?;
    let (mut chunk, mut bytes) = (Vec::with_capacity(CHUNK_BYTES_MAX), 0);
    loop {
        chunk.clear();
        (&mut file).take(CHUNK_BYTES_MAX as u64).read_to_end(&mut chunk).await?;
        if chunk.is_empty() {
            within(patience.step, write_all(stream, [&END])).await?;
            return Ok(bytes);
        }
        within(patience.step, write_all(stream, [&length(&chunk)[..], &chunk, &sum(&chunk)])).await?;
        bytes += chunk.len() as u64;
    }
}

async fn write_all<const N: usize>(stream: &mut (impl AsyncWrite + Unpin), parts: [&[u8]; N]) -> std::io::Result<()> {
    for part in parts {
        stream.write_all(part).await?;
    }
    Ok(())
}

/// Receives a snapshot, loads it beside the state in use and gives it to raft.
pub(super) async fn receive(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    peers: &Arc<Peers>,
    from: u64,
) -> std::io::Result<()> {
    let Ok(_slot) = peers.receiving.try_acquire() else { return Err(wrong("another snapshot is coming already")) };
    let (Frame::Raft(message), _) = within(PATIENCE.step, read_frame(stream)).await? else {
        return Err(wrong("a snapshot without its message"));
    };
    if !is_snapshot(&message) || message.from != from || message.to != peers.engine.id {
        return Err(wrong("a snapshot's message that has no place here"));
    }
    let metadata = message.get_snapshot().get_metadata().clone();
    let room = peers.engine.state.make_room(&metadata).map_err(wrong)?;
    let (begun, metrics) = (tokio::time::Instant::now(), &peers.engine.metrics);
    receive_files(stream, room.path(), metrics, PATIENCE).await?;
    metrics.snapshot_save.observe(begun.elapsed().as_secs_f64());
    let engine = peers.engine.clone();
    let load = move || engine.state.receive(room, &metadata);
    let received = tokio::task::spawn_blocking(load).await.map_err(wrong)?.map_err(wrong)?;
    peers.engine.take_snapshot(*message, received).await.map_err(wrong)?;
    stream.write_u8(0).await?;
    stream.flush().await
}

async fn receive_files(
    stream: &mut (impl AsyncRead + Unpin),
    folder: &Path,
    metrics: &Metrics,
    patience: Patience,
) -> std::io::Result<()> {
    let mut incoming = Incoming::default();
    let mut open = None;
    loop {
        match (within(patience.step, arrives(stream, &mut incoming)).await?, &mut open) {
            (Arrived::File(name), _) => open = Some(File::create(folder.join(name)).await?),
            (Arrived::Chunk(chunk), Some(file)) => file.write_all(&chunk).await?,
            (Arrived::FileEnd, Some(file)) => {
                let begun = tokio::time::Instant::now();
                file.sync_all().await?;
                metrics.snapshot_sync.observe(begun.elapsed().as_secs_f64());
                open = None;
            }
            // Names, too, must survive a power cut.
            (Arrived::End, _) => return std::fs::File::open(folder)?.sync_all(),
            (arrived, None) => return Err(wrong(format!("{arrived:?} of no file"))),
        }
    }
}

/// What comes next of a copy.
async fn arrives(stream: &mut (impl AsyncRead + Unpin), incoming: &mut Incoming) -> std::io::Result<Arrived> {
    loop {
        let bytes = read_exactly(stream, incoming.wants()).await?;
        if let Some(arrived) = incoming.handle(bytes).map_err(wrong)? {
            return Ok(arrived);
        }
    }
}

#[cfg(test)]
mod tests;
