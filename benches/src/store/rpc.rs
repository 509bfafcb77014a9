//! Requests over HTTP/2: what a load spends on itself, the members lack.
//!
//! Problem. On cores that client and members share, a general client costs as much as a member: it hides what members
//!          differ in.
//! Idea.    A connection is one task. What its callers ask for in one turn of the scheduler leaves in one write; answers are
//!          looked through as they come, and nothing is decoded that nobody asks for.
//!
//! A caller asks its members by turns. One that can't be reached is left out until it can be. A request that was sent isn't
//! sent again, because it may have been carried out.

mod connection;
mod fields;
pub(super) mod messages;
pub(super) mod page;
mod target;
#[cfg(test)]
mod tests;
pub(super) mod watching;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use prost::Message;
use tokio::sync::Mutex;

use target::Target;
pub(super) use target::Trust;

/// Bytes before a message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// An answer may be as large as this: a list at once.
const ANSWER_MAX: usize = 1 << 30;
/// A member that couldn't be reached is tried again after this.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// What gRPC's codes are called, from 0 on.
const CODES: [&str; 17] = [
    "Ok",
    "Cancelled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Why a request didn't succeed; the same reason in the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Error {
    /// The member refused: the code's name, and what it said.
    Refused(&'static str, String),
    /// Nobody answered.
    Unavailable(String),
    /// The answer isn't what it must be.
    Wrong(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code, message) => write!(f, "{code}: {message}"),
            Self::Unavailable(why) => write!(f, "Unavailable: {why}"),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

/// The request or its answer was lost with the connection, or the connection with it.
fn broken(error: h2::Error) -> Error {
    Error::Unavailable(error.to_string())
}

/// What can be asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rpc {
    /// Writes a key.
    Put,
    /// Reads keys.
    Range,
    /// Compares, then writes and reads.
    Txn,
    /// Takes keys away.
    DeleteRange,
    /// Watches keys.
    Watch,
}

impl Rpc {
    const ALL: [Self; 5] = [Self::Put, Self::Range, Self::Txn, Self::DeleteRange, Self::Watch];

    fn path(self) -> String {
        let service = if matches!(self, Self::Watch) { "Watch" } else { "KV" };
        format!("/etcdserverpb.{service}/{self:?}")
    }
}

/// What looks through an answer while it comes.
pub(super) trait Answer {
    /// The next bytes, as many as there happen to be.
    ///
    /// # Errors
    /// If they can't belong to an answer.
    fn piece(&mut self, piece: &[u8]) -> Result<(), Error>;
}

impl Answer for Vec<u8> {
    fn piece(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.extend_from_slice(piece);
        Ok(())
    }
}

/// A connection that may be opened again: how it stands.
enum Link {
    Never,
    Open(SendRequest<Bytes>),
    Failed(Instant, Error),
}

/// A member, and what is the same in all that it is asked.
struct Member {
    target: Target,
    heads: [Request<()>; 5],
    link: Mutex<Link>,
}

impl Member {
    fn new(target: Target) -> Self {
        let heads = Rpc::ALL.map(|rpc| head(&target, rpc));
        Self { target, heads, link: Mutex::new(Link::Never) }
    }

    /// The connection; of all who ask at once one opens it.
    async fn connected(&self) -> Result<SendRequest<Bytes>, Error> {
        let mut link = self.link.lock().await;
        match &*link {
            Link::Open(requests) => {
                if let Ok(ready) = requests.clone().ready().await {
                    return Ok(ready);
                }
            }
            Link::Failed(at, why) if at.elapsed() < RETRY_AFTER => return Err(why.clone()),
            Link::Never | Link::Failed(..) => {}
        }
        let opened = connection::open(&self.target).await;
        *link = match &opened {
            Ok(requests) => Link::Open(requests.clone()),
            Err(why) => Link::Failed(Instant::now(), why.clone()),
        };
        opened
    }
}

fn head(target: &Target, rpc: Rpc) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = target.uri(&rpc.path());
    let headers = request.headers_mut();
    headers.insert(header::TE, http::HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    request
}

/// A connection to a member, or to each of several.
#[derive(Clone)]
pub(super) struct Channel(Arc<[Member]>);

impl Channel {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// If an endpoint is none, or asks for certificates that aren't there.
    pub(super) fn new(endpoints: &[String], trust: &Trust) -> anyhow::Result<Self> {
        let members = endpoints.iter().map(|endpoint| Ok(Member::new(Target::parse(endpoint, trust)?)));
        Ok(Self(members.collect::<anyhow::Result<_>>()?))
    }

    /// One who asks, beginning with the member whose turn it is at `turn`.
    pub(super) fn caller(&self, turn: usize) -> Caller {
        Caller { open: vec![None; self.0.len()], turn, members: Arc::clone(&self.0), whole: Vec::new() }
    }
}

/// One who asks one thing after the other.
pub(super) struct Caller {
    members: Arc<[Member]>,
    /// The connections that worked last.
    open: Vec<Option<SendRequest<Bytes>>>,
    turn: usize,
    /// The answer before; its memory serves for the next.
    whole: Vec<u8>,
}

impl Caller {
    /// Asks, and decodes the answer.
    pub(super) async fn ask<A: Message + Default>(&mut self, rpc: Rpc, request: &impl Message) -> Result<A, Error> {
        let mut whole = std::mem::take(&mut self.whole);
        whole.clear();
        self.look(rpc, request, &mut whole).await?;
        let answer = A::decode(whole.as_slice()).map_err(|_| Error::Wrong("an answer can't be decoded"));
        self.whole = whole;
        answer
    }

    /// Asks, and looks through the answer.
    pub(super) async fn look(
        &mut self,
        rpc: Rpc,
        request: &impl Message,
        answer: &mut impl Answer,
    ) -> Result<(), Error> {
        let bytes = framed(request)?;
        let (at, mut requests) = self.ready().await?;
        let head = self.members[at].heads[rpc as usize].clone();
        let (response, mut body) = requests.send_request(head, false).map_err(broken)?;
        body.send_data(bytes, true).map_err(broken)?;
        self.open[at] = Some(requests);
        take(response.await.map_err(broken)?, answer).await
    }

    /// The connection whose turn it is, or the next that there is.
    async fn ready(&mut self) -> Result<(usize, SendRequest<Bytes>), Error> {
        let mut why = Error::Unavailable("no endpoints".to_owned());
        for _ in 0..self.members.len() {
            let at = self.turn % self.members.len();
            self.turn = at + 1;
            if let Some(requests) = self.open[at].take()
                && let Ok(ready) = requests.ready().await
            {
                return Ok((at, ready));
            }
            match self.members[at].connected().await {
                Ok(ready) => return Ok((at, ready)),
                Err(error) => why = error,
            }
        }
        Err(why)
    }
}

/// A request as it is sent.
fn framed(request: &impl Message) -> Result<Bytes, Error> {
    let length = request.encoded_len();
    let mut bytes = BytesMut::with_capacity(HEAD + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).map_err(|_| Error::Wrong("a request is too large"))?);
    request.encode_raw(&mut bytes);
    Ok(bytes.freeze())
}

/// An answer's message to who looks through it, and how the request ended.
async fn take(response: Response<h2::RecvStream>, answer: &mut impl Answer) -> Result<(), Error> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(Error::Unavailable(format!("HTTP {}", head.status)));
    }
    let mut message = Frame::default();
    while let Some(piece) = body.data().await {
        // The window is larger than any answer; with the body's end the connection's is given back.
        message.take(&piece.map_err(broken)?, answer)?;
    }
    let trailers = body.trailers().await.map_err(broken)?;
    // What is refused at once has no trailers: its only headers say so.
    status(trailers.as_ref().unwrap_or(&head.headers))?;
    message.end()
}

/// How a request ended.
fn status(headers: &HeaderMap) -> Result<(), Error> {
    let code = headers.get("grpc-status").ok_or(Error::Wrong("an answer without an end"))?;
    if code == "0" {
        return Ok(());
    }
    let number = code.to_str().ok().and_then(|code| code.parse::<usize>().ok());
    let name = number.and_then(|number| CODES.get(number)).unwrap_or(&"Unknown");
    let message = headers.get("grpc-message").map_or(&b""[..], http::HeaderValue::as_bytes);
    Err(Error::Refused(name, percent_encoding::percent_decode(message).decode_utf8_lossy().into_owned()))
}

/// Where in an answer's one message its pieces stand.
#[derive(Default)]
struct Frame {
    head: [u8; HEAD],
    /// Bytes of the head that came.
    came: usize,
    /// Bytes of the message that didn't.
    left: usize,
}

impl Frame {
    fn take(&mut self, mut piece: &[u8], answer: &mut impl Answer) -> Result<(), Error> {
        if self.came < HEAD {
            let (begin, rest) = piece.split_at(piece.len().min(HEAD - self.came));
            self.head[self.came..self.came + begin.len()].copy_from_slice(begin);
            self.came += begin.len();
            piece = rest;
            if self.came < HEAD {
                return Ok(());
            }
            let [compressed, length @ ..] = self.head;
            self.left = u32::from_be_bytes(length) as usize;
            if compressed != 0 || self.left > ANSWER_MAX {
                return Err(Error::Wrong("an answer is compressed, or too large"));
            }
        }
        self.left = self.left.checked_sub(piece.len()).ok_or(Error::Wrong("a second answer"))?;
        answer.piece(piece)
    }

    fn end(&self) -> Result<(), Error> {
        if self.came == HEAD && self.left == 0 { Ok(()) } else { Err(Error::Wrong("an answer is cut off")) }
    }
}
