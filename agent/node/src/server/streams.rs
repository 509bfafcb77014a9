//! Exec and attach: the client's WebSocket on one side, the runtime's streams on the other.
//!
//! What either says is `agent_core::streams`' matter.

use std::sync::Arc;
use std::time::Duration;

use agent_core::spdy::Received;
use agent_core::streams::{Options, RESULT, Streams, message};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use k8s_cri::v1 as cri;
use tokio::sync::Mutex;

use super::spdy::{self, SpdyError};
use super::{Place, Refusal, Shared, locate, not_running};
use crate::cri::CriError;

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Bytes of one message from a client.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// How long a runtime may keep its streams after it told the result.
const END_MAX: Duration = Duration::from_secs(2);

/// `GET /exec/…`, upgraded.
pub(super) async fn exec(
    State(shared): State<Shared>,
    place: Place,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let options = Options::parse(&query.unwrap_or_default());
    if options.command.is_empty() {
        return Err(Refusal(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command for the container".to_owned(),
        ));
    }
    let id = running(&shared, &place).await?;
    let request = cri::ExecRequest {
        container_id: id,
        cmd: options.command.clone(),
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let answer = shared.cri.runtime().exec(request).await.map_err(CriError::from)?;
    bridge(shared, upgrade, &headers, answer.into_inner().url, options)
}

/// `GET /attach/…`, upgraded.
pub(super) async fn attach(
    State(shared): State<Shared>,
    place: Place,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let options = Options::parse(&query.unwrap_or_default());
    let id = running(&shared, &place).await?;
    let request = cri::AttachRequest {
        container_id: id,
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let answer = shared.cri.runtime().attach(request).await.map_err(CriError::from)?;
    bridge(shared, upgrade, &headers, answer.into_inner().url, options)
}

async fn running(shared: &Shared, place: &Place) -> Result<String, Refusal> {
    let newest = locate(shared, place).await?.into_iter().next();
    newest.filter(|c| c.running).map(|c| c.id).ok_or_else(|| not_running(place))
}

fn bridge(
    shared: Shared,
    upgrade: WebSocketUpgrade,
    headers: &HeaderMap,
    url: String,
    options: Options,
) -> Result<Response, Refusal> {
    let asked = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let asked: Vec<&str> = asked.flat_map(|v| v.split(',')).map(str::trim).collect();
    if !PROTOCOLS.iter().any(|ours| asked.contains(ours)) {
        let text = format!("none of the stream protocols {asked:?} is spoken here: use {}", PROTOCOLS.join(" or "));
        return Err(Refusal(StatusCode::BAD_REQUEST, text));
    }
    let upgrade = upgrade.protocols(PROTOCOLS).max_message_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        tokio::select! {
            () = shared.shutdown.cancelled() => {}
            result = run(socket, &url, &options) => if let Err(error) = result {
                tracing::debug!(error = &error as &dyn std::error::Error, "a stream ended");
            }
        }
    }))
}

async fn run(socket: WebSocket, url: &str, options: &Options) -> Result<(), SpdyError> {
    let (mut to_client, from_client) = socket.split();
    let opened = open(url, options).await;
    let (sender, receiver, streams) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            say_failure(&mut to_client, &error.to_string()).await;
            return Err(error);
        }
    };
    let sender = Arc::new(Mutex::new(sender));
    tokio::select! {
        result = feed(from_client, &sender, streams) => result,
        result = answer(to_client, receiver, &sender, streams) => result,
    }
}

async fn open(url: &str, options: &Options) -> Result<(spdy::Sender, spdy::Receiver, Streams), SpdyError> {
    let (mut sender, receiver) = spdy::connect(url).await?;
    let mut streams = Streams { result: sender.open("error").await?, ..Streams::default() };
    if options.stdin {
        streams.stdin = sender.open("stdin").await?;
    }
    if options.stdout {
        streams.stdout = sender.open("stdout").await?;
    }
    if options.stderr {
        streams.stderr = sender.open("stderr").await?;
    }
    if options.tty {
        streams.resize = sender.open("resize").await?;
    }
    Ok((sender, receiver, streams))
}

/// From the client to the runtime, until the client goes.
async fn feed(
    mut from_client: SplitStream<WebSocket>,
    sender: &Mutex<spdy::Sender>,
    streams: Streams,
) -> Result<(), SpdyError> {
    while let Some(message) = from_client.next().await {
        let bytes = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Text(text)) => Bytes::from(text),
            // Pings are answered below this layer.
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(_)) | Err(_) => return Ok(()),
        };
        if let Some((stream, bytes, last)) = streams.input(&bytes) {
            sender.lock().await.send(stream, bytes, last).await?;
        }
    }
    Ok(())
}

/// From the runtime to the client, until the runtime is through.
async fn answer(
    mut to_client: SplitSink<WebSocket, Message>,
    mut receiver: spdy::Receiver,
    sender: &Mutex<spdy::Sender>,
    streams: Streams,
) -> Result<(), SpdyError> {
    let mut open = streams.outputs();
    let mut deadline: Option<tokio::time::Instant> = None;
    while !open.is_empty() {
        let received = match deadline {
            None => receiver.next().await?,
            // Outputs that a child of the command holds open may stay so for ever.
            Some(at) => match tokio::time::timeout_at(at, receiver.next()).await {
                Ok(received) => received?,
                Err(_) => break,
            },
        };
        match received {
            Received::Data { stream, bytes, last } => {
                if let Some(channel) = streams.channel(stream).filter(|_| !bytes.is_empty()) {
                    if to_client.send(Message::Binary(message(channel, &bytes))).await.is_err() {
                        return Ok(());
                    }
                    if channel == RESULT {
                        deadline = Some(tokio::time::Instant::now() + END_MAX);
                    }
                }
                if last {
                    open.retain(|id| *id != stream);
                }
            }
            Received::Reset { stream } => open.retain(|id| *id != stream),
            Received::Ping { id } => sender.lock().await.pong(id).await?,
            Received::End => break,
        }
    }
    close(&mut to_client).await;
    Ok(())
}

async fn close(to_client: &mut SplitSink<WebSocket, Message>) {
    // A client that is gone needs no goodbye.
    let goodbye = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let _ = to_client.send(Message::Close(Some(goodbye))).await;
    let _ = to_client.close().await;
}

/// Tells the client in the words of a result.
async fn say_failure(to_client: &mut SplitSink<WebSocket, Message>, reason: &str) {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": "InternalError", "message": reason, "code": 500,
    });
    let _ = to_client.send(Message::Binary(message(RESULT, status.to_string().as_bytes()))).await;
    close(to_client).await;
}
