//! Where clients are served: TCP or a socket in the file system.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Place, place};
use crate::{ConfigError, ServeError};

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Something that accepts connections.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "held until the listener goes")] Socket),
}

/// A socket's file; it goes with its listener.
pub(crate) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "removing a socket");
        }
    }
}

/// Listens at a URL; also says whether TLS is to be spoken there.
pub(crate) async fn listen(url: &str) -> Result<(bool, Listener), ServeError> {
    let failed = |source| ServeError::Listen { url: url.to_owned(), source };
    match place(url)? {
        Place::Tcp { secure, address } => {
            Ok((secure, Listener::Tcp(TcpListener::bind(address).await.map_err(failed)?)))
        }
        Place::Unix { secure, path } => {
            remove_leftover(&path).map_err(failed)?;
            let listener = UnixListener::bind(&path).map_err(failed)?;
            Ok((secure, Listener::Unix(listener, Socket(path))))
        }
    }
}

/// A socket that nobody listens at any more is what a killed member left.
fn remove_leftover(path: &Path) -> std::io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// A TCP listener, which is all that peers use.
pub(crate) async fn listen_tcp(url: &str) -> Result<(bool, TcpListener), ServeError> {
    match listen(url).await? {
        (secure, Listener::Tcp(listener)) => Ok((secure, listener)),
        (_, Listener::Unix(..)) => Err(ConfigError::of(format!("{url}: peers are served over TCP")).into()),
    }
}

impl Listener {
    /// The next connection.
    pub(crate) async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Latency matters more than full packets; a socket that refuses still works.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            Self::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}
