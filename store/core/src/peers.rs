//! What peers say to each other, as bytes.
//!
//! A connection carries [`Frame`]s one way, from who dialled. It begins with a [`Greeting`], which is answered by one
//! byte, a [`Reception`], so that nobody talks to the wrong cluster, to another member behind the same address, or on
//! behalf of a member that was removed. The shell puts a length before each.
//!
//! Invariants
//!   P1  What is decoded encodes to what was decoded from, or means the same: nothing is taken for something else.
//!   P2  No bytes make decoding panic, or take memory beyond a multiple of their length.

use bytes::Bytes;
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::Message;

use crate::wire::{PeerAnswer, PeerQuestion};

/// Tells this protocol, and its version, from others.
const MAGIC: [u8; 5] = *b"KLSN\x01";

const RAFT: u8 = 0;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;

/// Why bytes are none of what peers say.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Nothing at all.
    #[error("an empty frame")]
    Empty,
    /// A kind that this version doesn't know.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// A raft message that isn't one.
    #[error("a raft message can't be read")]
    Raft(#[source] protobuf::ProtobufError),
    /// A question or an answer that isn't one.
    #[error("a question or an answer can't be read")]
    Question(#[source] prost::DecodeError),
    /// A ping that isn't eight bytes.
    #[error("a ping's time is {0} bytes long instead of 8")]
    Ping(usize),
    /// Another program, or another version of this one.
    #[error("not a member of this version")]
    Foreign,
    /// A greeting that wants what this version doesn't know.
    #[error("a greeting for an unknown purpose")]
    Purpose,
    /// A greeting that ends too early.
    #[error("a greeting is cut short")]
    Short,
    /// A greeting whose URL is no text.
    #[error("a greeting's URL is no text")]
    Url(#[source] std::string::FromUtf8Error),
    /// A reception that this version doesn't know.
    #[error("a greeting was answered by {0}")]
    Reception(u8),
}

/// What goes to a peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Raft's own.
    Raft(Box<Message>),
    /// For the leader.
    Question(PeerQuestion),
    /// The leader's.
    Answer(PeerAnswer),
    /// To be sent back as a [`Frame::Pong`]; its maker's microseconds.
    Ping(u64),
    /// A ping that came back.
    Pong(u64),
}

impl Frame {
    /// Its bytes.
    ///
    /// # Errors
    /// If a raft message is larger than 2 GiB.
    pub fn encode(&self) -> Result<Vec<u8>, Unreadable> {
        let mut out = Vec::new();
        match self {
            Self::Raft(message) => {
                out.push(RAFT);
                message.write_to_vec(&mut out).map_err(Unreadable::Raft)?;
            }
            // Into a `Vec`, which grows: it can't fail.
            Self::Question(question) => {
                out.push(QUESTION);
                out.extend(question.encode_to_vec());
            }
            Self::Answer(answer) => {
                out.push(ANSWER);
                out.extend(answer.encode_to_vec());
            }
            Self::Ping(made) => {
                out.push(PING);
                out.extend_from_slice(&made.to_be_bytes());
            }
            Self::Pong(made) => {
                out.push(PONG);
                out.extend_from_slice(&made.to_be_bytes());
            }
        }
        Ok(out)
    }

    /// Reads all of the bytes.
    ///
    /// # Errors
    /// [`Unreadable`] says what is wrong.
    pub fn decode(bytes: &Bytes) -> Result<Self, Unreadable> {
        let (kind, rest) = bytes.split_first().ok_or(Unreadable::Empty)?;
        let time = || rest.try_into().map(u64::from_be_bytes).map_err(|_| Unreadable::Ping(rest.len()));
        match *kind {
            // Entries share the frame's memory.
            RAFT => {
                let message = Message::parse_from_carllerche_bytes(&bytes.slice(1..)).map_err(Unreadable::Raft)?;
                Ok(Self::Raft(Box::new(message)))
            }
            QUESTION => Ok(Self::Question(PeerQuestion::decode(rest).map_err(Unreadable::Question)?)),
            ANSWER => Ok(Self::Answer(PeerAnswer::decode(rest).map_err(Unreadable::Question)?)),
            PING => Ok(Self::Ping(time()?)),
            PONG => Ok(Self::Pong(time()?)),
            other => Err(Unreadable::Kind(other)),
        }
    }
}

/// What somebody who dials wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
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
pub struct Greeting {
    /// What the sender wants.
    pub purpose: Purpose,
    /// The sender's cluster.
    pub cluster_id: u64,
    /// The sender.
    pub from: u64,
    /// Whom the sender looks for.
    pub to: u64,
    /// Where the sender can be reached: the other side may not know it yet.
    pub url: String,
    /// The sender's folder.
    pub from_folder: u64,
    /// The folder that the receiver had when it last told; 0 if it didn't.
    pub to_folder: u64,
}

impl Greeting {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
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
        bytes
    }

    /// Reads all of the bytes.
    ///
    /// # Errors
    /// [`Unreadable`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(Unreadable::Foreign)?;
        let purpose = match rest.first() {
            Some(0) => Purpose::Talk,
            Some(1) => Purpose::Join,
            Some(2) => Purpose::Snapshot,
            _ => return Err(Unreadable::Purpose),
        };
        let word = |at: usize| {
            let bytes = rest.get(at..at + 8).and_then(|w| w.try_into().ok());
            bytes.map(u64::from_be_bytes).ok_or(Unreadable::Short)
        };
        let (cluster_id, from, to) = (word(1)?, word(9)?, word(17)?);
        let url = String::from_utf8(rest.get(41..).unwrap_or_default().to_vec()).map_err(Unreadable::Url)?;
        Ok(Self { purpose, cluster_id, from, to, url, from_folder: word(25)?, to_folder: word(33)? })
    }
}

/// How a greeting is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// Go on.
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

impl Reception {
    /// Its byte.
    #[must_use]
    pub fn encode(self) -> u8 {
        match self {
            Self::Welcome => 0,
            Self::OtherCluster => 1,
            Self::OtherMember => 2,
            Self::Removed => 3,
            Self::Wiped => 4,
        }
    }

    /// Reads the byte.
    ///
    /// # Errors
    /// [`Unreadable::Reception`] if this version doesn't know it.
    pub fn decode(byte: u8) -> Result<Self, Unreadable> {
        let all = [Self::Welcome, Self::OtherCluster, Self::OtherMember, Self::Removed, Self::Wiped];
        all.into_iter().find(|one| one.encode() == byte).ok_or(Unreadable::Reception(byte))
    }
}

#[cfg(test)]
mod tests;
