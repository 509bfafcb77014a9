//! What peers say to each other, on its way: a length, then the bytes of `store_core::peers`.

use store_core::peers::{Frame, Greeting, Reception};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Larger than any message: entries come in batches of a MiB or alone, and a request is a few MiB at most.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// Space that is made for what was announced, before it comes.
const SPACE_BYTES_MAX: usize = 1 << 20;
/// A greeting names one URL.
const GREETING_BYTES_MAX: usize = 4096;

fn wrong(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

/// Writes a frame; returns its length.
pub(crate) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> std::io::Result<u64> {
    let bytes = frame.encode().map_err(wrong)?;
    write_bytes(stream, &bytes).await?;
    Ok(bytes.len() as u64)
}

/// Reads a frame, and its length.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(Frame, u64)> {
    let bytes = read_bytes(stream, FRAME_BYTES_MAX).await?.into();
    Ok((Frame::decode(&bytes).map_err(wrong)?, bytes.len() as u64))
}

/// Says who dials, and what for.
pub(crate) async fn write_greeting(stream: &mut (impl AsyncWrite + Unpin), greeting: &Greeting) -> std::io::Result<()> {
    write_bytes(stream, &greeting.encode()).await?;
    stream.flush().await
}

/// Reads who dials.
pub(crate) async fn read_greeting(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Greeting> {
    Greeting::decode(&read_bytes(stream, GREETING_BYTES_MAX).await?).map_err(wrong)
}

/// Answers a greeting.
pub(crate) async fn write_reception(
    stream: &mut (impl AsyncWrite + Unpin),
    reception: Reception,
) -> std::io::Result<()> {
    stream.write_u8(reception.encode()).await?;
    stream.flush().await
}

/// Reads how a greeting was answered.
pub(crate) async fn read_reception(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Reception> {
    Reception::decode(stream.read_u8().await?).map_err(wrong)
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
    read_exactly(stream, length).await
}

/// So many bytes.
pub(crate) async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), length: usize) -> std::io::Result<Vec<u8>> {
    // Beyond this, space grows with what really comes, not with what was announced.
    let mut bytes = Vec::with_capacity(length.min(SPACE_BYTES_MAX));
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests;
