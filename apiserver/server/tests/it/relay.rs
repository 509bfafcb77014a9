//! A relay between an apiserver and its store that loses an answer.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// What the relay does with what passes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mood {
    /// All passes.
    Open,
    /// All passes, until somebody sends these bytes.
    Wait(Vec<u8>),
    /// What the store answers is lost, and nobody else is let in.
    Lose,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    /// Who is connected: ends of clients and of the store.
    connected: Vec<TcpStream>,
}

/// Relays to the store until the process ends. Clones are the same relay.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Relay {
    /// Starts a relay to an URL such as `http://127.0.0.1:2379`.
    pub(crate) fn start(store: &str) -> Self {
        let store: SocketAddr = store.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let state = State { mood: Mood::Open, connected: Vec::new() };
        let relay = Self { url, state: Arc::new(Mutex::new(state)) };
        let accepting = relay.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Whoever isn't let in finds the connection closed.
                let _ = accepting.connect(client, store);
            }
        });
        relay
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// From when somebody sends these bytes on, answers are lost, and nobody else is let in.
    pub(crate) fn lose(&self, bytes: &str) {
        self.state().mood = Mood::Wait(bytes.as_bytes().to_vec());
    }

    /// Whoever waits for a lost answer is cut off; whoever comes from now on is let in.
    pub(crate) fn open(&self) {
        let mut state = self.state();
        state.mood = Mood::Open;
        for stream in state.connected.drain(..) {
            // It may have gone by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn connect(&self, client: TcpStream, store: SocketAddr) -> std::io::Result<()> {
        let mut state = self.state();
        if state.mood == Mood::Lose {
            return Ok(());
        }
        let server = TcpStream::connect(store)?;
        state.connected.extend([client.try_clone()?, server.try_clone()?]);
        let (to_client, from_server) = (client.try_clone()?, server.try_clone()?);
        let (asking, answering) = (self.clone(), self.clone());
        std::thread::spawn(move || pass_on(client, server, |sent| asking.hears(sent)));
        std::thread::spawn(move || pass_on(from_server, to_client, |_| answering.state().mood != Mood::Lose));
        Ok(())
    }

    /// What a client sends always passes.
    fn hears(&self, sent: &[u8]) -> bool {
        let mut state = self.state();
        if matches!(&state.mood, Mood::Wait(wanted) if sent.windows(wanted.len()).any(|part| part == wanted)) {
            state.mood = Mood::Lose;
        }
        true
    }
}

/// Copies what `passes` until one side ends; the rest is lost.
fn pass_on(mut from: TcpStream, mut to: TcpStream, passes: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if passes(&buffer[..count]) && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
