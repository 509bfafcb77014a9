//! The model in a browser: states one by one, by hand.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;
use stateright::Model as _;

use super::Bounds;
use super::cluster::Cluster;

/// Where the browser finds the model, and how much of it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Explorer {
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    /// Where the browser finds it; a port of the system's choice if it is 0.
    #[arg(long, default_value = "127.0.0.1:3000")]
    pub(crate) address: SocketAddr,
}

/// Serves the model to browsers until the process ends.
///
/// # Errors
/// If nothing can be served at the address.
pub(crate) fn serve(explorer: &Explorer, out: &mut dyn Write) -> anyhow::Result<()> {
    let address = free(explorer.address)?;
    let bounds = explorer.bounds.resolved();
    writeln!(out, "http://{address}/")?;
    let threads = bounds.threads;
    Cluster::new(bounds).checker().threads(threads).serve(address);
    Ok(())
}

/// The address, with a port. stateright panics where it can't listen, and doesn't tell where it does.
fn free(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening at {address}"))?;
    listener.local_addr().context("asking for the port")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;
    use std::time::Duration;

    use super::super::tests::small;
    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        // Without it the answer might come in chunks.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("asking");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    #[test]
    fn a_browser_is_shown_states() {
        let address = free(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let explorer = Explorer { bounds: small(), address };
        // It serves until the tests end.
        std::thread::spawn(move || serve(&explorer, &mut std::io::sink()));
        let start = get(address, "/.states/");
        assert!(start.contains("member 3: Follower term 1 log 1@1 []"), "{start}");
        let steps = get(address, "/.states/0");
        assert!(steps.contains("member 2 waited in vain for a leader"), "{steps}");
        assert!(steps.contains("on the wire: 2 → 1: RequestPreVote"), "{steps}");
    }
}
