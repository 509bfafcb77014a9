//! Messages out of a body: JSON objects one after the other, as they come.

use axum::body::{Body, BodyDataStream};
use bytes::{Buf as _, BytesMut};
use futures::StreamExt as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use store_core::errors::RequestError;
use tonic::Status;

use super::codec::message;
use crate::grpc::status;

/// Of a body that is refused so much more is taken.
const UNREAD_BYTES_MAX: usize = 16 << 20;

/// Looks for the end of a JSON value, each byte once.
#[derive(Debug, Default)]
struct Scan {
    looked_at: usize,
    depth: usize,
    in_text: bool,
    is_escaped: bool,
}

impl Scan {
    /// Where the first value ends, once it is there as a whole. What is no object or list ends where it begins: it
    /// is no message in any case.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(byte) = bytes.get(self.looked_at) {
            self.looked_at += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_text => self.is_escaped = true,
                b'"' if self.depth > 0 => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                _ => {}
            }
            if self.depth == 0 {
                return Some(self.looked_at);
            }
        }
        None
    }
}

/// Reads a body's messages.
pub(super) struct Reader {
    pub(super) body: BodyDataStream,
    kind: MessageDescriptor,
    /// What came and isn't read yet.
    bytes: BytesMut,
    bytes_max: usize,
    scan: Scan,
}

impl Reader {
    /// `bytes_max` is for one message.
    pub(super) fn new(body: Body, kind: MessageDescriptor, bytes_max: usize) -> Self {
        Self { body: body.into_data_stream(), kind, bytes: BytesMut::new(), bytes_max, scan: Scan::default() }
    }

    /// The next message; none at the end.
    ///
    /// # Errors
    /// It is too large, or no such message; or the client broke off.
    pub(super) async fn next(&mut self) -> Result<Option<DynamicMessage>, Status> {
        loop {
            if let Some(end) = self.scan.end(&self.bytes) {
                let text = self.bytes.split_to(end);
                self.scan = Scan::default();
                return message(&self.kind, &text).map(Some);
            }
            if self.bytes.len() > self.bytes_max {
                pass_over(&mut self.body).await;
                return Err(status(RequestError::TooLarge));
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.bytes.extend_from_slice(piece.chunk()),
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                None if self.bytes.trim_ascii().is_empty() => return Ok(None),
                None => return message(&self.kind, &std::mem::take(&mut self.bytes)).map(Some),
            }
        }
    }
}

/// Takes the rest of a body, and keeps nothing of it: most clients listen only when they have sent all, and HTTP/2
/// breaks off who hasn't.
pub(super) async fn pass_over(body: &mut BodyDataStream) {
    let mut unread = 0;
    while let Some(Ok(piece)) = body.next().await {
        unread += piece.len();
        if unread > UNREAD_BYTES_MAX {
            return;
        }
    }
}
