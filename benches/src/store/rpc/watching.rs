//! A stream of watchers: events are looked through where they lie, and nothing of them is kept.

#[cfg(test)]
pub(in crate::store) mod tests;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::StatusCode;

use super::fields::{Value, whole};
use super::messages::{Create, Watch};
use super::{ANSWER_MAX, Caller, Error, HEAD, Rpc, broken, framed, status};
use crate::store::CONNECT_MAX;

const CREATED: u64 = 3;
const CANCELED: u64 = 4;
const CANCEL_REASON: u64 = 6;
const EVENTS: u64 = 11;
const EVENT_KV: u64 = 2;
const VALUE: u64 = 5;

/// What an answer says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Said {
    /// A watcher is there.
    pub(in crate::store) created: bool,
    /// A watcher is no more, and why.
    pub(in crate::store) canceled: Option<String>,
}

/// A stream on which watchers are.
pub(in crate::store) struct Stream {
    /// Open for as long as the stream is.
    requests: SendStream<Bytes>,
    answers: RecvStream,
    messages: Messages,
}

impl Caller {
    /// Opens a stream with its first watcher. Members that can't be reached don't shorten the time for the answer.
    pub(in crate::store) async fn watch(&mut self, first: Create) -> Result<Stream, Error> {
        let (at, mut open) = self.ready().await?;
        let head = self.members[at].heads[Rpc::Watch as usize].clone();
        let (response, mut requests) = open.send_request(head, false).map_err(broken)?;
        self.open[at] = Some(open);
        // A store may answer nothing, not even headers, before it is asked for a watcher.
        requests.send_data(framed(&Watch { create: Some(first) })?, false).map_err(broken)?;
        let response = tokio::time::timeout(CONNECT_MAX, response).await;
        let response =
            response.map_err(|_| Error::Unavailable(format!("no answer to a watch within {CONNECT_MAX:?}")))?;
        let (head, answers) = response.map_err(broken)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Error::Unavailable(format!("HTTP {}", head.status)));
        }
        if head.headers.contains_key("grpc-status") {
            status(&head.headers)?;
            return Err(Error::Wrong("a watch without an answer"));
        }
        Ok(Stream { requests, answers, messages: Messages::default() })
    }
}

impl Stream {
    /// Asks for one more watcher. Of a stream that has ended, reading says why.
    pub(in crate::store) fn ask(&mut self, create: Create) -> Result<(), Error> {
        let _ = self.requests.send_data(framed(&Watch { create: Some(create) })?, false);
        Ok(())
    }

    /// Waits for the next bytes, hands over each event's value, and each answer that says more than events; `false` once
    /// the stream has ended. Nothing is lost if nobody waits any more.
    pub(in crate::store) async fn read(
        &mut self,
        event: impl FnMut(&[u8]),
        said: impl FnMut(Said),
    ) -> Result<bool, Error> {
        let Some(piece) = self.answers.data().await else {
            let trailers = self.answers.trailers().await.map_err(broken)?;
            status(&trailers.unwrap_or_default())?;
            return self.messages.end().map(|()| false);
        };
        let piece = piece.map_err(broken)?;
        self.answers.flow_control().release_capacity(piece.len()).map_err(broken)?;
        self.messages.take(&piece, event, said)?;
        Ok(true)
    }
}

/// Cuts bytes into messages.
#[derive(Default)]
pub(super) struct Messages {
    /// The beginning of a message whose end didn't come yet; its memory serves for the next.
    begun: Vec<u8>,
}

impl Messages {
    pub(super) fn take(
        &mut self,
        mut piece: &[u8],
        mut event: impl FnMut(&[u8]),
        mut said: impl FnMut(Said),
    ) -> Result<(), Error> {
        while !self.begun.is_empty() && !piece.is_empty() {
            let wanted = length(&self.begun)?.map_or(HEAD, |length| HEAD + length);
            let (more, rest) = piece.split_at(piece.len().min(wanted - self.begun.len()));
            self.begun.extend_from_slice(more);
            piece = rest;
            if length(&self.begun)?.is_some_and(|length| self.begun.len() == HEAD + length) {
                look(&self.begun[HEAD..], &mut event, &mut said)?;
                self.begun.clear();
            }
        }
        // What is whole in a piece is looked through where it lies.
        while let Some(length) = length(piece)?.filter(|length| piece.len() >= HEAD + length) {
            let (message, rest) = piece.split_at(HEAD + length);
            look(&message[HEAD..], &mut event, &mut said)?;
            piece = rest;
        }
        self.begun.extend_from_slice(piece);
        Ok(())
    }

    /// Whether nothing is missing.
    fn end(&self) -> Result<(), Error> {
        if self.begun.is_empty() { Ok(()) } else { Err(Error::Wrong("an answer is cut off")) }
    }
}

/// How long a message is, once its head has come.
fn length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(([compressed, length @ ..], _)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if *compressed != 0 || length > ANSWER_MAX {
        return Err(Error::Wrong("an answer is compressed, or too large"));
    }
    Ok(Some(length))
}

fn look(message: &[u8], event: &mut impl FnMut(&[u8]), said: &mut impl FnMut(Said)) -> Result<(), Error> {
    let (mut all, mut unread, mut reason) = (Said::default(), Ok(()), String::new());
    whole(message, |field| match (field.tag, field.value) {
        (CREATED, Value::Number(created)) => all.created = created != 0,
        (CANCELED, Value::Number(canceled)) => all.canceled = (canceled != 0).then(String::new),
        (CANCEL_REASON, Value::Bytes(why)) => reason = String::from_utf8_lossy(why).into_owned(),
        (EVENTS, Value::Bytes(bytes)) => match value(bytes) {
            Ok(value) => event(value),
            Err(error) => unread = Err(error),
        },
        _ => {}
    })?;
    unread?;
    if let Some(canceled) = &mut all.canceled {
        *canceled = reason;
    }
    if all != Said::default() {
        said(all);
    }
    Ok(())
}

/// The value of an event's key; empty of a deletion.
fn value(event: &[u8]) -> Result<&[u8], Error> {
    let (mut value, mut unread) = (&[][..], Ok(()));
    whole(event, |field| {
        if let (EVENT_KV, Value::Bytes(kv)) = (field.tag, field.value) {
            unread = whole(kv, |field| {
                if let (VALUE, Value::Bytes(bytes)) = (field.tag, field.value) {
                    value = bytes;
                }
            });
        }
    })?;
    unread.map(|()| value)
}
