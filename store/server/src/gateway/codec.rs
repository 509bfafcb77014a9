//! Messages that are known by their descriptors alone, as gRPC carries them and as JSON.

use bytes::Buf as _;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::{Serialize, Serializer};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

/// As etcd's gateway writes: names as in the protos, nothing that is zero or empty.
const WRITTEN: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);
/// As it reads: names of either form, and fields that nobody knows are passed over.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);

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

/// A message from a JSON object.
///
/// # Errors
/// What can't be read, and where.
pub(super) fn message(kind: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Status> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    DynamicMessage::deserialize_with_options(kind.clone(), &mut reader, &READ)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// A message to be written as JSON.
pub(super) struct Shown<'a>(pub(super) &'a DynamicMessage);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_with_options(serializer, &WRITTEN)
    }
}
