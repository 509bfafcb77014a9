//! Messages that are known by their descriptors alone, as gRPC carries them.

use bytes::Buf as _;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Carries messages whose answers are of this type.
pub(super) struct Codec(pub(super) MessageDescriptor);

impl tonic::codec::Codec for Codec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Carrier;
    type Decoder = Carrier;

    fn encoder(&mut self) -> Carrier {
        Carrier(self.0.clone())
    }

    fn decoder(&mut self) -> Carrier {
        Carrier(self.0.clone())
    }
}

/// One direction.
pub(super) struct Carrier(MessageDescriptor);

impl Encoder for Carrier {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Carrier {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        // In one piece, values are parts of it and aren't copied.
        let bytes = bytes.copy_to_bytes(bytes.remaining());
        let message = DynamicMessage::decode(self.0.clone(), bytes);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
