//! The accepting side: greetings are answered, frames given to the engine.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use store_core::peers::{Frame, Greeting, Purpose, Reception};
use store_core::replica::is_snapshot;
use store_core::wire::{PeerAnswer, PeerQuestion};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::dial::GREET_MAX;
use super::frame::{read_frame, read_greeting, write_bytes, write_reception};
use super::{PeerTls, Peers, transfer};
use crate::engine::Input;
use crate::tls::tell_refused;

/// Pause after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections at once: more than any cluster has members.
const CONNECTIONS_MAX: usize = 256;
/// Questions of one peer that are being answered; more are dropped, and asked again.
const QUESTIONS_MAX: usize = 1024;

/// Accepts peers' connections.
pub(super) async fn serve(listener: TcpListener, tls: Option<PeerTls>, peers: Arc<Peers>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (tls, peers, shutdown) = (tls.clone(), peers.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let result = tokio::select! {
                () = shutdown.cancelled() => return,
                result = accept(stream, tls, &peers) => result,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a peer's connection ended");
            }
        });
    }
}

async fn accept(stream: TcpStream, tls: Option<PeerTls>, peers: &Arc<Peers>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => receive(stream, peers).await,
        Some(tls) => {
            let handshake = tokio_rustls::TlsAcceptor::from(tls.server.get()).accept(stream);
            let shaken = tokio::time::timeout(GREET_MAX, handshake).await?;
            let stream = shaken.inspect_err(|e| tell_refused(e, "rejected connection on peer endpoint"))?;
            receive(stream, peers).await
        }
    }
}

async fn receive(stream: impl AsyncRead + AsyncWrite + Unpin, peers: &Arc<Peers>) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let greeting = tokio::time::timeout(GREET_MAX, read_greeting(&mut stream)).await??;
    let reception = peers.receive(&greeting);
    write_reception(&mut stream, reception).await?;
    if reception != Reception::Welcome {
        return Ok(());
    }
    if greeting.purpose == Purpose::Join {
        let members = peers.engine.members().borrow().to_wire().encode_to_vec();
        write_bytes(&mut stream, &members).await?;
        return stream.flush().await;
    }
    if greeting.purpose == Purpose::Snapshot {
        return transfer::receive(&mut stream, peers, greeting.from).await;
    }
    peers.meet(greeting.from, &greeting.url);
    let mut members = peers.engine.members();
    let was_removed = members.wait_for(|members| members.was_removed(greeting.from));
    let ended = tokio::select! {
        // Who is removed is told so when it dials again.
        _ = was_removed => Ok(()),
        ended = listen(&mut stream, &greeting, peers) => ended,
    };
    if ended.is_err() && peers.has_ended(greeting.from).await {
        peers.engine.send(Input::Gone(greeting.from));
    }
    ended
}

async fn listen(stream: &mut (impl AsyncRead + Unpin), greeting: &Greeting, peers: &Arc<Peers>) -> std::io::Result<()> {
    let from = greeting.from;
    let slots = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let received = peers.engine.metrics.peers.received(from);
    loop {
        let (frame, bytes) = read_frame(stream).await?;
        received.inc_by(bytes);
        match frame {
            Frame::Raft(message) if message.from == from && message.to == greeting.to && !is_snapshot(&message) => {
                peers.engine.send(Input::Message(message));
            }
            Frame::Raft(_) => return Err(std::io::Error::other("a message that has no place here")),
            Frame::Answer(PeerAnswer { nonce, answer }) => peers.engine.peer_answered(nonce, answer),
            Frame::Question(PeerQuestion { nonce, question: Some(question) }) => {
                let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
                let peers = peers.clone();
                peers.runtime.clone().spawn(async move {
                    let _slot = slot;
                    let answer = peers.engine.answer_as_leader(&peers, question).await;
                    peers.answer(from, nonce, answer);
                });
            }
            Frame::Question(PeerQuestion { question: None, .. }) => {}
            Frame::Ping(made) => {
                // One that is lost isn't measured.
                peers.put(from, Frame::Pong(made));
            }
            Frame::Pong(made) => peers.engine.metrics.peers.pong(from, made),
        }
    }
}

impl Peers {
    /// How somebody who greets is received.
    fn receive(&self, greeting: &Greeting) -> Reception {
        match greeting {
            Greeting { purpose: Purpose::Join, .. } => Reception::Welcome,
            Greeting { cluster_id, .. } if *cluster_id != self.cluster_id => Reception::OtherCluster,
            Greeting { to, .. } if *to != self.engine.id => Reception::OtherMember,
            // Only refused: whoever reaches this port could claim it. The member learns it where it dials.
            _ if self.expects_other_folder(greeting) => Reception::OtherMember,
            Greeting { from, .. } if self.engine.members().borrow().was_removed(*from) => Reception::Removed,
            Greeting { from, from_folder, .. } if self.had_other_folder(*from, *from_folder) => Reception::Wiped,
            _ => Reception::Welcome,
        }
    }

    fn had_other_folder(&self, id: u64, folder: u64) -> bool {
        self.engine.members().borrow().folder(id).is_some_and(|known| known != folder)
    }

    /// Whether somebody looks for this member as it was before it lost its folder.
    fn expects_other_folder(&self, greeting: &Greeting) -> bool {
        let is_for_this = greeting.cluster_id == self.cluster_id && greeting.to == self.engine.id;
        is_for_this && greeting.to_folder != 0 && greeting.to_folder != self.engine.folder
    }
}
