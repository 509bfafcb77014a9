//! What peers say to each other, and how a connection begins.
//!
//! A connection carries frames one way, from who dialled: a length, a kind, a message. It begins
//! with a greeting, which is answered by one byte, so that nobody talks to the wrong cluster, to
//! another member behind the same address, or on behalf of a member that was removed.

use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::Message;
use store_core::wire::{PeerAnswer, PeerQuestion};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Larger than any message: entries come in batches of a MiB or alone, and a request is a few MiB at most.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// A greeting names one URL.
const GREETING_BYTES_MAX: usize = 4096;
/// Tells this protocol, and its version, from others.
const MAGIC: [u8; 5] = *b"KLSN\x01";

/// What goes to a peer.
pub(crate) enum Frame {
    Raft(Box<Message>),
    Question(PeerQuestion),
    Answer(PeerAnswer),
    /// To be sent back as a [`Frame::Pong`]; its maker's microseconds.
    Ping(u64),
    Pong(u64),
}

const RAFT: u8 = 0;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;

fn wrong(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

impl Frame {
    fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Frame::Raft(message) => {
                out.push(RAFT);
                message.write_to_vec(&mut out).map_err(wrong)?;
            }
            Frame::Question(question) => {
                out.push(QUESTION);
                question.encode(&mut out).map_err(wrong)?;
            }
            Frame::Answer(answer) => {
                out.push(ANSWER);
                answer.encode(&mut out).map_err(wrong)?;
            }
            Frame::Ping(made) => {
                out.push(PING);
                out.extend_from_slice(&made.to_be_bytes());
            }
            Frame::Pong(made) => {
                out.push(PONG);
                out.extend_from_slice(&made.to_be_bytes());
            }
        }
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> std::io::Result<Self> {
        let (kind, rest) = bytes.split_first().ok_or_else(|| wrong("an empty frame"))?;
        match *kind {
            RAFT => Ok(Frame::Raft(Box::new(Message::parse_from_bytes(rest).map_err(wrong)?))),
            QUESTION => Ok(Frame::Question(PeerQuestion::decode(rest).map_err(wrong)?)),
            ANSWER => Ok(Frame::Answer(PeerAnswer::decode(rest).map_err(wrong)?)),
            PING => Ok(Frame::Ping(u64::from_be_bytes(rest.try_into().map_err(wrong)?))),
            PONG => Ok(Frame::Pong(u64::from_be_bytes(rest.try_into().map_err(wrong)?))),
            other => Err(wrong(format!("a frame of unknown kind {other}"))),
        }
    }

    /// Writes it; returns its length.
    pub(crate) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<u64> {
        let bytes = self.encode()?;
        write_bytes(stream, &bytes).await?;
        Ok(bytes.len() as u64)
    }

    /// Reads one, and its length.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(Self, u64)> {
        let bytes = read_bytes(stream, FRAME_BYTES_MAX).await?;
        Ok((Self::decode(&bytes)?, bytes.len() as u64))
    }
}

/// A length and the bytes.
pub(crate) async fn write_bytes(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    stream.write_u32(u32::try_from(bytes.len()).map_err(wrong)?).await?;
    stream.write_all(bytes).await
}

/// Bytes behind their length, which is at most `limit`.
pub(crate) async fn read_bytes(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if length > limit {
        return Err(wrong(format!("{length} bytes where at most {limit} are allowed")));
    }
    let mut bytes = Vec::new();
    // Space grows with what really comes, not with what was announced.
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

/// What somebody who dials wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To send frames.
    #[default]
    Talk,
    /// To be told the members, before it is one of them.
    Join,
    /// To send one snapshot.
    Snapshot,
}

/// How a connection begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) purpose: Purpose,
    pub(crate) cluster_id: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Where the sender can be reached: the other side may not know it yet.
    pub(crate) url: String,
    /// The sender's folder.
    pub(crate) from_folder: u64,
    /// The folder that the receiver had when it last told; 0 if it didn't.
    pub(crate) to_folder: u64,
}

/// How a greeting is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reception {
    Welcome,
    /// The address belongs to another cluster.
    OtherCluster,
    /// Another member is at this address.
    OtherMember,
    /// The sender isn't a member any more.
    Removed,
    /// The sender had another folder before.
    Wiped,
}

impl Greeting {
    pub(crate) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(match self.purpose {
            Purpose::Talk => 0,
            Purpose::Join => 1,
            Purpose::Snapshot => 2,
        });
        for word in [self.cluster_id, self.from, self.to, self.from_folder, self.to_folder] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(self.url.as_bytes());
        write_bytes(stream, &bytes).await?;
        stream.flush().await
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let bytes = read_bytes(stream, GREETING_BYTES_MAX).await?;
        let rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| wrong("not a member of this version"))?;
        let purpose = match rest.first() {
            Some(0) => Purpose::Talk,
            Some(1) => Purpose::Join,
            Some(2) => Purpose::Snapshot,
            _ => return Err(wrong("a greeting for an unknown purpose")),
        };
        let word = |at: usize| -> std::io::Result<u64> {
            let bytes = rest.get(at..at + 8).and_then(|w| w.try_into().ok());
            bytes.map(u64::from_be_bytes).ok_or_else(|| wrong("a greeting is cut short"))
        };
        let (cluster_id, from, to) = (word(1)?, word(9)?, word(17)?);
        let url = String::from_utf8(rest.get(41..).unwrap_or_default().to_vec()).map_err(wrong)?;
        Ok(Self { purpose, cluster_id, from, to, url, from_folder: word(25)?, to_folder: word(33)? })
    }
}

impl Reception {
    pub(crate) async fn write(self, stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        stream
            .write_u8(match self {
                Self::Welcome => 0,
                Self::OtherCluster => 1,
                Self::OtherMember => 2,
                Self::Removed => 3,
                Self::Wiped => 4,
            })
            .await?;
        stream.flush().await
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        match stream.read_u8().await? {
            0 => Ok(Self::Welcome),
            1 => Ok(Self::OtherCluster),
            2 => Ok(Self::OtherMember),
            3 => Ok(Self::Removed),
            4 => Ok(Self::Wiped),
            other => Err(wrong(format!("a greeting was answered by {other}"))),
        }
    }
}

#[cfg(test)]
mod tests;
