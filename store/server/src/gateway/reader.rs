//! Messages out of a body as it comes; what they are is `store_core::json`'s matter.

use axum::body::{Body, BodyDataStream};
use bytes::Buf as _;
use futures::StreamExt as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use store_core::errors::RequestError;
use store_core::json::{JsonFault, Messages};
use tonic::Status;

use crate::grpc::status;

/// Of a body that is refused so much more is taken.
const UNREAD_BYTES_MAX: usize = 16 << 20;

/// Reads a body's messages.
pub(super) struct Reader {
    pub(super) body: BodyDataStream,
    messages: Messages,
}

impl Reader {
    /// `bytes_max` is for one message.
    pub(super) fn new(body: Body, kind: MessageDescriptor, bytes_max: usize) -> Self {
        Self { body: body.into_data_stream(), messages: Messages::new(kind, bytes_max) }
    }

    /// The next message; none at the end.
    ///
    /// # Errors
    /// It is too large, or no such message; or the client broke off.
    pub(super) async fn next(&mut self) -> Result<Option<DynamicMessage>, Status> {
        loop {
            match self.messages.poll() {
                Ok(None) => {}
                Ok(message) => return Ok(message),
                Err(fault) => {
                    if fault == JsonFault::TooLarge {
                        pass_over(&mut self.body).await;
                    }
                    return Err(refused(fault));
                }
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.messages.feed(piece.chunk()),
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                None => return self.messages.end().map_err(refused),
            }
        }
    }
}

fn refused(fault: JsonFault) -> Status {
    match fault {
        JsonFault::TooLarge => status(RequestError::TooLarge),
        JsonFault::Unreadable(_) => Status::invalid_argument(fault.to_string()),
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
